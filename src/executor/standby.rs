//! Waiting for `go`. A node that is prepared serves as before, but it may be cordoned, and what was prepared takes
//! space. If nobody orders the switch in time, because the agent, its objects or the whole cluster is gone, the
//! preparation is undone without them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    control::{ControlError, Dir, Order},
    run::RunError,
};
use crate::host::watchdog::Watchdog;

/// How often order files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the time that is left is written down: a crash gives back at most this much. Time while the machine is off
/// does not count.
const TICK: Duration = Duration::from_secs(15);

/// Waits until an order is there. When the plan's time is over it gives [`Order::Lapse`] itself.
///
/// # Errors
/// When the directory cannot be read or written.
pub async fn wait(dir: &Dir) -> Result<(), RunError> {
    let plan = dir.plan()?.ok_or_else(|| RunError::NoPlan(dir.path().clone()))?;
    let digest = plan.digest();
    let whole = Duration::from_secs(plan.prepared_for_secs.into());
    let left = dir.standby(&digest)?.unwrap_or(whole).min(whole);
    tracing::info!(
        seconds = left.as_secs(),
        "prepared; waits for the order to switch"
    );
    let deadline = Instant::now() + left;
    let mut ticked = Instant::now();
    let watchdog = Watchdog::of_this_process();
    dir.write_standby(&digest, left)?;
    loop {
        watchdog.alive();
        if ordered(dir, &digest)? {
            return Ok(());
        }
        let now = Instant::now();
        if now >= deadline {
            tracing::warn!("nobody ordered the switch in time");
            return Ok(dir.order(Order::Lapse, &digest)?);
        }
        if ticked.elapsed() >= TICK {
            ticked = now;
            dir.write_standby(&digest, deadline - now)?;
        }
        sleep(LOOK.min(deadline - now)).await;
    }
}

fn ordered(dir: &Dir, plan: &crate::plan::digest::Digest) -> Result<bool, ControlError> {
    for order in [Order::Go, Order::Abort, Order::Undo, Order::Lapse] {
        if dir.ordered(order, plan)? {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::files::Files,
        plan::{digest::Digest, document::Plan},
    };

    fn prepared() -> (tempfile::TempDir, Dir, Digest) {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::new(&Files::new(root.path()), "m1-1").unwrap();
        let mut plan: Plan = serde_json::from_str(include_str!("../../tests/support/plan.json")).unwrap();
        plan.prepared_for_secs = 900;
        dir.write_plan(&plan).unwrap();
        let digest = plan.digest();
        (root, dir, digest)
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_ends_the_wait() {
        let (_root, dir, digest) = prepared();
        dir.order(Order::Go, &digest).unwrap();
        wait(&dir).await.unwrap();
        assert!(!dir.ordered(Order::Lapse, &digest).unwrap());
    }

    /// Every life is cut short, and all of them together use the time up.
    #[tokio::test(start_paused = true)]
    async fn without_an_order_the_time_runs_out_over_all_lives() {
        let (_root, dir, digest) = prepared();
        let mut lives = 0;
        let began = Instant::now();
        while !dir.ordered(Order::Lapse, &digest).unwrap() {
            lives += 1;
            let life = tokio::time::timeout(Duration::from_secs(100), wait(&dir)).await;
            assert!(life.is_err() || dir.ordered(Order::Lapse, &digest).unwrap());
            assert!(lives < 100, "the time never runs out");
        }
        let took = began.elapsed().as_secs();
        assert!(
            lives > 5 && (900..900 + u64::try_from(lives).unwrap() * 15 + 15).contains(&took),
            "{lives}: {took}"
        );
    }

    /// What was left of another plan's time is not this plan's.
    #[tokio::test(start_paused = true)]
    async fn another_plan_has_its_own_time() {
        let (_root, dir, digest) = prepared();
        dir.write_standby(&Digest::of("other"), Duration::from_secs(1))
            .unwrap();
        assert_eq!(dir.standby(&digest).unwrap(), None);
        let began = Instant::now();
        wait(&dir).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(900));
    }
}
