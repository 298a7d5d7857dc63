//! Findings that the API server is asked for: about the cluster, and about the pods of the node.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::PostParams;
use rstest::rstest;
use serde_json::json;
use transship::api::node_migration::{NodeMigrationStatus, NodePhase};
use transship::executor::progress::State;
use transship::plan::finding::Severity;

use super::world::World;
use crate::server::{ApiServer, Release};

/// What kubeadm gives to nodes: its own ConfigMaps, and nothing else in kube-system.
fn kubeadm_installed(world: &World) {
    let map = |name: &str, key: &str, text: &str| {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "namespace": "kube-system" },
            "data": { key: text } })
    };
    let metadata = json!({ "name": "kubeadm:nodes", "namespace": "kube-system" });
    let objects = json!({ "apiVersion": "v1", "kind": "List", "items": [
        map("kubelet-config-1.23", "kubelet", "cgroupDriver: cgroupfs\n"),
        map("kubeadm-config", "ClusterConfiguration", "kind: ClusterConfiguration\n"),
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [
            { "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"],
              "resourceNames": ["kubelet-config-1.23", "kubeadm-config"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "kubeadm:nodes" },
          "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes" }] },
    ] });
    world.server.kubectl(&["create", "-f", "-"], &objects.to_string());
}

#[tokio::test]
async fn what_kubeadm_and_the_server_say_is_found_with_the_nodes_own_identity() {
    let server = ApiServer::start(Release::New, &[]).await;
    let mut world = World::on(Box::leak(Box::new(server)), "w1", json!({})).await;
    world.host.inner().by_kubeadm = true;
    let codes = |status: &NodeMigrationStatus| -> Vec<String> {
        status
            .findings
            .iter()
            .map(|finding| finding.code.clone())
            .collect()
    };
    world.ask("Plan", 1, json!({})).await;
    let status = world.until_phase(NodePhase::Planned).await;
    assert_eq!(
        codes(&status),
        [
            "NodeRestrictionAbsent",
            "KubeadmConfigUnread",
            "KubeadmConfigUnread"
        ]
    );
    assert!(
        !world
            .the_node()
            .await
            .labels()
            .keys()
            .any(|label| label.contains("transship"))
    );

    kubeadm_installed(&world);
    world.ask("Plan", 2, json!({})).await;
    let status = world
        .until(|status| status.migration_generation == 2 && status.phase == NodePhase::Planned)
        .await;
    assert_eq!(codes(&status), ["KubeadmWouldUndo", "NodeRestrictionAbsent"]);
    let remedy = "kubectl -n kube-system edit configmap kubelet-config-1.23";
    assert!(
        status.findings[0].remedy.contains(remedy),
        "{:?}",
        status.findings[0]
    );
}

/// A pod that a drain would lose, on a node with a pod that leaves and a pod that stays.
async fn with_pods(release: Release, node: &'static str) -> World {
    let world = World::new(release, node, json!({})).await;
    world.pod("default", &format!("web-{node}"), json!({})).await;
    let daemon = format!("net-{node}");
    world.pod_of("DaemonSet", "default", &daemon, json!({})).await;
    world.pod_runs_under("default", &daemon, super::DOCKER).await;
    let lonely = json!({
        "metadata": { "name": format!("lonely-{node}") },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
    });
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "default");
    let lonely = serde_json::from_value(lonely).unwrap();
    pods.create(&PostParams::default(), &lonely).await.unwrap();
    world
}

/// One room finds, softens and judges: what is accepted about the pods is accepted in the plan too, and the plan on the
/// node holds every finding that the status shows.
#[rstest]
#[tokio::test]
async fn the_plan_on_the_node_and_the_status_have_the_same_findings(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = with_pods(release, "w30").await;
    world.ask("Migrate", 1, json!({})).await;
    let status = world.until_phase(NodePhase::Blocked).await;
    let remedy = status.findings[0].remedy.clone();
    assert!(status.message.starts_with("PodsBlockDrain:"), "{status:?}");
    assert!(
        status.plan.is_some(),
        "a plan that only pods stand in the way of can be read"
    );
    assert!(world.host.changes().is_empty());

    world
        .edit(2, json!({ "preflight": { "allow": ["PodsBlockDrain"] } }))
        .await;
    let host = world.host.clone();
    world.until(|_| host.state("2") == Some(State::Prepared)).await;
    let status = world.status().await;
    let weighed: Vec<_> = status
        .findings
        .iter()
        .map(|finding| (finding.severity, finding.code.as_str()))
        .collect();
    assert_eq!(
        weighed,
        [
            (Severity::Warn, "PodsBlockDrain"),
            (Severity::Info, "PodsToEvict"),
            (Severity::Info, "PodsMustReturn")
        ]
    );
    let accepted = format!("Accepted by preflight.allow. {remedy}");
    assert_eq!(status.findings[0].remedy, accepted);
    let inner = world.host.inner();
    let on_the_node: Vec<_> = inner.runs.values().map(|run| run.plan.findings.clone()).collect();
    assert_eq!(on_the_node, [status.findings]);
}
