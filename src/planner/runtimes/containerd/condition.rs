//! The condition in which containerd was found: its files, and why its CRI does not answer.

use crate::{
    edit::containerd_toml,
    plan::{
        codes::{
            configuration::{CONTAINERD_CONFIG_IN_USR, CONTAINERD_DUMP_FAILED, CONTAINERD_IMPORTS},
            runtimes::CRI_NOT_ANSWERING,
        },
        facts::Containerd,
        finding::Finding,
        lists,
    },
    planner::context::View,
};

/// What other files override, and what containerd itself reports of them.
pub(super) fn files(view: &View<'_>, containerd: &Containerd) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = &containerd.config;
    if let Some(file) = &config.file
        && let Ok(imports) = containerd_toml::imports(&file.text)
        && !imports.is_empty()
    {
        findings.push(CONTAINERD_IMPORTS.found(
            format!("{} imports {}", file.path, lists::some(&imports)),
            "Look at these files: what they say about the CRI wins over config.toml.",
        ));
    }
    // What comes in an archive reads the file in its own way.
    if containerd.effective.is_none() && view.target.delivery.is_none() {
        findings.push(CONTAINERD_DUMP_FAILED.found(
            format!("`containerd config dump` fails with {}", config.path),
            "Run it on the node and correct what it says; the node is rolled back if containerd does not start.",
        ));
    }
    findings
}

/// The CRI of a running containerd does not answer, and nobody switched it off.
pub(super) fn cri_not_answering(containerd: &Containerd, config: &str) -> Finding {
    let what = format!(
        "containerd {} runs, its configuration does not switch the CRI plugin off, and the CRI at {} does not answer",
        containerd.version, containerd.endpoint
    );
    let why = containerd
        .cri_problem
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    if containerd_toml::misuses_systemd_cgroup(config) {
        return CRI_NOT_ANSWERING.found(
            format!("{what}: systemd_cgroup = true keeps the plugin from loading{why}"),
            "Nothing is to be done: the plan sets it to false and SystemdCgroup as the kubelet needs it.",
        );
    }
    CRI_NOT_ANSWERING.found(
        format!("{what}{why}"),
        "Look at `journalctl -u containerd | grep cri` and correct the cause. The plan restarts containerd and stops \
         before any pod is touched if its CRI does not answer then.",
    )
}

/// A configuration that belongs to the distribution.
pub(super) fn in_usr(containerd: &Containerd) -> Option<Finding> {
    containerd.config.path.as_str().starts_with("/usr/").then(|| {
        CONTAINERD_CONFIG_IN_USR.found(
            format!(
                "{} reads {}, which belongs to the distribution",
                containerd.service.name, containerd.config.path
            ),
            "Copy it to /etc/containerd/config.toml, and let a drop-in of containerd.service name that file (on Flatcar: \
             `Environment=CONTAINERD_CONFIG=/etc/containerd/config.toml`); restart containerd and plan again.",
        )
    })
}
