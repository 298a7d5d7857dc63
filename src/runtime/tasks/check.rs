//! What has become of the containers that ran before a restart of containerd, and what the restart did not remove.

use std::{collections::BTreeSet, time::Duration};

use k8s_cri::v1::{ContainerState, PodSandboxState};
use tokio::time::sleep;

use super::{boot, bundles, started};
use crate::{
    host::{files::Files, process::Process},
    plan::{host_path::HostPath, lists},
    runtime::{
        RuntimeError, Task, Tasks,
        cni_del::attachments_everywhere,
        cri::Cri,
        pods::{bundles::OWN, process::Processes},
    },
};

/// Between two looks at shims: one that has just been started has no container yet.
const SHIM_STARTS_WITHIN: Duration = Duration::from_secs(2);

/// Compares with what was noted, and removes what is left behind. Returns a sentence for what is gone and for what stays.
///
/// # Errors
/// When containerd does not answer.
pub(in crate::runtime) async fn check(
    files: &Files,
    cri: &Cri,
    noted: &Tasks,
) -> Result<Vec<String>, RuntimeError> {
    let mut left = Vec::new();
    // After a boot every pod is started again.
    if noted.boot == boot(files) {
        left.extend(gone(files, cri, &noted.running).await?);
    }
    left.extend(sandboxes(files, cri).await?);
    left.extend(shims(files).await);
    Ok(left)
}

/// The containers that do not run on, in a sentence.
async fn gone(files: &Files, cri: &Cri, noted: &[Task]) -> Result<Option<String>, RuntimeError> {
    let mut ended = BTreeSet::new();
    for container in cri.containers().await? {
        if container.state() == ContainerState::ContainerExited {
            ended.insert(container.id);
        }
    }
    let gone: Vec<String> = noted
        .iter()
        .filter(|task| started(files, task.pid) != Some(task.started) || ended.contains(&task.id))
        .map(|task| task.id.clone())
        .collect();
    Ok((!gone.is_empty()).then(|| {
        format!(
            "{} of {} containers do not run on; the kubelet starts them again: {}",
            gone.len(),
            noted.len(),
            lists::some(&gone)
        )
    }))
}

/// Takes the sandboxes that are not ready off the pod network, where they still hold an address of it.
async fn sandboxes(files: &Files, cri: &Cri) -> Result<Vec<String>, RuntimeError> {
    let (attached, _) = attachments_everywhere(files);
    let mut left = Vec::new();
    for sandbox in cri.sandboxes().await? {
        if sandbox.state() == PodSandboxState::SandboxReady || !attached.contains_key(&sandbox.id) {
            continue;
        }
        if let Err(error) = cri.stop_sandbox(&sandbox.id).await {
            left.push(format!("sandbox {} keeps its address: {error}", sandbox.id));
        }
    }
    Ok(left)
}

/// Ends the shims that serve no container: those without a bundle and without a child, in two looks.
async fn shims(files: &Files) -> Vec<String> {
    let first = childless(files);
    if first.is_empty() {
        return Vec::new();
    }
    sleep(SHIM_STARTS_WITHIN).await;
    let mut left = Vec::new();
    for id in childless(files).intersection(&first) {
        if let Err(error) = Processes(files).end_shim(OWN, id).await {
            left.push(error.to_string());
        }
    }
    left
}

/// The sandboxes of shims without a bundle and without a child.
fn childless(files: &Files) -> BTreeSet<String> {
    let bundles: BTreeSet<String> = bundles(files).into_iter().map(|bundle| bundle.id).collect();
    let mut shims = Processes(files).shims(OWN);
    shims.retain(|id, _| !bundles.contains(id));
    if shims.is_empty() {
        return BTreeSet::new();
    }
    let parents = parents(files);
    shims.retain(|_, pids| pids.iter().all(|pid| !parents.contains(pid)));
    shims.into_keys().collect()
}

/// The processes that have a child.
fn parents(files: &Files) -> BTreeSet<u32> {
    let pids = HostPath::new("/proc").map(|proc| files.list(&proc).unwrap_or_default());
    let pids = pids.unwrap_or_default().into_iter();
    pids.filter_map(|pid| Some(Process::of(files, pid.parse().ok()?)?.parent))
        .collect()
}
