//! The clients of container runtimes against real sockets and real processes: a Docker Engine over HTTP and a CRI over
//! gRPC, both with state, CNI plugins and `ctr` as programs. What the lab does with the real ones, in a second.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "runtimes/containerd.rs"]
mod containerd;
#[path = "runtimes/containerd_api.rs"]
mod containerd_api;
#[path = "runtimes/deadlines.rs"]
mod deadlines;
#[path = "runtimes/docker.rs"]
mod docker;

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
        step::{ClearPods, Endpoint, ImagesStep, Layers, Proof, Rehearsal, StopPods},
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
        let bin = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/runtimes/bin");
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
        self.runtimes.stop_pods(&what.source, &what).await.unwrap()
    }

    /// What the step does on the way back.
    async fn stop_pods_of_target(&self, source: Endpoint, target: Endpoint) -> Stopped {
        let what = stop_pods(source, target);
        self.runtimes.stop_pods(&what.target, &what).await.unwrap()
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

#[tokio::test]
async fn an_image_is_streamed_and_can_be_removed_again() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 320);
    });
    let carried = host.carry("app:1").await.unwrap();
    assert_eq!(carried.means, Means::Streamed { instead: None });
    let bytes = carried.bytes;
    assert_eq!(bytes as usize, APP.len() + APP_ID.len() + 2 + 320 * CHUNK);
    assert_eq!(
        fs::metadata(host.root.path().join("images.archive"))
            .unwrap()
            .len(),
        bytes
    );
    assert_eq!(host.images(&containerd_endpoint()).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.remove(&containerd_endpoint(), APP).await;
        assert_eq!(
            host.containerd.records(),
            [],
            "neither the name nor the record of the id is left"
        );
    }
}

#[tokio::test]
async fn a_name_that_was_there_before_stays() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 0);
    });
    host.write("images", &format!("docker.io/library/other:1 {APP_ID}\n"));
    host.carry(APP).await.unwrap();
    host.remove(&containerd_endpoint(), APP).await;
    assert_eq!(
        host.images(&containerd_endpoint()).await,
        [named("docker.io/library/other:1", APP_ID)]
    );
    assert!(
        host.containerd
            .records()
            .contains(&(APP_ID.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn a_tag_that_was_moved_is_carried_and_given_back_to_the_image_that_had_it() {
    const OLD: &str = "sha256:00d1";
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    host.write("images", &format!("{APP} {OLD}\n"));
    let containerd = containerd_endpoint();
    host.carry(APP).await.unwrap();
    assert_eq!(host.images(&containerd).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.restore(&containerd, APP, Some(OLD)).await;
        assert_eq!(host.containerd.records(), [named(OLD, OLD), named(APP, OLD)]);
    }

    // The other way round.
    let host = Host::new(|engine| engine.loaded.lock().unwrap().push(named(APP, OLD)));
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let step = into_docker();
    host.runtimes.carry_image(&step, APP).await.unwrap();
    assert_eq!(host.images(&step.to).await, [named(APP, APP_ID)]);
    for _ in 0..2 {
        host.restore(&step.to, APP, Some(OLD)).await;
        assert_eq!(*host.engine.loaded.lock().unwrap(), [named(APP, OLD)]);
    }
    // Somebody has removed what had the name: it stays where it is.
    host.restore(&step.to, APP, Some("sha256:gone")).await;
    assert_eq!(*host.engine.loaded.lock().unwrap(), [named(APP, OLD)]);
}

#[tokio::test]
async fn an_image_that_got_a_second_name_and_lost_its_first_one_gets_that_back() {
    const OTHER: &str = "docker.io/library/another:1";
    let host = Host::new(|engine| engine.image_id = APP_ID.to_owned());
    // What the carries have left: OTHER is new, and APP was its image's name.
    host.write(
        "images",
        &format!("{APP} sha256:bbbb\n{OTHER} {APP_ID}\n{APP_ID} {APP_ID}\n"),
    );
    let before = [
        (APP.to_owned(), Some(APP_ID.to_owned())),
        (OTHER.to_owned(), None),
    ];
    let containerd = containerd_endpoint();
    host.runtimes
        .restore_images(&containerd, &before.into())
        .await
        .unwrap();
    assert_eq!(host.images(&containerd).await, [named(APP, APP_ID)]);
}

#[tokio::test]
async fn an_image_that_is_pinned_by_digest_keeps_that_name() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("none {APP_ID}"), 0);
    });
    let pinned = "docker.io/library/app@sha256:bbbb";
    host.carry(pinned).await.unwrap();
    assert!(
        host.containerd
            .records()
            .contains(&(pinned.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn another_name_of_an_image_costs_nothing() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    host.carry(APP).await.unwrap();
    let pinned = "docker.io/library/app@sha256:bbbb";
    let carried = host.carry(pinned).await.unwrap();
    assert_eq!((carried.bytes, carried.means), (0, Means::Named));
    assert!(
        host.containerd
            .records()
            .contains(&(pinned.to_owned(), APP_ID.to_owned()))
    );
}

#[tokio::test]
async fn an_image_that_cannot_be_linked_is_streamed_and_the_reason_is_kept() {
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&format!("{APP} {APP_ID}"), 1);
    });
    let data_root = path("/var/lib/docker");
    let step = into_containerd(Layers::Linked { data_root });
    let carried = host.runtimes.carry_image(&step, APP).await.unwrap();
    let Means::Streamed { instead: Some(why) } = carried.means else {
        panic!("{carried:?}");
    };
    assert!(why.contains("/var/lib/docker/image/overlay2/imagedb"), "{why}");
    host.remove(&containerd_endpoint(), APP).await;
    let log = host.containerd.world.lock().unwrap().log.clone();
    assert_eq!(
        log,
        ["end lease transship"],
        "what an interrupted link left goes too"
    );
}

#[tokio::test]
async fn an_image_goes_into_docker_and_only_its_name_goes_again() {
    let host = Host::new(|_| {});
    host.write("images", &format!("{APP} {APP_ID}\n"));
    let other = ("docker.io/library/other:1".to_owned(), APP_ID.to_owned());
    host.engine.loaded.lock().unwrap().push(other.clone());
    let step = into_docker();
    let carried = host.runtimes.carry_image(&step, APP).await.unwrap();
    assert_eq!(
        (carried.bytes, carried.means),
        (300_000, Means::Streamed { instead: None })
    );
    assert_eq!(host.images(&step.to).await, [named(APP, APP_ID), other.clone()]);
    for _ in 0..2 {
        host.remove(&step.to, APP).await;
        assert_eq!(*host.engine.loaded.lock().unwrap(), std::slice::from_ref(&other));
    }
    host.write("images", &format!("{APP} sha256:discarded\n"));
    let error = host
        .runtimes
        .carry_image(&step, APP)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(APP) && error.contains("pull the image into Docker"),
        "{error}"
    );
}

#[tokio::test]
async fn what_goes_wrong_with_an_image_is_said() {
    let other_id = format!("{APP} sha256:cccc");
    let good = format!("{APP} {APP_ID}");
    for (id, archive, wanted) in [
        ("", archive_of(&good, 0), "has no image"),
        (APP_ID, archive_of("refused", 0), "invalid tar header"),
        (
            APP_ID,
            Archive {
                breaks: true,
                ..archive_of(&good, 3)
            },
            "could not export",
        ),
    ] {
        let host = Host::new(|engine| (engine.image_id, engine.archive) = (id.to_owned(), archive));
        let error = host.carry(APP).await.unwrap_err();
        assert!(error.contains(wanted) && error.contains(APP), "{error}");
    }
    let host = Host::new(|engine| {
        engine.image_id = APP_ID.to_owned();
        engine.archive = archive_of(&other_id, 0);
    });
    let error = host.carry(APP).await.unwrap_err();
    assert!(error.contains("sha256:cccc") && error.contains(APP_ID), "{error}");
}

#[tokio::test]
async fn containers_of_the_dockershim_end_and_the_rest_is_cleared_later() {
    let host = Host::with_pods();
    let stopped = host.stop_pods(docker_endpoint(), containerd_endpoint()).await;
    assert_eq!((stopped.ended, stopped.killed, stopped.sandboxes), (2, 0, 1));
    // The pod with a port of the node goes at once, with its rules.
    assert_eq!(
        host.read("log"),
        "stop within 20 server host-port-r6c4k\n\
         remove server host-port-r6c4k\n\
         portmap DEL eth0 netns=/proc/4647/ns/net\n\
         bridge DEL eth0 netns=/proc/4647/ns/net\n\
         remove POD host-port-r6c4k\n\
         stop within 20 kube-proxy kube-proxy-wrrlc\n"
    );
    let again = host.stop_pods(docker_endpoint(), containerd_endpoint()).await;
    assert_eq!(again, Stopped::default(), "a second call finds nothing to do");

    fs::remove_file(host.root.path().join("log")).unwrap();
    let cleared = host.clear_pods(docker_endpoint()).await;
    assert_eq!((cleared.ended, cleared.killed, cleared.sandboxes), (0, 0, 1));
    assert_eq!(
        host.read("log"),
        "remove kube-proxy kube-proxy-wrrlc\nremove POD kube-proxy-wrrlc\n"
    );
    let left: Vec<Value> = host.engine.containers.lock().unwrap().clone();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0]["Id"], "plain");
    assert_eq!(host.list("/var/lib/cni/cache/results"), Vec::<String>::new());
    let again = host.clear_pods(docker_endpoint()).await;
    assert_eq!(again, Stopped::default(), "a second call finds nothing to do");
}

#[tokio::test]
async fn clearing_takes_all_pods_off_their_network() {
    let host = Host::with_pods();
    let cleared = host.clear_pods(docker_endpoint()).await;
    assert_eq!(cleared.sandboxes, 2);
    assert_eq!(host.list("/var/lib/cni/cache/results"), Vec::<String>::new());
    // The stub frees no lease, so ours is found, freed and reported; nobody else's is touched.
    assert_eq!(
        host.list("/var/lib/cni/networks/lab"),
        ["10.124.2.9", "last_reserved_ip.0"]
    );
    assert!(
        cleared.left.iter().any(|text| text.contains("10.124.2.7")),
        "{:?}",
        cleared.left
    );
}

#[tokio::test]
async fn plugins_get_what_libcni_would_give_them() {
    let host = Host::with_pods();
    host.stop_pods(docker_endpoint(), containerd_endpoint()).await;
    let portmap: Value = serde_json::from_str(&host.read("opt/cni/bin/portmap.stdin")).unwrap();
    assert_eq!(portmap["runtimeConfig"]["portMappings"][0]["hostPort"], 8888);
    assert_eq!(
        portmap["runtimeConfig"].as_object().unwrap().len(),
        1,
        "ipRanges is not declared"
    );
    assert_eq!(
        (&portmap["name"], &portmap["cniVersion"]),
        (&json!("lab"), &json!("0.3.1"))
    );
    let bridge: Value = serde_json::from_str(&host.read("opt/cni/bin/bridge.stdin")).unwrap();
    assert_eq!(bridge.get("runtimeConfig"), None);
    assert_eq!(bridge["ipam"]["type"], "host-local");
    assert_eq!(bridge["prevResult"]["ips"][0]["address"], "10.124.2.7/24");
    let variables = host.read("opt/cni/bin/bridge.env");
    let arguments = format!(
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME=host-port-r6c4k;\
         K8S_POD_INFRA_CONTAINER_ID={SANDBOX}\n"
    );
    assert!(variables.contains(&arguments), "{variables}");
    assert!(
        variables.contains(&format!("CNI_CONTAINERID={SANDBOX}\n")),
        "{variables}"
    );
    assert!(variables.contains("/opt/cni/bin\n"), "CNI_PATH: {variables}");
}

#[tokio::test]
async fn a_network_that_cannot_be_left_is_reported_and_tried_again() {
    let host = Host::with_pods();
    host.write("opt/cni/bin/broken", "");
    let stopped = host.stop_pods(docker_endpoint(), cri_dockerd_endpoint()).await;
    assert_eq!(stopped.sandboxes, 2, "the pods end all the same");
    assert!(
        stopped.left.iter().any(|text| text.contains("no such bridge")),
        "{:?}",
        stopped.left
    );
    assert_eq!(
        host.list("/var/lib/cni/cache/results"),
        [format!("lab-{SANDBOX}-eth0")]
    );

    // Now the sandbox is gone, and with it its namespace.
    fs::remove_file(host.root.path().join("opt/cni/bin/broken")).unwrap();
    fs::remove_file(host.root.path().join("log")).unwrap();
    let again = host.clear_pods(docker_endpoint()).await;
    assert_eq!(again, Stopped::default());
    assert_eq!(
        host.read("log"),
        "portmap DEL eth0 netns=\nbridge DEL eth0 netns=\n"
    );
    assert_eq!(host.list("/var/lib/cni/cache/results"), Vec::<String>::new());
}

#[tokio::test]
async fn beside_cri_dockerd_the_pods_of_the_dockershim_end_wholly_and_alone() {
    let host = Host::with_pods();
    host.write(&format!("var/lib/cri-dockerd/sandbox/{SANDBOX}"), "{}");
    let stopped = host.stop_pods(docker_endpoint(), cri_dockerd_endpoint()).await;
    assert_eq!((stopped.ended, stopped.sandboxes), (1, 1));
    assert_eq!(
        host.read("log"),
        "stop within 20 kube-proxy kube-proxy-wrrlc\n\
         remove kube-proxy kube-proxy-wrrlc\n\
         remove POD kube-proxy-wrrlc\n"
    );
    assert_eq!(host.list("/var/lib/cni/cache/results").len(), 2);
}

/// A process of this machine in the place of a container's first one. It is taken out of the host's `/proc` when it
/// has ended. To the kernel it is no first process, which would ignore SIGTERM without a handler.
fn first_process(host: &Host, container: &str, program: &str) -> std::thread::JoinHandle<ExitStatus> {
    let mut process = Command::new("sh").args(["-c", program]).spawn().unwrap();
    let status = || fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let mask = |name: &str| {
        let status = status();
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        u64::from_str_radix(line.unwrap(), 16).unwrap()
    };
    let catches = || mask("SigCgt:\t");
    let term = 1 << 14;
    let until = Instant::now() + Duration::from_secs(30);
    while program.contains("TERM") && (catches() | mask("SigIgn:\t")) & term == 0 {
        assert!(Instant::now() < until, "the shell sets its trap");
        std::thread::sleep(Duration::from_millis(10));
    }
    let proc = format!("proc/{}", process.id());
    let text = format!(
        "State:\tS (sleeping)\nNSpid:\t{}\t1\nSigBlk:\t0\nSigCgt:\t{:016x}\n",
        process.id(),
        catches()
    );
    host.write(&format!("{proc}/status"), &text);
    let text = format!("0::/kubepods.slice/docker-{container}.scope\n");
    host.write(&format!("{proc}/cgroup"), &text);
    let gone = host.root.path().join(proc);
    if program.starts_with("exec sleep") {
        std::os::unix::fs::symlink("/usr/bin/sleep", gone.join("exe")).unwrap();
    }
    std::thread::spawn(move || {
        let status = process.wait().unwrap();
        fs::remove_dir_all(gone).unwrap();
        status
    })
}

/// One that ends on its stop signal, one that does not see it but ends in its time, when its child does, and one that
/// waits for nothing.
const PROGRAMS: [(&str, bool); 3] = [
    ("trap 'exit 0' TERM; while :; do sleep 0.05; done", false),
    ("trap '' TERM; sleep 1; exit 0", false),
    ("exec sleep 600", true),
];

#[tokio::test]
async fn a_cri_tells_what_a_container_mounts_until_it_is_gone() {
    let host = with_pods_behind_the_cri();
    let socket = host.root.path().join("run/containerd/containerd.sock");
    let cri = Cri::connect(&socket).await.unwrap();
    assert_eq!(cri.mounts("c3").await.unwrap(), ["/srv/c3"]);
    assert_eq!(cri.mounts("gone").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn a_process_is_signalled_without_the_engine() {
    for (program, killed) in PROGRAMS {
        let host = Host::with_pods();
        let id = host.engine.containers.lock().unwrap()[2]["Id"].clone();
        let process = first_process(&host, id.as_str().unwrap(), program);
        let stopped = host.stop_pods(docker_endpoint(), containerd_endpoint()).await;
        assert_eq!(stopped.killed, u32::from(killed), "{program}");
        assert_eq!(stopped.ended + stopped.killed, 2, "{program}");
        assert_eq!(process.join().unwrap().success(), !killed, "{program}");
        let log = host.read("log");
        assert!(!log.contains("stop within 20 kube-proxy"), "{log}");
    }
}

#[tokio::test]
async fn a_process_behind_cri_dockerd_is_signalled_with_the_signal_that_the_engine_knows() {
    for (program, killed) in PROGRAMS {
        let host = Host::with_pods();
        let id = host.engine.containers.lock().unwrap()[2]["Id"].clone();
        let id = id.as_str().unwrap();
        {
            let mut world = host.containerd.world.lock().unwrap();
            world.sandboxes = vec![(sandbox("s1", "lab", "web"), NamespaceMode::Pod)];
            world.containers = vec![container(id, "s1", "20")];
        }
        let process = first_process(&host, id, program);
        let what = stop_pods(cri_dockerd_endpoint(), containerd_endpoint());
        let stopped = host.runtimes.stop_pods(&what.source, &what);
        // Nobody tells this CRI that the process has ended, as a shim would.
        let ends = async {
            while !process.is_finished() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut world = host.containerd.world.lock().unwrap();
            world.containers[0].set_state(ContainerState::ContainerExited);
        };
        let (stopped, ()) = tokio::join!(stopped, ends);
        let stopped = stopped.unwrap();
        assert_eq!(
            (stopped.ended, stopped.killed),
            (u32::from(!killed), u32::from(killed))
        );
        assert_eq!(process.join().unwrap().success(), !killed, "{program}");
        assert_eq!(host.containerd.world.lock().unwrap().log, [] as [String; 0]);
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

fn container(id: &str, sandbox: &str, grace: &str) -> Container {
    Container {
        id: id.into(),
        pod_sandbox_id: sandbox.into(),
        state: ContainerState::ContainerRunning.into(),
        annotations: [(
            "io.kubernetes.pod.terminationGracePeriod".to_owned(),
            grace.to_owned(),
        )]
        .into(),
        ..Default::default()
    }
}

/// Three pods behind the CRI: etcd, a network agent, and an ordinary one.
fn with_pods_behind_the_cri() -> Host {
    let host = Host::new(|_| {});
    let mut world = host.containerd.world.lock().unwrap();
    world.sandboxes = vec![
        (sandbox("s1", "kube-system", "etcd-cp1"), NamespaceMode::Node),
        (sandbox("s2", "kube-system", "kube-proxy-x"), NamespaceMode::Node),
        (sandbox("s3", "lab", "web"), NamespaceMode::Pod),
    ];
    world.containers = vec![
        container("c1", "s1", "30"),
        container("c2", "s2", "1"),
        container("c3", "s3", "5"),
    ];
    drop(world);
    host
}

#[tokio::test]
async fn pods_behind_a_cri_end_agents_and_control_plane_last() {
    let host = with_pods_behind_the_cri();
    let stopped = host
        .stop_pods_of_target(docker_endpoint(), containerd_endpoint())
        .await;
    assert_eq!((stopped.ended, stopped.killed, stopped.sandboxes), (3, 0, 3));
    let world = host.containerd.world.lock().unwrap();
    let wanted = [("c3", "s3", 5), ("c2", "s2", 1), ("c1", "s1", 20)];
    let wanted = wanted.iter().flat_map(|(container, sandbox, grace)| {
        [
            format!("stop {container} within {grace}"),
            format!("remove {container}"),
            format!("stop sandbox {sandbox}"),
            format!("remove sandbox {sandbox}"),
        ]
    });
    assert_eq!(world.log, wanted.collect::<Vec<_>>());
}

/// A network plugin that asks an API server which is away: what has ended is left, and named.
#[tokio::test]
async fn a_sandbox_that_has_ended_and_cannot_leave_its_network_is_left_behind() {
    let host = with_pods_behind_the_cri();
    host.containerd.world.lock().unwrap().sticks = "s1".to_owned();
    let stopped = host
        .stop_pods_of_target(docker_endpoint(), containerd_endpoint())
        .await;
    assert_eq!((stopped.ended, stopped.sandboxes), (3, 3));
    let [left] = &stopped.left[..] else {
        panic!("{stopped:?}")
    };
    assert!(left.contains("sandbox s1") && left.contains("calico"), "{left}");
    let world = host.containerd.world.lock().unwrap();
    assert_eq!(world.sandboxes.len(), 1);
    assert!(world.containers.is_empty());
}

#[tokio::test]
async fn pods_of_a_target_that_is_not_there_end_without_it() {
    let host = Host::new(|_| {});
    fs::remove_file(host.root.path().join("run/containerd/containerd.sock")).unwrap();
    let stopped = host
        .stop_pods_of_target(docker_endpoint(), containerd_endpoint())
        .await;
    assert_eq!(stopped, Stopped::default());
}

#[tokio::test]
async fn pods_behind_a_cri_keep_their_sandboxes_until_they_are_cleared() {
    let host = with_pods_behind_the_cri();
    "s3".clone_into(&mut host.containerd.world.lock().unwrap().host_port);
    let stopped = host
        .stop_pods(containerd_endpoint(), cri_dockerd_endpoint())
        .await;
    assert_eq!((stopped.ended, stopped.killed, stopped.sandboxes), (3, 0, 1));
    let log = || std::mem::take(&mut host.containerd.world.lock().unwrap().log);
    assert_eq!(
        log(),
        [
            "stop c3 within 5",
            "remove c3",
            "stop sandbox s3",
            "remove sandbox s3",
            "stop c2 within 1",
            "stop c1 within 20"
        ],
        "the one with a port of the node goes at once"
    );
    let cleared = host.clear_pods(containerd_endpoint()).await;
    assert_eq!((cleared.ended, cleared.killed, cleared.sandboxes), (0, 0, 2));
    assert_eq!(
        log(),
        [
            "remove c2",
            "stop sandbox s2",
            "remove sandbox s2",
            "remove c1",
            "stop sandbox s1",
            "remove sandbox s1"
        ]
    );
}

#[tokio::test]
async fn beside_the_dockershim_the_pods_of_cri_dockerd_end_alone() {
    let host = with_pods_behind_the_cri();
    host.write("var/lib/dockershim/sandbox/s1", "{}");
    // Both have a checkpoint of this one: it was handed over.
    host.write("var/lib/dockershim/sandbox/s2", "{}");
    host.write("var/lib/cri-dockerd/sandbox/s2", "{}");
    let stopped = host
        .stop_pods_of_target(docker_endpoint(), cri_dockerd_endpoint())
        .await;
    assert_eq!((stopped.ended, stopped.sandboxes), (2, 2));
    let world = host.containerd.world.lock().unwrap();
    let left: Vec<&str> = world.sandboxes.iter().map(|(one, _)| one.id.as_str()).collect();
    assert_eq!(left, ["s1"]);
}

fn rehearsal() -> Rehearsal {
    Rehearsal {
        cri: containerd_endpoint(),
        cgroup_parent: "transship.slice".into(),
        pod_network: true,
        proof: Proof::Own,
    }
}

#[rstest]
#[case::in_the_pod_network(NamespaceMode::Pod, 0)]
#[case::on_the_host(NamespaceMode::Node, 1)]
#[tokio::test]
async fn a_sandbox_of_the_kubelet_in_the_pod_network_is_proof(
    #[case] network: NamespaceMode,
    #[case] rehearsals: usize,
) {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().sandboxes = vec![(sandbox("s1", "lab", "web"), network)];
    let after_start = |proof| Rehearsal { proof, ..rehearsal() };
    host.runtimes
        .rehearse(&after_start(Proof::KubeletOrOwn))
        .await
        .unwrap();
    let ran = |entry: &&String| *entry == "run in transship.slice";
    let log = host.containerd.world.lock().unwrap().log.clone();
    assert_eq!(log.iter().filter(ran).count(), rehearsals, "{log:?}");

    let waited = host
        .runtimes
        .rehearse(&after_start(Proof::Kubelet { within_secs: 1 }))
        .await;
    match rehearsals {
        0 => waited.unwrap(),
        _ => {
            let error = waited.unwrap_err().to_string();
            assert!(error.contains("no pod in the pod network has started"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_rehearsal_leaves_nothing_not_even_an_earlier_one() {
    let host = Host::new(|_| {});
    for _ in 0..2 {
        let left = (
            sandbox("left", "transship", "transship-rehearsal"),
            NamespaceMode::Pod,
        );
        host.containerd.world.lock().unwrap().sandboxes = vec![left];
        host.runtimes.rehearse(&rehearsal()).await.unwrap();
        let world = host.containerd.world.lock().unwrap();
        assert_eq!(world.sandboxes, []);
        assert!(world.log.contains(&"run in transship.slice".to_owned()));
        assert!(world.log.contains(&"remove sandbox left".to_owned()));
    }
    let foreign = (sandbox("s3", "lab", "web"), NamespaceMode::Pod);
    host.containerd.world.lock().unwrap().sandboxes = vec![foreign.clone()];
    host.runtimes.end_rehearsal(&rehearsal()).await.unwrap();
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, [foreign]);
}

#[tokio::test]
async fn a_sandbox_that_does_not_stay_ready_fails_the_rehearsal() {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().new_state = NewSandbox::Ends;
    let error = host.runtimes.rehearse(&rehearsal()).await.unwrap_err();
    assert!(error.to_string().contains("did not stay ready"), "{error}");
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, []);
}

/// Without `SystemdCgroup` in effect runc takes the slice for a part of a directory's name.
#[rstest]
#[case::in_a_scope("0::/transship.slice/cri-containerd-sandbox-1.scope", true)]
#[case::in_a_directory(
    "0::/system.slice/containerd.service/transship.slice:cri-containerd:sandbox-1",
    false
)]
#[case::of_v1(
    "5:memory:/system.slice\n1:name=systemd:/transship.slice/cri-containerd-sandbox-1.scope",
    true
)]
#[case::of_another_runtime("0::/kata/overhead", true)]
#[tokio::test]
async fn a_sandbox_outside_the_slice_fails_the_rehearsal(#[case] cgroup: &str, #[case] is_right: bool) {
    let host = Host::new(|_| {});
    host.containerd.world.lock().unwrap().process = 4711;
    let process = host.root.path().join("proc/4711");
    fs::create_dir_all(&process).unwrap();
    fs::write(process.join("cgroup"), format!("{cgroup}\n")).unwrap();
    let rehearsed = host.runtimes.rehearse(&rehearsal()).await;
    assert_eq!(host.containerd.world.lock().unwrap().sandboxes, []);
    if is_right {
        return rehearsed.unwrap();
    }
    let error = rehearsed.unwrap_err().to_string();
    assert!(
        error.contains("/transship.slice:cri-containerd:sandbox-1")
            && error.contains("a scope in transship.slice"),
        "{error}"
    );
}

#[tokio::test]
async fn runtimes_say_how_they_are() {
    let host = Host::new(|_| {});
    let health = host.runtimes.health(&containerd_endpoint()).await.unwrap();
    assert_eq!(
        (health.version.as_str(), health.ready, health.network_ready),
        ("1.6.20~ds1", true, false)
    );
    let health = host.runtimes.health(&docker_endpoint()).await.unwrap();
    assert_eq!(
        (health.version.as_str(), health.ready, health.network_ready),
        ("20.10.24", true, true)
    );
    let nobody = Endpoint {
        socket: path("/run/none.sock"),
        ..containerd_endpoint()
    };
    let error = host.runtimes.health(&nobody).await.unwrap_err().to_string();
    assert!(
        error.contains("/run/none.sock") && error.contains("No such file"),
        "{error}"
    );
}
