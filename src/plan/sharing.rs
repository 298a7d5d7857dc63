//! How the layers of images come from one store into another: shared where Docker and containerd can, else copied.

use super::{
    facts::{Containerd, Disk, Engine, Facts},
    findings::View,
    host_path::HostPath,
    runtimes::{containerd::replaces_dockers, over_docker},
    step::Layers,
};
use crate::{
    api::request::Runtime,
    edit::containerd_toml::{self, Snapshots},
};

/// How the layers of the images that are carried come into the target's store.
pub fn layers(view: &View<'_>) -> Layers {
    let docker = view.engine.filter(|_| over_docker(view.source.runtime));
    let obstacle = match docker {
        Some(engine) if view.target.runtime == Runtime::Containerd => obstacle(view, engine),
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
    let delivered = view.target.delivery.as_ref().filter(|_| !replaces_dockers(view));
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
    let snapshots = snapshots(view.containerd);
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

/// Where containerd keeps the snapshots of containers: as it says itself, else as its file does, else as it does by
/// itself. A configuration that cannot be read has a finding of its own.
pub fn snapshots(containerd: Option<&Containerd>) -> Snapshots {
    let text = containerd.and_then(|containerd| {
        let file = containerd.config.file.as_ref().map(|file| &*file.text);
        containerd.effective.as_deref().or(file)
    });
    text.and_then(|text| containerd_toml::snapshots(text).ok())
        .unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_containerd_says_of_its_store_counts_more_than_its_file() {
        let facts = include_str!("../../tests/hosts/debian12-kubeadm-1.30-containerd/facts.json");
        let facts: Facts = serde_json::from_str(facts).unwrap();
        let mut containerd = facts.containerd.unwrap();
        let file = containerd.config.file.as_mut().unwrap();
        file.text = "root = \"/of/the/file\"\n".to_owned();
        containerd.effective = Some("root = \"/in/effect\"\n".to_owned());
        assert_eq!(snapshots(Some(&containerd)).directory, "/in/effect");
        containerd.effective = None;
        assert_eq!(snapshots(Some(&containerd)).directory, "/of/the/file");
        assert_eq!(snapshots(None).directory, "/var/lib/containerd");
    }
}
