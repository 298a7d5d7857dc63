//! containerd's store: its place, what an image takes there, and whether its layers can be shared.

use crate::{
    edit::containerd_toml::Snapshots,
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
    let directory = view.translation.root().map(str::to_owned);
    let directory = directory.unwrap_or_else(|| snapshots::snapshots(view.containerd).directory);
    let own = layers(view).map(|own| LayersOf {
        directory: directory.clone(),
        ..own
    });
    TargetStore {
        directory,
        copies: COPIES,
        layers: shared(view, own),
        pull_directory: None,
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

/// Whether it runs, under Docker's containers perhaps, or has a place that somebody chose.
pub(super) fn is_settled(view: &View<'_>) -> bool {
    let runs = view
        .containerd
        .is_some_and(|containerd| containerd.service.active != "inactive");
    runs || snapshots::snapshots(view.containerd).directory != Snapshots::default().directory
}
