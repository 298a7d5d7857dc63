//! What is decided in every state that a host can be in.

use rstest::rstest;
use serde_json::json;

use super::*;
use crate::{
    api::request::{DrainMode, Runtime},
    executor::progress::{Progress, State},
    plan::{
        baseline::{PodKind, ReadyPod},
        codes::{PLAN_NOT_APPROVED, drain::PODS_BLOCK_DRAIN},
    },
    planner::request::{Outcome, Verdict},
};

mod objects;
mod upgrade;

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn plan() -> Plan {
    serde_json::from_str(include_str!("../../../tests/support/plan.json")).unwrap()
}

fn progress(state: State) -> Progress {
    Progress {
        state,
        steps_done: 0,
        current: Some(1),
        image_bytes: 0,
        kubelet_stopped: Some(at(NOW - 10)),
        kubelet_started: Some(at(NOW - 9)),
        error: Some("it broke".to_owned()),
        left: Vec::new(),
        old_shims: None,
    }
}

fn run(state: Option<State>) -> Run {
    Run {
        plan: plan(),
        words: vec!["stop the kubelet".to_owned(), "start it".to_owned()],
        progress: state.map(progress),
        baseline: Baseline {
            heartbeat: Some(at(NOW - 60).to_string()),
            containers: ["docker://1".to_owned()].into(),
            pods: Vec::new(),
        },
        go: false,
        commit: false,
        abort: false,
        executor_running: true,
    }
}

/// Everything that can be seen, owned.
struct World {
    migration: NodeMigration,
    parent: Parent,
    attempts: Vec<Attempt>,
    node: Node,
    pods: Vec<Pod>,
    run: Option<Run>,
    planned: Option<Planned>,
    kubelet: Option<Result<(), &'static str>>,
    refusals: BTreeMap<String, Refusal>,
    trouble: Option<Trouble>,
}

impl World {
    /// A node under `run`, whose status says `phase` since a while.
    fn new(action: &str, phase: NodePhase, run: Option<Run>) -> Self {
        let migration = json!({
            "apiVersion": "transship.dev/v1alpha1", "kind": "NodeMigration", "metadata": { "name": "w1" },
            "spec": {
                "migration": { "name": "m", "uid": "m1", "generation": 1 }, "nodeUid": "n1", "action": action,
                "target": { "runtime": "containerd" }, "proceed": true,
            },
        });
        let mut migration: NodeMigration = serde_json::from_value(migration).unwrap();
        let mut status = report::begin(&migration.spec);
        if phase != NodePhase::Pending {
            report::enter(&mut status, phase, at(NOW - 60));
        }
        migration.status = Some(status);
        let node = json!({
            "metadata": { "name": "w1", "uid": "n1", "resourceVersion": "1",
                "annotations": { "transship.dev/cordoned-by": "m1" } },
            "spec": { "unschedulable": true },
            "status": { "nodeInfo": { "containerRuntimeVersion": "containerd://1.6.20" }, "conditions": [
                { "type": "Ready", "status": "True", "lastHeartbeatTime": at(NOW - 9).to_string() }] },
        });
        let own = json!({
            "metadata": { "name": "agent", "namespace": "transship",
                "labels": { "app.kubernetes.io/name": "transship" } },
            "status": { "phase": "Running", "containerStatuses": [{ "name": "agent",
                "containerID": "containerd://1", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
                "state": { "running": { "startedAt": at(NOW - 5).to_string() } } }] },
        });
        Self {
            migration,
            parent: Parent::Agrees,
            attempts: Vec::new(),
            node: serde_json::from_value(node).unwrap(),
            pods: vec![serde_json::from_value(own).unwrap()],
            run,
            planned: None,
            kubelet: Some(Ok(())),
            refusals: BTreeMap::new(),
            trouble: None,
        }
    }

    fn decide(&self) -> Option<Decision> {
        decide(&Seen {
            now: at(NOW),
            own_pod: ("transship", "agent"),
            migration: &self.migration,
            parent: &self.parent,
            attempts: &self.attempts,
            node: &self.node,
            pods: &self.pods,
            run: self.run.as_ref(),
            planned: self.planned.as_ref(),
            kubelet: self.kubelet,
            refusals: &self.refusals,
            trouble: self.trouble.as_ref(),
        })
    }

    /// Phase and act of the decision; the plan of an installation and the text of a patch left out.
    fn decided(&self) -> (NodePhase, &'static str) {
        let decision = self.decide().expect("it is about this node");
        let act = match decision.act {
            Act::Rest => "rest",
            Act::Wait => "wait",
            Act::Plan => "plan",
            Act::Install(_) => "install",
            Act::StartExecutor => "start",
            Act::Go(_) | Act::Order(Order::Go) => "go",
            Act::Order(Order::Commit) => "commit",
            Act::Order(Order::Abort) => "abort",
            Act::Order(Order::Undo | Order::EndSoak | Order::Lapse) => "undo",
            Act::Patch(_) => "patch",
            Act::Evict(_) => "evict",
        };
        (decision.status.phase, act)
    }
}

const AWAITING: State = State::AwaitingCommit {
    left: Duration::from_secs(200),
};

#[rstest]
#[case::preparing("Migrate", State::Preparing, NodePhase::Preparing, "wait")]
#[case::prepared("Migrate", State::Prepared, NodePhase::Switching, "go")]
#[case::switching("Migrate", State::Switching, NodePhase::Switching, "wait")]
#[case::healthy("Migrate", AWAITING, NodePhase::Verifying, "commit")]
#[case::rolling_back("Migrate", State::RollingBack, NodePhase::RollingBack, "wait")]
#[case::committed("Migrate", State::Committed, NodePhase::Uncordoning, "patch")]
#[case::rolled_back("Migrate", State::RolledBack, NodePhase::RollingBack, "patch")]
#[case::broken("Migrate", State::Broken, NodePhase::Failed, "rest")]
#[case::abort_preparing("Abort", State::Preparing, NodePhase::RollingBack, "abort")]
#[case::abort_prepared("Abort", State::Prepared, NodePhase::RollingBack, "abort")]
#[case::abort_switching("Abort", State::Switching, NodePhase::Switching, "wait")]
#[case::abort_awaiting("Abort", AWAITING, NodePhase::Verifying, "commit")]
#[case::abort_committed("Abort", State::Committed, NodePhase::Uncordoning, "patch")]
fn the_journal_decides_whatever_the_status_says(
    #[case] action: &str,
    #[case] state: State,
    #[case] phase: NodePhase,
    #[case] act: &str,
    #[values(
        NodePhase::Pending,
        NodePhase::Preflight,
        NodePhase::Preparing,
        NodePhase::Switching
    )]
    remembered: NodePhase,
) {
    let world = World::new(action, remembered, Some(run(Some(state))));
    assert_eq!(world.decided(), (phase, act));
}

#[rstest]
#[case(State::Preparing, false, NodePhase::Preparing)]
#[case(State::Prepared, true, NodePhase::Switching)]
#[case(State::Switching, true, NodePhase::Switching)]
#[case(State::RollingBack, true, NodePhase::RollingBack)]
fn an_executor_that_should_work_is_started(#[case] state: State, #[case] go: bool, #[case] phase: NodePhase) {
    let mut world = World::new("Migrate", NodePhase::Switching, Some(run(Some(state))));
    let run = world.run.as_mut().unwrap();
    (run.go, run.executor_running) = (go, false);
    assert_eq!(world.decided(), (phase, "start"));
}

#[rstest]
#[case::own_pod(|world: &mut World| world.pods.clear(), "the agent's own pod is reported")]
#[case::old_container(
    |world: &mut World| { world.run.as_mut().unwrap().baseline.containers.insert("containerd://1".to_owned()); },
    "the agent's own pod is reported"
)]
#[case::pod_that_was_ready(
    |world: &mut World| world.run.as_mut().unwrap().baseline.pods.push(ReadyPod {
        namespace: "kube-system".to_owned(),
        name: "calico-node-x".to_owned(),
        kind: PodKind::DaemonSet { owner: "d".to_owned() },
    }),
    "the pods are Ready again that were Ready before (kube-system/calico-node-x: its DaemonSet has no pod on the node)"
)]
#[case::kubelet(|world: &mut World| world.kubelet = Some(Err("refused")), "the kubelet is healthy (refused)")]
#[case::not_asked(|world: &mut World| world.kubelet = None, "the kubelet was asked")]
#[case::runtime(
    |world: &mut World| world.node.status.as_mut().unwrap().node_info.as_mut().unwrap()
        .container_runtime_version = "docker://20.10.24".to_owned(),
    "the Node reports containerd instead of docker://20.10.24"
)]
#[case::version(
    |world: &mut World| world.node.status.as_mut().unwrap().node_info.as_mut().unwrap()
        .container_runtime_version = "containerd://1.6.19".to_owned(),
    "instead of containerd://1.6.19"
)]
#[case::stale(
    |world: &mut World| world.node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0]
        .last_heartbeat_time.as_mut().unwrap().0 = at(NOW - 60),
    "the Node reports Ready since"
)]
#[case::not_ready(
    |world: &mut World| world.node.status.as_mut().unwrap().conditions.as_mut().unwrap()[0]
        .status = "False".to_owned(),
    "the Node reports Ready since"
)]
fn nothing_is_confirmed_while_something_is_missing(#[case] spoil: fn(&mut World), #[case] missing: &str) {
    let mut world = World::new("Migrate", NodePhase::Verifying, Some(run(Some(AWAITING))));
    spoil(&mut world);
    let decision = world.decide().unwrap();
    assert_eq!(
        (decision.status.phase, decision.act),
        (NodePhase::Verifying, Act::Wait)
    );
    assert!(
        decision.status.message.contains(missing),
        "{}",
        decision.status.message
    );
}

fn web() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "p1", "ownerReferences": [
            { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] },
        "status": { "phase": "Running" },
    }))
    .unwrap()
}

#[rstest]
#[case::not_asked(None, 60, "evict")]
#[case::just_refused(Some(2), 60, "wait")]
#[case::rested(Some(5), 60, "evict")]
#[case::too_late(Some(2), 16 * 60, "abort")]
fn a_refused_eviction_rests_until_the_drain_is_over(
    #[case] refused_ago: Option<i64>,
    #[case] draining_for: i64,
    #[case] act: &str,
) {
    let mut world = World::new("Migrate", NodePhase::Draining, Some(run(Some(State::Prepared))));
    world.pods.push(web());
    world.migration.status.as_mut().unwrap().times[0].start.0 = at(NOW - draining_for);
    if let Some(ago) = refused_ago {
        world.refusals.insert(
            "p1".to_owned(),
            Refusal {
                at: at(NOW - ago),
                reason: "budget web".to_owned(),
            },
        );
    }
    let phase = if act == "abort" {
        NodePhase::RollingBack
    } else {
        NodePhase::Draining
    };
    assert_eq!(world.decided(), (phase, act));
    let status = world.decide().unwrap().status;
    let blocking = status.drain.unwrap().blocking;
    assert_eq!(blocking.len(), usize::from(refused_ago.is_some()));
    assert_eq!(
        status
            .conditions
            .first()
            .map(|condition| condition.message.as_str()),
        (act == "abort").then_some("1 pods did not leave within 15m: shop/web: budget web")
    );
}

#[test]
fn a_pod_that_is_ending_is_waited_for() {
    let mut world = World::new("Migrate", NodePhase::Draining, Some(run(Some(State::Prepared))));
    let mut pod = web();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW - 3)));
    let mut stuck = pod.clone();
    stuck.metadata.name = Some("stuck".to_owned());
    stuck.metadata.finalizers = Some(vec!["example.com/never".to_owned()]);
    world.pods.extend([stuck, pod]);
    assert_eq!(world.decided(), (NodePhase::Draining, "wait"));
    let status = world.decide().unwrap().status;
    let since = format!("terminating since {:.0}", at(NOW - 3));
    assert_eq!(
        status.message,
        format!(
            "waits for 2 pods to leave: shop/stuck: {since}, held by finalizer example.com/never; shop/web: {since}"
        )
    );
    // Whatever the order of the list, the status is the same, and is not written again.
    world.pods.reverse();
    assert_eq!(world.decide().unwrap().status, status);
}

fn in_place(world: &mut World) {
    let spec = &mut world.migration.spec;
    (spec.drain.mode, spec.no_other_node) = (DrainMode::InPlace, true);
}

#[test]
fn with_nowhere_to_go_nothing_is_cordoned_or_evicted() {
    let mut world = World::new("Migrate", NodePhase::Preparing, Some(run(Some(State::Prepared))));
    world.pods.push(web());
    world.node = serde_json::from_value(json!({ "metadata": { "name": "w1", "uid": "n1" } })).unwrap();
    in_place(&mut world);
    assert_eq!(world.decided(), (NodePhase::Switching, "go"));
    assert_eq!(world.decide().unwrap().status.drain, None);
}

/// What allowed the switch when the node was started may have changed during a long drain.
#[rstest]
#[case::drained(DrainMode::Evict, NodePhase::Draining)]
#[case::in_place(DrainMode::InPlace, NodePhase::Preparing)]
fn the_switch_waits_for_its_permission_and_not_for_ever(#[case] mode: DrainMode, #[case] phase: NodePhase) {
    let mut world = World::new("Migrate", phase, Some(run(Some(State::Prepared))));
    world.migration.spec.drain.mode = mode;
    world.migration.spec.proceed = false;
    assert_eq!(world.decided(), (phase, "wait"));
    let status = world.decide().unwrap().status;
    assert!(report::condition(&status, report::READY_TO_SWITCH).is_some());
    world.migration.status = Some(status.clone());
    assert_eq!(
        world.decide().unwrap().status,
        status,
        "nothing churns while it waits"
    );

    world.migration.spec.proceed = true;
    assert_eq!(world.decided(), (NodePhase::Switching, "go"));
    let status = world.decide().unwrap().status;
    assert!(report::condition(&status, report::READY_TO_SWITCH).is_none());

    world.migration.spec.proceed = false;
    let since = world
        .migration
        .status
        .as_mut()
        .unwrap()
        .conditions
        .first_mut()
        .unwrap();
    since.last_transition_time.0 = at(NOW - 15 * 60 - 1);
    assert_eq!(world.decided(), (NodePhase::RollingBack, "abort"));
    let status = world.decide().unwrap().status;
    assert!(
        status.message.contains("did not let the switch begin within 15m"),
        "{}",
        status.message
    );
    world.migration.status = Some(status);
    world.migration.spec.proceed = true;
    assert_eq!(world.decided(), (NodePhase::RollingBack, "abort"), "too late");
}

#[test]
fn pods_that_come_after_the_drain_are_drained_too() {
    let mut world = World::new("Migrate", NodePhase::Draining, Some(run(Some(State::Prepared))));
    world.migration.spec.proceed = false;
    world.migration.status = Some(world.decide().unwrap().status);
    world.pods.push(web());
    let status = world.decide().unwrap().status;
    assert!(report::condition(&status, report::READY_TO_SWITCH).is_none());
}

/// The Node and the container ids say `docker://` before and after.
#[rstest]
#[case::new("docker://2", Act::Order(Order::Commit))]
#[case::of_before("docker://1", Act::Wait)]
fn between_dockers_shims_a_new_container_is_the_proof(#[case] id: &str, #[case] act: Act) {
    let mut world = World::new("Migrate", NodePhase::Verifying, Some(run(Some(AWAITING))));
    world.run.as_mut().unwrap().plan.target.runtime = Runtime::CriDockerd;
    let info = world.node.status.as_mut().unwrap().node_info.as_mut().unwrap();
    info.container_runtime_version = "docker://20.10.24".to_owned();
    let status = world.pods[0].status.as_mut().unwrap();
    status.container_statuses.as_mut().unwrap()[0].container_id = Some(id.to_owned());
    assert_eq!(world.decide().unwrap().act, act);
}

/// The clock was set back by an hour after the kubelet's start was journalled, or forward.
#[rstest]
#[case(3600)]
#[case(-3600)]
fn a_step_of_the_clock_keeps_no_switch_from_its_commit(#[case] step: i64) {
    let mut world = World::new("Migrate", NodePhase::Verifying, Some(run(Some(AWAITING))));
    world
        .run
        .as_mut()
        .unwrap()
        .progress
        .as_mut()
        .unwrap()
        .kubelet_started = Some(at(NOW + step));
    assert_eq!(world.decided(), (NodePhase::Verifying, "commit"));
}

fn planned(verdict: Verdict) -> Planned {
    Planned {
        outcome: Outcome {
            findings: Vec::new(),
            verdict,
        },
        words: Vec::new(),
        diff: String::new(),
    }
}

#[rstest]
#[case::new("Migrate", NodePhase::Pending, None, (NodePhase::Preflight, "plan"))]
#[case::plan("Plan", NodePhase::Preflight, Some(Verdict::Ready(Box::new(plan()))), (NodePhase::Planned, "rest"))]
#[case::migrate(
    "Migrate", NodePhase::Preflight, Some(Verdict::Ready(Box::new(plan()))), (NodePhase::Preparing, "install")
)]
#[case::there("Migrate", NodePhase::Preflight, Some(Verdict::AlreadyThere), (NodePhase::Succeeded, "rest"))]
#[case::blocked("Migrate", NodePhase::Preflight, Some(Verdict::Blocked), (NodePhase::Blocked, "rest"))]
#[case::plan_lost("Migrate", NodePhase::Preparing, None, (NodePhase::Preflight, "plan"))]
#[case::journal_lost("Migrate", NodePhase::Switching, None, (NodePhase::Failed, "rest"))]
#[case::ended("Migrate", NodePhase::RolledBack, None, (NodePhase::RolledBack, "rest"))]
fn without_a_journal_the_plan_is_what_counts(
    #[case] action: &str,
    #[case] phase: NodePhase,
    #[case] verdict: Option<Verdict>,
    #[case] expected: (NodePhase, &str),
) {
    let mut world = World::new(action, phase, None);
    world.planned = verdict.map(planned);
    assert_eq!(world.decided(), expected);
}

#[rstest]
#[case::not_begun(false, false, "install")]
#[case::begins(false, true, "wait")]
fn a_plan_on_the_host_is_handed_over(#[case] abort: bool, #[case] running: bool, #[case] act: &str) {
    let mut world = World::new("Migrate", NodePhase::Preparing, Some(run(None)));
    let run = world.run.as_mut().unwrap();
    (run.abort, run.executor_running) = (abort, running);
    world.migration.status.as_mut().unwrap().plan = Some(PlanSummary {
        digest: plan().digest().as_str().to_owned(),
        ..PlanSummary::default()
    });
    assert_eq!(world.decided(), (NodePhase::Preparing, act));
}

#[rstest]
#[case::told_first(false, true, (NodePhase::RollingBack, "abort"))]
#[case::takes_note(true, true, (NodePhase::RollingBack, "wait"))]
#[case::cordon_is_lifted(true, false, (NodePhase::RollingBack, "patch"))]
fn what_was_handed_over_is_taken_back(
    #[case] abort: bool,
    #[case] running: bool,
    #[case] expected: (NodePhase, &str),
) {
    let mut world = World::new("Abort", NodePhase::Preparing, Some(run(None)));
    let run = world.run.as_mut().unwrap();
    (run.abort, run.executor_running) = (abort, running);
    assert_eq!(world.decided(), expected);
}

#[rstest]
#[case(60, NodePhase::Preflight, "plan")]
#[case(121, NodePhase::Blocked, "rest")]
fn an_untouched_node_is_given_up_after_a_while(
    #[case] since: i64,
    #[case] phase: NodePhase,
    #[case] act: &str,
) {
    let mut world = World::new("Migrate", NodePhase::Preflight, None);
    let trouble = Trouble {
        since: at(NOW - since),
        message: "no bus".to_owned(),
    };
    assert_eq!(in_trouble(&world.migration, &trouble, at(NOW)).phase, phase);
    world.trouble = Some(trouble);
    assert_eq!(world.decided(), (phase, act));
    assert_eq!(
        world.decide().unwrap().status.last_error.as_deref(),
        Some("no bus")
    );
}

#[rstest]
#[case::same(1, "Migrate", NodePhase::Blocked, false)]
#[case::edited(2, "Migrate", NodePhase::Blocked, true)]
#[case::retried(2, "Migrate", NodePhase::RolledBack, true)]
#[case::planned_before(2, "Plan", NodePhase::Planned, true)]
#[case::applied(1, "Plan", NodePhase::Blocked, true)]
#[case::aborted(2, "Abort", NodePhase::Blocked, false)]
#[case::there(2, "Migrate", NodePhase::Succeeded, false)]
#[case::lost(2, "Migrate", NodePhase::Failed, false)]
fn an_edit_of_the_spec_begins_what_is_as_before(
    #[case] generation: i64,
    #[case] action: &str,
    #[case] phase: NodePhase,
    #[case] again: bool,
) {
    let mut world = World::new("Migrate", phase, None);
    let spec = &mut world.migration.spec;
    spec.migration.generation = generation;
    spec.action = serde_json::from_value(json!(action)).unwrap();
    let expected = if again {
        (NodePhase::Preflight, "plan")
    } else {
        (phase, "rest")
    };
    assert_eq!(world.decided(), expected);
    assert_eq!(world.decide().unwrap().status.migration_generation, generation);
    assert_eq!(
        run_name(&world.migration, &world.attempts),
        format!("m1-{generation}")
    );
}

#[test]
fn what_has_begun_ends_before_a_newer_generation() {
    let mut world = World::new("Migrate", NodePhase::Draining, Some(run(Some(State::Prepared))));
    world.migration.spec.migration.generation = 2;
    assert_eq!(run_name(&world.migration, &world.attempts), "m1-1");
    assert_eq!(world.decide().unwrap().status.migration_generation, 1);
}

#[test]
fn another_node_of_this_name_is_none_of_ours() {
    let mut world = World::new("Migrate", NodePhase::Pending, None);
    world.migration.spec.node_uid = "n0".to_owned();
    assert_eq!(world.decide(), None);
}

/// What a person has to review is shown, whatever the action.
#[rstest]
fn a_plan_that_is_held_back_is_shown(#[values("Plan", "Migrate")] action: &str) {
    let mut world = World::new(action, NodePhase::Preflight, None);
    let mut held = planned(Verdict::Held(Box::new(plan())));
    held.outcome.findings = vec![
        PLAN_NOT_APPROVED.found("nobody approved", "Approve it."),
        PODS_BLOCK_DRAIN.found("a pod would be lost", "Delete it."),
    ];
    world.planned = Some(held);
    assert_eq!(world.decided(), (NodePhase::Blocked, "rest"));
    let status = world.decide().unwrap().status;
    assert_eq!(status.plan.unwrap().digest, plan().digest().as_str());
    assert_eq!(status.findings.len(), 2);
    assert_eq!(
        status.message,
        "PlanNotApproved: nobody approved. Approve it. (and 1 more findings)"
    );
}
