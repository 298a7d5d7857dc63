//! Where the steps of a plan bring the node: its kubelet, its endpoint, the units of Docker, its pods.

use super::*;

/// A runtime is found by its configuration, not by the usual place of its socket, and kubeadm is told that place.
#[test]
fn a_runtime_may_listen_elsewhere() {
    let mut facts = fixtures::named(LAB);
    let elsewhere = HostPath::new("/run/k8s/containerd.sock").unwrap();
    facts.containerd.as_mut().unwrap().endpoint = elsewhere;
    let outcome = plan(&facts, &fixtures::request());
    assert_eq!(
        outcome.plan().unwrap().target_endpoint().as_deref(),
        Some("unix:///run/k8s/containerd.sock")
    );
    let facts = after(&facts, &fixtures::request());
    assert_eq!(plan(&facts, &fixtures::request()).verdict, Verdict::AlreadyThere);
    // cri-dockerd as the source.
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let elsewhere = HostPath::new("/run/k8s/cri-dockerd.sock").unwrap();
    facts.cri_dockerd.as_mut().unwrap().endpoint = elsewhere;
    let file = facts.kubelet.as_mut().unwrap().config.as_mut().unwrap();
    let moved = file
        .text
        .replace("/var/run/cri-dockerd.sock", "/run/k8s/cri-dockerd.sock");
    text(file, &moved);
    let outcome = plan(&facts, &fixtures::request());
    assert_eq!(outcome.plan().unwrap().source.runtime, Runtime::CriDockerd);
}

/// A kubelet from 1.27 on that nothing names an endpoint to uses containerd; the next one is written down.
#[test]
fn an_endpoint_that_nothing_names_is_written_down() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    let kubelet = facts.kubelet.as_mut().unwrap();
    let unnamed = |file: &mut TextFile| {
        let lines = file
            .text
            .lines()
            .filter(|line| !line.starts_with("containerRuntime"));
        let new: String = lines.map(|line| format!("{line}\n")).collect();
        text(file, &new);
    };
    unnamed(kubelet.config.as_mut().unwrap());
    unnamed(kubelet.instance_config.as_mut().unwrap());
    let request = fixtures::to(Runtime::CriDockerd);
    let facts = after(&facts, &request);
    let kubelet = facts.kubelet.as_ref().unwrap();
    assert_eq!(
        Settings::of(kubelet, &[]).unwrap().runtime,
        Some(Runtime::CriDockerd)
    );
    for file in kubelet.config.iter().chain(&kubelet.instance_config) {
        assert!(
            file.text
                .ends_with("containerRuntimeEndpoint: \"unix:///run/cri-dockerd.sock\"\n")
        );
    }
}

/// The facts after the files of a plan are written and the processes started anew.
fn after(facts: &Facts, request: &Request) -> Facts {
    let outcome = plan(facts, request);
    let planned = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    let mut facts = facts.clone();
    for step in &planned.steps {
        let Step::File(step) = &step.does else { continue };
        let Some(want) = &step.want else { continue };
        let file = TextFile {
            path: step.path.clone(),
            text: want.text.clone(),
            digest: Digest::of(&want.text),
            mode: want.mode,
        };
        put(&mut facts, file);
    }
    let kubelet = facts.kubelet.as_mut().unwrap();
    kubelet.command_line = kubelet_arguments::compose(&kubelet.unit).unwrap();
    facts
}

/// Puts a file where the facts have it; of the kubelet's own drop-in, what systemd would read from it.
fn put(facts: &mut Facts, file: TextFile) {
    let kubelet = facts.kubelet.as_mut().unwrap();
    if file.path.as_str() == kubelet_arguments::DROP_IN {
        let lines = |prefix: &str| -> Vec<String> {
            file.text
                .lines()
                .filter_map(|line| line.strip_prefix(prefix))
                .map(str::to_owned)
                .collect()
        };
        for assignment in lines("Environment=") {
            kubelet
                .unit
                .environment
                .push(assignment.trim_matches('"').to_owned());
        }
        if let Some(command) = lines("ExecStart=").last() {
            kubelet.unit.exec_start = command.split(' ').map(str::to_owned).collect();
        }
        kubelet.unit.drop_ins.push(file);
        return;
    }
    let unit = &mut kubelet.unit;
    let known = unit
        .environment_files
        .iter_mut()
        .chain(&mut kubelet.config)
        .chain(&mut kubelet.config_drop_ins)
        .chain(&mut kubelet.instance_config)
        .find(|known| known.path == file.path);
    match known {
        Some(known) => *known = file,
        None => facts.files.push(MaybeFile {
            path: file.path.clone(),
            file: Some(file),
        }),
    }
}

#[test]
fn the_files_of_a_plan_bring_the_kubelet_to_the_target() {
    for (name, facts, request) in fixtures::cases() {
        if plan(&facts, &request).plan().is_none() {
            continue;
        }
        let old = Settings::of(facts.kubelet.as_ref().unwrap(), &[]).unwrap();
        let facts = after(&facts, &request);
        let kubelet = facts.kubelet.as_ref().unwrap();
        let settings = Settings::of(kubelet, &[]).unwrap();
        let target = request.target.runtime;
        let endpoint = match target {
            Runtime::Containerd => "unix:///run/containerd/containerd.sock",
            Runtime::CriO => "unix:///run/crio/crio.sock",
            _ => "unix:///run/cri-dockerd.sock",
        };
        assert_eq!(settings.runtime, Some(target), "{name}");
        assert_eq!(settings.endpoint, endpoint, "{name}");
        assert_eq!(settings.named_endpoint.as_deref(), Some(endpoint), "{name}");
        if let Some(instance) = &kubelet.instance_config {
            let named = yaml::get(&instance.text, "containerRuntimeEndpoint").unwrap();
            assert_eq!(named.as_deref(), Some(endpoint), "{name}: kubeadm's patch");
        }
        let unknown: &[&str] = match old.version.minor {
            ..=23 => &[],
            24..=26 => &["network-plugin"],
            27..=34 => &["network-plugin", "container-runtime"],
            _ => &["network-plugin", "container-runtime", "pod-infra-container-image"],
        };
        for flag in unknown {
            assert_eq!(flags::value(&kubelet.command_line, flag), None, "{name}: {flag}");
        }
        assert_eq!(settings.network.plugin, "", "{name}");
        let left = settings
            .runtime_cgroups
            .filter(|cgroup| cgroup.contains("docker"));
        assert!(
            left.is_none() || target != Runtime::Containerd,
            "{name}: {left:?}"
        );
        assert_eq!(plan(&facts, &request).verdict, Verdict::AlreadyThere, "{name}");
    }
}

#[test]
fn dockers_units_end_as_far_as_they_can() {
    let ends = |facts: &Facts, request: &Request| -> Vec<(String, Option<Boot>)> {
        let outcome = plan(facts, request);
        let steps = outcome.plan().unwrap().steps.iter();
        steps
            .filter_map(|step| match &step.does {
                Step::Unit(unit) if unit.unit.starts_with("docker") => Some((unit.unit.clone(), unit.boot)),
                _ => None,
            })
            .collect()
    };
    let mut facts = fixtures::named(LAB);
    let mut request = fixtures::request();
    let masked = Some(Boot::Masked);
    assert_eq!(
        ends(&facts, &request),
        [
            ("docker.service".into(), Some(Boot::Disabled)),
            ("docker.socket".into(), masked),
            ("docker.service".into(), masked)
        ]
    );
    let docker = facts.docker.as_mut().unwrap();
    docker.service.fragment = Some(HostPath::new("/etc/systemd/system/docker.service").unwrap());
    docker.socket.load = "not-found".into();
    assert_eq!(
        ends(&facts, &request),
        [("docker.service".into(), Some(Boot::Disabled))]
    );
    request.source.keep = true;
    assert!(ends(&facts, &request).is_empty());
}

/// The pod network is proven after the kubelet's start: by a rehearsal where the CNI chain allows one, else by the
/// pods of the kubelet; where there are none, a finding reports it.
#[rstest]
#[case::bridge("bridge", false, Some(Proof::KubeletOrOwn))]
#[case::a_pod_stays("calico", true, Some(Proof::Kubelet { within_secs: 300 }))]
#[case::no_pod_stays("calico", false, None)]
fn the_pod_network_is_proven_or_a_finding_says_so(
    #[case] plugin: &str,
    #[case] pods_in_pod_network: bool,
    #[case] proof: Option<Proof>,
) {
    let mut facts = fixtures::named(LAB);
    let chain =
        format!(r#"{{"cniVersion": "0.3.1", "plugins": [{{"type": "{plugin}"}}, {{"type": "portmap"}}]}}"#);
    text(&mut facts.cni.configs[0], &chain);
    facts.cni.bin_dirs[0].plugins.push(plugin.to_owned());
    let mut request = fixtures::request();
    with_pods(&mut request).in_pod_network = pods_in_pod_network;
    let outcome = plan(&facts, &request);
    let steps = &outcome
        .plan()
        .unwrap_or_else(|| panic!("{:?}", outcome.findings))
        .steps;
    let starts = |step: &Step| matches!(step, Step::Kubelet(kubelet) if kubelet.run);
    let start = steps.iter().position(|step| starts(&step.does)).unwrap();
    let proven = steps[start..].iter().find_map(|step| match &step.does {
        Step::Rehearse(rehearsal) => Some(rehearsal.proof),
        _ => None,
    });
    assert_eq!(proven, proof);
    let found = |code: &str| outcome.findings.iter().any(|finding| finding.code == code);
    assert_eq!(found("PodNetworkNotProven"), proof.is_none());
}

#[rstest]
#[case::drained(json!({ "mode": "Evict" }), 20)]
#[case::drained_with_a_limit(json!({ "mode": "Evict", "gracePeriodLimit": "45s" }), 20)]
#[case::in_place(json!({ "mode": "InPlace" }), 600)]
#[case::in_place_and_fast(json!({ "mode": "InPlace", "gracePeriodLimit": "5s" }), 5)]
#[case::in_place_and_slow(json!({ "mode": "InPlace", "gracePeriodLimit": "1h" }), 3600)]
#[case::evicted_pods_have_theirs(json!({ "mode": "InPlace", "gracePeriod": 5 }), 600)]
fn pods_that_nobody_has_ended_before_have_time_to_end(
    #[case] drain: serde_json::Value,
    #[case] limit_secs: u32,
) {
    let drain = serde_json::from_value(drain).unwrap();
    let request = Request {
        drain,
        ..fixtures::request()
    };
    let outcome = plan(&fixtures::named(LAB), &request);
    let mut limits = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .filter_map(|step| match &step.does {
            Step::StopPods(stop) => Some(stop.grace_limit_secs),
            _ => None,
        });
    assert_eq!((limits.next(), limits.next()), (Some(limit_secs), None));
}
