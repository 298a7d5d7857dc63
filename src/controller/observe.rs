//! From the stores of the watches to [`Seen`].

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{DeserializeGuard, Selector, SelectorExt as _};
use kube::{Resource as _, ResourceExt as _};

use super::overlap;
use super::seen::{LeftOut, NodeView, OnTarget, Seen, Share};
use crate::api::migration::{ControlPlane, RuntimeMigration, RuntimeMigrationSpec};
use crate::api::node_migration::{DRAIN_TIMED_OUT, NodeMigration, NodeMigrationSpec, READY_TO_SWITCH};
use crate::api::reported::{is_ready, ready_condition, runtime_version};
use crate::api::request::{DrainMode, GoDuration, Origin, Runtime, Target};
use crate::api::{AGENT_LABEL, CORDONED_ANNOTATION, RETRY_ANNOTATION, SKIP_ANNOTATION, validation};
use crate::plan::finding::Severity;
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
    let choice = Choice::of(spec);
    let mut nodes: BTreeMap<String, NodeView> = world
        .nodes
        .iter()
        .map(|node| {
            let on_target = on_target(node, &spec.target);
            let view = view(node, choice.chooses(node), spec.strategy.control_plane);
            (node.name_any(), NodeView { on_target, ..view })
        })
        .collect();
    let budgeted = Seen::budgeted(&nodes).count();
    let overlaps = overlap::mark(migration, world, &mut nodes);
    let shares: BTreeMap<String, Share> = readable(&world.shares)
        .map(|s| (s.name_any(), share(s, migration, &world.migrations)))
        .collect();
    let uid = migration.uid().unwrap_or_default();
    let retry = |(name, share): (&String, &Share)| {
        share.migration_uid == uid && share.retry && nodes.get(name).is_some_and(|node| node.selected)
    };
    Seen {
        generation,
        deleting: migration.metadata.deletion_timestamp.is_some(),
        ended: has_ended(migration) && !shares.iter().any(retry),
        uid,
        mode: spec.mode,
        paused: spec.paused,
        problems: validation::validate(spec, status.started.as_ref())
            .iter()
            .map(ToString::to_string)
            .collect(),
        max_unavailable: spec.strategy.max_unavailable.of(budgeted).unwrap_or(1),
        max_failures: spec.strategy.max_failures as usize,
        control_plane: spec.strategy.control_plane,
        drain: spec.drain.mode,
        target: spec.target.runtime,
        gates: None,
        slots: status.active_nodes,
        shares,
        overlaps,
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

/// Which nodes a migration chooses.
pub(super) struct Choice(Option<Selector>);

impl Choice {
    /// That of a spec; an invalid or empty selector chooses none.
    pub(super) fn of(spec: &RuntimeMigrationSpec) -> Self {
        let selector = Selector::try_from(spec.node_selector.clone()).ok();
        Self(selector.filter(|selector| !selector.selects_all()))
    }

    /// Whether it chooses a node.
    pub(super) fn chooses(&self, node: &Node) -> bool {
        self.0
            .as_ref()
            .is_some_and(|selector| selector.matches(node.labels()))
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

/// A node, as far as a decision about any target needs it.
pub fn view(node: &Node, selected: bool, strategy: ControlPlane) -> NodeView {
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    let taints = node
        .spec
        .as_ref()
        .and_then(|s| s.taints.as_deref())
        .unwrap_or_default();
    let labels = node.labels();
    let control_plane = is_control_plane(node);
    let other_system = labels.get("kubernetes.io/os").is_some_and(|os| os != "linux");
    let left_out = if control_plane && strategy == ControlPlane::Skip {
        Some(LeftOut::ControlPlane)
    } else if node
        .annotations()
        .get(SKIP_ANNOTATION)
        .is_some_and(|value| value == "true")
    {
        Some(LeftOut::OptedOut)
    } else if other_system {
        Some(LeftOut::NotLinux)
    } else {
        None
    };
    let cordoned_for = node.annotations().get(CORDONED_ANNOTATION).cloned();
    NodeView {
        uid: node.uid().unwrap_or_default(),
        selected,
        control_plane,
        left_out,
        ready: is_ready(node),
        ready_changed: ready_condition(node)
            .and_then(|condition| condition.last_transition_time.as_ref())
            .map(|time| time.0),
        cordoned,
        cordoned_by_others: cordoned && cordoned_for.is_none(),
        cordoned_for: cordoned_for.filter(|_| cordoned),
        claimed_by: None,
        busy_with: None,
        takes_pods: !other_system && !taints.iter().any(keeps_out),
        taint: taints
            .iter()
            .find(|taint| is_passing(taint))
            .map(|taint| taint.key.clone()),
        shows: cut(runtime_version(node)),
        on_target: OnTarget::default(),
        label: labels.get(AGENT_LABEL).cloned(),
    }
}

/// The prefix of the taints that the cluster itself sets and takes away (`pkg/controller/nodelifecycle`).
const OF_CLUSTER: &str = "node.kubernetes.io/";
/// Taints of the cluster that repeat what the Node's own fields say, and that go moments after it.
const REPEATING: [&str; 3] = [
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// Whether a taint keeps pods out for good.
fn keeps_out(taint: &Taint) -> bool {
    taint.effect != "PreferNoSchedule" && !taint.key.starts_with(OF_CLUSTER)
}

/// Whether a taint keeps pods out for the moment, by itself.
fn is_passing(taint: &Taint) -> bool {
    let of_cluster = taint.key.starts_with(OF_CLUSTER) && !REPEATING.contains(&taint.key.as_str());
    taint.effect != "PreferNoSchedule" && of_cluster
}

/// Whether a Node bears a label of a control plane.
pub fn is_control_plane(node: &Node) -> bool {
    let labels = node.labels();
    CONTROL_PLANE.iter().any(|label| labels.contains_key(*label))
}

/// Compares what a Node shows in `status.nodeInfo.containerRuntimeVersion` with the target, its version included.
/// `docker://` is the same for dockershim and cri-dockerd, but from 1.24 on kubelets have no dockershim; the version
/// after it is Docker Engine's, which is not the shim's.
fn on_target(node: &Node, target: &Target) -> OnTarget {
    let Some((scheme, shown)) = runtime_version(node).split_once("://") else {
        return OnTarget::No;
    };
    let possible: Vec<Runtime> = Runtime::ALL
        .into_iter()
        .filter(|runtime| runtime.profile().scheme == scheme && may_have(node, *runtime))
        .collect();
    if !possible.contains(&target.runtime) {
        return OnTarget::No;
    }
    let as_asked = match (&target.version, &target.from) {
        (None, Origin::Preinstalled(_)) => Some(true),
        (Some(wanted), _) if target.runtime.reports_own_version() => {
            version::upstream(shown).and_then(|_| version::is_as_asked(shown, wanted).ok())
        }
        // Only the node itself can find out.
        (None | Some(_), _) => None,
    };
    match as_asked {
        Some(false) => OnTarget::No,
        Some(true) if possible.len() == 1 => OnTarget::Yes,
        Some(true) | None => OnTarget::Perhaps,
    }
}

/// Whether a node of this version can use a runtime: one that is a part of the kubelet ends with a version of it.
fn may_have(node: &Node, runtime: Runtime) -> bool {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    let version = info.and_then(|info| version::upstream(&info.kubelet_version));
    let before = runtime.profile().in_kubelet_before;
    before
        .zip(version)
        .is_none_or(|(before, version)| (version.major, version.minor) < (1, before))
}

/// What a switch may take on top of its confirmation: a machine that boots, and a rollback.
const MARGIN: SignedDuration = SignedDuration::from_mins(10);

/// How long a node may be not Ready before it counts as lost.
pub(super) fn patience(spec: &NodeMigrationSpec) -> SignedDuration {
    let signed = |of: GoDuration| SignedDuration::try_from(of.get()).unwrap_or(SignedDuration::MAX);
    let confirm = signed(spec.rollback.confirm_within);
    let grace = match spec.drain.mode {
        DrainMode::Auto | DrainMode::Evict | DrainMode::Live => SignedDuration::ZERO,
        DrainMode::InPlace => signed(spec.drain.grace_period_limit),
    };
    MARGIN.saturating_add(confirm).saturating_add(grace)
}

/// Whether a NodeMigration asks for what its migration asks for now.
fn is_same_request(share: &NodeMigrationSpec, spec: &RuntimeMigrationSpec) -> bool {
    share.asks_for_drain(&spec.drain)
        && share.target == spec.target
        && share.source == spec.source
        && share.images == spec.images
        && share.preflight == spec.preflight
        && share.approved_plans == spec.approved_plans
        && share.rollback == spec.rollback
}

fn share(
    share: &NodeMigration,
    migration: &RuntimeMigration,
    migrations: &[Arc<DeserializeGuard<RuntimeMigration>>],
) -> Share {
    let of = &share.spec.migration;
    let parent = migrations.iter().find(|m| m.uid().as_ref() == Some(&of.uid));
    let status = share.current();
    let holds = |kind: &str| {
        let is = |c: &Condition| c.type_ == kind && c.status == "True";
        status.is_some_and(|status| status.conditions.iter().any(is))
    };
    let blocking = status.into_iter().flat_map(|status| &status.findings);
    Share {
        migration_uid: of.uid.clone(),
        migration_active: parent.is_some_and(|m| is_active(m)),
        migration_older: parent.is_some_and(|m| overlap::age(m.meta()) < overlap::age(&migration.metadata)),
        migration_name: of.name.clone(),
        generation: of.generation,
        action: share.spec.action,
        same_request: is_same_request(&share.spec, &migration.spec),
        retry: share.annotations().contains_key(RETRY_ANNOTATION),
        node_uid: share.spec.node_uid.clone(),
        deleting: share.metadata.deletion_timestamp.is_some(),
        phase: share.phase(),
        message: status.map(|status| cut(&status.message)).unwrap_or_default(),
        no_other_node: share.spec.no_other_node,
        keeps_pods: share.spec.drain.mode == DrainMode::Live,
        proceed: share.spec.proceed,
        ready_to_switch: holds(READY_TO_SWITCH),
        timed_out: holds(DRAIN_TIMED_OUT),
        pods_on_old_shims: status
            .and_then(|status| status.old_shims.as_ref())
            .map_or(0, |shims| shims.programs.iter().map(|shim| shim.pods).sum()),
        blocked_by: blocking
            .filter(|finding| finding.severity == Severity::Block)
            .map(|finding| cut(&finding.full_name()))
            .collect(),
        reported: share
            .managed_fields()
            .iter()
            .filter(|entry| entry.subresource.as_deref() == Some("status"))
            .filter_map(|entry| Some(entry.time.as_ref()?.0))
            .max(),
        patience: patience(&share.spec),
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
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::cordon("node.kubernetes.io/unschedulable", "NoSchedule", true, None)]
    #[case::not_ready("node.kubernetes.io/not-ready", "NoExecute", true, None)]
    #[case::disk(
        "node.kubernetes.io/disk-pressure",
        "NoSchedule",
        true,
        Some("node.kubernetes.io/disk-pressure")
    )]
    #[case::preference("example.com/batch", "PreferNoSchedule", true, None)]
    #[case::control_plane("node-role.kubernetes.io/control-plane", "NoSchedule", false, None)]
    #[case::gpu("example.com/gpu", "NoExecute", false, None)]
    fn a_taint_that_passes_is_told_from_one_that_stays(
        #[case] key: &str,
        #[case] effect: &str,
        #[case] takes_pods: bool,
        #[case] taint: Option<&str>,
    ) {
        let node = serde_json::from_value(json!({
            "spec": { "taints": [{ "key": key, "effect": effect }] },
        }));
        let view = view(&node.unwrap(), true, ControlPlane::Last);
        assert_eq!((view.takes_pods, view.taint.as_deref()), (takes_pods, taint));
    }

    #[test]
    fn pods_do_not_go_to_another_system() {
        let windows = json!({ "metadata": { "labels": { "kubernetes.io/os": "windows" } } });
        let node = serde_json::from_value(windows).unwrap();
        assert!(!view(&node, true, ControlPlane::Last).takes_pods);
    }

    fn archive() -> serde_json::Value {
        json!({ "archive": { "url": "https://mirror/containerd-2.0.5-linux-amd64.tar.gz", "sha256": "0".repeat(64) } })
    }

    #[rstest]
    // Preinstalled, any version: the runtime's name alone.
    #[case("containerd", "containerd://1.6.20", None, json!({ "preinstalled": {} }), OnTarget::Yes)]
    #[case("containerd", "docker://20.10.24", None, json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("containerd", "cri-o://1.30.0", None, json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("containerd", "", None, json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("cri-dockerd", "docker://20.10.24", None, json!({ "preinstalled": {} }), OnTarget::Perhaps)]
    // A version, exact, in part and as a range.
    #[case("containerd", "containerd://1.6.20", Some("1.6.20"), json!({ "preinstalled": {} }), OnTarget::Yes)]
    #[case("containerd", "containerd://1.6.20~ds1", Some("1.6.20"), json!({ "preinstalled": {} }), OnTarget::Yes)]
    #[case("containerd", "containerd://1.6.20", Some("1.6.21"), json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("containerd", "containerd://1.7.28", Some("1.7"), json!({ "preinstalled": {} }), OnTarget::Yes)]
    #[case("containerd", "containerd://1.6.20", Some(">=2"), json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("containerd", "containerd://2.0.5", Some(">=2"), json!({ "preinstalled": {} }), OnTarget::Yes)]
    #[case("containerd", "docker://2.0.5", Some(">=2"), json!({ "preinstalled": {} }), OnTarget::No)]
    #[case("containerd", "containerd://devel", Some(">=2"), json!({ "preinstalled": {} }), OnTarget::Perhaps)]
    // The version after docker:// is not the shim's.
    #[case("cri-dockerd", "docker://20.10.24", Some("0.4.3"), json!({ "preinstalled": {} }), OnTarget::Perhaps)]
    // Brought along.
    #[case("containerd", "containerd://1.6.20", None, archive(), OnTarget::Perhaps)]
    #[case("containerd", "containerd://2.0.5", Some("2.0.5"), archive(), OnTarget::Yes)]
    #[case("containerd", "containerd://1.6.20", Some("2.0.5"), archive(), OnTarget::No)]
    #[case("containerd", "docker://20.10.24", None, archive(), OnTarget::No)]
    #[case("containerd", "containerd://1.7.28", Some("1.7.28"), json!({ "package": { "name": "containerd.io" } }), OnTarget::Yes)]
    #[case("containerd", "containerd://1.6.20", Some("1.7.28"), json!({ "package": { "name": "containerd.io" } }), OnTarget::No)]
    fn version_and_origin_count(
        #[case] runtime: &str,
        #[case] shown: &str,
        #[case] version: Option<&str>,
        #[case] from: serde_json::Value,
        #[case] expected: OnTarget,
    ) {
        let node = serde_json::from_value(
            json!({ "status": { "nodeInfo": { "containerRuntimeVersion": shown,
            "kubeletVersion": "v1.23.17" } } }),
        );
        let target = json!({ "runtime": runtime, "version": version, "from": from });
        let target = serde_json::from_value(target).unwrap();
        assert_eq!(on_target(&node.unwrap(), &target), expected);
    }

    #[test]
    fn from_1_24_on_docker_has_one_shim() {
        let node = serde_json::from_value(json!({ "status": { "nodeInfo": {
            "containerRuntimeVersion": "docker://26.1.3", "kubeletVersion": "v1.30.1" } } }));
        let target = serde_json::from_value(json!({ "runtime": "cri-dockerd" })).unwrap();
        assert_eq!(on_target(&node.unwrap(), &target), OnTarget::Yes);
    }
}
