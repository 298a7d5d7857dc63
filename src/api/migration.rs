//! `RuntimeMigration`: what the user asks for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::{Drain, Images, Preflight, Rollback, Target};

/// A move of the chosen nodes to another container runtime.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "transship.dev",
    version = "v1alpha1",
    kind = "RuntimeMigration",
    status = "RuntimeMigrationStatus",
    shortname = "rmig",
    derive = "PartialEq"
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
    /// Which nodes. An empty selector is refused: name what shall be touched.
    pub node_selector: LabelSelector,
    /// The runtime to move to.
    pub target: Target,
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
    /// When and how a node goes back by itself.
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
    /// How many of the selected nodes may be unavailable at a time, for any reason: a number, or a percentage
    /// rounded down, at least 1 (`10%`).
    pub max_unavailable: IntOrPercent,
    /// After this many nodes that failed or rolled back no further node is started, and the migration says why.
    pub max_failures: u32,
}

impl Default for Strategy {
    fn default() -> Self {
        Self {
            max_unavailable: IntOrPercent::Int(1),
            max_failures: 1,
        }
    }
}

/// A number of nodes or a percentage of them; validated in Rust, because the schema accepts any text.
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
        schemars::json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

/// How far a migration is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeMigrationStatus {
    /// The generation of the spec that this status speaks of.
    pub observed_generation: i64,
    /// One word for the whole.
    pub phase: MigrationPhase,
    /// One sentence: what is happening, or why nothing is.
    pub message: String,
    /// How many nodes are in which state.
    pub nodes: NodeCounts,
    /// Names of the nodes that hold a slot of `maxUnavailable` (claimed by optimistic locking).
    pub active_nodes: Vec<String>,
    /// `Progressing`, `Degraded` and `Complete`, by Kubernetes' conventions.
    pub conditions: Vec<Condition>,
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

/// How many nodes are in which state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Selected nodes.
    pub total: u32,
    /// Not started.
    pub pending: u32,
    /// Between start and end.
    pub active: u32,
    /// Planned, and not migrated yet.
    pub planned: u32,
    /// On the target.
    pub succeeded: u32,
    /// Back on the source.
    pub rolled_back: u32,
    /// In a state that no software can repair.
    pub failed: u32,
    /// Stopped by a finding, untouched.
    pub blocked: u32,
    /// Left out (control plane, opted out, owned by another migration).
    pub skipped: u32,
}
