//! An end is believed as far as the Node, the action and what was seen before agree.

use super::*;

/// `w1` reports that it ended in `phase`; what is said if that is not believed.
fn doubted(action: Action, phase: NodePhase, change: impl FnOnce(&mut Seen)) -> Option<String> {
    let decision = with(|seen| {
        seen.slots = vec![slot("w1", 2)];
        seen.shares.insert("w1".to_owned(), share(2, action, phase));
        if phase == NodePhase::Succeeded {
            set(seen, "w1", |n| n.on_target = OnTarget::Yes);
        }
        change(seen);
    });
    let ended = decision.ends == [("w1".to_owned(), Some(phase))];
    assert_eq!(ended, decision.slots.iter().all(|slot| slot.name != "w1"));
    (!ended).then(|| decision.waits[0].clone())
}

fn cordon(seen: &mut Seen) {
    set(seen, "w1", |n| {
        (n.cordoned, n.cordoned_for) = (true, Some(ME.to_owned()));
    });
}

#[rstest]
#[case(Action::Migrate, NodePhase::Succeeded)]
#[case(Action::Migrate, NodePhase::RolledBack)]
#[case(Action::Migrate, NodePhase::Blocked)]
#[case(Action::Migrate, NodePhase::Failed)]
#[case(Action::Abort, NodePhase::RolledBack)]
#[case(Action::Abort, NodePhase::Blocked)]
#[case(Action::Abort, NodePhase::Succeeded)]
#[case(Action::Plan, NodePhase::Planned)]
#[case(Action::Plan, NodePhase::Blocked)]
#[case(Action::Plan, NodePhase::Succeeded)]
fn an_end_that_nothing_contradicts_is_believed(#[case] action: Action, #[case] phase: NodePhase) {
    assert_eq!(doubted(action, phase, |_| {}), None);
}

#[rstest]
#[case::planned(Action::Migrate, NodePhase::Planned, |_: &mut Seen| {}, "reports Planned, but that is not an end")]
#[case::abort_planned(Action::Abort, NodePhase::Planned, |_: &mut Seen| {}, "not an end of a migration")]
#[case::plan_failed(Action::Plan, NodePhase::Failed, |_: &mut Seen| {}, "not an end of a plan")]
#[case::plan_rolled_back(Action::Plan, NodePhase::RolledBack, |_: &mut Seen| {}, "not an end of a plan")]
#[case::another_runtime(
    Action::Migrate, NodePhase::Succeeded, |seen: &mut Seen| set(seen, "w1", |n| n.on_target = OnTarget::No),
    "the Node shows"
)]
#[case::not_ready(
    Action::Migrate, NodePhase::Succeeded, |seen: &mut Seen| set(seen, "w1", |n| n.ready = false), "not Ready"
)]
#[case::cordoned(
    Action::Migrate, NodePhase::Succeeded, |seen: &mut Seen| set(seen, "w1", |n| n.cordoned = true), "still cordoned"
)]
#[case::still_on_the_target(
    Action::Migrate, NodePhase::RolledBack, |seen: &mut Seen| set(seen, "w1", |n| n.on_target = OnTarget::Yes),
    "which is the target"
)]
#[case::back_and_not_ready(
    Action::Migrate, NodePhase::RolledBack, |seen: &mut Seen| set(seen, "w1", |n| n.ready = false), "not Ready"
)]
#[case::blocked_while_switching(
    Action::Migrate, NodePhase::Blocked, |seen: &mut Seen| seen.slots[0].switching = true, "its switch had begun"
)]
#[case::aborted_while_switching(
    Action::Abort, NodePhase::Blocked, |seen: &mut Seen| seen.slots[0].switching = true, "its switch had begun"
)]
#[case::success_with_our_cordon(Action::Migrate, NodePhase::Succeeded, cordon, "cordoned by this migration")]
#[case::rollback_with_our_cordon(
    Action::Migrate,
    NodePhase::RolledBack,
    cordon,
    "cordoned by this migration"
)]
#[case::block_with_our_cordon(Action::Migrate, NodePhase::Blocked, cordon, "cordoned by this migration")]
#[case::abort_with_our_cordon(Action::Abort, NodePhase::RolledBack, cordon, "cordoned by this migration")]
fn an_end_that_cannot_be_is_not_believed(
    #[case] action: Action,
    #[case] phase: NodePhase,
    #[case] change: fn(&mut Seen),
    #[case] why: &str,
) {
    let said = doubted(action, phase, change).unwrap();
    assert!(said.contains(why), "{said}");
}

/// What a switching node's agent wrote before is remembered where it cannot write.
#[test]
fn the_slot_remembers_that_the_switch_began() {
    for phase in [NodePhase::Switching, NodePhase::Verifying, NodePhase::Uncordoning] {
        let decision = with(|seen| {
            seen.slots = vec![slot("w1", 2)];
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, phase));
        });
        assert!(decision.slots[0].switching, "{phase:?}");
    }
}

#[rstest]
#[case::without_a_share(None, true)]
#[case::rolled_back(Some(NodePhase::RolledBack), true)]
#[case::blocked(Some(NodePhase::Blocked), true)]
#[case::broken(Some(NodePhase::Failed), false)]
fn a_node_with_our_cordon_is_adopted(#[case] phase: Option<NodePhase>, #[case] adopted: bool) {
    let decision = with(|seen| {
        cordon(seen);
        if let Some(phase) = phase {
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, phase));
        }
    });
    assert_eq!(decision.slots.iter().any(|slot| slot.name == "w1"), adopted);
    assert_eq!(decision.starts, Vec::<String>::new(), "and the budget is used");
    let of_another = with(|seen| {
        set(seen, "w1", |n| {
            (n.cordoned, n.cordoned_for) = (true, Some("another".to_owned()));
        });
    });
    assert_eq!(of_another.starts, ["w1"], "it is taken over with its cordon");
}
