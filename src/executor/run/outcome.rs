//! How a run of the executor ends.

use std::io;

use crate::{
    executor::{control::ControlError, decide::End, journal::JournalError, unit::UnitError},
    plan::{digest::Digest, host_path::HostPath},
};

/// How a run of the executor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `Prepare` is done and `go` is not given.
    Prepared,
    /// It is over.
    Ended(End),
    /// A step could not be taken back; this is what is broken and what to do.
    Broken(String),
}

/// A run that could not go on. The host is as the journal says; starting the executor again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another executor runs.
    #[error("another transship executor runs on this host: {0} is locked")]
    Locked(HostPath),
    /// Nothing to carry out.
    #[error("{0} holds no plan.json")]
    NoPlan(HostPath),
    /// A plan for another host.
    #[error("the plan was made for the host with machine-id {planned}, this one is {found}; plan again")]
    OtherHost {
        /// The machine-id in the plan.
        planned: String,
        /// That of this host.
        found: String,
    },
    /// A journal of another plan.
    #[error(
        "the journal belongs to the plan {journal}, not to {plan}; put the old plan back, or remove the directory if nothing is half done"
    )]
    OtherPlan {
        /// The digest that the journal names.
        journal: Digest,
        /// The digest of the plan.
        plan: Digest,
    },
    /// A journal that this version cannot go on with.
    #[error("the journal has format {0}, which this version cannot read; start the binary that began it")]
    Format(u32),
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something cannot be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// See [`UnitError`].
    #[error(transparent)]
    Unit(#[from] UnitError),
}

impl RunError {
    /// Whether starting the executor again cannot help without a person.
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::NoPlan(_) | Self::OtherHost { .. } | Self::OtherPlan { .. } | Self::Format(_)
        )
    }
}
