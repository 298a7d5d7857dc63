//! What pods have under Docker without asking for it.

use rstest::rstest;
use serde_json::json;

use transship::plan::facts::Limits;

use super::*;

/// A pod that is not root and listens on port 80.
#[rstest]
#[case::as_in_the_lab("20.10.24+dfsg1", "6.1.0-18-amd64", "1.6.20~ds1", true)]
#[case::of_1_7("24.0.7", "5.15.0", "1.7.28", true)]
#[case::docker_did_not_allow_it("19.03.15", "5.10.0", "1.6.20", false)]
#[case::the_kernel_cannot("20.10.24", "3.10.0-1160.el7.x86_64", "1.6.33", false)]
fn low_ports_stay_open(
    #[case] docker: &str,
    #[case] kernel: &str,
    #[case] containerd: &str,
    #[case] opened: bool,
) {
    let mut facts = lab();
    engine(&mut facts).version = docker.into();
    facts.kernel = kernel.into();
    facts.containerd.as_mut().unwrap().version = containerd.into();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    for key in ["enable_unprivileged_ports", "enable_unprivileged_icmp"] {
        assert_eq!(config.contains(&format!("{key} = true\n")), opened, "{config}");
    }
    let said = of(&facts, &to_containerd(), "UnprivilegedPorts");
    assert_eq!(said.len(), usize::from(opened));
    assert!(said.iter().all(|finding| finding.severity == Severity::Info));
}

#[test]
fn low_ports_close_under_a_containerd_that_cannot_open_them() {
    let mut facts = lab();
    facts.containerd.as_mut().unwrap().version = "1.5.18".into();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(!config.contains("unprivileged"), "{config}");
    let finding = one(&facts, &to_containerd(), "UnprivilegedPortsLost");
    assert!(finding.remedy.contains("containerd 1.6 or later"), "{finding:?}");
}

/// The same where the pods come from cri-dockerd, and where a file of containerd 1.7 says otherwise under 2.x.
#[test]
fn low_ports_stay_open_under_containerd_2_with_the_file_of_1_7() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    facts.containerd.as_mut().unwrap().version = "2.3.1".into();
    config_toml(
        &mut facts,
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_unprivileged_ports = false\n",
    );
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(config.contains("enable_unprivileged_ports = true\n"), "{config}");
    assert!(
        !config.contains("icmp"),
        "containerd 2 allows it by itself: {config}"
    );
}

#[test]
fn localhost_is_told_in_an_ipv4_network_alone() {
    let mut facts = lab();
    let finding = one(&facts, &to_containerd(), "LocalhostChanges");
    assert!(finding.remedy.contains("connection refused"), "{finding:?}");
    let config = &mut facts.cni.configs[0];
    let ranges = r#"{"cniVersion":"0.3.1","plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"2001:db8:42:1::/64"}]]}},{"type":"portmap"}]}"#;
    *config = file(config.path.as_str(), ranges);
    assert_eq!(of(&facts, &to_containerd(), "LocalhostChanges"), []);
    // A default route of the second family gives no address.
    let routes = ranges.replace(
        ",[{\"subnet\":\"2001:db8:42:1::/64\"}]]",
        "],\"routes\":[{\"dst\":\"::/0\"}]",
    );
    facts.cni.configs[0] = file("/etc/cni/net.d/10-lab.conflist", &routes);
    assert_eq!(of(&facts, &to_containerd(), "LocalhostChanges").len(), 1);
}

/// Every family of addresses is reported, as by dockershim and containerd.
#[test]
fn pods_under_cri_dockerd_have_all_their_addresses() {
    let mut facts = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    let command = drop_in(&facts, &to_cri_dockerd(), "cri-docker.service").unwrap();
    assert!(command.contains(" --ipv6-dual-stack=true"), "{command}");
    // The flag came with 0.2.2.
    facts.cri_dockerd.as_mut().unwrap().version = "0.2.1".into();
    let command = drop_in(&facts, &to_cri_dockerd(), "cri-docker.service").unwrap();
    assert!(!command.contains("dual-stack"), "{command}");
    let back = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    let command = drop_in(&back, &to_cri_dockerd(), "cri-docker.service").unwrap();
    assert!(command.contains(" --ipv6-dual-stack=true"), "{command}");
}

#[test]
fn a_long_deadline_for_pulls_is_carried() {
    let deadline = |facts: &mut Facts, value: &str| {
        kubelet(facts)
            .command_line
            .push(format!("--image-pull-progress-deadline={value}"));
    };
    let mut facts = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    deadline(&mut facts, "30m");
    let command = drop_in(&facts, &to_cri_dockerd(), "cri-docker.service").unwrap();
    assert!(
        command.contains(" --image-pull-progress-deadline=30m"),
        "{command}"
    );
    let finding = one(&facts, &to_cri_dockerd(), "PullDeadline");
    assert!(finding.message.contains("30m"), "{finding:?}");

    let mut facts = lab();
    deadline(&mut facts, "30m");
    let finding = one(&facts, &to_containerd(), "PullDeadline");
    assert!(finding.message.contains("has no such deadline"), "{finding:?}");
    facts.containerd.as_mut().unwrap().version = "1.7.28".into();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(
        config.contains("image_pull_progress_timeout = \"30m\"\n"),
        "{config}"
    );
    // dockershim's own value, which many write down, is shorter than containerd's.
    let mut facts = lab();
    deadline(&mut facts, "1m0s");
    facts.containerd.as_mut().unwrap().version = "1.7.28".into();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(!config.contains("image_pull_progress_timeout"), "{config}");
    assert_eq!(of(&facts, &to_containerd(), "PullDeadline"), []);
}

/// containerd waits for five minutes, cri-dockerd for one unless it is told.
#[test]
fn the_deadline_of_containerd_is_carried_to_cri_dockerd() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    let effective = "version = 3\n[plugins.'io.containerd.cri.v1.images']\nimage_pull_progress_timeout = '5m0s'\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'registry.k8s.io/pause:3.10.2'\n";
    facts.containerd.as_mut().unwrap().effective = Some(effective.into());
    let command = drop_in(&facts, &to_cri_dockerd(), "cri-docker.service").unwrap();
    assert!(
        command.contains(" --image-pull-progress-deadline=5m0s"),
        "{command}"
    );
}

fn limits(facts: &Facts) -> Vec<String> {
    let drop_in = drop_in(facts, &to_containerd(), "containerd.service").unwrap_or_default();
    let lines = drop_in.lines().filter(|line| line.starts_with("Limit"));
    lines.map(str::to_owned).collect()
}

/// What Docker's containers get is neither the limit of its unit nor that of containerd's.
#[rstest]
#[case::flag(json!({}), "--default-ulimit nofile=2048:8192", &["LimitNOFILE=2048:8192"])]
#[case::file(
    json!({"default-ulimits": {"nofile": {"Name": "nofile", "Hard": 8192, "Soft": 2048}}}),
    "",
    &["LimitNOFILE=2048:8192"]
)]
#[case::more_of_them(
    json!({"default-ulimits": {"memlock": {"Hard": -1, "Soft": -1}, "nproc": {"Hard": 512, "Soft": 512}}}),
    "--default-ulimit=nofile=1024",
    &["LimitMEMLOCK=infinity", "LimitNOFILE=1024", "LimitNPROC=512"]
)]
fn default_ulimits_become_limits_of_containerd(
    #[case] daemon: serde_json::Value,
    #[case] flags: &str,
    #[case] wanted: &[&str],
) {
    let mut facts = lab();
    daemon_json(&mut facts, &daemon.to_string());
    let service = &mut docker(&mut facts).service;
    service.limit_nofile = Limits {
        soft: u64::MAX,
        hard: u64::MAX,
    };
    service
        .exec_start
        .extend(flags.split_whitespace().map(str::to_owned));
    assert_eq!(limits(&facts), wanted);
    let finding = one(&facts, &to_containerd(), "UlimitsCarried");
    assert!(finding.message.contains(wanted[0]), "{finding:?}");
    assert_eq!(of(&facts, &to_containerd(), "DockerSettingNotCarried"), []);
}

/// As many layers at the same time as under Docker, by the file or by a flag.
#[rstest]
#[case::of_the_file(json!({"max-concurrent-downloads": 6}), "", Some(6), "DockerSettingApproximated")]
#[case::of_a_flag(json!({}), "--max-concurrent-downloads=1", Some(1), "DockerSettingApproximated")]
#[case::all(json!({}), "--max-concurrent-downloads=0", Some(0), "DockerSettingCarried")]
fn the_number_of_downloads_comes_along(
    #[case] daemon: serde_json::Value,
    #[case] flag: &str,
    #[case] wanted: Option<u32>,
    #[case] code: &str,
) {
    let mut facts = lab();
    daemon_json(&mut facts, &daemon.to_string());
    let words = flag.split_whitespace().map(str::to_owned);
    docker(&mut facts).service.exec_start.extend(words);
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    let line = config
        .lines()
        .find_map(|line| line.strip_prefix("max_concurrent_downloads = "));
    assert_eq!(
        line,
        wanted.map(|number| number.to_string()).as_deref(),
        "{config}"
    );
    let finding = one_about(&facts, &to_containerd(), "max-concurrent-downloads");
    assert_eq!(finding.code, code);
}

/// Docker merges its file over its defaults: a 0 of the file is no number.
#[test]
fn no_number_of_downloads_is_made_up() {
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"max-concurrent-downloads": 0}"#);
    assert_eq!(about(&facts, &to_containerd(), "max-concurrent-downloads"), []);
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(!config.contains("max_concurrent_downloads"), "{config}");
    daemon_json(&mut facts, "{}");
    docker(&mut facts)
        .service
        .exec_start
        .push("--max-concurrent-downloads=$N".to_owned());
    let finding = one_about(&facts, &to_containerd(), "max-concurrent-downloads");
    assert_eq!(finding.code, "DockerSettingNotCarried");
}

/// A limit that would stop containerd itself is told, not written.
#[test]
fn a_limit_that_containerd_cannot_live_with_is_told() {
    let mut facts = lab();
    daemon_json(
        &mut facts,
        r#"{"default-ulimits": {"fsize": {"Hard": 1000, "Soft": 1000}}}"#,
    );
    assert_eq!(limits(&facts), [""; 0]);
    let finding = one(&facts, &to_containerd(), "UlimitsLost");
    assert!(finding.message.contains("fsize=1000:1000"), "{finding:?}");
    assert!(
        finding
            .message
            .contains("containerd.service has instead, which is infinity"),
        "{finding:?}"
    );
}

/// Without `default-ulimits` containers inherit from whoever starts them: containerd's service, or a containerd that
/// Docker itself started.
#[test]
fn the_limit_is_that_of_the_containerd_that_starts_containers() {
    let mut facts = lab();
    docker(&mut facts).service.limit_nofile = Limits {
        soft: 4096,
        hard: 4096,
    };
    assert_eq!(limits(&facts), [""; 0], "they have containerd's already");
    facts.containerd.as_mut().unwrap().service.active = "inactive".into();
    assert_eq!(limits(&facts), ["LimitNOFILE=4096"]);
    facts.containerd.as_mut().unwrap().service.active = "active".into();
    let words = [
        "--containerd".to_owned(),
        "/run/docker/containerd/containerd.sock".to_owned(),
    ];
    docker(&mut facts).service.exec_start.extend(words);
    assert_eq!(limits(&facts), ["LimitNOFILE=4096"]);
}

/// A disk of its own for Docker, a small one for logs, and logrotate in between.
#[test]
fn logs_that_move_are_told_in_numbers() {
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"data-root": "/data/docker"}"#);
    engine(&mut facts).data_root = path("/data/docker");
    facts.log_rules = vec![path("/etc/logrotate.d/docker-container")];
    let disk = |at: &str, total: u64, device: u64| transship::plan::facts::Disk {
        path: path(at),
        kind: "ext4".into(),
        free: total / 2,
        total,
        device,
    };
    facts.disks.extend([
        disk("/var/log/pods", 4 << 30, 91),
        disk("/data/docker", 500 << 30, 92),
    ]);
    let finding = one(&facts, &to_containerd(), "LogsShrink");
    for words in [
        "/data/docker/containers without a limit",
        "/var/log/pods in 5 files of 10 MiB per container, 50 MiB in all",
        "/etc/logrotate.d/docker-container rotates nothing",
    ] {
        assert!(finding.message.contains(words), "{finding:?}");
    }
    let finding = one(&facts, &to_containerd(), "LogSpace");
    for words in ["/var/log/pods has 2 GiB of 4 GiB free", "250 GiB of 500 GiB"] {
        assert!(finding.message.contains(words), "{finding:?}");
    }
}

/// Under cri-dockerd the kubelet asks for a rotation that Docker refuses.
#[rstest]
#[case::no_limit("{}", &["in its data root without a limit"])]
#[case::larger(r#"{"log-opts": {"max-size": "100m"}}"#, &["in 1 file of 95.3 MiB per container"])]
#[case::limited(r#"{"log-opts": {"max-size": "10m", "max-file": "3"}}"#, &[])]
#[case::elsewhere(r#"{"log-driver": "journald"}"#, &[])]
fn logs_that_nobody_rotates_any_more_are_told(#[case] daemon: &str, #[case] wanted: &[&str]) {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    daemon_json(&mut facts, daemon);
    let found = of(&facts, &to_cri_dockerd(), "LogsGrow");
    assert_eq!(found.len(), wanted.len(), "{found:?}");
    for (finding, words) in found.iter().zip(wanted) {
        assert!(finding.message.contains(words), "{finding:?}");
    }
    assert_eq!(of(&lab(), &to_containerd(), "LogsGrow"), []);
}

#[test]
fn logs_that_have_the_room_of_before_are_good_to_know() {
    let mut facts = lab();
    daemon_json(
        &mut facts,
        r#"{"log-opts": {"max-size": "10m", "max-file": "3"}}"#,
    );
    let finding = one(&facts, &to_containerd(), "LogsMove");
    assert!(
        finding.message.contains("in 3 files of 9.5 MiB per container"),
        "{finding:?}"
    );
    assert_eq!(of(&facts, &to_containerd(), "LogsShrink"), []);
    // What the kubelet is told counts.
    let config = kubelet(&mut facts).config.as_mut().unwrap();
    let text = format!(
        "{}containerLogMaxSize: 2Mi\ncontainerLogMaxFiles: 4\n",
        config.text
    );
    *config = file(config.path.as_str(), &text);
    let finding = one(&facts, &to_containerd(), "LogsShrink");
    assert!(
        finding.message.contains("4 files of 2 MiB per container, 8 MiB"),
        "{finding:?}"
    );
}
