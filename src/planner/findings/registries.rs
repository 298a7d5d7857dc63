//! Certificates of private registries, which each runtime reads from a directory of its own.

use std::collections::BTreeSet;

use crate::{
    plan::{
        codes::registries::REGISTRY_CERTIFICATES,
        facts::{Facts, RegistryDirectory},
        finding::Finding,
        lists,
    },
    planner::context::View,
};

/// Directories of registries that the target has no directory for.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let (source, target) = (view.source.runtime.profile(), view.target.runtime.profile());
    let (from, to) = (source.certificates, target.certificates);
    let there = hosts(view.facts, to);
    let not_there = |from: &str| -> Vec<String> {
        let all = hosts(view.facts, from);
        let missing = all.difference(&there);
        missing.map(|host| format!("{from}/{host}")).collect()
    };
    let missing: Vec<String> = if target.certificates_are_named && view.takes().is_some() {
        view.translation.certificates_left.clone()
    } else {
        let more = source
            .more_certificates
            .filter(|more| target.more_certificates != Some(*more));
        let all = [Some(from).filter(|from| *from != to), more];
        all.into_iter().flatten().flat_map(not_there).collect()
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
    // What a hosts.toml says without a certificate is a setting of the source.
    let is_one = |found: &&RegistryDirectory| {
        let alone = found.files.iter().all(|name| name == "hosts.toml");
        !alone || found.said.as_ref().is_none_or(|said| said.certificates)
    };
    all.filter(is_one)
        .filter_map(|found| found.below(directory))
        .collect()
}
