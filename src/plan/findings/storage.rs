//! Disks: room for a second copy of the images, and file systems that overlayfs works on.

use super::{Code, View};
use crate::{
    edit::containerd_toml,
    plan::{
        facts::{Disk, Facts},
        finding::Finding,
    },
};

/// No room.
pub const DISK_SPACE: Code = Code::block_unless_allowed(
    "DiskSpace",
    "There is not enough room for the images in the target's store",
);
/// Little room.
pub const DISK_PRESSURE_AHEAD: Code = Code::warn(
    "DiskPressureAhead",
    "After the images are carried less than 15% of the disk is free, where the kubelet begins to evict pods",
);
/// Not overlay2.
pub const STORAGE_DRIVER: Code = Code::warn(
    "StorageDriver",
    "Docker's storage driver is not overlay2; containerd uses overlayfs",
);
/// XFS that overlayfs was not seen on.
pub const XFS_FTYPE_UNKNOWN: Code = Code::warn(
    "XfsFtypeUnknown",
    "containerd's store lies on XFS on which Docker does not prove that overlayfs works (`ftype=1`)",
);

/// All codes of this module.
pub const CODES: &[Code] = &[DISK_SPACE, DISK_PRESSURE_AHEAD, STORAGE_DRIVER, XFS_FTYPE_UNKNOWN];

/// An image is stored as layers and as an unpacked snapshot.
const COPIES: u64 = 2;
/// Bytes that stay free beside the images.
const RESERVE: u64 = 512 << 20;

/// Checks of the disks.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let engine = view.engine;
    let overlay = matches!(&*engine.storage_driver, "overlay2" | "overlayfs");
    if !overlay {
        findings.push(STORAGE_DRIVER.found(
            format!("Docker's storage driver is {}", engine.storage_driver),
            "Make sure that overlayfs works on the file system of /var/lib/containerd.",
        ));
    }
    let config = view.containerd.config.file.as_ref();
    let root = config.and_then(|file| containerd_toml::root(&file.text).ok().flatten());
    let root = root.as_deref().unwrap_or("/var/lib/containerd");
    let Some(disk) = disk(view.facts, root) else {
        return findings;
    };
    let needed = view.cargo.bytes.saturating_mul(COPIES);
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
            "Remove unused images first; the source's store keeps its images until the clean-up.",
        ));
    }
    let docker = self::disk(view.facts, engine.data_root.as_str());
    let proven = overlay && docker.is_some_and(|docker| docker.device == disk.device);
    if disk.kind == "xfs" && !proven {
        findings.push(XFS_FTYPE_UNKNOWN.found(
            format!("{root} lies on XFS"),
            "`xfs_info` must say ftype=1; the rehearsal fails otherwise.",
        ));
    }
    findings
}

/// The disk below `path`: the one that was looked at for the nearest directory above it.
fn disk<'a>(facts: &'a Facts, path: &str) -> Option<&'a Disk> {
    let above = |dir: &str| path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    facts
        .disks
        .iter()
        .filter(|disk| above(disk.path.as_str()))
        .max_by_key(|disk| disk.path.as_str().len())
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
