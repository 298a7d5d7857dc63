//! Pods that the dockershim made in Docker Engine. It was a part of the kubelet, which has stopped: what it would do
//! for their network is done here, from libcni's cache, while their sandboxes still run.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use tokio::sync::Semaphore;

use super::{Container, GRACE, Pod, Server, Wave, end_all, grace};
use crate::{
    plan::host_path::HostPath,
    runtime::{
        RuntimeError, Stopped,
        cni_del::{Attachment, Network},
        docker::Engine,
    },
};

/// Label of the dockershim and of cri-dockerd on everything that they make: `podsandbox` or `container`
/// (`dockershim/docker_service.go`).
const KIND: &str = "io.kubernetes.docker.type";
/// Label on a container: the id of its sandbox.
const SANDBOX: &str = "io.kubernetes.sandbox.id";
/// Where cri-dockerd keeps a file for each of its sandboxes, which bear the same labels.
const CRI_DOCKERD: &str = "/var/lib/cri-dockerd/sandbox";
/// Where the dockershim keeps a file for each of its sandboxes.
const DOCKERSHIM: &str = "/var/lib/dockershim/sandbox";
/// libcni's default cache. Other runtimes share it; the kubelet's own default is another one.
const SHARED_CACHE: &str = "/var/lib/cni";
/// How many CNI plugins run at the same time; most of them wait for the lock of iptables.
const PLUGINS_AT_ONCE: usize = 8;

/// Ends all pods of the dockershim, and takes off the network what an interrupted call or a dead engine left of
/// earlier ones.
///
/// # Errors
/// As [`end_all`].
pub async fn end_pods(
    engine: &Engine,
    network: Network<'_>,
    limit_secs: u32,
) -> Result<Stopped, RuntimeError> {
    let (attachments, wrong) = network.attachments();
    let server = Dockershim {
        engine,
        network,
        limit_secs,
        attachments,
        plugins: Semaphore::new(PLUGINS_AT_ONCE),
    };
    let mut stopped = end_all(&server).await?;
    stopped.left.extend(wrong);
    stopped.left.extend(server.detach_the_lost().await?);
    let gone: Vec<String> = server.attachments.into_keys().collect();
    stopped.left.extend(network.free_leases(&gone));
    Ok(stopped)
}

#[derive(Debug)]
struct Dockershim<'a> {
    engine: &'a Engine,
    network: Network<'a>,
    limit_secs: u32,
    attachments: BTreeMap<String, Vec<Attachment>>,
    plugins: Semaphore,
}

impl Server for Dockershim<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let foreign = self.names(CRI_DOCKERD)?;
        Ok(pods(self.engine.containers(&[KIND]).await?, self.limit_secs)
            .into_iter()
            .filter(|pod| !foreign.contains(&pod.sandbox))
            .collect())
    }

    async fn stop_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.engine.stop(&container.id, container.grace_secs).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.engine.remove(&container.id).await
    }

    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError> {
        let mut left = Vec::new();
        if let Some(attachments) = self.attachments.get(&pod.sandbox) {
            let state = self
                .engine
                .container(&pod.sandbox)
                .await?
                .and_then(|sandbox| sandbox.state);
            let pid = state
                .filter(|state| state.running == Some(true))
                .and_then(|state| state.pid);
            let netns = pid
                .filter(|&pid| pid > 0)
                .map(|pid| format!("/proc/{pid}/ns/net"))
                .unwrap_or_default();
            left = self.detach(attachments, &netns).await;
        }
        // The process of a sandbox does nothing: it needs no time to end.
        self.engine.remove(&pod.sandbox).await?;
        Ok(left)
    }
}

impl Dockershim<'_> {
    async fn detach(&self, attachments: &[Attachment], netns: &str) -> Vec<String> {
        let mut left = Vec::new();
        for attachment in attachments {
            let _permit = self.plugins.acquire().await;
            left.extend(self.network.detach(attachment, netns).await.err());
        }
        left
    }

    /// DEL for cached attachments of sandboxes that the engine does not know (any more), without a namespace.
    async fn detach_the_lost(&self) -> Result<Vec<String>, RuntimeError> {
        let known: BTreeSet<String> = self
            .engine
            .containers(&[])
            .await?
            .into_iter()
            .filter_map(|container| container.id)
            .collect();
        let (mine, foreign) = (self.names(DOCKERSHIM)?, self.names(CRI_DOCKERD)?);
        let shared = self.network.cache.as_str() == SHARED_CACHE;
        let mut left = Vec::new();
        for (id, attachments) in self.network.attachments().0 {
            let lost = !known.contains(&id) && !foreign.contains(&id) && (!shared || mine.contains(&id));
            if lost {
                left.extend(self.detach(&attachments, "").await);
            }
        }
        Ok(left)
    }

    fn names(&self, directory: &str) -> Result<BTreeSet<String>, RuntimeError> {
        let directory = HostPath::new(directory).map_err(|error| RuntimeError(error.to_string()))?;
        let names = self
            .network
            .files
            .list(&directory)
            .map_err(|error| RuntimeError(error.to_string()))?;
        Ok(names.into_iter().collect())
    }
}

/// The pods that these containers, all with the label [`KIND`], are.
fn pods(containers: Vec<ContainerSummary>, limit_secs: u32) -> Vec<Pod> {
    let mut pods = BTreeMap::<String, Pod>::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let id = container.id.unwrap_or_default();
        let is_sandbox = label(KIND) == "podsandbox";
        let sandbox = if is_sandbox { id.clone() } else { label(SANDBOX) };
        let (namespace, name) = (
            label("io.kubernetes.pod.namespace"),
            label("io.kubernetes.pod.name"),
        );
        let pod = pods.entry(sandbox.clone()).or_insert_with(|| Pod {
            sandbox,
            name: format!("{namespace}/{name}"),
            wave: Wave::Ordinary,
            containers: Vec::new(),
        });
        if is_sandbox {
            let mode = container.host_config.and_then(|config| config.network_mode);
            pod.wave = Wave::of(mode.as_deref() == Some("host"), &namespace, &name);
        } else {
            pod.containers.push(Container {
                id,
                running: matches!(
                    container.state,
                    Some(
                        ContainerSummaryStateEnum::RUNNING
                            | ContainerSummaryStateEnum::PAUSED
                            | ContainerSummaryStateEnum::RESTARTING
                    )
                ),
                // The dockershim stores annotations as labels with this prefix.
                grace_secs: grace(labels.get(&format!("annotation.{GRACE}")), limit_secs),
            });
        }
    }
    pods.into_values().collect()
}
