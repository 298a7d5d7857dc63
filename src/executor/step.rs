//! The primitives: for each one what is saved before it, how it is applied, and how it is undone. Applying
//! and undoing are idempotent, because a step that was interrupted is applied, or undone, from its beginning.

mod aside;
mod daemon_rehearsal;
mod effective;
mod file;
mod health;
mod images;
mod install;
mod kubelet;
mod link;
mod obstacles;
mod tasks;
mod unit;

use std::{collections::BTreeMap, io};

pub use aside::Aside;
pub use install::InstallError;

use super::journal::{PartState, Saved};
use crate::{
    host::{
        files::Files,
        systemd::{Systemd, SystemdError},
    },
    plan::{
        host_path::HostPath,
        step::{AwaitStep, Direction, Side, Step, StopPods},
    },
    runtime::{RuntimeError, Runtimes, Tasks},
};

/// How often a package manager has to refuse before it is believed.
const REFUSALS: u32 = 3;

/// A step that could not be applied or taken back.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A file could not be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// A file is not the one that the plan was made from.
    #[error("{0} changed since the plan was made; plan again")]
    ChangedBefore(HostPath),
    /// systemd did not do it.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
    /// A runtime did not do it.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// An image could not be carried.
    #[error("image {name}: {error}")]
    Image {
        /// Its full reference.
        name: String,
        /// Why.
        error: RuntimeError,
    },
    /// Files could not be brought onto the host.
    #[error(transparent)]
    Install(InstallError),
    /// A unit was started and did not stay.
    #[error("{unit} does not stay active: {seen}; see `journalctl -u {unit}`")]
    Unstable {
        /// The unit.
        unit: String,
        /// What was seen.
        seen: String,
    },
    /// systemd has something else of a unit than what was planned.
    #[error(
        "{property} of {unit} is {found}, and {planned} was planned; see `systemctl cat {unit}` for the file that sets it"
    )]
    NotAsPlanned {
        /// The unit.
        unit: String,
        /// The property.
        property: String,
        /// What systemd has.
        found: String,
        /// What was planned.
        planned: String,
    },
    /// A runtime's effective configuration is another one than planned.
    #[error(
        "{setting} is {found} in what `{command}` prints, and {planned} was planned; look for the file in `imports` that sets it"
    )]
    OtherConfiguration {
        /// The setting.
        setting: String,
        /// What it is.
        found: String,
        /// What was planned.
        planned: String,
        /// The command that prints it.
        command: String,
    },
    /// Something did not become healthy in time.
    #[error("not healthy after {within_secs} s: {seen}")]
    Unhealthy {
        /// The deadline.
        within_secs: u32,
        /// What was last seen.
        seen: String,
    },
    /// The journal does not fit the plan.
    #[error("the journal's saved state does not fit the step; it was damaged")]
    Mismatch,
}

impl StepError {
    /// Whether a disk was full.
    pub(super) fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }

    /// Whether trying again cannot help, after so many failures.
    pub(super) const fn is_lasting(&self, failures: u32) -> bool {
        match self {
            Self::ChangedBefore(_) | Self::Mismatch => true,
            // Another package needs what shall go, for example.
            Self::Install(_) => failures >= REFUSALS,
            _ => false,
        }
    }

    /// Whether somebody who does not answer (yet) may be the cause.
    pub(super) const fn is_about_answers(&self) -> bool {
        matches!(
            self,
            Self::Runtime(_)
                | Self::Image { .. }
                | Self::Unhealthy { .. }
                | Self::Systemd(SystemdError::Unreachable(_))
        )
    }
}

/// The host as the steps see it.
#[derive(Debug)]
pub struct Host<'a, S, R> {
    /// Its files.
    pub files: &'a Files,
    /// Its systemd.
    pub systemd: &'a S,
    /// Its runtimes.
    pub runtimes: &'a R,
}

/// What a step writes into the journal on its way, and what it wrote there before.
pub(super) trait Notes {
    /// How far the step came with one of its parts.
    fn part(&self, key: &str, state: PartState) -> io::Result<()>;
    /// How far it came with each of them, in this life and in earlier ones.
    fn parts(&self) -> BTreeMap<String, PartState>;
    /// The containers that were noted last, by any step.
    fn running(&self) -> Option<Tasks>;
    /// Something harmless stays behind, a sentence each.
    fn left(&self, what: &[String]) -> io::Result<()>;
    /// The kubelet was started under the target, or the target serves the kubelet that ran on.
    fn armed(&self) -> io::Result<()>;
}

impl<S: Systemd, R: Runtimes> Host<'_, S, R> {
    /// Waits until what `step` names is healthy and stays so.
    ///
    /// # Errors
    /// [`StepError::Unhealthy`], with what was last seen.
    pub async fn healthy(&self, step: &AwaitStep) -> Result<(), StepError> {
        health::wait(self, step).await
    }

    /// All that the undo of `step` needs; changes nothing on the host.
    pub(super) async fn save(&self, step: &Step) -> Result<Saved, StepError> {
        match step {
            Step::File(step) => file::save(self.files, step),
            Step::Link(step) => link::save(self.files, step),
            Step::Unit(step) => unit::save(self.files, self.systemd, &step.unit).await,
            Step::Kubelet(_) => kubelet::save(self.files, self.systemd).await,
            Step::Install(step) => install::save(self.files, step).await,
            Step::Images(step) => images::save(self.runtimes, step).await,
            Step::Rehearse(_)
            | Step::RehearseDaemon(_)
            | Step::StopPods(_)
            | Step::ClearPods(_)
            | Step::Tasks(_)
            | Step::Shims(_)
            | Step::Await(_) => Ok(Saved::Nothing),
        }
    }

    /// Applies `step`; returns when its effect is there.
    pub(super) async fn apply(&self, step: &Step, notes: &impl Notes) -> Result<(), StepError> {
        match step {
            Step::File(step) => file::apply(self.files, self.systemd, step).await,
            Step::Link(step) => link::apply(self.files, step),
            Step::Unit(step) => unit::apply(self.files, self.systemd, step).await,
            Step::Install(step) => install::apply(self.files, self.systemd, self.runtimes, step).await,
            Step::Images(step) => images::apply(self.runtimes, step, notes).await,
            Step::Rehearse(rehearsal) => Ok(self.runtimes.rehearse(rehearsal).await?),
            Step::RehearseDaemon(rehearsal) => daemon_rehearsal::apply(self, rehearsal).await,
            Step::StopPods(step) => {
                let stopped = self.runtimes.stop_pods(step, Direction::Forwards).await?;
                tracing::info!(?stopped, runtime = %step.source.runtime, "ended the pods");
                Ok(notes.left(&stopped.left)?)
            }
            Step::ClearPods(step) => {
                let cleared = self.runtimes.clear_pods(step).await?;
                tracing::info!(?cleared, runtime = %step.source.runtime, "removed what was left of the pods");
                Ok(notes.left(&cleared.left)?)
            }
            Step::Tasks(step) => tasks::apply(self.runtimes, step, notes).await,
            Step::Shims(_) => Ok(()),
            Step::Kubelet(step) if step.run => {
                kubelet::start(self, &step.runtime).await?;
                Ok(notes.armed()?)
            }
            Step::Kubelet(step) => kubelet::stop_when_quiet(self, &step.runtime, notes).await,
            Step::Await(step) if step.side == Side::Target => {
                health::wait(self, step).await?;
                match &step.configuration {
                    Some(wanted) => effective::check_configuration(self.runtimes, wanted).await,
                    None => Ok(()),
                }
            }
            Step::Await(_) => Ok(()),
        }
    }

    /// Whether all runtimes that `step` needs forwards answer.
    pub(super) async fn answers(&self, step: &Step) -> bool {
        let needed = match step {
            Step::Images(step) => vec![&step.from, &step.to],
            Step::Rehearse(step) => vec![&step.cri],
            Step::StopPods(step) => vec![&step.source],
            Step::ClearPods(step) => vec![&step.source],
            Step::Await(step) => vec![&step.runtime],
            Step::Tasks(step) => vec![&step.cri],
            Step::Shims(step) => vec![&step.cri],
            Step::File(_)
            | Step::Link(_)
            | Step::Unit(_)
            | Step::Install(_)
            | Step::Kubelet(_)
            | Step::RehearseDaemon(_) => Vec::new(),
        };
        for endpoint in needed {
            if self.runtimes.health(endpoint).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Kills what runs of `units` and starts it again, one after the other: a daemon that hangs does not end on
    /// SIGTERM. A unit that has failed is started too: the executor may have died after it killed it. Units that
    /// were stopped are left alone. What fails is logged; whoever needs them finds out.
    pub(super) async fn revive(&self, units: &[String]) {
        for name in units {
            tracing::warn!(unit = name, "does not answer; it is killed and started again");
            if let Err(error) = self.revive_one(name).await {
                tracing::warn!(unit = name, %error, "could not be started again");
            }
        }
    }

    async fn revive_one(&self, name: &str) -> Result<(), StepError> {
        if self.kill_one(name).await? {
            return Ok(self.systemd.restart(name).await?);
        }
        if self.systemd.unit(name).await?.active == "failed" {
            self.systemd.start(name).await?;
        }
        Ok(())
    }

    /// Kills what runs of `units`; [`Host::revive`] starts it again. What fails is logged.
    async fn kill(&self, units: &[String]) {
        for name in units {
            tracing::warn!(unit = name, "does not answer; it is killed");
            if let Err(error) = self.kill_one(name).await {
                tracing::warn!(unit = name, %error, "could not be killed");
            }
        }
    }

    /// Kills the main process of a unit; answers whether it ran.
    async fn kill_one(&self, name: &str) -> Result<bool, StepError> {
        let unit = self.systemd.unit(name).await?;
        let runs = unit::is_active(&unit) && unit.main_pid != 0;
        if runs {
            // Its start limit goes before it is killed: should the executor die in between, the unit is seen to have failed.
            self.systemd.reset_failed(name).await?;
            self.systemd.kill(name).await?;
        }
        Ok(runs)
    }

    /// Takes `step` back; returns when everything is as `saved` says, with a sentence for each harmless thing that
    /// stays behind, and for each version of somebody else that was set aside for it.
    pub(super) async fn undo(
        &self,
        step: &Step,
        saved: &Saved,
        aside: &Aside,
        notes: &impl Notes,
    ) -> Result<Vec<String>, StepError> {
        match (step, saved) {
            (Step::StopPods(step), Saved::Nothing) => self.end_pods_of_target(step, notes).await,
            (Step::Images(step), Saved::Images { before }) => {
                images::undo(self.runtimes, step, before, notes).await?;
                Ok(Vec::new())
            }
            (Step::Tasks(step), Saved::Nothing) => tasks::undo(self.runtimes, step, notes).await,
            (Step::Kubelet(step), Saved::Unit { active, links }) => {
                if step.run {
                    kubelet::stop_soon(self, &step.runtime).await?;
                } else {
                    kubelet::restore(self, &step.runtime, *active, links, notes).await?;
                }
                Ok(Vec::new())
            }
            (Step::Shims(step), Saved::Nothing) => Ok(self.runtimes.end_newer_pods(step).await?),
            _ => self.undo_alone(step, saved, aside).await,
        }
    }

    /// Ends the pods of the target, which is asked once whether it answers, and nothing more if it does not.
    async fn end_pods_of_target(
        &self,
        step: &StopPods,
        notes: &impl Notes,
    ) -> Result<Vec<String>, StepError> {
        let ended = match self.runtimes.answers(&step.target).await {
            Ok(()) => self.runtimes.stop_pods(step, Direction::Backwards).await,
            Err(error) => {
                // It must not wake up in the middle. The pods of cri-dockerd end by Docker, which has to live.
                if !step.target.runtime.runs_on_docker() {
                    self.kill(&step.target_units).await;
                }
                self.runtimes.stop_pods_without(step, error).await
            }
        };
        // The source may stand on the same daemon, and what is undone next may have to stop it.
        if self.runtimes.answers(&step.target).await.is_err() {
            self.revive(&step.target_units).await;
        }
        let stopped = ended?;
        tracing::info!(?stopped, runtime = %step.target.runtime, "ended the pods");
        for (sandbox, why) in stopped.stuck {
            notes.part(&sandbox, PartState::Stuck { why })?;
        }
        Ok(stopped.left)
    }

    async fn undo_alone(&self, step: &Step, saved: &Saved, aside: &Aside) -> Result<Vec<String>, StepError> {
        match (step, saved) {
            (Step::File(step), Saved::File { file, missing_dirs }) => {
                return file::undo(self.files, self.systemd, step, file.as_ref(), missing_dirs, aside).await;
            }
            (Step::Link(step), Saved::Link { link, missing_dirs }) => {
                return link::undo(self.files, step, link.as_deref(), missing_dirs, aside);
            }
            (Step::Unit(step), Saved::Unit { active, links }) => {
                return unit::undo(self.files, self.systemd, step, *active, links, aside).await;
            }
            (Step::Install(step), saved) => {
                return install::undo(self.files, self.systemd, self.runtimes, step, saved).await;
            }
            (Step::Rehearse(rehearsal), Saved::Nothing) => self.runtimes.end_rehearsal(rehearsal).await?,
            (Step::RehearseDaemon(rehearsal), Saved::Nothing) => {
                daemon_rehearsal::clear(self, rehearsal).await?
            }
            (Step::Await(step), Saved::Nothing) if step.side == Side::Source => {
                health::wait(self, step).await?
            }
            (Step::ClearPods(_) | Step::Await(_), Saved::Nothing) => {}
            _ => return Err(StepError::Mismatch),
        }
        Ok(Vec::new())
    }
}
