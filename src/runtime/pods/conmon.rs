//! Pods of a CRI-O that does not answer. What it started lives on without it, and ends without it: a monitor (conmon) for each
//! container, which ends with its container, or one for each pod (conmonrs), which does not; and sandboxes, which have no process of their own, but namespaces that files under
//! `/run` hold. What they are stands in the OCI runtime specification that CRI-O keeps of each (`internal/factory`, its
//! annotations in `pkg/annotations`). Their network goes by libcni's cache. CRI-O removes its own records, and what the OCI
//! runtime keeps of ended containers, at its next start.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use nix::{
    mount::{MntFlags, umount2},
    sys::signal::Signal,
};

use super::{
    Container, Ending, GRACE, Pod, Server, end_all, grace,
    leaving::Leaving,
    process::Processes,
    specification::{self, Kept, Namespace, Specification},
};
use crate::{
    host::{command, files::Files},
    plan::host_path::{self, HostPath},
    runtime::{RuntimeError, Stopped, cni_del::Network},
};

/// Where what it keeps of containers until the next boot is, by default: `runroot` in its configuration.
const CONTAINERS: &str = "/run/containers/storage/overlay-containers";
/// By this part of a mount the directory of another `runroot` is known: a sandbox's shared memory is mounted there.
const PART: &str = "/overlay-containers/";
/// What CRI-O calls itself in what it keeps of containers; older releases do not.
const MANAGER: &str = "cri-o";
/// Where namespaces of sandboxes are mounted.
const NAMESPACES: [&str; 4] = ["/run/netns/", "/run/ipcns/", "/run/utsns/", "/run/userns/"];
/// The table of CRI-O's rules for ports of the node, per family (`internal/hostport`).
const HOST_PORTS: &str = "crio-hostports";
/// Where nft is.
const NFT: [&str; 4] = [
    "/usr/local/sbin/nft",
    "/usr/sbin/nft",
    "/sbin/nft",
    "/usr/bin/nft",
];
/// How long it may take.
const NFT_WITHIN: Duration = Duration::from_secs(10);

/// An annotation of CRI-O.
fn annotation<'a>(of: &'a Specification, name: &str) -> &'a str {
    text(of, &format!("io.kubernetes.cri-o.{name}"))
}

fn text<'a>(of: &'a Specification, name: &str) -> &'a str {
    of.annotation(name).unwrap_or_default()
}

/// Files of namespaces that were made for a sandbox, under `/run`.
fn namespaces<'a>(of: &'a Specification, kind: Option<&'a str>) -> impl Iterator<Item = HostPath> + 'a {
    let of_kind = move |namespace: &&Namespace| kind.is_none_or(|kind| namespace.kind == kind);
    of.namespaces().filter(of_kind).filter_map(|namespace| {
        let path = host_path::socket(namespace.path.as_ref()?);
        let is_own = NAMESPACES.iter().any(|directory| path.starts_with(directory));
        HostPath::new(path).ok().filter(|_| is_own)
    })
}

fn network_of(of: &Specification) -> Option<HostPath> {
    namespaces(of, Some("network")).next()
}

/// Where the file system of a container, and the shared memory of a sandbox, are mounted.
fn mounts(of: &Specification) -> impl Iterator<Item = HostPath> {
    let named = ["MountPoint", "ShmPath"].map(|name| annotation(of, name));
    named.into_iter().filter_map(|path| HostPath::new(path).ok())
}

/// The network namespace of a sandbox, by what CRI-O keeps of it, if it is there.
pub(super) fn netns_of(files: &Files, sandbox: &str) -> Option<HostPath> {
    let netns = network_of(&find(files, sandbox)?)?;
    files.exists(&netns).unwrap_or(false).then_some(netns)
}

/// Ends the pods of a CRI-O that does not answer.
///
/// # Errors
/// As [`end_all`]: when a process does not end.
pub async fn end_pods(
    network: Network<'_>,
    processes: Processes<'_>,
    ending: Ending,
) -> Result<Stopped, RuntimeError> {
    let server = Conmon {
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
        stopped.left.extend(forget_host_ports(network.files).await);
    }
    Ok(stopped)
}

/// Removes the rules for ports of the node once CRI-O has no pods: those of the next pod there are another server's, and CRI-O itself
/// makes the table again when it needs it. Returns a sentence for each table that may be left.
pub async fn forget_host_ports(files: &Files) -> Vec<String> {
    let places = NFT.iter().filter_map(|path| HostPath::new(*path).ok());
    let mut there = places.filter(|path| files.exists(path).unwrap_or(false));
    // Without it CRI-O has made none.
    let Some(program) = there.next().and_then(|path| files.real(&path).ok()) else {
        return Vec::new();
    };
    let mut left = Vec::new();
    for family in ["ip", "ip6"] {
        // Made first, so that one that is not there is no mistake (`destroy` of nft(8) is newer).
        let rules = format!("add table {family} {HOST_PORTS}\ndelete table {family} {HOST_PORTS}\n");
        let mut nft = command::command(&program);
        nft.args(["-f", "-"]);
        let why = match command::run(nft, rules.as_bytes(), NFT_WITHIN).await {
            Ok(output) if output.status.success() => continue,
            Ok(output) => output.stderr.trim().to_owned(),
            Err(error) => error.to_string(),
        };
        left.push(format!(
            "the table {family} {HOST_PORTS} of CRI-O may be left: {why}"
        ));
    }
    left
}

#[derive(Debug)]
struct Conmon<'a> {
    network: Network<'a>,
    processes: Processes<'a>,
    limit_secs: u32,
    leaving: Leaving<'a>,
    /// Sandboxes that were ended here, with what is left of each.
    gone: RefCell<BTreeMap<String, String>>,
}

impl Server for Conmon<'_> {
    async fn pods(&self) -> Result<Vec<Pod>, RuntimeError> {
        let configs = self.configs();
        let ids = configs.keys().map(String::as_str).collect();
        let running = self.processes.of(&ids);
        let kept = configs.iter().map(|(id, config)| {
            let own = config.annotation(GRACE).map(str::to_owned);
            Kept {
                id,
                sandbox: annotation(config, "SandboxID"),
                namespace: text(config, "io.kubernetes.pod.namespace"),
                name: text(config, "io.kubernetes.pod.name"),
                host_network: network_of(config).is_none(),
                grace_secs: grace(own.as_ref(), self.limit_secs),
            }
        });
        let mut pods = specification::pods(kept, &running);
        pods.retain(|sandbox, pod| {
            let runs =
                pod.containers.iter().any(|container| container.running) || running.contains_key(sandbox);
            let is_there = configs.get(sandbox).is_some_and(|config| self.holds(config));
            runs || (!self.gone.borrow().contains_key(sandbox)
                && (is_there || self.leaving.is_attached(sandbox)))
        });
        Ok(pods.into_values().collect())
    }

    async fn stop_signal(&self, _: &Container) -> Result<Option<Signal>, RuntimeError> {
        // An image's own stands in its configuration alone.
        Ok(Some(Signal::SIGTERM))
    }

    async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        let grace = Duration::from_secs(grace_secs.into());
        self.processes.end_container(id, Some(grace)).await
    }

    async fn remove_container(&self, container: &Container) -> Result<(), RuntimeError> {
        self.processes.end_container(&container.id, None).await?;
        let config = find(self.network.files, &container.id);
        for mount in config.iter().flat_map(mounts) {
            self.unmount(&mount);
        }
        Ok(())
    }

    async fn remove_sandbox(&self, pod: &Pod) -> Result<Vec<String>, RuntimeError> {
        let config = find(self.network.files, &pod.sandbox).unwrap_or_default();
        self.processes.end_container(&pod.sandbox, None).await?;
        self.processes.end_monitor(&pod.sandbox);
        let netns = network_of(&config).filter(|netns| self.network.files.exists(netns).unwrap_or(false));
        let mut why = format!(
            "sandbox {} of pod {} has ended, and CRI-O, which did not answer, keeps a record of it",
            pod.sandbox, pod.name
        );
        let left = self
            .leaving
            .leave(&pod.sandbox, netns.as_ref().map_or("", HostPath::as_str))
            .await;
        for error in &left {
            why.push_str(&format!("; {error}"));
        }
        for mount in mounts(&config) {
            self.unmount(&mount);
        }
        // A network that was not left needs its namespace once more.
        if left.is_empty() {
            for namespace in namespaces(&config, None) {
                self.unmount(&namespace);
                let _ = self.network.files.remove(&namespace);
            }
        }
        self.gone.borrow_mut().insert(pod.sandbox.clone(), why);
        Ok(Vec::new())
    }
}

impl Conmon<'_> {
    /// What CRI-O keeps of pods' containers and sandboxes, by their ids. Containers of podman lie in the same store, some with
    /// the same annotations, and are not among them: CRI-O itself tells them by who manages them (`ErrIsNonCrioContainer`).
    fn configs(&self) -> BTreeMap<String, Specification> {
        let files = self.network.files;
        let mut configs = BTreeMap::new();
        for directory in directories(files) {
            for id in files.list(&directory).unwrap_or_default() {
                let config = config(files, &directory, &id).unwrap_or_default();
                let is_own = ["", MANAGER].contains(&text(&config, "io.container.manager"));
                if is_own
                    && !annotation(&config, "ContainerType").is_empty()
                    && !annotation(&config, "SandboxID").is_empty()
                {
                    configs.insert(id, config);
                }
            }
        }
        configs
    }

    /// Whether a sandbox still has a namespace of its own.
    fn holds(&self, config: &Specification) -> bool {
        let mut namespaces = namespaces(config, None);
        namespaces.any(|namespace| self.network.files.exists(&namespace).unwrap_or(false))
    }

    /// Without this it stays until the next boot, and holds nothing that runs.
    fn unmount(&self, path: &HostPath) {
        let real = self.network.files.real(path);
        let unmounted =
            real.and_then(|real| Ok(umount2(&real, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?));
        if let Err(error) = unmounted {
            tracing::debug!(%path, %error, "nothing was unmounted");
        }
    }
}

fn config(files: &Files, directory: &HostPath, id: &str) -> Option<Specification> {
    let path = directory.join(&format!("{id}/userdata/config.json")).ok()?;
    Specification::read(files, &path)
}

/// What it keeps of one container or sandbox.
fn find(files: &Files, id: &str) -> Option<Specification> {
    let directories = directories(files);
    directories
        .iter()
        .find_map(|directory| config(files, directory, id))
}

/// The directories with what it keeps of containers: the default one, and those whose mounts are seen.
fn directories(files: &Files) -> BTreeSet<HostPath> {
    specification::directories(files, CONTAINERS, PART)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    use super::*;
    use crate::runtime::pods::{
        Extent,
        bundles::tests::{deaf, kill, process, write},
    };

    const SANDBOX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const APP: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const OF_PODMAN: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

    fn container(root: &Path, id: &str, annotations: &serde_json::Value) {
        let namespaces = [("network", "netns"), ("ipc", "ipcns")].map(
            |(kind, directory)| serde_json::json!({"type": kind, "path": format!("/var/run/{directory}/u")}),
        );
        let config = serde_json::json!({
            "annotations": annotations,
            "linux": {"namespaces": [{"type": "pid"}, namespaces[0], namespaces[1]]},
        });
        let at = format!("{}/{id}/userdata/config.json", &CONTAINERS[1..]);
        write(root, &at, &config.to_string());
    }

    fn of_pod(kind: &str) -> serde_json::Value {
        serde_json::json!({
            "io.kubernetes.cri-o.ContainerType": kind,
            "io.kubernetes.cri-o.SandboxID": SANDBOX,
            "io.kubernetes.pod.name": "web",
            "io.kubernetes.pod.namespace": "lab",
            "io.kubernetes.pod.terminationGracePeriod": "600",
        })
    }

    #[tokio::test]
    async fn pods_end_without_their_cri_o_and_monitors_and_other_containers_stay() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        container(root, SANDBOX, &of_pod("sandbox"));
        container(root, APP, &of_pod("container"));
        let mut podman = of_pod("container");
        podman["io.container.manager"] = "libpod".into();
        container(root, OF_PODMAN, &podman);
        for namespace in ["netns", "ipcns", "utsns"] {
            write(root, &format!("run/{namespace}/u"), "");
        }
        let lease = "var/lib/cni/networks/lab/10.0.0.9";
        write(root, lease, &format!("{SANDBOX}\r\neth0"));
        write(root, "usr/sbin/nft", "#!/bin/sh\ncat >>\"${0%/*}/rules\"\n");
        fs::set_permissions(root.join("usr/sbin/nft"), fs::Permissions::from_mode(0o755)).unwrap();
        let app = deaf(root, APP);
        let of_podman = process(root, OF_PODMAN, &["sleep", "600"]);
        let [monitor, monitor_of_pod] = [APP, SANDBOX].map(|of| {
            let pid = process(root, "x", &["sleep", "600"]);
            let scope = format!("0::/system.slice/crio-conmon-{of}.scope\n");
            write(root, &format!("proc/{pid}/cgroup"), &scope);
            pid
        });
        let files = Files::new(root);
        let cache = HostPath::new("/var/lib/cni").unwrap();
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
        assert_eq!(netns_of(&files, SANDBOX).unwrap().as_str(), "/run/netns/u");
        let stopped = end_pods(network, processes, ending).await.unwrap();
        assert_eq!((stopped.killed, stopped.sandboxes), (1, 1), "{stopped:?}");
        let there = |name: &str| root.join(name).exists();
        assert!(!there(&format!("proc/{app}")), "the container runs");
        let ends = async {
            while there(&format!("proc/{monitor_of_pod}")) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(20), ends).await;
        ended.expect("the pod's monitor ends");
        for (pid, what) in [(of_podman, "a container of podman"), (monitor, "the monitor")] {
            assert!(there(&format!("proc/{pid}")), "{what} was ended");
        }
        assert!(!there(lease) && !there("run/netns/u") && !there("run/ipcns/u"));
        assert!(there("run/utsns/u"), "nobody has named it");
        let rules = fs::read_to_string(root.join("usr/sbin/rules")).unwrap();
        assert!(rules.contains("delete table ip6 crio-hostports"), "{rules}");
        assert!(stopped.stuck[SANDBOX].contains("did not answer"), "{stopped:?}");
        // Nothing is left to do, and nothing is named twice.
        let again = end_pods(network, processes, ending).await.unwrap();
        assert_eq!(again, Stopped::default());
        kill(&[of_podman, monitor]);
    }

    #[test]
    fn fuzz_what_cri_o_keeps_of_containers() {
        use crate::fuzz::{hold, samples};

        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        container(root.path(), SANDBOX, &of_pod("sandbox"));
        let at = root
            .path()
            .join(&CONTAINERS[1..])
            .join(SANDBOX)
            .join("userdata/config.json");
        hold(&samples("crio-container", &[]), |text| {
            fs::write(&at, text).unwrap();
            let directory = HostPath::new(CONTAINERS).unwrap();
            let config = config(&files, &directory, SANDBOX).unwrap_or_default();
            for namespace in namespaces(&config, None) {
                let mut own = NAMESPACES.iter();
                assert!(
                    own.any(|directory| namespace.as_str().starts_with(directory)),
                    "{namespace}"
                );
            }
        });
    }
}
