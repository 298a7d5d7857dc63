//! Pods behind a CRI, which takes them off the network itself. It works with the kubelet stopped, too.

use std::collections::BTreeMap;

use k8s_cri::v1::{ContainerState, NamespaceMode, PodSandboxStatus};

use super::{Container, GRACE, Pod, Server, Wave, end_all, grace};
use crate::runtime::{RuntimeError, Stopped, cri::Cri};

/// Ends all pods behind a CRI.
///
/// # Errors
/// As [`end_all`].
pub async fn end_pods(cri: &Cri, limit_secs: u32) -> Result<Stopped, RuntimeError> {
    end_all(&OverCri { cri, limit_secs }).await
}

#[derive(Debug)]
struct OverCri<'a> {
    cri: &'a Cri,
    limit_secs: u32,
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
                grace_secs,
            });
        }
        let mut pods = Vec::new();
        for sandbox in self.cri.sandboxes().await? {
            let host_network = self
                .cri
                .sandbox(&sandbox.id)
                .await?
                .as_ref()
                .is_some_and(in_host_network);
            let metadata = sandbox.metadata.unwrap_or_default();
            pods.push(Pod {
                wave: Wave::of(host_network, &metadata.namespace, &metadata.name),
                name: format!("{}/{}", metadata.namespace, metadata.name),
                containers: containers.remove(&sandbox.id).unwrap_or_default(),
                sandbox: sandbox.id,
            });
        }
        Ok(pods)
    }

    async fn stop_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.cri.stop_container(&container.id, container.grace_secs).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.cri.remove_container(&container.id).await
    }

    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError> {
        self.cri.stop_sandbox(&pod.sandbox).await?;
        self.cri.remove_sandbox(&pod.sandbox).await?;
        Ok(Vec::new())
    }
}

fn in_host_network(status: &PodSandboxStatus) -> bool {
    let namespaces = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref());
    let options = namespaces.and_then(|namespaces| namespaces.options.as_ref());
    options.is_some_and(|options| options.network() == NamespaceMode::Node)
}
