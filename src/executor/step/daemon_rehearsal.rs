//! `RehearseDaemon`: a daemon that is tried next to the one that serves. It runs as a unit of its own below `/run`, so it is gone
//! after a boot, and in a mount namespace of its own, so its mounts go with its processes.

use super::{Host, StepError, health};
use crate::{
    host::systemd::Systemd,
    plan::{
        host_path::{HostPath, NotAHostPath},
        paths::{REHEARSAL_ROOT, REHEARSAL_STATE},
        step::{AwaitStep, DaemonRehearsal, Side},
    },
    runtime::Runtimes,
};

/// Its unit.
const UNIT: &str = "transship-rehearsal.service";
/// How long the daemon may take to answer.
const ANSWERS_WITHIN_SECS: u32 = 60;
/// When systemd ends it, whatever has become of the executor.
const ENDS_AFTER_SECS: u32 = 600;

struct Places {
    unit: HostPath,
    root: HostPath,
    state: HostPath,
    configuration: HostPath,
}

fn places() -> Result<Places, NotAHostPath> {
    let root = HostPath::new(REHEARSAL_ROOT)?;
    Ok(Places {
        unit: HostPath::new(format!("/run/systemd/system/{UNIT}"))?,
        configuration: root.join("config.toml")?,
        state: HostPath::new(REHEARSAL_STATE)?,
        root,
    })
}

/// The unit. Nothing of it outlives its processes: shims are in its cgroup, mounts in its namespace.
fn text(step: &DaemonRehearsal, configuration: &HostPath) -> String {
    format!(
        "# Written by transship for a rehearsal. It is removed when the rehearsal is over.\n\
         [Unit]\n\
         Description=Transship tries {program} next to the daemon that serves\n\
         \n\
         [Service]\n\
         Type=notify\n\
         {search_path}\n\
         ExecStart={program} --config {configuration}\n\
         MountFlags=slave\n\
         Delegate=yes\n\
         KillMode=control-group\n\
         TimeoutStartSec={ANSWERS_WITHIN_SECS}\n\
         TimeoutStopSec=20\n\
         RuntimeMaxSec={ENDS_AFTER_SECS}\n\
         TasksMax=infinity\n",
        program = step.program,
        search_path = step.search_path,
    )
}

/// Tries it, and leaves nothing behind in either case.
pub(super) async fn apply<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    step: &DaemonRehearsal,
) -> Result<(), StepError> {
    clear(host, step).await?;
    let tried = attempt(host, step).await;
    let cleared = clear(host, step).await;
    tried?;
    cleared
}

async fn attempt<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    step: &DaemonRehearsal,
) -> Result<(), StepError> {
    let places = places()?;
    // It may name credentials of registries.
    host.files
        .write(&places.configuration, step.configuration.as_bytes(), 0o600)?;
    host.files
        .write(&places.unit, text(step, &places.configuration).as_bytes(), 0o644)?;
    host.systemd.reload().await?;
    host.systemd.start(UNIT).await?;
    let wait = AwaitStep {
        side: Side::Target,
        runtime: step.sandbox.cri.clone(),
        // The program has said its version when it was unpacked.
        version: None,
        configuration: None,
        kubelet: None,
        within_secs: ANSWERS_WITHIN_SECS,
    };
    health::wait(host, &wait).await?;
    let cri = &step.sandbox.cri;
    host.runtimes
        .bring_sandbox_image(cri, &step.ctr, &places.root, &step.sandbox_image)
        .await?;
    Ok(host.runtimes.rehearse(&step.sandbox).await?)
}

/// Ends what an attempt has left: its sandbox while the daemon answers, its processes, its files.
pub(super) async fn clear<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    step: &DaemonRehearsal,
) -> Result<(), StepError> {
    let places = places()?;
    if host.files.exists(&places.unit)? {
        let unit = host.systemd.unit(UNIT).await?;
        if unit.active == "active"
            && let Err(error) = host.runtimes.end_rehearsal(&step.sandbox).await
        {
            tracing::warn!(%error, "the sandbox ends with the daemon");
        }
        host.systemd.stop(UNIT).await?;
        host.systemd.reset_failed(UNIT).await?;
        host.files.remove(&places.unit)?;
        host.systemd.reload().await?;
    }
    for directory in [&places.root, &places.state] {
        host.files.remove_tree(directory)?;
    }
    Ok(())
}
