//! `Kubelet`: stop or start it. Between the two the hold keeps everybody else from starting it half-switched: it
//! is placed before the kubelet is stopped, and lifted by nobody but the executor, right before the start.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Host, Notes, Saved, StepError, unit};
use crate::{
    executor::journal::PartState,
    host::{
        files::Files,
        process::Process,
        systemd::{Systemd, is_of_a_boot},
        unit_links::{self, UnitLink},
    },
    plan::{
        host_path::HostPath,
        step::{Endpoint, HOLD_FILE, KUBELET_UNIT},
    },
    runtime::{Quiet, Runtimes},
};

#[allow(clippy::expect_used, reason = "a constant")]
fn hold() -> HostPath {
    HostPath::new(HOLD_FILE).expect("an absolute path")
}

/// How long the kubelet may take to exit on the way back. One whose runtime does not answer waits for it, and systemd
/// kills it only after its own time-out (90 s).
const EXITS_WITHIN: Duration = Duration::from_secs(10);
/// How long a kubelet that was just started may take until it creates its pods.
const BEGINS_WITHIN: Duration = Duration::from_secs(15);
/// How long nothing of a pod must have appeared before the kubelet is stopped.
const STILL_FOR: Duration = Duration::from_secs(1);
/// How long the kubelet may take to finish the pods that it is creating.
const FINISHES_WITHIN: Duration = Duration::from_secs(60);
/// The same on the way back.
const FINISHES_SOON: Duration = Duration::from_secs(30);
/// The key of the moment at which the kubelet is stopped.
const STOPS: &str = "stops";

/// What undo needs. A kubelet that a boot has not come to yet, or that systemd starts again and again, is not off: a node
/// whose kubelet stayed stopped would be lost.
pub(super) async fn save(files: &Files, systemd: &impl Systemd) -> Result<Saved, StepError> {
    let kubelet = systemd.unit(KUBELET_UNIT).await?;
    Ok(Saved::Unit {
        active: unit::is_active(&kubelet) || kubelet.active == "activating" || kubelet.job,
        links: unit_links::of(files, KUBELET_UNIT)?,
    })
}

/// Stops the kubelet of a runtime, as soon as it is creating no pod.
pub(super) async fn stop_when_quiet<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    runtime: &Endpoint,
    notes: &impl Notes,
) -> Result<(), StepError> {
    finish_pods(host, runtime, FINISHES_WITHIN).await?;
    notes.part(STOPS, PartState::Begun)?;
    stop(host.files, host.systemd).await
}

/// Waits until the kubelet, if it runs, is creating no pod. It is not waited for without end, for nothing but an address of the pod
/// network is at stake: a pod that cannot be started is created again and again.
async fn finish_pods<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    runtime: &Endpoint,
    within: Duration,
) -> Result<(), StepError> {
    let kubelet = host.systemd.unit(KUBELET_UNIT).await?;
    if !unit::is_active(&kubelet) {
        return Ok(());
    }
    let process = Process::of(host.files, kubelet.main_pid);
    let age = process.and_then(|process| process.age(host.files));
    sleep(BEGINS_WITHIN.saturating_sub(age.unwrap_or(BEGINS_WITHIN))).await;
    let quiet = Quiet {
        still_for: STILL_FOR,
        within,
    };
    if let Err(error) = host.runtimes.quiet(runtime, quiet).await {
        tracing::warn!(%error, "the kubelet is stopped all the same");
    }
    Ok(())
}

/// Places the hold and stops the kubelet. systemd has read the drop-in: the step that wrote it saw to that.
async fn stop(files: &Files, systemd: &impl Systemd) -> Result<(), StepError> {
    files.write(
        &hold(),
        b"the container runtime of this node is being switched\n",
        0o644,
    )?;
    Ok(systemd.stop(KUBELET_UNIT).await?)
}

/// The same on the way back, which waits for pods after a boot only: it is then that the kubelet creates all of them. One that
/// does not exit soon is killed. It loses nothing: the hold keeps it away, and its pods are ended without it.
pub(super) async fn stop_soon<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    runtime: &Endpoint,
) -> Result<(), StepError> {
    let systemd = host.systemd;
    if is_of_a_boot(systemd, KUBELET_UNIT).await? {
        finish_pods(host, runtime, FINISHES_SOON).await?;
    }
    let mut stopping = std::pin::pin!(stop(host.files, systemd));
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
/// hold, whose drop-in anybody may overwrite, and it runs with files of both sides; or a boot came right after the hold was
/// lifted, and it is creating its pods under this runtime.
pub(super) async fn start<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    runtime: &Endpoint,
) -> Result<(), StepError> {
    let systemd = host.systemd;
    host.files.remove(&hold())?;
    systemd.reset_failed(KUBELET_UNIT).await?;
    let kubelet = systemd.unit(KUBELET_UNIT).await?;
    if matches!(kubelet.active.as_str(), "inactive" | "failed") {
        return Ok(systemd.start(KUBELET_UNIT).await?);
    }
    finish_pods(host, runtime, FINISHES_SOON).await?;
    Ok(systemd.restart(KUBELET_UNIT).await?)
}

/// Lifts the hold and makes the kubelet what it was before it was stopped.
pub(super) async fn restore<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    runtime: &Endpoint,
    active: bool,
    links: &[UnitLink],
    notes: &impl Notes,
) -> Result<(), StepError> {
    if active && !notes.parts().contains_key(STOPS) {
        // It was waited for, and never stopped.
        return Ok(());
    }
    unit::restore_links(host.files, host.systemd, KUBELET_UNIT, links).await?;
    if active {
        return start(host, runtime).await;
    }
    host.systemd.stop(KUBELET_UNIT).await?;
    Ok(host.files.remove(&hold())?)
}
