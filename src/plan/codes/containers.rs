//! What runs under Docker, and what depends on Docker itself.

use crate::plan::finding::Code;

/// Containers that Kubernetes does not know.
pub const FOREIGN_CONTAINERS: Code = Code::block_unless_allowed(
    "ForeignContainers",
    "Containers run under Docker that are not Kubernetes'; they stop with Docker (accepted by `source.keep` too), or during a rollback that has to stop it",
);
/// etcd under Docker itself.
pub const ETCD_IN_DOCKER: Code = Code::block(
    "EtcdInDocker",
    "etcd runs under Docker and is not Kubernetes'; it would end where Docker does, and the cluster's data may be in it alone",
);
/// Pods that use Docker itself.
pub const DOCKER_SOCKET_MOUNTED: Code = Code::block_unless_allowed(
    "DockerSocketMounted",
    "Pods mount Docker's socket or its data, which are of no use to them afterwards",
);
/// Pods that could use Docker itself.
pub const DOCKER_SOCKET_REACHABLE: Code = Code::warn(
    "DockerSocketReachable",
    "Pods mount a directory that holds Docker's socket or its data",
);
/// Docker stays without pods.
pub const DOCKER_HAS_NO_PODS: Code = Code::warn(
    "DockerHasNoPods",
    "Pods mount the socket or the data of a Docker that is kept, which has no pods and no logs of them afterwards",
);
/// Pods that write Docker's configuration.
pub const DOCKER_CONFIG_MOUNTED: Code = Code::warn(
    "DockerConfigMounted",
    "Pods mount `/etc/docker`, where the target reads nothing: certificates that they write do not reach it",
);
/// Pods that use the source's CRI.
pub const CRI_SOCKET_MOUNTED: Code = Code::warn(
    "CriSocketMounted",
    "Pods mount the CRI socket of the source, which serves no pods afterwards",
);
/// Containers outlive Docker.
pub const LIVE_RESTORE: Code = Code::warn(
    "LiveRestore",
    "Docker's containers outlive Docker; containers that are not of Kubernetes keep running without it",
);
/// Logs do not lie in files.
pub const LOGGING_DRIVER: Code = Code::warn(
    "LoggingDriver",
    "Docker does not log into files, which is where all logs are under the target",
);
/// Docker stops with containerd.
pub const DOCKER_BOUND_TO_CONTAINERD: Code = Code::block(
    "DockerBoundToContainerd",
    "Docker's unit, or its socket's, stops when containerd's is restarted, which would end all containers while the node serves; what binds it is not in a file below `/etc`, which the plan changes",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    FOREIGN_CONTAINERS,
    ETCD_IN_DOCKER,
    DOCKER_SOCKET_MOUNTED,
    DOCKER_SOCKET_REACHABLE,
    DOCKER_HAS_NO_PODS,
    DOCKER_CONFIG_MOUNTED,
    CRI_SOCKET_MOUNTED,
    LIVE_RESTORE,
    LOGGING_DRIVER,
    DOCKER_BOUND_TO_CONTAINERD,
];
