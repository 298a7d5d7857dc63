//! Whether a `NodeMigration` says what its `RuntimeMigration` says. Whoever may write `RuntimeMigration`s decides what
//! happens on nodes; whoever has the controller's rights alone must not. Pure.

use kube::ResourceExt as _;

use crate::api::{
    migration::{Mode, RuntimeMigration},
    node_migration::{Action, NodeMigrationSpec},
};

/// How a `NodeMigration` and its `RuntimeMigration` go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// Both ask for the same.
    Agrees,
    /// The `RuntimeMigration` was edited since, and asks for something else now; why, in a clause.
    Edited(String),
    /// The `NodeMigration` asks for what its `RuntimeMigration` never asked; what, in a clause.
    Differs(String),
    /// There is no such `RuntimeMigration`.
    Gone,
}

impl Parent {
    /// Why nothing is begun; `None` if both agree.
    pub fn refusal(&self, name: &str) -> Option<String> {
        match self {
            Self::Agrees => None,
            Self::Edited(what) => Some(format!(
                "refused: RuntimeMigration {name} was edited ({what}); waits until the controller has written this \
                 NodeMigration again"
            )),
            Self::Differs(what) => Some(format!(
                "refused: this NodeMigration does not say what RuntimeMigration {name} says ({what}); delete it, and \
                 find out who wrote it"
            )),
            Self::Gone => Some(format!(
                "refused: RuntimeMigration {name} was deleted, or a new object has its name"
            )),
        }
    }
}

/// Compares a `NodeMigration` with the `RuntimeMigration` that it names; `None` if there is none of that name.
pub fn compare(share: &NodeMigrationSpec, parent: Option<&RuntimeMigration>) -> Parent {
    let Some(parent) = parent.filter(|parent| parent.uid().as_deref() == Some(&share.migration.uid)) else {
        return Parent::Gone;
    };
    let generation = parent.metadata.generation.unwrap_or(0);
    if share.migration.generation > generation {
        return Parent::Differs(format!(
            "generation {}, of {generation}",
            share.migration.generation
        ));
    }
    match difference(share, parent) {
        None => Parent::Agrees,
        Some(what) if share.migration.generation < generation => Parent::Edited(what.to_owned()),
        Some(what) => Parent::Differs(what.to_owned()),
    }
}

/// The first field that differs.
fn difference(share: &NodeMigrationSpec, parent: &RuntimeMigration) -> Option<&'static str> {
    let spec = &parent.spec;
    [
        ("mode", share.action == Action::Migrate && spec.mode == Mode::Plan),
        ("target", share.target != spec.target),
        ("source", share.source != spec.source),
        ("drain", !share.asks_for_drain(&spec.drain)),
        ("images", share.images != spec.images),
        ("preflight", share.preflight != spec.preflight),
        ("approvedPlans", share.approved_plans != spec.approved_plans),
        ("rollback", share.rollback != spec.rollback),
    ]
    .into_iter()
    .find_map(|(name, differs)| differs.then_some(name))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn parent(generation: i64, spec: Value) -> RuntimeMigration {
        let mut all = json!({ "mode": "Apply", "nodeSelector": {}, "target": { "runtime": "containerd" } });
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "transship.dev/v1alpha1", "kind": "RuntimeMigration",
            "metadata": { "name": "m", "uid": "m1", "generation": generation }, "spec": all,
        }))
        .unwrap()
    }

    fn share(spec: Value) -> NodeMigrationSpec {
        let mut all = json!({
            "migration": { "name": "m", "uid": "m1", "generation": 2 }, "nodeUid": "n1", "action": "Migrate",
            "target": { "runtime": "containerd" },
        });
        all.as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[rstest]
    #[case::same(json!({}), json!({}), None)]
    #[case::in_place(json!({}), json!({ "drain": { "mode": "InPlace" }, "noOtherNode": true }), None)]
    #[case::alone_and_upgraded(
        json!({ "drain": { "mode": "Evict" } }),
        json!({ "drain": { "mode": "Live" }, "noOtherNode": true }),
        None
    )]
    #[case::in_place_and_upgraded(json!({ "drain": { "mode": "InPlace" } }), json!({ "drain": { "mode": "Live" } }), None)]
    #[case::in_place_without_a_reason(json!({}), json!({ "drain": { "mode": "InPlace" } }), Some("drain"))]
    #[case::forced(json!({}), json!({ "drain": { "mode": "InPlace", "force": true }, "noOtherNode": true }), Some("drain"))]
    #[case::drained(json!({}), json!({ "drain": { "mode": "Evict" } }), None)]
    #[case::upgraded(json!({}), json!({ "drain": { "mode": "Live" } }), None)]
    #[case::upgraded_and_forced(json!({}), json!({ "drain": { "mode": "Live", "force": true } }), Some("drain"))]
    #[case::drain_was_asked_for(
        json!({ "drain": { "mode": "Evict" } }),
        json!({ "drain": { "mode": "Live" } }),
        Some("drain")
    )]
    #[case::only_planned(json!({ "mode": "Plan" }), json!({}), Some("mode"))]
    #[case::plan_of_a_plan(json!({ "mode": "Plan" }), json!({ "action": "Plan" }), None)]
    #[case::archive(
        json!({}),
        json!({ "target": { "runtime": "containerd", "from": { "archive": {
            "url": "https://example.org/containerd-1.7.0-linux-amd64.tar.gz", "sha256": "0".repeat(64) } } } }),
        Some("target")
    )]
    #[case::kept(json!({}), json!({ "source": { "keep": true } }), Some("source"))]
    #[case::allowed(json!({}), json!({ "preflight": { "allow": ["DiskSpace"] } }), Some("preflight"))]
    #[case::approved(
        json!({ "approvedPlans": ["sha256:1"] }),
        json!({ "approvedPlans": ["sha256:1", "sha256:2"] }),
        Some("approvedPlans")
    )]
    #[case::approves_all(json!({ "approvedPlans": ["sha256:1"] }), json!({}), Some("approvedPlans"))]
    #[case::no_way_back(json!({}), json!({ "rollback": { "automatic": false } }), Some("rollback"))]
    #[case::ahead(json!({}), json!({ "migration": { "name": "m", "uid": "m1", "generation": 3 } }), Some("generation 3, of 2"))]
    fn a_share_says_what_its_parent_says(
        #[case] of: Value,
        #[case] spec: Value,
        #[case] differs: Option<&str>,
    ) {
        let expected = differs.map_or(Parent::Agrees, |what| Parent::Differs(what.to_owned()));
        let found = compare(&share(spec), Some(&parent(2, of)));
        assert_eq!(found, expected);
        assert_eq!(found.refusal("m").is_none(), differs.is_none());
    }

    #[test]
    fn an_edit_is_not_a_forgery() {
        let edited = parent(3, json!({ "rollback": { "confirmWithin": "10m" } }));
        assert_eq!(
            compare(&share(json!({})), Some(&edited)),
            Parent::Edited("rollback".to_owned())
        );
        assert_eq!(
            compare(&share(json!({})), Some(&parent(3, json!({ "paused": true })))),
            Parent::Agrees
        );
    }

    #[test]
    fn a_parent_of_another_uid_is_another_one() {
        let mut other = parent(2, json!({}));
        other.metadata.uid = Some("m2".to_owned());
        assert_eq!(compare(&share(json!({})), Some(&other)), Parent::Gone);
        assert_eq!(compare(&share(json!({})), None), Parent::Gone);
    }
}
