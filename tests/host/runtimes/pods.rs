//! Pods that end, with their runtime and without it, and their networks.

use super::*;

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

/// Seen on a real node right after the containerd below Docker was replaced: the process of a container whose shim had died was
/// a zombie for a moment.
#[tokio::test(start_paused = true)]
async fn a_container_whose_process_is_a_zombie_for_a_moment_is_removed() {
    let host = Host::with_pods();
    host.engine.zombies.store(3, std::sync::atomic::Ordering::Relaxed);
    let cleared = host.clear_pods(docker_endpoint()).await;
    assert_eq!(cleared.sandboxes, 2);
    assert_eq!(host.engine.containers.lock().unwrap().len(), 1);
}

/// A shim of a container that runs, so that Docker is asked which ones it knows.
fn shim_of(host: &Host, container: &str) {
    host.write("proc/4711/comm", "containerd-shim\n");
    host.write(
        "proc/4711/status",
        "State:\tS (sleeping)\nUid:\t0\t0\t0\t0\nNSpid:\t4711\n",
    );
    host.write("proc/4711/cgroup", "0::/system.slice/containerd.service\n");
    host.write(
        "proc/4711/cmdline",
        &format!("shim\0-namespace\0moby\0-id\0{container}\0-address\0/run/containerd/containerd.sock\0"),
    );
}

/// The containerd below Docker starts again while pods are cleared.
#[tokio::test]
async fn docker_is_asked_for_lost_shims_until_it_answers() {
    let host = Host::with_pods();
    shim_of(&host, "plain");
    // The first request is for the networks of pods that are gone.
    *host.engine.refusals.lock().unwrap() = [false, true, true].into();
    let cleared = host.clear_pods(docker_endpoint()).await;
    assert!(host.engine.refusals.lock().unwrap().is_empty(), "asked again");
    assert!(
        !cleared.left.iter().any(|left| left.contains("shims")),
        "{:?}",
        cleared.left
    );
}

#[tokio::test(start_paused = true)]
async fn shims_that_docker_cannot_be_asked_for_are_named() {
    let host = Host::with_pods();
    shim_of(&host, "plain");
    *host.engine.refusals.lock().unwrap() = std::iter::once(false).chain([true; 1000]).collect();
    let cleared = host.clear_pods(docker_endpoint()).await;
    assert_eq!(cleared.sandboxes, 2);
    let named = cleared
        .left
        .iter()
        .any(|left| left.contains("could not be looked for within 60 s"));
    assert!(named, "{:?}", cleared.left);
}

/// The dockershim would have removed them; the kubelet looks through them at every look at the statistics.
#[tokio::test]
async fn links_to_the_logs_of_docker_go_with_their_containers_and_logs_stay() {
    let host = Host::with_pods();
    let containers = host.engine.containers.lock().unwrap().clone();
    let mut logs = containers.iter().filter_map(|one| {
        let log = one["Labels"]["io.kubernetes.container.logpath"].as_str()?;
        Some((
            one["Id"].as_str()?.to_owned(),
            log.trim_start_matches('/').to_owned(),
        ))
    });
    let ((id, link), (_, taken)) = (logs.next().unwrap(), logs.next().unwrap());
    let root = host.root.path();
    fs::create_dir_all(root.join(&link).parent().unwrap()).unwrap();
    let target = format!("/var/lib/docker/containers/{id}/{id}-json.log");
    std::os::unix::fs::symlink(target, root.join(&link)).unwrap();
    // Under another runtime a log of that name is a file.
    host.write(&taken, "a line of a log\n");
    host.clear_pods(docker_endpoint()).await;
    assert!(fs::symlink_metadata(root.join(&link)).is_err(), "{link} is left");
    assert_eq!(host.read(&taken), "a line of a log\n");
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
        let stopped = host.runtimes.stop_pods(&what, Direction::Forwards);
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

/// The direction says which pods end, where both sides have one endpoint too.
#[tokio::test]
async fn backwards_the_sandboxes_go_too_where_source_and_target_are_one() {
    let host = with_pods_behind_the_cri();
    let stopped = host
        .stop_pods_of_target(containerd_endpoint(), containerd_endpoint())
        .await;
    assert_eq!((stopped.ended, stopped.killed, stopped.sandboxes), (3, 0, 3));
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
    assert!(stopped.left.is_empty() && stopped.stuck.len() == 1, "{stopped:?}");
    let why = &stopped.stuck["s1"];
    assert!(why.contains("sandbox s1") && why.contains("calico"), "{why}");
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
