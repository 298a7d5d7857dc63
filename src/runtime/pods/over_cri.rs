//! Pods of a CRI, which takes them off the network itself. It works with the kubelet stopped, too.
//!
//! cri-dockerd's pods end here as well, not by Docker's API and libcni's cache as the dockershim's do: it is there to be
//! asked, in both directions, until its unit ends, and what it knows of a sandbox's network it knows best. Docker is
//! asked for what the CRI does not tell, the stop signals, so that the containers can be signalled without either.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_cri::v1::{ContainerState, NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatusResponse};
use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    Container, Ending, GRACE, Pod, Server, TRY_AGAIN, Wave, checkpoint, end_all, grace,
    process::{self, Processes},
};
use crate::{
    edit::parse,
    host::files::Files,
    plan::runtime::Runtime,
    runtime::{RuntimeError, Stopped, cri::Cri, docker::Engine},
};

/// How many questions wait for an answer at the same time.
const QUESTIONS_AT_ONCE: usize = 16;

/// Ends the pods behind the CRI of a runtime; `engine` is the Docker Engine that it stands on.
///
/// # Errors
/// As [`end_all`].
pub async fn end_pods(
    cri: &Cri,
    engine: Option<&Engine>,
    files: &Files,
    runtime: Runtime,
    ending: Ending,
) -> Result<Stopped, RuntimeError> {
    let foreign = match ending.beside {
        Some(other) => checkpoint::foreign(files, runtime, other)?,
        None => BTreeSet::new(),
    };
    let server = OverCri {
        cri,
        engine,
        files,
        runtime,
        limit_secs: ending.limit_secs,
        foreign,
        until: Instant::now() + ending.patience,
        may_stick: ending.may_stick,
        stuck: RefCell::default(),
    };
    let mut stopped = end_all(&server, Processes(files), ending.extent).await?;
    stopped.stuck = server.stuck.into_inner();
    Ok(stopped)
}

#[derive(Debug)]
struct OverCri<'a> {
    cri: &'a Cri,
    engine: Option<&'a Engine>,
    files: &'a Files,
    runtime: Runtime,
    limit_secs: u32,
    /// Sandboxes of another server.
    foreign: BTreeSet<String>,
    /// Until when sandboxes are tried again.
    until: Instant,
    /// Whether sandboxes that have ended may stay behind.
    may_stick: bool,
    /// Those that do, with the reason.
    stuck: RefCell<BTreeMap<String, String>>,
}

impl Server for OverCri<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let mut containers = BTreeMap::<String, Vec<Container>>::new();
        for container in self.cri.containers().await? {
            let running = container.state() == ContainerState::ContainerRunning;
            let grace_secs = grace(container.annotations.get(GRACE), self.limit_secs);
            let of_sandbox = containers.entry(container.pod_sandbox_id).or_default();
            of_sandbox.push(Container {
                id: container.id,
                running,
                // The CRI knows no frozen containers; its server thaws those that it ends.
                frozen: false,
                log_link: None,
                grace_secs,
            });
        }
        let sandboxes = self.cri.sandboxes().await?.into_iter();
        let mine = sandboxes.filter(|sandbox| {
            !self.foreign.contains(&sandbox.id) && !self.stuck.borrow().contains_key(&sandbox.id)
        });
        let mut pods: Vec<Pod> = stream::iter(mine.map(|sandbox| self.pod(sandbox)))
            .buffered(QUESTIONS_AT_ONCE)
            .try_collect()
            .await?;
        for pod in &mut pods {
            pod.containers = containers.remove(&pod.sandbox).unwrap_or_default();
        }
        Ok(pods)
    }

    async fn stop_signal(&self, container: &Container) -> Result<Option<Signal>, RuntimeError> {
        match self.engine {
            Some(engine) => Ok(process::signal(&engine.stop_signal(&container.id).await?)),
            // It stands in the image, and the runtime knows it.
            None => Ok(None),
        }
    }

    async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        self.cri.stop_container(id, grace_secs).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.cri.remove_container(&container.id).await
    }

    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError> {
        let error = loop {
            let stopped = self.cri.stop_sandbox(&pod.sandbox).await;
            let removed = match stopped {
                Ok(()) => self.cri.remove_sandbox(&pod.sandbox).await,
                stopped => stopped,
            };
            match removed {
                Ok(()) => return Ok(Vec::new()),
                Err(error) if Instant::now() + TRY_AGAIN >= self.until => break error,
                Err(_) => sleep(TRY_AGAIN).await,
            }
        };
        if !self.may_stick || self.runs(pod).await? {
            return Err(error);
        }
        let why = format!(
            "sandbox {} of pod {} has ended and could not be removed: {error}",
            pod.sandbox, pod.name
        );
        self.stuck.borrow_mut().insert(pod.sandbox.clone(), why);
        Ok(Vec::new())
    }
}

impl OverCri<'_> {
    /// Whether anything of a pod still runs.
    async fn runs(&self, pod: &Pod) -> Result<bool, RuntimeError> {
        let sandbox = self.cri.sandbox(&pod.sandbox).await?;
        let ready = sandbox.is_some_and(|sandbox| sandbox.state() == PodSandboxState::SandboxReady);
        let containers = self.cri.containers().await?;
        let runs = containers.iter().any(|container| {
            container.pod_sandbox_id == pod.sandbox && container.state() == ContainerState::ContainerRunning
        });
        Ok(ready || runs)
    }

    /// The pod of a sandbox, without its containers.
    async fn pod(&self, sandbox: PodSandbox) -> Result<Pod, RuntimeError> {
        let described = self.cri.describe_sandbox(&sandbox.id).await?;
        let metadata = sandbox.metadata.unwrap_or_default();
        let host_network = described.as_ref().is_some_and(in_host_network);
        let host_ports = !host_network && {
            let told = described.as_ref().and_then(has_host_ports);
            told.or_else(|| checkpoint::has_host_ports(self.files, self.runtime, &sandbox.id))
                .unwrap_or(true)
        };
        Ok(Pod {
            wave: Wave::of(host_network, &metadata.namespace, &metadata.name),
            name: format!("{}/{}", metadata.namespace, metadata.name),
            host_ports,
            containers: Vec::new(),
            sandbox: sandbox.id,
        })
    }
}

fn in_host_network(described: &PodSandboxStatusResponse) -> bool {
    let linux = described.status.as_ref().and_then(|status| status.linux.as_ref());
    let namespaces = linux.and_then(|linux| linux.namespaces.as_ref());
    let options = namespaces.and_then(|namespaces| namespaces.options.as_ref());
    options.is_some_and(|options| options.network() == NamespaceMode::Node)
}

/// Whether ports of the node lead to a sandbox, by the configuration that it was made from, which containerd tells, or by the
/// annotation in which CRI-O keeps the same; nothing where the runtime does not tell.
fn has_host_ports(described: &PodSandboxStatusResponse) -> Option<bool> {
    let info: Value = parse::json(described.info.get("info")?).ok()?;
    let ports: Value = match info.get("config") {
        Some(config) => config.get("port_mappings").cloned().unwrap_or_default(),
        None => {
            let annotations = info.get("runtimeSpec")?.get("annotations")?;
            parse::json(annotations.get("io.kubernetes.cri-o.PortMappings")?.as_str()?).ok()?
        }
    };
    // All ports of a pod are there; those without one of the node have none or 0.
    let leads = |port: &Value| {
        ["host_port", "hostPort"]
            .into_iter()
            .filter_map(|name| port.get(name)?.as_u64())
            .any(|port| port > 0)
    };
    Some(ports.as_array().is_some_and(|ports| ports.iter().any(leads)))
}
