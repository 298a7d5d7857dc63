//! An upgrade of containerd while the pods of the node keep running.

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rstest::rstest;
use serde_json::{Value, json};
use transship::api::node_migration::NodePhase;
use transship::api::request::{Runtime, RuntimeVersion};
use transship::executor::progress::State;
use transship::plan::document::{Plan, PlannedStep, Section};
use transship::plan::host_path::HostPath;
use transship::plan::step::{Edge, Endpoint, Step, TasksStep};
use transship::planner::request::Verdict;

use super::host::plan;
use super::world::World;
use crate::server::Release;

const OLD: &str = "containerd://1.7.35";
const NEW: &str = "containerd://2.4.2";

/// A plan that puts containerd 2.4.2 into the place of 1.7.35. It does not stop the kubelet.
fn upgrade() -> Plan {
    let runs = |version: &str| RuntimeVersion {
        runtime: Runtime::Containerd,
        version: version.to_owned(),
    };
    let mut plan = plan();
    (plan.source, plan.target) = (runs("1.7.35"), runs("2.4.2"));
    plan.steps.drain(..2);
    plan.steps.push(PlannedStep {
        section: Section::Switch,
        does: Step::Tasks(TasksStep {
            cri: Endpoint {
                runtime: Runtime::Containerd,
                socket: HostPath::new("/run/containerd/containerd.sock").unwrap(),
            },
            edge: Edge::Closing,
            arms: true,
            quiet_within_secs: 60,
        }),
    });
    plan
}

/// A node on containerd 1.7 with a pod of a ReplicaSet, for which an upgrade is asked.
async fn asked(release: Release, node: &'static str, drain: Value) -> World {
    let world = World::new(release, node, json!({})).await;
    world.heartbeat(OLD).await;
    world.runs_under(OLD).await;
    world.pod("default", &format!("web-{node}"), json!({})).await;
    world.pod_runs_under("default", &format!("web-{node}"), OLD).await;
    world.host.inner().verdict = Some(Verdict::Ready(Box::new(upgrade())));
    world.ask("Migrate", 1, drain).await;
    world
}

async fn runs(world: &World, node: &str) -> bool {
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "default");
    let pod = pods.get_opt(&format!("web-{node}")).await.unwrap();
    pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none())
}

/// The executor has switched, without the kubelet.
async fn switch(world: &mut World) {
    world.switch("1").await;
    world.host.set("1", |progress| {
        (progress.kubelet_stopped, progress.kubelet_started) = (None, None);
    });
}

async fn goes(world: &mut World) {
    let host = world.host.clone();
    world
        .until(move |_| host.state("1") == Some(State::Switching))
        .await;
}

#[rstest]
#[tokio::test]
async fn a_node_is_upgraded_without_an_eviction(
    #[values(Release::Old, Release::New)] release: Release,
    #[values(("w14", json!({})), ("w15", json!({ "mode": "Live" })))] (node, drain): (&'static str, Value),
    #[values(false, true)] mortal: bool,
) {
    let node = if mortal {
        ["w16", "w17"][usize::from(node == "w15")]
    } else {
        node
    };
    let mut world = asked(release, node, drain).await;
    world.mortal = mortal;
    goes(&mut world).await;
    let status = world.status().await;
    assert!(
        status.message.starts_with("in place, no pod restarts"),
        "{}",
        status.message
    );
    assert!(world.is_cordoned().await && runs(&world, node).await);

    switch(&mut world).await;
    let waits = "waits until the Node reports containerd 2.4.2 instead of containerd://1.7.35, and until the Node \
                 reports Ready since the switch";
    world.until(|status| status.message == waits).await;
    assert!(!world.host.changes().contains(&"Commit".to_owned()));
    // No container is another one: the kubelet reports the new version, and that is all.
    world.heartbeat(NEW).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert_eq!(world.host.changes(), ["install 1", "Go", "Commit"]);
    assert_eq!(
        status.message,
        "runs on containerd 2.4.2; upgraded in place, the kubelet was not stopped"
    );
    assert_eq!((status.kubelet_downtime_millis, status.drain), (Some(0), None));
    assert!(status.times.iter().all(|time| time.phase != NodePhase::Draining));
    let about_pods = ["PodsToEvict", "PodsMustReturn", "PodsBlockDrain"];
    assert!(
        status
            .findings
            .iter()
            .all(|finding| !about_pods.contains(&&*finding.code)),
        "{:?}",
        status.findings
    );
    assert!(!world.is_cordoned().await && runs(&world, node).await);
}

/// The node is as before, and no pod was touched.
#[rstest]
#[tokio::test]
async fn an_upgrade_that_fails_goes_back(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = asked(release, "w18", json!({})).await;
    goes(&mut world).await;
    world.host.set("1", |progress| {
        progress.state = State::RollingBack;
        progress.error = Some("containerd 2.4.2 does not answer".to_owned());
        progress.left = vec!["container c1 was gone".to_owned()];
    });
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(
        status.message,
        "rolled back to containerd: containerd 2.4.2 does not answer; container c1 was gone"
    );
    assert_eq!(status.kubelet_downtime_millis, None);
    assert!(!world.is_cordoned().await && runs(&world, "w18").await);
    assert_eq!(world.host.changes(), ["install 1", "Go"]);
}

/// What follows the commit is awaited: the node stays cordoned until then.
#[rstest]
#[tokio::test]
async fn the_last_section_is_awaited_and_its_failure_reported(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = asked(release, "w19", json!({})).await;
    goes(&mut world).await;
    switch(&mut world).await;
    world.heartbeat(NEW).await;
    let status = world
        .until(|status| status.message.contains("the executor applies the last steps"))
        .await;
    assert_eq!(status.phase, NodePhase::Verifying);
    assert!(world.is_cordoned().await);
    world.host.set("1", |progress| {
        progress.left = vec!["new pods start with the old shim".to_owned()];
    });
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert!(
        status.message.ends_with("; new pods start with the old shim"),
        "{}",
        status.message
    );
    assert!(!world.is_cordoned().await);
}

#[rstest]
#[tokio::test]
async fn a_drain_that_is_asked_for_comes_first(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = asked(release, "w20", json!({ "mode": "Evict" })).await;
    goes(&mut world).await;
    assert!(world.is_cordoned().await && !runs(&world, "w20").await);
    let status = world.status().await;
    assert!(status.times.iter().any(|time| time.phase == NodePhase::Draining));
    switch(&mut world).await;
    world.heartbeat(NEW).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert!(status.message.contains("upgraded in place"), "{}", status.message);
}
