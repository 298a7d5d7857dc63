//! Certificates of private registries, which each runtime reads from a directory of its own.

use std::collections::BTreeSet;

use crate::{
    plan::{codes::registries::REGISTRY_CERTIFICATES, facts::Facts, finding::Finding, lists},
    planner::context::View,
};

/// Directories of registries that the target has no directory for.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let (source, target) = (view.source.runtime.profile(), view.target.runtime.profile());
    let there = hosts(view.facts, target.certificates);
    let not_there = |from: &str| -> Vec<String> {
        let all = hosts(view.facts, from);
        let missing = all.difference(&there);
        missing.map(|host| format!("{from}/{host}")).collect()
    };
    let missing: Vec<String> = if view.takes().is_some() {
        view.translation.certificates_left.clone()
    } else {
        // Those that a containerd names are settings of its own.
        source.more_certificates.into_iter().flat_map(not_there).collect()
    };
    if missing.is_empty() {
        return Vec::new();
    }
    let remedy = if target.certificates_are_named {
        "For each, write /etc/containerd/certs.d/<host>/hosts.toml with `ca` and `client`, and set config_path of \
         containerd's CRI registry to /etc/containerd/certs.d before the switch."
    } else {
        "For each, copy ca.crt, client.cert and client.key to /etc/docker/certs.d/<host:port> before the switch. What a hosts.toml in it \
         says of mirrors and plain HTTP is a matter of /etc/containers/registries.conf.d for CRI-O, and of registry-mirrors and \
         insecure-registries in daemon.json for Docker."
    };
    vec![REGISTRY_CERTIFICATES.found(
        format!(
            "{} reads nothing of {}",
            view.target.runtime,
            lists::many(&missing)
        ),
        remedy,
    )]
}

/// Names of the registries that have a directory.
fn hosts<'a>(facts: &'a Facts, directory: &str) -> BTreeSet<&'a str> {
    let all = facts.registry_directories.iter();
    all.filter_map(|found| found.below(directory)).collect()
}
