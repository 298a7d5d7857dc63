//! What the API server reports ([`cluster`](crate::plan::cluster)): what kubeadm keeps about the cluster, and whether a node's identity is confined to its node.

use crate::plan::finding::Code;

/// kubeadm remembers the source.
pub const KUBEADM_WOULD_UNDO: Code = Code::warn(
    "KubeadmWouldUndo",
    "kubeadm's ConfigMaps name the source, or another cgroup driver: the next `kubeadm upgrade node` or `join` would \
     bring it back",
);
/// Nobody knows what kubeadm remembers.
pub const KUBEADM_CONFIG_UNREAD: Code = Code::info(
    "KubeadmConfigUnread",
    "kubeadm's ConfigMaps could not be read, so it is not known whether `kubeadm upgrade node` would undo the move",
);
/// The server lets a node change others.
pub const NODE_RESTRICTION_ABSENT: Code = Code::warn(
    "NodeRestrictionAbsent",
    "The API server does not run NodeRestriction: whoever has one node's identity can change other nodes",
);

/// All codes of this module.
pub const CODES: &[Code] = &[KUBEADM_WOULD_UNDO, KUBEADM_CONFIG_UNREAD, NODE_RESTRICTION_ABSENT];
