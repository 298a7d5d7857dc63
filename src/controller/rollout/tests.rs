use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use rstest::rstest;

use super::starts::PLANNING;
use super::*;
use crate::api::request::DrainMode;
use crate::controller::seen::{Elsewhere, LeftOut, OnTarget, Share};

mod brake;
mod control_plane;
mod ends;
mod lost;
mod overlap;
mod properties;

pub(in crate::controller) const ME: &str = "uid-of-this-migration";

pub(in crate::controller) fn node(ready: bool, cordoned: bool) -> NodeView {
    NodeView {
        uid: "node-uid".to_owned(),
        selected: true,
        ready,
        cordoned,
        cordoned_by_others: cordoned,
        takes_pods: true,
        ..NodeView::default()
    }
}

pub(in crate::controller) fn share(generation: i64, action: Action, phase: NodePhase) -> Share {
    Share {
        migration_uid: ME.to_owned(),
        migration_active: true,
        migration_older: true,
        same_request: true,
        retry: false,
        timed_out: false,
        pods_on_old_shims: 0,
        blocked_by: Vec::new(),
        reported: None,
        patience: SignedDuration::from_mins(15),
        migration_name: "this".to_owned(),
        generation,
        action,
        node_uid: "node-uid".to_owned(),
        deleting: false,
        phase,
        message: String::new(),
        no_other_node: false,
        keeps_pods: false,
        proceed: false,
        ready_to_switch: false,
    }
}

pub(in crate::controller) fn slot(name: &str, generation: i64) -> Slot {
    Slot {
        name: name.to_owned(),
        generation,
        since: Time(Timestamp::UNIX_EPOCH),
        cordoned: false,
        switching: false,
        lost: None,
    }
}

/// Three workers on the source, mode Apply, one at a time, at generation 2.
pub(in crate::controller) fn three() -> Seen {
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
        drain: DrainMode::Auto,
        target: Runtime::Containerd,
        gates: Some(Vec::new()),
        slots: Vec::new(),
        nodes: ["w1", "w2", "w3"]
            .map(|name| (name.to_owned(), node(true, false)))
            .into(),
        shares: BTreeMap::new(),
        unreadable: BTreeMap::new(),
        own_node: None,
        agent_trouble: BTreeMap::new(),
        overlaps: Vec::new(),
        now: Timestamp::UNIX_EPOCH,
    }
}

/// A new spec that asks for `action`.
const fn asks(action: Action) -> Write {
    Write::Ask(Ask {
        action,
        no_other_node: false,
    })
}

fn with(change: impl FnOnce(&mut Seen)) -> Decision {
    let mut seen = three();
    change(&mut seen);
    decide(&seen)
}

fn set(seen: &mut Seen, name: &str, change: impl FnOnce(&mut NodeView)) {
    change(seen.nodes.get_mut(name).unwrap());
}

/// Whether a node is upgraded in place is seen by its runtime, where that has a version of its own.
#[rstest]
#[case::replaced(Runtime::Containerd, "docker://20.10.24", DrainMode::Auto, DrainMode::Evict)]
#[case::upgraded(Runtime::Containerd, "containerd://1.7.28", DrainMode::Auto, DrainMode::Live)]
#[case::asked_for(
    Runtime::Containerd,
    "containerd://1.7.28",
    DrainMode::Evict,
    DrainMode::Evict
)]
#[case::in_place(
    Runtime::Containerd,
    "containerd://1.7.28",
    DrainMode::InPlace,
    DrainMode::Live
)]
#[case::stop_in_place(
    Runtime::Containerd,
    "docker://20.10.24",
    DrainMode::InPlace,
    DrainMode::InPlace
)]
#[case::either_shim(Runtime::CriDockerd, "docker://20.10.24", DrainMode::Auto, DrainMode::Evict)]
fn pods_leave_as_the_pair_of_runtimes_needs(
    #[case] target: Runtime,
    #[case] shows: &str,
    #[case] asked: DrainMode,
    #[case] mode: DrainMode,
) {
    let mut seen = three();
    (seen.target, seen.drain) = (target, asked);
    set(&mut seen, "w1", |node| node.shows = shows.to_owned());
    assert_eq!(seen.drain_of("w1"), mode);
}

/// The pods of a node that is upgraded in place need no other node.
#[test]
fn an_upgrade_needs_no_other_node() {
    let mut seen = three();
    seen.nodes.retain(|name, _| name == "w1");
    set(&mut seen, "w1", |node| {
        node.shows = "containerd://1.7.28".to_owned()
    });
    assert_eq!(decide(&seen).writes, [("w1".to_owned(), asks(Action::Migrate))]);
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
    assert_eq!(decision.writes, [("w1".to_owned(), asks(Action::Migrate))]);
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
    assert!(
        decision
            .writes
            .iter()
            .all(|(_, write)| *write == asks(Action::Plan))
    );
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
fn a_slot_is_kept_until_its_node_has_ended() {
    for phase in NodePhase::ALL {
        let decision = with(|seen| {
            seen.slots = vec![slot("w1", 2)];
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, phase));
            set(seen, "w1", |n| n.on_target = OnTarget::Perhaps);
        });
        let ended = decision.ends.iter().any(|(name, _)| name == "w1");
        let believed = phase.ended() && phase != NodePhase::Planned;
        assert_eq!(ended, believed, "{phase:?}");
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

/// A node that is away for a moment is waited for. Only a cluster that has no other node at all lets pods stop in place.
#[rstest]
#[case::free(|_: &mut Seen| {}, Elsewhere::Now, true)]
#[case::not_ready(|seen: &mut Seen| set(seen, "w2", |n| n.ready = false), later("w2 is not Ready"), false)]
#[case::cordoned(|seen: &mut Seen| set(seen, "w2", |n| n.cordoned = true), later("w2 is cordoned"), false)]
#[case::pressure(
    |seen: &mut Seen| set(seen, "w2", |n| n.taint = Some("node.kubernetes.io/disk-pressure".to_owned())),
    later("w2 is tainted node.kubernetes.io/disk-pressure"),
    false
)]
#[case::migrating(
    |seen: &mut Seen| {
        seen.slots = vec![slot("w2", 2)];
        seen.shares.insert("w2".to_owned(), share(2, Action::Migrate, NodePhase::Draining));
    },
    later("w2 is being migrated"),
    false
)]
#[case::tainted_for_good(|seen: &mut Seen| set(seen, "w2", |n| n.takes_pods = false), Elsewhere::Never, true)]
#[case::none(|seen: &mut Seen| drop(seen.nodes.remove("w2")), Elsewhere::Never, true)]
fn a_drain_never_becomes_a_kill_in_place_while_another_node_is_away(
    #[case] change: fn(&mut Seen),
    #[case] elsewhere: Elsewhere,
    #[case] starts: bool,
) {
    let mut seen = three();
    seen.nodes.remove("w3");
    seen.max_unavailable = 9;
    set(&mut seen, "w2", |n| n.selected = false);
    change(&mut seen);
    assert_eq!(seen.elsewhere("w1", &seen.slots), elsewhere);
    let decision = decide(&seen);
    assert_eq!(decision.starts == ["w1"], starts);
    let no_other_node = elsewhere == Elsewhere::Never;
    for (name, write) in &decision.writes {
        let action = Action::Migrate;
        let expected = Write::Ask(Ask {
            action,
            no_other_node,
        });
        assert_eq!((name.as_str(), *write), ("w1", expected));
    }
    if let Elsewhere::Later(why) = elsewhere {
        let expected = format!("waits until another node can take the pods: {}", why[0]);
        assert_eq!(decision.waiting, [("w1".to_owned(), Some(expected))]);
    }
    // Asked for, it needs no other node; and a plan changes nothing.
    for seen in [
        Seen {
            drain: DrainMode::InPlace,
            ..seen.clone()
        },
        Seen {
            mode: Mode::Plan,
            slots: Vec::new(),
            shares: BTreeMap::new(),
            ..seen
        },
    ] {
        assert_eq!(decide(&seen).starts, ["w1"]);
    }
}

fn later(why: &str) -> Elsewhere {
    Elsewhere::Later(vec![why.to_owned()])
}

#[test]
fn nodes_that_are_drained_at_once_leave_one_for_their_pods() {
    let decision = with(|seen| seen.max_unavailable = 3);
    assert_eq!(decision.starts, ["w1", "w2"]);
    let why = decision.waiting[0].1.as_deref().unwrap();
    assert_eq!(
        why,
        "waits until another node can take the pods: w1 is being migrated, w2 is being migrated"
    );
}

/// `w1` has only the switch left to do.
fn ready_to_switch(change: impl FnOnce(&mut Seen)) -> Decision {
    with(|seen| {
        seen.slots = vec![slot("w1", 2)];
        let draining = share(2, Action::Migrate, NodePhase::Draining);
        let ready = Share {
            ready_to_switch: true,
            ..draining
        };
        seen.shares.insert("w1".to_owned(), ready);
        change(seen);
    })
}

fn set_share(seen: &mut Seen, change: impl FnOnce(&mut Share)) {
    change(seen.shares.get_mut("w1").unwrap());
}

#[test]
fn the_switch_begins_when_nothing_speaks_against_it_any_more() {
    let proceed = |on: bool| vec![("w1".to_owned(), Write::Proceed(on))];
    assert_eq!(ready_to_switch(|_| {}).writes, proceed(true));
    assert_eq!(
        ready_to_switch(|seen| set_share(seen, |s| s.proceed = true)).writes,
        []
    );
    assert_eq!(
        ready_to_switch(|seen| set_share(seen, |s| s.ready_to_switch = false)).writes,
        []
    );
    let deleting = ready_to_switch(|seen| seen.deleting = true);
    assert_eq!(deleting.writes, [("w1".to_owned(), Write::Abort)]);

    // The gates are asked again, and a permission that was not used is taken back.
    let of_control_plane = |gates: Option<&[&str]>, proceed: bool| {
        ready_to_switch(|seen| {
            set(seen, "w1", |n| n.control_plane = true);
            set_share(seen, |s| s.proceed = proceed);
            seen.gates = gates.map(|closed| closed.iter().map(|&text| text.to_owned()).collect());
        })
    };
    let asks = of_control_plane(None, false);
    assert!(asks.asks_gates && asks.writes.is_empty());
    let closed = of_control_plane(Some(&["for etcd-w2 to be Ready"]), true);
    assert_eq!(closed.writes, proceed(false));
    assert_eq!(closed.waits, ["ready to switch; waits for etcd-w2 to be Ready"]);
    assert!(closed.gated);
    assert_eq!(of_control_plane(Some(&[]), false).writes, proceed(true));
    assert_eq!(
        of_control_plane(Some(&["for etcd-w2 to be Ready"]), false).writes,
        []
    );
}

/// The cluster got another node while this one was prepared.
#[test]
fn pods_are_evicted_after_all_where_another_node_has_come() {
    let in_place = |change: fn(&mut Seen)| {
        ready_to_switch(|seen| {
            set_share(seen, |s| s.no_other_node = true);
            change(seen);
        })
    };
    assert_eq!(in_place(|_| {}).writes, [("w1".to_owned(), Write::Evict)]);
    let away = in_place(|seen| {
        seen.nodes.remove("w3");
        set(seen, "w2", |n| n.ready = false);
    });
    assert_eq!(away.writes, []);
    assert_eq!(
        away.waits,
        ["ready to switch; waits until another node can take the pods: w2 is not Ready"]
    );
    let alone = in_place(|seen| seen.nodes.retain(|name, _| name == "w1"));
    assert_eq!(alone.writes, [("w1".to_owned(), Write::Proceed(true))]);
}

#[test]
fn a_claimed_slot_without_its_share_is_written_again() {
    let decision = with(|seen| seen.slots = vec![slot("w1", 2)]);
    assert_eq!(decision.writes, [("w1".to_owned(), asks(Action::Migrate))]);
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
    assert_eq!(under_way.writes, [("w1".to_owned(), Write::Abort)]);
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
        set(seen, "w2", |n| n.left_out = Some(LeftOut::OptedOut));
        set(seen, "w3", |n| n.on_target = OnTarget::Yes);
    });
    assert_eq!(decision.starts, Vec::<String>::new());
    let standing: BTreeMap<_, _> = decision.standing.into_iter().collect();
    assert!(matches!(&standing["w1"], Standing::LeftOut(why) if why.contains("control plane")));
    assert!(matches!(&standing["w2"], Standing::LeftOut(why) if why.contains("opted out")));
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
    assert_eq!(decision.writes, [("w1".to_owned(), asks(Action::Migrate))]);
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
