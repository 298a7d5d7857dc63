//! Objects that are gone, forged or made again while the node is on its way.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams};
use rstest::rstest;
use serde_json::json;
use transship::api::node_migration::NodePhase;
use transship::executor::progress::State;

use super::world::{CONTAINERD, World};
use crate::server::Release;

/// What a stolen token of the controller could write.
#[rstest]
#[tokio::test]
async fn a_share_without_the_word_of_its_parent_is_refused(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w7", json!({})).await;
    world.ask("Migrate", 1, json!({})).await;
    let forged = json!({ "spec": { "target": { "version": "1.0.0" } } });
    world
        .migrations()
        .patch("w7", &PatchParams::default(), &Patch::Merge(forged))
        .await
        .unwrap();
    let status = world.until_phase(NodePhase::Preflight).await;
    assert!(
        status
            .message
            .starts_with("refused: this NodeMigration does not say what RuntimeMigration m-w7 says (target)"),
        "{}",
        status.message
    );
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(world.status().await.plan, None);
    assert!(world.host.inner().runs.is_empty());

    let right = json!({ "spec": { "target": { "version": null } } });
    world
        .migrations()
        .patch("w7", &PatchParams::default(), &Patch::Merge(right))
        .await
        .unwrap();
    world.until_phase(NodePhase::Switching).await;
}

#[rstest]
#[tokio::test]
async fn a_drain_whose_migration_is_gone_is_aborted(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w8", json!({})).await;
    world
        .pod("default", "guarded-w8", json!({ "app": "guarded-w8" }))
        .await;
    world.budget("guard-w8", "guarded-w8").await;
    world.ask("Migrate", 1, json!({})).await;
    world.until_phase(NodePhase::Draining).await;
    world.until(|status| status.message.contains("guarded-w8")).await;
    assert!(world.is_cordoned().await);
    world
        .parents()
        .delete("m-w8", &DeleteParams::default())
        .await
        .unwrap();
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(
        status.message,
        "rolled back to dockershim: its RuntimeMigration m-w8 is gone"
    );
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes(), ["install 1", "Abort"]);
}

#[rstest]
#[tokio::test]
async fn a_share_that_is_made_again_goes_on_with_the_journal(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w9", json!({})).await;
    world.ask("Migrate", 1, json!({})).await;
    world.until(|status| status.phase == NodePhase::Switching).await;
    let host = world.host.clone();
    world.until(|_| host.state("1") == Some(State::Switching)).await;
    world
        .migrations()
        .delete("w9", &DeleteParams::default())
        .await
        .unwrap();
    world.switch("1").await;
    world.round_alone().await;
    assert_eq!(
        world.host.changes(),
        ["install 1", "Go"],
        "a switch is left to its end"
    );
    world.ask("Migrate", 2, json!({})).await;
    world.runs_under(CONTAINERD).await;
    world.heartbeat(CONTAINERD).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert_eq!(world.host.changes(), ["install 1", "Go", "Commit"]);
    assert!(
        status.message.starts_with("runs on containerd"),
        "{}",
        status.message
    );
    assert!(!world.is_cordoned().await);
}

#[rstest]
#[tokio::test]
async fn a_node_that_a_person_has_helped_is_settled(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w10", json!({})).await;
    world.ask("Migrate", 1, json!({})).await;
    let host = world.host.clone();
    world.until(|_| host.state("1") == Some(State::Switching)).await;
    host.set("1", |progress| {
        progress.state = State::Broken;
        progress.error = Some("containerd does not answer".to_owned());
    });
    let failed = world.until_phase(NodePhase::Failed).await;
    for _ in 0..2 {
        world.round().await;
    }
    assert!(world.is_cordoned().await);
    assert_eq!(world.status().await, failed, "the status does not churn");
    host.set("1", |progress| progress.state = State::RolledBack);
    world.until_phase(NodePhase::RolledBack).await;
    assert!(!world.is_cordoned().await);
}

/// The release is uninstalled, or the namespace deleted, with everything in it, while the node is drained.
#[rstest]
#[tokio::test]
async fn an_agent_that_goes_with_its_objects_leaves_the_node_in_order(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w11", json!({})).await;
    world
        .pod("default", "guarded-w11", json!({ "app": "guarded-w11" }))
        .await;
    world.budget("guard-w11", "guarded-w11").await;
    world.ask("Migrate", 1, json!({})).await;
    world.until(|status| status.message.contains("guarded-w11")).await;
    world.farewell().await;
    assert!(
        world.is_cordoned().await,
        "its objects are there: another agent comes"
    );
    world
        .migrations()
        .delete("w11", &DeleteParams::default())
        .await
        .unwrap();
    world.farewell().await;
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes(), ["install 1", "Abort"]);
}

#[rstest]
#[tokio::test]
async fn what_a_migration_that_is_gone_has_prepared_is_taken_back_by_the_next(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w12", json!({})).await;
    world
        .pod("default", "guarded-w12", json!({ "app": "guarded-w12" }))
        .await;
    world.budget("guard-w12", "guarded-w12").await;
    world.ask("Migrate", 1, json!({})).await;
    world.until(|status| status.message.contains("guarded-w12")).await;
    world.die();
    world
        .migrations()
        .delete("w12", &DeleteParams::default())
        .await
        .unwrap();
    world
        .parents()
        .delete("m-w12", &DeleteParams::default())
        .await
        .unwrap();
    world.ask("Plan", 1, json!({})).await;
    let status = world.until_phase(NodePhase::Planned).await;
    assert_eq!(world.host.changes(), ["install 1", "Abort"]);
    assert_eq!(world.host.state("1"), Some(State::RolledBack));
    assert!(!world.is_cordoned().await);
    let uid = world.parents().get("m-w12").await.unwrap().uid();
    assert_eq!(Some(status.migration_uid), uid);
}
