//! Preflight: every check is a pure function of what was found and what is asked for. The table of all codes for
//! users is `docs/findings.md`; a test holds it to [`all_codes`].

pub mod attempts;
pub mod configuration;
pub mod containers;
pub mod drain;
pub mod images;
pub mod install;
pub mod kubeadm;
pub mod kubelet;
pub mod network;
pub mod pod_environment;
pub mod prerequisites;
pub mod registries;
pub mod rivals;
pub mod runtimes;
pub mod settings;
pub mod storage;

use serde_json::{Map, Value};

use super::{
    cargo::Cargo,
    facts::{Containerd, CriDockerd, Docker, Engine, Facts, Kubelet},
    finding::{Finding, Severity},
    kubelet_settings::Settings,
    planner::Request,
    runtimes::{Source, SourcePart, Target, TargetPart, over_docker},
};

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its stable name.
    pub name: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// Whether `preflight.allow` can accept it. What makes a plan impossible cannot be accepted.
    pub acceptable: bool,
    /// What it means, for the table.
    pub meaning: &'static str,
}

impl Code {
    const fn block(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: false,
            meaning,
        }
    }

    const fn block_unless_allowed(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: true,
            meaning,
        }
    }

    const fn warn(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Warn,
            acceptable: false,
            meaning,
        }
    }

    const fn info(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Info,
            acceptable: false,
            meaning,
        }
    }

    /// A finding of this kind.
    pub fn found(&self, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            severity: self.severity,
            code: self.name.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}

/// Everything that planners and checks of a pair look at, once the pair is known to be one that can be planned.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What was found.
    pub facts: &'a Facts,
    /// What is asked for.
    pub request: &'a Request,
    /// The kubelet.
    pub kubelet: &'a Kubelet,
    /// Its settings in effect.
    pub settings: &'a Settings,
    /// The runtime that is left.
    pub source: Source<'a>,
    /// The runtime that is gone to.
    pub target: Target,
    /// The two parts of the plan.
    pub parts: (SourcePart, TargetPart),
    /// Docker Engine, where it is installed.
    pub docker: Option<&'a Docker>,
    /// Docker Engine, where it answers.
    pub engine: Option<&'a Engine>,
    /// `daemon.json`; empty where there is none.
    pub daemon: &'a Map<String, Value>,
    /// containerd, where it is installed.
    pub containerd: Option<&'a Containerd>,
    /// cri-dockerd, where it is installed.
    pub cri_dockerd: Option<&'a CriDockerd>,
    /// The images that are to be carried.
    pub cargo: &'a Cargo,
}

impl View<'_> {
    /// Whether source and target have one and the same store, as all that stand on Docker Engine do.
    pub fn shares_store(&self) -> bool {
        self.source.images.socket == self.target.images.socket
    }

    /// Docker Engine as the source, whose pods are its containers.
    pub fn docker_left(&self) -> Option<(&Docker, &Engine)> {
        let left = over_docker(self.source.runtime) && !over_docker(self.target.runtime);
        self.docker.zip(self.engine).filter(|_| left)
    }

    /// Whether Docker ends after the switch.
    pub fn docker_ends(&self) -> bool {
        self.docker_left().is_some() && !self.request.source.keep
    }

    /// The cgroup driver that the kubelet uses: from 1.31 on what the runtime says, else what is configured.
    pub fn cgroup_driver(&self) -> &str {
        let told = self.source.told_cgroup_driver;
        told.filter(|_| self.settings.version.minor >= DRIVER_FROM_CRI_SINCE)
            .unwrap_or(&self.settings.cgroup_driver)
    }
}

/// Minor version of the first kubelet that takes the cgroup driver from the runtime, where it says one (KEP-4033).
pub const DRIVER_FROM_CRI_SINCE: u64 = 31;

/// All findings of a pair.
pub fn all(view: &View<'_>) -> Vec<Finding> {
    [
        kubelet::check(view),
        (view.parts.1.check)(view),
        runtimes::check(view),
        configuration::check(view),
        containers::check(view),
        images::check(view),
        network::check(view),
        prerequisites::check(view),
        storage::check(view),
        settings::check(view),
        pod_environment::check(view),
        registries::check(view),
        rivals::check(view),
    ]
    .concat()
}

/// `preflight.allow` names a code that there is not.
pub const ALLOWED_CODE_UNKNOWN: Code = Code::warn(
    "AllowedCodeUnknown",
    "`preflight.allow` names a code that does not exist",
);

/// The plan is not one of those that were approved.
pub const PLAN_NOT_APPROVED: Code = Code::block(
    "PlanNotApproved",
    "`approvedPlans` does not list the digest of the node's plan",
);

/// Every kind of finding, by the module that finds it.
pub fn all_codes() -> Vec<Code> {
    [
        kubelet::CODES,
        runtimes::CODES,
        install::CODES,
        configuration::CODES,
        containers::CODES,
        images::CODES,
        network::CODES,
        prerequisites::CODES,
        storage::CODES,
        settings::CODES,
        pod_environment::CODES,
        registries::CODES,
        rivals::CODES,
        drain::CODES,
        kubeadm::CODES,
        attempts::CODES,
        &[ALLOWED_CODE_UNKNOWN, PLAN_NOT_APPROVED],
    ]
    .concat()
}

/// The names that `preflight.allow` may list.
pub fn acceptable_codes() -> impl Iterator<Item = &'static str> {
    all_codes()
        .into_iter()
        .filter(|code| code.acceptable)
        .map(|code| code.name)
}

/// The findings after what the user accepts, and one for every code that there is not. The blocking ones come first,
/// otherwise their order stays.
pub fn accept(mut findings: Vec<Finding>, allow: &[String]) -> Vec<Finding> {
    let codes = all_codes();
    for unknown in allow
        .iter()
        .filter(|name| codes.iter().all(|code| code.name != **name))
    {
        findings.push(ALLOWED_CODE_UNKNOWN.found(
            format!("preflight.allow names {unknown:?}, which is no finding of this version"),
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

/// An accepted finding warns instead of blocking.
pub fn soften(mut findings: Vec<Finding>, allow: &[String]) -> Vec<Finding> {
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.severity == Severity::Block)
    {
        let acceptable = acceptable_codes().any(|code| code == finding.code);
        if acceptable && allow.contains(&finding.code) {
            finding.severity = Severity::Warn;
            finding.remedy = "Accepted by preflight.allow.".to_owned();
        }
    }
    findings
}

/// `1 container`, `3 containers`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first few of a list, and how many more there are.
fn some(names: &[String]) -> String {
    listed(names, 5)
}

/// As much of a list as a status may hold, of what a person has to look for by name.
fn many(names: &[String]) -> String {
    listed(names, 100)
}

fn listed(names: &[String], shown: usize) -> String {
    let mut text = names[..names.len().min(shown)].join(", ");
    if names.len() > shown {
        text.push_str(&format!(" and {} more", names.len() - shown));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_for_users_lists_every_code() {
        let table: Vec<String> = all_codes()
            .iter()
            .map(|code| {
                let severity = match (code.severity, code.acceptable) {
                    (Severity::Block, true) => "Block, acceptable".to_owned(),
                    (severity, _) => format!("{severity:?}"),
                };
                format!("| `{}` | {severity} | {} |", code.name, code.meaning)
            })
            .collect();
        let document = include_str!("../../docs/findings.md");
        let written: Vec<&str> = document.lines().filter(|line| line.starts_with("| `")).collect();
        assert_eq!(
            written,
            table,
            "docs/findings.md must list:\n{}",
            table.join("\n")
        );
    }

    #[test]
    fn every_code_that_a_module_defines_is_in_the_list() {
        let modules = [
            include_str!("findings/kubelet.rs"),
            include_str!("findings/runtimes.rs"),
            include_str!("findings/install.rs"),
            include_str!("findings/configuration.rs"),
            include_str!("findings/containers.rs"),
            include_str!("findings/images.rs"),
            include_str!("findings/network.rs"),
            include_str!("findings/prerequisites.rs"),
            include_str!("findings/storage.rs"),
            include_str!("findings/settings.rs"),
            include_str!("findings/pod_environment.rs"),
            include_str!("findings/registries.rs"),
            include_str!("findings/rivals.rs"),
            include_str!("findings/drain.rs"),
            include_str!("findings/kubeadm.rs"),
            include_str!("findings/attempts.rs"),
            include_str!("findings.rs"),
        ];
        let is_code = |line: &&str| line.starts_with("pub const ") && line.contains(": Code =");
        let defined: usize = modules
            .iter()
            .map(|module| module.lines().filter(is_code).count())
            .sum();
        assert_eq!(all_codes().len(), defined);
        let mut names: Vec<&str> = all_codes().iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all_codes().len(), "codes are unique");
    }

    /// The last column says what Transship does about a difference.
    #[test]
    fn the_page_about_pods_names_findings_that_exist() {
        let page = include_str!("../../docs/pod-environment.md");
        let rows = page.lines().filter(|line| line.starts_with("| ")).skip(1);
        let mut named = 0;
        for row in rows {
            let last = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
            for word in last.split('`').skip(1).step_by(2) {
                let is_code = word.len() > 8
                    && word.starts_with(char::is_uppercase)
                    && word.chars().all(char::is_alphabetic);
                if is_code {
                    named += 1;
                    assert!(
                        all_codes().iter().any(|code| code.name == word),
                        "{word} in {row}"
                    );
                }
            }
        }
        assert!(named >= 15, "{named}");
    }

    #[test]
    fn only_what_can_be_accepted_is() {
        let (yes, no) = (containers::DOCKER_SOCKET_MOUNTED, kubelet::UNSUPPORTED_LAYOUT);
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
    }
}
