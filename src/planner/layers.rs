//! What all stores have in common: layers that are copied, and the disk below a directory.

use crate::{
    plan::{
        facts::{Disk, Facts},
        host_path::HostPath,
        step::Layers,
    },
    planner::context::{LayersOf, View},
};

/// Layers that come into the target's store as the archives that it takes.
pub fn streamed(view: &View<'_>) -> Layers {
    Layers::Streamed {
        why: format!("{} takes images only as archives", view.target.runtime),
    }
}

/// Layers for the store of a target, which can share those of the source if both lie on one file system. `own` is where the target
/// keeps its layers, or why they cannot be shared.
pub fn shared(view: &View<'_>, own: Result<LayersOf, String>) -> Layers {
    match own.and_then(|own| place(view, &own.directory)) {
        Ok(data_root) => Layers::Linked { data_root },
        Err(why) => Layers::Streamed { why },
    }
}

/// Docker's data root, where Docker is the source; or why the layers cannot be shared.
fn place(view: &View<'_>, directory: &str) -> Result<Option<HostPath>, String> {
    let found = (view.parts.0.layers)(view)?;
    let (Some(source), Some(target)) = (disk(view.facts, &found.directory), disk(view.facts, directory))
    else {
        return Err(format!(
            "the file systems of {} and {directory} are not known",
            found.directory
        ));
    };
    if source.device != target.device {
        return Err(format!(
            "{} and {directory} lie on different file systems",
            found.directory
        ));
    }
    Ok(found.data_root)
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

/// The disk below `path`: the one that was looked at for the nearest directory above it.
pub fn disk<'a>(facts: &'a Facts, path: &str) -> Option<&'a Disk> {
    let above = |dir: &str| path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    facts
        .disks
        .iter()
        .filter(|disk| above(disk.path.as_str()))
        .max_by_key(|disk| disk.path.as_str().len())
}
