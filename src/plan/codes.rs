//! Every kind of finding, by what it is about. Plain data: the schema of `preflight.allow` lists them, and the planner
//! finds them. The table of all codes for users is `docs/findings.md`; a test holds it to [`all_codes`].

pub mod attempts;
pub mod configuration;
pub mod containers;
pub mod crio;
pub mod delivery;
pub mod drain;
pub mod images;
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
pub mod upgrade;

use super::finding::Code;

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

/// Every kind of finding, by what it is about.
pub fn all_codes() -> Vec<Code> {
    [
        kubelet::CODES,
        runtimes::CODES,
        crio::CODES,
        delivery::CODES,
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
        upgrade::CODES,
        &[ALLOWED_CODE_UNKNOWN, PLAN_NOT_APPROVED],
    ]
    .concat()
}

/// The codes that `preflight.allow` may name.
pub fn acceptable_codes() -> impl Iterator<Item = Code> {
    all_codes().into_iter().filter(|code| code.acceptable)
}

/// Whether this can stand in `preflight.allow`.
pub fn is_acceptable(entry: &str) -> bool {
    acceptable_codes().any(|code| code.is_allowed_as(entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::finding::Severity;

    #[test]
    fn the_table_for_users_lists_every_code() {
        let table: Vec<String> = all_codes()
            .iter()
            .map(|code| {
                let severity = match (code.severity, code.acceptable) {
                    (Severity::Block, true) if code.has_subjects => "Block, acceptable singly".to_owned(),
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
            include_str!("codes/kubelet.rs"),
            include_str!("codes/runtimes.rs"),
            include_str!("codes/crio.rs"),
            include_str!("codes/delivery.rs"),
            include_str!("codes/configuration.rs"),
            include_str!("codes/containers.rs"),
            include_str!("codes/images.rs"),
            include_str!("codes/network.rs"),
            include_str!("codes/prerequisites.rs"),
            include_str!("codes/storage.rs"),
            include_str!("codes/settings.rs"),
            include_str!("codes/pod_environment.rs"),
            include_str!("codes/registries.rs"),
            include_str!("codes/rivals.rs"),
            include_str!("codes/drain.rs"),
            include_str!("codes/kubeadm.rs"),
            include_str!("codes/attempts.rs"),
            include_str!("codes/upgrade.rs"),
            include_str!("codes.rs"),
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
}
