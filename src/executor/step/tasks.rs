//! `Tasks`: watch over the containers that run on while their runtime is restarted.

use std::time::Duration;

use super::{Notes, StepError};
use crate::{
    executor::journal::PartState,
    plan::step::{Direction, TasksStep},
    runtime::{Quiet, Runtimes},
};

/// What the containers are noted under.
const KEY: &str = "running";
/// What the programs of their shims are noted under.
const SHIMS: &str = "shims";
/// How long the way back waits until no pod is being created, in seconds: it goes on in either case.
const QUIET_BACKWARDS_SECS: u32 = 30;
/// How long nothing new must have appeared: the kubelet makes one thing of a pod after the other.
const STILL_FOR: Duration = Duration::from_secs(4);

pub(super) async fn apply(
    runtimes: &impl Runtimes,
    step: &TasksStep,
    notes: &impl Notes,
) -> Result<(), StepError> {
    if step.is_before(Direction::Forwards) {
        runtimes.quiet(&step.cri, quiet(step.quiet_within_secs)).await?;
        for repaired in runtimes.repair_tasks().await? {
            tracing::warn!("{repaired}");
        }
        return note(runtimes, notes).await;
    }
    let noted = notes.running().unwrap_or_default();
    notes.left(&runtimes.check_tasks(&step.cri, &noted).await?)?;
    match runtimes.shims().await {
        Ok(programs) => notes.part(SHIMS, PartState::Shims { programs })?,
        Err(error) => tracing::warn!(%error, "the shims of the containers are not counted"),
    }
    if step.arms {
        notes.armed()?;
    }
    Ok(())
}

/// The same on the way back, where nothing of it may keep the node from its source.
pub(super) async fn undo(
    runtimes: &impl Runtimes,
    step: &TasksStep,
    notes: &impl Notes,
) -> Result<Vec<String>, StepError> {
    if step.is_before(Direction::Backwards) {
        let within = step.quiet_within_secs.min(QUIET_BACKWARDS_SECS);
        if let Err(error) = runtimes.quiet(&step.cri, quiet(within)).await {
            tracing::warn!(%error, "the rollback continues all the same");
        }
        match runtimes.repair_tasks().await {
            Ok(repaired) => repaired.iter().for_each(|repaired| tracing::warn!("{repaired}")),
            Err(error) => tracing::warn!(%error, "it was not looked for processes outside of their cgroups"),
        }
        note(runtimes, notes).await?;
        return Ok(Vec::new());
    }
    let noted = notes.running().unwrap_or_default();
    Ok(runtimes.check_tasks(&step.cri, &noted).await?)
}

fn quiet(within_secs: u32) -> Quiet {
    Quiet {
        still_for: STILL_FOR,
        within: Duration::from_secs(within_secs.into()),
    }
}

async fn note(runtimes: &impl Runtimes, notes: &impl Notes) -> Result<(), StepError> {
    let running = runtimes.tasks().await?;
    Ok(notes.part(KEY, PartState::Running(running))?)
}
