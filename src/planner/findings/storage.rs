//! Disks: room for a second copy of the images, and file systems that overlayfs works on.

use crate::{
    plan::{
        codes::storage::{DISK_PRESSURE_AHEAD, DISK_SPACE, STORAGE_DRIVER, XFS_FTYPE_UNKNOWN},
        facts::{Disk, Engine},
        finding::Finding,
        paths::ARCHIVES,
        step::Layers,
    },
    planner::{
        context::{TargetStore, View},
        layers,
    },
};

/// Of an image whose layers are shared this part, or less, is written: its directories, and small files.
const SHARED: u64 = 20;
/// Bytes that stay free beside the images.
const RESERVE: u64 = 512 << 20;
/// What an archive takes, packed and unpacked, with what stays free: the largest is CRI-O's bundle.
const ARCHIVE: u64 = 384 << 20;

/// Checks of the disks: for an archive, and where images are carried.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = archive(view).into_iter().collect();
    if view.shares_store() {
        return findings;
    }
    let store = (view.parts.1.store)(view);
    let root = &store.directory;
    let overlay = |engine: &Engine| matches!(&*engine.storage_driver, "overlay2" | "overlayfs");
    let left = view.docker_left();
    if let Some((_, engine)) = left.filter(|(_, engine)| !overlay(engine)) {
        findings.push(STORAGE_DRIVER.found(
            format!("Docker's storage driver is {}", engine.storage_driver),
            format!("Make sure that overlayfs works on the file system of {root}."),
        ));
    }
    let Some(disk) = layers::disk(view.facts, root) else {
        return findings;
    };
    let needed = match store.layers {
        Layers::Linked { .. } => view.carried.bytes / SHARED,
        Layers::Streamed { .. } => view.carried.bytes.saturating_mul(store.copies),
    };
    if disk.free < needed.saturating_add(RESERVE) {
        findings.push(DISK_SPACE.found(
            format!(
                "{root} has {} free, and the images need {} more",
                mib(disk.free),
                mib(needed)
            ),
            "Remove unused images, make the disk larger, or carry fewer images (`images.transfer`).",
        ));
    } else if disk.total > 0 && (disk.free - needed) / (disk.total / 100).max(1) < 15 {
        findings.push(DISK_PRESSURE_AHEAD.found(
            format!(
                "{root} has {} of {} free, and the images need {}",
                mib(disk.free),
                mib(disk.total),
                mib(needed)
            ),
            "Remove unused images first; the source's store keeps its images, and this version never removes it.",
        ));
    }
    findings.extend(pulled(view, &store, disk));
    let proven = left.is_some_and(|(_, engine)| {
        let docker = layers::disk(view.facts, engine.data_root.as_str());
        overlay(engine) && docker.is_some_and(|docker| docker.device == disk.device)
    });
    // Docker has refused a file system that overlayfs does not work on.
    if !view.enters_docker() && disk.kind == "xfs" && !proven {
        findings.push(XFS_FTYPE_UNKNOWN.found(
            format!("{root} lies on XFS"),
            "`xfs_info` must say ftype=1; the rehearsal fails otherwise.",
        ));
    }
    findings
}

/// Whether the largest image has room where CRI-O keeps it until it is unpacked, if that is not the file system of its store.
fn pulled(view: &View<'_>, store: &TargetStore, disk: &Disk) -> Option<Finding> {
    let directory = store
        .pull_directory
        .as_ref()
        .filter(|_| matches!(store.layers, Layers::Streamed { .. }))?;
    let (found, needed) = (
        layers::disk(view.facts, directory.as_str())?,
        view.carried.largest,
    );
    (found.device != disk.device && found.free < needed.saturating_add(RESERVE)).then(|| {
        DISK_SPACE.found(
            format!(
                "{directory} has {} free, and the largest image needs {} there until it is unpacked",
                mib(found.free),
                mib(needed)
            ),
            format!("Make room on the file system of {directory}, or set another `big_files_temporary_dir` in CRI-O's configuration."),
        )
    })
}

/// Whether there is room for the archive that the plan unpacks.
fn archive(view: &View<'_>) -> Option<Finding> {
    let disk = layers::disk(view.facts, ARCHIVES)?;
    (view.target.is_unpacked() && disk.free < ARCHIVE).then(|| {
        DISK_SPACE.found(
            format!(
                "{ARCHIVES} has {} free, and the archive, packed and unpacked, may take up to {}",
                mib(disk.free),
                mib(ARCHIVE)
            ),
            format!("Make room on the file system of {ARCHIVES}, or accept the finding where the archive is smaller."),
        )
    })
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
