//! Disks: room for a second copy of the images, and file systems that overlayfs works on.

use crate::plan::finding::Code;

/// No room.
pub const DISK_SPACE: Code = Code::block_unless_allowed(
    "DiskSpace",
    "There is not enough room for the images in the target's store, or for the archive that is unpacked",
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
