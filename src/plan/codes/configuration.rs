//! Files that must be edited, or that decide what the edited ones mean.

use crate::plan::finding::Code;

/// `daemon.json` is broken.
pub const DAEMON_JSON_BROKEN: Code = Code::block("DaemonJsonBroken", "Docker's `daemon.json` cannot be read");
/// `config.toml` is broken.
pub const CONTAINERD_CONFIG_BROKEN: Code = Code::block(
    "ContainerdConfigBroken",
    "containerd's `config.toml` cannot be read or not be edited safely",
);
/// `config.toml` belongs to the distribution.
pub const CONTAINERD_CONFIG_IN_USR: Code = Code::block_unless_allowed(
    "ContainerdConfigInUsr",
    "containerd reads its configuration from `/usr`, which is read-only on some systems and changed by upgrades on all",
);
/// Docker has not read its configuration.
pub const DAEMON_JSON_UNREAD: Code = Code::block_unless_allowed(
    "DaemonJsonUnread",
    "Docker's `daemon.json` was changed after Docker was started, so it is not known whether Docker would start with it",
);
/// A configuration file of the kubelet is broken.
pub const KUBELET_CONFIG_BROKEN: Code = Code::block(
    "KubeletConfigBroken",
    "A configuration file of the kubelet cannot be read or not be edited safely",
);
/// The kubelet's flags cannot be edited.
pub const FLAGS_NOT_EDITABLE: Code = Code::block(
    "FlagsNotEditable",
    "The kubelet's flags stand in a form that cannot be edited safely",
);
/// A file of somebody else beats a drop-in of the plan.
pub const DROP_IN_SHADOWED: Code = Code::block(
    "DropInShadowed",
    "A file of somebody else is read after the drop-in that the plan writes, and sets the same property of the unit",
);
/// `/etc/crictl.yaml` is broken.
pub const CRICTL_CONFIG_BROKEN: Code = Code::block(
    "CrictlConfigBroken",
    "`/etc/crictl.yaml` cannot be read or not be edited safely",
);
/// `config.toml` has imports.
pub const CONTAINERD_IMPORTS: Code = Code::warn(
    "ContainerdImports",
    "`config.toml` imports other files, which can override what is set in it; the rehearsal shows it",
);
/// The effective configuration could not be had.
pub const CONTAINERD_DUMP_FAILED: Code = Code::warn(
    "ContainerdDumpFailed",
    "`containerd config dump` failed with the files as they are",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    DAEMON_JSON_BROKEN,
    DAEMON_JSON_UNREAD,
    CONTAINERD_CONFIG_BROKEN,
    CONTAINERD_CONFIG_IN_USR,
    KUBELET_CONFIG_BROKEN,
    FLAGS_NOT_EDITABLE,
    DROP_IN_SHADOWED,
    CRICTL_CONFIG_BROKEN,
    CONTAINERD_IMPORTS,
    CONTAINERD_DUMP_FAILED,
];
