//! The pod network: dockershim reads CNI configuration as all others do, but has two modes without it.

use serde_json::Value;

use super::{Code, View};
use crate::{
    api::request::Runtime,
    edit::{flags, parse},
    plan::{finding::Finding, version},
};

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

/// The plugins of the chain that is used: the first configuration in lexical order.
struct Chain {
    /// Whether it says for which version of CNI it is written.
    versioned: bool,
    /// Types in order.
    types: Vec<String>,
    /// Types of the plugins that give the addresses.
    ipam: Vec<String>,
}

fn chain(view: &View<'_>) -> Result<Option<Chain>, String> {
    let Some(file) = view.facts.cni.configs.first() else {
        return Ok(None);
    };
    let config: Value = parse::json(&file.text).map_err(|error| format!("{}: {error}", file.path))?;
    let versioned = config
        .get("cniVersion")
        .and_then(Value::as_str)
        .is_some_and(|version| !version.is_empty());
    let plugins = match config.get("plugins").and_then(Value::as_array) {
        Some(plugins) => plugins.clone(),
        None => vec![config],
    };
    let kind = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
    let types: Option<Vec<String>> = plugins.iter().map(kind).collect();
    let types = types
        .filter(|types| !types.is_empty())
        .ok_or_else(|| format!("{}: there is no plugin, or one has no type", file.path))?;
    Ok(Some(Chain {
        versioned,
        types,
        ipam: plugins
            .iter()
            .filter_map(|plugin| kind(plugin.get("ipam")?))
            .collect(),
    }))
}

/// The plugins of `chain`, and the one for the loopback device, that are not in `dir`.
fn missing(view: &View<'_>, chain: &Chain, dir: &str) -> Vec<String> {
    let names = view
        .facts
        .cni
        .bin_dirs
        .iter()
        .find(|found| found.path.as_str() == dir)
        .map(|found| &found.plugins);
    let loopback = "loopback".to_owned();
    let needed = chain.types.iter().chain(&chain.ipam).chain([&loopback]);
    needed
        .filter(|name| names.is_none_or(|names| !names.contains(name)))
        .cloned()
        .collect()
}

/// The directory that containerd is given: the first of the source's that has every plugin.
pub fn bin_dir(view: &View<'_>) -> Option<String> {
    let chain = chain(view).ok().flatten()?;
    view.source
        .network
        .bin_dirs
        .iter()
        .find(|dir| missing(view, &chain, dir).is_empty())
        .cloned()
}

/// Whether the pod network has IPv6 addresses, as far as the node knows it: a subnet or a request for them in the CNI
/// configuration, or an address of the node itself.
pub fn has_ipv6(view: &View<'_>) -> bool {
    fn is_ipv6(value: &Value) -> bool {
        match value {
            Value::String(text) => {
                let address = text.split('/').next().unwrap_or_default();
                address.parse::<core::net::Ipv6Addr>().is_ok()
            }
            Value::Array(list) => list.iter().any(is_ipv6),
            Value::Object(map) => map.iter().any(|(key, value)| {
                let wanted = matches!(value.as_str(), Some("true")) || value.as_bool() == Some(true);
                // Default routes of both families are written for either network.
                (key == "assign_ipv6" && wanted) || (key != "routes" && is_ipv6(value))
            }),
            _ => false,
        }
    }
    let words = &view.kubelet.command_line;
    let node = flags::value(words, "node-ip").is_some_and(|node| node.contains(':'));
    let config = view.facts.cni.configs.first();
    let config = config.and_then(|file| parse::json::<Value>(&file.text).ok());
    node || config.is_some_and(|config| is_ipv6(&config))
}

/// Whether a sandbox can be rehearsed in the pod network.
pub fn rehearse_in_pod_network(view: &View<'_>) -> bool {
    matches!(chain(view), Ok(Some(chain)) if chain.types.iter().all(|kind| STANDALONE.contains(&&**kind)))
}

/// How the pod network is proven after the kubelet's start under the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provable {
    /// By a rehearsal, which a pod of the kubelet makes unnecessary.
    ByRehearsal,
    /// By a pod in the pod network that stays on the node.
    ByPods,
}

/// How the pod network can be proven; `None` if a sandbox of Transship's own cannot be in it, and no pod in it stays.
pub fn proof(view: &View<'_>) -> Option<Provable> {
    if rehearse_in_pod_network(view) {
        Some(Provable::ByRehearsal)
    } else {
        view.request.pods_in_pod_network.then_some(Provable::ByPods)
    }
}

/// Configurations of other tools (podman's, CRI-O's and containerd's bridges) that lie beside the one in use.
fn competing(view: &View<'_>) -> Vec<Finding> {
    let names: Vec<String> = view
        .facts
        .cni
        .configs
        .iter()
        .map(|file| file.path.to_string())
        .collect();
    let Some((used, others)) = names.split_first().filter(|(_, others)| !others.is_empty()) else {
        return Vec::new();
    };
    vec![CNI_CONFIGS_COMPETE.found(
        format!(
            "{used} is used; {} would be, if it came first or alone",
            super::some(others)
        ),
        "Make sure that the first one is the cluster's network, and remove what other tools left there.",
    )]
}

/// See "troubleshooting CNI plugin-related errors" on kubernetes.io.
fn refuses_no_version(view: &View<'_>) -> bool {
    let refusing = semver::Version::new(1, 6, 0)..semver::Version::new(1, 6, 4);
    view.target.runtime == Runtime::Containerd
        && version::upstream(&view.target.version).is_some_and(|version| refusing.contains(&version))
}

/// Checks of the pod network.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let network = &view.source.network;
    if network.plugin != "cni" {
        let used = if network.plugin.is_empty() {
            "Docker's own bridge"
        } else {
            &network.plugin
        };
        let program = match view.source.runtime {
            Runtime::CriDockerd => "cri-dockerd",
            Runtime::Dockershim | Runtime::Containerd | Runtime::CriO => "the kubelet",
        };
        return vec![NO_CNI.found(
            format!("{program} connects the pods to {used}, as its --network-plugin says"),
            format!(
                "Move the cluster to a CNI network first: give {program} --network-plugin=cni, and let the pods start \
                 again."
            ),
        )];
    }
    let chain = match chain(view) {
        Err(error) => {
            return vec![CNI_CONFIG_BROKEN.found(error, "Correct it; the kubelet would not use it either.")];
        }
        Ok(None) => {
            return vec![CNI_CONFIG_MISSING.found(
                format!("{} holds no configuration", network.conf_dir),
                "Install the cluster's network on this node first.",
            )];
        }
        Ok(Some(chain)) => chain,
    };
    let mut findings = competing(view);
    if !chain.versioned && refuses_no_version(view) {
        findings.push(CNI_VERSION_MISSING.found(
            format!(
                "the first file in {} has no cniVersion, and containerd is {}",
                network.conf_dir, view.target.version
            ),
            "Add `\"cniVersion\": \"0.3.1\"` to it, or use containerd 1.6.4 or later.",
        ));
    }
    let types = &chain.types;
    if bin_dir(view).is_none() {
        let dirs: Vec<String> = network
            .bin_dirs
            .iter()
            .map(|dir| format!("{dir} lacks {}", super::some(&missing(view, &chain, dir))))
            .collect();
        findings.push(CNI_PLUGIN_MISSING.found(
            dirs.join("; "),
            "Install all plugins in one directory (package containernetworking-plugins, or the network's own installer).",
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
    if proof(view).is_none() {
        findings.push(POD_NETWORK_NOT_PROVEN.found(
            "the CNI chain asks the API for the pod, and no pod in the pod network is known to stay on the node",
            "Watch the first pods that start on the node after the switch; start a DaemonSet in the pod network to have \
             it proven.",
        ));
    }
    findings
}
