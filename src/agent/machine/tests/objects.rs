//! Objects that are gone, forged, deleted or made again while the journal goes on.

use super::*;

fn attempt(generation: i64, state: State) -> Attempt {
    Attempt {
        run: format!("m1-{generation}"),
        migration: "m1".to_owned(),
        migration_name: Some("m".to_owned()),
        generation,
        number: 0,
        state: Some(state),
        ordered: true,
        endpoint: None,
    }
}

/// The NodeMigration was deleted and made again, or its end was forged: the journal goes on.
#[rstest]
#[case::made_again(NodePhase::Pending, AWAITING, (NodePhase::Verifying, "commit"))]
#[case::forged_blocked(NodePhase::Blocked, AWAITING, (NodePhase::Verifying, "commit"))]
#[case::forged_planned(NodePhase::Planned, State::Switching, (NodePhase::Switching, "wait"))]
#[case::forged_success(NodePhase::Succeeded, State::RollingBack, (NodePhase::RollingBack, "wait"))]
#[case::helped(NodePhase::Failed, State::RolledBack, (NodePhase::RollingBack, "patch"))]
#[case::helped_forwards(NodePhase::Failed, State::Committed, (NodePhase::Uncordoning, "patch"))]
#[case::helps(NodePhase::Failed, State::RollingBack, (NodePhase::RollingBack, "wait"))]
#[case::tried_on_purpose(NodePhase::Pending, State::Broken, (NodePhase::Preflight, "plan"))]
#[case::still_broken(NodePhase::Failed, State::Broken, (NodePhase::Failed, "rest"))]
fn the_journal_is_followed_whatever_became_of_the_objects(
    #[case] phase: NodePhase,
    #[case] state: State,
    #[case] expected: (NodePhase, &str),
) {
    // The journal of another attempt is not this one's.
    let own = Some(state).filter(|state| *state != State::Broken);
    let mut world = World::new("Migrate", phase, own.map(|state| run(Some(state))));
    // The spec was edited meanwhile.
    world.migration.spec.migration.generation = 2;
    world.attempts = vec![attempt(1, state)];
    let generation = if state == State::Broken { 2 } else { 1 };
    assert_eq!(
        run_name(&world.migration, &world.attempts),
        format!("m1-{generation}")
    );
    assert_eq!(world.decided(), expected);
    assert_eq!(world.decide().unwrap().status.migration_generation, generation);
}

fn differs() -> Parent {
    Parent::Differs("target".to_owned())
}

/// Before the switch nothing is done that the RuntimeMigration does not ask for; a switch goes on to its end.
#[rstest]
#[case::unplanned(Parent::Gone, None, NodePhase::Pending, (NodePhase::Preflight, "wait"))]
#[case::forged(differs(), None, NodePhase::Preflight, (NodePhase::Preflight, "wait"))]
#[case::edited(Parent::Edited("drain".to_owned()), None, NodePhase::Pending, (NodePhase::Preflight, "wait"))]
#[case::handed_over(differs(), Some(None), NodePhase::Preparing, (NodePhase::Preparing, "abort"))]
#[case::gone_in_preparation(Parent::Gone, Some(Some(State::Preparing)), NodePhase::Preparing, (NodePhase::RollingBack, "abort"))]
#[case::gone_in_the_drain(Parent::Gone, Some(Some(State::Prepared)), NodePhase::Draining, (NodePhase::RollingBack, "abort"))]
#[case::forged_in_the_drain(differs(), Some(Some(State::Prepared)), NodePhase::Draining, (NodePhase::Draining, "wait"))]
#[case::edited_in_the_drain(
    Parent::Edited("drain".to_owned()), Some(Some(State::Prepared)), NodePhase::Draining, (NodePhase::Switching, "go")
)]
#[case::switching(Parent::Gone, Some(Some(State::Switching)), NodePhase::Switching, (NodePhase::Switching, "wait"))]
#[case::awaiting(Parent::Gone, Some(Some(AWAITING)), NodePhase::Switching, (NodePhase::Verifying, "commit"))]
fn a_parent_must_say_the_same(
    #[case] parent: Parent,
    #[case] state: Option<Option<State>>,
    #[case] phase: NodePhase,
    #[case] expected: (NodePhase, &str),
) {
    let mut world = World::new("Migrate", phase, state.map(run));
    world.planned = Some(planned(Verdict::Ready(Box::new(plan()))));
    world.parent = parent;
    assert_eq!(world.decided(), expected);
}

/// With a finalizer the NodeMigration that is deleted is there until its agent reports an end.
#[rstest]
#[case::unplanned(None, NodePhase::Preflight, (NodePhase::RollingBack, "patch"))]
#[case::handed_over(Some(None), NodePhase::Preparing, (NodePhase::RollingBack, "abort"))]
#[case::draining(Some(Some(State::Prepared)), NodePhase::Draining, (NodePhase::RollingBack, "abort"))]
#[case::switching(Some(Some(AWAITING)), NodePhase::Switching, (NodePhase::Verifying, "commit"))]
fn a_share_that_is_being_deleted_is_aborted(
    #[case] state: Option<Option<State>>,
    #[case] phase: NodePhase,
    #[case] expected: (NodePhase, &str),
) {
    let mut world = World::new("Migrate", phase, state.map(run));
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(NOW));
    world.migration.metadata.deletion_timestamp = Some(now);
    assert_eq!(world.decided(), expected);
}
