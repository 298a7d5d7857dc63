//! How long the executor waits, and what it journals of that.

use std::time::Duration;

use crate::executor::{journal::Event, unit};

/// How often order files are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How often the time that is left is journalled: a crash gives back at most this much.
const TICK: Duration = Duration::from_secs(5);
/// The same while the switch is confirmed and not committed, which may take days.
const SOAK_TICK: Duration = Duration::from_secs(300);
/// How often at the beginning of a life, of which there may be many. Each interval is as long as the life before it, so that
/// no life loses more than half of its time.
const FIRST_TICK: Duration = Duration::from_secs(1);
/// What a life costs at its beginning: systemd started it so long after the one before (`RestartSec=`).
pub(super) const BETWEEN_LIVES: Duration = unit::RESTARTS_AFTER;
/// The first and the longest pause between two tries to undo a step; each one is twice as long as the one before.
pub(super) const UNDO_PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));
/// How long the way back waits after a boot for a target that does not answer, before its pods end without it: then
/// it keeps records of them.
pub(super) const TARGET_BOOTED_WITHIN: Duration = Duration::from_secs(20);
/// Pause between two tries to apply a step while a runtime does not answer yet.
pub(super) const BOOT_PAUSE: Duration = Duration::from_secs(1);

/// How long sandboxes of the target that stick are tried again at the end of a rollback. The node serves meanwhile: so long an API
/// server that is a static pod of this node may take to come up.
pub(super) const UNSTUCK_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two tries of them.
pub(super) const UNSTUCK_PAUSE: Duration = Duration::from_secs(3);

/// How long after the last record of the time that is left the next one follows, in a life that is so old.
pub(super) fn tick(life: Duration, soaking: bool) -> Duration {
    life.clamp(FIRST_TICK, if soaking { SOAK_TICK } else { TICK })
}

/// The record of the time that is left: until the rollback, or after the confirmation until the commit.
pub(super) fn waiting(left: Duration, soaking: bool) -> Event {
    let left_millis = millis(left);
    if soaking {
        Event::Soaking { left_millis }
    } else {
        Event::Waiting { left_millis }
    }
}

/// Whole milliseconds, as many as a record can hold.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
