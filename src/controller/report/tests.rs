//! What a person reads.

use jiff::SignedDuration;
use kube_runtime::events::EventType;

use super::*;
use crate::api::node_migration::Action;
use crate::api::request::{DrainMode, Runtime};
use crate::controller::rollout::tests::{node, share, slot, three};
use crate::controller::rollout::{Ask, Write, decide};
use crate::controller::seen::{Overlap, Share};

fn spec() -> RuntimeMigrationSpec {
    serde_json::from_value(serde_json::json!({
        "nodeSelector": { "matchLabels": { "a": "b" } }, "target": { "runtime": "containerd" }, "mode": "Apply",
    }))
    .unwrap()
}

fn told(seen: &Seen, before: &RuntimeMigrationStatus) -> (RuntimeMigrationStatus, Vec<Happened>) {
    let decision = decide(seen);
    let after = status(seen, &decision, &spec(), before);
    let happened = happened(seen, &decision, before, &after);
    (after, happened)
}

fn condition<'a>(status: &'a RuntimeMigrationStatus, kind: &str) -> &'a Condition {
    status.conditions.iter().find(|c| c.type_ == kind).unwrap()
}

/// 500 nodes, and the reader learns what to do, in the same words at every look.
#[test]
fn blocked_nodes_are_counted_by_what_blocks_them() {
    let mut seen = three();
    (seen.nodes, seen.shares) = (BTreeMap::new(), BTreeMap::new());
    for number in 0..500 {
        let name = format!("w{number:03}");
        seen.nodes.insert(name.clone(), node(true, false));
        let codes: &[&str] = match number {
            0..480 => &["DockerSocketMounted"],
            480..497 => &["PodsBlockDrain", "PodsBlockDrain"],
            497 => &["DockerSocketMounted", "DiskSpace"],
            _ => &[],
        };
        let blocked = Share {
            blocked_by: codes.iter().map(|&code| code.to_owned()).collect(),
            timed_out: number == 498,
            ..share(2, Action::Migrate, NodePhase::Blocked)
        };
        seen.shares.insert(name, blocked);
    }
    let (status, _) = told(&seen, &RuntimeMigrationStatus::default());
    assert_eq!(status.phase, MigrationPhase::Degraded);
    assert_eq!(
        status.message,
        "ended, and not as asked: 500 Blocked: 481 DockerSocketMounted (w000, w001, w002 and 478 more), \
         17 PodsBlockDrain (w480, w481, w482 and 14 more), 1 DiskSpace (w497), 1 DrainTimedOut (w498), \
         1 without a finding (w499)"
    );
    assert_eq!(
        condition(&status, "Degraded").message,
        status.message["ended, and not as asked: ".len()..]
    );
}

#[test]
fn a_lost_node_is_told_once_and_so_is_its_return() {
    let mut seen = three();
    seen.slots = vec![slot("w1", 2)];
    seen.now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1);
    seen.shares
        .insert("w1".to_owned(), share(2, Action::Migrate, NodePhase::Switching));
    seen.nodes.get_mut("w1").unwrap().ready = false;
    let reasons = |happened: &[Happened]| happened.iter().map(|one| one.reason).collect::<Vec<_>>();

    let (lost, happened) = told(&seen, &RuntimeMigrationStatus::default());
    assert_eq!(reasons(&happened), ["NodeLost", "MaxFailuresReached"]);
    assert_eq!(happened[0].kind, EventType::Warning);
    assert!(happened[0].note.contains("w1: Switching"), "{}", happened[0].note);
    assert_eq!(
        (lost.nodes.lost, lost.nodes.active, lost.phase),
        (1, 0, MigrationPhase::Paused)
    );
    let degraded = condition(&lost, "Degraded");
    assert_eq!((&*degraded.reason, &*degraded.message), ("NodesLost", "w1 Lost"));

    seen.slots.clone_from(&lost.active_nodes);
    let (again, happened) = told(&seen, &lost);
    assert_eq!((&again, happened), (&lost, Vec::new()), "no churn");

    seen.nodes.get_mut("w1").unwrap().ready = true;
    let (back, happened) = told(&seen, &lost);
    assert_eq!(reasons(&happened), ["NodeFound"]);
    assert_eq!(condition(&back, "Degraded").status, "False");
}

#[test]
fn an_overlap_is_a_condition_and_one_event() {
    let mut seen = three();
    seen.overlaps = vec![Overlap {
        migration: "bb".to_owned(),
        older: false,
        opposed: Some(Runtime::CriDockerd),
        nodes: ["w1", "w2", "w3", "w4"].map(str::to_owned).into(),
    }];
    let (status, happened) = told(&seen, &RuntimeMigrationStatus::default());
    let overlapping = condition(&status, "Overlapping");
    assert_eq!(
        (&*overlapping.status, &*overlapping.message),
        (
            "True",
            "migration bb chooses 4 of the same nodes (w1, w2, w3 and 1 more), which it moves to cri-dockerd; \
             it is younger and waits"
        )
    );
    let events = happened.iter().filter(|one| one.reason == "Overlapping");
    assert_eq!(events.count(), 1);
    seen.slots.clone_from(&status.active_nodes);
    let (_, happened) = told(&seen, &status);
    assert!(happened.iter().all(|one| one.reason != "Overlapping"));
}

#[test]
fn pods_that_will_stop_in_place_are_a_warning_on_the_migration() {
    let mut seen = three();
    seen.nodes.retain(|name, _| name == "w1");
    let decision = decide(&seen);
    let ask = Ask {
        action: Action::Migrate,
        no_other_node: true,
    };
    assert_eq!(decision.writes, [("w1".to_owned(), Write::Ask(ask))]);
    let (_, happened) = told(&seen, &RuntimeMigrationStatus::default());
    let warning = happened.iter().find(|one| one.reason == "NoOtherNode").unwrap();
    assert_eq!(warning.kind, EventType::Warning);
    assert!(
        warning.note.contains("stopped and started again"),
        "{}",
        warning.note
    );
    // What is only looked at is not said to be switched.
    assert!(
        !happened[0].note.contains("is being switched"),
        "{}",
        happened[0].note
    );
    seen.mode = Mode::Plan;
    let (_, happened) = told(&seen, &RuntimeMigrationStatus::default());
    assert!(happened.iter().all(|one| one.reason != "NoOtherNode"));
}

#[test]
fn pods_on_old_shims_are_summed_over_the_nodes_of_the_migration() {
    let mut seen = three();
    let on = |pods| Share {
        pods_on_old_shims: pods,
        ..share(2, Action::Migrate, NodePhase::Succeeded)
    };
    let other = Share {
        migration_uid: "other".to_owned(),
        ..on(100)
    };
    seen.shares = [("w1", on(3)), ("w2", on(4)), ("w3", other)]
        .map(|(name, share)| (name.to_owned(), share))
        .into();
    let (status, _) = told(&seen, &RuntimeMigrationStatus::default());
    assert_eq!(status.pods_on_old_shims, 7);
}

/// An upgrade in place for which a drain was asked that has nowhere to go to.
#[test]
fn pods_of_a_lone_node_keep_running_in_an_upgrade() {
    let mut seen = three();
    seen.nodes.retain(|name, _| name == "w1");
    seen.drain = DrainMode::Evict;
    seen.nodes.get_mut("w1").unwrap().shows = "containerd://1.7.28".to_owned();
    let (_, happened) = told(&seen, &RuntimeMigrationStatus::default());
    let event = happened.iter().find(|one| one.reason == "NoOtherNode").unwrap();
    assert!(event.note.contains("keep running"), "{}", event.note);

    seen.slots = vec![slot("w1", 2)];
    let upgraded = Share {
        no_other_node: true,
        keeps_pods: true,
        ..share(2, Action::Migrate, NodePhase::Preparing)
    };
    seen.shares.insert("w1".to_owned(), upgraded);
    let waits = decide(&seen).waits;
    assert!(
        waits[0].contains("its pods keep running, the cluster has no other node"),
        "{waits:?}"
    );
}
