//! What a kubelet reports of its node and of the pods there.

use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};

/// `containerRuntimeVersion` (`docker://20.10.24`); empty before its first heartbeat.
pub fn runtime_version(node: &Node) -> &str {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.map_or("", |info| info.container_runtime_version.as_str())
}

/// Its condition `Ready`; `None` before its first heartbeat.
pub fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == "Ready")
}

/// Whether its condition `Ready` is true.
pub fn is_ready(node: &Node) -> bool {
    ready_condition(node).is_some_and(|condition| condition.status == "True")
}

/// The phase of a pod; `None` before the kubelet has seen it.
pub fn pod_phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref().and_then(|status| status.phase.as_deref())
}

/// Whether all containers of a pod have ended for good.
pub fn has_pod_ended(pod: &Pod) -> bool {
    matches!(pod_phase(pod), Some("Succeeded" | "Failed"))
}

/// Whether the condition `Ready` of a pod is true.
pub fn is_pod_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
