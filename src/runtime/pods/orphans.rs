//! Shims that Docker Engine lost. When containerd is restarted below it while it starts a container, the request fails,
//! and neither of the two knows the shim any more, nor the process in it: runc that waits for its start, or a sandbox
//! that runs. They would stay until the next boot.

use std::{collections::BTreeSet, time::Duration};

use bollard::models::ContainerSummaryStateEnum;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep};

use super::{
    dockershim::KIND,
    process::{Processes, Shims},
};
use crate::runtime::{RuntimeError, docker::Engine};

/// containerd's namespace for Docker's containers, the default of dockerd's `--containerd-namespace`, in the containerd of
/// the system, or in one that dockerd starts itself (`cmd/dockerd/daemon_unix.go`). Other engines are somebody else's.
const OWN: Shims = Shims {
    namespace: "moby",
    sockets: &[
        "/run/containerd/containerd.sock",
        "/var/run/containerd/containerd.sock",
        "/run/docker/containerd/containerd.sock",
        "/var/run/docker/containerd/containerd.sock",
    ],
};
/// How long a shim without a running container is taken for one that starts or exits.
const LEAVES_WITHIN: Duration = Duration::from_secs(10);
/// How often Docker is asked meanwhile.
const POLL: Duration = Duration::from_millis(500);

/// Ends the shims of pods that the engine does not run, and the processes of their containers. Returns a sentence for
/// each one that is still there.
///
/// # Errors
/// When the engine does not answer.
pub async fn end(engine: &Engine, processes: Processes<'_>) -> Result<Vec<String>, RuntimeError> {
    end_unserved(processes, async || served(engine).await).await
}

/// The containers that may have a shim: those of pods that run, and all others, which are somebody else's.
async fn served(engine: &Engine) -> Result<BTreeSet<String>, RuntimeError> {
    let all = engine.containers(&[]).await?.into_iter();
    let served = all.filter(|container| {
        let of_a_pod = container
            .labels
            .as_ref()
            .is_some_and(|labels| labels.contains_key(KIND));
        let stopped = matches!(
            container.state,
            Some(
                ContainerSummaryStateEnum::CREATED
                    | ContainerSummaryStateEnum::EXITED
                    | ContainerSummaryStateEnum::DEAD
                    | ContainerSummaryStateEnum::REMOVING
            )
        );
        !(of_a_pod && stopped)
    });
    Ok(served.filter_map(|container| container.id).collect())
}

async fn end_unserved(
    processes: Processes<'_>,
    served: impl AsyncFn() -> Result<BTreeSet<String>, RuntimeError>,
) -> Result<Vec<String>, RuntimeError> {
    let lost = async || -> Result<BTreeSet<String>, RuntimeError> {
        let shims: BTreeSet<String> = processes.shims(OWN).into_keys().collect();
        if shims.is_empty() {
            return Ok(shims);
        }
        Ok(shims.difference(&served().await?).cloned().collect())
    };
    let mut candidates = lost().await?;
    let until = Instant::now() + LEAVES_WITHIN;
    while !candidates.is_empty() && Instant::now() < until {
        sleep(POLL).await;
        let still = lost().await?;
        candidates.retain(|id| still.contains(id));
    }
    let mut left = Vec::new();
    for id in candidates {
        processes.signal_container(&id, Signal::SIGKILL);
        match processes.end_shim(OWN, &id).await {
            Ok(()) => tracing::info!(id, "ended a shim whose container Docker Engine does not run"),
            Err(error) => left.push(error.to_string()),
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::files::Files,
        runtime::pods::bundles::tests::{kill, process, shim, write},
    };

    /// Docker in Docker, Docker of a user, and a second one of root.
    #[tokio::test(start_paused = true)]
    async fn shims_of_other_engines_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let other = |number: u32| {
            let id = number.to_string().repeat(64);
            (shim(root, OWN.namespace, &id), id)
        };
        let others = [other(1), other(2), other(3), other(4)];
        let of = |at: usize, file: &str| format!("proc/{}/{file}", others[at].0);
        let status = |uid: u32, ids: &str| {
            format!("State:\tS (sleeping)\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t{ids}\n")
        };
        // In a container, by its cgroup or, where that is hidden, by its PID namespace.
        let cgroup = format!(
            "0::/kubepods.slice/cri-containerd-{}.scope/docker\n",
            "c".repeat(64)
        );
        write(root, &of(0, "cgroup"), &cgroup);
        write(root, &of(1, "status"), &status(0, "4711 12"));
        write(root, &of(2, "status"), &status(1000, "4711"));
        let second = format!(
            "containerd-shim-runc-v2\0-namespace\0moby\0-id\0{}\0-address\0/run/second/containerd/containerd.sock\0",
            others[3].1
        );
        write(root, &of(3, "cmdline"), &second);
        let processes_of_them = others.iter().map(|(_, id)| process(root, id, &["sleep", "600"]));
        let kept: Vec<u32> = processes_of_them
            .chain(others.iter().map(|(pid, _)| *pid))
            .collect();
        let files = Files::new(root);
        let served = BTreeSet::new();
        end_unserved(Processes(&files), async || Ok(served.clone()))
            .await
            .unwrap();
        for pid in &kept {
            assert!(root.join(format!("proc/{pid}")).exists(), "{pid} was ended");
        }
        kill(&kept);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_docker_lost_ends_with_its_processes_and_the_others_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let (lost, known) = ("a".repeat(64), "b".repeat(64));
        shim(root, OWN.namespace, &lost);
        let init = process(root, &lost, &["sleep", "600"]);
        let kept = [
            shim(root, OWN.namespace, &known),
            process(root, &known, &["sleep", "600"]),
            shim(root, "k8s.io", &"c".repeat(64)),
        ];
        let files = Files::new(root);
        let processes = Processes(&files);
        let served = BTreeSet::from([known.clone()]);
        let left = end_unserved(processes, async || Ok(served.clone()))
            .await
            .unwrap();
        assert_eq!(left, Vec::<String>::new());
        let shims: Vec<String> = processes.shims(OWN).into_keys().collect();
        assert_eq!(shims, [known]);
        assert!(
            processes.of(&BTreeSet::from([lost.as_str()])).is_empty(),
            "{init} runs"
        );
        for pid in kept {
            assert!(root.join(format!("proc/{pid}")).exists(), "{pid} was ended");
        }
        kill(&kept);
    }
}
