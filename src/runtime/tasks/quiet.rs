//! Whether a pod is being created. A sandbox or a container whose creation a restart of containerd interrupts is lost in the
//! middle: its address, its shim and its rules for ports of the node stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_cri::v1::ContainerState;
use tokio::time::{Instant, sleep};

use super::{bundles, read};
use crate::{
    host::files::Files,
    plan::host_path::HostPath,
    runtime::{RuntimeError, cri::Cri},
};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(500);
/// How long nothing new must have appeared.
const STABLE: Duration = Duration::from_secs(4);
/// How long the creation of a container may take after its bundle has appeared.
const STUCK: Duration = Duration::from_secs(45);
/// How long after a boot the kubelet may still begin to start its pods, in seconds.
const BOOTED_SECS: f64 = 60.0;
/// Where containerd keeps the network namespaces of sandboxes. One appears before its sandbox is listed.
const NETWORKS: &str = "/run/netns";

/// Waits until nothing is being created and nothing has appeared for a while.
///
/// # Errors
/// When that is not so within the deadline, with what was last seen; and when containerd does not answer.
pub(in crate::runtime) async fn wait(files: &Files, cri: &Cri, within: Duration) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + within;
    let mut known: Option<BTreeSet<String>> = None;
    let mut unfinished = BTreeMap::<String, Instant>::new();
    let mut since = Instant::now();
    loop {
        let Seen { there, busy } = look(files, cri).await?;
        unfinished.retain(|what, _| busy.contains(what));
        for what in busy {
            unfinished.entry(what).or_insert_with(Instant::now);
        }
        // What has been so for longer is not being created: an earlier restart left it, or it cannot be started.
        let mut young = unfinished.iter().filter(|(_, since)| since.elapsed() < STUCK);
        let busy = young.next().map(|(what, _)| what.clone());
        let busy = busy.or_else(|| booting(files));
        let new = match &known {
            Some(known) => there.difference(known).next().cloned(),
            None => Some("nothing was looked at for long enough".to_owned()),
        };
        let busy = busy.or(new);
        known = Some(there);
        if busy.is_some() {
            since = Instant::now();
        } else if since.elapsed() >= STABLE {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RuntimeError::new(format!(
                "pods are still being created after {} s: {}; wait until the pods of this node run",
                within.as_secs(),
                busy.unwrap_or_else(|| "something appeared a moment ago".to_owned())
            )));
        }
        sleep(POLL).await;
    }
}

/// One look.
struct Seen {
    /// Everything of pods that is there.
    there: BTreeSet<String>,
    /// What is not finished.
    busy: BTreeSet<String>,
}

async fn look(files: &Files, cri: &Cri) -> Result<Seen, RuntimeError> {
    let (mut there, mut busy) = (BTreeSet::new(), BTreeSet::new());
    for bundle in bundles(files) {
        if bundle.text(files, "init.pid").is_none() {
            busy.insert(format!("container {} has no process yet", bundle.id));
        }
        there.insert(format!("container {}", bundle.id));
    }
    for container in cri.containers().await? {
        if container.state() == ContainerState::ContainerCreated {
            busy.insert(format!("container {} is not started yet", container.id));
        }
        there.insert(format!("container {}", container.id));
    }
    for sandbox in cri.sandboxes().await? {
        there.insert(format!("sandbox {}", sandbox.id));
    }
    let networks = HostPath::new(NETWORKS).map(|path| files.list(&path).unwrap_or_default());
    for name in networks.unwrap_or_default() {
        there.insert(format!("network namespace {name}"));
    }
    Ok(Seen { there, busy })
}

/// The reason to wait for a machine that has just booted.
fn booting(files: &Files) -> Option<String> {
    let uptime = read(files, "/proc/uptime")?;
    let secs: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    (secs < BOOTED_SECS).then(|| "the machine has just booted".to_owned())
}
