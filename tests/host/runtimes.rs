//! The clients of container runtimes against real sockets and real processes: a Docker Engine over HTTP and a CRI over
//! gRPC, both with state, CNI plugins and `ctr` as programs. What the lab does with the real ones, in a second.

mod containerd;
mod containerd_api;
mod crio;
mod deadlines;
mod docker;
mod images;
mod pods;
mod records;
mod rehearsal;
mod running;

use std::{
    fs,
    path::Path,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use containerd::{Containerd, NewSandbox};
use docker::{Archive, CHUNK, Engine};
use k8s_cri::v1::{Container, ContainerState, NamespaceMode, PodSandbox, PodSandboxMetadata};
use rstest::rstest;
use serde_json::{Value, json};
use tempfile::TempDir;
use transship::{
    api::request::Runtime,
    host::files::Files,
    plan::{
        host_path::HostPath,
        step::{ClearPods, Direction, Endpoint, ImagesStep, Layers, Proof, Rehearsal, StopPods},
    },
    runtime::{Carried, Means, Runtimes, Stopped, cri::Cri, hosted::HostRuntimes},
};

const APP: &str = "docker.io/library/app:1";

const APP_ID: &str = "sha256:aaaa";

/// The sandbox of the pod with a host port, in the captured files.
const SANDBOX: &str = "632fe1e1ebadeef1591503752c50d056284d994cd5b18ee1c8b338f6a383d9c7";

/// A host: its files, its runtimes, and the client under test.
struct Host {
    root: TempDir,
    engine: Engine,
    containerd: Containerd,
    runtimes: HostRuntimes,
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

fn docker_endpoint() -> Endpoint {
    Endpoint {
        runtime: Runtime::Dockershim,
        socket: path("/var/run/docker.sock"),
    }
}

/// cri-dockerd, of which the CRI is played by the same program.
fn cri_dockerd_endpoint() -> Endpoint {
    Endpoint {
        runtime: Runtime::CriDockerd,
        socket: path("/run/containerd/containerd.sock"),
    }
}

fn containerd_endpoint() -> Endpoint {
    Endpoint {
        runtime: Runtime::Containerd,
        socket: path("/run/containerd/containerd.sock"),
    }
}

/// A step of which only the stores and the means matter here.
fn into_containerd(layers: Layers) -> ImagesStep {
    ImagesStep {
        from: docker_endpoint(),
        to: containerd_endpoint(),
        names: Vec::new(),
        layers,
        ctr: Some(path("/bin/ctr")),
        pull_directory: None,
    }
}

fn into_docker() -> ImagesStep {
    ImagesStep {
        from: containerd_endpoint(),
        to: Endpoint {
            runtime: Runtime::CriDockerd,
            ..docker_endpoint()
        },
        ..into_containerd(Layers::Streamed { why: String::new() })
    }
}

impl Host {
    fn new(set: impl FnOnce(&mut Engine)) -> Self {
        // On the file system of the sources: programs are linked, not copied. One that is just written cannot be
        // started while another thread forks (ETXTBSY).
        let root = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("opt/cni/bin")).unwrap();
        fs::create_dir_all(at("bin")).unwrap();
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/host/runtimes/bin");
        fs::hard_link(bin.join("plugin"), at("opt/cni/bin/bridge")).unwrap();
        fs::hard_link(bin.join("plugin"), at("opt/cni/bin/portmap")).unwrap();
        fs::hard_link(bin.join("ctr"), at("bin/ctr")).unwrap();
        let mut engine = Engine::new(root.path());
        set(&mut engine);
        engine.serve(&at("var/run/docker.sock"));
        let containerd = Containerd::new(root.path());
        containerd.serve(&at("run/containerd/containerd.sock"));
        let runtimes = HostRuntimes::new(Files::new(root.path()));
        Self {
            root,
            engine,
            containerd,
            runtimes,
        }
    }

    /// With the pods of a real node in Docker, a container that is not Kubernetes', and the network of a pod.
    fn with_pods() -> Self {
        let host = Self::new(|engine| {
            let captured = include_str!("runtimes/docker-20.10-containers.json");
            let mut containers: Vec<Value> = serde_json::from_str(captured).unwrap();
            containers.push(json!({"Id": "plain", "Names": ["/plain"], "State": "running", "Labels": {}}));
            *engine.containers.lock().unwrap() = containers;
        });
        let cached = include_str!("runtimes/cni-cache-host-port.json");
        host.write(&format!("var/lib/cni/cache/results/lab-{SANDBOX}-eth0"), cached);
        // "cni-loopback" has a configuration of its own, and no plugin outside of the sandbox.
        let loopback = cached.replace("\"networkName\":\"lab\"", "\"networkName\":\"cni-loopback\"");
        host.write(
            &format!("var/lib/cni/cache/results/cni-loopback-{SANDBOX}-eth0"),
            &loopback,
        );
        host.write(
            "var/lib/cni/networks/lab/10.124.2.7",
            &format!("{SANDBOX}\r\neth0"),
        );
        host.write("var/lib/cni/networks/lab/10.124.2.9", "somebody-else\r\neth0");
        host.write("var/lib/cni/networks/lab/last_reserved_ip.0", "10.124.2.9");
        host
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.root.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.path().join(name)).unwrap_or_default()
    }

    fn list(&self, name: &str) -> Vec<String> {
        Files::new(self.root.path()).list(&path(name)).unwrap()
    }

    /// What the step does forwards.
    async fn stop_pods(&self, source: Endpoint, target: Endpoint) -> Stopped {
        let what = stop_pods(source, target);
        self.runtimes.stop_pods(&what, Direction::Forwards).await.unwrap()
    }

    /// What the step does on the way back.
    async fn stop_pods_of_target(&self, source: Endpoint, target: Endpoint) -> Stopped {
        let what = stop_pods(source, target);
        self.runtimes
            .stop_pods(&what, Direction::Backwards)
            .await
            .unwrap()
    }

    async fn clear_pods(&self, source: Endpoint) -> Stopped {
        let what = ClearPods {
            source,
            cni_bin_dirs: bin_dirs(),
            cni_cache_dir: path("/var/lib/cni/cache"),
        };
        self.runtimes.clear_pods(&what).await.unwrap()
    }

    async fn carry(&self, name: &str) -> Result<Carried, String> {
        let why = "they are not on one file system".to_owned();
        let step = into_containerd(Layers::Streamed { why });
        let carried = self.runtimes.carry_image(&step, name).await;
        carried.map_err(|error| error.to_string())
    }

    async fn remove(&self, store: &Endpoint, name: &str) {
        self.restore(store, name, None).await;
    }

    async fn restore(&self, store: &Endpoint, name: &str, before: Option<&str>) {
        let before = [(name.to_owned(), before.map(str::to_owned))];
        self.runtimes.restore_images(store, &before.into()).await.unwrap();
    }

    async fn images(&self, store: &Endpoint) -> Vec<(String, String)> {
        let images = self.runtimes.images(store).await.unwrap();
        images.into_iter().collect()
    }
}

fn named(name: &str, id: &str) -> (String, String) {
    (name.to_owned(), id.to_owned())
}

fn bin_dirs() -> Vec<HostPath> {
    vec![path("/usr/libexec/cni"), path("/opt/cni/bin")]
}

fn stop_pods(source: Endpoint, target: Endpoint) -> StopPods {
    StopPods {
        source,
        target,
        grace_limit_secs: 20,
        cni_bin_dirs: bin_dirs(),
        cni_cache_dir: path("/var/lib/cni/cache"),
        engine: Some(docker_endpoint().socket),
        source_units: Vec::new(),
        target_units: Vec::new(),
    }
}

fn archive_of(record: &str, chunks: usize) -> Archive {
    Archive {
        record: record.to_owned(),
        chunks,
        breaks: false,
    }
}

fn sandbox(id: &str, namespace: &str, name: &str) -> PodSandbox {
    let metadata = PodSandboxMetadata {
        name: name.into(),
        namespace: namespace.into(),
        uid: id.into(),
        attempt: 0,
    };
    PodSandbox {
        id: id.into(),
        metadata: Some(metadata),
        ..Default::default()
    }
}
