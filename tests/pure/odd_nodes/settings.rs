//! Docker's settings that come along, and those that must be accepted one by one.

use rstest::rstest;
use serde_json::json;

use super::*;

/// A node of GPUs, as `nvidia-ctk runtime configure` leaves it.
fn nvidia() -> Facts {
    let mut facts = lab();
    let daemon = json!({ "default-runtime": "nvidia", "exec-opts": ["native.cgroupdriver=systemd"],
        "runtimes": { "nvidia": { "args": [], "path": "nvidia-container-runtime" } } });
    daemon_json(&mut facts, &daemon.to_string());
    engine(&mut facts).default_runtime = "nvidia".into();
    let program = path("/usr/bin/nvidia-container-runtime");
    docker(&mut facts).runtime_programs = [("nvidia-container-runtime".to_owned(), program)].into();
    facts
}

#[test]
fn the_runtime_of_gpus_stays_the_default() {
    let facts = nvidia();
    assert_eq!(blocking(&facts, &to_containerd()), [""; 0]);
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    for line in [
        "default_runtime_name = \"nvidia\"\n",
        ".containerd.runtimes.nvidia]\nruntime_type = \"io.containerd.runc.v2\"\n",
        ".runtimes.nvidia.options]\nBinaryName = \"/usr/bin/nvidia-container-runtime\"\nSystemdCgroup = true\n",
        ".runtimes.runc.options]\nSystemdCgroup = true\n",
    ] {
        assert!(config.contains(line), "{line}{config}");
    }
    let outcome = plan(&facts, &to_containerd());
    let wants = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .filter_map(|step| match &step.does {
            Step::Await(wait) => wait.configuration.clone(),
            _ => None,
        });
    for want in wants {
        assert_eq!(want.carried.default_runtime.as_deref(), Some("nvidia"));
    }
    for name in ["default-runtime", "runtimes.nvidia"] {
        assert_eq!(
            one_about(&facts, &to_containerd(), name).code,
            "DockerSettingCarried"
        );
    }
}

/// What `nvidia-ctk` has written for containerd stays as it is.
#[test]
fn a_runtime_that_containerd_has_is_not_written_again() {
    let mut facts = nvidia();
    let theirs = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia]\n\
        runtime_type = \"io.containerd.runc.v2\"\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.nvidia.options]\nBinaryName = \"/opt/theirs\"\n";
    config_toml(&mut facts, theirs);
    // Not even the program is needed.
    docker(&mut facts).runtime_programs.clear();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(config.contains("BinaryName = \"/opt/theirs\"\n"), "{config}");
    assert!(config.contains("default_runtime_name = \"nvidia\"\n"), "{config}");
    assert!(!config.contains("/usr/bin/nvidia"), "{config}");
}

#[rstest]
#[case::not_installed(json!({ "path": "/opt/gone" }), "needs /opt/gone for it")]
#[case::arguments(json!({ "path": "/usr/bin/crun", "runtimeArgs": ["--debug"] }), "runtimeArgs")]
#[case::options(json!({ "runtimeType": "io.containerd.runc.v2", "options": { "NoPivotRoot": true } }), "options that are not translated")]
#[case::shim_by_its_path(json!({ "runtimeType": "/opt/kata/bin/containerd-shim-kata-v2" }), "takes a shim by its type")]
#[case::no_shim(json!({ "path": "/usr/local/bin/runsc" }), "needs containerd-shim-runsc-v1")]
fn a_runtime_that_cannot_come_along_blocks_if_pods_use_it(
    #[case] runtime: serde_json::Value,
    #[case] remedy: &str,
) {
    let daemon = json!({ "runtimes": { "other": runtime } }).to_string();
    let programs = || [("/usr/bin/crun".to_owned(), path("/usr/bin/crun"))].into();
    // dockershim gives pods the default runtime alone.
    let mut facts = lab();
    daemon_json(&mut facts, &daemon);
    docker(&mut facts).runtime_programs = programs();
    assert_eq!(about(&facts, &to_containerd(), "runtimes.other"), []);
    engine(&mut facts).default_runtime = "other".into();
    assert_eq!(blocking(&facts, &to_containerd()), ["DockerSettingNotCarried"; 2]);
    // cri-dockerd takes its name as the handler of a RuntimeClass.
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    daemon_json(&mut facts, &daemon);
    docker(&mut facts).runtime_programs = programs();
    let finding = one_about(&facts, &to_containerd(), "runtimes.other");
    assert_eq!(finding.severity, Severity::Block);
    assert!(finding.remedy.contains(remedy), "{finding:?}");
    let mut request = to_containerd();
    request.preflight.allow = vec!["DockerSettingNotCarried/runtimes.other".to_owned()];
    let finding = one_about(&facts, &request, "runtimes.other");
    assert_eq!(finding.severity, Severity::Warn);
}

/// Pods choose a runtime by a class, whose handler is a label of DNS.
#[test]
fn a_runtime_that_comes_along_names_the_class_for_it() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let kata = json!({ "runtimeType": "io.containerd.kata.v2" });
    daemon_json(
        &mut facts,
        &json!({ "runtimes": { "kata": kata, "Kata_2": kata } }).to_string(),
    );
    let shim = "containerd-shim-kata-v2";
    docker(&mut facts).runtime_programs =
        [(shim.to_owned(), path("/opt/kata/bin/containerd-shim-kata-v2"))].into();
    let finding = one_about(&facts, &to_containerd(), "runtimes.kata");
    assert_eq!(finding.code, "DockerSettingCarried");
    let (_, manifest) = finding.remedy.split_once("<<< '").unwrap();
    let class: serde_json::Value = serde_json::from_str(manifest.trim_end_matches('\'')).unwrap();
    assert_eq!(
        (&class["kind"], &class["handler"]),
        (&json!("RuntimeClass"), &json!("kata"))
    );
    let finding = one_about(&facts, &to_containerd(), "runtimes.Kata_2");
    assert!(
        finding.remedy.contains("No RuntimeClass can name it"),
        "{finding:?}"
    );
    // What was written must be in effect before any pod ends.
    let outcome = plan(&facts, &to_containerd());
    let steps = outcome.plan().unwrap().steps.iter();
    let mut wants = steps.filter_map(|step| match &step.does {
        Step::Await(wait) => wait.configuration.clone(),
        _ => None,
    });
    let names: Vec<String> = wants
        .next()
        .unwrap()
        .handlers
        .into_iter()
        .map(|handler| handler.name)
        .collect();
    assert_eq!(names, ["Kata_2", "kata"]);
}

/// A sandboxed runtime has a shim of its own under containerd, with the options that Docker gives to it.
#[test]
fn shims_of_other_runtimes_come_along() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let daemon = json!({ "runtimes": {
        "runsc": { "path": "/usr/local/bin/runsc" },
        "kata": { "runtimeType": "io.containerd.kata.v2", "options": { "ConfigPath": "/etc/kata.toml" } } } });
    daemon_json(&mut facts, &daemon.to_string());
    let shims = ["containerd-shim-runsc-v1", "containerd-shim-kata-v2"];
    docker(&mut facts).runtime_programs = shims
        .map(|name| (name.to_owned(), path(&format!("/usr/local/bin/{name}"))))
        .into();
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    for lines in [
        ".runtimes.runsc]\nruntime_type = \"io.containerd.runsc.v1\"\n",
        ".runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"\n",
        ".runtimes.kata.options]\nConfigPath = \"/etc/kata.toml\"\n",
    ] {
        assert!(config.contains(lines), "{lines}{config}");
    }
}

#[test]
fn labels_of_selinux_stay_on() {
    let mut facts = lab();
    daemon_json(&mut facts, r#"{"selinux-enabled": true}"#);
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(config.contains("enable_selinux = true\n"), "{config}");
    let finding = one_about(&facts, &to_containerd(), "selinux-enabled");
    assert_eq!(finding.code, "DockerSettingCarried");
}

/// The value decides, not the name.
#[rstest]
#[case::isolation(
    r#"{"userns-remap": "default"}"#,
    "userns-remap",
    Some("DockerSettingNotCarried")
)]
#[case::quota(
    r#"{"storage-opts": ["overlay2.size=10G"]}"#,
    "storage-opts",
    Some("DockerSettingNotCarried")
)]
// From Kubernetes' own instructions for Docker.
#[case::kernel(
    r#"{"storage-opts": ["overlay2.override_kernel_check=true"]}"#,
    "storage-opts",
    None
)]
#[case::same_namespace(
    r#"{"default-cgroupns-mode": "host"}"#,
    "default-cgroupns-mode",
    Some("DockerSettingCarried")
)]
#[case::other_namespace(
    r#"{"default-cgroupns-mode": "private"}"#,
    "default-cgroupns-mode",
    Some("DockerSettingNotCarried")
)]
#[case::of_docker(r#"{"cgroup-parent": "/x"}"#, "cgroup-parent", None)]
#[case::builtin(r#"{"seccomp-profile": "builtin"}"#, "seccomp-profile", None)]
#[case::unknown(r#"{"unheard-of": 1}"#, "unheard-of", Some("DockerSettingNotCarried"))]
fn a_setting_is_judged_by_its_value(#[case] daemon: &str, #[case] name: &str, #[case] code: Option<&str>) {
    let mut facts = lab();
    facts.cgroup_version = 1;
    daemon_json(&mut facts, daemon);
    let found = about(&facts, &to_containerd(), name);
    let codes: Vec<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
    assert_eq!(codes, code.into_iter().collect::<Vec<_>>(), "{found:?}");
}

/// As Docker's units and files of options have them.
#[rstest]
#[case::off(
    "--selinux-enabled=false --live-restore=False --init=false --userns-remap=",
    None
)]
#[case::singular(
    "--label=a=b --dns-opt=ndots:1 --default-address-pool=base=10.0.0.0/8,size=24 --feature=x=true",
    None
)]
#[case::red_hat(
    "--add-runtime docker-runc=/usr/libexec/docker/docker-runc-current --default-runtime=docker-runc --init-path=/usr/libexec/docker/docker-init-current --signature-verification=False",
    None
)]
#[case::other_file("--config-file=/etc/docker/k8s.json", Some("config-file"))]
#[case::same_file("--config-file=/etc/docker/daemon.json", None)]
#[case::on("--no-new-privileges", Some("no-new-privileges"))]
fn flags_of_docker_are_settings(#[case] flags: &str, #[case] left: Option<&str>) {
    let mut facts = lab();
    let words = flags.split_whitespace().map(str::to_owned);
    docker(&mut facts).service.exec_start.extend(words);
    if flags.contains("docker-runc") {
        engine(&mut facts).default_runtime = "docker-runc".into();
    }
    let found = of(&facts, &to_containerd(), "DockerSettingNotCarried");
    let subjects: Vec<Option<&str>> = found.iter().map(|finding| finding.subject.as_deref()).collect();
    assert_eq!(
        subjects,
        left.map(Some).into_iter().collect::<Vec<_>>(),
        "{found:?}"
    );
    assert_eq!(about(&facts, &to_containerd(), "selinux-enabled"), []);
    assert_eq!(about(&facts, &to_containerd(), "live-restore"), []);
}

#[test]
fn another_data_root_is_told_with_both_places_in_numbers() {
    let mut facts = lab();
    engine(&mut facts).data_root = path("/data/docker");
    daemon_json(&mut facts, r#"{"data-root": "/data/docker"}"#);
    let below = |at: &str| facts.disks.iter().find(|disk| disk.path.as_str() == at).cloned();
    let mut disk = below("/var/lib/containerd")
        .or_else(|| below("/var/lib"))
        .unwrap();
    (disk.path, disk.total, disk.free) = (path("/data/docker"), 100 << 30, 80 << 30);
    facts.disks.push(disk);
    let finding = one_about(&facts, &to_containerd(), "data-root");
    assert_eq!(finding.code, "DockerSettingCarried", "{finding:?}");
    facts.disks.last_mut().unwrap().device += 1;
    let finding = one_about(&facts, &to_containerd(), "data-root");
    assert_eq!(finding.code, "DockerSettingApproximated");
    let both = "/data/docker (80 GiB of 100 GiB free)";
    assert!(
        finding.message.contains(both) && finding.message.contains("/var/lib/containerd ("),
        "{finding:?}"
    );
}

/// The store of a containerd that has never run lies beside Docker's, on the file system that has the room.
#[test]
fn an_empty_store_of_containerd_goes_where_docker_has_the_room() {
    let fresh = || {
        let mut facts = lab();
        on_a_disk_of_its_own(&mut facts, "/data/containerd");
        let containerd = facts.containerd.as_mut().unwrap();
        containerd.service.active = "inactive".to_owned();
        facts.empty_stores.push(path("/var/lib/containerd"));
        facts
    };
    let fate = |facts: &Facts| one_about(facts, &to_containerd(), "data-root").code;
    let (carried, told) = ("DockerSettingCarried", "DockerSettingApproximated");
    let facts = fresh();
    assert_eq!(fate(&facts), carried);
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(config.contains("\nroot = \"/data/containerd\"\n"), "{config}");
    let outcome = plan(&facts, &to_containerd());
    let mut found = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .filter_map(|step| match &step.does {
            Step::Images(images) => Some(images.layers.clone()),
            _ => None,
        });
    assert!(matches!(
        found.next().unwrap(),
        transship::plan::step::Layers::Linked { .. }
    ));

    // Docker's containers run on it.
    let mut facts = fresh();
    facts.containerd.as_mut().unwrap().service.active = "active".to_owned();
    assert_eq!(fate(&facts), told);
    assert!(
        !written(&facts, &to_containerd(), CONFIG)
            .unwrap()
            .contains("root =")
    );
    // Somebody's images are in it; or in the new place.
    for taken in ["/var/lib/containerd", "/data/containerd"] {
        let mut facts = fresh();
        facts.empty_stores.retain(|empty| empty.as_str() != taken);
        assert_eq!(fate(&facts), told, "{taken}");
    }
    // The directory above it is on another file system, or smaller.
    let mut facts = fresh();
    facts
        .disks
        .iter_mut()
        .filter(|disk| disk.path.as_str() == "/data/containerd")
        .for_each(|disk| disk.device += 1);
    assert_eq!(fate(&facts), told);
    let mut facts = fresh();
    facts
        .disks
        .iter_mut()
        .filter(|disk| disk.path.as_str().starts_with("/data"))
        .for_each(|disk| disk.total = 1);
    assert_eq!(fate(&facts), told);
    // It would not have the labels.
    let mut facts = fresh();
    daemon_json(
        &mut facts,
        r#"{"data-root": "/data/docker", "selinux-enabled": true}"#,
    );
    assert_eq!(fate(&facts), told);
}

/// As much as under Docker, where the kubelet has nothing of its own and the user asks for it.
#[rstest]
#[case::the_same(r#"{"max-size": "100m", "max-file": "3"}"#, "", Some(("100M", 3)), "DockerSettingCarried")]
#[case::one_file(r#"{"max-size": "10m"}"#, "", Some(("5M", 2)), "DockerSettingApproximated")]
#[case::of_its_own(
    r#"{"max-size": "10m"}"#,
    "containerLogMaxFiles: 9\n",
    None,
    "DockerSettingApproximated"
)]
fn the_kubelet_keeps_as_much_of_logs_as_docker(
    #[case] options: &str,
    #[case] own: &str,
    #[case] limits: Option<(&str, u64)>,
    #[case] code: &str,
) {
    let mut facts = lab();
    daemon_json(&mut facts, &format!(r#"{{"log-opts": {options}}}"#));
    let config = kubelet(&mut facts).config.as_mut().unwrap();
    *config = file(config.path.as_str(), &format!("{}{own}", config.text));
    let at = config.path.to_string();
    assert_eq!(about(&facts, &to_containerd(), "log-opts"), []);
    assert_eq!(written(&facts, &to_containerd(), &at), None, "nobody asked");
    let mut request = to_containerd();
    request.target.keep_log_limits = true;
    assert_eq!(one_about(&facts, &request, "log-opts").code, code);
    let lines = limits
        .map(|(size, files)| format!("containerLogMaxSize: \"{size}\"\ncontainerLogMaxFiles: {files}\n"));
    let text = written(&facts, &request, &at);
    let ends = text
        .as_deref()
        .zip(lines.as_deref())
        .is_some_and(|(text, lines)| text.ends_with(lines));
    assert_eq!(ends, limits.is_some(), "{text:?}");
    // Nothing shrinks where it is carried whole.
    if limits.is_some() {
        assert_eq!(of(&facts, &request, "LogsShrink"), []);
        assert_eq!(of(&facts, &request, "LogsMove").len(), 1);
    }
}

/// A kubelet whose settings are all flags.
#[test]
fn log_limits_of_a_kubelet_without_a_file_are_flags() {
    let mut facts = fixtures::named("centos7-plain-unit-1.22-cgroupfs");
    kubelet(&mut facts).config = None;
    daemon_json(
        &mut facts,
        r#"{"log-opts": {"max-size": "20m", "max-file": "4"}}"#,
    );
    let mut request = to_containerd();
    request.target.keep_log_limits = true;
    let text = drop_in(&facts, &request, "kubelet.service").unwrap();
    assert!(
        text.contains("--container-log-max-size=20M --container-log-max-files=4"),
        "{text}"
    );
}

/// The page for users says of each setting what the planner does.
#[test]
fn the_page_about_settings_is_true() {
    let page = include_str!("../../../docs/docker-settings.md");
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let mut seen = 0;
    for row in rows {
        let cells: Vec<&str> = row.trim_matches(['|', ' ']).split(" | ").collect();
        let [name, example, _, code] = cells.as_slice() else {
            panic!("{row}")
        };
        let plain = |cell: &str| cell.trim_matches('`').to_owned();
        let (name, example, code) = (plain(name), plain(example), plain(code));
        let mut facts = lab();
        daemon_json(&mut facts, &format!("{{{name:?}: {example}}}"));
        let found = about(&facts, &to_containerd(), &name);
        let codes: Vec<&str> = found.iter().map(|finding| finding.code.as_str()).collect();
        let wanted = Some(code.as_str()).filter(|code| *code != "–");
        assert_eq!(codes, wanted.into_iter().collect::<Vec<_>>(), "{row}");
        seen += 1;
    }
    assert!(seen > 15, "{seen}");
}

/// The flags came with 23.0.
#[test]
fn proxies_of_flags_come_along() {
    let mut facts = lab();
    docker(&mut facts)
        .service
        .exec_start
        .push("--http-proxy=http://proxy.example:3128".to_owned());
    let text = drop_in(&facts, &to_containerd(), "containerd.service").unwrap();
    assert!(text.contains("HTTP_PROXY=http://proxy.example:3128"), "{text}");
    assert_eq!(
        one_about(&facts, &to_containerd(), "proxies").code,
        "DockerSettingCarried"
    );
    // An empty one of the file changes nothing.
    daemon_json(&mut facts, r#"{"proxies": {"http-proxy": ""}}"#);
    let same = drop_in(&facts, &to_containerd(), "containerd.service").unwrap();
    assert_eq!(same, text);
}

/// A shim of runc's kind without a program of its own runs runc.
#[test]
fn a_shim_of_runc_gets_no_other_program() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let daemon = json!({ "runtimes": { "r2": { "runtimeType": "io.containerd.runc.v2", "options": { "Root": "/run/r2" } } } });
    daemon_json(&mut facts, &daemon.to_string());
    let config = written(&facts, &to_containerd(), CONFIG).unwrap();
    let (_, options) = config.split_once(".runtimes.r2.options]\n").unwrap();
    assert!(
        options.starts_with("Root = \"/run/r2\"\nSystemdCgroup = true\n"),
        "{config}"
    );
}
