//! `Kubelet`: stop or start it. Between the two the hold keeps everybody else from starting it half-switched: it
//! is placed before the kubelet is stopped, and lifted by nobody but the executor, right before the start.

use super::{StepError, unit};
use crate::{
    host::{files::Files, systemd::Systemd, unit_links::UnitLink},
    plan::{
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
};

#[allow(clippy::expect_used, reason = "a constant")]
fn hold() -> HostPath {
    HostPath::new(HOLD_FILE).expect("an absolute path")
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

/// Lifts the hold and starts the kubelet.
pub(super) async fn start(files: &Files, systemd: &impl Systemd) -> Result<(), StepError> {
    files.remove(&hold())?;
    systemd.reset_failed(KUBELET_UNIT).await?;
    Ok(systemd.start(KUBELET_UNIT).await?)
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
    Ok(files.remove(&hold())?)
}
