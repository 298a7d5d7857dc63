//! A runtime that is upgraded below the pods, which run on.

use super::*;
use crate::{
    executor::progress::OldShims,
    plan::{
        document::{PlannedStep, Section},
        host_path::HostPath,
        shims::ShimUse,
        step::{Edge, Endpoint, Step, TasksStep},
    },
};

/// A plan under which the pods run on.
fn upgrade(state: State) -> Run {
    let mut run = run(Some(state));
    let cri = Endpoint {
        runtime: Runtime::Containerd,
        socket: HostPath::new("/run/containerd/containerd.sock").unwrap(),
    };
    run.plan.steps.push(PlannedStep {
        section: Section::Switch,
        does: Step::Tasks(TasksStep {
            cri,
            edge: Edge::Closing,
            arms: true,
            quiet_within_secs: 60,
        }),
    });
    run
}

#[test]
fn an_upgrade_drains_first_if_that_is_asked_for() {
    let mut world = World::new("Migrate", NodePhase::Preparing, Some(upgrade(State::Prepared)));
    world.migration.spec.drain.mode = DrainMode::Evict;
    world.pods.push(web());
    assert_eq!(world.decided(), (NodePhase::Draining, "evict"));
}

#[rstest]
#[case::left_open(DrainMode::Auto)]
#[case::live(DrainMode::Live)]
#[case::in_place(DrainMode::InPlace)]
fn an_upgrade_cordons_the_node_and_evicts_no_pod(#[case] mode: DrainMode) {
    let mut world = World::new("Migrate", NodePhase::Preparing, Some(upgrade(State::Prepared)));
    world.migration.spec.drain.mode = mode;
    world.pods.push(web());
    let cordoned = world.node.clone();
    world.node = serde_json::from_value(json!({ "metadata": { "name": "w1", "uid": "n1" } })).unwrap();
    assert_eq!(world.decided(), (NodePhase::Preparing, "patch"));
    world.node = cordoned;
    assert_eq!(world.decided(), (NodePhase::Switching, "go"));
    let Act::Go(baseline) = world.decide().unwrap().act else {
        panic!("the switch is not ordered")
    };
    assert!(baseline.pods.is_empty(), "no pod starts again");
}

/// The agent's own container is the same one before and after an upgrade.
#[test]
fn an_upgrade_is_confirmed_by_the_version_that_the_node_reports() {
    let mut world = World::new("Migrate", NodePhase::Switching, Some(upgrade(AWAITING)));
    let run = world.run.as_mut().unwrap();
    run.plan.target.version = "2.4.2".to_owned();
    run.baseline.containers = ["containerd://1".to_owned()].into();
    assert_eq!(world.decided(), (NodePhase::Verifying, "wait"));
    let status = world.decide().unwrap().status;
    assert!(status.message.contains("containerd 2.4.2"), "{}", status.message);

    let info = world.node.status.as_mut().unwrap().node_info.as_mut().unwrap();
    info.container_runtime_version = "containerd://2.4.2".to_owned();
    assert_eq!(world.decided(), (NodePhase::Verifying, "commit"));
}

/// The last count on the node is reported, also with the end.
#[test]
fn pods_on_old_shims_are_reported() {
    let shims = vec![ShimUse {
        program: "/usr/bin/containerd-shim-runc-v2".to_owned(),
        pods: 3,
        others: 0,
    }];
    let mut run = upgrade(State::Committed);
    run.progress.as_mut().unwrap().old_shims = Some(OldShims {
        counted_at: at(NOW - 5),
        programs: shims.clone(),
    });
    let mut world = World::new("Migrate", NodePhase::Uncordoning, Some(run));
    world.node = serde_json::from_value(json!({ "metadata": { "name": "w1", "uid": "n1" } })).unwrap();
    let decision = world.decide().unwrap();
    assert_eq!(decision.status.phase, NodePhase::Succeeded);
    assert_eq!(decision.status.old_shims.unwrap().programs, shims);
}

/// A day in which a rollback loses nothing, without an agent: the node is uncordoned, and the migration of it is over.
#[test]
fn a_node_that_soaks_is_done_and_says_until_when_it_can_go_back() {
    let soaking = State::Soaking {
        left: Duration::from_secs(86_400),
    };
    let mut world = World::new("Migrate", NodePhase::Verifying, Some(upgrade(soaking)));
    assert_eq!(world.decided(), (NodePhase::Uncordoning, "patch"));
    world.node = serde_json::from_value(json!({ "metadata": { "name": "w1", "uid": "n1" } })).unwrap();
    assert_eq!(world.decided(), (NodePhase::Succeeded, "rest"));
    let message = world.decide().unwrap().status.message;
    let until = at(NOW + 86_400).to_string();
    assert!(
        message.contains(&format!(
            "soaking on the old shim until {until}, then it commits by itself"
        )) && message.contains("transship node rollback"),
        "{message}"
    );

    // The journal is open, and an agent that comes back does not take the node up again.
    world.attempts = vec![Attempt {
        run: "m1-1".to_owned(),
        migration: "m1".to_owned(),
        migration_name: Some("m".to_owned()),
        generation: 1,
        number: 0,
        state: Some(soaking),
        ordered: true,
        endpoint: None,
    }];
    world.migration.status = Some(world.decide().unwrap().status);
    assert_eq!(world.decided(), (NodePhase::Succeeded, "rest"));
    // Made again meanwhile, the NodeMigration is planned, and the node is found on the target.
    world.migration.status = None;
    world.run = None;
    assert_eq!(world.decided(), (NodePhase::Preflight, "plan"));
}
