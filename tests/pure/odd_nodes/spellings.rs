//! Flags and units as people write them.

use rstest::rstest;
use transship::plan::{facts::Layout, words};

use super::*;

/// As Deckhouse's and Gardener's kubelets have them.
#[rstest]
#[case::containerd(LAB, to_containerd())]
#[case::cri_dockerd("debian12-kubeadm-1.23-control-plane-dockershim", to_cri_dockerd())]
fn directories_may_end_with_a_slash(#[case] host: &str, #[case] request: Request) {
    let mut facts = fixtures::named(host);
    let words = [
        "--cni-bin-dir=/opt/cni/bin/,/usr/lib/cni//",
        "--cni-conf-dir=/etc/cni/net.d/",
    ];
    kubelet(&mut facts).command_line.extend(words.map(str::to_owned));
    assert_eq!(blocking(&facts, &request), [""; 0]);
    let outcome = plan(&facts, &request);
    let text = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .filter_map(|step| match &step.does {
            Step::File(step) => step.want.as_ref(),
            _ => None,
        });
    let text: String = text.map(|want| want.text.as_str()).collect();
    assert!(
        text.contains("/etc/cni/net.d") && !text.contains("net.d/\"") && !text.contains("bin/\""),
        "{text}"
    );
}

#[rstest]
#[case::one_slash("unix:/run/containerd/containerd.sock")]
#[case::elsewhere("unix:///var/run//containerd/containerd.sock")]
fn an_endpoint_may_be_written_in_many_ways(#[case] endpoint: &str) {
    let mut facts = fixtures::named("debian12-kubeadm-1.30-containerd");
    kubelet(&mut facts)
        .command_line
        .push(format!("--container-runtime-endpoint={endpoint}"));
    assert_eq!(plan(&facts, &to_containerd()).verdict, Verdict::AlreadyThere);
}

/// Packages of cri-dockerd 0.2 said `--network-plugin=`: the pods are on docker0, whatever lies in /etc/cni/net.d.
#[rstest]
#[case::empty("--network-plugin=", "0.4.3", &["NoCni"])]
#[case::absent("", "0.4.3", &[])]
#[case::old_and_absent("", "0.2.3", &["NoCni"])]
#[case::old_and_said("--network-plugin=cni", "0.2.3", &[])]
fn an_empty_network_plugin_is_none(#[case] flag: &str, #[case] version: &str, #[case] wanted: &[&str]) {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let shim = facts.cri_dockerd.as_mut().unwrap();
    shim.version = version.into();
    shim.service.exec_start = vec![
        "/usr/bin/cri-dockerd".into(),
        "--container-runtime-endpoint".into(),
        "fd://".into(),
    ];
    // In a variable of the unit, as in `/etc/default/cri-docker`.
    shim.service.exec_start.push("$OPTIONS".into());
    let sandbox = "--pod-infra-container-image=registry.k8s.io/pause:3.10";
    shim.service.exec_start.push(sandbox.into());
    shim.service.environment = vec![format!("OPTIONS={flag}")];
    assert_eq!(blocking(&facts, &to_containerd()), wanted);
    if !wanted.is_empty() {
        let finding = one(&facts, &to_containerd(), "NoCni");
        assert!(finding.message.contains("cri-dockerd"), "{finding:?}");
    }
}

/// Flags in a variable would come after those that the plan adds.
#[test]
fn a_variable_of_cri_dockerds_unit_does_not_win_over_the_plan() {
    let mut facts = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    let shim = facts.cri_dockerd.as_mut().unwrap();
    shim.service.exec_start = ["/usr/bin/cri-dockerd", "--network-plugin=", "$OPTIONS"]
        .map(str::to_owned)
        .into();
    shim.service.environment =
        vec!["OPTIONS=--network-plugin= --cri-dockerd-root-directory=/srv/shim".into()];
    let text = drop_in(&facts, &to_cri_dockerd(), "cri-docker.service").unwrap();
    let command = text.lines().rfind(|line| line.starts_with("ExecStart=")).unwrap();
    assert_eq!(command.matches("--network-plugin=").count(), 1, "{command}");
    assert!(command.contains("--network-plugin=cni"), "{command}");
    assert!(
        command.contains("--cri-dockerd-root-directory=/srv/shim"),
        "{command}"
    );
}

/// Flatcar's unit: the file lies in `/usr`.
#[test]
fn a_configuration_of_the_distribution_is_not_changed() {
    let mut facts = lab();
    let containerd = facts.containerd.as_mut().unwrap();
    containerd.config.path = path("/usr/share/containerd/config.toml");
    containerd.config.file = Some(file("/usr/share/containerd/config.toml", "version = 2\n"));
    assert_eq!(blocking(&facts, &to_containerd()), ["ContainerdConfigInUsr"]);
    let finding = one(&facts, &to_containerd(), "ContainerdConfigInUsr");
    assert!(
        finding
            .remedy
            .contains("CONTAINERD_CONFIG=/etc/containerd/config.toml"),
        "{finding:?}"
    );
}

/// Typhoon's and machine-controller's unit, and RKE1, which has none.
#[test]
fn a_kubelet_in_a_container_is_refused_in_those_words() {
    let mut facts = lab();
    command_line(
        &mut facts,
        "/usr/bin/docker run --name kubelet --privileged quay.io/example/kubelet:v1.22.2 --network-plugin=cni",
    );
    kubelet(&mut facts).version.clear();
    assert_eq!(blocking(&facts, &to_containerd()), ["UnsupportedLayout"]);
    let finding = one(&facts, &to_containerd(), "UnsupportedLayout");
    assert!(
        finding.message.contains("the kubelet is a container itself"),
        "{finding:?}"
    );
    let mut facts = lab();
    facts.kubelet = None;
    facts.layout = Layout::Unknown;
    container(&mut facts, None, "kubelet", &[]);
    let finding = one(&facts, &to_containerd(), "UnsupportedLayout");
    assert!(
        finding.message.contains("a container called kubelet"),
        "{finding:?}"
    );
}

/// A wrapper, or a shell, whose flags nobody can change here: the kubelet would come back under Docker.
#[rstest]
#[case::script("/usr/local/bin/start-kubelet.sh", &["KubeletStartedByScript"])]
#[case::shell("/bin/sh -c kubelet", &["KubeletStartedByScript"])]
#[case::hands_its_words_on("/usr/bin/numactl --membind=0 /usr/bin/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --network-plugin=cni --pod-infra-container-image=registry.k8s.io/pause:3.6", &[])]
#[case::moved("/usr/local/bin/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --network-plugin=cni --pod-infra-container-image=registry.k8s.io/pause:3.6", &[])]
fn a_kubelet_that_a_script_starts_is_found_before_pods_end(#[case] command: &str, #[case] wanted: &[&str]) {
    let mut facts = lab();
    let running = "/usr/bin/kubelet --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --network-plugin=cni --pod-infra-container-image=registry.k8s.io/pause:3.6";
    command_line(&mut facts, running);
    kubelet(&mut facts).unit.exec_start = command.split(' ').map(str::to_owned).collect();
    assert_eq!(blocking(&facts, &to_containerd()), wanted);
}

/// At the next boot the kubelet would wait for a Docker that is masked.
#[test]
fn a_kubelet_whose_unit_runs_docker_is_found() {
    let mut facts = lab();
    assert_eq!(of(&facts, &to_containerd(), "KubeletRunsDocker"), []);
    kubelet(&mut facts).docker_users = vec!["ExecStartPre=/bin/docker".into()];
    assert_eq!(blocking(&facts, &to_containerd()), ["KubeletRunsDocker"]);
    let finding = one(&facts, &to_containerd(), "KubeletRunsDocker");
    assert!(
        finding.message.contains("ExecStartPre=/bin/docker"),
        "{finding:?}"
    );
    let mut request = to_containerd();
    request.source.keep = true;
    assert_eq!(of(&facts, &request, "KubeletRunsDocker"), []);
}

/// kOps has one variable with another name.
#[test]
fn names_of_flags_are_shown_whatever_their_variable_is_called() {
    let mut facts = lab();
    let text = "DAEMON_ARGS=\"--cloud-provider=aws --eviction-hard=memory.available<100Mi,nodefs.available<10% --network-plugin=cni --pod-infra-container-image=registry.k8s.io/pause:3.6 --token=zq7\"\nHOME=\"/root\"\n";
    let kubelet = kubelet(&mut facts);
    kubelet.unit.exec_start = ["/usr/bin/kubelet", "$DAEMON_ARGS"].map(str::to_owned).into();
    kubelet.unit.environment_files = vec![file("/etc/sysconfig/kubelet", text)];
    kubelet.command_line = transship::plan::kubelet_arguments::compose(&kubelet.unit).unwrap();
    let outcome = plan(&facts, &to_containerd());
    let diff = words::diff(outcome.plan().unwrap(), &facts);
    assert!(
        diff.contains("+DAEMON_ARGS=\"--cloud-provider=… --eviction-hard=… --pod-infra-container-image=registry.k8s.io/pause:3.6 --token=… --container-runtime=remote --container-runtime-endpoint=unix:///run/containerd/containerd.sock\""),
        "{diff}"
    );
    assert!(!diff.contains("zq7") && !diff.contains("root"), "{diff}");
}

/// A proxy for the API server on a worker of Kubespray makes it no control plane.
#[test]
fn a_worker_with_a_static_pod_is_no_control_plane() {
    let mut facts = lab();
    kubelet(&mut facts).static_pod_images = vec!["docker.io/library/nginx:1.23".into()];
    assert_eq!(of(&facts, &to_containerd(), "ControlPlaneNode"), []);
    assert_eq!(of(&facts, &to_containerd(), "StaticPods").len(), 1);
    kubelet(&mut facts)
        .static_pod_images
        .push("registry.k8s.io/kube-apiserver:v1.23.17".into());
    assert_eq!(of(&facts, &to_containerd(), "ControlPlaneNode").len(), 1);
    assert_eq!(of(&facts, &to_containerd(), "StaticPods"), []);
}

/// Kubespray's next play would bring the source back, unless its inventory names the target.
#[test]
fn kubesprays_inventory_must_name_the_target() {
    let code = "KubesprayWouldUndo";
    assert_eq!(of(&lab(), &to_containerd(), code), []);
    let mut facts = fixtures::named("ubuntu2204-kubespray-1.23-containerd-2.1");
    let finding = one(&facts, &to_containerd(), code);
    assert!(
        finding.message.contains("/etc/kubernetes/kubelet.env"),
        "{finding:?}"
    );
    for variable in ["container_manager: containerd", "etcd_deployment_type: host"] {
        assert!(finding.remedy.contains(variable), "{finding:?}");
    }
    let shim = fixtures::named("debian12-kubeadm-1.36-cri-dockerd").cri_dockerd;
    facts.cri_dockerd = shim;
    let finding = one(&facts, &fixtures::to(Runtime::CriDockerd), code);
    for variable in ["container_manager: docker", "cri_dockerd_enabled: true"] {
        assert!(finding.remedy.contains(variable), "{finding:?}");
    }
    // KubeKey has a file of this name, too.
    kubelet(&mut facts).config.as_mut().unwrap().path = path("/var/lib/kubelet/config.yaml");
    assert_eq!(of(&facts, &to_containerd(), code), []);
}

/// The same thing twice is one finding.
#[test]
fn a_finding_is_said_once() {
    let mut facts = lab();
    facts.unreadable = vec!["/a: permission denied".into(); 2];
    assert_eq!(of(&facts, &to_containerd(), "Unreadable").len(), 1);
}

/// The agent reads what the chart mounts by default, and no more.
#[rstest]
#[case::usual("/etc/kubernetes/kubelet.conf", false)]
#[case::certificates("/var/lib/kubelet/pki/kubeconfig", false)]
#[case::beside("/etc/kubernetes/kubelet.kubeconfig", true)]
#[case::state("/var/lib/kubelet/kubeconfig", true)]
fn a_kubeconfig_that_the_agent_does_not_mount_is_named(#[case] at: &str, #[case] named: bool) {
    let mut facts = lab();
    kubelet(&mut facts).kubeconfig = Some(path(at));
    let found = of(&facts, &to_containerd(), "KubeconfigElsewhere");
    assert_eq!(!found.is_empty(), named, "{found:?}");
}

/// Nothing but the administrator's own file can take such a line back.
#[test]
fn a_kubelet_that_needs_or_starts_a_unit_of_the_source_is_told() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let request = fixtures::to(Runtime::Containerd);
    let (bound, starts) = ("KubeletBoundToSource", "KubeletStartsSource");
    let socket = facts.cri_dockerd.as_ref().unwrap().socket.name.clone();
    kubelet(&mut facts).unit.bound_to.push(socket.clone());
    assert!(of(&facts, &request, bound)[0].message.contains(&socket));
    kubelet(&mut facts).unit.bound_to.clear();
    // A wanted unit of a package is masked, one of the administrator cannot be.
    let service = &mut docker(&mut facts).service;
    service.needed_by.push("kubelet.service".to_owned());
    assert_eq!(of(&facts, &request, starts), []);
    docker(&mut facts).service.fragment = Some(path("/etc/systemd/system/docker.service"));
    assert!(of(&facts, &request, starts)[0].message.contains("docker.service"));
    assert_eq!(of(&facts, &request, bound), []);
    // A Docker that is kept runs on.
    let mut keeps = request.clone();
    keeps.source.keep = true;
    assert_eq!(of(&facts, &keeps, starts), []);
}
