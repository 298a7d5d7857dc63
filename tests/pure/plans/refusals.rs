//! Hosts and requests that are refused, and what a host is told otherwise.

use super::*;

#[test]
fn pods_that_gain_no_privileges_have_no_successors_under_cri_dockerd_before_1_24() {
    let mut facts = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    let request = fixtures::to(Runtime::CriDockerd);
    assert_eq!(blocking(&facts, &request), [""; 0]);
    let store = &mut engine(&mut facts).store;
    let running = |container: &&mut Container| container.running && container.pod.is_some();
    let found = store.containers.iter_mut().find(running).unwrap();
    found.no_new_privileges = true;
    let name = found.pod.as_ref().unwrap().name.clone();
    assert_eq!(blocking(&facts, &request), ["NoNewPrivilegesRefused"]);
    assert!(in_words(&facts, &plan(&facts, &request)).contains(&name));
    assert_eq!(
        blocking(&facts, &fixtures::request()),
        [""; 0],
        "containerd does not mind"
    );
}

#[test]
fn pods_cannot_keep_running_under_another_runtime() {
    let facts = fixtures::named(LAB);
    let mut request = fixtures::request();
    request.drain.mode = DrainMode::Live;
    assert_eq!(blocking(&facts, &request), ["LiveNotSupported"]);
    request.preflight.allow = vec!["LiveNotSupported".to_owned()];
    assert_eq!(
        blocking(&facts, &request),
        ["LiveNotSupported"],
        "nobody can accept it"
    );
}

#[test]
fn pods_that_stop_have_nothing_to_soak() {
    let facts = fixtures::named(LAB);
    let mut request = fixtures::request();
    request.rollback.soak = "24h".parse().unwrap();
    assert_eq!(blocking(&facts, &request), ["NothingToSoak"]);
    assert!(in_words(&facts, &plan(&facts, &request)).contains("rollback.soak is 24h"));
}

#[test]
fn an_archive_is_checked_by_the_version_that_it_brings() {
    let mut facts = fixtures::named(LAB);
    let mut request = fixtures::from_archive(Runtime::Containerd);
    assert_eq!(
        plan(&facts, &request).plan().unwrap().target.to_string(),
        "containerd 2.4.2"
    );
    facts.kubelet.as_mut().unwrap().version = "1.22.17".into();
    assert_eq!(blocking(&facts, &request), ["TargetVersionUnfit"]);
    // A file that the new one does not read.
    let facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    let worker = &mut fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    worker.containerd.as_mut().unwrap().config = facts.containerd.as_ref().unwrap().config.clone();
    if let Origin::Archive(archive) = &mut request.target.from {
        archive.url = "https://downloads.example.org/containerd-1.7.28-linux-amd64.tar.gz".into();
    }
    assert_eq!(blocking(worker, &request), ["ContainerdConfigBroken"]);
    // An older version of the runtime in use is what a rollback is for.
    assert_eq!(blocking(&facts, &request), ["TargetVersionOlder"]);
    let same = fixtures::from_archive(Runtime::Containerd);
    assert_eq!(plan(&facts, &same).verdict, Verdict::AlreadyThere);
}

#[test]
fn what_cri_dockerd_needs_of_docker_is_looked_at() {
    let control_plane = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    let worker = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let request = fixtures::to(Runtime::CriDockerd);
    let mut facts = control_plane.clone();
    facts.docker_group = Some(false);
    assert_eq!(blocking(&facts, &request), ["DockerGroupMissing"]);
    let mut facts = control_plane.clone();
    facts.docker = None;
    assert_eq!(blocking(&facts, &request), ["TargetNotInstalled"]);
    let mut facts = control_plane.clone();
    facts.cri_dockerd.as_mut().unwrap().version = "0.2.6".into();
    assert_eq!(blocking(&facts, &request), ["TargetVersionUnfit"]);
    let docker = facts.docker.as_mut().unwrap();
    docker.engine.clone_from(&worker.docker.as_ref().unwrap().engine);
    facts.cri_dockerd.as_mut().unwrap().version = "0.4.1".into();
    assert_eq!(blocking(&facts, &request), ["TargetVersionUnfit"]);
    // Its driver is another one, and containers run under it.
    let mut facts = control_plane;
    let docker = facts.docker.as_mut().unwrap();
    docker.engine.clone_from(&worker.docker.as_ref().unwrap().engine);
    docker.engine.as_mut().unwrap().cgroup_driver = "cgroupfs".into();
    assert_eq!(blocking(&facts, &request), ["CgroupDriverMismatch"]);
}

/// The kubelet runs with the flags that it was started with, but would not start with those of its files, in neither
/// direction.
#[test]
fn a_flag_that_the_running_kubelet_does_not_know_is_refused() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    assert!(blocking(&facts, &fixtures::request()).is_empty());
    let extra = "KUBELET_EXTRA_ARGS=\"--network-plugin=cni --register-schedulable=true\"\n";
    let files = &mut facts.kubelet.as_mut().unwrap().unit.environment_files;
    files.push(TextFile {
        path: HostPath::new("/etc/default/kubelet").unwrap(),
        text: extra.into(),
        digest: Digest::of(extra),
        mode: 0o644,
    });
    let outcome = plan(&facts, &fixtures::request());
    assert_eq!(blocking(&facts, &fixtures::request()), ["KubeletFlagUnknown"]);
    let message = &outcome.findings[0].message;
    assert!(
        message.contains("--network-plugin (gone since 1.24), --register-schedulable (gone since 1.34)"),
        "{message}"
    );
}

/// What the next minor version lost is named before anybody upgrades to it: what the switch takes out, and what it leaves or
/// brings.
#[test]
fn flags_that_later_kubelets_do_not_know_are_named_with_the_version() {
    let message = |facts: &Facts, target: Runtime, code: &str| {
        let findings = plan(facts, &fixtures::to(target)).findings;
        let mut found = findings.into_iter().filter(|finding| finding.code == code);
        found.next().map(|finding| finding.message)
    };
    let node = fixtures::named("ubuntu2204-kubespray-1.23-containerd-2.1");
    let (removed, ends) = ("KubeletFlagsRemoved", "KubeletFlagEnds");
    assert_eq!(
        message(&node, Runtime::Containerd, removed).unwrap(),
        "later kubelets do not start with --network-plugin (gone since 1.24), --cni-conf-dir (gone since 1.24), --cni-bin-dir (gone since 1.24), which the plan removes"
    );
    assert_eq!(
        message(&node, Runtime::Containerd, ends).unwrap(),
        "later kubelets do not start with --container-runtime (gone since 1.27), --pod-infra-container-image (gone since 1.35), which the plan leaves"
    );
    // The same for cri-dockerd; and what `kubeadm upgrade` takes out of its own file is not the user's work.
    let node = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    let found = message(&node, Runtime::CriDockerd, removed).unwrap();
    assert!(found.contains("--network-plugin (gone since 1.24)"), "{found}");
    assert_eq!(message(&node, Runtime::CriDockerd, ends), None);
    // The dockershim is behind it.
    let node = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    assert_eq!(message(&node, Runtime::Containerd, removed), None);
}

#[rstest]
#[case::layout("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Talos)]
#[case::windows("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Windows)]
#[case::rke2("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Rke2)]
#[case::microk8s("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Microk8s)]
#[case::gke("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::ContainerOptimizedOs)]
#[case::openshift("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::OpenShift)]
#[case::unknown("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Unknown)]
#[case::no_kubelet("NoKubelet", |f: &mut Facts| f.kubelet = None)]
#[case::stopped("KubeletNotRunning", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.clear())]
#[case::flag_of_1_23("KubeletFlagUnknown", |f: &mut Facts| { let k = f.kubelet.as_mut().unwrap(); k.command_line.clear(); k.version = "1.24.17".into(); })]
#[case::version("KubeletConfigBroken", |f: &mut Facts| f.kubelet.as_mut().unwrap().version.clear())]
#[case::kubelet_yaml("KubeletConfigBroken", |f: &mut Facts| text(f.kubelet.as_mut().unwrap().config.as_mut().unwrap(), "a: [\n"))]
#[case::bound_kubelet("KubeletBoundToSource", |f: &mut Facts| f.kubelet.as_mut().unwrap().unit.bound_to.push("docker.service".into()))]
#[case::log_links("LogLinksRemain", |f: &mut Facts| f.kubelet.as_mut().unwrap().version = "1.21.14".into())]
#[case::cri_dockerd("SourceNotAnswering", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--container-runtime=remote".into(), "--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock".into()]))]
#[case::endpoint("UnknownEndpoint", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--container-runtime=remote".into(), "--container-runtime-endpoint=unix:///x.sock".into()]))]
#[case::engine("SourceNotAnswering", |f: &mut Facts| f.docker.as_mut().unwrap().engine = None)]
#[case::no_containerd("TargetNotInstalled", |f: &mut Facts| f.containerd = None)]
#[case::masked("TargetMasked", |f: &mut Facts| f.containerd.as_mut().unwrap().service.load = "masked".into())]
#[case::old_containerd("TargetVersionUnfit", |f: &mut Facts| f.containerd.as_mut().unwrap().version = "1.4.13~ds1".into())]
#[case::driver("CgroupDriverMismatch", |f: &mut Facts| engine(f).cgroup_driver = "cgroupfs".into())]
#[case::daemon_json("DaemonJsonBroken", |f: &mut Facts| text(f.docker.as_mut().unwrap().daemon_json.as_mut().unwrap(), "{\n  \"a\": 1,\n}"))]
#[case::config_toml("ContainerdConfigBroken", |f: &mut Facts| config(f, "version = 2\n[plugins\n"))]
#[case::config_v1("ContainerdConfigBroken", |f: &mut Facts| config(f, "[plugins.cri]\nsandbox_image = \"a\"\n"))]
#[case::short_name("ContainerdConfigBroken", |f: &mut Facts| config(f, "version = 2\ndisabled_plugins = [\"aufs\"]\n"))]
#[case::quotes("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\"' --v=2'\n"))]
#[case::open_quote("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni\n"))]
#[case::backslash("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS='--network-plugin=cni --x=a\\ b'\n"))]
#[case::crictl("CrictlConfigBroken", |f: &mut Facts| f.files[0].file = Some(TextFile { path: HostPath::new("/etc/crictl.yaml").unwrap(), text: "- a\n".into(), digest: Digest::of("- a\n"), mode: 0o644 }))]
#[case::foreign("ForeignContainers", |f: &mut Facts| container("registry", None, f))]
#[case::socket("DockerSocketMounted", |f: &mut Facts| container("runner", Some("/var/run/docker.sock"), f))]
#[case::bound_docker("DockerBoundToContainerd", |f: &mut Facts| f.docker.as_mut().unwrap().service.bound_to.push("containerd.service".into()))]
#[case::nvidia("DockerSettingNotCarried", |f: &mut Facts| engine(f).default_runtime = "nvidia".into())]
#[case::sandbox("SandboxImageMissing", |f: &mut Facts| engine(f).store.images.retain(|image| !image.names[0].contains("pause")))]
#[case::kubenet("NoCni", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.push("--network-plugin=kubenet".into()))]
#[case::no_cni("CniConfigMissing", |f: &mut Facts| f.cni.configs.clear())]
#[case::cni_json("CniConfigBroken", |f: &mut Facts| text(&mut f.cni.configs[0], "{"))]
#[case::no_loopback("CniPluginMissing", |f: &mut Facts| f.cni.bin_dirs[0].plugins.retain(|name| name != "loopback"))]
#[case::full("DiskSpace", |f: &mut Facts| f.disks[1].free = 100 << 20)]
#[case::unreadable("Unreadable", |f: &mut Facts| f.unreadable.push("/etc/docker/daemon.json: permission denied".into()))]
#[case::cni_version("CniVersionMissing", |f: &mut Facts| { text(&mut f.cni.configs[0], r#"{"plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"}]}"#); f.containerd.as_mut().unwrap().version = "1.6.2".into(); })]
fn a_bad_host_is_refused(#[case] code: &str, #[case] spoil: fn(&mut Facts)) {
    let mut facts = fixtures::named(LAB);
    assert!(blocking(&facts, &fixtures::request()).is_empty());
    spoil(&mut facts);
    assert_eq!(blocking(&facts, &fixtures::request()), [code]);
}

#[rstest]
#[case::driver("CgroupDriverMismatch", |r: &mut Request| r.target.cgroup_driver = CgroupDriverChoice::Cgroupfs)]
#[case::version("TargetVersionMismatch", |r: &mut Request| r.target.version = Some("1.7".into()))]
#[case::no_version("TargetVersionMismatch", |r: &mut Request| r.target.version = Some("newest".into()))]
#[case::dockershim("UnsupportedPair", |r: &mut Request| r.target.runtime = Runtime::Dockershim)]
#[case::not_there("TargetNotInstalled", |r: &mut Request| r.target.runtime = Runtime::CriO)]
#[case::sandbox("SandboxImageMissing", |r: &mut Request| r.target.sandbox_image = Some("registry.k8s.io/pause:3.9".into()))]
#[case::agent("RequiredImageMissing", |r: &mut Request| with_pods(r).images.push("transship:0.1.0".into()))]
fn a_bad_request_is_refused(#[case] code: &str, #[case] spoil: fn(&mut Request)) {
    let mut request = fixtures::request();
    spoil(&mut request);
    assert_eq!(blocking(&fixtures::named(LAB), &request), [code]);
}

/// What a host is told beside what blocks.
#[rstest]
#[case::competing("CniConfigsCompete", |f: &mut Facts| { let mut other = f.cni.configs[0].clone(); other.path = HostPath::new("/etc/cni/net.d/87-podman-bridge.conflist").unwrap(); f.cni.configs.push(other); })]
#[case::no_overlay("OverlayMissing", |f: &mut Facts| f.prerequisites = Some(Prerequisites { overlay: false, ..good() }))]
#[case::no_forward("IpForwardOff", |f: &mut Facts| f.prerequisites = Some(Prerequisites { ip_forward: false, ..good() }))]
#[case::no_filter("BridgeFilterOff", |f: &mut Facts| f.prerequisites = Some(Prerequisites { bridge_nf_call_iptables: Some(false), ..good() }))]
#[case::docker_alone("SetByDockerAlone", |f: &mut Facts| f.prerequisites = Some(Prerequisites { at_boot: BTreeSet::new(), ..good() }))]
#[case::swap("SwapOn", |f: &mut Facts| f.prerequisites = Some(Prerequisites { swap: true, ..good() }))]
#[case::cgroup_v1("CgroupV1", |f: &mut Facts| { f.cgroup_version = 1; f.containerd.as_mut().unwrap().version = "2.2.1".into(); })]
#[case::unsupported("TargetVersionUnsupported", |f: &mut Facts| { modern(f, "1.36.3"); f.containerd.as_mut().unwrap().version = "2.1.5".into(); })]
#[case::not_told("CgroupDriverNotTold", |f: &mut Facts| modern(f, "1.31.4"))]
#[case::flag_ends("KubeletFlagEnds", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.push("--dynamic-config-dir=/x".into()))]
fn a_host_is_told(#[case] code: &str, #[case] change: fn(&mut Facts)) {
    let codes = |facts: &Facts| -> Vec<String> {
        let findings = plan(facts, &fixtures::request()).findings;
        findings.into_iter().map(|finding| finding.code).collect()
    };
    let mut facts = fixtures::named(LAB);
    facts.prerequisites = Some(good());
    assert!(!codes(&facts).contains(&code.to_owned()));
    change(&mut facts);
    assert!(codes(&facts).contains(&code.to_owned()), "{:?}", codes(&facts));
}

/// A kubelet of this version that knows dockershim no more.
fn modern(facts: &mut Facts, version: &str) {
    let kubelet = facts.kubelet.as_mut().unwrap();
    kubelet.version = version.into();
    kubelet
        .command_line
        .push("--container-runtime-endpoint=unix:///run/cri-dockerd.sock".into());
    let shim = fixtures::named("debian12-kubeadm-1.36-cri-dockerd").cri_dockerd;
    facts.cri_dockerd = shim;
}

fn good() -> Prerequisites {
    Prerequisites {
        overlay: true,
        ip_forward: true,
        bridge_nf_call_iptables: Some(true),
        swap: false,
        at_boot: [
            "net.ipv4.ip_forward",
            "net.bridge.bridge-nf-call-iptables",
            "br_netfilter",
        ]
        .map(str::to_owned)
        .into(),
    }
}

#[test]
fn what_can_be_accepted_does_not_block_then() {
    let mut facts = fixtures::named(LAB);
    container("registry", None, &mut facts);
    container("runner", Some("/run/docker.sock"), &mut facts);
    let mut request = fixtures::request();
    request.preflight.allow = vec!["ForeignContainers".into(), "DockerSocketMounted".into()];
    let outcome = plan(&facts, &request);
    assert!(outcome.plan().is_some());
    let accepted = outcome
        .findings
        .iter()
        .filter(|finding| finding.remedy.starts_with("Accepted"));
    assert_eq!(accepted.count(), 2);
    let mut request = fixtures::request();
    request.source.keep = true;
    assert!(
        plan(&facts, &request).plan().is_some(),
        "Docker stays, so nothing is lost"
    );
}

#[test]
fn an_earlier_attempt_is_named_with_its_remedy() {
    let mut facts = fixtures::named(LAB);
    facts.attempts = ["m0-1", "00000000-0000-4000-8000-000000000001"]
        .map(|name| OpenAttempt {
            name: name.to_owned(),
            dir: HostPath::new(format!("/var/lib/transship/{name}")).unwrap(),
            state: "prepared, waits for its go".to_owned(),
        })
        .to_vec();
    let outcome = plan(&facts, &fixtures::request());
    assert_eq!(outcome.verdict, Verdict::Blocked);
    let found = |finding: &&Finding| finding.code == "EarlierAttempt";
    let found: Vec<&Finding> = outcome.findings.iter().filter(found).collect();
    assert_eq!(found.len(), 1, "its own attempt is not an earlier one: {found:?}");
    assert_eq!(
        found[0].message,
        "the migration in /var/lib/transship/m0-1 is not over on this node: it is prepared, waits for its go"
    );
    assert!(
        found[0]
            .remedy
            .contains("`transship node rollback --migration m0-1`")
    );
}
