//! The primitives: for each one what is saved before it, how it is applied, and how it is taken back. Applying
//! and undoing are idempotent, because a step that was interrupted is applied, or undone, from its beginning.

mod file;
mod health;
mod images;
mod install;
mod kubelet;
mod unit;

use std::io;

pub use install::InstallError;

use super::journal::Saved;
use crate::{
    host::{
        files::Files,
        systemd::{Systemd, SystemdError},
    },
    plan::{
        host_path::HostPath,
        step::{AwaitStep, KUBELET_UNIT, Side, Step},
    },
    runtime::{Carried, RuntimeError, Runtimes},
};

/// A step that could not be applied or taken back.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// A file could not be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// A file is not the one that the plan was made from.
    #[error("{0} changed since the plan was made; plan again")]
    ChangedBefore(HostPath),
    /// A file is neither what the step made it nor what it was before.
    #[error(
        "{0} was changed by somebody else since it was written; put back what it was, or remove the change, and start transship-executor.service again"
    )]
    ChangedAfter(HostPath),
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

    /// Whether trying again cannot help.
    pub(super) const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::ChangedBefore(_) | Self::ChangedAfter(_) | Self::Mismatch
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

/// What applying a step tells on the way, for the journal.
pub(super) trait Notes {
    /// An image went through.
    fn carried(&self, image: &str, carried: Carried) -> io::Result<()>;
    /// The kubelet was started under the target.
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
            Step::Unit(step) => unit::save(self.files, self.systemd, &step.unit).await,
            Step::Kubelet(_) => unit::save(self.files, self.systemd, KUBELET_UNIT).await,
            Step::Install(step) => install::save(self.files, step).await,
            Step::Images(step) => images::save(self.runtimes, step).await,
            Step::Rehearse(_) | Step::StopPods(_) | Step::ClearPods(_) | Step::Await(_) => Ok(Saved::Nothing),
        }
    }

    /// Applies `step`; returns when its effect is there.
    pub(super) async fn apply(&self, step: &Step, notes: &impl Notes) -> Result<(), StepError> {
        match step {
            Step::File(step) => file::apply(self.files, self.systemd, step).await,
            Step::Unit(step) => unit::apply(self.files, self.systemd, step).await,
            Step::Install(step) => install::apply(self.files, self.systemd, self.runtimes, step).await,
            Step::Images(step) => images::apply(self.runtimes, step, notes).await,
            Step::Rehearse(rehearsal) => Ok(self.runtimes.rehearse(rehearsal).await?),
            Step::StopPods(step) => {
                let stopped = self.runtimes.stop_pods(&step.source, step).await?;
                tracing::info!(?stopped, runtime = %step.source.runtime, "ended the pods");
                Ok(())
            }
            Step::ClearPods(step) => {
                let cleared = self.runtimes.clear_pods(step).await?;
                tracing::info!(?cleared, runtime = %step.source.runtime, "removed what was left of the pods");
                Ok(())
            }
            Step::Kubelet(step) if step.run => {
                kubelet::start(self.files, self.systemd).await?;
                Ok(notes.armed()?)
            }
            Step::Kubelet(_) => kubelet::stop(self.files, self.systemd).await,
            Step::Await(step) if step.side == Side::Target => health::wait(self, step).await,
            Step::Await(_) => Ok(()),
        }
    }

    /// Takes `step` back; returns when everything is as `saved` says.
    pub(super) async fn undo(&self, step: &Step, saved: &Saved) -> Result<(), StepError> {
        match (step, saved) {
            (Step::File(step), Saved::File { file, missing_dirs }) => {
                file::undo(self.files, self.systemd, step, file.as_ref(), missing_dirs).await
            }
            (Step::Unit(step), Saved::Unit { active, links }) => {
                unit::undo(self.files, self.systemd, step, *active, links).await
            }
            (Step::Install(step), saved) => install::undo(self.files, self.systemd, step, saved).await,
            (Step::Images(step), Saved::Images { before }) => images::undo(self.runtimes, step, before).await,
            (Step::Rehearse(rehearsal), Saved::Nothing) => Ok(self.runtimes.end_rehearsal(rehearsal).await?),
            (Step::StopPods(step), Saved::Nothing) => {
                let stopped = self.runtimes.stop_pods(&step.target, step).await?;
                tracing::info!(?stopped, runtime = %step.target.runtime, "ended the pods");
                Ok(())
            }
            (Step::Kubelet(step), Saved::Unit { .. }) if step.run => {
                kubelet::stop(self.files, self.systemd).await
            }
            (Step::Kubelet(_), Saved::Unit { active, links }) => {
                kubelet::restore(self.files, self.systemd, *active, links).await
            }
            (Step::Await(step), Saved::Nothing) if step.side == Side::Source => {
                health::wait(self, step).await
            }
            (Step::ClearPods(_) | Step::Await(_), Saved::Nothing) => Ok(()),
            _ => Err(StepError::Mismatch),
        }
    }
}
