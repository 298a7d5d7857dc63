//! What the accounts of the controller and of the agent may do, and that they may do nothing else.

use crate::scenario::Scenario;
use crate::server::{AGENT, CONTROLLER, Release};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use transship::api::AGENT_LABEL;
use transship::api::node_migration::NodeMigration;

/// The chart's admission policy: the token of the agent's pod says on which node it is.
#[tokio::test]
async fn an_agent_reports_on_its_own_node_alone() {
    let s = Scenario::start(Release::New, 0).await;
    let shares: Api<NodeMigration> = Api::all(s.admin.clone());
    for name in ["v1", "v2"] {
        s.fleet.node(name, "v").await;
        let uid = s.node(name).await.uid();
        let share = json!({ "metadata": { "name": name }, "spec": { "nodeUid": uid, "action": "Plan",
            "migration": { "name": "m", "uid": "m", "generation": 1 }, "target": { "runtime": "containerd" } } });
        shares
            .create(&PostParams::default(), &serde_json::from_value(share).unwrap())
            .await
            .unwrap();
    }
    let report = async |client: Client, name: &str| {
        let patch = json!({ "apiVersion": "transship.dev/v1alpha1", "kind": "NodeMigration",
            "status": { "message": "hello", "phase": "Failed" } });
        Api::<NodeMigration>::all(client)
            .patch_status(name, &PatchParams::apply("test").force(), &Patch::Apply(&patch))
            .await
            .map_err(|error| error.to_string())
    };
    // The server takes a moment to learn of a policy.
    let deadline = Instant::now() + Duration::from_secs(30);
    let refused = loop {
        match report(s.fleet.agent("v1"), "v2").await {
            Err(refused) => break refused,
            Ok(_) => assert!(Instant::now() < deadline, "v1's agent may write v2's status"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(
        refused.contains("an agent may report on its own node only"),
        "{refused}"
    );
    assert_eq!(report(s.fleet.agent("v1"), "v1").await.unwrap().name_any(), "v1");
    assert_eq!(report(s.fleet.agent("v2"), "v2").await.unwrap().name_any(), "v2");
    // A token that is bound to no pod says nothing of a node.
    let unbound = report(s.server.client(AGENT).await, "v1").await.unwrap_err();
    assert!(
        unbound.contains("an agent may report on its own node only"),
        "{unbound}"
    );
    // It binds agents, and nobody else.
    report(s.admin.clone(), "v1").await.unwrap();
    s.end(&[]).await;
}

/// The chart's admission policy: of a Node the controller changes its own label.
#[tokio::test]
async fn the_controller_changes_one_label_of_a_node_and_nothing_else() {
    let s = Scenario::start(Release::New, 0).await;
    s.fleet.node("l1", "l").await;
    let nodes: Api<Node> = Api::all(s.server.client(CONTROLLER).await);
    let change = async |patch: Value| {
        let changed = nodes
            .patch("l1", &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        changed.map_err(|error| error.to_string())
    };
    // The server takes a moment to learn of a policy.
    let deadline = Instant::now() + Duration::from_secs(30);
    while change(json!({ "metadata": { "labels": { "probe": "1" } } }))
        .await
        .is_ok()
    {
        assert!(Instant::now() < deadline, "the controller may set any label");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for patch in [
        json!({ "spec": { "unschedulable": true } }),
        json!({ "spec": { "taints": [{ "key": "a", "effect": "NoExecute" }] } }),
        json!({ "metadata": { "labels": { "group": "other" } } }),
        json!({ "metadata": { "labels": { "group": null } } }),
        json!({ "metadata": { "labels": { AGENT_LABEL: "m", "another": "1" } } }),
        json!({ "metadata": { "annotations": { "a": "1" } } }),
        json!({ "metadata": { "finalizers": ["example.com/never"] } }),
    ] {
        let refused = change(patch.clone()).await.unwrap_err();
        let message = "of a Node the controller may change its own label only";
        assert!(refused.contains(message), "{patch}: {refused}");
    }
    let labelled = change(json!({ "metadata": { "labels": { AGENT_LABEL: "m" } } }))
        .await
        .unwrap();
    assert_eq!(labelled.labels().get(AGENT_LABEL).map(String::as_str), Some("m"));
    change(json!({ "metadata": { "labels": { AGENT_LABEL: null } } }))
        .await
        .unwrap();
    s.end(&[]).await;
}

#[rstest]
#[tokio::test]
async fn the_accounts_may_do_nothing_else(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 0).await;
    let server = s.server;
    let may = |user: &str, arguments: &[&str]| {
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": {
            "user": user, "groups": ["system:serviceaccounts", "system:authenticated"],
            "resourceAttributes": { "verb": arguments[0], "group": arguments[1], "resource": arguments[2],
                "subresource": arguments.get(3).unwrap_or(&"") },
        } });
        server.kubectl(
            &["create", "-f", "-", "-o", "jsonpath={.status.allowed}"],
            &review.to_string(),
        ) == "true"
    };
    for (user, arguments) in [
        (AGENT, vec!["update", "transship.dev", "nodemigrations"]),
        (AGENT, vec!["create", "transship.dev", "nodemigrations"]),
        (
            AGENT,
            vec!["patch", "transship.dev", "runtimemigrations", "status"],
        ),
        (AGENT, vec!["patch", "", "nodes"]),
        (AGENT, vec!["list", "", "pods"]),
        (AGENT, vec!["get", "", "secrets"]),
        (AGENT, vec!["create", "", "pods", "eviction"]),
        (CONTROLLER, vec!["get", "", "secrets"]),
        (CONTROLLER, vec!["create", "", "pods", "eviction"]),
        (CONTROLLER, vec!["create", "", "pods", "exec"]),
        (CONTROLLER, vec!["create", "transship.dev", "runtimemigrations"]),
        (CONTROLLER, vec!["patch", "transship.dev", "runtimemigrations"]),
        (CONTROLLER, vec!["update", "transship.dev", "runtimemigrations"]),
        (CONTROLLER, vec!["delete", "transship.dev", "runtimemigrations"]),
        // Of no namespace in particular.
        (CONTROLLER, vec!["create", "events.k8s.io", "events"]),
        (AGENT, vec!["list", "transship.dev", "runtimemigrations"]),
        (
            CONTROLLER,
            vec!["patch", "transship.dev", "nodemigrations", "status"],
        ),
        (CONTROLLER, vec!["list", "", "pods"]),
        (AGENT, vec!["get", "", "configmaps"]),
    ] {
        assert!(!may(user, &arguments), "{user} may {arguments:?}");
    }
    assert!(may(
        AGENT,
        &["patch", "transship.dev", "nodemigrations", "status"]
    ));
    assert!(may(AGENT, &["get", "transship.dev", "runtimemigrations"]));
    assert!(may(CONTROLLER, &["patch", "", "nodes"]));
    s.end(&[]).await;
}
