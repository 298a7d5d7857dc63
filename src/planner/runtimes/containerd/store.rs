//! containerd's store: its place, what an image takes there, and whether it can share the layers with Docker's.

use crate::{
    edit::containerd_toml::Snapshots,
    plan::{facts::Engine, snapshots, step::Layers},
    planner::{
        context::{TargetStore, View},
        layers::{disk, streamed},
    },
};

/// Of an image, containerd keeps the layers, which Docker gives it uncompressed, and an unpacked snapshot.
const COPIES: u64 = 2;

/// The store of containerd as the target.
pub(super) fn store(view: &View<'_>) -> TargetStore {
    let snapshots = snapshots::snapshots(view.containerd);
    let docker = view.engine.filter(|_| view.source.runtime.runs_on_docker());
    let layers = docker.map_or_else(
        || streamed(view),
        |engine| match obstacle(view, engine, &snapshots) {
            None => Layers::Linked {
                data_root: Some(engine.data_root.clone()),
            },
            Some(why) => Layers::Streamed { why },
        },
    );
    TargetStore {
        directory: snapshots.directory,
        copies: COPIES,
        layers,
    }
}

/// Why layers cannot be shared.
fn obstacle(view: &View<'_>, engine: &Engine, snapshots: &Snapshots) -> Option<String> {
    let facts = view.facts;
    if engine.storage_driver != "overlay2" {
        return Some(format!("Docker's storage driver is {}", engine.storage_driver));
    }
    if engine.user_namespaces {
        return Some("Docker shifts the owners of files (userns-remap)".to_owned());
    }
    if snapshots.snapshotter != "overlayfs" {
        return Some(format!("containerd's snapshotter is {}", snapshots.snapshotter));
    }
    let root = &*snapshots.directory;
    let (Some(docker), Some(store)) = (disk(facts, engine.data_root.as_str()), disk(facts, root)) else {
        return Some(format!(
            "the file systems of {} and {root} are not known",
            engine.data_root
        ));
    };
    (docker.device != store.device)
        .then(|| format!("{} and {root} lie on different file systems", engine.data_root))
}
