//! The gates of the control plane: what must hold before one of its nodes is started, and before any other node after
//! one of them. They are read again each time, not watched: a control plane node is started rarely.
//!
//! The controller holds no certificate of etcd. That its members are Ready is what the kubelets' probes say.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};

use super::observe;
use crate::api::migration::Slot;
use crate::api::node_migration::{Action, NodeMigration, NodePhase};
use crate::api::reported;

/// Selects the static pods, in `kube-system`, without which the cluster forgets or does not answer; so kubeadm labels
/// them. Where the control plane runs in another way there are none.
const VITAL: &str = "component in (etcd, kube-apiserver)";

/// What the control plane waits for now, in sentences that follow "waits". Nothing when all gates are open.
/// Nodes that are under way by the migration that asks (`own`) do not close a gate: the migration itself orders them.
pub(super) async fn closed(client: &Client, nodes: &[Arc<Node>], own: &[Slot]) -> Vec<String> {
    let nodes: Vec<&Node> = nodes
        .iter()
        .map(AsRef::as_ref)
        .filter(|node| observe::is_control_plane(node))
        .collect();
    match look(client, &nodes).await {
        Ok((pods, shares)) => judge(&nodes, &pods, &shares, own),
        Err(error) => vec![format!("for the API server to be ready ({error})")],
    }
}

async fn look(client: &Client, nodes: &[&Node]) -> kube::Result<(Vec<Pod>, Vec<NodeMigration>)> {
    let readyz = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    client.request_text(readyz).await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), "kube-system");
    let pods = pods.list(&ListParams::default().labels(VITAL)).await?.items;
    // Not from the watch: another migration may have started one of these nodes a moment ago.
    let api: Api<DeserializeGuard<NodeMigration>> = Api::all(client.clone());
    let mut shares = Vec::new();
    for node in nodes {
        // One that cannot be read holds its own node.
        shares.extend(
            api.get_opt(&node.name_any())
                .await?
                .and_then(|share| share.0.ok()),
        );
    }
    Ok((pods, shares))
}

fn judge(nodes: &[&Node], pods: &[Pod], shares: &[NodeMigration], own: &[Slot]) -> Vec<String> {
    let of_others = |share: &&NodeMigration| own.iter().all(|slot| slot.name != share.name_any());
    let under_way = shares.iter().filter(of_others).filter(|share| {
        let ordered = share.phase() == NodePhase::Pending && share.spec.action == Action::Migrate;
        share.spec.action != Action::Plan && (share.phase().is_under_way() || ordered)
    });
    let unready = nodes.iter().filter(|node| !reported::is_ready(node));
    let shares = under_way.map(|share| {
        let migration = &share.spec.migration.name;
        format!("until {} has ended (migration {migration})", share.name_any())
    });
    shares
        .chain(unready.map(|node| format!("for {} to be Ready", node.name_any())))
        .chain(pods.iter().filter_map(|pod| of_pod(nodes, pod)))
        .collect()
}

/// What a vital pod waits for. What its kubelet said of it before the switch is old.
fn of_pod(nodes: &[&Node], pod: &Pod) -> Option<String> {
    if !reported::is_pod_ready(pod) {
        return Some(format!("for {} to be Ready", pod.name_any()));
    }
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let node = nodes.iter().find(|node| Some(&*node.name_any()) == name)?;
    let (scheme, _) = reported::runtime_version(node).split_once("://")?;
    let status = pod.status.clone().unwrap_or_default();
    let elsewhere = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| container.container_id.as_deref()?.split_once("://"))
        .any(|(other, _)| other != scheme);
    elsewhere.then(|| format!("for {} to be reported under {scheme}", pod.name_any()))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn node(name: &str, ready: bool) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": name, "uid": name },
            "status": { "nodeInfo": { "containerRuntimeVersion": "containerd://1.6.20", "architecture": "", "bootID": "",
                    "kernelVersion": "", "kubeProxyVersion": "", "kubeletVersion": "v1.23.17", "machineID": "",
                    "operatingSystem": "linux", "osImage": "", "systemUUID": "" },
                "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "Unknown" } }] },
        }))
        .unwrap()
    }

    fn pod(name: &str, ready: &str, runtime: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": format!("etcd-{name}") },
            "spec": { "nodeName": name, "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }], "containerStatuses": [{
                "name": "etcd", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "containerID": format!("{runtime}://0") }] },
        }))
        .unwrap()
    }

    fn share(action: &str, phase: NodePhase) -> NodeMigration {
        let share = json!({
            "apiVersion": "transship.dev/v1alpha1", "kind": "NodeMigration", "metadata": { "name": "cp1" },
            "spec": { "migration": { "name": "m", "uid": "u", "generation": 1 }, "nodeUid": "cp1", "action": action,
                "target": { "runtime": "containerd" } },
            "status": { "migrationUid": "u", "migrationGeneration": 1, "nodeUid": "cp1", "action": action,
                "phase": phase },
        });
        serde_json::from_value(share).unwrap()
    }

    #[rstest]
    #[case::open(&[node("cp1", true)], &[pod("cp1", "True", "containerd")], &[], &[])]
    #[case::not_of_kubeadm(&[node("cp1", true)], &[], &[], &[])]
    #[case::node(&[node("cp1", true), node("cp2", false)], &[], &[], &["for cp2 to be Ready"])]
    #[case::pod(
        &[node("cp1", true)], &[pod("cp1", "True", "containerd"), pod("cp2", "False", "docker")], &[],
        &["for etcd-cp2 to be Ready"]
    )]
    #[case::old(
        &[node("cp1", true)], &[pod("cp1", "True", "docker")], &[],
        &["for etcd-cp1 to be reported under containerd"]
    )]
    #[case::of_another(
        &[node("cp1", true)], &[], &[share("Migrate", NodePhase::Switching)],
        &["until cp1 has ended (migration m)"]
    )]
    #[case::claimed(
        &[node("cp1", true)], &[], &[share("Migrate", NodePhase::Pending)],
        &["until cp1 has ended (migration m)"]
    )]
    #[case::planned(&[node("cp1", true)], &[], &[share("Plan", NodePhase::Preflight)], &[])]
    #[case::ended(&[node("cp1", true)], &[], &[share("Migrate", NodePhase::RolledBack)], &[])]
    #[case::never_begun(&[node("cp1", true)], &[], &[share("Abort", NodePhase::Pending)], &[])]
    fn what_is_not_as_it_should_be_is_named(
        #[case] nodes: &[Node],
        #[case] pods: &[Pod],
        #[case] shares: &[NodeMigration],
        #[case] expected: &[&str],
    ) {
        let nodes: Vec<&Node> = nodes.iter().collect();
        assert_eq!(judge(&nodes, pods, shares, &[]), expected);
    }

    #[test]
    fn a_node_that_is_under_way_does_not_wait_for_itself() {
        let (cp1, cp2) = (node("cp1", true), node("cp2", false));
        let own: Slot = serde_json::from_value(json!({ "name": "cp1", "generation": 1,
            "since": "2026-01-01T00:00:00Z" }))
        .unwrap();
        let draining = [share("Migrate", NodePhase::Draining)];
        assert_eq!(
            judge(&[&cp1, &cp2], &[], &draining, &[own]),
            ["for cp2 to be Ready"]
        );
    }
}
