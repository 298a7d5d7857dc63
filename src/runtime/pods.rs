//! Ends the pods of one runtime: every container gets its stop signal, its grace period up to a limit, and SIGKILL;
//! then its sandbox leaves the network and is removed, at once or, as far as nothing waits for it, later ([`Extent`]).
//! What the pods are, and how they end, is a [`Server`]'s to say:
//!
//! - [`dockershim`]: pods in Docker Engine, of which the server, a part of the kubelet, has stopped already.
//! - [`bundles`]: pods of a containerd that does not answer.
//! - [`conmon`]: pods of a CRI-O that does not answer.
//! - [`over_cri`]: pods of a CRI, which has its own way to end them.
//! - [`checkpoint`]: what dockershim and cri-dockerd keep of each sandbox, which tells whose it is.
//! - [`orphans`]: shims that their engine lost.
//! - [`stuck`]: sandboxes that have ended and could not leave their network.
//! - [`specification`]: what those two make pods out of.
//! - [`leaving`]: sandboxes leave their network without their server.
//! - [`process`]: the processes of containers, signalled without the runtime.
//!
//! preStop hooks are the kubelet's; it is stopped, and only pods that were drained have had theirs.

pub mod bundles;
pub mod checkpoint;
pub mod conmon;
pub mod dockershim;
mod leaving;
pub mod orphans;
pub mod over_cri;
pub mod process;
mod specification;
pub mod stuck;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use nix::sys::signal::Signal;
use process::{First, Processes};
use tokio::time::sleep;

use super::{RuntimeError, Stopped};
use crate::plan::{host_path::HostPath, runtime::Runtime};

/// Annotation of the kubelet on each container: its pod's grace period in seconds (`kuberuntime/labels.go`).
pub(in crate::runtime) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Grace period, in seconds, of a pod whose own is not known: that of one that names none
/// (`DefaultTerminationGracePeriodSeconds` in k8s.io/api's `core/v1`).
const UNKNOWN_GRACE_SECS: u32 = 30;
/// How many pods, and how many containers of one pod, end at the same time. A kubelet runs 110 pods by default.
const AT_ONCE: usize = 128;
/// How many CNI plugins run at the same time; most of them wait for the lock of iptables.
const PLUGINS_AT_ONCE: usize = 8;
/// How long what was told to go may still be listed.
const GONE_WITHIN: Duration = Duration::from_secs(15);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);
/// Between two tries to take a sandbox off its network.
const TRY_AGAIN: Duration = Duration::from_secs(2);
/// What an API server gets at most to answer the requests that it has taken. After its stop signal it takes no others,
/// and stays for its watchers alone, a minute long (`ShutdownTimeout` in k8s.io/apiserver's `genericapiserver.go`);
/// they have to ask anew in any case.
const ANSWERS_WITHIN_SECS: u32 = 5;
/// How the flags begin that tell an API server how to go. Whoever sets one, for a load balancer for example, decides.
const SHUTDOWN_FLAGS: &str = "--shutdown-";

/// How much of the pods goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All containers end, and sandboxes with ports of the node are removed with their containers. The others stay,
    /// with what is known of their containers.
    Containers,
    /// Containers and sandboxes end and are removed.
    Everything,
}

/// What of the pods goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// How much of them.
    pub extent: Extent,
    /// Longest grace period in seconds.
    pub limit_secs: u32,
    /// Another server with pods in the same engine, which are left alone.
    pub beside: Option<Runtime>,
    /// How long a sandbox that cannot leave its network is tried again: plugins may need an agent that starts again
    /// itself.
    pub patience: Duration,
    /// Whether a sandbox that has ended, and cannot leave its network, may stay behind.
    pub may_stick: bool,
}

/// When a pod ends, relative to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wave {
    /// Pods in the pod network.
    Ordinary,
    /// Pods in the host's network: network agents, which serve the others to their end.
    HostNetwork,
    /// The API server, which network agents may ask while they end.
    ApiServer,
    /// etcd, in which the API server still writes what it was asked for.
    Etcd,
}

impl Wave {
    /// The wave of a pod.
    fn of(host_network: bool, namespace: &str, name: &str) -> Self {
        if !host_network {
            Self::Ordinary
        } else if namespace == "kube-system" && name.starts_with("kube-apiserver") {
            Self::ApiServer
        } else if namespace == "kube-system" && name.starts_with("etcd") {
            Self::Etcd
        } else {
            Self::HostNetwork
        }
    }

    /// What of its grace period (seconds) a process gets, by its command line, which is looked at only where it counts:
    /// the kernel lets nobody read that of a process while it changes its memory.
    fn grace(self, own: u32, command_line: impl Fn() -> Vec<String>) -> u32 {
        let told_how_to_go = || command_line().iter().any(|word| word.starts_with(SHUTDOWN_FLAGS));
        if self == Self::ApiServer && !told_how_to_go() {
            own.min(ANSWERS_WITHIN_SECS)
        } else {
            own
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
    /// Ports of the node lead to it, or nobody knows.
    pub host_ports: bool,
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
    /// Whether it is frozen: it does not see a signal before the runtime has thawed it.
    pub frozen: bool,
    /// Seconds between its stop signal and SIGKILL.
    pub grace_secs: u32,
    /// The link to its log that has to go with it; `None` where its server removes it, or its log is no link.
    pub log_link: Option<HostPath>,
}

/// Whoever made the pods, or acts in its place.
#[allow(async_fn_in_trait, reason = "used on one thread, by static dispatch")]
pub trait Server {
    /// All its pods, running or not, and no others.
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError>;
    /// The signal that ends a container; nothing where it is not known or has no name here.
    async fn stop_signal(&self, container: &Container) -> Result<Option<Signal>, RuntimeError>;
    /// Ends a container by its stop signal, and by SIGKILL after so many seconds.
    async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError>;
    /// Removes a container.
    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError>;
    /// Takes a sandbox off the network and removes it; says what of its network is left.
    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError>;
}

/// Seconds that a container gets: its pod's own period, cut to the limit.
pub(in crate::runtime) fn grace(own: Option<&String>, limit_secs: u32) -> u32 {
    let own = own.and_then(|own| own.parse().ok());
    own.unwrap_or(UNKNOWN_GRACE_SECS).min(limit_secs)
}

/// Ends the pods of a server, wave by wave, until nothing is left to end: a container may have been about to start
/// when they were first listed. May be called again after a crash in the middle.
///
/// # Errors
/// When something is still there at the end, with the first cause.
pub async fn end_all(
    server: &impl Server,
    processes: Processes<'_>,
    extent: Extent,
) -> Result<Stopped, RuntimeError> {
    let mut done = Done::default();
    let mut until = None;
    loop {
        let mut left = server.pods().await?;
        left.retain(|pod| match extent {
            Extent::Everything => true,
            Extent::Containers => pod.host_ports || pod.containers.iter().any(|one| done.has_to_end(one)),
        });
        if left.is_empty() {
            return Ok(done.stopped);
        }
        if let Some(until) = until {
            if Instant::now() >= until || !done.failed.is_empty() {
                return Err(done.without(&left));
            }
            sleep(POLL).await;
        }
        for wave in [Wave::Ordinary, Wave::HostNetwork, Wave::ApiServer, Wave::Etcd] {
            let these: Vec<&Pod> = left.iter().filter(|pod| pod.wave == wave).collect();
            let running = these.iter().flat_map(|pod| &pod.containers);
            let running = running
                .filter(|one| done.has_to_end(one))
                .map(|one| one.id.as_str());
            let firsts = processes.first_of(&running.collect());
            let before = &done;
            let ends = these
                .iter()
                .map(|pod| end(server, processes, &firsts, pod, extent, before));
            let parts: Vec<Done> = stream::iter(ends).buffer_unordered(AT_ONCE).collect().await;
            parts.into_iter().for_each(|part| done.add(part));
        }
        until.get_or_insert(Instant::now() + GONE_WITHIN);
    }
}

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    stopped: Stopped,
    /// Containers that ended; the runtime may not have noticed yet.
    ended: BTreeSet<String>,
    failed: Vec<RuntimeError>,
}

impl Done {
    fn has_to_end(&self, container: &Container) -> bool {
        container.running && !self.ended.contains(&container.id)
    }

    fn add(&mut self, part: Self) {
        self.stopped.ended += part.stopped.ended;
        self.stopped.killed += part.stopped.killed;
        self.stopped.sandboxes += part.stopped.sandboxes;
        self.stopped.left.extend(part.stopped.left);
        self.ended.extend(part.ended);
        self.failed.extend(part.failed);
    }

    fn without(&self, left: &[Pod]) -> RuntimeError {
        let names: Vec<&str> = left.iter().map(|pod| pod.name.as_str()).collect();
        let cause = self.failed.first();
        let cause = cause.map_or("the runtime gave no reason", RuntimeError::sentence);
        RuntimeError::new(format!(
            "these pods could not be ended: {}: {cause}",
            names.join(", ")
        ))
    }
}

/// Ends one pod; goes on after a failure, as far as there is something to do.
async fn end(
    server: &impl Server,
    processes: Processes<'_>,
    firsts: &BTreeMap<String, First>,
    pod: &Pod,
    extent: Extent,
    before: &Done,
) -> Done {
    let mut done = Done::default();
    let removes = extent == Extent::Everything || pod.host_ports;
    let mut containers = stream::iter(pod.containers.iter().map(|container| async move {
        let ended = if before.has_to_end(container) {
            let first = firsts.get(&container.id);
            let killed = end_container(server, processes, first, container, pod.wave).await;
            killed.map(Some)
        } else {
            Ok(None)
        };
        // Removing kills what could not be stopped.
        let removed = if removes {
            server.remove_container(container).await
        } else {
            Ok(())
        };
        (container, ended, removed)
    }))
    .buffer_unordered(AT_ONCE);
    while let Some((container, ended, removed)) = containers.next().await {
        match ended {
            Ok(Some(killed)) => {
                done.ended.insert(container.id.clone());
                match killed {
                    true => done.stopped.killed += 1,
                    false => done.stopped.ended += 1,
                }
            }
            Ok(None) => {}
            Err(error) => done.failed.push(error),
        }
        done.failed.extend(removed.err());
    }
    if removes {
        match server.remove_sandbox(pod).await {
            Ok(left) => {
                done.stopped.sandboxes += 1;
                done.stopped.left.extend(left);
            }
            Err(error) => done.failed.push(error),
        }
    }
    done
}

/// Ends a container, by signals to its first process where there is one and its stop signal is known, else by the
/// runtime. Answers whether it was killed.
async fn end_container(
    server: &impl Server,
    processes: Processes<'_>,
    first: Option<&First>,
    container: &Container,
    wave: Wave,
) -> Result<bool, RuntimeError> {
    let own = container.grace_secs;
    let grace_secs = first.map_or(own, |first| wave.grace(own, || processes.command_line(first)));
    let grace = Duration::from_secs(grace_secs.into());
    let first = first.filter(|_| !container.frozen);
    let signal = match first {
        Some(_) => server.stop_signal(container).await?,
        None => None,
    };
    if let (Some(first), Some(signal)) = (first, signal) {
        let ended = processes.end(first, signal, grace).await;
        return ended.map_err(RuntimeError::of);
    }
    if first.is_some_and(|first| processes.waits_for_nothing(first, None)) {
        return server.stop_container(&container.id, 0).await.map(|()| true);
    }
    let began = Instant::now();
    server.stop_container(&container.id, grace_secs).await?;
    Ok(began.elapsed() >= grace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_ends_last_and_etcd_after_its_api_server() {
        for (host_network, namespace, name, wave) in [
            (false, "kube-system", "etcd-backup-1", Wave::Ordinary),
            (true, "default", "etcd-cp1", Wave::HostNetwork),
            (true, "kube-system", "kube-proxy-x", Wave::HostNetwork),
            (true, "kube-system", "kube-apiserver-cp1", Wave::ApiServer),
            (true, "kube-system", "etcd-cp1", Wave::Etcd),
        ] {
            assert_eq!(
                Wave::of(host_network, namespace, name),
                wave,
                "{namespace}/{name}"
            );
        }
        assert!(Wave::ApiServer < Wave::Etcd);
    }

    #[test]
    fn a_pod_gets_its_own_grace_period_up_to_the_limit_and_kubernetes_own_where_nobody_knows_it() {
        for (own, limit_secs, secs) in [
            (Some("45"), 600, 45),
            (Some("45"), 20, 20),
            (Some("3600"), 600, 600),
            (None, 600, 30),
            (Some("-1"), 600, 30),
            (None, 0, 0),
        ] {
            let own = own.map(str::to_owned);
            assert_eq!(grace(own.as_ref(), limit_secs), secs, "{own:?} {limit_secs}");
        }
    }

    #[test]
    fn an_api_server_does_not_get_its_whole_grace_period_for_its_watchers_unless_told_so() {
        let plain = ["kube-apiserver".to_owned(), "--secure-port=6443".to_owned()];
        let told = [
            "kube-apiserver".to_owned(),
            "--shutdown-delay-duration=15s".to_owned(),
        ];
        for (wave, own, command_line, grace) in [
            (Wave::ApiServer, 20, &plain, 5),
            (Wave::ApiServer, 3, &plain, 3),
            (Wave::ApiServer, 20, &told, 20),
            (Wave::Etcd, 20, &plain, 20),
            (Wave::Ordinary, 20, &plain, 20),
        ] {
            assert_eq!(wave.grace(own, || command_line.to_vec()), grace, "{wave:?} {own}");
        }
    }
}
