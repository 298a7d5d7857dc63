//! CRI-O's store: its place, what an image takes there, and whether its layers can be shared.

use crate::{
    plan::{
        host_path::{self, HostPath},
        paths::{CRIO_ROOT, PULLED},
    },
    planner::{
        context::{LayersOf, TargetStore, View},
        layers::shared,
    },
};

/// CRI-O keeps what it pulls until the whole image is unpacked. Docker tells the unpacked size of an image, and what it gives is
/// not compressed.
const COPIES: u64 = 2;
/// A CRI tells the compressed size of an image, which is unpacked to about three times that.
const TIMES_COMPRESSED: u64 = 4;

/// The store of CRI-O as the target.
pub(super) fn store(view: &View<'_>) -> TargetStore {
    TargetStore {
        directory: root(view),
        copies: if view.source.runtime.runs_on_docker() {
            COPIES
        } else {
            TIMES_COMPRESSED
        },
        layers: shared(view, layers(view)),
        pull_directory: pull_directory(view),
    }
}

/// Where it keeps what it pulls until it is unpacked.
fn pull_directory(view: &View<'_>) -> Option<HostPath> {
    let set = view.crio_conf.big_files_temporary_dir();
    HostPath::new(host_path::plain(set.as_deref().unwrap_or(PULLED))).ok()
}

/// Where its layers lie.
pub(super) fn layers(view: &View<'_>) -> Result<LayersOf, String> {
    match view.crio_conf.storage_driver() {
        Some(driver) if driver != "overlay" => Err(format!("CRI-O's storage driver is {driver}")),
        _ => Ok(LayersOf {
            directory: root(view),
            data_root: None,
        }),
    }
}

/// Where it keeps images and containers.
fn root(view: &View<'_>) -> String {
    if let Some(root) = view.translation.root() {
        return root.to_owned();
    }
    let root = view.crio_conf.root();
    root.map_or_else(|| CRIO_ROOT.to_owned(), |root| host_path::plain(&root))
}

/// Whether it runs, or has a place that somebody chose.
pub(super) fn is_settled(view: &View<'_>) -> bool {
    view.facts.crio.as_ref().is_some_and(|crio| {
        let root = view.crio_conf.root().map(|root| host_path::plain(&root));
        crio.service.active != "inactive" || root.is_some_and(|root| root != CRIO_ROOT)
    })
}
