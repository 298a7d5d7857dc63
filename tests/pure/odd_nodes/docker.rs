//! What depends on Docker itself: its socket, its data, its certificates, and who starts it.

use transship::plan::facts::Rivals;

use super::*;

/// Log agents and readers of the socket see no pods afterwards, whether Docker is kept or not.
#[test]
fn keeping_docker_does_not_help_log_agents() {
    let mut facts = lab();
    container(
        &mut facts,
        Some("logging/fluent-bit-abc12"),
        "fluent-bit",
        &["/var/log", "/var/lib/docker/containers"],
    );
    container(
        &mut facts,
        Some("monitoring/datadog-agent-x1"),
        "datadog",
        &["/var/run/docker.sock", "/proc"],
    );
    container(&mut facts, None, "gitlab-runner", &["/var/run/docker.sock"]);
    let ends = of(&facts, &to_containerd(), "DockerSocketMounted");
    let [socket, data] = &ends[..] else {
        panic!("{ends:?}")
    };
    assert!(socket.message.contains("datadog-agent-x1") && !socket.message.contains("fluent-bit"));
    assert!(data.message.contains("fluent-bit-abc12") && !data.message.contains("datadog"));
    assert!(data.remedy.contains("Keeping Docker does not help"), "{data:?}");
    assert!(!data.remedy.contains("source.keep"), "{data:?}");

    let mut request = to_containerd();
    request.source.keep = true;
    assert_eq!(blocking(&facts, &request), [""; 0]);
    let kept = of(&facts, &request, "DockerHasNoPods");
    let [socket, data] = &kept[..] else {
        panic!("{kept:?}")
    };
    assert_eq!((socket.severity, data.severity), (Severity::Warn, Severity::Warn));
    assert!(socket.message.contains("datadog-agent-x1"), "{socket:?}");
    assert!(data.message.contains("fluent-bit-abc12"), "{data:?}");
}

/// A DaemonSet that renews the certificate of a private registry.
#[test]
fn a_pod_that_feeds_dockers_directory_is_named() {
    let mut facts = lab();
    let mounts = ["/etc/docker/certs.d/harbor.example.org"];
    container(&mut facts, Some("kube-system/registry-ca-x1"), "copy", &mounts);
    for keep in [false, true] {
        let mut request = to_containerd();
        request.source.keep = keep;
        let finding = one(&facts, &request, "DockerConfigMounted");
        assert!(
            finding.message.contains("kube-system/registry-ca-x1"),
            "{finding:?}"
        );
    }
}

#[test]
fn docker_from_a_snap_is_not_passed_over() {
    let mut facts = lab();
    let docker = docker(&mut facts);
    docker.service.load = "not-found".into();
    docker.socket.load = "not-found".into();
    docker.other_unit = Some("snap.docker.dockerd.service".into());
    let mut request = to_containerd();
    assert_eq!(blocking(&facts, &request), ["DockerNotAService"]);
    let finding = one(&facts, &request, "DockerNotAService");
    assert!(
        finding.message.contains("snap.docker.dockerd.service"),
        "{finding:?}"
    );
    request.preflight.allow = vec!["DockerNotAService".into()];
    assert_eq!(blocking(&facts, &request), [""; 0]);
}

#[test]
fn who_needs_docker_or_starts_it_is_named() {
    let mut facts = lab();
    docker(&mut facts).service.needed_by = [
        "multi-user.target",
        "docker.socket",
        "node-exporter-docker.service",
    ]
    .map(str::to_owned)
    .into();
    facts.rivals = Rivals {
        starters: vec![path("/etc/systemd/system/docker-monitor.service")],
        agents: vec!["puppet.service".into()],
    };
    let finding = one(&facts, &to_containerd(), "UnitsNeedDocker");
    assert!(
        finding
            .message
            .ends_with("wanted by node-exporter-docker.service"),
        "{finding:?}"
    );
    let finding = one(&facts, &to_containerd(), "DockerStartedElsewhere");
    assert!(finding.message.contains("docker-monitor.service"), "{finding:?}");
    let finding = one(&facts, &to_containerd(), "FilesManaged");
    assert!(finding.message.contains("puppet.service"), "{finding:?}");
    // A Docker that stays may be started by anybody.
    let mut request = to_containerd();
    request.source.keep = true;
    for code in ["UnitsNeedDocker", "DockerStartedElsewhere"] {
        assert_eq!(of(&facts, &request, code), []);
    }
}

#[test]
fn a_file_that_a_program_writes_is_named() {
    let mut facts = lab();
    let unit = &mut kubelet(&mut facts).unit;
    let old = unit.environment_files[0].clone();
    unit.environment_files[0] = file(
        old.path.as_str(),
        &format!("# Ansible managed: kubelet.env.j2\n{}", old.text),
    );
    let finding = one(&facts, &to_containerd(), "FilesManaged");
    assert!(finding.message.contains(old.path.as_str()), "{finding:?}");
}

/// All of them, however many there are.
#[test]
fn every_container_that_is_not_kubernetes_is_named() {
    let mut facts = lab();
    let names: Vec<String> = (1..=12).map(|number| format!("compose-{number}")).collect();
    for name in &names {
        container(&mut facts, None, name, &[]);
    }
    let message = one(&facts, &to_containerd(), "ForeignContainers").message;
    assert!(
        names.iter().all(|name| message.contains(name.as_str())),
        "{message}"
    );
}

/// Kubespray's docker.service: a restart of containerd would stop Docker, and all containers with it, while the node serves.
#[test]
fn a_docker_that_is_bound_to_containerd_is_loosened_until_the_way_back() {
    let (name, code) = ("/etc/systemd/system/docker.service", "DockerBoundToContainerd");
    let bound = "[Unit]\nAfter=containerd.service\nBindsTo=containerd.service\nWants=docker.socket\n[Service]\nExecStart=/usr/sbin/dockerd\n";
    let mut facts = lab();
    let service = &mut docker(&mut facts).service;
    service.bound_to.push("containerd.service".into());
    // Its package has it, and a drop-in cannot take it back.
    assert_eq!(one(&facts, &to_containerd(), code).severity, Severity::Block);

    let docker = docker(&mut facts);
    docker.own_unit = Some(file(name, bound));
    docker.service.fragment = Some(path(name));
    assert_eq!(of(&facts, &to_containerd(), code), []);
    assert_eq!(
        written(&facts, &to_containerd(), name).unwrap(),
        bound.replace("BindsTo=", "Wants=")
    );
    let words = plan(&facts, &to_containerd()).plan().unwrap().words();
    let at = |wanted: &str| words.iter().position(|words| words.contains(wanted)).unwrap();
    let order = [
        at(name),
        at("(When undone: restart containerd.service"),
        at("enable containerd.service"),
    ];
    assert!(order.is_sorted(), "{words:#?}");

    facts
        .docker
        .as_mut()
        .unwrap()
        .socket
        .bound_to
        .push("containerd.service".into());
    one(&facts, &to_containerd(), code);
}
