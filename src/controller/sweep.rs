//! What no `RuntimeMigration` answers for any more: NodeMigrations whose migration was deleted, nodes that bear the
//! agent's label or an agent's cordon although nobody works on them. Every such node is brought to its end, and what is
//! open is said. Pure; [`super::apply::sweep`] carries it out.
//!
//! A deletion of the migration does not wait here: the garbage collector deletes its NodeMigrations, and their
//! finalizer keeps those that may have changed their node. They are told to abort, and let go when their node has ended
//! and bears no cordon of theirs.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::{Resource as _, ResourceExt as _};

use super::apply::label_value;
use super::observe::{self, World};
use super::rollout::UNBEGUN;
use crate::api::migration::RuntimeMigration;
use crate::api::node_migration::{Action, NodeMigration, NodePhase};
use crate::api::{AGENT_LABEL, CORDONED_ANNOTATION, FINALIZER};

/// How long something must have been in nobody's use before it is taken away: the watches do not arrive together.
const SETTLED: SignedDuration = SignedDuration::from_secs(5);
/// How long after its end a node may bear its cordon before that is said.
const UNCORDONING: SignedDuration = SignedDuration::from_secs(30);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Delete the NodeMigration with this name and UID, unless the migration with this name and UID exists.
    Delete {
        /// Its name.
        name: String,
        /// Its UID.
        uid: String,
        /// Name and UID of the migration.
        migration: (String, String),
    },
    /// Tell the agent of this NodeMigration to abort.
    Abort(String),
    /// Take the finalizer off this NodeMigration.
    Release(String),
    /// Set the agent's label of this Node, or take it away.
    Label(String, Option<String>),
    /// Write a NodeMigration for this Node, whose cordon is by a migration of which nothing is left.
    Adopt {
        /// The Node's name.
        node: String,
        /// The Node's UID.
        node_uid: String,
        /// Name of the migration, as far as it is known.
        migration: String,
        /// UID of the migration.
        migration_uid: String,
    },
    /// Say on this Node that the migration with this name is gone and left it cordoned.
    Open {
        /// The Node's name.
        node: String,
        /// Name of the migration.
        migration: String,
        /// What the agent said last.
        message: String,
    },
}

/// What was noticed in earlier looks.
#[derive(Debug, Default)]
pub struct Memory {
    /// What is in nobody's use, since when.
    suspects: BTreeMap<Act, Timestamp>,
    /// What was said already.
    said: BTreeSet<Act>,
}

/// What is to be done now.
pub fn acts(world: &World, memory: &mut Memory, now: Timestamp) -> Vec<Act> {
    let nodes: BTreeMap<String, &Node> = world
        .nodes
        .iter()
        .map(|node| (node.name_any(), &**node))
        .collect();
    let mut acts: Vec<Act> = observe::readable(&world.shares)
        .filter(|share| !is_answered_for(share, world))
        .flat_map(|share| of_orphan(share, nodes.get(&share.name_any()).copied(), now))
        .collect();
    acts.retain(|act| !matches!(act, Act::Open { .. }) || memory.said.insert(act.clone()));
    let suspects: BTreeSet<Act> = world
        .nodes
        .iter()
        .filter_map(|node| of_node(node, world))
        .collect();
    memory.suspects.retain(|act, _| suspects.contains(act));
    for act in suspects {
        let since = *memory.suspects.entry(act.clone()).or_insert(now);
        if now.duration_since(since) >= SETTLED {
            acts.push(act);
        }
    }
    acts
}

/// Whether the migration that a NodeMigration is a share of exists.
fn is_answered_for(share: &NodeMigration, world: &World) -> bool {
    let uid = &share.spec.migration.uid;
    world
        .migrations
        .iter()
        .any(|m| m.meta().uid.as_ref() == Some(uid))
}

fn of_orphan(share: &NodeMigration, node: Option<&Node>, now: Timestamp) -> Vec<Act> {
    let name = share.name_any();
    let migration = &share.spec.migration;
    let Some(deleted) = &share.metadata.deletion_timestamp else {
        return vec![Act::Delete {
            name,
            uid: share.uid().unwrap_or_default(),
            migration: (migration.name.clone(), migration.uid.clone()),
        }];
    };
    if !is_held(share) {
        return Vec::new();
    }
    let node = node.filter(|node| node.uid().as_deref() == Some(&share.spec.node_uid));
    let Some(node) = node else {
        return vec![Act::Release(name)];
    };
    let phase = share.phase();
    let nothing_begun = phase == NodePhase::Pending && now.duration_since(deleted.0) >= UNBEGUN;
    let over = phase.ended() || share.spec.action == Action::Plan || nothing_begun;
    let mut acts = Vec::new();
    if !over && share.spec.action == Action::Migrate {
        acts.push(Act::Abort(name.clone()));
    }
    let cordoned = cordoned_by(node) == Some(&migration.uid);
    if over && !cordoned {
        acts.push(Act::Release(name));
        return acts;
    }
    let value = label_value(&migration.name, &migration.uid);
    if node.labels().get(AGENT_LABEL) != Some(&value) {
        acts.push(Act::Label(name.clone(), Some(value)));
    }
    let ended = share
        .current()
        .and_then(|status| status.times.last()?.end.clone());
    if phase.ended() && ended.is_none_or(|end| now.duration_since(end.0) >= UNCORDONING) {
        acts.push(Act::Open {
            node: name,
            migration: migration.name.clone(),
            message: share
                .current()
                .map(|status| status.message.clone())
                .unwrap_or_default(),
        });
    }
    acts
}

/// What a Node bears although nobody works on it.
fn of_node(node: &Node, world: &World) -> Option<Act> {
    let name = node.name_any();
    let label = node.labels().get(AGENT_LABEL);
    let value_of = |m: &DeserializeGuard<RuntimeMigration>| {
        label_value(&m.name_any(), m.meta().uid.as_deref().unwrap_or_default())
    };
    let in_use = world.migrations.iter().any(|m| match &m.0 {
        Ok(readable) => {
            let slots = readable.status.iter().flat_map(|status| &status.active_nodes);
            slots.into_iter().any(|slot| slot.name == name)
        }
        Err(_) => label == Some(&value_of(m)),
    });
    let share = world.shares.iter().find(|share| share.name_any() == name);
    if in_use || share.is_some_and(|share| has_finalizer(share)) {
        return None;
    }
    let cordoned = cordoned_by(node);
    match cordoned.filter(|uid| {
        share.is_none()
            && !world
                .migrations
                .iter()
                .any(|m| m.meta().uid.as_ref() == Some(uid))
    }) {
        Some(uid) => Some(Act::Adopt {
            node_uid: node.uid().unwrap_or_default(),
            migration: label.cloned().unwrap_or_else(|| "deleted".to_owned()),
            migration_uid: uid.clone(),
            node: name,
        }),
        None => label.map(|_| Act::Label(name, None)),
    }
}

/// The UID of the migration whose agent cordoned a Node that is unschedulable.
fn cordoned_by(node: &Node) -> Option<&String> {
    let unschedulable = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    node.annotations()
        .get(CORDONED_ANNOTATION)
        .filter(|_| unschedulable)
}

/// Whether a NodeMigration has Transship's finalizer.
pub fn is_held(share: &NodeMigration) -> bool {
    share.finalizers().iter().any(|finalizer| finalizer == FINALIZER)
}

fn has_finalizer(share: &DeserializeGuard<NodeMigration>) -> bool {
    let finalizers = share.meta().finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|finalizer| finalizer == FINALIZER)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn node(label: Option<&str>, cordoned_by: Option<&str>) -> Arc<Node> {
        let node = json!({
            "metadata": { "name": "w1", "uid": "node", "labels": label.map(|value| json!({ AGENT_LABEL: value })),
                "annotations": cordoned_by.map(|uid| json!({ CORDONED_ANNOTATION: uid })) },
            "spec": { "unschedulable": cordoned_by.is_some() },
        });
        Arc::new(serde_json::from_value(node).unwrap())
    }

    fn share(action: &str, phase: &str, metadata: Value) -> Arc<DeserializeGuard<NodeMigration>> {
        let mut share = json!({
            "apiVersion": "transship.dev/v1alpha1", "kind": "NodeMigration",
            "metadata": { "name": "w1", "uid": "share" },
            "spec": { "nodeUid": "node", "action": action, "target": { "runtime": "containerd" },
                "migration": { "name": "gone", "uid": "m", "generation": 1 } },
            "status": { "migrationUid": "m", "migrationGeneration": 1, "nodeUid": "node", "action": action,
                "phase": phase },
        });
        for (key, value) in metadata.as_object().unwrap() {
            share["metadata"][key] = value.clone();
        }
        Arc::new(serde_json::from_value(share).unwrap())
    }

    fn deleted(action: &str, phase: &str) -> Arc<DeserializeGuard<NodeMigration>> {
        let metadata = json!({ "deletionTimestamp": "1970-01-01T00:00:00Z", "finalizers": [FINALIZER] });
        share(action, phase, metadata)
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// What is done at second `now` about a share and the Node, which bears the agent's label.
    fn about(share: Arc<DeserializeGuard<NodeMigration>>, cordoned_by: Option<&str>, now: i64) -> Vec<Act> {
        let world = World {
            migrations: Vec::new(),
            nodes: vec![node(Some("gone"), cordoned_by)],
            shares: vec![share],
        };
        acts(&world, &mut Memory::default(), at(now))
    }

    #[test]
    fn what_has_begun_is_aborted_and_let_go_when_its_node_is_settled() {
        let name = || "w1".to_owned();
        assert!(matches!(
            about(share("Migrate", "Draining", json!({})), None, 0)[..],
            [Act::Delete { .. }]
        ));
        assert_eq!(
            about(deleted("Migrate", "Draining"), Some("m"), 0),
            [Act::Abort(name())]
        );
        assert_eq!(about(deleted("Abort", "RollingBack"), Some("m"), 1000), []);
        assert_eq!(
            about(deleted("Abort", "RolledBack"), None, 0),
            [Act::Release(name())]
        );
        // A cordon of another migration is not this one's to wait for.
        assert_eq!(
            about(deleted("Abort", "RolledBack"), Some("other"), 0),
            [Act::Release(name())]
        );
        assert!(matches!(
            about(deleted("Abort", "Failed"), Some("m"), 0)[..],
            [Act::Open { .. }]
        ));
    }

    #[test]
    fn an_agent_that_has_not_begun_is_waited_for_a_while_only() {
        let limit = UNBEGUN.as_secs();
        assert_eq!(about(deleted("Abort", "Pending"), None, limit - 1), []);
        assert_eq!(
            about(deleted("Abort", "Pending"), None, limit),
            [Act::Release("w1".to_owned())]
        );
        assert_eq!(about(deleted("Abort", "Pending"), Some("m"), limit), []);
    }

    #[test]
    fn what_is_in_nobodys_use_is_taken_away_when_it_has_been_so_for_a_while() {
        let world = |node| World {
            migrations: Vec::new(),
            nodes: vec![node],
            shares: Vec::new(),
        };
        let mut memory = Memory::default();
        let labelled = world(node(Some("nobody"), None));
        assert_eq!(acts(&labelled, &mut memory, at(0)), []);
        assert_eq!(
            acts(&labelled, &mut memory, at(5)),
            [Act::Label("w1".to_owned(), None)]
        );
        // Seen in use in between, it begins anew.
        assert_eq!(acts(&world(node(None, None)), &mut memory, at(6)), []);
        assert_eq!(acts(&labelled, &mut memory, at(7)), []);

        let cordoned = world(node(None, Some("m")));
        acts(&cordoned, &mut memory, at(10));
        let adopted = acts(&cordoned, &mut memory, at(15));
        assert!(matches!(&adopted[..], [Act::Adopt { migration_uid, .. }] if migration_uid == "m"));
    }
}
