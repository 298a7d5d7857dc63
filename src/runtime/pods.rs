//! Ends the pods of one runtime: every container gets its stop signal, its grace period up to a limit, and SIGKILL;
//! then its sandbox leaves the network and is removed. What the pods are, and how they end, is a [`Server`]'s to say:
//!
//! - [`dockershim`]: pods in Docker Engine, of which the server, a part of the kubelet, has stopped already.
//! - [`over_cri`]: pods behind a CRI, which has its own way to end them.
//!
//! preStop hooks are the kubelet's; it is stopped, and pods that were drained have had theirs.

pub mod dockershim;
pub mod over_cri;

use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use tokio::time::sleep;

use super::{RuntimeError, Stopped};

/// Annotation of the kubelet on each container: its pod's grace period in seconds (`kuberuntime/labels.go`).
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// How many pods, and how many containers of one pod, end at the same time. A kubelet runs 110 pods by default.
const AT_ONCE: usize = 128;
/// How long what was told to go may still be listed.
const GONE_WITHIN: Duration = Duration::from_secs(15);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);

/// When a pod ends, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wave {
    /// Pods in the pod network.
    Ordinary,
    /// Pods in the host's network: network agents, which serve the others to their end.
    HostNetwork,
    /// etcd and the API server, which network agents may ask while they end.
    ControlPlane,
}

impl Wave {
    /// The wave of a pod.
    fn of(host_network: bool, namespace: &str, name: &str) -> Self {
        let serves_the_cluster = name.starts_with("etcd") || name.starts_with("kube-apiserver");
        match host_network {
            false => Self::Ordinary,
            true if namespace == "kube-system" && serves_the_cluster => Self::ControlPlane,
            true => Self::HostNetwork,
        }
    }
}

/// A pod to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Id of its sandbox.
    pub sandbox: String,
    /// `namespace/name`, for messages.
    pub name: String,
    /// When it ends.
    pub wave: Wave,
    /// Its containers.
    pub containers: Vec<Container>,
}

/// A container to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Whether it runs.
    pub running: bool,
    /// Seconds between its stop signal and SIGKILL.
    pub grace_secs: u32,
}

/// Whoever made the pods, or acts in its place.
#[allow(async_fn_in_trait, reason = "used on one thread, by static dispatch")]
pub trait Server {
    /// All its pods, running or not, and no others.
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError>;
    /// Ends a container.
    async fn stop_container(&self, container: &Container) -> Result<(), RuntimeError>;
    /// Removes a container.
    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError>;
    /// Takes a sandbox off the network and removes it; says what of its network is left.
    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError>;
}

/// Seconds that a container gets: its pod's own period, cut to the limit.
fn grace(own: Option<&String>, limit_secs: u32) -> u32 {
    own.and_then(|own| own.parse().ok())
        .map_or(limit_secs, |own: u32| own.min(limit_secs))
}

/// Ends and removes all pods of a server, wave by wave. May be called again after a crash in the middle.
///
/// # Errors
/// When a pod is still there at the end, with the first cause.
pub async fn end_all(server: &impl Server) -> Result<Stopped, RuntimeError> {
    let pods = server.pods().await?;
    let (mut stopped, mut causes) = (Stopped::default(), Vec::new());
    for wave in [Wave::Ordinary, Wave::HostNetwork, Wave::ControlPlane] {
        let these = pods.iter().filter(|pod| pod.wave == wave);
        let mut ends = stream::iter(these.map(|pod| end(server, pod))).buffer_unordered(AT_ONCE);
        while let Some((part, failed)) = ends.next().await {
            stopped.ended += part.ended;
            stopped.killed += part.killed;
            stopped.sandboxes += part.sandboxes;
            stopped.left.extend(part.left);
            causes.extend(failed);
        }
    }
    let until = Instant::now() + GONE_WITHIN;
    loop {
        let left = server.pods().await?;
        if left.is_empty() {
            return Ok(stopped);
        }
        if Instant::now() >= until || !causes.is_empty() {
            let names: Vec<&str> = left.iter().map(|pod| pod.name.as_str()).collect();
            let cause = causes
                .first()
                .map_or("the runtime gave no reason", |error: &RuntimeError| &error.0);
            return Err(RuntimeError(format!(
                "these pods could not be ended: {}: {cause}",
                names.join(", ")
            )));
        }
        sleep(POLL).await;
    }
}

/// Ends one pod; goes on after a failure, as far as there is something to do.
async fn end(server: &impl Server, pod: &Pod) -> (Stopped, Vec<RuntimeError>) {
    let (mut stopped, mut failed) = (Stopped::default(), Vec::new());
    let mut containers = stream::iter(pod.containers.iter().map(|container| async move {
        let began = Instant::now();
        let ended = if container.running {
            server.stop_container(container).await
        } else {
            Ok(())
        };
        // Removing kills what could not be stopped.
        let removed = server.remove_container(container).await;
        let all_its_time = began.elapsed() >= Duration::from_secs(container.grace_secs.into());
        (container.running && all_its_time, ended.and(removed))
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((killed, removed)) = containers.next().await {
        match killed {
            true => stopped.killed += 1,
            false => stopped.ended += 1,
        }
        failed.extend(removed.err());
    }
    match server.remove_sandbox(pod).await {
        Ok(left) => {
            stopped.sandboxes += 1;
            stopped.left.extend(left);
        }
        Err(error) => failed.push(error),
    }
    (stopped, failed)
}
