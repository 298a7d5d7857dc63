//! Why agents do not begin: what their pods say. Asked only for nodes that hold a slot and have not begun.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};

/// Selects the pods of the agent's DaemonSet in its namespace. They run on chosen nodes alone, so they are few.
const AGENTS: &str = "app.kubernetes.io/name=transship,app.kubernetes.io/component=agent";

/// Why the agents of these nodes do not run; a node whose pod runs, or of which nothing is known, is left out.
pub(super) async fn of_agents(client: &Client, namespace: &str, nodes: &[&str]) -> BTreeMap<String, String> {
    let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = match api.list(&ListParams::default().labels(AGENTS)).await {
        Ok(pods) => pods.items,
        Err(error) => {
            tracing::warn!(%error, "the agents' pods could not be read");
            return BTreeMap::new();
        }
    };
    nodes
        .iter()
        .filter_map(|node| Some(((*node).to_owned(), of_agent(&pods, node)?)))
        .collect()
}

fn of_agent(pods: &[Pod], node: &str) -> Option<String> {
    let mut here = pods
        .iter()
        .filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node))
        .peekable();
    if here.peek().is_none() {
        return Some("no agent pod is on the node".to_owned());
    }
    here.find_map(why)
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
