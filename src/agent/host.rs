//! What the agent asks of the host that it runs on. [`Host`] is implemented by [`pod`] for a pod with the host's
//! system bus and `/var/lib/transship`, and in tests by a state machine.

pub mod pod;

use crate::{
    executor::{
        control::{ControlError, Order},
        progress::{Progress, State},
    },
    host::systemd::SystemdError,
    plan::{
        baseline::Baseline, digest::Digest, document::Plan, facts::Facts, host_path::NotAHostPath, words,
    },
    planner::{
        self,
        request::{Outcome, Request, Verdict},
    },
};

/// A request to the host that failed, in a sentence that names the object and the cause.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// A control directory cannot be used.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// systemd refuses a request.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A file cannot be read or written.
    #[error("cannot {0}")]
    Io(#[from] std::io::Error),
    /// A path is not one of a host.
    #[error(transparent)]
    Path(#[from] NotAHostPath),
    /// What the host answered, in a sentence.
    #[error("{0}")]
    Answer(String),
}

/// What a request means on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Findings, and the plan if there is one.
    pub outcome: Outcome,
    /// The plan's steps in words.
    pub words: Vec<String>,
    /// What would change in every file; no secrets.
    pub diff: String,
}

impl Planned {
    /// An outcome with its plan in words.
    pub fn of(outcome: Outcome, facts: &Facts) -> Self {
        let plan = match &outcome.verdict {
            Verdict::Ready(plan) | Verdict::Held(plan) => Some(plan),
            Verdict::Blocked | Verdict::AlreadyThere => None,
        };
        Self {
            words: plan.map(|plan| plan.words()).unwrap_or_default(),
            diff: plan.map(|plan| words::diff(plan, facts)).unwrap_or_default(),
            outcome,
        }
    }
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
    /// What the API reported right before the switch; empty until it is ordered.
    pub baseline: Baseline,
    /// The order to switch was given.
    pub go: bool,
    /// The order to keep the switch was given.
    pub commit: bool,
    /// The order to go back was given.
    pub abort: bool,
    /// The executor's unit runs, or systemd is about to start it.
    pub executor_running: bool,
}

/// An attempt at a migration that has a plan on the host, whether its objects still exist or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its name, as of [`super::machine::run_name`].
    pub run: String,
    /// UID of its migration.
    pub migration: String,
    /// Name of its migration; `None` for an attempt that a person started on the node.
    pub migration_name: Option<String>,
    /// The generation of its spec.
    pub generation: i64,
    /// The number of the attempt at that generation.
    pub number: u32,
    /// Where its journal stands; `None` before the first line.
    pub state: Option<State>,
    /// The switch was ordered.
    pub ordered: bool,
    /// The target's endpoint, as kubeadm keeps it.
    pub endpoint: Option<String>,
}

impl Attempt {
    /// Whether its journal has begun, is not over and needs an agent; a journal that needs a person is not over. A switch
    /// that is confirmed and commits by itself later does not need one.
    pub fn is_open(&self) -> bool {
        self.state
            .is_some_and(|state| !state.is_final() && !state.is_confirmed())
    }

    /// Whether it belongs to a `RuntimeMigration`, and nothing was changed that a pod could notice.
    pub fn is_prepared_only(&self) -> bool {
        let early = matches!(self.state, Some(State::Preparing | State::Prepared));
        early && !self.ordered && self.migration_name.is_some()
    }
}

/// What the agent asks of the host. Runs are named by [`super::machine::run_name`]. Every verb has a deadline
/// and is idempotent.
#[allow(async_fn_in_trait, reason = "used on one task, by static dispatch")]
pub trait Host {
    /// The run as it is now; nothing before its plan is written.
    async fn look(&self, run: &str) -> Result<Option<Run>, HostError>;
    /// All attempts on the host.
    async fn attempts(&self) -> Result<Vec<Attempt>, HostError>;
    /// Collects facts, and changes nothing but those in the directory of the run.
    async fn facts(&self, run: &str) -> Result<Facts, HostError>;
    /// What a request means on the host of these facts.
    fn plan(&self, facts: &Facts, request: &Request) -> Outcome {
        planner::plan(facts, request)
    }
    /// Writes the plan and starts the executor on it.
    async fn install(&self, run: &str, plan: &Plan) -> Result<(), HostError>;
    /// Starts the executor's unit, which goes on where the journal ends.
    async fn start_executor(&self) -> Result<(), HostError>;
    /// Records what the API reports right before the switch; it is durable when this returns.
    async fn record(&self, run: &str, baseline: &Baseline) -> Result<(), HostError>;
    /// Gives an order for the plan with this digest.
    async fn order(&self, run: &str, order: Order, plan: &Digest) -> Result<(), HostError>;
    /// Asks the kubelet's health endpoint on loopback.
    async fn kubelet_health(&self, run: &str) -> Result<(), HostError>;
}
