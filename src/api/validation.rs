//! What a `RuntimeMigration` must satisfy beyond its schema, twice: as CEL rules for servers that evaluate them
//! (1.25+), and in Rust for all. `tests/api/crds.rs` holds the two to each other.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use kube::core::Selector;

use super::migration::{Mode, RuntimeMigrationSpec, Started};
use super::request::{GoDuration, Origin};
use crate::{
    plan::codes,
    plan::{digest::Digest, lists, runtime::Runtime, version},
};

/// A field that is not as it must be: where, what it is, and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}; {allowed}")]
pub struct Problem {
    /// Path of the field.
    pub field: &'static str,
    /// Its value, as text.
    pub value: String,
    /// What is allowed.
    pub allowed: &'static str,
}

const SELECTOR_EMPTY: &str = "name at least one label, so that nothing is touched by accident";
const SELECTOR_WRONG: &str = "operators are In and NotIn (with values), Exists and DoesNotExist (without)";
static RUNTIME: LazyLock<String> =
    LazyLock::new(|| format!("this version moves nodes to {}", lists::whole(&targets())));
const VERSION: &str =
    "allowed are a version (1.7.28), the beginning of one (1.7) and a semver range (>=1.6, <2)";
const PACKAGE: &str = "allowed are letters, digits and + . _ - after the first";
const PACKAGE_VERSION: &str = "a package is installed in a whole version (1.7.28)";
const URL: &str = "allowed are https://<host>/<path> and file:// with an absolute path";
const SHA256: &str = "allowed are the 64 hex digits of the archive's SHA-256";
const MAX_UNAVAILABLE: &str = "allowed are a number of nodes from 1 on, and 1% to 100%";
const MAX_FAILURES: &str = "allowed are numbers from 1 on";
const GRACE_PERIOD: &str = "allowed are seconds from 0 on, and -1 for the pod's own";
const DRAIN_TIMEOUT: &str = "allowed are durations from 1s on";
const CONFIRM_WITHIN: &str =
    "allowed are durations from 30s on: the kubelet and the agent's pod need that to report";
const APPROVED_PLAN: &str = "allowed are digests of plans: sha256: and 64 hex digits in lower case";
const ALLOW: &str = "allowed are the codes that docs/findings.md calls acceptable";
/// A drain that gives up at once evicts nothing.
const LEAST_DRAIN: GoDuration = GoDuration::from_secs(1);
/// No switch is confirmed sooner: the kubelet starts, the agent's pod starts and the Node reports Ready before.
const LEAST_CONFIRMATION: GoDuration = GoDuration::from_secs(30);
const TARGET_FIXED: &str = "it cannot change once a node was started; make another migration";
const SOURCE_FIXED: &str = "it cannot change once a node was started; make another migration";
const SELECTOR_FIXED: &str = "it cannot change once a node was started; make another migration";
const MODE_FIXED: &str = "it stays Apply once a node was started; set spec.paused to stop";

/// Names of the runtimes that nodes can be moved to, in the order of the alphabet.
fn targets() -> Vec<&'static str> {
    let mut names: Vec<&str> = Runtime::targets().map(Runtime::name).collect();
    names.sort_unstable();
    names
}

/// What is wrong with a spec, in the order of its fields. `started` is what was asked for when the first node was
/// started, as the status keeps it.
pub fn validate(spec: &RuntimeMigrationSpec, started: Option<&Started>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |holds: bool, field, value: &dyn std::fmt::Display, allowed| {
        if !holds {
            problems.push(Problem {
                field,
                value: value.to_string(),
                allowed,
            });
        }
    };
    let selector = &spec.node_selector;
    let text = || serde_json::to_string(selector).unwrap_or_default();
    let empty = selector
        .match_labels
        .as_ref()
        .is_none_or(|labels| labels.is_empty())
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(|expressions| expressions.is_empty());
    check(!empty, "spec.nodeSelector", &"empty", SELECTOR_EMPTY);
    check(
        Selector::try_from(selector.clone()).is_ok(),
        "spec.nodeSelector",
        &text(),
        SELECTOR_WRONG,
    );
    let runtime = spec.target.runtime;
    check(
        runtime.profile().is_target,
        "spec.target.runtime",
        &runtime,
        RUNTIME.as_str(),
    );
    if let Some(wanted) = &spec.target.version {
        let understood = version::requirement(wanted).is_ok();
        check(understood, "spec.target.version", wanted, VERSION);
    }
    match &spec.target.from {
        Origin::Preinstalled(_) => {}
        Origin::Package(package) => {
            let field = "spec.target.from.package.name";
            check(package.is_valid(), field, &package.name, PACKAGE);
            let version = spec.target.version.as_deref();
            let whole = version.and_then(version::exact).is_some();
            let version = version.unwrap_or("absent");
            check(whole, "spec.target.version", &version, PACKAGE_VERSION);
        }
        Origin::Archive(archive) => {
            let field = "spec.target.from.archive.url";
            check(archive.has_valid_url(), field, &archive.url, URL);
            let field = "spec.target.from.archive.sha256";
            let known = Digest::from_hex(&archive.sha256).is_some();
            check(known, field, &archive.sha256, SHA256);
        }
    }
    let most = &spec.strategy.max_unavailable;
    check(
        most.of(1).is_some(),
        "spec.strategy.maxUnavailable",
        most,
        MAX_UNAVAILABLE,
    );
    let failures = spec.strategy.max_failures;
    check(
        failures >= 1,
        "spec.strategy.maxFailures",
        &failures,
        MAX_FAILURES,
    );
    let grace = spec.drain.grace_period;
    check(grace >= -1, "spec.drain.gracePeriod", &grace, GRACE_PERIOD);
    let timeout = spec.drain.timeout;
    let long_enough = timeout >= LEAST_DRAIN;
    check(long_enough, "spec.drain.timeout", &timeout, DRAIN_TIMEOUT);
    let confirm = spec.rollback.confirm_within;
    let long_enough = confirm >= LEAST_CONFIRMATION;
    check(
        long_enough,
        "spec.rollback.confirmWithin",
        &confirm,
        CONFIRM_WITHIN,
    );
    for code in &spec.preflight.allow {
        check(codes::is_acceptable(code), "spec.preflight.allow", code, ALLOW);
    }
    for digest in &spec.approved_plans {
        check(
            Digest::is_written(digest),
            "spec.approvedPlans",
            digest,
            APPROVED_PLAN,
        );
    }
    if let Some(started) = started {
        check(spec.mode == Mode::Apply, "spec.mode", &"Plan", MODE_FIXED);
        check(
            *selector == started.node_selector,
            "spec.nodeSelector",
            &text(),
            SELECTOR_FIXED,
        );
        check(
            spec.target == started.target,
            "spec.target",
            &"another than before",
            TARGET_FIXED,
        );
        check(
            spec.source == started.source,
            "spec.source",
            &"another than before",
            SOURCE_FIXED,
        );
    }
    problems
}

/// The rules of [`validate`] that the schema itself cannot express, in CEL, on the whole object.
pub fn cel() -> Vec<ValidationRule> {
    const STARTED: &str = "has(oldSelf.status) && has(oldSelf.status.started)";
    const KEEPS: &str = "has(self.spec.source) && has(self.spec.source.keep) && self.spec.source.keep";
    let rule = |rule: String, field: &str, message: &str| ValidationRule {
        rule,
        message: Some(format!("{field}: {message}")),
        ..ValidationRule::default()
    };
    vec![
        rule(
            "(has(self.spec.nodeSelector.matchLabels) && size(self.spec.nodeSelector.matchLabels) > 0) || \
             (has(self.spec.nodeSelector.matchExpressions) && size(self.spec.nodeSelector.matchExpressions) > 0)"
                .into(),
            "spec.nodeSelector",
            SELECTOR_EMPTY,
        ),
        rule(
            "!has(self.spec.nodeSelector.matchExpressions) || self.spec.nodeSelector.matchExpressions.all(e, \
             e.operator in ['In', 'NotIn'] ? has(e.values) && size(e.values) > 0 : \
             e.operator in ['Exists', 'DoesNotExist'] && (!has(e.values) || size(e.values) == 0))"
                .into(),
            "spec.nodeSelector",
            SELECTOR_WRONG,
        ),
        rule(
            format!("self.spec.target.runtime in ['{}']", targets().join("', '")),
            "spec.target.runtime",
            RUNTIME.as_str(),
        ),
        // `package` is reserved in CEL: older servers know the field by its escaped name alone.
        rule(
            "!has(self.spec.target.from) || !has(self.spec.target.from.__package__) || \
             (has(self.spec.target.version) && \
             self.spec.target.version.matches('^v?[0-9]+[.][0-9]+[.][0-9]+([-+].*)?$'))"
                .into(),
            "spec.target.version",
            PACKAGE_VERSION,
        ),
        rule(
            format!(
                "!has(self.spec.drain) || !has(self.spec.drain.timeout) || \
                 duration(self.spec.drain.timeout) >= duration('{LEAST_DRAIN}')"
            ),
            "spec.drain.timeout",
            DRAIN_TIMEOUT,
        ),
        rule(
            format!(
                "!has(self.spec.rollback) || !has(self.spec.rollback.confirmWithin) || \
                 duration(self.spec.rollback.confirmWithin) >= duration('{LEAST_CONFIRMATION}')"
            ),
            "spec.rollback.confirmWithin",
            CONFIRM_WITHIN,
        ),
        rule(format!("!({STARTED}) || self.spec.mode == 'Apply'"), "spec.mode", MODE_FIXED),
        rule(
            format!("!({STARTED}) || self.spec.nodeSelector == oldSelf.spec.nodeSelector"),
            "spec.nodeSelector",
            SELECTOR_FIXED,
        ),
        rule(format!("!({STARTED}) || self.spec.target == oldSelf.spec.target"), "spec.target", TARGET_FIXED),
        rule(
            format!("!({STARTED}) || ({KEEPS}) == ({})", KEEPS.replace("self", "oldSelf")),
            "spec.source",
            SOURCE_FIXED,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn spec(change: serde_json::Value) -> RuntimeMigrationSpec {
        let mut spec = json!({
            "mode": "Apply",
            "nodeSelector": { "matchLabels": { "kubernetes.io/os": "linux" } },
            "target": { "runtime": "containerd" },
        });
        for (key, value) in change.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    #[rstest]
    #[case::empty_selector(json!({ "nodeSelector": {} }), "spec.nodeSelector is empty")]
    #[case::empty_labels(json!({ "nodeSelector": { "matchLabels": {} } }), "spec.nodeSelector is empty")]
    #[case::operator(
        json!({ "nodeSelector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } }),
        "spec.nodeSelector is {\"matchExpressions\""
    )]
    #[case::runtime(json!({ "target": { "runtime": "dockershim" } }), "spec.target.runtime is dockershim; this version")]
    #[case::version(
        json!({ "target": { "runtime": "containerd", "version": "newest" } }),
        "spec.target.version is newest; allowed are"
    )]
    #[case::package(
        json!({ "target": { "runtime": "containerd", "version": "1.7.28", "from": { "package": { "name": "-y" } } } }),
        "spec.target.from.package.name is -y; allowed are"
    )]
    #[case::package_in_any_version(
        json!({ "target": { "runtime": "containerd", "from": { "package": { "name": "containerd.io" } } } }),
        "spec.target.version is absent; a package"
    )]
    #[case::url(
        json!({ "target": { "runtime": "containerd", "from": { "archive": {
            "url": "http://mirror/containerd.tar.gz", "sha256": "0".repeat(64) } } } }),
        "spec.target.from.archive.url is http://mirror/containerd.tar.gz; allowed are https"
    )]
    #[case::relative_file(
        json!({ "target": { "runtime": "containerd", "from": { "archive": {
            "url": "file://containerd.tar.gz", "sha256": "0".repeat(64) } } } }),
        "spec.target.from.archive.url is file://containerd.tar.gz; allowed are https"
    )]
    #[case::sha256(
        json!({ "target": { "runtime": "containerd", "from": { "archive": {
            "url": "file:///srv/containerd.tar.gz", "sha256": "sha256:12" } } } }),
        "spec.target.from.archive.sha256 is sha256:12; allowed are the 64"
    )]
    #[case::zero(json!({ "strategy": { "maxUnavailable": 0 } }), "spec.strategy.maxUnavailable is 0; allowed")]
    #[case::percent(json!({ "strategy": { "maxUnavailable": "0%" } }), "spec.strategy.maxUnavailable is 0%")]
    #[case::much(json!({ "strategy": { "maxUnavailable": "101%" } }), "spec.strategy.maxUnavailable is 101%")]
    #[case::text(json!({ "strategy": { "maxUnavailable": "ten" } }), "spec.strategy.maxUnavailable is ten")]
    #[case::failures(json!({ "strategy": { "maxFailures": 0 } }), "spec.strategy.maxFailures is 0")]
    #[case::unknown_code(json!({ "preflight": { "allow": ["Typo"] } }), "spec.preflight.allow is Typo; allowed are")]
    #[case::no_way_round(json!({ "preflight": { "allow": ["NoKubelet"] } }), "spec.preflight.allow is NoKubelet")]
    #[case::no_digest(json!({ "approvedPlans": ["0123456789ab"] }), "spec.approvedPlans is 0123456789ab; allowed are")]
    #[case::no_drain(json!({ "drain": { "timeout": "0s" } }), "spec.drain.timeout is 0s; allowed are durations from")]
    #[case::no_confirmation(
        json!({ "rollback": { "confirmWithin": "29s" } }),
        "spec.rollback.confirmWithin is 29s; allowed are durations from 30s"
    )]
    #[case::grace(json!({ "drain": { "gracePeriod": -2 } }), "spec.drain.gracePeriod is -2")]
    fn names_the_field_the_value_and_what_is_allowed(
        #[case] change: serde_json::Value,
        #[case] expected: &str,
    ) {
        let problems = validate(&spec(change), None);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().starts_with(expected), "{}", problems[0]);
    }

    #[test]
    fn exactly_one_origin_is_named() {
        let origin = |from: serde_json::Value| {
            let target = json!({ "runtime": "containerd", "from": from });
            serde_json::from_value::<crate::api::request::Target>(target).is_ok()
        };
        let archive = json!({ "url": "file:///srv/a.tgz", "sha256": "0".repeat(64) });
        assert!(origin(json!({ "preinstalled": {} })) && origin(json!({ "archive": archive })));
        assert!(origin(json!({ "package": { "name": "containerd.io" } })));
        assert!(!origin(json!({})) && !origin(json!({ "preinstalled": {}, "archive": archive })));
        assert!(!origin(json!({ "archive": { "url": "file:///srv/a.tgz" } })));
    }

    #[test]
    fn strategy_and_pause_can_change_after_the_start_and_the_rest_cannot() {
        let first = spec(json!({}));
        let started = Started {
            node_selector: first.node_selector.clone(),
            target: first.target.clone(),
            source: first.source.clone(),
        };
        let free = spec(json!({ "paused": true, "strategy": { "maxUnavailable": "20%" } }));
        assert_eq!(validate(&free, Some(&started)), []);
        for (change, field) in [
            (json!({ "mode": "Plan" }), "spec.mode"),
            (
                json!({ "nodeSelector": { "matchLabels": { "a": "b" } } }),
                "spec.nodeSelector",
            ),
            (
                json!({ "target": { "runtime": "containerd", "version": "1.7" } }),
                "spec.target",
            ),
            (json!({ "source": { "keep": true } }), "spec.source"),
        ] {
            let problems = validate(&spec(change.clone()), Some(&started));
            assert_eq!(problems.iter().map(|p| p.field).collect::<Vec<_>>(), [field]);
            assert_eq!(validate(&spec(change), None), []);
        }
    }
}
