//! Where images and containers are kept: Docker's data root, and the store of the target, which lies next to it where that
//! gives it more room and it has nothing in it yet. On one file system the layers of images are linked, and take no room.

use crate::{
    plan::{
        facts::{Disk, Engine, Facts},
        quantity,
    },
    planner::{
        context::{Takes, View},
        layers::disk,
        setting::{Fate, Given},
    },
};

/// What becomes of Docker's data root. `labels` if containers get labels of SELinux: what lies in another place than the usual one
/// would not have them.
pub fn fate(view: &View<'_>, engine: &Engine, takes: Takes, labels: bool) -> Fate {
    let (root, target) = ((view.parts.1.store)(view).directory, view.target.runtime.store());
    let words = |path: &str, disk: &Disk| {
        let (free, total) = (quantity::words(disk.free), quantity::words(disk.total));
        format!("{path} ({free} of {total} free)")
    };
    let data_root = engine.data_root.as_str();
    let (Some(docker), Some(store)) = (disk(view.facts, data_root), disk(view.facts, &root)) else {
        return Fate::Approximated(
            None,
            format!("Docker keeps images and containers in {data_root}, and {target} in {root}").into(),
        );
    };
    if docker.device == store.device {
        return Fate::Inherent(
            format!("{target} keeps its images in {root}, on the same file system").into(),
        );
    }
    if let Some(place) =
        next_to_docker(view, engine, takes, &root).filter(|_| !labels && docker.total > store.total)
    {
        let how = format!(
            "root = {place:?} in {target}'s configuration, on the file system of {}, and not {}",
            words(data_root, docker),
            words(&root, store)
        );
        return Fate::Carried(Given::Root(place), how.into());
    }
    Fate::Approximated(
        None,
        format!(
            "Docker keeps images and containers in {}, and {target} in {}; `root` in its configuration names another place, as \
             long as nothing is in it",
            words(data_root, docker),
            words(&root, store)
        )
        .into(),
    )
}

/// The directory next to Docker's data root, where the target can have it: it lies on the same file system, and neither it nor the
/// store as it is now has anything in it.
fn next_to_docker(view: &View<'_>, engine: &Engine, takes: Takes, now: &str) -> Option<String> {
    let name = view.target.runtime.profile().beside_docker?;
    let directory = engine.data_root.parent()?.join(name).ok()?;
    let is_empty = |path: &str| view.facts.empty_stores.iter().any(|empty| empty.as_str() == path);
    let same = device(view.facts, directory.as_str())? == device(view.facts, engine.data_root.as_str())?;
    let free = is_empty(now) && is_empty(directory.as_str());
    (same && free && !(takes.store_is_settled)(view)).then(|| directory.to_string())
}

/// The file system of a directory that was looked at itself.
fn device(facts: &Facts, path: &str) -> Option<u64> {
    let mut disks = facts.disks.iter();
    Some(disks.find(|disk| disk.path.as_str() == path)?.device)
}
