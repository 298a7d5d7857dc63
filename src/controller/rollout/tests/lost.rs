//! A node that is gone is seen to be gone.

use super::*;

fn at(minute: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
}

/// `w1` is in `phase`, and not Ready since minute 10; it is minute `now`. Its patience is 15 minutes.
fn silent(phase: NodePhase, now: i64, change: impl FnOnce(&mut Seen)) -> Decision {
    with(|seen| {
        (seen.max_unavailable, seen.now) = (2, at(now));
        seen.slots = vec![slot("w1", 2)];
        let reported = Some(at(9));
        let share = share(2, Action::Migrate, phase);
        seen.shares.insert("w1".to_owned(), Share { reported, ..share });
        set(seen, "w1", |n| (n.ready, n.ready_changed) = (false, Some(at(10))));
        change(seen);
    })
}

fn standing_of(decision: &Decision) -> &Standing {
    &decision.standing.iter().find(|(name, _)| name == "w1").unwrap().1
}

#[test]
fn silence_is_said_while_the_node_may_still_come_back_by_itself() {
    let decision = silent(NodePhase::Switching, 24, |_| {});
    assert_eq!(
        decision.waits[0],
        "Switching (started 1970-01-01T00:00:00Z); the Node is not Ready since 1970-01-01T00:10:00Z, its agent last \
         reported at 1970-01-01T00:09:00Z; unless its switch is confirmed it rolls back by itself; it counts as lost \
         from 1970-01-01T00:25:00Z"
    );
    assert_eq!(standing_of(&decision), &Standing::Active);
    assert_eq!(
        (decision.slots[0].lost.as_ref(), decision.starts.len()),
        (None, 1)
    );
}

#[rstest]
#[case(NodePhase::Preparing)]
#[case(NodePhase::Draining)]
#[case(NodePhase::Switching)]
#[case(NodePhase::Verifying)]
#[case(NodePhase::RollingBack)]
#[case::and_forged(NodePhase::Succeeded)]
fn a_node_is_lost_past_its_deadline(#[case] phase: NodePhase) {
    let decision = silent(phase, 25, |_| {});
    assert_eq!(standing_of(&decision), &Standing::Lost);
    assert_eq!(decision.slots[0].lost, Some(Time(at(25))));
    assert!(decision.waits[0].contains("it is lost"), "{:?}", decision.waits);
    assert_eq!(decision.hold, Some(Hold::Brake(vec!["w1".to_owned()])));
    assert_eq!(decision.starts, Vec::<String>::new());
}

#[test]
fn a_node_that_comes_back_is_not_lost_any_more() {
    let since = Some(Time(at(25)));
    let still = silent(NodePhase::Switching, 40, |seen| {
        seen.slots[0].lost = since.clone()
    });
    assert_eq!(still.slots[0].lost, since, "since when does not move");
    let back = silent(NodePhase::Verifying, 40, |seen| {
        seen.slots[0].lost = since;
        set(seen, "w1", |n| n.ready = true);
    });
    assert_eq!(back.slots[0].lost, None);
    assert_eq!(standing_of(&back), &Standing::Active);
}

#[test]
fn what_was_not_touched_is_not_lost() {
    for (action, phase) in [
        (Action::Plan, NodePhase::Preflight),
        (Action::Migrate, NodePhase::Pending),
    ] {
        let decision = silent(phase, 1000, |seen| {
            seen.shares.get_mut("w1").unwrap().action = action;
        });
        assert_eq!(decision.slots[0].lost, None, "{phase:?}");
    }
}

/// The clock of the Node's condition may be wrong; it never makes a node lost before its slot is old enough.
#[test]
fn an_old_time_of_the_condition_does_not_count_from_before_the_start() {
    let decision = silent(NodePhase::Switching, 1014, |seen| {
        seen.slots[0].since = Time(at(1000))
    });
    assert_eq!(decision.slots[0].lost, None);
    let unknown = silent(NodePhase::Switching, 15, |seen| {
        set(seen, "w1", |n| n.ready_changed = None)
    });
    assert!(unknown.slots[0].lost.is_some());
}
