//! What Transship asks of systemd: a dozen verbs. [`Systemd`] is implemented by the system bus (`host::bus`) and,
//! in tests, by a state machine.

use std::{collections::BTreeMap, time::Duration};

use crate::plan::{facts::Limits, host_path::HostPath};

/// How long a runtime may take to answer after a boot, seen from the executor's start: it may wait for the network. A unit that was
/// started so soon after a boot was started by it.
pub const BOOTED_WITHIN: Duration = Duration::from_secs(180);

/// A unit as systemd describes it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// `LoadState`: `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `activating`, `failed`, …
    pub active: String,
    /// `UnitFileState`: `enabled`, `disabled`, `static`, `masked`, or empty.
    pub boot: String,
    /// `MainPID`, 0 when it does not run.
    pub main_pid: u32,
    /// `NRestarts`: automatic restarts since it was last started by hand.
    pub restarts: u32,
    /// `Job`: a job for it waits or runs, as that of a unit which a boot has not come to yet.
    pub job: bool,
}

/// A unit as systemd describes it: what `inspect` reads, and what is compared with the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitProperties {
    /// `LoadState`, `ActiveState`, `UnitFileState`, `MainPID`, `NRestarts`.
    pub unit: Unit,
    /// `FragmentPath`, where there is one.
    pub fragment: Option<HostPath>,
    /// `DropInPaths`, in systemd's order.
    pub drop_ins: Vec<HostPath>,
    /// `Environment`: `NAME=value`.
    pub environment: Vec<String>,
    /// `EnvironmentFiles`, in systemd's order; with true where the file may be missing.
    pub environment_files: Vec<(HostPath, bool)>,
    /// First command of `ExecStart` as it stands in the unit, before variables are replaced.
    pub exec_start: Vec<String>,
    /// `Requires`, `Requisite`, `BindsTo` and `PartOf`.
    pub bound_to: Vec<String>,
    /// `RequiredBy`, `BoundBy` and `WantedBy`.
    pub needed_by: Vec<String>,
    /// `ActiveEnterTimestamp`, in microseconds since 1970; 0 if it never was active.
    pub active_since_micros: u64,
    /// The resource limits by property (`LimitNOFILE`).
    pub limits: BTreeMap<String, Limits>,
}

/// A request to systemd that did not have its effect.
#[derive(Debug, thiserror::Error)]
pub enum SystemdError {
    /// The job ended in another way than `done` or `skipped`.
    #[error("{verb} {unit}: the job ended as {result}; see `journalctl -u {unit}`")]
    Job {
        /// `start`, `stop` or `restart`.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// systemd's word: `failed`, `timeout`, `dependency`, `canceled`.
        result: String,
    },
    /// systemd refused the request.
    #[error("{verb} {unit}: {reason}")]
    Refused {
        /// The request.
        verb: &'static str,
        /// The unit.
        unit: String,
        /// systemd's words.
        reason: String,
    },
    /// systemd or its bus did not answer in time.
    #[error("systemd does not answer on the system bus: {0}")]
    Unreachable(String),
}

/// What Transship asks of systemd. Every verb returns when its effect is there, or fails within a deadline; all
/// are idempotent.
#[allow(async_fn_in_trait, reason = "used on one thread, by static dispatch")]
pub trait Systemd {
    /// The unit as it is now; a unit that does not exist has `load` = `not-found`.
    async fn unit(&self, name: &str) -> Result<Unit, SystemdError>;
    /// The unit with all that `inspect` reads and the plan sets; a unit that does not exist has `load` = `not-found`.
    async fn describe(&self, name: &str) -> Result<UnitProperties, SystemdError>;
    /// How long after the boot the unit was last started.
    async fn started_after_boot(&self, name: &str) -> Result<Duration, SystemdError>;
    /// Starts a unit and waits for its job.
    async fn start(&self, name: &str) -> Result<(), SystemdError>;
    /// Stops a unit and waits for its job; a unit that does not exist is stopped.
    async fn stop(&self, name: &str) -> Result<(), SystemdError>;
    /// Restarts a unit and waits for its job.
    async fn restart(&self, name: &str) -> Result<(), SystemdError>;
    /// Kills the main process of a unit (SIGKILL), and none of those that it started; a unit without one is dead.
    async fn kill(&self, name: &str) -> Result<(), SystemdError>;
    /// Makes it start at boot.
    async fn enable(&self, name: &str) -> Result<(), SystemdError>;
    /// Makes it not start at boot.
    async fn disable(&self, name: &str) -> Result<(), SystemdError>;
    /// Makes it impossible to start.
    async fn mask(&self, name: &str) -> Result<(), SystemdError>;
    /// Takes [`Systemd::mask`] back.
    async fn unmask(&self, name: &str) -> Result<(), SystemdError>;
    /// Makes it impossible to start until the next boot; a unit that does not exist yet, too.
    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError>;
    /// Takes [`Systemd::mask_until_boot`] back.
    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError>;
    /// Forgets that a unit failed, and its start limit.
    async fn reset_failed(&self, name: &str) -> Result<(), SystemdError>;
    /// Reads all unit files again (`daemon-reload`).
    async fn reload(&self) -> Result<(), SystemdError>;
}

/// Whether a unit was started by a boot.
///
/// # Errors
/// When systemd does not say.
pub async fn is_of_a_boot(systemd: &impl Systemd, name: &str) -> Result<bool, SystemdError> {
    Ok(systemd.started_after_boot(name).await? < BOOTED_WITHIN)
}
