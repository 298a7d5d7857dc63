//! Whether the chart's admission policies are where they can be. A chart that was rendered for a server before 1.30 has
//! none, and nothing brings them when the cluster is upgraded.

use std::convert::Infallible;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::{Api, Client};

use super::error::{Error, IntoError as _};
use crate::metrics::Metrics;
use crate::plan::version;

/// The first release of Kubernetes that serves them.
const SINCE: (u64, u64) = (1, 30);
/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_secs(600);

/// Says in the log and in a metric which policies are missing, until the future is dropped.
pub(super) async fn watch(client: &Client, names: &[String], metrics: &Metrics) -> Infallible {
    let mut said = None;
    loop {
        match missing(client, names).await {
            Ok(missing) => {
                metrics.policies_missing(missing.len());
                if !missing.is_empty() && said.as_ref() != Some(&missing) {
                    tracing::warn!(
                        ?missing,
                        "the API server could limit what the controller and the agents may do, and the chart's admission \
                         policies are missing; run `helm upgrade`, which renders them for this server"
                    );
                }
                said = Some(missing);
            }
            Err(error) => tracing::debug!(%error, "the admission policies could not be read"),
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// The policies of these names that no binding puts into force, where the server could have them.
pub(super) async fn missing(client: &Client, names: &[String]) -> Result<Vec<String>, Error> {
    let version = client
        .apiserver_version()
        .await
        .during(|| "asking the API server for its version".to_owned())?;
    // A server that was built by hand may have no `minor`.
    let release = version::upstream(&version.git_version);
    if release.is_some_and(|release| (release.major, release.minor) < SINCE) {
        return Ok(Vec::new());
    }
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    let mut missing = Vec::new();
    for name in names {
        let present = bindings
            .get_metadata_opt(name)
            .await
            .during(|| format!("reading ValidatingAdmissionPolicyBinding {name}"))?;
        if present.is_none() {
            missing.push(name.clone());
        }
    }
    Ok(missing)
}
