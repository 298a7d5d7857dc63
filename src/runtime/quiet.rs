//! Whether a pod is being created. A sandbox or a container whose creation is interrupted, because its runtime is restarted or
//! the kubelet ends in which the dockershim is, is lost in the middle: its address, its shim and its rules for ports of the node
//! stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bollard::models::ContainerSummaryStateEnum;
use k8s_cri::v1::{ContainerState, PodSandboxState};
use tokio::time::{Instant, sleep};

use super::{Quiet, RuntimeError, cri::Cri, docker::Engine, pods::dockershim, tasks::bundles};
use crate::{
    host::{files::Files, process::uptime},
    plan::host_path::HostPath,
};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(500);
/// How long the creation of a container may take after its bundle has appeared.
const CONTAINER_WITHIN: Duration = Duration::from_secs(45);
/// How long a sandbox may take to join its network, which is when it gets its first container.
const NETWORK_WITHIN: Duration = Duration::from_secs(10);
/// How long after a boot the kubelet may still begin to start its pods.
const BOOTED_WITHIN: Duration = Duration::from_secs(60);
/// Where containerd and CRI-O keep the network namespaces of sandboxes. One appears before its sandbox is listed.
const NETWORKS: &str = "/run/netns";

/// A server of pods.
pub(super) trait Server {
    /// Its pods as they are now.
    async fn list(&self) -> Result<Listed, RuntimeError>;
}

/// Pods as their server lists them.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Containers, each with its sandbox, and whether it was created and not started.
    containers: Vec<(String, String, bool)>,
    /// Sandboxes, and whether they run.
    sandboxes: Vec<(String, bool)>,
}

impl Server for Cri {
    async fn list(&self) -> Result<Listed, RuntimeError> {
        let containers = self.containers().await?.into_iter().map(|container| {
            let created = container.state() == ContainerState::ContainerCreated;
            (container.id, container.pod_sandbox_id, created)
        });
        let sandboxes = self.sandboxes().await?.into_iter().map(|sandbox| {
            let runs = sandbox.state() == PodSandboxState::SandboxReady;
            (sandbox.id, runs)
        });
        Ok(Listed {
            containers: containers.collect(),
            sandboxes: sandboxes.collect(),
        })
    }
}

/// The pods of the dockershim.
impl Server for Engine {
    async fn list(&self) -> Result<Listed, RuntimeError> {
        let mut listed = Listed::default();
        for container in self.containers(&[dockershim::KIND]).await? {
            let Some(id) = container.id else { continue };
            let mut labels = container.labels.unwrap_or_default();
            match labels.remove(dockershim::SANDBOX) {
                Some(sandbox) => {
                    let created = container.state == Some(ContainerSummaryStateEnum::CREATED);
                    listed.containers.push((id, sandbox, created));
                }
                None => {
                    let runs = container.state == Some(ContainerSummaryStateEnum::RUNNING);
                    listed.sandboxes.push((id, runs));
                }
            }
        }
        Ok(listed)
    }
}

/// Waits until nothing is being created and nothing has appeared for a while.
///
/// # Errors
/// When that is not so within the deadline, with what was last seen; and when the server does not answer.
pub(super) async fn wait(files: &Files, server: &impl Server, quiet: Quiet) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + quiet.within;
    let mut known: Option<BTreeSet<String>> = None;
    let mut unfinished = BTreeMap::<String, Instant>::new();
    let mut since = Instant::now();
    loop {
        let Seen { there, busy } = look(files, server).await?;
        unfinished.retain(|what, _| busy.contains_key(what));
        for what in busy.keys() {
            unfinished.entry(what.clone()).or_insert_with(Instant::now);
        }
        // What has been so for longer is not being created: an earlier restart left it, or it cannot be started.
        let mut young = unfinished
            .iter()
            .filter(|(what, since)| busy.get(*what).is_some_and(|within| since.elapsed() < *within));
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
        } else if since.elapsed() >= quiet.still_for {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(RuntimeError::new(format!(
                "pods are still being created after {} s: {}; wait until the pods of this node run",
                quiet.within.as_secs(),
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
    /// What is not finished, and how long that may take.
    busy: BTreeMap<String, Duration>,
}

async fn look(files: &Files, server: &impl Server) -> Result<Seen, RuntimeError> {
    let (mut there, mut busy) = (BTreeSet::new(), BTreeMap::new());
    for bundle in bundles(files) {
        if bundle.text(files, "init.pid").is_none() {
            let what = format!("container {} has no process yet", bundle.id);
            busy.insert(what, CONTAINER_WITHIN);
        }
        there.insert(format!("container {}", bundle.id));
    }
    let Listed {
        containers,
        sandboxes,
    } = server.list().await?;
    let with_containers: BTreeSet<&String> = containers.iter().map(|(_, sandbox, _)| sandbox).collect();
    for (id, runs) in &sandboxes {
        if *runs && !with_containers.contains(id) {
            busy.insert(format!("sandbox {id} has no container yet"), NETWORK_WITHIN);
        }
        there.insert(format!("sandbox {id}"));
    }
    for (id, _, created) in &containers {
        if *created {
            busy.insert(format!("container {id} is not started yet"), CONTAINER_WITHIN);
        }
        there.insert(format!("container {id}"));
    }
    let networks = HostPath::new(NETWORKS).map(|path| files.list(&path).unwrap_or_default());
    for name in networks.unwrap_or_default() {
        there.insert(format!("network namespace {name}"));
    }
    Ok(Seen { there, busy })
}

/// The reason to wait for a machine that has just booted.
fn booting(files: &Files) -> Option<String> {
    (uptime(files)? < BOOTED_WITHIN).then(|| "the machine has just booted".to_owned())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// Answers with one list after the other, the last one without end.
    struct Script(RefCell<Vec<Listed>>);

    impl Server for Script {
        async fn list(&self) -> Result<Listed, RuntimeError> {
            let mut left = self.0.borrow_mut();
            let next = left.pop().unwrap();
            if left.is_empty() {
                left.push(Listed {
                    containers: next.containers.clone(),
                    sandboxes: next.sandboxes.clone(),
                });
            }
            Ok(next)
        }
    }

    /// A pod with a sandbox, and a container where it is given, started or not.
    fn pod(container: Option<bool>) -> Listed {
        let container = container.map(|started| ("c".to_owned(), "s".to_owned(), !started));
        Listed {
            containers: container.into_iter().collect(),
            sandboxes: vec![("s".to_owned(), true)],
        }
    }

    /// Seconds until it is quiet; `None` if it never is.
    async fn waits(lists: Vec<Listed>) -> Option<f64> {
        let root = tempfile::tempdir().unwrap();
        let mut lists = lists;
        lists.reverse();
        let quiet = Quiet {
            still_for: Duration::from_secs(1),
            within: Duration::from_secs(60),
        };
        let began = Instant::now();
        let waited = wait(&Files::new(root.path()), &Script(RefCell::new(lists)), quiet).await;
        waited.ok().map(|()| began.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_is_being_created_is_waited_for() {
        let still = 1.0;
        assert_eq!(waits(vec![Listed::default()]).await, Some(still));
        assert_eq!(waits(vec![pod(Some(true))]).await, Some(still));
        // A sandbox appears, gets a container, and that is started.
        let steps = [None, None, Some(false), Some(true)];
        let mut lists = vec![Listed::default()];
        lists.extend(steps.map(pod));
        assert_eq!(waits(lists).await, Some(still + 1.5));
        // One that gets no container, and a container that is never started, are not waited for without end.
        assert_eq!(waits(vec![pod(None)]).await, Some(still + 9.5));
        assert_eq!(waits(vec![pod(Some(false))]).await, Some(still + 44.5));
        let restless = (0..200).map(|nth| Listed {
            containers: vec![(format!("c{nth}"), "s".to_owned(), false)],
            ..Listed::default()
        });
        assert_eq!(waits(restless.collect()).await, None);
    }
}
