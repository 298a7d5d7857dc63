//! The baseline of a switch: what the API reported of a node right before it. The commit is measured against it. It
//! holds identities, not times, so that a step of the node's clock changes nothing.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// What the API reported of a node right before its switch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// `lastHeartbeatTime` of the Node's condition `Ready`, as it was written; compared for equality alone.
    pub heartbeat: Option<String>,
    /// Ids of all containers on the node (`docker://0123…`): a container with another id was started later.
    pub containers: BTreeSet<String>,
    /// Pods that were Ready and stay on the node, sorted by namespace and name.
    pub pods: Vec<ReadyPod>,
}

/// A pod that was Ready before the switch and stays on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadyPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What is accepted in its place.
    pub kind: PodKind,
}

/// What a pod comes from, which decides what is accepted in its place after the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum PodKind {
    /// A static pod: the pod of the same name.
    Static,
    /// A pod of a DaemonSet: any pod with this owner.
    DaemonSet {
        /// UID of the DaemonSet.
        owner: String,
    },
    /// A pod of another controller: the same pod. If it was deleted or has failed, its controller replaces it, perhaps
    /// on another node.
    Controlled {
        /// UID of the pod.
        uid: String,
    },
    /// A pod without a controller: the same pod, unless somebody deleted it.
    Bare {
        /// UID of the pod.
        uid: String,
    },
}
