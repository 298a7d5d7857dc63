//! What pods need of the node apart from a runtime. dockerd loads modules and sets kernel settings by itself; a node on
//! which nothing else does loses them at the first boot without it.

use crate::{
    plan::{
        codes::prerequisites::{
            BRIDGE_FILTER_OFF, CGROUP_V1, IP_FORWARD_OFF, OVERLAY_MISSING, SET_BY_DOCKER_ALONE, SWAP_ON,
        },
        finding::Finding,
    },
    planner::{context::View, releases},
};

const IP_FORWARD: &str = "net.ipv4.ip_forward";
const BRIDGE_FILTER: &str = "net.bridge.bridge-nf-call-iptables";
/// Minor version of the first kubelet that refuses cgroup v1 unless told otherwise (KEP-5573).
const REFUSES_CGROUP_V1: u64 = 35;

/// Checks of the node.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(found) = &view.facts.prerequisites {
        if !found.overlay {
            findings.push(OVERLAY_MISSING.found(
                "/proc/filesystems does not list overlay",
                "`modprobe overlay`, and name it in /etc/modules-load.d; the rehearsal fails without it.",
            ));
        }
        if !found.ip_forward {
            findings.push(IP_FORWARD_OFF.found(
                format!("{IP_FORWARD} is 0"),
                format!("Write `{IP_FORWARD} = 1` into a file in /etc/sysctl.d, and run `sysctl --system`."),
            ));
        }
        if found.bridge_nf_call_iptables == Some(false) {
            findings.push(BRIDGE_FILTER_OFF.found(
                format!("{BRIDGE_FILTER} is 0"),
                format!(
                    "Write `{BRIDGE_FILTER} = 1` into a file in /etc/sysctl.d if the pod network is a bridge."
                ),
            ));
        }
        let lost: Vec<&str> = [
            (IP_FORWARD, found.ip_forward),
            (BRIDGE_FILTER, found.bridge_nf_call_iptables == Some(true)),
            ("br_netfilter", found.bridge_nf_call_iptables.is_some()),
        ]
        .into_iter()
        .filter(|(name, on)| *on && !found.at_boot.contains(*name))
        .map(|(name, _)| name)
        .collect();
        if !lost.is_empty() && view.docker_ends() {
            findings.push(SET_BY_DOCKER_ALONE.found(
                format!("{} on now, and no file sets or loads it at boot", lost.join(", ")),
                "Name them in /etc/sysctl.d and /etc/modules-load.d, unless the pod network's own agent sets them.",
            ));
        }
        if found.swap {
            findings.push(SWAP_ON.found(
                "/proc/swaps lists swap",
                "Nothing is to be done: the kubelet keeps its setting under the target.",
            ));
        }
    }
    findings.extend(cgroup_v1(view));
    findings
}

fn cgroup_v1(view: &View<'_>) -> Option<Finding> {
    if view.facts.cgroup_version != 1 {
        return None;
    }
    let kubelet = view.settings.version.minor >= REFUSES_CGROUP_V1;
    let deprecated = releases::deprecates_cgroup_v1(view.target.runtime, &view.target.version);
    (kubelet || deprecated).then(|| {
        CGROUP_V1.found(
            format!("{} runs on cgroup v1", view.facts.node),
            "It works now; move the node to an operating system with cgroup v2 before Kubernetes 1.38.",
        )
    })
}
