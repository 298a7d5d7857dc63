//! What the API server reports of a node: an input of the planner, next to the facts of the host. The agent reads it; a
//! person who plans on the node does without.

/// What the API server reports of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFacts {
    /// Name of the Node and of its `NodeMigration`.
    pub node: String,
    /// The cluster has no other node that could ever take the pods.
    pub no_other_node: bool,
    /// kubeadm's ConfigMaps; `None` if kubeadm did not set the node up.
    pub kubeadm: Option<KubeadmConfigs>,
    /// The server accepted, as a dry run, a change that its admission plugin NodeRestriction forbids.
    pub is_unrestricted: bool,
    /// The pods that are bound to the node.
    pub pods: PodFacts,
}

/// The ConfigMaps in `kube-system` that kubeadm configures nodes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeadmConfigs {
    /// The kubelets' configuration.
    pub kubelet: Read,
    /// `kubeadm-config`.
    pub cluster: Read,
}

/// A ConfigMap, or why it could not be read.
pub type Read = Result<ConfigMap, String>;

/// A ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    /// Its name.
    pub name: String,
    /// Its texts, by key.
    pub data: Vec<(String, String)>,
}

/// The pods of a node as far as a plan and its findings depend on them. A pod is named `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    /// Pods that the drain of the request evicts, sorted by name.
    pub evicted: Vec<EvictedPod>,
    /// Pods that it does not evict, because they or their data would be lost.
    pub blocked: Vec<BlockedPod>,
    /// Pods that are Ready, stay on the node and must be Ready again after the switch.
    pub must_return: Vec<String>,
    /// Pods with restartPolicy Never that have not finished.
    pub never_restarted: Vec<String>,
    /// Pods with a preStop hook that have not finished.
    pub with_pre_stop: Vec<String>,
    /// Images without which the pods that stay could not start again under the target.
    pub images: Vec<String>,
    /// Whether one of the pods that must be Ready again is in the pod network.
    pub in_pod_network: bool,
}

/// A pod that is evicted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvictedPod {
    /// Its namespace and name.
    pub name: String,
    /// Seconds that it has to stop.
    pub grace_secs: i64,
}

/// A pod that a drain waits for until a person decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedPod {
    /// Its namespace and name.
    pub name: String,
    /// Why it is not evicted.
    pub reason: String,
}
