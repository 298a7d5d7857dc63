//! The pod network: its chain of CNI plugins, and how it can be proven.

use serde_json::Value;

use crate::{
    edit::{flags, parse},
    planner::context::View,
};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Whether it says for which version of CNI it is written.
    pub versioned: bool,
    /// Types in order.
    pub types: Vec<String>,
    /// Types of the plugins that give the addresses.
    pub ipam: Vec<String>,
}

/// The chain that is used; `None` if there is no configuration.
///
/// # Errors
/// When the first configuration cannot be read.
pub fn chain(view: &View<'_>) -> Result<Option<Chain>, String> {
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

/// The configuration that is used, if it can be read.
pub fn configuration(view: &View<'_>) -> Option<Value> {
    let file = view.facts.cni.configs.first()?;
    parse::json(&file.text).ok()
}

/// The plugins of `chain`, and the one for the loopback device, that are not in `dir`.
pub fn missing(view: &View<'_>, chain: &Chain, dir: &str) -> Vec<String> {
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
    node || configuration(view).is_some_and(|config| is_ipv6(&config))
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
        let pods = view.request.pods().filter(|pods| pods.in_pod_network);
        pods.map(|_| Provable::ByPods)
    }
}
