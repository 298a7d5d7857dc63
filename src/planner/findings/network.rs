//! The pod network: dockershim reads CNI configuration as all others do, but has two modes without it.

use crate::{
    plan::{
        codes::network::{
            CNI_CONFIG_BROKEN, CNI_CONFIG_MISSING, CNI_CONFIGS_COMPETE, CNI_PLUGIN_MISSING,
            CNI_VERSION_MISSING, NO_CNI, POD_NETWORK_NOT_PROVEN, PORTMAP_MISSING, REHEARSAL_ON_HOST_NETWORK,
        },
        finding::Finding,
        lists,
    },
    planner::{
        context::View,
        pod_network::{bin_dir, chain, missing, proof, rehearse_in_pod_network},
        releases,
    },
};

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
            lists::some(others)
        ),
        "Make sure that the first one is the cluster's network, and remove what other tools left there.",
    )]
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
        let program = if view.source.runtime.is_in_kubelet() {
            "the kubelet"
        } else {
            view.source.runtime.name()
        };
        return vec![NO_CNI.found(
            format!("{program} connects the pods to {used}, as its --network-plugin says, or as it does without one"),
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
    let target = &view.target;
    let refused = releases::refuses_unversioned_cni(target.runtime, &target.version);
    if let Some(later) = refused.filter(|_| !chain.versioned) {
        findings.push(CNI_VERSION_MISSING.found(
            format!(
                "the first file in {} has no cniVersion, and {} is {}",
                network.conf_dir, target.runtime, target.version
            ),
            format!(
                "Add `\"cniVersion\": \"0.3.1\"` to it, or use {} {later} or later.",
                target.runtime
            ),
        ));
    }
    let types = &chain.types;
    if bin_dir(view).is_none() {
        let dirs: Vec<String> = network
            .bin_dirs
            .iter()
            .map(|dir| format!("{dir} lacks {}", lists::some(&missing(view, &chain, dir))))
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
