//! What pods need of the node beside a runtime. dockerd loads modules and sets kernel settings by itself; a node on
//! which nothing else does loses them at the first boot without it.

use super::{Code, View};
use crate::plan::{finding::Finding, runtimes::over_docker, version};

/// The kernel has no overlay file system.
pub const OVERLAY_MISSING: Code = Code::warn(
    "OverlayMissing",
    "The kernel does not list the overlay file system; the target's unit must be able to load the module",
);
/// Packets are not forwarded.
pub const IP_FORWARD_OFF: Code = Code::warn(
    "IpForwardOff",
    "The kernel forwards no IPv4 packets, so pods would not reach other nodes",
);
/// Bridged packets bypass the packet filter.
pub const BRIDGE_FILTER_OFF: Code = Code::warn(
    "BridgeFilterOff",
    "Bridged packets bypass the packet filter, which Services need where the pod network is a bridge",
);
/// Only Docker sets it.
pub const SET_BY_DOCKER_ALONE: Code = Code::warn(
    "SetByDockerAlone",
    "Kernel modules or settings that pods need are set by Docker alone, and would be off after the first boot without it",
);
/// Swap is on.
pub const SWAP_ON: Code = Code::info(
    "SwapOn",
    "The node has swap, which the kubelet was told to accept",
);
/// cgroup v1.
pub const CGROUP_V1: Code = Code::warn(
    "CgroupV1",
    "The node uses cgroup v1, which kubelets from 1.35 on refuse unless told otherwise, and containerd from 2.2 on calls deprecated",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    OVERLAY_MISSING,
    IP_FORWARD_OFF,
    BRIDGE_FILTER_OFF,
    SET_BY_DOCKER_ALONE,
    SWAP_ON,
    CGROUP_V1,
];

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
    let deprecated = !over_docker(view.target.runtime)
        && version::upstream(&view.target.version)
            .is_some_and(|found| found >= semver::Version::new(2, 2, 0));
    (kubelet || deprecated).then(|| {
        CGROUP_V1.found(
            format!("{} runs on cgroup v1", view.facts.node),
            "It works now; move the node to an operating system with cgroup v2 before Kubernetes 1.38.",
        )
    })
}
