//! The pod network: dockershim reads CNI configuration as containerd does, but has two modes without it.

use serde_json::Value;

use super::{Code, View};
use crate::plan::finding::Finding;

/// kubenet or Docker's own bridge.
pub const NO_CNI: Code = Code::block(
    "NoCni",
    "The kubelet uses kubenet or Docker's own bridge, which exist in dockershim alone; containerd needs CNI",
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
/// A plugin is not there.
pub const CNI_PLUGIN_MISSING: Code = Code::block(
    "CniPluginMissing",
    "A CNI plugin of the configuration is in none of the plugin directories",
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

/// All codes of this module.
pub const CODES: &[Code] = &[
    NO_CNI,
    CNI_CONFIG_MISSING,
    CNI_CONFIG_BROKEN,
    CNI_PLUGIN_MISSING,
    PORTMAP_MISSING,
    REHEARSAL_ON_HOST_NETWORK,
];

/// Plugins that set up a sandbox without asking the API for its pod.
const STANDALONE: [&str; 11] = [
    "bridge",
    "ptp",
    "macvlan",
    "ipvlan",
    "flannel",
    "portmap",
    "bandwidth",
    "firewall",
    "tuning",
    "sbr",
    "loopback",
];

/// The types of the plugins in the chain that is used: the first configuration in lexical order.
fn chain(view: &View<'_>) -> Result<Option<Vec<String>>, String> {
    let Some(file) = view.facts.cni.configs.first() else {
        return Ok(None);
    };
    let config: Value =
        serde_json::from_str(&file.text).map_err(|error| format!("{}: {error}", file.path))?;
    let kind = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    let types: Option<Vec<String>> = match config.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.iter().map(kind).collect(),
        None => kind(&config).map(|kind| vec![kind]),
    };
    types
        .filter(|types| !types.is_empty())
        .map(Some)
        .ok_or_else(|| format!("{}: a plugin has no type", file.path))
}

/// Whether a sandbox can be rehearsed in the pod network.
pub fn rehearse_in_pod_network(view: &View<'_>) -> bool {
    matches!(chain(view), Ok(Some(types)) if types.iter().all(|kind| STANDALONE.contains(&&**kind)))
}

/// Checks of the pod network.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let settings = view.settings;
    if settings.network_plugin != "cni" {
        let used = if settings.network_plugin.is_empty() {
            "Docker's own bridge"
        } else {
            &settings.network_plugin
        };
        return vec![NO_CNI.found(
            format!("the kubelet's network plugin is {used}"),
            "Move the cluster to a CNI network first (--network-plugin=cni).",
        )];
    }
    let types = match chain(view) {
        Err(error) => {
            return vec![CNI_CONFIG_BROKEN.found(error, "Correct it; the kubelet would not use it either.")];
        }
        Ok(None) => {
            return vec![CNI_CONFIG_MISSING.found(
                format!("{} holds no configuration", settings.cni_conf_dir),
                "Install the cluster's network on this node first.",
            )];
        }
        Ok(Some(types)) => types,
    };
    let mut findings = Vec::new();
    let present = |name: &str| {
        view.facts.cni.bin_dirs.iter().any(|(dir, names)| {
            settings.cni_bin_dirs.iter().any(|used| used == dir.as_str())
                && names.iter().any(|found| found == name)
        })
    };
    let missing: Vec<String> = types
        .iter()
        .map(String::as_str)
        .chain(["loopback"])
        .filter(|name| !present(name))
        .map(str::to_owned)
        .collect();
    if !missing.is_empty() {
        findings.push(CNI_PLUGIN_MISSING.found(
            format!("not in {}: {}", settings.cni_bin_dirs.join(", "), super::some(&missing)),
            "Install the plugins there (package containernetworking-plugins, or the network's own installer).",
        ));
    }
    if !types.iter().any(|kind| kind == "portmap") {
        findings.push(PORTMAP_MISSING.found(
            format!("the CNI chain is {}", types.join(", ")),
            "Add portmap with `capabilities: {portMappings: true}` if pods of this node use hostPort (some networks map host ports themselves).",
        ));
    }
    if !rehearse_in_pod_network(view) {
        findings.push(REHEARSAL_ON_HOST_NETWORK.found(
            format!("the CNI chain is {}", types.join(", ")),
            "The pod network is first used by the pods themselves, under the target.",
        ));
    }
    findings
}
