//! `Unit`: what runs, and what starts at boot.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

use super::{Saved, StepError, aside::Aside, effective};
use crate::{
    host::{
        files::Files,
        systemd::{Systemd, SystemdError, Unit},
        unit_links::{self, UnitLink},
    },
    plan::step::{Boot, Restart, UnitStep},
};

/// How long a unit must stay active after it was started. One that dies at once has not read its configuration;
/// one that dies later is caught by the health check of the runtime.
pub(super) const STAYS: Duration = Duration::from_secs(1);

/// How long a unit that is being started may take until its state is noted.
const SETTLES: Duration = Duration::from_secs(60);
/// How often it is looked at.
const POLL: Duration = Duration::from_millis(200);

/// What undo needs, as soon as the unit is not being started any more: one that a boot starts, or has not come to yet, is
/// not off, and an undo that stopped it would take the runtime away in which pods run.
pub(super) async fn save(files: &Files, systemd: &impl Systemd, name: &str) -> Result<Saved, StepError> {
    let unit = settled(async || systemd.unit(name).await).await?;
    Ok(Saved::Unit {
        active: is_active(&unit) || unit.job,
        links: unit_links::of(files, name)?,
    })
}

async fn settled(look: impl AsyncFn() -> Result<Unit, SystemdError>) -> Result<Unit, SystemdError> {
    let until = Instant::now() + SETTLES;
    loop {
        let unit = look().await?;
        if unit.active != "activating" || Instant::now() >= until {
            return Ok(unit);
        }
        sleep(POLL).await;
    }
}

pub(super) async fn apply(files: &Files, systemd: &impl Systemd, step: &UnitStep) -> Result<(), StepError> {
    let unit = systemd.unit(&step.unit).await?;
    let masked = unit.boot.starts_with("masked");
    match step.boot {
        Some(boot @ (Boot::Enabled | Boot::Disabled)) => {
            if masked {
                systemd.unmask(&step.unit).await?;
            }
            if boot == Boot::Enabled {
                systemd.enable(&step.unit).await?;
            } else {
                systemd.disable(&step.unit).await?;
            }
        }
        Some(Boot::Masked) if !masked => {
            systemd.disable(&step.unit).await?;
            systemd.mask(&step.unit).await?;
        }
        Some(Boot::Masked) | None => {}
    }
    if step.boot.is_some() {
        // A crash may have come between the change and this.
        unit_links::settle(files)?;
    }
    let restart = step.restart.is_forwards();
    match step.active {
        Some(true) => {
            if start(systemd, &step.unit, restart).await? && step.restart != Restart::ForwardsAtOnce {
                stays(systemd, &step.unit).await?;
            }
            match &step.effective {
                Some(wanted) => effective::check(systemd, &step.unit, wanted).await,
                None => Ok(()),
            }
        }
        Some(false) => Ok(systemd.stop(&step.unit).await?),
        None if restart && is_active(&unit) => run(systemd, &step.unit, restart).await,
        None => Ok(()),
    }
}

pub(super) async fn undo(
    files: &Files,
    systemd: &impl Systemd,
    step: &UnitStep,
    active: bool,
    links: &[UnitLink],
    aside: &Aside,
) -> Result<Vec<String>, StepError> {
    let masked = unit_links::is_masked(links, &step.unit);
    // A step that leaves the links alone puts them back if somebody masked the unit since: it must start.
    let masked_since = || {
        Ok::<_, StepError>(unit_links::is_masked(
            &unit_links::of(files, &step.unit)?,
            &step.unit,
        ))
    };
    let restores = step.boot.is_some() || !masked && masked_since()?;
    if restores {
        make_way(files, links, aside)?;
    }
    if restores && !masked {
        restore_links(files, systemd, &step.unit, links).await?;
    }
    if !active {
        // A step that leaves the unit's state alone has not started it.
        if step.active.is_some() {
            systemd.stop(&step.unit).await?;
        }
    } else if step.restart == Restart::StoppedBackwards {
        systemd.stop(&step.unit).await?;
    } else if step.restart == Restart::Backwards {
        run(systemd, &step.unit, true).await?;
    } else if step.restart == Restart::StartedBackwards {
        run(systemd, &step.unit, false).await?;
    } else if step.active.is_some() && step.restart == Restart::Never {
        clear_socket(files, step)?;
        run(systemd, &step.unit, false).await?;
    }
    // One that was restarted forwards is left to the step that opened its bracket: its files are still the new
    // ones, with which it may be unable to start.
    if restores && masked {
        restore_links(files, systemd, &step.unit, links).await?;
    }
    let mut notes = Vec::new();
    for link in links {
        notes.extend(aside.note(files, &link.path)?);
    }
    Ok(notes)
}

/// Sets files of somebody else aside that lie where links were.
fn make_way(files: &Files, links: &[UnitLink], aside: &Aside) -> Result<(), StepError> {
    for link in links {
        if unit_links::is_displaced(files, link)? {
            aside.keep(files, &link.path)?;
            files.remove(&link.path)?;
        }
    }
    Ok(())
}

/// Removes the empty directory that lies where the unit listens, see [`UnitStep::socket`].
fn clear_socket(files: &Files, step: &UnitStep) -> Result<(), StepError> {
    let Some(socket) = &step.socket else { return Ok(()) };
    match files.remove_empty_dir(socket) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(()),
        cleared => Ok(cleared?),
    }
}

/// Makes the links of the unit what they were, and lets systemd read them.
pub(super) async fn restore_links(
    files: &Files,
    systemd: &impl Systemd,
    name: &str,
    links: &[UnitLink],
) -> Result<(), StepError> {
    unit_links::restore(files, name, links)?;
    Ok(systemd.reload().await?)
}

/// Starts (or, if asked for, restarts) the unit and looks whether it stays.
async fn run(systemd: &impl Systemd, name: &str, restart: bool) -> Result<(), StepError> {
    if start(systemd, name, restart).await? {
        stays(systemd, name).await?;
    }
    Ok(())
}

/// Starts (or, if asked for, restarts) the unit, and answers whether it did.
async fn start(systemd: &impl Systemd, name: &str, restart: bool) -> Result<bool, StepError> {
    let running = is_active(&systemd.unit(name).await?);
    if running && !restart {
        return Ok(false);
    }
    systemd.reset_failed(name).await?;
    if running {
        systemd.restart(name).await?;
    } else {
        systemd.start(name).await?;
    }
    Ok(true)
}

/// Looks whether a unit that was just started stays.
async fn stays(systemd: &impl Systemd, name: &str) -> Result<(), StepError> {
    let started = systemd.unit(name).await?;
    sleep(STAYS).await;
    let unit = systemd.unit(name).await?;
    // The process tells it, too: systemd before 235 does not count restarts.
    if is_active(&unit) && (unit.restarts, unit.main_pid) == (started.restarts, started.main_pid) {
        return Ok(());
    }
    let restarts = unit.restarts.saturating_sub(started.restarts);
    Err(StepError::Unstable {
        unit: name.to_owned(),
        seen: format!(
            "{}, restarted {restarts} times within {} s",
            unit.active,
            STAYS.as_secs()
        ),
    })
}

/// Whether the unit runs; one that is between two automatic restarts does not.
pub(super) fn is_active(unit: &Unit) -> bool {
    matches!(unit.active.as_str(), "active" | "reloading" | "refreshing")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// systemd starts what is enabled at a boot, and the executor may look in the middle of it.
    #[tokio::test(start_paused = true)]
    async fn the_state_of_a_unit_is_noted_when_it_is_not_being_started_any_more() {
        for (starts, looks) in [
            (0, 1),
            (4, 5),
            (u64::MAX, 1 + SETTLES.as_millis() / POLL.as_millis()),
        ] {
            let looked = Cell::new(0);
            let look = async || {
                looked.set(looked.get() + 1);
                let active = if looked.get() > starts {
                    "active"
                } else {
                    "activating"
                };
                Ok(Unit {
                    active: active.to_owned(),
                    ..Unit::default()
                })
            };
            settled(look).await.unwrap();
            assert_eq!(u128::from(looked.get()), looks);
        }
    }
}
