//! The pod network when CRI-O starts next to another runtime.

use semver::Version;

use crate::{
    plan::{codes::crio::PODS_LOSE_NETWORK, finding::Finding, runtime::Runtime, version},
    planner::{context::View, pod_network},
};

/// Where libcni keeps what CRI-O gave to plugins (the default of the library).
pub(super) const CNI_CACHE: &str = "/var/lib/cni";
/// The first version of CNI whose plugins are asked to collect garbage themselves.
const PLUGINS_COLLECT_SINCE: Version = Version::new(1, 1, 0);

/// At its start CRI-O takes every sandbox off the network that stands in its cache of libcni and is not its own; and has the plugins
/// free what they hold for others, if their configuration is one of CNI 1.1 (`GC` of ocicni; tried with 1.34.0).
pub(super) fn pods_lose_network(view: &View<'_>) -> Option<Finding> {
    let network = &view.source.network;
    let config = pod_network::configuration(view).unwrap_or_default();
    let says = |name: &str| config.get(name).cloned().unwrap_or_default();
    let disabled = says("disableGC");
    if disabled.as_bool() == Some(true) || disabled == "true" {
        return None;
    }
    let version = says("cniVersion").as_str().and_then(version::upstream);
    let why = if view.source.runtime == Runtime::Containerd || network.cache_dir == CNI_CACHE {
        format!(
            "{} and CRI-O note in {CNI_CACHE} which pods are on the network, and CRI-O takes those off it, when it starts, that \
             it has not made",
            view.source.runtime
        )
    } else if version.is_some_and(|version| version >= PLUGINS_COLLECT_SINCE) {
        format!(
            "the configuration in {} is one of CNI 1.1, and CRI-O has its plugins free, when it starts, what they hold for pods \
             that it has not made",
            network.conf_dir
        )
    } else {
        return None;
    };
    Some(PODS_LOSE_NETWORK.found(
        why,
        format!(
            "Add `\"disableGC\": true` to the first file in {}, and plan again; take it out after the commit.",
            network.conf_dir
        ),
    ))
}
