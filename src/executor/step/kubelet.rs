//! `Kubelet`: stop or start it. Between the two the hold keeps everybody else from starting it half-switched: it
//! is placed before the kubelet is stopped, and lifted by nobody but the executor, right before the start.

use std::time::Duration;

use tokio::time::timeout;

use super::{Saved, StepError, unit};
use crate::{
    host::{
        files::Files,
        systemd::Systemd,
        unit_links::{self, UnitLink},
    },
    plan::{
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
};

#[allow(clippy::expect_used, reason = "a constant")]
fn hold() -> HostPath {
    HostPath::new(HOLD_FILE).expect("an absolute path")
}

/// How long the kubelet may take to exit on the way back. One whose runtime does not answer waits for it, and systemd
/// kills it only after its own time-out (90 s).
const EXITS_WITHIN: Duration = Duration::from_secs(10);

/// What undo needs. A kubelet that a boot has not come to yet, or that systemd starts again and again, is not off: a node
/// whose kubelet stayed stopped would be lost.
pub(super) async fn save(files: &Files, systemd: &impl Systemd) -> Result<Saved, StepError> {
    let kubelet = systemd.unit(KUBELET_UNIT).await?;
    Ok(Saved::Unit {
        active: unit::is_active(&kubelet) || kubelet.active == "activating" || kubelet.job,
        links: unit_links::of(files, KUBELET_UNIT)?,
    })
}

/// Places the hold and stops the kubelet. systemd has read the drop-in: the step that wrote it saw to that.
pub(super) async fn stop(files: &Files, systemd: &impl Systemd) -> Result<(), StepError> {
    files.write(
        &hold(),
        b"the container runtime of this node is being switched\n",
        0o644,
    )?;
    Ok(systemd.stop(KUBELET_UNIT).await?)
}

/// The same on the way back: a kubelet that does not exit soon is killed. It loses nothing: the hold keeps it away, and
/// its pods are ended without it.
pub(super) async fn stop_soon(files: &Files, systemd: &impl Systemd) -> Result<(), StepError> {
    let mut stopping = std::pin::pin!(stop(files, systemd));
    if let Ok(stopped) = timeout(EXITS_WITHIN, &mut stopping).await {
        return stopped;
    }
    tracing::warn!(
        "the kubelet does not exit within {} s; it is killed",
        EXITS_WITHIN.as_secs()
    );
    if let Err(error) = systemd.kill(KUBELET_UNIT).await {
        tracing::warn!(%error, "the kubelet could not be killed");
    }
    stopping.await
}

/// Lifts the hold and starts the kubelet. A kubelet that runs already (or tries to) is restarted: somebody got past the
/// hold, whose drop-in anybody may overwrite, and it runs with files of both sides.
pub(super) async fn start(files: &Files, systemd: &impl Systemd) -> Result<(), StepError> {
    files.remove(&hold())?;
    systemd.reset_failed(KUBELET_UNIT).await?;
    let kubelet = systemd.unit(KUBELET_UNIT).await?;
    let started = match kubelet.active.as_str() {
        "inactive" | "failed" => systemd.start(KUBELET_UNIT).await,
        _ => systemd.restart(KUBELET_UNIT).await,
    };
    Ok(started?)
}

/// Lifts the hold and makes the kubelet what it was before it was stopped.
pub(super) async fn restore(
    files: &Files,
    systemd: &impl Systemd,
    active: bool,
    links: &[UnitLink],
) -> Result<(), StepError> {
    unit::restore_links(files, systemd, KUBELET_UNIT, links).await?;
    if active {
        return start(files, systemd).await;
    }
    systemd.stop(KUBELET_UNIT).await?;
    Ok(files.remove(&hold())?)
}
