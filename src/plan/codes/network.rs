//! The pod network: dockershim reads CNI configuration as all others do, but has two modes without it.

use crate::plan::finding::Code;

/// kubenet or Docker's own bridge.
pub const NO_CNI: Code = Code::block(
    "NoCni",
    "The pods are on kubenet or Docker's own bridge; the target needs CNI",
);
/// There is no CNI configuration.
pub const CNI_CONFIG_MISSING: Code = Code::block(
    "CniConfigMissing",
    "There is no CNI configuration, so the target's network could not become ready",
);
/// The first CNI configuration is broken.
pub const CNI_CONFIG_BROKEN: Code = Code::block(
    "CniConfigBroken",
    "The CNI configuration that comes first cannot be read",
);
/// Another configuration could win.
pub const CNI_CONFIGS_COMPETE: Code = Code::warn(
    "CniConfigsCompete",
    "There are several CNI configurations; runtimes take the first in the order of their names",
);
/// containerd 1.6.0 to 1.6.3 refuse a configuration without a version.
pub const CNI_VERSION_MISSING: Code = Code::block(
    "CniVersionMissing",
    "The CNI configuration names no `cniVersion`, which the target's version refuses",
);
/// A plugin is not there.
pub const CNI_PLUGIN_MISSING: Code = Code::block(
    "CniPluginMissing",
    "No plugin directory has all CNI plugins of the configuration",
);
/// Host ports need portmap.
pub const PORTMAP_MISSING: Code = Code::warn(
    "PortmapMissing",
    "The CNI chain has no `portmap`: host ports of pods do not work",
);
/// The rehearsal cannot use the pod network.
pub const REHEARSAL_ON_HOST_NETWORK: Code = Code::info(
    "RehearsalOnHostNetwork",
    "The CNI chain asks the API for the pod, so the rehearsal runs in the host's network",
);
/// Nothing can prove the pod network.
pub const POD_NETWORK_NOT_PROVEN: Code = Code::warn(
    "PodNetworkNotProven",
    "No sandbox in the pod network runs under the target before the switch is confirmed",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    NO_CNI,
    CNI_CONFIG_MISSING,
    CNI_CONFIG_BROKEN,
    CNI_CONFIGS_COMPETE,
    CNI_VERSION_MISSING,
    CNI_PLUGIN_MISSING,
    PORTMAP_MISSING,
    REHEARSAL_ON_HOST_NETWORK,
    POD_NETWORK_NOT_PROVEN,
];
