//! `Await`: ask the systems themselves until they report that they are healthy, and keep reporting it.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Host, StepError, unit};
use crate::{
    host::systemd::Systemd,
    plan::{
        step::{AwaitStep, KUBELET_UNIT, KubeletWant},
        version,
    },
    runtime::Runtimes,
};

/// Time between two looks at a kubelet.
const POLL: Duration = Duration::from_millis(250);
/// Time between two looks at a runtime alone: the kubelet's start may wait for it.
const POLL_RUNTIME: Duration = Duration::from_millis(50);

/// What identifies a run of the kubelet: its process and its automatic restarts.
type Run = (u32, u32);

/// Waits until runtime and kubelet are well, and until the kubelet stays so, without a restart in between.
pub(super) async fn wait<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    step: &AwaitStep,
) -> Result<(), StepError> {
    let deadline = Instant::now() + Duration::from_secs(step.within_secs.into());
    let poll = if step.kubelet.is_some() {
        POLL
    } else {
        POLL_RUNTIME
    };
    let mut seen = "nothing answered".to_owned();
    let mut well: Option<(Run, Instant)> = None;
    loop {
        match timeout_at(deadline, look(host, step)).await {
            Ok(Ok(None)) => return Ok(()),
            Ok(Ok(Some(run))) => match well {
                Some((before, since)) if before == run => {
                    if since.elapsed() >= unit::STAYS {
                        return Ok(());
                    }
                }
                _ => well = Some((run, Instant::now())),
            },
            Ok(Err(what)) => {
                well = None;
                seen = what;
            }
            Err(_) => {
                return Err(StepError::Unhealthy {
                    within_secs: step.within_secs,
                    seen,
                });
            }
        }
        if Instant::now() + poll >= deadline {
            return Err(StepError::Unhealthy {
                within_secs: step.within_secs,
                seen,
            });
        }
        sleep(poll).await;
    }
}

/// Looks once, and answers which run of the kubelet is well, where one is looked at; what is not well is said in words.
async fn look<S: Systemd, R: Runtimes>(
    host: &Host<'_, S, R>,
    step: &AwaitStep,
) -> Result<Option<Run>, String> {
    let name = step.runtime.runtime;
    let health = host
        .runtimes
        .health(&step.runtime)
        .await
        .map_err(|error| format!("{name}: {error}"))?;
    if !health.ready {
        return Err(format!("{name} {} says that it is not ready", health.version));
    }
    if !health.network_ready {
        return Err(format!(
            "{name} {} says that its pod network is not ready",
            health.version
        ));
    }
    if let Some(planned) = &step.version
        && let (Some(found), Some(wanted)) = (version::upstream(&health.version), version::upstream(planned))
        && found != wanted
    {
        return Err(format!(
            "{name} {} answers, and {planned} was planned",
            health.version
        ));
    }
    let Some(KubeletWant { endpoint }) = &step.kubelet else {
        return Ok(None);
    };
    let unit = host
        .systemd
        .unit(KUBELET_UNIT)
        .await
        .map_err(|error| error.to_string())?;
    if !unit::is_active(&unit) || unit.main_pid == 0 {
        return Err(format!(
            "{KUBELET_UNIT} is {}; see `journalctl -u {KUBELET_UNIT}`",
            unit.active
        ));
    }
    let kubelet = host
        .runtimes
        .kubelet(unit.main_pid)
        .await
        .map_err(|error| error.to_string())?;
    if kubelet.endpoint != *endpoint {
        let word = |named: &Option<String>| named.clone().unwrap_or_else(|| "no endpoint".to_owned());
        return Err(format!(
            "the kubelet's flags and configuration name {}, not {}",
            word(&kubelet.endpoint),
            word(endpoint)
        ));
    }
    if !kubelet.healthy {
        return Err("the kubelet's /healthz does not answer ok".to_owned());
    }
    Ok(Some((unit.main_pid, unit.restarts)))
}
