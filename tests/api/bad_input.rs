//! What nobody should write, against a real API server: it is refused, or the controller says what is wrong; nothing is
//! labelled or created, and nothing else stops.

use std::fs;
use std::time::{Duration, Instant};

use crate::fleet::Script;
use crate::scenario::{Scenario, message, object};
use crate::server::{AGENT, Release};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use transship::api::AGENT_LABEL;
use transship::api::migration::{MigrationPhase, RuntimeMigration};
use transship::api::node_migration::NodeMigration;
use transship::api::validation::validate;

/// A moment that the API server takes for one and that no `jiff::Timestamp` can hold.
const NO_MOMENT: &str = "9999-12-31T23:59:59Z";

#[rstest]
#[tokio::test]
async fn the_samples_are_no_bad_input(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 0).await;
    for sample in fs::read_dir("samples").unwrap() {
        let path = sample.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        s.server
            .kubectl(&["create", "--dry-run=server", "-f", "-"], &text);
        let migration: RuntimeMigration = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(validate(&migration.spec, None), [], "{}", path.display());
    }
    s.end(&[]).await;
}

#[tokio::test]
async fn the_api_server_refuses_and_names_field_value_and_what_is_allowed() {
    let s = Scenario::start(Release::Old, 1).await;
    let server = s.server;
    s.fleet.node("bad1", "bad").await;
    let percent = "spec.strategy.maxUnavailable in body should match '^([1-9][0-9]?|100)%$'";
    for (change, expected) in [
        (
            json!({ "target": { "runtime": "podman" } }),
            r#"spec.target.runtime: Unsupported value: "podman": supported values: "#,
        ),
        (json!({ "strategy": { "maxUnavailable": "150%" } }), percent),
        (json!({ "strategy": { "maxUnavailable": "ten" } }), percent),
        (
            json!({ "strategy": { "maxUnavailable": 0 } }),
            "spec.strategy.maxUnavailable in body should be greater than or equal to 1",
        ),
        (
            json!({ "drain": { "timeout": "soon" } }),
            "spec.drain.timeout in body should match",
        ),
        (
            json!({ "preflight": { "allow": ["Typo"] } }),
            r#"spec.preflight.allow: Invalid value: "Typo": "#,
        ),
        (
            json!({ "preflight": { "allow": ["DockerSettingNotCarried/init", "DockerSettingNotCarried/"] } }),
            r#"spec.preflight.allow: Invalid value: "DockerSettingNotCarried/": "#,
        ),
        (
            json!({ "mode": "Dry" }),
            r#"spec.mode: Unsupported value: "Dry": supported values: "#,
        ),
        (json!({ "nodeSelector": null }), "nodeSelector"),
        (
            json!({ "strategi": { "maxUnavailable": 1 } }),
            r#"unknown field "strategi""#,
        ),
    ] {
        let refused = server
            .try_kubectl(
                &["create", "-f", "-"],
                &object("refused", "bad", &change).to_string(),
            )
            .unwrap_err();
        assert!(refused.contains(expected), "{change}: {refused}");
    }
    assert!(s.migrations.get_opt("refused").await.unwrap().is_none());
    s.end(&[]).await;
}

#[tokio::test]
async fn the_controller_says_what_this_server_cannot_refuse() {
    let s = Scenario::start(Release::Old, 1).await;
    let server = s.server;
    s.fleet.node("bad2", "bad").await;
    for (name, change, expected) in [
        (
            "empty",
            json!({ "nodeSelector": {} }),
            "spec.nodeSelector is empty; name at least one label",
        ),
        (
            "dockershim",
            json!({ "target": { "runtime": "dockershim" } }),
            "spec.target.runtime is dockershim; this version moves nodes to containerd",
        ),
    ] {
        server.kubectl(&["create", "-f", "-"], &object(name, "bad", &change).to_string());
        let told = s.until(name, expected, |m| message(m).contains(expected)).await;
        let status = told.status.unwrap();
        assert_eq!(status.phase, MigrationPhase::Pending);
        let degraded = status.conditions.iter().find(|c| c.type_ == "Degraded").unwrap();
        assert_eq!(
            (degraded.status.as_str(), degraded.reason.as_str()),
            ("True", "InvalidSpec")
        );
        s.until_told(name, "InvalidSpec").await;
    }
    assert!(!s.node("bad2").await.labels().contains_key(AGENT_LABEL));
    assert!(s.share("bad2").await.is_none());
    s.end(&["empty", "dockershim"]).await;
}

#[tokio::test]
async fn a_forged_report_that_cannot_be_read_holds_one_node_and_stops_nothing_else() {
    let mut s = Scenario::start(Release::Old, 1).await;
    for (node, group) in [("f1", "f"), ("g1", "g"), ("h1", "h")] {
        s.fleet.node(node, group).await;
    }
    s.fleet.script("f1", Script::Hang);
    s.create("forged", "f", json!({})).await;
    s.until("forged", "draining", |m| message(m).contains("Draining"))
        .await;

    let agent: Api<NodeMigration> = Api::all(s.server.client(AGENT).await);
    let forge = async |status: Value| {
        let patch = json!({ "status": status });
        let guarded: Api<DynamicObject> = Api::all_with(
            agent.clone().into_client(),
            &ApiResource::erase::<NodeMigration>(&()),
        );
        guarded
            .patch_status("f1", &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    let refused = forge(json!({ "stepsDone": 5_000_000_000_i64 }))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("status.stepsDone"), "{refused}");
    forge(json!({ "times": [{ "phase": "Draining", "start": NO_MOMENT }] }))
        .await
        .unwrap();
    agent.get("f1").await.unwrap_err();
    s.until("forged", "a reason", |m| {
        message(m).contains("f1: its NodeMigration cannot be read")
    })
    .await;

    // Those who watch already go on, and so does one that begins now.
    s.create("other", "g", json!({})).await;
    s.until_phase("other", MigrationPhase::Succeeded).await;
    s.controller().await;
    s.create("third", "h", json!({})).await;
    s.until_phase("third", MigrationPhase::Succeeded).await;

    s.fleet.script("f1", Script::Succeed);
    forge(json!({ "times": [] })).await.unwrap();
    s.until_phase("forged", MigrationPhase::Succeeded).await;
    s.end(&["forged", "other", "third"]).await;
}

#[tokio::test]
async fn a_migration_that_cannot_be_read_says_so_and_stops_no_other() {
    let mut s = Scenario::start(Release::Old, 1).await;
    for (node, group) in [("i1", "i"), ("j1", "j")] {
        s.fleet.node(node, group).await;
    }
    s.create("strange", "i", json!({ "paused": true })).await;
    s.until("strange", "paused", |m| message(m).contains("paused"))
        .await;
    let raw: Api<DynamicObject> =
        Api::all_with(s.admin.clone(), &ApiResource::erase::<RuntimeMigration>(&()));
    let slots = async |slots: Value| {
        let patch = json!({ "status": { "activeNodes": slots } });
        raw.patch_status("strange", &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    };
    slots(json!([{ "name": "i1", "generation": 1, "since": NO_MOMENT }])).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let status = raw.get("strange").await.unwrap().data["status"].clone();
        let told = status["message"]
            .as_str()
            .unwrap()
            .contains("cannot read the object");
        if told && status["conditions"][1]["reason"] == "Unreadable" {
            break;
        }
        assert!(Instant::now() < deadline, "it does not say so: {status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    s.until_told("strange", "Unreadable").await;
    s.controller().await;
    s.create("plain", "j", json!({})).await;
    s.until_phase("plain", MigrationPhase::Succeeded).await;
    assert!(s.share("i1").await.is_none(), "nothing was started");

    slots(json!([])).await;
    s.edit("strange", json!({ "paused": false })).await;
    s.until_phase("strange", MigrationPhase::Succeeded).await;
    s.end(&["strange", "plain"]).await;
}
