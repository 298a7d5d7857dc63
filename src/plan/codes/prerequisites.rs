//! What pods need of the node apart from a runtime: modules, kernel settings, swap, cgroups.

use crate::plan::finding::Code;

/// The kernel has no overlay file system.
pub const OVERLAY_MISSING: Code = Code::warn(
    "OverlayMissing",
    "The kernel does not list the overlay file system; the target's unit must be able to load the module",
);
/// Packets are not forwarded.
pub const IP_FORWARD_OFF: Code = Code::warn(
    "IpForwardOff",
    "The kernel forwards no IPv4 packets, so pods would not reach other nodes",
);
/// Bridged packets bypass the packet filter.
pub const BRIDGE_FILTER_OFF: Code = Code::warn(
    "BridgeFilterOff",
    "Bridged packets bypass the packet filter, which Services need where the pod network is a bridge",
);
/// Only Docker sets it.
pub const SET_BY_DOCKER_ALONE: Code = Code::warn(
    "SetByDockerAlone",
    "Kernel modules or settings that pods need are set by Docker alone, and would be off after the first boot without it",
);
/// Swap is on.
pub const SWAP_ON: Code = Code::info(
    "SwapOn",
    "The node has swap, which the kubelet was told to accept",
);
/// cgroup v1.
pub const CGROUP_V1: Code = Code::warn(
    "CgroupV1",
    "The node uses cgroup v1, which kubelets from 1.35 on refuse unless told otherwise, and containerd from 2.2 on calls deprecated",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    OVERLAY_MISSING,
    IP_FORWARD_OFF,
    BRIDGE_FILTER_OFF,
    SET_BY_DOCKER_ALONE,
    SWAP_ON,
    CGROUP_V1,
];
