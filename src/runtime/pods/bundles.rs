//! Pods of a containerd that does not answer. What it started lives on without it, and ends without it: its shims, and
//! the processes of its containers, by the bundles that it keeps of them (OCI runtime specification, `config.json`).
//! Their network goes by libcni's cache. Its own records stay, until it serves pods again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    Container, Ending, Pod, Server, end_all, grace,
    leaving::Leaving,
    process::{Processes, Shims},
    specification::{self, Kept, Namespace, Specification},
};
use crate::{
    edit::parse,
    host::files::Files,
    plan::host_path::HostPath,
    runtime::{RuntimeError, Stopped, cni_del::Network},
};

/// containerd's namespace for what the kubelet asks for (`k8sContainerdNamespace` in its CRI plugin).
pub(in crate::runtime) const OWN: Shims = Shims {
    namespace: "k8s.io",
    sockets: &[],
};
/// Where the bundles of that namespace are, by default: `state` in containerd's configuration, the runtime plugin, the
/// namespace. A directory for each sandbox and each container, named by its id.
const BUNDLES: &str = "/run/containerd/io.containerd.runtime.v2.task/k8s.io";
/// By this part of it the directory of another `state` is known.
const PLUGIN: &str = "/io.containerd.runtime.v2.task/k8s.io/";

/// An annotation of containerd's CRI plugin (`pkg/cri/annotations`).
fn annotation<'a>(of: &'a Specification, name: &str) -> Option<&'a str> {
    of.annotation(&format!("io.kubernetes.cri.{name}"))
}

fn network_of(of: &Specification) -> Option<&Namespace> {
    of.namespaces().find(|namespace| namespace.kind == "network")
}

/// The network namespace of a container, if it is there.
fn netns_of(files: &Files, of: &Specification) -> Option<HostPath> {
    let path = HostPath::new(network_of(of)?.path.as_ref()?).ok()?;
    files.exists(&path).unwrap_or(false).then_some(path)
}

/// The network namespace that an OCI runtime specification names, if it is there.
pub(super) fn netns_in(files: &Files, specification: &[u8]) -> Option<HostPath> {
    netns_of(files, &parse::json(specification).ok()?)
}

/// Ends the pods of a containerd that does not answer.
///
/// # Errors
/// As [`end_all`]: when a process does not end.
pub async fn end_pods(
    network: Network<'_>,
    processes: Processes<'_>,
    ending: Ending,
) -> Result<Stopped, RuntimeError> {
    let server = Bundles {
        network,
        processes,
        limit_secs: ending.limit_secs,
        leaving: Leaving::new(network),
        gone: RefCell::default(),
    };
    let mut stopped = end_all(&server, processes, ending.extent).await?;
    stopped.stuck = server.gone.into_inner();
    if !stopped.stuck.is_empty() {
        let gone: Vec<String> = stopped.stuck.keys().cloned().collect();
        stopped.left.extend(server.leaving.wrong);
        stopped.left.extend(network.free_leases(&gone));
    }
    Ok(stopped)
}

#[derive(Debug)]
struct Bundles<'a> {
    network: Network<'a>,
    processes: Processes<'a>,
    limit_secs: u32,
    leaving: Leaving<'a>,
    /// Sandboxes that were ended here, with what is left of each.
    gone: RefCell<BTreeMap<String, String>>,
}

impl Server for Bundles<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let bundles = self.bundles();
        let ids = bundles.keys().map(String::as_str).collect();
        let running = self.processes.of(&ids);
        let shims = self.processes.shims(OWN);
        let kept = bundles.iter().filter_map(|(id, bundle)| {
            Some(Kept {
                id,
                sandbox: annotation(bundle, "sandbox-id")?,
                namespace: annotation(bundle, "sandbox-namespace").unwrap_or_default(),
                name: annotation(bundle, "sandbox-name").unwrap_or_default(),
                host_network: network_of(bundle).is_none(),
                // Its annotation is not in the bundle.
                grace_secs: grace(None, self.limit_secs),
            })
        });
        let mut pods = specification::pods(kept, &running);
        pods.retain(|sandbox, pod| {
            let runs = pod.containers.iter().any(|container| container.running)
                || running.contains_key(sandbox)
                || shims.contains_key(sandbox);
            let attached = self.leaving.is_attached(sandbox) && !self.gone.borrow().contains_key(sandbox);
            runs || attached
        });
        Ok(pods.into_values().collect())
    }

    async fn stop_signal(&self, _: &Container) -> Result<Option<Signal>, RuntimeError> {
        // An image's own stands in containerd's store alone.
        Ok(Some(Signal::SIGTERM))
    }

    async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        let grace = Duration::from_secs(grace_secs.into());
        self.processes.end_container(id, Some(grace)).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.processes.end_container(&container.id, None).await
    }

    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError> {
        // A containerd that was killed and started again takes the bundle away once its shim is gone.
        let netns = self.netns(&pod.sandbox);
        self.processes.end_container(&pod.sandbox, None).await?;
        self.processes.end_shim(OWN, &pod.sandbox).await?;
        let mut why = format!(
            "sandbox {} of pod {} has ended, and containerd, which did not answer, keeps a record of it",
            pod.sandbox, pod.name
        );
        for error in self.leaving.leave(&pod.sandbox, &netns).await {
            why.push_str(&format!("; {error}"));
        }
        self.gone.borrow_mut().insert(pod.sandbox.clone(), why);
        Ok(Vec::new())
    }
}

impl Bundles<'_> {
    /// The bundles of pods by their ids. What somebody made in the namespace without the CRI is not among them.
    fn bundles(&self) -> BTreeMap<String, Specification> {
        let mut bundles = BTreeMap::new();
        for directory in directories(self.network.files) {
            for id in self.network.files.list(&directory).unwrap_or_default() {
                let bundle = self.bundle(&directory, &id).unwrap_or_default();
                if annotation(&bundle, "container-type").is_some() {
                    bundles.insert(id, bundle);
                }
            }
        }
        bundles
    }

    fn bundle(&self, directory: &HostPath, id: &str) -> Option<Specification> {
        let path = directory.join(id).ok()?.join("config.json").ok()?;
        Specification::read(self.network.files, &path)
    }

    /// The network namespace of a sandbox, empty when it is gone.
    fn netns(&self, sandbox: &str) -> String {
        let bundle = directories(self.network.files)
            .iter()
            .find_map(|directory| self.bundle(directory, sandbox))
            .unwrap_or_default();
        let netns = netns_of(self.network.files, &bundle);
        netns.map(|netns| netns.to_string()).unwrap_or_default()
    }
}

/// The directories with bundles: the default one, and those whose mounts are seen.
pub(in crate::runtime) fn directories(files: &Files) -> BTreeSet<HostPath> {
    specification::directories(files, BUNDLES, PLUGIN)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{
        fs,
        path::Path,
        process::{Child, Command, Stdio},
        thread,
    };

    use super::*;
    use crate::runtime::pods::Extent;

    const SANDBOX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const APP: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const FOREIGN: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

    pub(in super::super) fn write(root: &Path, name: &str, text: &str) {
        let file = root.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    /// A real process, and what the kernel says of it, until it ends.
    pub(in super::super) fn process(root: &Path, container: &str, command: &[&str]) -> u32 {
        let mut command_line = Command::new(command[0]);
        command_line
            .args(&command[1..])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child: Child = command_line.spawn().unwrap();
        let pid = child.id();
        let proc = format!("proc/{pid}");
        write(
            root,
            &format!("{proc}/cgroup"),
            &format!("0::/kubepods/pod1/{container}\n"),
        );
        write(
            root,
            &format!("{proc}/status"),
            &format!("State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nNSpid:\t{pid}\nSigBlk:\t0\nSigCgt:\t4000\n"),
        );
        write(root, &format!("{proc}/comm"), "sleep\n");
        let gone = root.join(proc);
        thread::spawn(move || {
            child.wait().unwrap();
            fs::remove_dir_all(gone).unwrap();
        });
        pid
    }

    /// A process that ignores SIGTERM, and has said so: one that is told to end before would end.
    pub(in super::super) fn deaf(root: &Path, container: &str) -> u32 {
        let ready = root.join(format!("deaf-{container}"));
        let script = format!(
            "trap '' TERM; : >'{}'; while :; do sleep 1; done",
            ready.display()
        );
        let pid = process(root, container, &["sh", "-c", &script]);
        while !ready.exists() {
            thread::yield_now();
        }
        pid
    }

    /// A shim of containerd, which is a `sleep`.
    pub(in super::super) fn shim(root: &Path, namespace: &str, id: &str) -> u32 {
        let shim = process(root, "init", &["sleep", "600"]);
        write(root, &format!("proc/{shim}/comm"), "containerd-shim\n");
        write(
            root,
            &format!("proc/{shim}/cmdline"),
            &format!(
                "/usr/bin/containerd-shim-runc-v2\0-namespace\0{namespace}\0-id\0{id}\0-address\0/run/containerd/containerd.sock\0"
            ),
        );
        shim
    }

    /// Ends processes of a test.
    pub(in super::super) fn kill(pids: &[u32]) {
        for pid in pids {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
        }
    }

    fn bundle(root: &Path, id: &str, annotations: &str, namespaces: &str) {
        write(
            root,
            &format!("{}/{id}/config.json", &BUNDLES[1..]),
            &format!(r#"{{"annotations":{{{annotations}}},"linux":{{"namespaces":[{namespaces}]}}}}"#),
        );
    }

    #[tokio::test]
    async fn pods_end_without_their_containerd_and_other_containers_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let kind = |kind: &str| {
            format!(
                r#""io.kubernetes.cri.container-type":"{kind}","io.kubernetes.cri.sandbox-id":"{SANDBOX}","io.kubernetes.cri.sandbox-name":"web","io.kubernetes.cri.sandbox-namespace":"lab""#
            )
        };
        let network = r#"{"type":"network","path":"/run/netns/cni-1"}"#;
        bundle(root, SANDBOX, &kind("sandbox"), network);
        bundle(root, APP, &kind("container"), network);
        bundle(root, FOREIGN, "", "");
        let sandbox = process(root, SANDBOX, &["sleep", "600"]);
        let app = deaf(root, APP);
        let foreign = process(root, FOREIGN, &["sleep", "600"]);
        let shim = shim(root, OWN.namespace, SANDBOX);
        write(
            root,
            "var/lib/cni/networks/lab/10.0.0.9",
            &format!("{SANDBOX}\r\neth0"),
        );
        let files = Files::new(root);
        let cache = HostPath::new("/var/lib/cni/cache").unwrap();
        let (network, processes) = (
            Network {
                files: &files,
                cache: &cache,
                bin_dirs: &[],
            },
            Processes(&files),
        );
        let ending = Ending {
            extent: Extent::Everything,
            limit_secs: 1,
            beside: None,
            patience: Duration::ZERO,
            may_stick: true,
        };
        let stopped = end_pods(network, processes, ending).await.unwrap();
        assert_eq!((stopped.killed, stopped.sandboxes), (1, 1), "{stopped:?}");
        for pid in [sandbox, app] {
            assert!(!root.join(format!("proc/{pid}")).exists(), "{pid} runs");
        }
        assert!(
            root.join(format!("proc/{foreign}")).exists(),
            "a foreign container was ended"
        );
        assert!(processes.shims(OWN).is_empty() || !runs(shim), "the shim is left");
        assert!(!root.join("var/lib/cni/networks/lab/10.0.0.9").exists());
        assert!(stopped.stuck[SANDBOX].contains("did not answer"), "{stopped:?}");
        // Nothing is left to do, and nothing is named twice.
        let again = end_pods(network, processes, ending).await.unwrap();
        assert_eq!(again, Stopped::default());
        kill(&[foreign]);
    }

    fn runs(pid: u32) -> bool {
        fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    #[test]
    fn fuzz_mounts_of_bundles() {
        use crate::fuzz::{hold, samples};

        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let mounts = root.path().join("proc/self/mountinfo");
        fs::create_dir_all(mounts.parent().unwrap()).unwrap();
        hold(&samples("mountinfo", &[]), |text| {
            fs::write(&mounts, text).unwrap();
            let found = directories(&files);
            assert!(found.iter().any(|directory| directory.as_str() == BUNDLES));
        });
    }
}
