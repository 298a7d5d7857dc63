//! What failed is not forgotten, and a success is compared with the Node.

use super::*;

fn of(decision: &Decision, name: &str) -> Standing {
    let found = decision.standing.iter().find(|(other, _)| other == name);
    found.unwrap().1.clone()
}

/// `w1` has ended at `generation`.
fn ended(generation: i64, phase: NodePhase, change: fn(&mut Share)) -> Decision {
    with(|seen| {
        let mut share = share(generation, Action::Migrate, phase);
        change(&mut share);
        if phase == NodePhase::Succeeded {
            set(seen, "w1", |n| n.on_target = OnTarget::Yes);
        }
        seen.shares.insert("w1".to_owned(), share);
    })
}

/// An edit of the strategy or of `paused` raises the generation too.
#[rstest]
#[case::this_generation(2, |_: &mut Share| {})]
#[case::an_older_one(1, |_: &mut Share| {})]
fn a_failure_counts_until_it_is_tried_again(
    #[values(NodePhase::RolledBack, NodePhase::Failed)] phase: NodePhase,
    #[case] generation: i64,
    #[case] change: fn(&mut Share),
) {
    let decision = ended(generation, phase, change);
    assert_eq!(decision.hold, Some(Hold::Brake(vec!["w1".to_owned()])));
    assert_eq!(decision.starts, Vec::<String>::new());
}

#[rstest]
#[case::rolled_back(NodePhase::RolledBack, 1, |_: &mut Share| {}, false)]
#[case::and_edited(NodePhase::RolledBack, 1, |share: &mut Share| share.same_request = false, true)]
#[case::and_asked_for(NodePhase::RolledBack, 2, |share: &mut Share| share.retry = true, true)]
#[case::failed_and_edited(NodePhase::Failed, 1, |share: &mut Share| share.same_request = false, false)]
#[case::failed_and_asked_for(NodePhase::Failed, 2, |share: &mut Share| share.retry = true, true)]
#[case::blocked(NodePhase::Blocked, 2, |_: &mut Share| {}, false)]
#[case::blocked_before(NodePhase::Blocked, 1, |_: &mut Share| {}, true)]
#[case::blocked_and_asked_for(NodePhase::Blocked, 2, |share: &mut Share| share.retry = true, true)]
#[case::planned(NodePhase::Planned, 1, |_: &mut Share| {}, true)]
#[case::succeeded(NodePhase::Succeeded, 1, |share: &mut Share| share.same_request = false, false)]
fn what_is_tried_again(
    #[case] phase: NodePhase,
    #[case] generation: i64,
    #[case] change: fn(&mut Share),
    #[case] expected: bool,
) {
    let decision = ended(generation, phase, change);
    assert_eq!(decision.starts == ["w1"], expected);
}

/// The store may still show the attempt before.
#[test]
fn a_slot_for_another_attempt_is_not_given_back_for_the_one_before() {
    let decision = with(|seen| {
        seen.slots = vec![slot("w1", 2)];
        let old = share(2, Action::Migrate, NodePhase::RolledBack);
        seen.shares.insert("w1".to_owned(), Share { retry: true, ..old });
    });
    assert_eq!(decision.ends, []);
    assert_eq!(decision.writes, [("w1".to_owned(), asks(Action::Migrate))]);
}

/// The rollback of an older generation is neither forgotten nor overtaken.
#[rstest]
#[case::failed(Action::Migrate, false, true)]
#[case::drain_timed_out(Action::Migrate, true, false)]
#[case::aborted(Action::Abort, false, false)]
fn a_rollback_counts_from_its_beginning(
    #[case] action: Action,
    #[case] timed_out: bool,
    #[case] counts: bool,
) {
    let decision = with(|seen| {
        seen.slots = vec![slot("w1", 1)];
        seen.max_unavailable = 2;
        let rolling_back = share(1, action, NodePhase::RollingBack);
        seen.shares.insert(
            "w1".to_owned(),
            Share {
                timed_out,
                ..rolling_back
            },
        );
    });
    assert_eq!(decision.slots[0].name, "w1");
    assert_eq!(decision.hold == Some(Hold::Brake(vec!["w1".to_owned()])), counts);
    assert_eq!(decision.starts.is_empty(), counts);
}

#[test]
fn a_success_is_believed_as_long_as_the_node_agrees() {
    let shows = |on_target: OnTarget, change: fn(&mut Seen)| {
        with(|seen| {
            seen.shares
                .insert("w1".to_owned(), share(2, Action::Migrate, NodePhase::Succeeded));
            set(seen, "w1", |n| {
                (n.on_target, n.shows) = (on_target, "docker://20.10.24".to_owned());
            });
            change(seen);
        })
    };
    for agrees in [OnTarget::Yes, OnTarget::Perhaps] {
        assert_eq!(
            of(&shows(agrees, |_| {}), "w1"),
            Standing::Ended(NodePhase::Succeeded)
        );
    }
    let reverted = shows(OnTarget::No, |_| {});
    assert_eq!(
        of(&reverted, "w1"),
        Standing::Reverted("docker://20.10.24".to_owned())
    );
    assert_eq!(reverted.hold, Some(Hold::Brake(vec!["w1".to_owned()])));
    // It is said of a migration that has ended, too, and what joined it since is not begun.
    let after = shows(OnTarget::No, |seen| seen.ended = true);
    assert_eq!(
        of(&after, "w1"),
        Standing::Reverted("docker://20.10.24".to_owned())
    );
    assert!(matches!(of(&after, "w2"), Standing::LeftOut(_)));
    assert_eq!(after.starts, Vec::<String>::new());
}
