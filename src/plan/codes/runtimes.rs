//! The two runtimes: whether the pair can be planned, and whether the target fits the kubelet.

use crate::plan::finding::Code;

/// Nothing to do.
pub const ALREADY_ON_TARGET: Code = Code::info(
    "AlreadyOnTarget",
    "The node uses the target runtime; nothing is touched",
);
/// An endpoint of something unknown.
pub const UNKNOWN_ENDPOINT: Code = Code::block(
    "UnknownEndpoint",
    "The kubelet's CRI endpoint is that of no runtime that is known",
);
/// Not this pair.
pub const UNSUPPORTED_PAIR: Code = Code::block(
    "UnsupportedPair",
    "This version does not move from this runtime to that one",
);
/// The source does not answer.
pub const SOURCE_NOT_ANSWERING: Code = Code::block(
    "SourceNotAnswering",
    "The source runtime does not answer, so its containers and images are not known",
);
/// The target is not there.
pub const TARGET_NOT_INSTALLED: Code =
    Code::block("TargetNotInstalled", "The target runtime is not installed");
/// The target's unit is masked.
pub const TARGET_MASKED: Code = Code::block("TargetMasked", "The target's unit is masked");
/// The target cannot serve this kubelet.
pub const TARGET_VERSION_UNFIT: Code = Code::block(
    "TargetVersionUnfit",
    "The target's version cannot serve this kubelet",
);
/// The target was not tested with this kubelet.
pub const TARGET_VERSION_UNSUPPORTED: Code = Code::warn(
    "TargetVersionUnsupported",
    "The target's version is older than those that its project supports with this kubelet",
);
/// Not the version that was asked for.
pub const TARGET_VERSION_MISMATCH: Code = Code::block(
    "TargetVersionMismatch",
    "The target's version is not the one that `target.version` asks for",
);
/// Older than what serves.
pub const TARGET_VERSION_OLDER: Code = Code::block(
    "TargetVersionOlder",
    "The version that is asked for is older than the runtime that serves the node",
);
/// Which shim?
pub const SHIM_UNKNOWN: Code = Code::block(
    "ShimUnknown",
    "No container names the program of its shim, which new containers need until the commit",
);
/// The CRI is switched off.
pub const CRI_DISABLED: Code = Code::info(
    "CriDisabled",
    "containerd's CRI is switched off; it will be switched on",
);
/// The CRI does not answer.
pub const CRI_NOT_ANSWERING: Code = Code::warn(
    "CriNotAnswering",
    "containerd runs and its CRI, which is not switched off, does not answer",
);
/// Two cgroup drivers.
pub const CGROUP_DRIVER_MISMATCH: Code = Code::block(
    "CgroupDriverMismatch",
    "The cgroup drivers of kubelet, source and request differ",
);
/// The target does not answer `RuntimeConfig`.
pub const CGROUP_DRIVER_NOT_TOLD: Code = Code::warn(
    "CgroupDriverNotTold",
    "The target's version does not tell the kubelet its cgroup driver, which kubelets from 1.38 on are announced to need",
);
/// Docker gets the kubelet's cgroup driver.
pub const DOCKER_DRIVER_CHANGES: Code = Code::info(
    "DockerDriverChanges",
    "Docker, under which nothing runs, gets the kubelet's cgroup driver in `daemon.json`",
);
/// The group of cri-dockerd's socket.
pub const DOCKER_GROUP_MISSING: Code = Code::block_unless_allowed(
    "DockerGroupMissing",
    "There is no group `docker`, to which the socket of cri-dockerd belongs",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    ALREADY_ON_TARGET,
    UNKNOWN_ENDPOINT,
    UNSUPPORTED_PAIR,
    SOURCE_NOT_ANSWERING,
    TARGET_NOT_INSTALLED,
    TARGET_MASKED,
    TARGET_VERSION_UNFIT,
    TARGET_VERSION_UNSUPPORTED,
    TARGET_VERSION_MISMATCH,
    TARGET_VERSION_OLDER,
    SHIM_UNKNOWN,
    CRI_DISABLED,
    CRI_NOT_ANSWERING,
    CGROUP_DRIVER_MISMATCH,
    CGROUP_DRIVER_NOT_TOLD,
    DOCKER_DRIVER_CHANGES,
    DOCKER_GROUP_MISSING,
];
