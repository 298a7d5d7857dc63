//! A sandbox that is run over a CRI and removed, before any pod depends on it: it proves the sandbox image, the OCI
//! runtime, the cgroup driver and, in the pod network, the CNI chain.

use std::collections::HashMap;

use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PodSandboxState,
};

use super::{RuntimeError, cri::Cri};
use crate::plan::step::Rehearsal;

/// Name of the sandbox: by it, what an interrupted rehearsal left is found again.
pub const NAME: &str = "transship-rehearsal";

/// Removes what an earlier rehearsal left, runs a sandbox, and removes it.
///
/// # Errors
/// The runtime's own words about what it could not do.
pub async fn rehearse(cri: &Cri, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
    end(cri).await?;
    let id = cri.run_sandbox(config(rehearsal)).await?;
    let state = cri.sandbox(&id).await?.map(|status| status.state());
    end(cri).await?;
    if state == Some(PodSandboxState::SandboxReady) {
        Ok(())
    } else {
        Err(RuntimeError(format!(
            "{NAME} at {}: the sandbox did not stay ready; `journalctl -u containerd` says why",
            cri.socket().display()
        )))
    }
}

/// Removes every sandbox of a rehearsal.
///
/// # Errors
/// The runtime's own words about what it could not do.
pub async fn end(cri: &Cri) -> Result<(), RuntimeError> {
    for sandbox in cri.sandboxes().await? {
        if sandbox.metadata.is_some_and(|metadata| metadata.name == NAME) {
            cri.stop_sandbox(&sandbox.id).await?;
            cri.remove_sandbox(&sandbox.id).await?;
        }
    }
    Ok(())
}

fn config(rehearsal: &Rehearsal) -> PodSandboxConfig {
    let network = if rehearsal.pod_network {
        NamespaceMode::Pod
    } else {
        NamespaceMode::Node
    };
    let namespaces = NamespaceOption {
        network: network.into(),
        ..Default::default()
    };
    let security = LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces),
        ..Default::default()
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: NAME.to_owned(),
            uid: NAME.to_owned(),
            namespace: "transship".to_owned(),
            attempt: 0,
        }),
        hostname: NAME.to_owned(),
        labels: HashMap::from([("app.kubernetes.io/managed-by".to_owned(), "transship".to_owned())]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: rehearsal.cgroup_parent.clone(),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}
