//! Pods that the dockershim made in Docker Engine. It was a part of the kubelet, which has stopped: what it would do
//! for their network is done here, from libcni's cache, while their sandboxes still run. So end the pods of a cri-dockerd
//! that does not answer.

use std::collections::{BTreeMap, BTreeSet};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use nix::sys::signal::Signal;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::{
    Container, Ending, Extent, GRACE, PLUGINS_AT_ONCE, Pod, Server, TRY_AGAIN, Wave, checkpoint, end_all,
    grace,
    process::{self, Processes},
};
use crate::{
    plan::{host_path::HostPath, runtime::Runtime},
    runtime::{
        RuntimeError, Stopped,
        cni_del::{Attachment, Network},
        docker::Engine,
    },
};

/// Label of the dockershim and of cri-dockerd on everything that they make: `podsandbox` or `container`
/// (`dockershim/docker_service.go`).
pub(in crate::runtime) const KIND: &str = "io.kubernetes.docker.type";
/// Label on a container: the id of its sandbox.
pub(in crate::runtime) const SANDBOX: &str = "io.kubernetes.sandbox.id";
/// Label on a container: where the kubelet looks for its log. The dockershim makes a link there to Docker's file, and removes
/// it with the container (`createContainerLogSymlink`, `removeContainerLogSymlink` in `dockershim/docker_container.go`).
const LOG: &str = "io.kubernetes.container.logpath";
/// libcni's default cache. Other runtimes share it; the kubelet's own default is another one.
const SHARED_CACHE: &str = "/var/lib/cni";

/// Ends the pods of the dockershim, and, when everything goes, takes off the network what an interrupted call or a
/// dead engine left of earlier ones.
///
/// # Errors
/// As [`end_all`].
pub async fn end_pods(
    engine: &Engine,
    runtime: Runtime,
    network: Network<'_>,
    ending: Ending,
) -> Result<Stopped, RuntimeError> {
    let (attachments, wrong) = network.attachments();
    let foreign = match ending.beside {
        Some(other) => checkpoint::foreign(network.files, runtime, other)?,
        None => BTreeSet::new(),
    };
    let server = Dockershim {
        engine,
        runtime,
        network,
        limit_secs: ending.limit_secs,
        attachments,
        foreign,
        plugins: Semaphore::new(PLUGINS_AT_ONCE),
        until: Instant::now() + ending.patience,
    };
    let mut stopped = end_all(&server, Processes(network.files), ending.extent).await?;
    if ending.extent == Extent::Everything {
        stopped.left.extend(wrong);
        stopped.left.extend(server.detach_the_lost().await?);
        let gone: Vec<String> = server.attachments.into_keys().collect();
        stopped.left.extend(network.free_leases(&gone));
    }
    Ok(stopped)
}

#[derive(Debug)]
struct Dockershim<'a> {
    engine: &'a Engine,
    /// Whose pods they are.
    runtime: Runtime,
    network: Network<'a>,
    limit_secs: u32,
    attachments: BTreeMap<String, Vec<Attachment>>,
    /// Sandboxes of another server.
    foreign: BTreeSet<String>,
    plugins: Semaphore,
    /// Until when plugins are tried again.
    until: Instant,
}

impl Server for Dockershim<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let mut pods = pods(self.engine.containers(&[KIND]).await?, self.limit_secs);
        pods.retain(|pod| !self.foreign.contains(&pod.sandbox));
        for pod in &mut pods {
            let attachments = self.attachments.get(&pod.sandbox);
            pod.host_ports = attachments.is_some_and(|all| all.iter().any(Attachment::has_host_ports));
        }
        Ok(pods)
    }

    async fn stop_signal(&self, container: &Container) -> Result<Option<Signal>, RuntimeError> {
        Ok(process::signal(&self.engine.stop_signal(&container.id).await?))
    }

    async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        self.engine.stop(id, grace_secs).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.engine.remove(&container.id).await?;
        if let Some(error) = container
            .log_link
            .as_ref()
            .and_then(|link| self.unlink(link, &container.id).err())
        {
            // The kubelet complains of it at each look, and nothing else.
            tracing::warn!(%error, "a link to the log of a container that is gone is left");
        }
        Ok(())
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
    /// Removes the link to the log of a container, and nothing else that is in its place by now.
    fn unlink(&self, link: &HostPath, container: &str) -> std::io::Result<()> {
        let files = self.network.files;
        match files.read_link(link)? {
            Some(target) if target.contains(container) => files.remove_link(link),
            _ => Ok(()),
        }
    }

    async fn detach(&self, attachments: &[Attachment], netns: &str) -> Vec<String> {
        let mut left = Vec::new();
        for attachment in attachments {
            left.extend(self.detach_one(attachment, netns).await.err());
        }
        left
    }

    async fn detach_one(&self, attachment: &Attachment, netns: &str) -> Result<(), String> {
        loop {
            let permit = self.plugins.acquire().await;
            let detached = self.network.detach(attachment, netns).await;
            drop(permit);
            if detached.is_ok() || Instant::now() + TRY_AGAIN >= self.until {
                return detached;
            }
            sleep(TRY_AGAIN).await;
        }
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
        let files = self.network.files;
        let mine = checkpoint::sandboxes(files, self.runtime)?;
        let foreign = checkpoint::all_foreign(files, self.runtime)?;
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
            host_ports: false,
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
                frozen: container.state == Some(ContainerSummaryStateEnum::PAUSED),
                // The dockershim stores annotations as labels with this prefix.
                grace_secs: grace(labels.get(&format!("annotation.{GRACE}")), limit_secs),
                log_link: labels.get(LOG).and_then(|path| HostPath::new(path.as_str()).ok()),
            });
        }
    }
    pods.into_values().collect()
}
