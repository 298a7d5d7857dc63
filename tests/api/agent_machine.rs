//! The agent's state machine against a real API server: the whole way there and back, with the agent dying in the
//! middle. The host is a state machine; the test plays kubelet and executor.

mod findings;
mod gone;
mod host;
mod live;
mod world;

use crate::server::Release;
use host::{FakeHost, plan};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rstest::rstest;
use serde_json::json;
use transship::api::node_migration::{NodeMigrationStatus, NodePhase};
use transship::api::request::{Runtime, RuntimeVersion};
use transship::executor::progress::State;
use transship::plan::finding::{Finding, Severity};
use transship::plan::host_path::HostPath;
use transship::plan::step::{Endpoint, Step};
use transship::planner::request::Verdict;
use world::{CONTAINERD, DOCKER, World};

const SOCKET: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// Plan, then Migrate, all the way; with an agent that dies after every round if `mortal`.
async fn whole_way(release: Release, node: &'static str, mortal: bool) {
    let docker_socket = "/var/run/dockershim.sock";
    let mut world = World::new(
        release,
        node,
        json!({ "metadata": { "annotations": { SOCKET: docker_socket } } }),
    )
    .await;
    world.mortal = mortal;
    let app = format!("web-{node}");
    world.pod("default", &app, json!({ "app": app })).await;
    let daemon = format!("net-{node}");
    world.pod_of("DaemonSet", "default", &daemon, json!({})).await;
    world.pod_runs_under("default", &daemon, DOCKER).await;

    world.ask("Plan", 1, json!({})).await;
    let status = world.until_phase(NodePhase::Planned).await;
    assert_eq!(status.message, "planned in 3 steps; nothing was changed");
    let summary = status.plan.unwrap();
    assert_eq!(
        (summary.steps, summary.digest),
        (plan().words(), plan().digest().as_str().to_owned())
    );
    assert!(
        status
            .findings
            .iter()
            .any(|finding| finding.code == "PodsToEvict" && finding.message.contains(&app))
    );
    assert!(
        status
            .findings
            .iter()
            .any(|finding| finding.code == "PodsMustReturn" && finding.message.contains(&daemon))
    );
    assert_eq!(world.host.inner().own_images, ["example.com/image:1"]);
    assert!(world.host.changes().is_empty() && !world.is_cordoned().await);

    world.ask("Migrate", 1, json!({})).await;
    world.until_phase(NodePhase::Switching).await;
    assert!(world.is_cordoned().await);
    let host = world.host.clone();
    world.until(|_| world_go(&host)).await;
    let gone = Api::<Pod>::namespaced(world.admin.clone(), "default")
        .get_opt(&app)
        .await
        .unwrap();
    assert!(gone.is_none(), "the pod was there when the switch was ordered");

    world.switch("1").await;
    let status = world.until_phase(NodePhase::Verifying).await;
    assert!(
        status
            .message
            .contains("the agent's own pod is reported as running under containerd"),
        "{status:?}"
    );
    assert!(
        status
            .message
            .contains("the Node reports containerd instead of docker://"),
        "{status:?}"
    );
    world.runs_under(CONTAINERD).await;
    world.heartbeat(CONTAINERD).await;
    world.host.inner().unhealthy = true;
    let broken = json!({ "state": { "waiting": { "reason": "CreateContainerError" } } });
    world.pod_reports("default", &daemon, broken).await;
    let status = world.until(|status| !status.message.contains("instead of")).await;
    let not_back =
        format!("the pods are Ready again that were Ready before (default/{daemon}: CreateContainerError)");
    assert_eq!(
        status.message,
        format!("waits until the kubelet is healthy (it does not answer), and until {not_back}")
    );
    world.host.inner().unhealthy = false;
    let waits = format!("waits until {not_back}");
    world.until(|status| status.message == waits).await;
    assert!(!world.host.changes().contains(&"Commit".to_owned()));
    world.pod_runs_under("default", &daemon, CONTAINERD).await;

    let status = world.until_phase(NodePhase::Succeeded).await;
    assert_eq!(world.host.changes(), ["install 1", "Go", "Commit"]);
    assert_eq!(
        status.message,
        "runs on containerd 1.6.20; the kubelet was away for 1.2 s"
    );
    assert_eq!(
        (status.kubelet_downtime_millis, status.image_bytes),
        (Some(1234), Some(4096))
    );
    let phases: Vec<_> = status.times.iter().map(|time| time.phase).collect();
    use NodePhase::{Draining, Preflight, Preparing, Succeeded, Switching, Uncordoning, Verifying};
    assert_eq!(
        phases,
        [
            Preflight,
            Preparing,
            Draining,
            Switching,
            Verifying,
            Uncordoning,
            Succeeded
        ]
    );
    assert!(status.times.iter().all(|time| time.end.is_some()));
    let node = world.the_node().await;
    assert!(!world.is_cordoned().await);
    assert_eq!(
        node.annotations()[SOCKET],
        "unix:///run/containerd/containerd.sock"
    );
    assert_eq!(
        node.annotations()["transship.dev/previous-cri-socket"],
        docker_socket
    );
    assert!(!node.annotations().contains_key("transship.dev/cordoned-by"));

    // An edit of the spec changes nothing for a node that is there.
    world.ask("Migrate", 2, json!({})).await;
    let status = world.until(|status| status.migration_generation == 2).await;
    assert_eq!(status.phase, NodePhase::Succeeded);
    assert_eq!(world.host.changes().len(), 3);
}

fn world_go(host: &FakeHost) -> bool {
    host.state("1") == Some(State::Switching)
}

#[rstest]
#[tokio::test]
async fn a_node_goes_all_the_way(#[values(Release::Old, Release::New)] release: Release) {
    whole_way(release, "w1", false).await;
}

#[rstest]
#[tokio::test]
async fn an_agent_that_dies_after_every_round_goes_all_the_way(
    #[values(Release::Old, Release::New)] release: Release,
) {
    whole_way(release, "w2", true).await;
}

#[rstest]
#[tokio::test]
async fn a_node_that_goes_back_is_retried_with_a_new_generation(
    #[values(Release::Old, Release::New)] release: Release,
) {
    // Somebody else cordoned it: it stays so.
    let mut world = World::new(release, "w3", json!({ "spec": { "unschedulable": true } })).await;
    world.ask("Migrate", 1, json!({})).await;
    world.until_phase(NodePhase::Switching).await;
    let host = world.host.clone();
    world.until(|_| world_go(&host)).await;
    world.die();
    let error = "start containerd.service: the job ended as failed";
    world.host.set("1", |progress| {
        progress.state = State::RollingBack;
        progress.error = Some(error.to_owned());
    });
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(status.message, format!("rolled back to dockershim: {error}"));
    assert_eq!(status.last_error.as_deref(), Some(error));
    assert!(world.is_cordoned().await, "the cordon was somebody else's");
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(
        world.host.changes(),
        ["install 1", "Go"],
        "an ended node is left alone"
    );

    world.ask("Migrate", 2, json!({})).await;
    world
        .until(|status| status.phase == NodePhase::Switching && status.migration_generation == 2)
        .await;
    assert_eq!(world.host.changes()[2..], ["install 2", "Go"]);
    assert_eq!(world.status().await.last_error, None);

    // A status that nobody can read, from whoever may write statuses, is written anew.
    let forged = json!({ "status": { "times": [{ "phase": "Draining", "start": "9999-12-31T23:59:59Z" }] } });
    world
        .raw()
        .patch_status("w3", &PatchParams::default(), &Patch::Merge(&forged))
        .await
        .unwrap();
    world.migrations().get("w3").await.unwrap_err();
    world.round().await;
    let status = world.status().await;
    assert_eq!(
        (status.phase, status.migration_generation),
        (NodePhase::Switching, 2)
    );

    // What no software can repair.
    world.until(|_| host.state("2") == Some(State::Switching)).await;
    world.host.set("2", |progress| {
        progress.state = State::Broken;
        progress.error = Some("the disk is read-only".to_owned());
    });
    let status = world.until_phase(NodePhase::Failed).await;
    assert!(
        status
            .message
            .starts_with("a person has to help: the disk is read-only"),
        "{}",
        status.message
    );
}

#[rstest]
#[tokio::test]
async fn a_budget_blocks_is_aborted_and_times_out(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w4", json!({})).await;
    world.pod("default", "guarded", json!({ "app": "guarded" })).await;
    world.budget("guard", "guarded").await;
    world.ask("Migrate", 1, json!({ "timeout": "10m" })).await;
    let status = world
        .until(|status| {
            status
                .drain
                .as_ref()
                .is_some_and(|drain| !drain.blocking.is_empty())
        })
        .await;
    assert_eq!(status.phase, NodePhase::Draining);
    let drain = status.drain.unwrap();
    assert_eq!((drain.evicted, drain.remaining), (0, 1));
    let reason = "PodDisruptionBudget guard needs 1 healthy pods and has 1 currently";
    assert_eq!(
        (drain.blocking[0].name.as_str(), drain.blocking[0].reason.as_str()),
        ("guarded", reason)
    );
    assert_eq!(
        status.message,
        format!("waits for 1 pods to leave: default/guarded: {reason}")
    );
    assert!(world.is_cordoned().await);

    world.ask("Abort", 1, json!({ "timeout": "10m" })).await;
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(
        status.message,
        "rolled back to dockershim: the migration is being deleted"
    );
    assert_eq!(status.last_error, None);
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes(), ["install 1", "Abort"]);

    // Again, with less patience, and an agent that dies while it waits and remembers nothing.
    world.ask("Migrate", 2, json!({ "timeout": "4s" })).await;
    let blocked = |status: &NodeMigrationStatus| {
        status.migration_generation == 2
            && status
                .drain
                .as_ref()
                .is_some_and(|drain| !drain.blocking.is_empty())
    };
    world.until(blocked).await;
    world.die();
    world.round().await;
    assert!(
        blocked(&world.status().await),
        "what the old agent was told is not forgotten"
    );
    let status = world
        .until(|status| status.migration_generation == 2 && status.phase == NodePhase::Blocked)
        .await;
    let condition = &status.conditions[0];
    assert_eq!(
        (condition.type_.as_str(), condition.status.as_str()),
        ("DrainTimedOut", "True")
    );
    assert!(
        condition
            .message
            .starts_with("1 pods did not leave within 4s: default/guarded"),
        "{condition:?}"
    );
    assert!(condition.message.contains(reason), "{condition:?}");
    assert!(
        status
            .message
            .ends_with("What was prepared is undone, the node serves"),
        "{}",
        status.message
    );
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes()[2..], ["install 2", "Abort"]);
    let pod = Api::<Pod>::namespaced(world.admin.clone(), "default")
        .get("guarded")
        .await
        .unwrap();
    assert!(pod.metadata.deletion_timestamp.is_none());
}

#[rstest]
#[tokio::test]
async fn a_node_that_cannot_or_need_not_move_is_not_touched(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w5", json!({})).await;

    // Not this node: an older one of the same name.
    world.ask("Migrate", 1, json!({})).await;
    let patch = Patch::Merge(json!({ "spec": { "nodeUid": "another" } }));
    world
        .migrations()
        .patch("w5", &PatchParams::default(), &patch)
        .await
        .unwrap();
    world.round().await;
    assert_eq!(world.status().await, NodeMigrationStatus::default());

    // Trouble is reported, and tried again.
    world.host.inner().broken_inspect = true;
    world.ask("Migrate", 1, json!({})).await;
    let status = world.until(|status| status.last_error.is_some()).await;
    assert_eq!(status.phase, NodePhase::Preflight);
    assert!(
        status.message.contains("`transship node inspect` ended with 1"),
        "{}",
        status.message
    );
    world.host.inner().broken_inspect = false;

    // A finding blocks.
    world.host.inner().verdict = Some(Verdict::Blocked);
    world.host.inner().findings = vec![Finding {
        severity: Severity::Block,
        code: "CgroupDriverMismatch".to_owned(),
        subject: None,
        message: "The drivers differ".to_owned(),
        remedy: "Choose one.".to_owned(),
    }];
    let status = world.until_phase(NodePhase::Blocked).await;
    assert_eq!(
        status.message,
        "CgroupDriverMismatch: The drivers differ. Choose one."
    );
    assert_eq!(status.last_error, None);

    // A pod would be lost: an unmanaged one with data.
    world.host.inner().verdict = None;
    world.host.inner().findings.clear();
    let lonely = serde_json::from_value(json!({
        "metadata": { "name": "lonely" },
        "spec": { "nodeName": "w5", "volumes": [{ "name": "v", "emptyDir": {} }],
            "containers": [{ "name": "c", "image": "i" }] },
    }));
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "default");
    pods.create(&PostParams::default(), &lonely.unwrap())
        .await
        .unwrap();
    world.ask("Migrate", 2, json!({})).await;
    let status = world
        .until(|status| status.migration_generation == 2 && status.phase.ended())
        .await;
    assert_eq!(status.phase, NodePhase::Blocked);
    assert!(
        status
            .message
            .starts_with("PodsBlockDrain: 1 pods would not be evicted: default/lonely")
    );

    // Aborted before anything was changed.
    world.ask("Abort", 2, json!({})).await;
    let status = world
        .until(|status| status.action == Some(transship::api::node_migration::Action::Abort))
        .await;
    assert_eq!(status.phase, NodePhase::Blocked);

    // Already there.
    world.heartbeat(CONTAINERD).await;
    world.host.inner().verdict = Some(Verdict::AlreadyThere);
    world.ask("Migrate", 3, json!({})).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert!(
        status.message.ends_with("nothing was touched"),
        "{}",
        status.message
    );
    assert!(world.host.changes().is_empty());
    assert!(!world.is_cordoned().await);

    // Another migration of the same name begins anew; it is aborted before it does.
    let spec = json!({ "spec": { "migration": { "uid": "m2", "generation": 1 }, "action": "Abort" } });
    world
        .migrations()
        .patch("w5", &PatchParams::default(), &Patch::Merge(spec))
        .await
        .unwrap();
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(status.message, "aborted before anything was changed");
    assert_eq!(status.migration_uid, "m2");
}

/// Blocked before anything is prepared, until the digest that the message names is approved.
#[rstest]
#[tokio::test]
async fn only_an_approved_plan_runs(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w13", json!({})).await;
    world.ask("Migrate", 1, json!({})).await;
    let digest = plan().digest().as_str().to_owned();
    let other = format!("sha256:{}", "0".repeat(64));

    world.approve(2, &[&other]).await;
    let status = world.until_phase(NodePhase::Blocked).await;
    assert!(
        status.message.starts_with("PlanNotApproved:") && status.message.contains(&digest),
        "{status:?}"
    );
    assert_eq!(status.findings[0].code, "PlanNotApproved");
    assert_eq!(status.plan.unwrap().digest, digest);
    assert!(world.host.changes().is_empty() && !world.is_cordoned().await);

    // Approved by the NodeMigration alone, which others than the user can write.
    let patch =
        Patch::Merge(json!({ "spec": { "approvedPlans": [digest], "migration": { "generation": 3 } } }));
    let parent = world.parents().get("m-w13").await.unwrap();
    let paused = Patch::Merge(json!({ "spec": { "paused": true } }));
    let name = parent.name_any();
    world
        .parents()
        .patch(&name, &PatchParams::default(), &paused)
        .await
        .unwrap();
    world
        .migrations()
        .patch("w13", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let status = world.until(|status| status.message.starts_with("refused:")).await;
    assert!(status.message.contains("approvedPlans"), "{status:?}");
    assert!(world.host.changes().is_empty());

    world.approve(4, &[&other, &digest]).await;
    let host = world.host.clone();
    world.until(|_| host.changes().contains(&"Go".to_owned())).await;
    assert_eq!(world.host.changes(), ["install 4", "Go"]);
}

#[rstest]
#[tokio::test]
async fn between_dockers_shims_with_nowhere_to_go(#[values(Release::Old, Release::New)] release: Release) {
    let socket = "/var/run/dockershim.sock";
    let mut world = World::new(
        release,
        "w6",
        json!({ "metadata": { "annotations": { SOCKET: socket } } }),
    )
    .await;
    world.pod("default", "stays", json!({ "app": "stays" })).await;
    let mut shims = plan();
    shims.target = RuntimeVersion {
        runtime: Runtime::CriDockerd,
        version: "0.4.3".to_owned(),
    };
    for step in &mut shims.steps {
        if let Step::Await(step) = &mut step.does {
            step.runtime = Endpoint {
                runtime: Runtime::CriDockerd,
                socket: HostPath::new("/run/elsewhere/cri-dockerd.sock").unwrap(),
            };
        }
    }
    world.host.inner().verdict = Some(Verdict::Ready(Box::new(shims)));
    world.ask("Migrate", 1, json!({ "mode": "InPlace" })).await;
    let patch = Patch::Merge(json!({ "spec": { "noOtherNode": true } }));
    world
        .migrations()
        .patch("w6", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let host = world.host.clone();
    world.until(|_| world_go(&host)).await;
    assert!(!world.is_cordoned().await);
    world.switch("1").await;

    // Everything that the API shows of before the switch looks as it will afterwards, but for its age.
    let status = world.until_phase(NodePhase::Verifying).await;
    assert!(
        status.message.contains("running under cri-dockerd"),
        "{}",
        status.message
    );
    assert!(!status.message.contains("instead of"), "{}", status.message);
    world.heartbeat(DOCKER).await;
    world.runs_under(DOCKER).await;
    let reason = "the kubelet has not reported its new containers";
    let waits =
        format!("waits until the pods are Ready again that were Ready before (default/stays: {reason})");
    world.until(|status| status.message == waits).await;
    world.pod_runs_under("default", "stays", DOCKER).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert!(status.times.iter().all(|time| time.phase != NodePhase::Draining));
    let codes: Vec<_> = status
        .findings
        .iter()
        .map(|finding| finding.code.as_str())
        .collect();
    assert_eq!(codes, ["NoOtherNode", "PodsMustReturn"]);
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "default");
    assert!(
        pods.get("stays")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_none()
    );
    let node = world.the_node().await;
    assert_eq!(
        node.annotations()[SOCKET],
        "unix:///run/elsewhere/cri-dockerd.sock"
    );
}
