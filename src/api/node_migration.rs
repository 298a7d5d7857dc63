//! `NodeMigration`: one node's share, and the only contract between controller and agent. The controller writes
//! `spec`, the agent writes `status`. It is cluster-scoped and bears the node's name.

#![allow(clippy::duplicated_attributes, reason = "every printer column names its type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::{
    Drain, DrainMode, Images, Preflight, Rollback, RuntimeVersion, Source, Target, approved_plans,
};
use crate::plan::{finding::Finding, shims::ShimUse};

/// The largest number that JSON carries exactly. The API server takes larger ones than an `i64` holds.
pub(crate) const MOST: i64 = (1 << 53) - 1;

/// Condition of a node whose pods did not leave in time, or whose switch was not let begin in time.
pub const DRAIN_TIMED_OUT: &str = "DrainTimedOut";
/// Condition of a node that is prepared and drained, and waits for `spec.proceed`. Its time of transition begins the
/// deadline of the wait.
pub const READY_TO_SWITCH: &str = "ReadyToSwitch";

/// One node's share of a `RuntimeMigration`.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "transship.dev",
    version = "v1alpha1",
    kind = "NodeMigration",
    status = "NodeMigrationStatus",
    shortname = "nmig",
    category = "transship",
    doc = "One node's share of a RuntimeMigration; the controller writes its spec, the node's agent its status.",
    derive = "PartialEq",
    printcolumn(
        name = "Migration",
        type_ = "string",
        json_path = ".spec.migration.name",
        description = "The migration that this is a share of"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the node is on its way"
    ),
    printcolumn(
        name = "Source",
        type_ = "string",
        json_path = ".status.source.runtime",
        description = "The runtime that the node leaves"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.target.runtime",
        description = "The runtime that the node goes to"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What is happening, what it waits for, or how it ended"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Its age"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeMigrationSpec {
    /// The migration that this is a share of.
    pub migration: MigrationRef,
    /// UID of the Node that is meant; a reinstalled node of the same name has another.
    pub node_uid: String,
    /// What the agent has to do.
    pub action: Action,
    /// The runtime to move to.
    pub target: Target,
    /// What happens to the runtime to leave.
    #[serde(default)]
    pub source: Source,
    /// How pods are moved away before the switch.
    #[serde(default)]
    pub drain: Drain,
    /// The cluster has no other node that could ever take the pods, so `drain.mode` is `InPlace`, or `Live` for an upgrade in
    /// place, although the migration asks for another.
    #[serde(default)]
    pub no_other_node: bool,
    /// How often this node was tried again at the same generation, by the annotation `transship.dev/retry`.
    #[serde(default)]
    #[schemars(range(max = 1_000_000))]
    pub attempt: u32,
    /// Whether the agent may stop the kubelet once the node is prepared and drained. The controller sets it when the
    /// agent reports the condition `ReadyToSwitch` and nothing speaks against the switch at that moment.
    #[serde(default)]
    pub proceed: bool,
    /// What happens to the images in the source's store.
    #[serde(default)]
    pub images: Images,
    /// Which findings are accepted.
    #[serde(default)]
    pub preflight: Preflight,
    /// Digests of the plans that may run, as mode `Plan` shows them in `status.plan.digest` of each NodeMigration. A node
    /// whose plan has another digest is `Blocked` (`PlanNotApproved`) before anything is prepared. Any plan may run if the
    /// list is absent or empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "approved_plans")]
    pub approved_plans: Vec<String>,
    /// When and how the node rolls back by itself.
    #[serde(default)]
    pub rollback: Rollback,
}

/// Names one `RuntimeMigration` at one generation of its spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MigrationRef {
    /// Its name.
    pub name: String,
    /// Its UID: an object of the same name that was created again is another migration.
    pub uid: String,
    /// The generation of its spec that this share was made from. A higher one makes the agent plan again, and
    /// retries a node that is Blocked or RolledBack.
    #[schemars(range(min = 0, max = MOST))]
    pub generation: i64,
}

/// What the agent has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// Collect facts, compute the plan, report it; change nothing.
    Plan,
    /// Plan, and carry the plan out.
    Migrate,
    /// The migration is being deleted: undo what has been prepared, or let a switch that has begun end; uncordon.
    Abort,
}

/// How far one node is; written by its agent alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeMigrationStatus {
    /// UID of the migration that this status belongs to; the status of another migration is ignored.
    pub migration_uid: String,
    /// `spec.migration.generation` that this status speaks of.
    #[schemars(range(min = 0, max = MOST))]
    pub migration_generation: i64,
    /// `spec.attempt` that this status speaks of.
    #[schemars(range(max = 1_000_000))]
    pub attempt: u32,
    /// `spec.action` that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// UID of the node that this status speaks of.
    pub node_uid: String,
    /// Where the node is on its way.
    pub phase: NodePhase,
    /// One sentence: what is happening, what it waits for, or how it ended.
    pub message: String,
    /// The runtime that the node leaves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<RuntimeVersion>,
    /// The runtime that the node goes to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<RuntimeVersion>,
    /// Results of the preflight, the blocking ones first.
    pub findings: Vec<Finding>,
    /// The plan, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanSummary>,
    /// Number of steps that are done.
    #[schemars(range(max = 10_000))]
    pub steps_done: u32,
    /// The step that is being carried out, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_step: Option<String>,
    /// How the drain goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainProgress>,
    /// Start and end of every phase so far.
    pub times: Vec<PhaseTime>,
    /// Milliseconds between the kubelet's stop and its start under the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST))]
    pub kubelet_downtime_millis: Option<i64>,
    /// Bytes of images carried into the target's store.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = MOST))]
    pub image_bytes: Option<i64>,
    /// What still runs on shims of the version before an upgrade in place, without the agent's own pod. It is counted after
    /// containerd was restarted for the upgrade, and again after its restart at the commit; not at the commit after a soak,
    /// when no agent is on the node. A pod has the new shim once it is created again. Until `pods` and `others` are 0, the
    /// program must stay on the node. `transship node status` on the node counts at each call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old_shims: Option<OldShims>,
    /// The last error, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// Conditions by Kubernetes' conventions.
    pub conditions: Vec<Condition>,
}

impl NodeMigrationSpec {
    /// Whether its drain is what the migration asks for, as far as the migration decides it: the mode is the controller's
    /// where the cluster has no other node, or the migration leaves it to the pair of runtimes.
    pub fn asks_for_drain(&self, asked: &Drain) -> bool {
        let mode = self.drain.mode;
        let upgrades = mode == DrainMode::Live && self.target.runtime.reports_own_version();
        let decided = match asked.mode {
            DrainMode::Auto | DrainMode::Evict if self.no_other_node => {
                upgrades || mode == DrainMode::InPlace
            }
            DrainMode::Auto => upgrades || matches!(mode, DrainMode::Auto | DrainMode::Evict),
            DrainMode::InPlace => upgrades || mode == DrainMode::InPlace,
            asked => mode == asked,
        };
        let rest = Drain {
            mode: asked.mode,
            ..self.drain.clone()
        };
        decided && rest == *asked
    }
}

impl NodeMigration {
    /// The status, if it speaks of what the spec asks now: of this migration at this generation, and of this node.
    /// Anything else is an older outcome, or a reinstalled node's. An `Abort` is answered by the end of what went on
    /// before it.
    pub fn current(&self) -> Option<&NodeMigrationStatus> {
        self.status.as_ref().filter(|status| {
            status.migration_uid == self.spec.migration.uid
                && status.migration_generation == self.spec.migration.generation
                && status.attempt == self.spec.attempt
                && status.node_uid == self.spec.node_uid
                && (status.action == Some(self.spec.action) || self.spec.action == Action::Abort)
        })
    }

    /// Where the node is on its way to what the spec asks now.
    pub fn phase(&self) -> NodePhase {
        self.current().map_or(NodePhase::Pending, |status| status.phase)
    }
}

/// Where a node is on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NodePhase {
    /// Not looked at yet.
    #[default]
    Pending,
    /// Facts are collected, findings and the plan computed.
    Preflight,
    /// Stopped by a finding, or by a drain that did not end; untouched. Ended.
    Blocked,
    /// The plan is reported, nothing was changed. Ended, for `action: Plan`.
    Planned,
    /// What can be done while the node serves: configuration, images, rehearsal.
    Preparing,
    /// Cordoned; pods are evicted.
    Draining,
    /// The executor is in the critical section.
    Switching,
    /// The node runs under the target and is not confirmed yet.
    Verifying,
    /// Confirmed; being made schedulable again.
    Uncordoning,
    /// On the target. Ended.
    Succeeded,
    /// Going back to the source.
    RollingBack,
    /// Back on the source, as before. Ended.
    RolledBack,
    /// In a state that no software can repair; the message says what is broken. Ended.
    Failed,
}

impl NodePhase {
    /// Every phase.
    pub const ALL: [Self; 13] = [
        Self::Pending,
        Self::Preflight,
        Self::Blocked,
        Self::Planned,
        Self::Preparing,
        Self::Draining,
        Self::Switching,
        Self::Verifying,
        Self::Uncordoning,
        Self::Succeeded,
        Self::RollingBack,
        Self::RolledBack,
        Self::Failed,
    ];

    /// The word in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Preflight => "Preflight",
            Self::Blocked => "Blocked",
            Self::Planned => "Planned",
            Self::Preparing => "Preparing",
            Self::Draining => "Draining",
            Self::Switching => "Switching",
            Self::Verifying => "Verifying",
            Self::Uncordoning => "Uncordoning",
            Self::Succeeded => "Succeeded",
            Self::RollingBack => "RollingBack",
            Self::RolledBack => "RolledBack",
            Self::Failed => "Failed",
        }
    }

    /// Whether the node has come to an end that only an edit of the spec changes.
    pub const fn ended(self) -> bool {
        match self {
            Self::Blocked | Self::Planned | Self::Succeeded | Self::RolledBack | Self::Failed => true,
            Self::Pending
            | Self::Preflight
            | Self::Preparing
            | Self::Draining
            | Self::Switching
            | Self::Verifying
            | Self::Uncordoning
            | Self::RollingBack => false,
        }
    }

    /// Whether the node's agent has begun and has not come to an end.
    pub const fn is_under_way(self) -> bool {
        !self.ended() && !matches!(self, Self::Pending)
    }
}

/// A plan, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanSummary {
    /// SHA-256 of the plan.
    pub digest: String,
    /// The steps in order, a sentence each.
    pub steps: Vec<String>,
    /// What would change in every file, as a unified diff; cut with a note where it is long.
    pub diff: String,
}

/// What still runs on shims of the version before an upgrade in place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OldShims {
    /// When it was counted.
    pub counted_at: Time,
    /// The programs, each with the number of pods that run on it.
    pub programs: Vec<ShimUse>,
}

/// How a drain goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainProgress {
    /// Pods that are gone.
    #[schemars(range(max = 1_000_000))]
    pub evicted: u32,
    /// Pods that have still to go.
    #[schemars(range(max = 1_000_000))]
    pub remaining: u32,
    /// Pods that cannot be evicted now, each with the reason (the budget's name, for one).
    pub blocking: Vec<BlockingPod>,
}

/// A pod that cannot be evicted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BlockingPod {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Why it cannot be evicted.
    pub reason: String,
}

/// Start and end of a phase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseTime {
    /// The phase.
    pub phase: NodePhase,
    /// When it began.
    pub start: Time,
    /// When it ended; absent while it lasts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_under_way_from_its_agents_start_to_an_end() {
        let under_way = NodePhase::ALL.into_iter().filter(|phase| phase.is_under_way());
        assert_eq!(
            under_way.map(NodePhase::name).collect::<Vec<_>>(),
            [
                "Preflight",
                "Preparing",
                "Draining",
                "Switching",
                "Verifying",
                "Uncordoning",
                "RollingBack"
            ]
        );
    }
}
