//! `RuntimeMigration`: what the user asks for.

#![allow(clippy::duplicated_attributes, reason = "every printer column names its type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::node_migration::MOST;
use super::request::{Drain, Images, Preflight, Rollback, Source, Target, approved_plans};

/// A move of the chosen nodes to another container runtime.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "transship.dev",
    version = "v1alpha1",
    kind = "RuntimeMigration",
    status = "RuntimeMigrationStatus",
    shortname = "rmig",
    category = "transship",
    doc = "A move of the chosen nodes to another container runtime.",
    derive = "PartialEq",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Plan changes nothing, Apply carries the plans out"
    ),
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "One word for the whole"
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.target.runtime",
        description = "The runtime to move to"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "Nodes that need nothing more / nodes that are not left out"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.message",
        description = "What is happening, or why nothing is"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Its age"
    )
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeMigrationSpec {
    /// `Plan` computes what would happen on every node and changes nothing; `Apply` does it. `Plan` becomes
    /// `Apply` by editing the same object.
    #[serde(default)]
    pub mode: Mode,
    /// Start no further node. Nodes that are switching finish or roll back.
    #[serde(default)]
    pub paused: bool,
    /// Which nodes. An empty selector is refused: name the nodes that may be touched.
    pub node_selector: LabelSelector,
    /// The runtime to move to.
    pub target: Target,
    /// What happens to the runtime to leave.
    #[serde(default)]
    pub source: Source,
    /// How fast, and when to stop.
    #[serde(default)]
    pub strategy: Strategy,
    /// How pods are moved away before the switch.
    #[serde(default)]
    pub drain: Drain,
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
    /// When and how a node rolls back by itself.
    #[serde(default)]
    pub rollback: Rollback,
}

/// Whether nodes are changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Mode {
    /// Compute and report the plan of every node; change nothing.
    #[default]
    Plan,
    /// Carry the plans out.
    Apply,
}

/// How fast, and when to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Strategy {
    /// How many of the selected nodes may be unavailable at a time, for any reason: a number, or a text with a
    /// percentage (ten and a percent sign, for one), rounded down to at least 1 node.
    pub max_unavailable: IntOrPercent,
    /// After this many nodes that failed, rolled back or were lost no further node is started, and the message gives
    /// the reason. A failure counts until its node is tried again: by an edit of `target`, `source`, `drain`, `images`,
    /// `preflight`, `approvedPlans` or `rollback`, or by the annotation `transship.dev/retry` on its NodeMigration.
    #[schemars(range(min = 1, max = 100_000))]
    pub max_failures: u32,
    /// When control plane nodes are migrated. Each goes alone, whatever `maxUnavailable` says, and only while the API
    /// server is ready and all control plane nodes, API servers and etcd members are Ready.
    pub control_plane: ControlPlane,
}

/// When control plane nodes are migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ControlPlane {
    /// After all other chosen nodes have ended.
    #[default]
    Last,
    /// Before any other.
    First,
    /// They are left out.
    Skip,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            max_unavailable: IntOrPercent::Int(1),
            max_failures: 1,
            control_plane: ControlPlane::Last,
        }
    }
}

/// A number of nodes or a percentage of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrPercent {
    /// A number of nodes.
    Int(i64),
    /// A text such as `10%`.
    Percent(String),
}

impl JsonSchema for IntOrPercent {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "IntOrPercent".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // Both limits bind one kind of value alone: `minimum` numbers, `pattern` texts.
        schemars::json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 100_000,
            "pattern": "^([1-9][0-9]?|100)%$",
        })
    }
}

impl std::fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            Self::Percent(text) => f.write_str(text),
        }
    }
}

impl IntOrPercent {
    /// How many of `total` nodes this is, at least 1; percentages are rounded down. `None` for a value that is
    /// neither a number from 1 on nor `1%` to `100%`.
    pub fn of(&self, total: usize) -> Option<usize> {
        match self {
            Self::Int(number) => usize::try_from(*number).ok().filter(|n| *n >= 1),
            Self::Percent(text) => {
                let digits = text.strip_suffix('%')?;
                let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
                let percent: usize = digits.parse().ok().filter(|p| plain && (1..=100).contains(p))?;
                Some((total.saturating_mul(percent) / 100).max(1))
            }
        }
    }
}

/// How far a migration is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeMigrationStatus {
    /// The generation of the spec that this status speaks of.
    #[schemars(range(min = 0, max = MOST))]
    pub observed_generation: i64,
    /// One word for the whole.
    pub phase: MigrationPhase,
    /// One sentence: what is happening, or why nothing is.
    pub message: String,
    /// Nodes that need nothing more, of those that are not left out (`3/5`).
    pub progress: String,
    /// How many nodes are in which state.
    pub nodes: NodeCounts,
    /// Pods of these nodes that still ran on a shim of the version before an upgrade in place when that was last counted: the
    /// sum over `status.oldShims` of the NodeMigrations.
    #[schemars(range(min = 0, max = MOST))]
    pub pods_on_old_shims: i64,
    /// The nodes that hold a slot of the budget, claimed by optimistic locking before anything begins.
    pub active_nodes: Vec<Slot>,
    /// What was asked for when the first node was started; it cannot change any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
    /// `Progressing`, `Degraded`, `Complete` and `Overlapping`, by Kubernetes' conventions.
    pub conditions: Vec<Condition>,
}

/// A node that holds a slot of the budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Slot {
    /// The node's name.
    pub name: String,
    /// The generation of the spec that the slot was claimed for.
    #[schemars(range(min = 0, max = MOST))]
    pub generation: i64,
    /// When it was claimed.
    pub since: Time,
    /// Whether the node was cordoned before; it is left as it was.
    #[serde(default)]
    pub cordoned: bool,
    /// Whether its switch was seen to have begun. From then on the node is not untouched any more.
    #[serde(default)]
    pub switching: bool,
    /// Since when the node is lost: not Ready for longer than a switch and its rollback take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<Time>,
}

/// The parts of a spec that cannot change once a node has been started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Which nodes.
    pub node_selector: LabelSelector,
    /// The runtime to move to.
    pub target: Target,
    /// What happens to the runtime to leave.
    #[serde(default)]
    pub source: Source,
}

/// One word for a whole migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MigrationPhase {
    /// Not looked at yet, or refused by validation (the message says why).
    #[default]
    Pending,
    /// Plans are being computed; nothing is changed.
    Planning,
    /// Nodes are being migrated.
    Running,
    /// No further node is started: by `paused`, or by `maxFailures`.
    Paused,
    /// `Plan`: every node has its plan. `Apply`: every node is on the target.
    Succeeded,
    /// Everything has ended, and some nodes are not on the target.
    Degraded,
    /// A node is in a state that no software can repair.
    Failed,
}

impl MigrationPhase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Pending,
        Self::Planning,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Degraded,
        Self::Failed,
    ];

    /// The word in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Planning => "Planning",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Succeeded => "Succeeded",
            Self::Degraded => "Degraded",
            Self::Failed => "Failed",
        }
    }

    /// Whether the migration has come to an end that only an edit of its spec changes.
    pub const fn ended(self) -> bool {
        match self {
            Self::Succeeded | Self::Degraded | Self::Failed => true,
            Self::Pending | Self::Planning | Self::Running | Self::Paused => false,
        }
    }
}

/// How many nodes are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Selected nodes.
    #[schemars(range(max = 1_000_000))]
    pub total: u32,
    /// Not started.
    #[schemars(range(max = 1_000_000))]
    pub pending: u32,
    /// Between start and end.
    #[schemars(range(max = 1_000_000))]
    pub active: u32,
    /// Planned, and not migrated yet.
    #[schemars(range(max = 1_000_000))]
    pub planned: u32,
    /// On the target.
    #[schemars(range(max = 1_000_000))]
    pub succeeded: u32,
    /// Back on the source.
    #[schemars(range(max = 1_000_000))]
    pub rolled_back: u32,
    /// In a state that no software can repair.
    #[schemars(range(max = 1_000_000))]
    pub failed: u32,
    /// Under way and not Ready for longer than a switch and its rollback take.
    #[schemars(range(max = 1_000_000))]
    pub lost: u32,
    /// Stopped by a finding, untouched.
    #[schemars(range(max = 1_000_000))]
    pub blocked: u32,
    /// Left out (opted out, control plane with `controlPlane: Skip`).
    #[schemars(range(max = 1_000_000))]
    pub skipped: u32,
}
