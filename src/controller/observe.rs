//! From the stores of the watches to [`Seen`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::ResourceExt as _;
use kube::core::{DeserializeGuard, Selector, SelectorExt as _};

use super::seen::{LeftOut, NodeView, OnTarget, Seen, Share};
use crate::api::migration::{ControlPlane, RuntimeMigration};
use crate::api::node_migration::NodeMigration;
use crate::api::request::Runtime;
use crate::api::{AGENT_LABEL, CORDONED_ANNOTATION, SKIP_ANNOTATION, validation};
use crate::plan::version;

const CONTROL_PLANE: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// What the watches know.
#[derive(Debug)]
pub struct World {
    /// All migrations.
    pub migrations: Vec<Arc<DeserializeGuard<RuntimeMigration>>>,
    /// All nodes, without the parts that nobody reads.
    pub nodes: Vec<Arc<Node>>,
    /// All NodeMigrations.
    pub shares: Vec<Arc<DeserializeGuard<NodeMigration>>>,
}

/// Those objects that can be read.
pub fn readable<K>(all: &[Arc<DeserializeGuard<K>>]) -> impl Iterator<Item = &K> {
    all.iter().filter_map(|object| object.0.as_ref().ok())
}

/// What one migration's decision is made from.
pub fn seen(migration: &RuntimeMigration, world: &World, own_node: Option<String>, now: Timestamp) -> Seen {
    let spec = &migration.spec;
    let status = migration.status.clone().unwrap_or_default();
    let generation = migration.metadata.generation.unwrap_or_default();
    let selector = Selector::try_from(spec.node_selector.clone()).ok();
    let chooses = |node: &Node| {
        selector
            .as_ref()
            .is_some_and(|s| !s.selects_all() && s.matches(node.labels()))
    };
    let nodes: BTreeMap<String, NodeView> = world
        .nodes
        .iter()
        .map(|node| {
            let view = view(
                node,
                chooses(node),
                spec.target.runtime,
                spec.strategy.control_plane,
            );
            (node.name_any(), view)
        })
        .collect();
    let budgeted = Seen::budgeted(&nodes).count();
    Seen {
        uid: migration.uid().unwrap_or_default(),
        generation,
        deleting: migration.metadata.deletion_timestamp.is_some(),
        ended: has_ended(migration),
        mode: spec.mode,
        paused: spec.paused,
        problems: validation::validate(spec, status.started.as_ref())
            .iter()
            .map(ToString::to_string)
            .collect(),
        max_unavailable: spec.strategy.max_unavailable.of(budgeted).unwrap_or(1),
        max_failures: spec.strategy.max_failures as usize,
        control_plane: spec.strategy.control_plane,
        gates: None,
        slots: status.active_nodes,
        shares: readable(&world.shares)
            .map(|s| (s.name_any(), share(s, &world.migrations)))
            .collect(),
        unreadable: world
            .shares
            .iter()
            .filter_map(|share| share.0.as_ref().err())
            .map(|invalid| {
                let name = invalid.metadata.name.clone().unwrap_or_default();
                (name, cut(&invalid.error))
            })
            .collect(),
        nodes,
        own_node,
        agent_trouble: BTreeMap::new(),
        now,
    }
}

/// Whether a migration may still have nodes under way; one that cannot be read may.
pub fn is_active(migration: &DeserializeGuard<RuntimeMigration>) -> bool {
    !migration.0.as_ref().is_ok_and(has_ended)
}

/// Whether a migration has ended at its present generation.
pub fn has_ended(migration: &RuntimeMigration) -> bool {
    migration.status.as_ref().is_some_and(|status| {
        status.phase.ended() && Some(status.observed_generation) == migration.metadata.generation
    })
}

/// A node, as far as a decision needs it.
pub fn view(node: &Node, selected: bool, target: Runtime, strategy: ControlPlane) -> NodeView {
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    let labels = node.labels();
    let control_plane = is_control_plane(node);
    let left_out = if control_plane && strategy == ControlPlane::Skip {
        Some(LeftOut::ControlPlane)
    } else if node
        .annotations()
        .get(SKIP_ANNOTATION)
        .is_some_and(|value| value == "true")
    {
        Some(LeftOut::OptedOut)
    } else if labels.get("kubernetes.io/os").is_some_and(|os| os != "linux") {
        Some(LeftOut::NotLinux)
    } else {
        None
    };
    NodeView {
        uid: node.uid().unwrap_or_default(),
        selected,
        control_plane,
        left_out,
        ready: is_ready(node),
        cordoned,
        cordoned_by_others: cordoned && !node.annotations().contains_key(CORDONED_ANNOTATION),
        open: !cordoned && !taints.iter().any(keeps_out),
        on_target: on_target(node, target),
        label: labels.get(AGENT_LABEL).cloned(),
    }
}

/// Whether a taint keeps pods out for good. Those under `node.kubernetes.io/` the cluster itself sets and takes away,
/// moments after the cordon and the conditions that they stand for (`pkg/controller/nodelifecycle`): right after a node
/// was uncordoned one of them would say that the next node has nowhere to drain to.
fn keeps_out(taint: &Taint) -> bool {
    taint.effect != "PreferNoSchedule" && !taint.key.starts_with("node.kubernetes.io/")
}

/// Whether a Node bears a label of a control plane.
pub fn is_control_plane(node: &Node) -> bool {
    let labels = node.labels();
    CONTROL_PLANE.iter().any(|label| labels.contains_key(*label))
}

/// Whether a Node's condition `Ready` is true.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref());
    conditions
        .unwrap_or_default()
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// What a Node shows as its `containerRuntimeVersion`; empty before its first heartbeat.
pub fn runtime_version(node: &Node) -> &str {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    info.map_or("", |info| info.container_runtime_version.as_str())
}

/// Compares what a Node shows in `status.nodeInfo.containerRuntimeVersion` with the target. `docker://` is the same
/// for dockershim and cri-dockerd, but from 1.24 on kubelets have no dockershim.
fn on_target(node: &Node, target: Runtime) -> OnTarget {
    let possible: &[Runtime] = match runtime_version(node).split_once("://") {
        Some(("containerd", _)) => &[Runtime::Containerd],
        Some(("cri-o", _)) => &[Runtime::CriO],
        Some(("docker", _)) if without_dockershim(node) => &[Runtime::CriDockerd],
        Some(("docker", _)) => &[Runtime::Dockershim, Runtime::CriDockerd],
        _ => &[],
    };
    match possible.contains(&target) {
        false => OnTarget::No,
        true if possible.len() == 1 => OnTarget::Yes,
        true => OnTarget::Perhaps,
    }
}

fn without_dockershim(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    let version = info.and_then(|info| version::upstream(&info.kubelet_version));
    version.is_some_and(|version| (version.major, version.minor) >= (1, 24))
}

fn share(share: &NodeMigration, migrations: &[Arc<DeserializeGuard<RuntimeMigration>>]) -> Share {
    let of = &share.spec.migration;
    Share {
        migration_uid: of.uid.clone(),
        migration_active: migrations
            .iter()
            .any(|m| m.uid().as_ref() == Some(&of.uid) && is_active(m)),
        migration_name: of.name.clone(),
        generation: of.generation,
        action: share.spec.action,
        node_uid: share.spec.node_uid.clone(),
        phase: share.phase(),
        message: share
            .current()
            .map(|status| cut(&status.message))
            .unwrap_or_default(),
    }
}

/// What others wrote becomes part of a status and of events: it must not make them large.
fn cut(text: &str) -> String {
    const LONGEST: usize = 500;
    text.chars().take(LONGEST).collect()
}

/// When a node of the migration last entered or left a phase, or was started.
pub fn last_progress(migration: &RuntimeMigration, world: &World) -> Option<Timestamp> {
    let uid = migration.uid()?;
    let of_slots = migration
        .status
        .iter()
        .flat_map(|status| status.active_nodes.iter().map(|slot| slot.since.0));
    let of_phases = readable(&world.shares)
        .filter(|share| share.spec.migration.uid == uid)
        .filter_map(|share| share.current())
        .flat_map(|status| {
            status
                .times
                .iter()
                .map(|time| time.end.as_ref().unwrap_or(&time.start).0)
        });
    let created = migration.metadata.creation_timestamp.as_ref().map(|time| time.0);
    of_slots.chain(of_phases).chain(created).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_taints_for_moments_does_not_close_a_node() {
        let open = |unschedulable: bool, key: &str, effect: &str| {
            let node = serde_json::from_value(serde_json::json!({
                "spec": { "unschedulable": unschedulable, "taints": [{ "key": key, "effect": effect }] },
            }));
            view(&node.unwrap(), true, Runtime::Containerd, ControlPlane::Last).open
        };
        assert!(open(false, "node.kubernetes.io/unschedulable", "NoSchedule"));
        assert!(open(false, "node.kubernetes.io/not-ready", "NoExecute"));
        assert!(open(false, "example.com/batch", "PreferNoSchedule"));
        assert!(!open(true, "node.kubernetes.io/unschedulable", "NoSchedule"));
        assert!(!open(
            false,
            "node-role.kubernetes.io/control-plane",
            "NoSchedule"
        ));
        assert!(!open(false, "example.com/gpu", "NoExecute"));
    }
}
