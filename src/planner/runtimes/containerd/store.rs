//! containerd's store: its place, what an image takes there, and whether its layers can be shared.

use crate::{
    plan::snapshots,
    planner::{
        context::{LayersOf, TargetStore, View},
        layers::shared,
    },
};

/// Of an image, containerd keeps the layers, which Docker gives it uncompressed, and an unpacked snapshot.
const COPIES: u64 = 2;

/// The store of containerd as the target.
pub(super) fn store(view: &View<'_>) -> TargetStore {
    TargetStore {
        directory: snapshots::snapshots(view.containerd).directory,
        copies: COPIES,
        layers: shared(view, layers(view)),
    }
}

/// Where its layers lie.
pub(super) fn layers(view: &View<'_>) -> Result<LayersOf, String> {
    let snapshots = snapshots::snapshots(view.containerd);
    if snapshots.snapshotter != "overlayfs" {
        return Err(format!("containerd's snapshotter is {}", snapshots.snapshotter));
    }
    Ok(LayersOf {
        directory: snapshots.directory,
        data_root: None,
    })
}
