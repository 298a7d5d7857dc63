use std::collections::BTreeMap;

use super::*;
use crate::controller::seen::LeftOut;

mod control_plane;
mod properties;

const ME: &str = "uid-of-this-migration";

fn node(ready: bool, cordoned: bool) -> NodeView {
    NodeView {
        uid: "node-uid".to_owned(),
        selected: true,
        ready,
        cordoned,
        cordoned_by_others: cordoned,
        ..NodeView::default()
    }
}

fn share(generation: i64, action: Action, phase: NodePhase) -> Share {
    Share {
        migration_uid: ME.to_owned(),
        migration_active: true,
        migration_name: "this".to_owned(),
        generation,
        action,
        node_uid: "node-uid".to_owned(),
        phase,
        message: String::new(),
    }
}

fn slot(name: &str, generation: i64) -> Slot {
    Slot {
        name: name.to_owned(),
        generation,
        since: Time(Timestamp::UNIX_EPOCH),
        cordoned: false,
    }
}

/// Three workers on the source, mode Apply, one at a time, at generation 2.
fn three() -> Seen {
    Seen {
        uid: ME.to_owned(),
        generation: 2,
        deleting: false,
        ended: false,
        mode: Mode::Apply,
        paused: false,
        problems: Vec::new(),
        max_unavailable: 1,
        max_failures: 1,
        control_plane: ControlPlane::Last,
        gates: Some(Vec::new()),
        slots: Vec::new(),
        nodes: ["w1", "w2", "w3"]
            .map(|name| (name.to_owned(), node(true, false)))
            .into(),
        shares: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        own_node: None,
        agent_trouble: BTreeMap::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

fn with(change: impl FnOnce(&mut Seen)) -> Decision {
    let mut seen = three();
    change(&mut seen);
    decide(&seen)
}

fn set(seen: &mut Seen, name: &str, change: impl FnOnce(&mut NodeView)) {
    change(seen.nodes.get_mut(name).unwrap());
}

#[test]
fn what_cannot_be_read_keeps_its_slot_and_starts_nothing() {
    let decision = with(|seen| {
        seen.slots = vec![slot("w1", 2)];
        seen.unreadable = [("w1".to_owned(), "not a number".to_owned())].into();
        seen.deleting = true;
    });
    assert_eq!(decision.slots, [slot("w1", 2)]);
    assert_eq!(decision.writes, []);
    assert!(decision.waits[0].contains("not a number"), "{:?}", decision.waits);

    let decision = with(|seen| seen.unreadable = [("w1".to_owned(), String::new())].into());
    assert_eq!(decision.starts, ["w2"]);
    assert_eq!(decision.waiting[0].0, "w1");
    let why = decision.waiting[0].1.as_deref();
    assert!(why.unwrap().contains("cannot be read"));
}

#[test]
fn the_first_node_by_name_starts_and_is_written() {
    let decision = with(|_| {});
    assert_eq!(decision.starts, ["w1"]);
    assert_eq!(decision.writes, [("w1".to_owned(), Action::Migrate)]);
    assert_eq!(
        decision
            .slots
            .iter()
            .map(|s| (s.name.as_str(), s.generation))
            .collect::<Vec<_>>(),
        [("w1", 2)]
    );
}

#[test]
fn the_controllers_own_node_goes_last() {
    let decision = with(|seen| {
        seen.own_node = Some("w1".to_owned());
        seen.max_unavailable = 2;
    });
    assert_eq!(decision.starts, ["w2", "w3"]);
}

#[test]
fn planning_is_bounded_and_takes_no_budget() {
    let decision = with(|seen| {
        seen.mode = Mode::Plan;
        seen.nodes = (0..25)
            .map(|n| (format!("n{n:02}"), node(true, n == 0)))
            .collect();
    });
    assert_eq!(decision.starts.len(), PLANNING);
    assert!(decision.writes.iter().all(|(_, action)| *action == Action::Plan));
}

#[test]
fn a_node_that_is_unavailable_for_another_reason_takes_the_budget() {
    let decision = with(|seen| set(seen, "w3", |n| n.ready = false));
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(decision.hold, Some(Hold::Budget(vec!["w3".to_owned()], 1)));
}

#[test]
fn a_node_that_was_cordoned_can_itself_be_started() {
    let decision = with(|seen| set(seen, "w3", |n| (n.cordoned, n.cordoned_by_others) = (true, true)));
    assert_eq!(decision.starts, ["w3"]);
    assert!(decision.slots[0].cordoned, "it is left cordoned afterwards");
}

#[test]
fn the_brake_stops_at_the_first_failure_of_this_generation() {
    for phase in [NodePhase::RolledBack, NodePhase::Failed] {
        let decision = with(|seen| {
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, phase));
        });
        assert_eq!(decision.starts, Vec::<String>::new());
        assert_eq!(decision.hold, Some(Hold::Brake(vec!["w1".to_owned()])));
    }
}

#[test]
fn an_edit_retries_what_rolled_back_or_was_blocked_and_nothing_else() {
    for (phase, retried) in [
        (NodePhase::RolledBack, true),
        (NodePhase::Blocked, true),
        (NodePhase::Planned, true),
        (NodePhase::Succeeded, false),
        (NodePhase::Failed, false),
    ] {
        let decision = with(|seen| {
            seen.shares
                .insert("w1".to_owned(), share(1, Action::Migrate, phase));
        });
        assert_eq!(decision.starts == ["w1"], retried, "{phase:?}");
        assert_eq!(decision.starts.len(), 1, "the others go on");
    }
}

#[test]
fn a_slot_is_kept_until_its_node_has_ended() {
    for phase in NodePhase::ALL {
        let decision = with(|seen| {
            seen.slots = vec![slot("w1", 2)];
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, phase));
            set(seen, "w1", |n| n.on_target = OnTarget::Yes);
        });
        let ended = decision.ends.iter().any(|(name, _)| name == "w1");
        assert_eq!(ended, phase.ended(), "{phase:?}");
    }
}

#[test]
fn a_claim_of_success_is_believed_when_the_node_agrees() {
    let succeeded = |change: fn(&mut NodeView)| {
        with(|seen| {
            seen.slots = vec![slot("w1", 2)];
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, NodePhase::Succeeded));
            set(seen, "w1", |n| n.on_target = OnTarget::Yes);
            set(seen, "w1", change);
        })
    };
    assert_eq!(
        succeeded(|_| {}).ends,
        [("w1".to_owned(), Some(NodePhase::Succeeded))]
    );
    for (spoil, why) in [
        (
            (|n| n.on_target = OnTarget::No) as fn(&mut NodeView),
            "another runtime",
        ),
        (|n| n.ready = false, "not Ready"),
        (|n| n.cordoned = true, "cordoned"),
    ] {
        let decision = succeeded(spoil);
        assert_eq!(decision.ends, []);
        assert!(decision.waits[0].contains(why), "{:?}", decision.waits);
    }
}

/// Docker Engine does not say whose shim it is.
#[test]
fn what_only_the_node_knows_is_planned_first_and_its_word_taken_then() {
    let decision = with(|seen| set(seen, "w1", |n| n.on_target = OnTarget::Perhaps));
    assert_eq!(decision.starts, ["w1"]);
    let decision = with(|seen| {
        seen.slots = vec![slot("w1", 2)];
        seen.shares
            .insert("w1".to_owned(), share(2, Action::Migrate, NodePhase::Succeeded));
        set(seen, "w1", |n| n.on_target = OnTarget::Perhaps);
    });
    assert_eq!(decision.ends, [("w1".to_owned(), Some(NodePhase::Succeeded))]);
}

#[test]
fn pods_go_to_another_node_that_is_ready_open_and_not_drained_itself() {
    let other = |change: fn(&mut Seen)| {
        let mut seen = three();
        for node in seen.nodes.values_mut() {
            node.open = true;
        }
        seen.nodes.remove("w3");
        change(&mut seen);
        seen.has_other_node("w1", &seen.slots)
    };
    assert!(other(|_| {}));
    assert!(!other(|seen| set(seen, "w2", |n| n.ready = false)));
    assert!(!other(|seen| set(seen, "w2", |n| n.open = false)));
    assert!(!other(|seen| drop(seen.nodes.remove("w2"))));
    assert!(!other(|seen| seen.slots = vec![slot("w1", 2), slot("w2", 2)]));
    assert!(other(|seen| {
        seen.mode = Mode::Plan;
        seen.slots = vec![slot("w2", 2)];
    }));
}

#[test]
fn a_claimed_slot_without_its_share_is_written_again() {
    let decision = with(|seen| seen.slots = vec![slot("w1", 2)]);
    assert_eq!(decision.writes, [("w1".to_owned(), Action::Migrate)]);
    assert_eq!(decision.starts, Vec::<String>::new());
    let stale = with(|seen| {
        seen.slots = vec![slot("w1", 1)];
        seen.paused = true;
    });
    assert_eq!(
        (stale.writes.len(), stale.slots.len()),
        (0, 0),
        "an edit in between takes it back"
    );
}

#[test]
fn plans_of_an_older_generation_are_let_go() {
    let decision = with(|seen| {
        seen.slots = vec![slot("w2", 1)];
        seen.shares
            .insert("w2".to_owned(), share(1, Action::Plan, NodePhase::Preflight));
    });
    assert_eq!(decision.ends, [("w2".to_owned(), None)]);
    assert_eq!(decision.starts, ["w1"]);
}

#[test]
fn a_node_under_way_without_a_slot_gets_one() {
    let decision = with(|seen| {
        seen.shares
            .insert("w2".to_owned(), share(1, Action::Migrate, NodePhase::Switching));
    });
    assert_eq!(
        decision.slots.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(),
        ["w2"]
    );
}

#[test]
fn deletion_aborts_waits_and_starts_nothing() {
    let deleting = |phase, action, age: i64| {
        with(|seen| {
            seen.deleting = true;
            seen.slots = vec![slot("w1", 2)];
            seen.now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(age);
            seen.shares.insert("w1".to_owned(), share(2, action, phase));
        })
    };
    let under_way = deleting(NodePhase::Draining, Action::Migrate, 1000);
    assert_eq!(under_way.writes, [("w1".to_owned(), Action::Abort)]);
    assert_eq!((under_way.slots.len(), under_way.starts.len()), (1, 0));
    assert_eq!(
        deleting(NodePhase::Switching, Action::Abort, 100_000).slots.len(),
        1
    );
    assert_eq!(deleting(NodePhase::RolledBack, Action::Abort, 1).slots.len(), 0);
    assert_eq!(deleting(NodePhase::Preflight, Action::Plan, 1).slots.len(), 0);
    assert_eq!(
        deleting(NodePhase::Pending, Action::Abort, 60).slots.len(),
        1,
        "its agent may be starting"
    );
    assert_eq!(
        deleting(NodePhase::Pending, Action::Abort, 121).slots.len(),
        0,
        "it never begins"
    );
}

#[test]
fn left_out_nodes_are_not_touched_and_say_why() {
    let decision = with(|seen| {
        set(seen, "w1", |n| {
            (n.control_plane, n.left_out) = (true, Some(LeftOut::ControlPlane));
        });
        let other = Share {
            migration_uid: "other".into(),
            ..share(1, Action::Migrate, NodePhase::Draining)
        };
        seen.shares.insert("w2".to_owned(), other);
        set(seen, "w3", |n| n.on_target = OnTarget::Yes);
    });
    assert_eq!(decision.starts, Vec::<String>::new());
    let standing: BTreeMap<_, _> = decision.standing.into_iter().collect();
    assert!(matches!(&standing["w1"], Standing::LeftOut(why) if why.contains("control plane")));
    assert!(matches!(&standing["w2"], Standing::LeftOut(why) if why.contains("under the migration")));
    assert_eq!(standing["w3"], Standing::OnTarget);
}

#[test]
fn the_share_of_an_ended_migration_is_taken_over() {
    let decision = with(|seen| {
        let other = Share {
            migration_uid: "other".into(),
            migration_active: false,
            ..share(7, Action::Plan, NodePhase::Planned)
        };
        seen.shares.insert("w1".to_owned(), other);
    });
    assert_eq!(decision.writes, [("w1".to_owned(), Action::Migrate)]);
}

#[test]
fn a_reinstalled_node_is_another_one_and_a_deleted_one_drops_out() {
    let decision = with(|seen| {
        seen.slots = vec![slot("w9", 2)];
        seen.shares
            .insert("w9".to_owned(), share(2, Action::Migrate, NodePhase::Draining));
        let old = Share {
            node_uid: "old".into(),
            ..share(2, Action::Migrate, NodePhase::Succeeded)
        };
        seen.shares.insert("w1".to_owned(), old);
    });
    assert_eq!(decision.forget, ["w9"]);
    assert_eq!(decision.starts, ["w1"]);
}
