//! Migrations that choose the same nodes. The older one goes first; what it has under way counts for both.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::observe::{self, Choice, World};
use super::seen::{NodeView, Overlap};
use crate::api::migration::{Mode, RuntimeMigration};
use crate::api::validation;

/// What sorts migrations by age: the time of creation, and the UID where that is the same.
pub(super) fn age(of: &ObjectMeta) -> (Option<Timestamp>, Option<&str>) {
    let created = of.creation_timestamp.as_ref().map(|time| time.0);
    (created, of.uid.as_deref())
}

/// Marks the nodes that other migrations have under way or choose too, and names these migrations, the oldest first.
pub(super) fn mark(
    migration: &RuntimeMigration,
    world: &World,
    nodes: &mut BTreeMap<String, NodeView>,
) -> Vec<Overlap> {
    let others = observe::readable(&world.migrations)
        .filter(|other| other.uid() != migration.uid() && other.spec.mode == Mode::Apply);
    let mut others: Vec<&RuntimeMigration> = others.collect();
    others.sort_by_key(|other| age(&other.metadata));
    let mut overlaps = Vec::new();
    for other in others {
        for slot in other.status.iter().flat_map(|status| &status.active_nodes) {
            if let Some(node) = nodes.get_mut(&slot.name) {
                node.busy_with.get_or_insert_with(|| other.name_any());
            }
        }
        if migration.spec.mode == Mode::Plan || !will_start_nodes(other) {
            continue;
        }
        let choice = Choice::of(&other.spec);
        let of_other: BTreeSet<String> = world
            .nodes
            .iter()
            .filter(|node| choice.chooses(node))
            .map(|node| node.name_any())
            .collect();
        let older = age(&other.metadata) < age(&migration.metadata);
        let mut common = Vec::new();
        for (name, node) in nodes
            .iter_mut()
            .filter(|(name, node)| node.selected && of_other.contains(*name))
        {
            if older {
                node.claimed_by.get_or_insert_with(|| other.name_any());
            }
            common.push(name.clone());
        }
        if !common.is_empty() {
            let runtime = other.spec.target.runtime;
            overlaps.push(Overlap {
                migration: other.name_any(),
                older,
                opposed: Some(runtime).filter(|runtime| *runtime != migration.spec.target.runtime),
                nodes: common,
            });
        }
    }
    overlaps
}

/// Whether a migration may still start nodes.
fn will_start_nodes(migration: &RuntimeMigration) -> bool {
    let started = migration
        .status
        .as_ref()
        .and_then(|status| status.started.as_ref());
    migration.metadata.deletion_timestamp.is_none()
        && !observe::has_ended(migration)
        && validation::validate(&migration.spec, started).is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::core::DeserializeGuard;
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    fn migration(name: &str, created: &str, change: &Value) -> RuntimeMigration {
        let mut object = json!({
            "apiVersion": "transship.dev/v1alpha1", "kind": "RuntimeMigration",
            "metadata": { "name": name, "uid": name, "generation": 1, "creationTimestamp": created },
            "spec": { "mode": "Apply", "nodeSelector": { "matchLabels": { "pool": "a" } },
                "target": { "runtime": "containerd" } },
            "status": { "phase": "Running", "observedGeneration": 1 },
        });
        for (part, values) in change.as_object().unwrap() {
            for (key, value) in values.as_object().unwrap() {
                object[part][key] = value.clone();
            }
        }
        serde_json::from_value(object).unwrap()
    }

    /// What `me` sees beside `other`, in a cluster of three nodes: two of pool a, one of pool b.
    fn seen(other: RuntimeMigration) -> (Vec<Overlap>, BTreeMap<String, NodeView>) {
        let me = migration("me", "2026-01-02T00:00:00Z", &json!({}));
        let node = |name: &str, pool: &str| {
            serde_json::from_value(json!({ "metadata": { "name": name, "labels": { "pool": pool } } }))
                .unwrap()
        };
        let world = World {
            migrations: [other, me.clone()]
                .map(|migration| Arc::new(DeserializeGuard(Ok(migration))))
                .into(),
            nodes: vec![
                Arc::new(node("w1", "a")),
                Arc::new(node("w2", "a")),
                Arc::new(node("w3", "b")),
            ],
            shares: Vec::new(),
        };
        let mut nodes: BTreeMap<String, NodeView> = ["w1", "w2", "w3"]
            .map(|name| {
                let view = NodeView {
                    selected: name != "w3",
                    ..NodeView::default()
                };
                (name.to_owned(), view)
            })
            .into();
        (mark(&me, &world, &mut nodes), nodes)
    }

    const OLDER: &str = "2026-01-01T00:00:00Z";
    const YOUNGER: &str = "2026-01-03T00:00:00Z";

    #[rstest]
    #[case::older(OLDER, json!({}), true, true)]
    #[case::younger(YOUNGER, json!({}), true, false)]
    #[case::other_nodes(OLDER, json!({ "spec": { "nodeSelector": { "matchLabels": { "pool": "b" } } } }), false, false)]
    #[case::plans_only(OLDER, json!({ "spec": { "mode": "Plan" } }), false, false)]
    #[case::ended(OLDER, json!({ "status": { "phase": "Succeeded" } }), false, false)]
    #[case::edited_since(OLDER, json!({ "status": { "phase": "Succeeded", "observedGeneration": 0 } }), true, true)]
    #[case::invalid(OLDER, json!({ "spec": { "target": { "runtime": "dockershim" } } }), false, false)]
    #[case::deleted(OLDER, json!({ "metadata": { "deletionTimestamp": OLDER } }), false, false)]
    #[case::paused(OLDER, json!({ "spec": { "paused": true } }), true, true)]
    fn migrations_that_may_start_the_same_nodes_overlap(
        #[case] created: &str,
        #[case] change: Value,
        #[case] overlaps: bool,
        #[case] claims: bool,
    ) {
        let (found, nodes) = seen(migration("other", created, &change));
        assert_eq!(!found.is_empty(), overlaps);
        for overlap in &found {
            assert_eq!(overlap.nodes, ["w1", "w2"]);
            assert_eq!((overlap.older, overlap.opposed), (claims, None));
        }
        let claimed: Vec<_> = nodes.values().map(|node| node.claimed_by.as_deref()).collect();
        let by = claims.then_some("other");
        assert_eq!(claimed, [by, by, None]);
    }

    #[test]
    fn what_others_have_under_way_is_marked_whatever_they_choose() {
        let slots = json!({ "status": { "activeNodes": [{ "name": "w3", "generation": 1, "since": OLDER }] },
            "metadata": { "deletionTimestamp": OLDER } });
        let (found, nodes) = seen(migration("other", YOUNGER, &slots));
        assert_eq!(found, []);
        assert!(nodes["w3"].busy_with.as_deref() == Some("other") && nodes["w1"].busy_with.is_none());
    }

    #[test]
    fn another_runtime_is_named() {
        let opposed = json!({ "spec": { "target": { "runtime": "cri-dockerd" } } });
        let (found, _) = seen(migration("other", OLDER, &opposed));
        assert_eq!(
            found[0].opposed.map(|runtime| runtime.name()),
            Some("cri-dockerd")
        );
    }
}
