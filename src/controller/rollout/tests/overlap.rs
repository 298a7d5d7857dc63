//! Migrations that choose the same nodes.

use super::*;
use crate::api::request::Runtime;
use crate::controller::seen::Overlap;

fn of_another(action: Action, phase: NodePhase) -> Share {
    Share {
        migration_uid: "other".to_owned(),
        migration_name: "aa".to_owned(),
        ..share(1, action, phase)
    }
}

fn pending(decision: &Decision, name: &str) -> bool {
    decision.standing.contains(&(name.to_owned(), Standing::Pending))
}

#[rstest]
#[case::under_way(true, true, NodePhase::Draining, true)]
#[case::orphaned(false, true, NodePhase::Draining, true)]
#[case::of_the_older(true, true, NodePhase::Succeeded, true)]
#[case::of_an_ended_one(false, true, NodePhase::RolledBack, false)]
#[case::of_the_younger(true, false, NodePhase::Succeeded, false)]
#[case::of_the_younger_under_way(true, false, NodePhase::Switching, true)]
#[case::claimed_by_the_younger(true, false, NodePhase::Pending, true)]
fn a_node_that_another_migration_has_is_waited_for(
    #[case] active: bool,
    #[case] older: bool,
    #[case] phase: NodePhase,
    #[case] waits: bool,
) {
    let decision = with(|seen| {
        seen.nodes.retain(|name, _| name != "w3");
        seen.max_unavailable = 2;
        set(seen, "w2", |n| n.on_target = OnTarget::Yes);
        let share = of_another(Action::Migrate, phase);
        let share = Share {
            migration_active: active,
            migration_older: older,
            ..share
        };
        seen.shares.insert("w1".to_owned(), share);
    });
    assert_eq!(decision.starts.is_empty(), waits);
    if waits {
        // Not Succeeded with a node that it did not see on its target.
        assert!(pending(&decision, "w1"));
        assert_eq!(
            decision.waiting,
            [(
                "w1".to_owned(),
                Some("waits for w1, which migration aa has".to_owned())
            )]
        );
        assert_eq!(decision.hold, None);
    }
}

#[test]
fn the_older_migration_goes_first() {
    let decision = with(|seen| {
        for node in seen.nodes.values_mut() {
            node.claimed_by = Some("aa".to_owned());
        }
    });
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(decision.waiting.len(), 3);
    // A plan changes nothing, and takes nothing from it.
    let plans = with(|seen| {
        seen.mode = Mode::Plan;
        for node in seen.nodes.values_mut() {
            node.claimed_by = Some("aa".to_owned());
        }
    });
    assert_eq!(plans.starts.len(), 3);
}

#[test]
fn nodes_that_others_have_under_way_use_the_budget() {
    let decision = with(|seen| set(seen, "w2", |n| n.busy_with = Some("aa".to_owned())));
    assert_eq!(decision.starts, Vec::<String>::new());
    assert_eq!(decision.hold, Some(Hold::Budget(vec!["w2".to_owned()], 1)));
    let two = with(|seen| {
        seen.max_unavailable = 2;
        set(seen, "w2", |n| n.busy_with = Some("aa".to_owned()));
    });
    assert_eq!(two.starts, ["w1"]);
}

#[rstest]
#[case::same(true, None, false)]
#[case::younger(false, Some(Runtime::CriDockerd), false)]
#[case::older(true, Some(Runtime::CriDockerd), true)]
fn opposite_targets_are_refused_for_the_younger_one(
    #[case] older: bool,
    #[case] opposed: Option<Runtime>,
    #[case] refused: bool,
) {
    let decision = with(|seen| {
        seen.overlaps = vec![Overlap {
            migration: "aa".to_owned(),
            older,
            opposed,
            nodes: vec!["w3".to_owned()],
        }];
    });
    assert_eq!(decision.starts.is_empty(), refused);
    let hold = Hold::Opposed("aa".to_owned(), Runtime::CriDockerd);
    assert_eq!(decision.hold, refused.then_some(hold));
}
