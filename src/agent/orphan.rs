//! What is left on a node of a migration that nobody works on any more: a preparation whose objects are gone, and the
//! cordon of an attempt that is over. Pure.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use serde_json::Value;

use super::{
    host::Attempt,
    node::{self, End},
};
use crate::{api::CORDONED_ANNOTATION, executor::progress::State};

/// What is done about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Relief {
    /// Undo the preparation of this run.
    TakeBack(String),
    /// Patch the Node.
    Patch(Value),
}

/// The attempt of another migration that is only prepared, which may be an orphan; `None` if there is none. `of` is the
/// UID of the migration that the node belongs to, if it belongs to one.
pub fn prepared_only<'a>(attempts: &'a [Attempt], of: Option<&str>) -> Option<&'a Attempt> {
    attempts
        .iter()
        .find(|attempt| attempt.is_prepared_only() && Some(attempt.migration.as_str()) != of)
}

/// What is to be done on a node before anything else. `orphan` is the result of [`prepared_only`] if its migration is
/// gone for certain.
pub fn relief(node: &Node, attempts: &[Attempt], orphan: Option<&Attempt>) -> Option<Relief> {
    match orphan {
        Some(orphan) => Some(Relief::TakeBack(orphan.run.clone())),
        None => stale_cordon(node, attempts).map(Relief::Patch),
    }
}

/// What lifts the cordon of a migration that has no open attempt on this host. A node is cordoned only once its plan is
/// in the journal, and a journal that needs a person keeps its cordon.
fn stale_cordon(node: &Node, attempts: &[Attempt]) -> Option<Value> {
    let migration = node.annotations().get(CORDONED_ANNOTATION)?;
    let own = || attempts.iter().filter(|attempt| attempt.migration == *migration);
    if own().any(Attempt::is_open) {
        return None;
    }
    let last = own().max_by_key(|attempt| (attempt.generation, attempt.number));
    let end = match last {
        Some(last) if last.state.is_some_and(State::is_confirmed) => End::Target(last.endpoint.as_deref()),
        Some(last) if last.state == Some(State::RolledBack) => End::Source {
            target: last.endpoint.as_deref(),
        },
        _ => End::Untouched,
    };
    node::settle(node, migration, end)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    const SOAKING: State = State::Soaking {
        left: std::time::Duration::from_secs(60),
    };

    fn attempt(migration: &str, generation: i64, state: State) -> Attempt {
        Attempt {
            run: format!("{migration}-{generation}"),
            migration: migration.to_owned(),
            migration_name: Some("m".to_owned()),
            generation,
            number: 0,
            state: Some(state),
            ordered: false,
            endpoint: None,
        }
    }

    fn node(cordoned_by: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "w1", "resourceVersion": "7", "annotations": { (CORDONED_ANNOTATION): cordoned_by } },
            "spec": { "unschedulable": true },
        }))
        .unwrap()
    }

    #[rstest]
    #[case::preparing(State::Preparing, false, true)]
    #[case::prepared(State::Prepared, false, true)]
    #[case::ordered(State::Prepared, true, false)]
    #[case::switching(State::Switching, false, false)]
    #[case::broken(State::Broken, false, false)]
    #[case::over(State::RolledBack, false, false)]
    fn only_a_preparation_is_taken_back(#[case] state: State, #[case] ordered: bool, #[case] found: bool) {
        let attempts = [Attempt {
            ordered,
            ..attempt("m0", 1, state)
        }];
        assert_eq!(prepared_only(&attempts, Some("m1")).is_some(), found);
        assert_eq!(prepared_only(&attempts, None).is_some(), found);
        assert_eq!(prepared_only(&attempts, Some("m0")), None);
    }

    #[test]
    fn a_preparation_by_hand_is_left_to_the_hand() {
        let by_hand = Attempt {
            migration_name: None,
            ..attempt("hand", 1_700_000_000, State::Prepared)
        };
        assert_eq!(prepared_only(&[by_hand], None), None);
    }

    #[rstest]
    #[case::nothing_is_left(&[], true)]
    #[case::rolled_back(&[attempt("m0", 1, State::RolledBack)], true)]
    #[case::soaking(&[attempt("m0", 1, SOAKING)], true)]
    #[case::of_another_one(&[attempt("m1", 1, State::Prepared)], true)]
    #[case::under_way(&[attempt("m0", 1, State::RolledBack), attempt("m0", 2, State::Switching)], false)]
    #[case::needs_a_person(&[attempt("m0", 1, State::Broken)], false)]
    fn a_cordon_goes_when_its_attempt_is_over(#[case] attempts: &[Attempt], #[case] lifted: bool) {
        let relief = relief(&node("m0"), attempts, None);
        let patch = json!({ "spec": { "unschedulable": null }, "metadata": { "resourceVersion": "7",
            "annotations": { (CORDONED_ANNOTATION): null } } });
        assert_eq!(relief, lifted.then_some(Relief::Patch(patch)));
    }

    #[test]
    fn a_preparation_is_taken_back_before_the_cordon_goes() {
        let orphan = attempt("m0", 1, State::Prepared);
        let taken_back = Some(Relief::TakeBack("m0-1".to_owned()));
        assert_eq!(
            relief(&node("m0"), std::slice::from_ref(&orphan), Some(&orphan)),
            taken_back
        );
    }
}
