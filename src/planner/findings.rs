//! Preflight: every check is a pure function of what was found and what is asked for.
//! Every kind is in [`codes`](crate::plan::codes).

pub mod approval;
pub mod attempts;
pub mod bindings;
pub mod configuration;
pub mod containers;
pub mod drain;
pub mod images;
pub mod kubeadm;
pub mod kubelet;
pub mod network;
pub mod pod_environment;
pub mod pods;
pub mod prerequisites;
pub mod registries;
pub mod rivals;
pub mod runtimes;
pub mod settings;
pub mod storage;
pub mod upgrade;

use crate::{
    plan::{
        codes::{ALLOWED_CODE_UNKNOWN, acceptable_codes, all_codes},
        facts::Facts,
        finding::{Finding, Severity},
    },
    planner::{context::View, request::Request},
};

/// What the remedy of an accepted finding begins with.
const ACCEPTED: &str = "Accepted by preflight.allow.";

/// The findings of a pair that the planner makes from the facts; what could not be read and earlier attempts come with them in
/// [`plan`](crate::planner::plan).
pub fn all(view: &View<'_>) -> Vec<Finding> {
    [
        kubelet::check(view),
        (view.parts.0.check)(view),
        (view.parts.1.check)(view),
        runtimes::check(view),
        configuration::check(view),
        containers::check(view),
        drain::check(view),
        images::check(view),
        network::check(view),
        prerequisites::check(view),
        storage::check(view),
        settings::check(view),
        pod_environment::check(view),
        registries::check(view),
        rivals::check(view),
        upgrade::check(view),
    ]
    .concat()
}

/// The findings about what the API server reports; none if it was not asked. `keeps_pods` if the pods keep running.
pub fn of_cluster(facts: &Facts, request: &Request, keeps_pods: bool) -> Vec<Finding> {
    let Some(cluster) = &request.cluster else {
        return Vec::new();
    };
    let of_kubeadm = kubeadm::check(facts, request.target.runtime, cluster);
    [of_kubeadm, pods::check(request, cluster, keeps_pods)].concat()
}

/// The findings after what the user accepts, and one for every code that there is not. The blocking ones come first,
/// otherwise their order stays.
pub fn accept(mut findings: Vec<Finding>, allow: &[String]) -> Vec<Finding> {
    let codes = all_codes();
    let is_known = |entry: &str| {
        let mut codes = codes.iter();
        codes.any(|code| code.name == entry || code.is_allowed_as(entry))
    };
    for unknown in allow.iter().filter(|entry| !is_known(entry)) {
        findings.push(ALLOWED_CODE_UNKNOWN.found(
            format!("preflight.allow names {unknown:?}, which is not a finding of this version"),
            "Remove it, or correct its spelling; docs/findings.md lists all codes.",
        ));
    }
    findings = soften(findings, allow);
    // Two files may fail for the same reason.
    let mut seen = Vec::new();
    findings.retain(|finding| {
        let is_new = !seen.contains(finding);
        seen.push(finding.clone());
        is_new
    });
    findings.sort_by_key(|finding| finding.severity);
    findings
}

/// An accepted finding warns instead of blocking, and keeps its remedy.
fn soften(mut findings: Vec<Finding>, allow: &[String]) -> Vec<Finding> {
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.severity == Severity::Block)
    {
        let acceptable = acceptable_codes().any(|code| code.name == finding.code);
        if acceptable && (allow.contains(&finding.code) || allow.contains(&finding.full_name())) {
            finding.severity = Severity::Warn;
            // What it was about stays: the hosts to look at are named nowhere else.
            finding.remedy = format!("{ACCEPTED} {}", finding.remedy);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::codes::{
        containers::DOCKER_SOCKET_MOUNTED, kubelet::UNSUPPORTED_LAYOUT, settings::DOCKER_SETTING_NOT_CARRIED,
    };

    #[test]
    fn one_of_many_findings_of_a_code_is_full_name_its_subject() {
        let found = |name: &str| DOCKER_SETTING_NOT_CARRIED.found("a", "b").about(name);
        let severities = |allow: &[&str]| -> Vec<(Severity, Option<String>)> {
            let allow: Vec<String> = allow.iter().map(|&entry| entry.to_owned()).collect();
            let findings = accept(vec![found("init"), found("userns-remap")], &allow);
            let seen = findings.into_iter();
            seen.map(|finding| (finding.severity, finding.subject)).collect()
        };
        let (init, remap) = (Some("init".to_owned()), Some("userns-remap".to_owned()));
        let (block, warn) = (Severity::Block, Severity::Warn);
        assert_eq!(
            severities(&["DockerSettingNotCarried/init"]),
            [(block, remap.clone()), (warn, init.clone())]
        );
        assert_eq!(
            severities(&["DockerSettingNotCarried"]),
            [(warn, init.clone()), (warn, remap.clone())]
        );
        // A name that is not a subject, and a subject of a code that has none.
        for typo in [
            "DockerSettingNotCarried/",
            "DockerSettingNotCarried/a b",
            "DockerSocketMounted/init",
        ] {
            assert_eq!(
                severities(&[typo]),
                [(block, init.clone()), (block, remap.clone()), (warn, None)],
                "{typo}"
            );
        }
    }

    #[test]
    fn only_what_can_be_accepted_is() {
        let (yes, no) = (DOCKER_SOCKET_MOUNTED, UNSUPPORTED_LAYOUT);
        let allow = [yes.name.to_owned(), no.name.to_owned(), "Typo".to_owned()];
        let findings = accept(vec![yes.found("a", "b"), no.found("a", "b")], &allow);
        let seen: Vec<_> = findings
            .iter()
            .map(|finding| (finding.severity, &*finding.code))
            .collect();
        assert_eq!(
            seen,
            [
                (Severity::Block, no.name),
                (Severity::Warn, yes.name),
                (Severity::Warn, "AllowedCodeUnknown")
            ]
        );
        let remedies: Vec<_> = findings.iter().map(|finding| finding.remedy.as_str()).collect();
        assert_eq!(remedies[..2], ["b", "Accepted by preflight.allow. b"]);
    }
}
