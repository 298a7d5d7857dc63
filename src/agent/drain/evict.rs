//! One eviction. The request is written by ourselves: the client library sends the delete options under a name
//! that the server ignores. It must go through a client without retries: an exhausted budget is answered with
//! 429, which the library would retry for minutes before anybody sees it.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::version::Info};
use kube::{Client, ResourceExt as _, core::Status};
use serde_json::{Value, json};

use crate::api::request::Drain;

/// Cause in a 429 that comes from a budget and not from a server that is busy.
const BUDGET_CAUSE: &str = "DisruptionBudget";
/// Cause in a 403 for a pod whose namespace is on its way out.
const NAMESPACE_CAUSE: &str = "NamespaceTerminating";

/// The form of the request that a server understands: `policy/v1` came with 1.22.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvictionVersion {
    /// `policy/v1`.
    V1,
    /// `policy/v1beta1`.
    V1Beta1,
}

impl EvictionVersion {
    /// The newest form that a server of this version understands. Vendors put a `+` behind the minor number.
    pub fn of(server: &Info) -> Self {
        let number = |text: &str| {
            text.chars()
                .take_while(char::is_ascii_digit)
                .collect::<String>()
                .parse::<u32>()
                .unwrap_or(0)
        };
        if (number(&server.major), number(&server.minor)) >= (1, 22) {
            Self::V1
        } else {
            Self::V1Beta1
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::V1 => "policy/v1",
            Self::V1Beta1 => "policy/v1beta1",
        }
    }
}

/// What the server said to an eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The pod is ending, or it is gone already, or another one bears its name by now.
    Going,
    /// Not now; worth another attempt later. The sentence says why and names the budget.
    Refused(String),
}

/// Asks for the eviction of exactly this pod (its UID is a precondition).
///
/// # Errors
/// When the server cannot be reached or does not let this identity evict.
pub async fn evict(
    client: &Client,
    version: EvictionVersion,
    pod: &Pod,
    drain: &Drain,
) -> Result<Answer, kube::Error> {
    let path = format!(
        "/api/v1/namespaces/{}/pods/{}/eviction",
        pod.namespace().unwrap_or_default(),
        pod.name_any()
    );
    let request = http::Request::post(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body(version, pod, drain).to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    match client.request::<Status>(request).await {
        // Some refusals come as a Status of failure under a code of success.
        Ok(status) if !status.is_failure() => Ok(Answer::Going),
        Ok(status) => answer(&status).ok_or_else(|| kube::Error::Api(status.boxed())),
        Err(kube::Error::Api(status)) => answer(&status).ok_or(kube::Error::Api(status)),
        Err(error) => Err(error),
    }
}

/// The request: an `Eviction` with the pod's UID as precondition.
fn body(version: EvictionVersion, pod: &Pod, drain: &Drain) -> Value {
    let mut options = json!({ "preconditions": { "uid": pod.uid() } });
    if drain.grace_period >= 0 {
        options["gracePeriodSeconds"] = drain.grace_period.into();
    }
    json!({
        "apiVersion": version.name(),
        "kind": "Eviction",
        "metadata": { "name": pod.name_any(), "namespace": pod.namespace() },
        "deleteOptions": options,
    })
}

/// What a refusal means; nothing when it is no answer about this pod.
fn answer(status: &Status) -> Option<Answer> {
    let cause = |reason: &str| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().find(|cause| cause.reason == reason)
    };
    match status.code {
        404 => Some(Answer::Going),
        // The precondition: the pod is another one. Or it changed in that moment. The next look tells.
        409 => Some(Answer::Refused(format!(
            "it changed while it was evicted: {}",
            status.message
        ))),
        429 => Some(Answer::Refused(match cause(BUDGET_CAUSE) {
            Some(cause) => budget(&cause.message),
            None => format!("the API server is busy: {}", status.message),
        })),
        403 if cause(NAMESPACE_CAUSE).is_some() => Some(Answer::Refused(
            "its namespace is being deleted, and it with it".to_owned(),
        )),
        // The server refuses pods with several budgets for ever; it has no code of its own for that.
        500 if status.message.contains("more than one PodDisruptionBudget") => Some(Answer::Refused(
            format!("{} Remove all budgets but one from this pod.", status.message),
        )),
        500 | 503 | 504 => Some(Answer::Refused(format!(
            "the API server did not manage to: {}",
            status.message
        ))),
        _ => None,
    }
}

/// The server's sentence about a budget, opening with the budget's name:
/// `The disruption budget NAME needs 2 healthy pods and has 2 currently`.
fn budget(sentence: &str) -> String {
    sentence
        .strip_prefix("The disruption budget ")
        .and_then(|rest| rest.split_once(' '))
        .map_or_else(
            || format!("a PodDisruptionBudget does not allow it: {sentence}"),
            |(name, rest)| format!("PodDisruptionBudget {name} {rest}"),
        )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn server(major: &str, minor: &str) -> Info {
        Info {
            major: major.to_owned(),
            minor: minor.to_owned(),
            ..Info::default()
        }
    }

    #[rstest]
    #[case("1", "20", EvictionVersion::V1Beta1)]
    #[case("1", "21+", EvictionVersion::V1Beta1)]
    #[case("1", "22", EvictionVersion::V1)]
    #[case("1", "23+", EvictionVersion::V1)]
    #[case("2", "0", EvictionVersion::V1)]
    fn old_servers_get_the_old_form(
        #[case] major: &str,
        #[case] minor: &str,
        #[case] expected: EvictionVersion,
    ) {
        assert_eq!(EvictionVersion::of(&server(major, minor)), expected);
    }

    fn pod() -> Pod {
        serde_json::from_value(json!({ "metadata": { "name": "web-0", "namespace": "shop", "uid": "u1" } }))
            .unwrap()
    }

    #[test]
    fn the_request_names_the_pod_by_its_uid() {
        let drain = Drain {
            grace_period: 7,
            ..Drain::default()
        };
        assert_eq!(
            body(EvictionVersion::V1Beta1, &pod(), &drain),
            json!({
                "apiVersion": "policy/v1beta1",
                "kind": "Eviction",
                "metadata": { "name": "web-0", "namespace": "shop" },
                "deleteOptions": { "preconditions": { "uid": "u1" }, "gracePeriodSeconds": 7 },
            })
        );
    }

    #[test]
    fn the_pods_own_grace_period_is_the_default() {
        let body = body(EvictionVersion::V1, &pod(), &Drain::default());
        assert_eq!(body["deleteOptions"], json!({ "preconditions": { "uid": "u1" } }));
    }

    fn status(code: u16, message: &str, cause: Option<(&str, &str)>) -> Status {
        let causes: Vec<_> = cause
            .iter()
            .map(|(reason, message)| json!({ "reason": reason, "message": message }))
            .collect();
        serde_json::from_value(json!({
            "status": "Failure", "code": code, "message": message, "details": { "causes": causes },
        }))
        .unwrap()
    }

    #[rstest]
    #[case::gone(status(404, "pods \"web-0\" not found", None), Some("going"))]
    #[case::exhausted(
        status(429, "Cannot evict pod", Some(("DisruptionBudget",
            "The disruption budget web needs 2 healthy pods and has 2 currently"))),
        Some("PodDisruptionBudget web needs 2 healthy pods and has 2 currently")
    )]
    #[case::not_observed(
        status(429, "Cannot evict pod", Some(("DisruptionBudget",
            "The disruption budget web is still being processed by the server."))),
        Some("PodDisruptionBudget web is still being processed by the server.")
    )]
    #[case::other_words(
        status(429, "Cannot evict pod", Some(("DisruptionBudget", "no"))),
        Some("a PodDisruptionBudget does not allow it: no")
    )]
    #[case::busy(status(429, "too many", None), Some("the API server is busy: too many"))]
    #[case::namespace(
        status(403, "forbidden", Some(("NamespaceTerminating", "namespace shop is being terminated"))),
        Some("its namespace is being deleted, and it with it")
    )]
    #[case::two_budgets(
        status(
            500,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not \
            support.",
            None
        ),
        Some(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support. \
            Remove all budgets but one from this pod."
        )
    )]
    #[case::forbidden(status(403, "forbidden", None), None)]
    #[case::unauthorized(status(401, "unauthorized", None), None)]
    fn a_refusal_says_why(#[case] status: Status, #[case] expected: Option<&str>) {
        let said = answer(&status).map(|answer| match answer {
            Answer::Going => "going".to_owned(),
            Answer::Refused(reason) => reason,
        });
        assert_eq!(said.as_deref(), expected);
    }
}
