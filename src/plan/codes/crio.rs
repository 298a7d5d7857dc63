//! CRI-O as the target and as the source.

use crate::plan::finding::Code;

/// A program without which CRI-O ends.
pub const NFT_MISSING: Code = Code::block_unless_allowed(
    "NftMissing",
    "There is no `nft`, without which CRI-O ends at the first pod with a port of the node",
);
/// CRI-O's own rules for ports of the node.
pub const HOST_PORTS_NOT_ON_LOOPBACK: Code = Code::info(
    "HostPortsNotOnLoopback",
    "Ports of the node that lead to pods do not answer at 127.0.0.1 under CRI-O",
);
/// The unit that removes images.
pub const CRIO_WIPE: Code = Code::warn(
    "CrioWipe",
    "`crio-wipe.service` would remove the images at the boot after a power cut; the plan disables it",
);

/// Images take time and room.
pub const LAYERS_NOT_LINKED: Code = Code::info(
    "LayersNotLinked",
    "The layers of images cannot be linked into CRI-O's store: they are copied, which takes longer and more room",
);

/// CRI-O takes what it does not know off the network.
pub const PODS_LOSE_NETWORK: Code = Code::block(
    "PodsLoseNetwork",
    "CRI-O would take the source's pods off the network when it starts next to it, and the plan cannot keep it from that",
);

/// A policy of signatures refuses images.
pub const IMAGE_POLICY_REFUSES: Code = Code::block_unless_allowed(
    "ImagePolicyRefuses",
    "A `policy.json` refuses images without signatures, as those are that come along: CRI-O would not copy them, or start no container of them",
);

/// CRI-O would come back.
pub const KUBELET_STARTS_CRIO: Code = Code::block(
    "KubeletStartsCrio",
    "The kubelet's unit starts CRI-O again after it is left, which would take the pods of the next runtime off the network; what starts it is not in a file below `/etc`, which the plan changes",
);

/// Nothing of Kubernetes uses it any more.
pub const CONTAINERD_RUNS_ON: Code = Code::info(
    "ContainerdRunsOn",
    "containerd stays enabled and runs on next to CRI-O, for others may use it",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    NFT_MISSING,
    HOST_PORTS_NOT_ON_LOOPBACK,
    CRIO_WIPE,
    LAYERS_NOT_LINKED,
    PODS_LOSE_NETWORK,
    IMAGE_POLICY_REFUSES,
    KUBELET_STARTS_CRIO,
    CONTAINERD_RUNS_ON,
];
