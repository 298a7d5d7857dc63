//! A sandbox that is run over a CRI and removed, before any pod depends on it: it proves the sandbox image, the OCI
//! runtime, the cgroup driver and, in the pod network, the CNI chain. Once the kubelet uses the CRI, a sandbox of the
//! kubelet proves the same.

use std::{collections::HashMap, time::Duration};

use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandbox,
    PodSandboxConfig, PodSandboxMetadata, PodSandboxState,
};

use tokio::time::{Instant, sleep};

use super::{RuntimeError, cri::Cri};
use crate::{
    edit::parse,
    host::files::Files,
    plan::{
        host_path::HostPath,
        step::{Proof, Rehearsal},
    },
};

/// Name of the sandbox: by it, what an interrupted rehearsal left is found again.
pub const NAME: &str = "transship-rehearsal";

/// Tries of a rehearsal next to a running kubelet, which ends every sandbox that is not one of its pods.
const TRIES: u32 = 3;
/// Time between two looks for a sandbox of the kubelet.
const POLL: Duration = Duration::from_secs(1);

/// Proves a CRI with a sandbox, as `rehearsal` says.
///
/// # Errors
/// The runtime's own words about what it could not do.
pub async fn rehearse(files: &Files, cri: &Cri, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
    match rehearsal.proof {
        Proof::Own => run(files, cri, rehearsal).await,
        Proof::OwnBesideKubelet => {
            let mut last = run(files, cri, rehearsal).await;
            for _ in 1..TRIES {
                if last.is_ok() {
                    break;
                }
                last = run(files, cri, rehearsal).await;
            }
            last
        }
        Proof::KubeletOrOwn => {
            let mut last = Ok(());
            for _ in 0..TRIES {
                if in_pod_network(cri).await? {
                    return Ok(());
                }
                last = run(files, cri, rehearsal).await;
                if last.is_ok() {
                    break;
                }
            }
            last
        }
        Proof::Kubelet { within_secs } => {
            let deadline = Instant::now() + Duration::from_secs(within_secs.into());
            loop {
                let seen = match in_pod_network(cri).await {
                    Ok(true) => return Ok(()),
                    Ok(false) => "none is Ready".to_owned(),
                    Err(error) => error.to_string(),
                };
                if Instant::now() + POLL >= deadline {
                    return Err(RuntimeError::new(format!(
                        "no pod in the pod network has started at {} within {within_secs} s: {seen}; `kubectl describe \
                         pod` on this node's pods and `journalctl -u kubelet` say why",
                        cri.socket().display()
                    )));
                }
                sleep(POLL).await;
            }
        }
    }
}

/// Whether the kubelet has a Ready sandbox in the pod network.
async fn in_pod_network(cri: &Cri) -> Result<bool, RuntimeError> {
    for sandbox in cri.sandboxes().await? {
        let own = sandbox
            .metadata
            .as_ref()
            .is_none_or(|metadata| metadata.name == NAME);
        if own || sandbox.state() != PodSandboxState::SandboxReady {
            continue;
        }
        // It may be gone since it was listed.
        let Some(status) = cri.sandbox(&sandbox.id).await? else {
            continue;
        };
        let network = status
            .linux
            .and_then(|linux| linux.namespaces)
            .and_then(|namespaces| namespaces.options)
            .map(|options| options.network());
        if network == Some(NamespaceMode::Pod) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes what an earlier rehearsal left, runs a sandbox, and removes it.
async fn run(files: &Files, cri: &Cri, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
    let attempt = clear(cri).await?;
    let proven = match cri.run_sandbox(config(rehearsal, attempt)).await {
        Ok(id) => prove(files, cri, &id, &rehearsal.cgroup_parent).await,
        Err(error) => Err(error),
    };
    // A runtime may keep a sandbox that it could not set up.
    let cleared = clear(cri).await;
    proven?;
    cleared.map(|_| ())
}

/// Whether the sandbox stays ready, and is in the cgroup in which the kubelet looks for its pods.
async fn prove(files: &Files, cri: &Cri, id: &str, parent: &str) -> Result<(), RuntimeError> {
    let socket = cri.socket().display();
    let status = cri.sandbox(id).await?;
    if status.is_none_or(|status| status.state() != PodSandboxState::SandboxReady) {
        return Err(RuntimeError::new(format!(
            "{NAME} at {socket}: the sandbox did not stay ready; `journalctl -u containerd` says why"
        )));
    }
    match cgroup(files, cri, id).await {
        Some(found) if is_misplaced(&found, id, parent) => Err(RuntimeError::new(format!(
            "{NAME} at {socket}: the sandbox is in the cgroup {found}, and a scope in {parent} was planned; \
             `containerd config dump | grep SystemdCgroup` shows the setting that is in effect"
        ))),
        _ => Ok(()),
    }
}

/// The cgroup of a sandbox's process that is named after the sandbox; `None` if the runtime does not report the process, or
/// its cgroup has another name.
async fn cgroup(files: &Files, cri: &Cri, id: &str) -> Option<String> {
    let described = cri.describe_sandbox(id).await.ok()??;
    let info: serde_json::Value = parse::json(described.info.get("info")?).ok()?;
    let process = info.get("pid")?.as_u64()?;
    let text = files.read_text(&HostPath::new(format!("/proc/{process}/cgroup")).ok()?);
    let text = text.ok().flatten()?;
    // `hierarchy:controllers:path`, and the path may have colons.
    let mut paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.find(|path| path.contains(id)).map(str::to_owned)
}

/// Whether a cgroup of a sandbox is not a scope of systemd although its parent is a slice: without `SystemdCgroup` the slice
/// is part of a directory's name (`transship.slice:cri-containerd:ID`).
fn is_misplaced(cgroup: &str, id: &str, parent: &str) -> bool {
    let last = cgroup.rsplit('/').next().unwrap_or_default();
    parent.ends_with(".slice") && last.contains(id) && !last.ends_with(".scope")
}

/// Removes every sandbox of a rehearsal.
///
/// # Errors
/// When one still runs, with the runtime's own words.
pub async fn end(cri: &Cri) -> Result<(), RuntimeError> {
    clear(cri).await.map(|_| ())
}

/// Removes every sandbox of a rehearsal, and returns the number of the next attempt. One that does not run but cannot
/// be removed either (its network was never set up, and cannot be taken down) is harmless: it is passed over, and must
/// not keep a node from going back.
async fn clear(cri: &Cri) -> Result<u32, RuntimeError> {
    let mut causes = Vec::new();
    for sandbox in left(cri).await? {
        causes.extend(cri.stop_sandbox(&sandbox.id).await.err());
        causes.extend(cri.remove_sandbox(&sandbox.id).await.err());
    }
    let mut next = 0;
    for sandbox in left(cri).await? {
        let cause = causes
            .first()
            .map_or("the runtime gave no reason", RuntimeError::sentence);
        if sandbox.state() == PodSandboxState::SandboxReady {
            return Err(RuntimeError::new(format!(
                "{NAME} {} could not be removed: {cause}",
                sandbox.id
            )));
        }
        tracing::warn!(
            sandbox = sandbox.id,
            "{NAME} has ended but could not be removed: {cause}"
        );
        next = next.max(sandbox.metadata.map_or(0, |metadata| metadata.attempt) + 1);
    }
    Ok(next)
}

async fn left(cri: &Cri) -> Result<Vec<PodSandbox>, RuntimeError> {
    let mut sandboxes = cri.sandboxes().await?;
    sandboxes.retain(|sandbox| {
        sandbox
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.name == NAME)
    });
    Ok(sandboxes)
}

fn config(rehearsal: &Rehearsal, attempt: u32) -> PodSandboxConfig {
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
            attempt,
        }),
        // A sandbox in the host's network has the host's name; runc refuses another one.
        hostname: if rehearsal.pod_network {
            NAME.to_owned()
        } else {
            String::new()
        },
        labels: HashMap::from([("app.kubernetes.io/managed-by".to_owned(), "transship".to_owned())]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: rehearsal.cgroup_parent.clone(),
            security_context: Some(security),
            ..Default::default()
        }),
        ..Default::default()
    }
}
