//! How the layers of images come from one store into another: shared where Docker and containerd can, else copied.

use crate::{
    plan::{
        facts::{Disk, Engine, Facts},
        host_path::HostPath,
        snapshots,
        step::Layers,
    },
    planner::context::View,
};

/// How the layers of the images that are carried come into the target's store.
pub fn layers(view: &View<'_>) -> Layers {
    let docker = view.engine.filter(|_| view.source.runtime.runs_on_docker());
    let obstacle = match docker {
        Some(engine) if view.to_containerd() => obstacle(view, engine),
        _ => Some(format!("{} takes images only as archives", view.target.runtime)),
    };
    match (docker, obstacle) {
        (Some(engine), None) => Layers::Linked {
            data_root: engine.data_root.clone(),
        },
        (_, why) => Layers::Streamed {
            why: why.unwrap_or_default(),
        },
    }
}

/// containerd's client `ctr`, which lies beside the containerd that runs while images are carried; an archive is not
/// in `PATH`.
pub fn ctr(view: &View<'_>) -> Option<HostPath> {
    let delivered = view
        .target
        .delivery
        .as_ref()
        .filter(|_| !view.replaces_docker_containerd());
    if let Some(ctr) = delivered.and_then(|delivery| delivery.ctr.clone()) {
        return Some(ctr);
    }
    let found = view.containerd?.service.exec_start.first()?;
    HostPath::new(found).ok()?.parent()?.join("ctr").ok()
}

/// Why layers cannot be shared.
fn obstacle(view: &View<'_>, engine: &Engine) -> Option<String> {
    let facts = view.facts;
    if engine.storage_driver != "overlay2" {
        return Some(format!("Docker's storage driver is {}", engine.storage_driver));
    }
    if engine.user_namespaces {
        return Some("Docker shifts the owners of files (userns-remap)".to_owned());
    }
    let snapshots = snapshots::snapshots(view.containerd);
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

/// The disk below `path`: the one that was looked at for the nearest directory above it.
pub fn disk<'a>(facts: &'a Facts, path: &str) -> Option<&'a Disk> {
    let above = |dir: &str| path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    facts
        .disks
        .iter()
        .filter(|disk| above(disk.path.as_str()))
        .max_by_key(|disk| disk.path.as_str().len())
}
