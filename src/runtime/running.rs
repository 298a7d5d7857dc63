//! The pods of a runtime as they run now.

use std::collections::BTreeMap;

use k8s_cri::v1::{ContainerState, PodSandboxState};

use super::{RuntimeError, cri::Cri};

/// Longest message of a container that ended, in characters.
const LONGEST: usize = 200;

/// A pod with a sandbox that is ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunningPod {
    /// UID of the pod.
    pub uid: String,
    /// The containers in that sandbox, by name; of each the newest.
    pub containers: BTreeMap<String, PodContainer>,
}

/// The newest of the containers that a pod has by one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodContainer {
    /// Its id.
    pub id: String,
    /// How it is.
    pub state: PodContainerState,
}

/// How a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodContainerState {
    /// It runs.
    Runs,
    /// It was made and not started yet.
    Made,
    /// It has ended.
    Ended,
}

/// The pods that have a sandbox that is ready.
///
/// # Errors
/// When the runtime does not answer in time.
pub(super) async fn running(cri: &Cri) -> Result<Vec<RunningPod>, RuntimeError> {
    let (sandboxes, mut containers) = tokio::try_join!(cri.sandboxes(), cri.containers())?;
    let mut pods: BTreeMap<String, RunningPod> = sandboxes
        .into_iter()
        .filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady)
        .map(|sandbox| {
            let pod = RunningPod {
                uid: sandbox.metadata.unwrap_or_default().uid,
                containers: BTreeMap::new(),
            };
            (sandbox.id, pod)
        })
        .collect();
    containers.sort_by_key(|container| container.created_at);
    for container in containers {
        let Some(pod) = pods.get_mut(&container.pod_sandbox_id) else {
            continue;
        };
        let state = match container.state() {
            ContainerState::ContainerRunning => PodContainerState::Runs,
            ContainerState::ContainerCreated => PodContainerState::Made,
            ContainerState::ContainerExited | ContainerState::ContainerUnknown => PodContainerState::Ended,
        };
        let name = container.metadata.unwrap_or_default().name;
        let id = container.id;
        pod.containers.insert(name, PodContainer { id, state });
    }
    Ok(pods.into_values().collect())
}

/// How a container has ended, in the words of its runtime (`exit code 128: StartError: …`); empty if it is gone or runs.
///
/// # Errors
/// When the runtime does not answer in time.
pub(super) async fn why_ended(cri: &Cri, id: &str) -> Result<String, RuntimeError> {
    let Some((code, reason, message)) = cri.ended(id).await? else {
        return Ok(String::new());
    };
    let message = message.lines().next().unwrap_or_default();
    let message: String = message.chars().take(LONGEST).collect();
    let words = [format!("exit code {code}"), reason, message];
    let given: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    Ok(given.join(": "))
}
