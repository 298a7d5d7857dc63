//! Shims that their engine lost. When containerd is restarted below Docker Engine while Docker starts a container, the
//! request fails, Docker removes the container, and neither of them knows the shim any more, nor the process of runc that
//! still waits for its start. They would stay until the next boot.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use tokio::time::sleep;

use super::{POLL, process::Processes};

/// How long the shim of a container that was just removed may take to exit by itself.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// Ends the shims in a namespace of containerd that serve none of the `known` containers, and the processes of their
/// containers. Returns a sentence for each one that is still there.
pub async fn end(processes: Processes<'_>, namespace: &str, known: &BTreeSet<String>) -> Vec<String> {
    let lost = || -> Vec<String> {
        let shims = processes.shims(namespace).into_keys();
        shims.filter(|id| !known.contains(id)).collect()
    };
    let until = Instant::now() + LEAVES_WITHIN;
    while !lost().is_empty() && Instant::now() < until {
        sleep(POLL).await;
    }
    let mut left = Vec::new();
    for id in lost() {
        if let Some(pids) = processes.of(&BTreeSet::from([id.as_str()])).get(&id) {
            processes.kill(pids);
        }
        match processes.end_shim(namespace, &id).await {
            Ok(()) => tracing::info!(id, "ended a shim of a container that Docker Engine does not know"),
            Err(error) => left.push(error.0),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::files::Files,
        runtime::pods::bundles::tests::{process, shim},
    };

    #[tokio::test(start_paused = true)]
    async fn a_shim_that_docker_lost_ends_with_its_processes_and_the_others_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let (lost, known) = ("a".repeat(64), "b".repeat(64));
        shim(root, "moby", &lost);
        let init = process(root, &lost, &["sleep", "600"]);
        let kept = [
            shim(root, "moby", &known),
            process(root, &known, &["sleep", "600"]),
            shim(root, "k8s.io", &"c".repeat(64)),
        ];
        let files = Files::new(root);
        let processes = Processes(&files);
        let left = end(processes, "moby", &BTreeSet::from([known.clone()])).await;
        assert_eq!(left, Vec::<String>::new());
        let shims: Vec<String> = processes.shims("moby").into_keys().collect();
        assert_eq!(shims, [known]);
        assert!(
            processes.of(&BTreeSet::from([lost.as_str()])).is_empty(),
            "{init} runs"
        );
        for pid in kept {
            assert!(root.join(format!("proc/{pid}")).exists(), "{pid} was ended");
        }
        processes.kill(&kept);
    }
}
