//! Why an agent does not begin: what its pod says. Asked only for nodes that hold a slot and have not begun.

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

/// Selects the pods of the agent's DaemonSet in its namespace.
const AGENTS: &str = "app.kubernetes.io/name=transship,app.kubernetes.io/component=agent";

/// Why the agent does not run on a node; `None` when its pod runs, or nothing is known.
pub(super) async fn of_agent(client: &Client, namespace: &str, node: &str) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let of_node = ListParams::default()
        .labels(AGENTS)
        .fields(&format!("spec.nodeName={node}"));
    match pods.list(&of_node).await {
        Ok(found) if found.items.is_empty() => Some("no agent pod is on the node".to_owned()),
        Ok(found) => found.items.iter().find_map(why),
        Err(error) => {
            tracing::warn!(node, %error, "the agent's pod could not be read");
            None
        }
    }
}

fn why(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().flatten();
    let waiting = containers
        .filter_map(|c| c.state.as_ref()?.waiting.as_ref())
        .next();
    if let Some(waiting) = waiting {
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let message = waiting.message.as_deref().unwrap_or_default();
        return Some(format!("its pod is {reason} {message}").trim_end().to_owned());
    }
    (status.phase.as_deref() != Some("Running")).then(|| {
        format!(
            "its pod is {}",
            status.phase.as_deref().unwrap_or("without a status")
        )
    })
}
