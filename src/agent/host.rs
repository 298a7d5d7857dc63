//! What the agent asks of the host that it runs on. [`Host`] is implemented by [`pod`] for a pod with the host's
//! system bus and `/var/lib/transship`, and in tests by a state machine.

pub mod pod;

use crate::{
    api::node_migration::NodeMigrationSpec,
    executor::{control::Order, progress::Progress},
    plan::{digest::Digest, document::Plan, findings::kubeadm, planner::Outcome},
};

/// A request to the host that failed, in a sentence that names the object and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct HostError(pub String);

/// What a request means on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Findings, and the plan if there is one.
    pub outcome: Outcome,
    /// The plan's steps in words.
    pub words: Vec<String>,
    /// What would change in every file; no secrets.
    pub diff: String,
    /// The node as kubeadm's memory has to fit it, where kubeadm made it.
    pub kubeadm: Option<kubeadm::Node>,
}

/// One attempt at a migration, as its control directory and systemd show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The plan.
    pub plan: Plan,
    /// Its steps in words.
    pub words: Vec<String>,
    /// What the journal says; nothing before its first line.
    pub progress: Option<Progress>,
    /// The order to switch was given.
    pub go: bool,
    /// The order to keep the switch was given.
    pub commit: bool,
    /// The order to go back was given.
    pub abort: bool,
    /// The executor's unit runs, or systemd is about to start it.
    pub executor_running: bool,
}

/// What the agent asks of the host. Runs are named by [`super::machine::run_name`]. Every verb has a deadline
/// and is idempotent.
#[allow(async_fn_in_trait, reason = "used on one task, by static dispatch")]
pub trait Host {
    /// The run as it is now; nothing before its plan is written.
    async fn look(&self, run: &str) -> Result<Option<Run>, HostError>;
    /// Collects facts and computes what the spec means here; changes nothing but the facts in the directory of
    /// the run. `own_images` must be in the target's store after the switch.
    async fn plan(
        &self,
        run: &str,
        spec: &NodeMigrationSpec,
        own_images: Vec<String>,
    ) -> Result<Planned, HostError>;
    /// Writes the plan and starts the executor on it.
    async fn install(&self, run: &str, plan: &Plan) -> Result<(), HostError>;
    /// Starts the executor's unit, which goes on where the journal ends.
    async fn start_executor(&self) -> Result<(), HostError>;
    /// Gives an order for the plan with this digest.
    async fn order(&self, run: &str, order: Order, plan: &Digest) -> Result<(), HostError>;
    /// Asks the kubelet's health endpoint on loopback.
    async fn kubelet_health(&self, run: &str) -> Result<(), HostError>;
}
