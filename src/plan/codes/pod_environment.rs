//! What pods have under the source and not under the target, apart from their own specification.

use crate::plan::finding::Code;

/// Low ports and pings come along.
pub const UNPRIVILEGED_PORTS: Code = Code::info(
    "UnprivilegedPorts",
    "Docker lets processes without privileges bind ports under 1024 and send pings; containerd is set to do the same",
);
/// Low ports and pings are lost.
pub const UNPRIVILEGED_PORTS_LOST: Code = Code::warn(
    "UnprivilegedPortsLost",
    "Docker lets processes without privileges bind ports under 1024 and send pings, and the target's version cannot",
);
/// `localhost` has other addresses.
pub const LOCALHOST_CHANGES: Code = Code::warn(
    "LocalhostChanges",
    "In an IPv4 pod network, Docker switches IPv6 off in a pod and containerd does not: `localhost` has another first address",
);
/// A deadline of pulls.
pub const PULL_DEADLINE: Code = Code::info(
    "PullDeadline",
    "The source was given a longer deadline for image pulls that make no progress; the target gets it too, or has none",
);
/// Limits of processes.
pub const ULIMITS_CARRIED: Code = Code::info(
    "UlimitsCarried",
    "Docker's `default-ulimits` become limits of containerd's unit, which pods inherit, or `default_ulimits` of CRI-O",
);
/// Limits of processes are lost.
pub const ULIMITS_LOST: Code = Code::warn(
    "UlimitsLost",
    "Some of Docker's `default-ulimits` are not carried over: they would stop containerd itself as limits of its unit",
);
/// Logs are somewhere else.
pub const LOGS_MOVE: Code = Code::info(
    "LogsMove",
    "The logs of pods lie in `/var/log/pods` under the target, within the limits of the kubelet",
);
/// Less of the logs is kept.
pub const LOGS_SHRINK: Code = Code::warn(
    "LogsShrink",
    "The kubelet keeps less of a container's log than Docker did, and in `/var/log/pods`",
);
/// More of the logs is kept.
pub const LOGS_GROW: Code = Code::warn(
    "LogsGrow",
    "Docker keeps more of a container's log than the kubelet does under the source, and the kubelet cannot rotate it there",
);
/// There may be no room for the logs.
pub const LOG_SPACE: Code = Code::warn(
    "LogSpace",
    "The file system of `/var/log` is smaller than Docker's, or has no room for the logs of all containers",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    UNPRIVILEGED_PORTS,
    UNPRIVILEGED_PORTS_LOST,
    LOCALHOST_CHANGES,
    PULL_DEADLINE,
    ULIMITS_CARRIED,
    ULIMITS_LOST,
    LOGS_MOVE,
    LOGS_SHRINK,
    LOGS_GROW,
    LOG_SPACE,
];
