//! containerd to a newer containerd on the same node, with its pods running.

use crate::plan::finding::Code;

/// What every upgrade means.
pub const CONTAINERD_RESTARTS: Code = Code::info(
    "ContainerdRestarts",
    "containerd is restarted while its pods keep running; open exec, attach and port-forward sessions are closed",
);
/// Processes outside their cgroup.
pub const PROCESSES_OUTSIDE_CGROUP: Code = Code::info(
    "ProcessesOutsideCgroup",
    "The first process of a container is not in its cgroup, and any restart of containerd would end the container; the plan moves the process back first",
);
/// Two shims at one socket.
pub const POD_SPLIT: Code = Code::block_unless_allowed(
    "PodSplit",
    "The containers of a pod hang on two shims with the same socket, so any restart of containerd restarts the pod",
);
/// The shim's file is gone.
pub const SHIM_MISSING: Code = Code::block(
    "ShimMissing",
    "The shim program of running containers does not exist: any restart of containerd loses their pods, and their processes keep running next to the new pods",
);
/// Containers that 2.x cannot run.
pub const RUNTIME_GONE: Code = Code::block(
    "RuntimeGone",
    "containerd has containers of a runtime that containerd 2.x does not have",
);
/// Shims of others.
pub const OTHER_SHIMS: Code = Code::warn(
    "OtherShims",
    "Containers run with shims other than runc's; their upgrade has not been tried",
);
/// Somebody speaks the old CRI.
pub const CRI_V1ALPHA2_USED: Code = Code::block_unless_allowed(
    "CriV1alpha2Used",
    "The CRI v1alpha2 was used since containerd started, and containerd 2.x does not serve it",
);
/// Deprecated features.
pub const DEPRECATED_FEATURES: Code = Code::info(
    "DeprecatedFeatures",
    "containerd reports the use of deprecated features",
);
/// Sandboxes of an experiment.
pub const CRI_SANDBOXES_ENABLED: Code = Code::block(
    "CriSandboxesEnabled",
    "containerd 1.7 runs with ENABLE_CRI_SANDBOXES: containerd 2.x moves its records of sandboxes, and no rollback is possible",
);
/// The configuration, key by key.
pub const CONTAINERD_CONFIG_TRANSLATED: Code = Code::info(
    "ContainerdConfigTranslated",
    "Keys of `config.toml` are translated, or written out because the newer containerd has another default",
);
/// What 2.x does not have.
pub const CONTAINERD_CONFIG_DROPPED: Code = Code::warn(
    "ContainerdConfigDropped",
    "The newer containerd does not have a key of `config.toml`",
);
/// What blocks.
pub const CONTAINERD_CONFIG_NOT_TRANSLATED: Code = Code::block(
    "ContainerdConfigNotTranslated",
    "A part of containerd's configuration cannot be translated for the newer containerd",
);
/// A handler with a shim of its own.
pub const HANDLER_HAS_SHIM: Code = Code::warn(
    "HandlerHasShim",
    "A handler names its shim program itself, and the plan does not change it",
);
/// Plugins of NRI.
pub const NRI_PLUGINS_STAY_OFF: Code = Code::info(
    "NriPluginsStayOff",
    "There are plugins of NRI, which containerd 2.x would start; the plan keeps NRI off",
);
/// Files that nothing imports.
pub const CONF_D_NOT_IMPORTED: Code = Code::info(
    "ConfDNotImported",
    "Files in `/etc/containerd/conf.d` are not imported; they stay unread",
);
/// Docker on the same containerd.
pub const DOCKER_ON_CONTAINERD: Code = Code::warn(
    "DockerOnContainerd",
    "Docker uses the same containerd; containers that it starts before the commit do not survive a rollback",
);
/// Further than upstream promises.
pub const UPGRADE_BEYOND_SUPPORT: Code = Code::info(
    "UpgradeBeyondSupport",
    "containerd's project supports upgrades to the next minor release and from 1.7 to 2.3 only",
);
/// Images in the first format of Docker.
pub const SCHEMA_1_IMAGES: Code = Code::warn(
    "Schema1Images",
    "Images were pulled in the format of Docker's schema 1, which containerd 2.x cannot pull",
);
/// New pods get another profile.
pub const SECCOMP_PROFILE_CHANGES: Code = Code::info(
    "SeccompProfileChanges",
    "The default seccomp profile of containerd 2.x refuses io_uring to new pods",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    CONTAINERD_RESTARTS,
    PROCESSES_OUTSIDE_CGROUP,
    POD_SPLIT,
    SHIM_MISSING,
    RUNTIME_GONE,
    OTHER_SHIMS,
    CRI_V1ALPHA2_USED,
    DEPRECATED_FEATURES,
    CRI_SANDBOXES_ENABLED,
    CONTAINERD_CONFIG_TRANSLATED,
    CONTAINERD_CONFIG_DROPPED,
    CONTAINERD_CONFIG_NOT_TRANSLATED,
    HANDLER_HAS_SHIM,
    NRI_PLUGINS_STAY_OFF,
    CONF_D_NOT_IMPORTED,
    DOCKER_ON_CONTAINERD,
    UPGRADE_BEYOND_SUPPORT,
    SCHEMA_1_IMAGES,
    SECCOMP_PROFILE_CHANGES,
];
