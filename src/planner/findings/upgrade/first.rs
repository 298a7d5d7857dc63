//! What containerd 1.x has and 2.x does not.

use crate::{
    plan::{
        codes::upgrade::{
            CONF_D_NOT_IMPORTED, CRI_SANDBOXES_ENABLED, CRI_V1ALPHA2_USED, RUNTIME_GONE, SCHEMA_1_IMAGES,
            SECCOMP_PROFILE_CHANGES,
        },
        facts::{Containerd, ForeignRecord},
        finding::Finding,
        lists,
        paths::CONTAINERD_CONF_D,
    },
    planner::context::View,
};

/// Runtimes whose shims containerd 2.0 removed.
const GONE: [&str; 2] = ["io.containerd.runtime.v1.linux", "io.containerd.runc.v1"];
/// The deprecated feature that keeps a kubelet from working with 2.x.
const V1ALPHA2: &str = "io.containerd.deprecation/cri-api-v1alpha2";
/// The first and the last minor version of kubelets that use v1alpha2 only if the runtime had no v1 when they started.
const FALLS_BACK: std::ops::RangeInclusive<u64> = 23..=25;
/// The variable that switches the experiment of 1.7 on.
const SANDBOXES: &str = "ENABLE_CRI_SANDBOXES=";

/// Checks of an upgrade from 1.x to 2.x.
pub(super) fn check(view: &View<'_>, containerd: &Containerd) -> Vec<Finding> {
    let mut findings: Vec<Finding> = [
        gone(containerd),
        v1alpha2(view, containerd),
        sandboxes(containerd),
        not_imported(containerd),
        schema_1(containerd),
    ]
    .into_iter()
    .flatten()
    .collect();
    findings.push(SECCOMP_PROFILE_CHANGES.found(
        format!(
            "containerd {} refuses io_uring to new pods with seccompProfile RuntimeDefault",
            view.target.version
        ),
        "If pods use io_uring, give them a seccomp profile of their own. Pods that run now keep theirs.",
    ));
    findings
}

/// Whether 2.x has no shim for a container.
pub(super) fn is_gone(record: &ForeignRecord) -> bool {
    GONE.contains(&record.runtime.as_str())
}

/// The digits of an id that tell containers apart.
pub(super) fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// A container, as its record has it.
pub(super) fn record_name(record: &ForeignRecord) -> String {
    let id = short(&record.id);
    format!("{id} in namespace {} ({})", record.namespace, record.runtime)
}

fn gone(containerd: &Containerd) -> Option<Finding> {
    let records = containerd.upgrade.foreign_records.iter();
    let gone: Vec<String> = records
        .filter(|record| is_gone(record))
        .map(record_name)
        .collect();
    (!gone.is_empty()).then(|| {
        RUNTIME_GONE.found(
            format!("containerd 2.x has no shim for {}", lists::many(&gone)),
            "Let the handler name io.containerd.runc.v2, evict or remove these containers, and plan again.",
        )
    })
}

fn v1alpha2(view: &View<'_>, containerd: &Containerd) -> Option<Finding> {
    let kubelet = &view.settings.version;
    let used = containerd.upgrade.deprecations.iter().any(|id| id == V1ALPHA2);
    (used && FALLS_BACK.contains(&kubelet.minor)).then(|| {
        CRI_V1ALPHA2_USED.found(
            format!("the CRI v1alpha2 was used since containerd started; kubelet {kubelet} may be the client"),
            "Restart the kubelet once, which then uses v1; restart containerd, and plan again. Accept the finding if another \
             program is the client.",
        )
    })
}

fn sandboxes(containerd: &Containerd) -> Option<Finding> {
    let unit = &containerd.service;
    let files = unit.environment_files.iter().flat_map(|file| file.text.lines());
    let mut variables = unit.environment.iter().map(String::as_str).chain(files);
    let set = variables.any(|line| line.trim_start().starts_with(SANDBOXES));
    set.then(|| {
        CRI_SANDBOXES_ENABLED.found(
            format!("{} sets {}", unit.name, SANDBOXES.trim_end_matches('=')),
            "Remove the variable, drain the node, restart containerd, and plan again.",
        )
    })
}

fn not_imported(containerd: &Containerd) -> Option<Finding> {
    let paths: Vec<String> = containerd
        .upgrade
        .not_imported
        .iter()
        .map(ToString::to_string)
        .collect();
    (!paths.is_empty()).then(|| {
        CONF_D_NOT_IMPORTED.found(
            format!("{} does not import {}", containerd.config.path, lists::some(&paths)),
            format!(
                "Nothing is to be done. The output of `containerd config migrate` would import {CONTAINERD_CONF_D}/*.toml: \
                 do not use it as the configuration without a look at these files."
            ),
        )
    })
}

fn schema_1(containerd: &Containerd) -> Option<Finding> {
    let images = &containerd.upgrade.schema_1_images;
    (!images.is_empty()).then(|| {
        SCHEMA_1_IMAGES.found(
            format!(
                "containerd 2.x cannot pull these images again: {}",
                lists::many(images)
            ),
            "Push them to their registry in a newer format. Until then do not let the node remove them.",
        )
    })
}
