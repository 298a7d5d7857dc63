//! Which programs the shims run. All containers of a pod have one shim, whose socket their bundles name; the pod's sandbox,
//! the first of them, was started with it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Bundle, bundles};
use crate::{
    host::files::Files,
    plan::shims::ShimUse,
    runtime::{kubelet::command_line, pods::bundles::OWN},
};

/// How the command line of the first process of the agent's pod begins: the entry point of its image, and its argument.
const AGENT: [&str; 2] = ["transship", "agent"];

/// The programs of the shims whose containers run, by path, with the number of pods on each. The agent's own pod does not
/// count: it leaves the node when the count is of use.
pub(in crate::runtime) fn in_use(files: &Files) -> Vec<ShimUse> {
    // Of each shim the container that was started first.
    let mut first: BTreeMap<(String, String), (u64, String)> = BTreeMap::new();
    let mut agents: BTreeSet<(String, String)> = BTreeSet::new();
    for bundle in bundles(files) {
        let Some(task) = bundle.task(files) else { continue };
        let shim = (bundle.namespace.clone(), address(files, &bundle));
        if bundle.namespace == OWN.namespace && is_agent(files, task.pid) {
            agents.insert(shim.clone());
        }
        let Some(program) = bundle.text(files, "shim-binary-path") else {
            continue;
        };
        let found = (task.started, program);
        let kept = first.entry(shim).or_insert_with(|| found.clone());
        if found < *kept {
            *kept = found;
        }
    }
    first.retain(|shim, _| !agents.contains(shim));
    let mut programs: BTreeMap<String, ShimUse> = BTreeMap::new();
    for ((namespace, _), (_, program)) in first {
        let of = programs.entry(program.clone()).or_insert(ShimUse {
            program,
            pods: 0,
            others: 0,
        });
        if namespace == OWN.namespace {
            of.pods += 1;
        } else {
            of.others += 1;
        }
    }
    programs.into_values().collect()
}

/// Whether a process is the agent's.
fn is_agent(files: &Files, pid: u32) -> bool {
    let words = command_line(files, pid).unwrap_or_default();
    let program = words.first().and_then(|path| path.rsplit('/').next());
    [program, words.get(1).map(String::as_str)] == AGENT.map(Some)
}

/// The socket of its shim; its own id if the bundle names none.
fn address(files: &Files, bundle: &Bundle) -> String {
    bundle
        .address(files)
        .or_else(|| bundle.bootstrap_address(files))
        .unwrap_or_else(|| bundle.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host_path::HostPath;

    const OLD: &str = "/usr/bin/containerd-shim-runc-v2";
    const NEW: &str = "/opt/transship/containerd-2.4.2/bin/containerd-shim-runc-v2";

    /// Writes a bundle, and the process of its container.
    fn runs(files: &Files, at: &str, (pid, started): (u32, u64), entries: &[(&str, &str)]) {
        let write = |path: &str, text: &str| {
            files
                .write(&HostPath::new(path).unwrap(), text.as_bytes(), 0o600)
                .unwrap();
        };
        for (name, text) in [("init.pid", &*pid.to_string())].iter().chain(entries) {
            write(
                &format!("/run/containerd/io.containerd.runtime.v2.task/{at}/{name}"),
                text,
            );
        }
        let between = (4..22).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        write(
            &format!("/proc/{pid}/stat"),
            &format!("{pid} (a) S {between} {started} 0 0\n"),
        );
    }

    #[test]
    fn a_pod_counts_once_and_for_the_shim_of_its_sandbox() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let bootstrap = |socket: &str| {
            format!("{{\"version\":3,\"address\":\"unix:///s/{socket}\",\"protocol\":\"ttrpc\"}}")
        };
        // A pod of 1.x. One of its containers was started again by 2.x, which names its own shim.
        let old = [("address", "unix:///s/1"), ("shim-binary-path", OLD)];
        runs(&files, "k8s.io/z-sandbox", (10, 100), &old);
        runs(&files, "k8s.io/container", (11, 101), &old);
        let again = bootstrap("1");
        runs(
            &files,
            "k8s.io/again",
            (12, 900),
            &[("bootstrap.json", &again), ("shim-binary-path", NEW)],
        );
        // A pod of 2.x.
        let own = bootstrap("2");
        runs(
            &files,
            "k8s.io/new",
            (20, 901),
            &[("bootstrap.json", &own), ("shim-binary-path", NEW)],
        );
        runs(
            &files,
            "k8s.io/in-it",
            (21, 902),
            &[("bootstrap.json", &own), ("sandbox", "new")],
        );
        // One of Docker's.
        runs(
            &files,
            "moby/docker",
            (30, 50),
            &[("address", "unix:///s/3"), ("shim-binary-path", OLD)],
        );
        // The agent's, which started again under 2.x, and the controller's.
        let mine = bootstrap("4");
        let sandbox = [("bootstrap.json", &*mine), ("shim-binary-path", OLD)];
        runs(&files, "k8s.io/of-the-agent", (40, 60), &sandbox);
        runs(
            &files,
            "k8s.io/agent",
            (41, 903),
            &[("bootstrap.json", &mine), ("sandbox", "of-the-agent")],
        );
        let line = |pid: u32, text: &[u8]| {
            files
                .write(
                    &HostPath::new(format!("/proc/{pid}/cmdline")).unwrap(),
                    text,
                    0o444,
                )
                .unwrap();
        };
        line(41, b"/transship\0agent\0");
        line(11, b"/transship\0controller\0");
        line(20, b"/usr/bin/agent\0agent\0");
        // Not running any more.
        let gone =
            HostPath::new("/run/containerd/io.containerd.runtime.v2.task/k8s.io/gone/shim-binary-path")
                .unwrap();
        files.write(&gone, OLD.as_bytes(), 0o600).unwrap();
        let of = |program: &str, pods, others| ShimUse {
            program: program.to_owned(),
            pods,
            others,
        };
        assert_eq!(in_use(&files), [of(NEW, 1, 0), of(OLD, 1, 1)]);
    }
}
