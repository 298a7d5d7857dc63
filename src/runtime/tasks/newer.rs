//! The pods of containerd 2.x that 1.x cannot adopt. 1.x finds a shim by the file `address` in the bundle, and speaks to it
//! by the second version of the task service, which shims of 2.x do not serve to it. It would end what it cannot adopt
//! at once, and leave the shims.

use std::{collections::BTreeSet, time::Duration};

use futures::{StreamExt as _, stream};
use k8s_cri::v1::PodSandboxState;
use tokio::time::{Instant, sleep};

use super::{Bundle, bundles};
use crate::{
    host::files::Files,
    plan::{lists, step::ShimsStep},
    runtime::{
        RuntimeError,
        cri::Cri,
        pods::{GRACE, bundles::OWN, grace},
    },
};

/// How many pods end at the same time.
const AT_ONCE: usize = 16;
/// How long pods that appear meanwhile are looked for.
const APPEAR_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// What 1.x will do with a bundle.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Adopt it.
    Adopts,
    /// Adopt it once the address of its shim is in the file `address`.
    AdoptsAt(String),
    /// End it, and what else is in this sandbox.
    Ends(String),
}

/// Prepares what 1.x can adopt, and ends the other pods by containerd 2.x. Returns a sentence for containers that nobody can
/// start again.
///
/// # Errors
/// When containerd does not end a pod.
pub(in crate::runtime) async fn end(
    files: &Files,
    cri: &Cri,
    step: &ShimsStep,
) -> Result<Vec<String>, RuntimeError> {
    let until = Instant::now() + APPEAR_WITHIN;
    loop {
        let (sandboxes, foreign) = prepare(files)?;
        if sandboxes.is_empty() {
            return Ok(foreign.into_iter().collect());
        }
        if Instant::now() >= until {
            let names: Vec<String> = sandboxes.into_iter().collect();
            return Err(RuntimeError::new(format!(
                "pods that containerd 1.x cannot adopt still run: {}",
                lists::some(&names)
            )));
        }
        end_all(cri, &sandboxes, step.grace_limit_secs).await?;
        sleep(PAUSE).await;
    }
}

/// Writes addresses, and returns the sandboxes that must end, and a sentence for other containers that 1.x will end.
fn prepare(files: &Files) -> Result<(BTreeSet<String>, Option<String>), RuntimeError> {
    let all = bundles(files);
    let old: BTreeSet<String> = all.iter().filter_map(|bundle| bundle.address(files)).collect();
    let (mut sandboxes, mut foreign) = (BTreeSet::new(), Vec::new());
    for bundle in &all {
        match fate(files, bundle, &old) {
            Fate::Adopts => {}
            Fate::AdoptsAt(address) => {
                if let Some(path) = bundle.file("address") {
                    files
                        .write(&path, address.as_bytes(), 0o600)
                        .map_err(RuntimeError::of)?;
                }
            }
            Fate::Ends(sandbox) if bundle.namespace == OWN.namespace => {
                sandboxes.insert(sandbox);
            }
            Fate::Ends(_) => foreign.push(format!("{}/{}", bundle.namespace, bundle.id)),
        }
    }
    let foreign = (!foreign.is_empty()).then(|| {
        format!(
            "containers that are not of pods and that containerd 1.x cannot adopt end: {}",
            lists::some(&foreign)
        )
    });
    Ok((sandboxes, foreign))
}

/// What 1.x will do with a bundle; `old` are the addresses of shims of 1.x.
fn fate(files: &Files, bundle: &Bundle, old: &BTreeSet<String>) -> Fate {
    if bundle.address(files).is_some() {
        return Fate::Adopts;
    }
    match bundle
        .bootstrap_address(files)
        .filter(|address| old.contains(address))
    {
        Some(address) => Fate::AdoptsAt(address),
        None => Fate::Ends(bundle.text(files, "sandbox").unwrap_or_else(|| bundle.id.clone())),
    }
}

async fn end_all(cri: &Cri, sandboxes: &BTreeSet<String>, limit_secs: u32) -> Result<(), RuntimeError> {
    let containers = cri.containers().await?;
    let known = cri.sandboxes().await?;
    let ends = stream::iter(sandboxes).map(async |id: &String| {
        let own = containers
            .iter()
            .filter(|container| container.pod_sandbox_id == *id);
        for container in own {
            let grace_secs = grace(container.annotations.get(GRACE), limit_secs);
            cri.stop_container(&container.id, grace_secs).await?;
        }
        cri.stop_sandbox(id).await?;
        let ready = known
            .iter()
            .any(|one| one.id == *id && one.state() == PodSandboxState::SandboxReady);
        tracing::info!(
            sandbox = id,
            ready,
            "ended a pod that containerd 1.x cannot adopt"
        );
        cri.remove_sandbox(id).await
    });
    let ended: Vec<Result<(), RuntimeError>> = ends.buffer_unordered(AT_ONCE).collect().await;
    ended.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host_path::HostPath;

    const STATE: &str = "/run/containerd/io.containerd.runtime.v2.task";

    /// The rows of bundles that containerd 1.6, 1.7 and 2.4 write.
    #[test]
    fn a_bundle_is_adopted_only_from_a_shim_of_the_old_version() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let write = |at: &str, text: &str| {
            let path = HostPath::new(format!("{STATE}/{at}")).unwrap();
            files.write(&path, text.as_bytes(), 0o600).unwrap();
        };
        let (old, new) = ("unix:///run/containerd/s/old", "unix:///run/containerd/s/new");
        let bootstrap =
            |address: &str| format!("{{\"version\":3,\"address\":\"{address}\",\"protocol\":\"ttrpc\"}}");
        write("k8s.io/sandbox-of-1/address", old);
        write("k8s.io/restarted-in-it/bootstrap.json", &bootstrap(old));
        write("k8s.io/sandbox-of-2/bootstrap.json", &bootstrap(new));
        write("k8s.io/container-of-2/bootstrap.json", &bootstrap(new));
        write("k8s.io/container-of-2/sandbox", "sandbox-of-2");
        write("moby/docker-of-2/bootstrap.json", &bootstrap(new));
        let (sandboxes, foreign) = prepare(&files).unwrap();
        assert_eq!(sandboxes.into_iter().collect::<Vec<_>>(), ["sandbox-of-2"]);
        assert!(foreign.unwrap().contains("moby/docker-of-2"));
        let address = HostPath::new(format!("{STATE}/k8s.io/restarted-in-it/address")).unwrap();
        assert_eq!(files.read_text(&address).unwrap().as_deref(), Some(old));
    }
}
