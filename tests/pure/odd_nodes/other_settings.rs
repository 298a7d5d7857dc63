//! Settings of containerd and CRI-O where they are left: each one comes along or is told.

use transship::plan::facts::Limits;

use super::{
    crio::{self, CRIO_CONF, REGISTRIES, on_crio, to_crio},
    *,
};

/// A node on containerd 2.4 that somebody has set up, with these lines in its effective configuration.
fn on_containerd(lines: &str) -> Facts {
    let mut facts = crio::on_containerd();
    let containerd = facts.containerd.as_mut().unwrap();
    let image = "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"registry.k8s.io/pause:3.10.2\"\n";
    containerd.effective = Some(format!("version = 3\n{image}{lines}"));
    facts
}

fn from_containerd_to_crio() -> Request {
    let mut request = fixtures::from_archive(Runtime::CriO);
    request.preflight.allow = vec!["SettingNotCarried".to_owned(), "NftMissing".to_owned()];
    request
}

fn fates(facts: &Facts, request: &Request, subject: &str) -> Vec<String> {
    let found = about(facts, request, subject).into_iter();
    found.map(|finding| finding.code).collect()
}

const CARRIED: &str = "SettingCarried";
const NEAR: &str = "SettingApproximated";
const LEFT: &str = "SettingNotCarried";

const OLD_REGISTRIES: &str = r#"
[plugins."io.containerd.cri.v1.images"]
max_concurrent_downloads = 9
[plugins."io.containerd.cri.v1.images".registry.mirrors."docker.io"]
endpoint = ["https://m.example", "https://me:secret@n.example", "https://registry-1.docker.io"]
[plugins."io.containerd.cri.v1.images".registry.mirrors."r.example:5000"]
endpoint = ["http://r.example:5000"]
[plugins."io.containerd.cri.v1.images".registry.mirrors."*"]
endpoint = ["https://all.example"]
[plugins."io.containerd.cri.v1.images".registry.configs."s.example".auth]
username = "me"
password = "secret"
"#;

const OF_PODS: &str = r#"
[plugins."io.containerd.cri.v1.runtime"]
enable_selinux = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "nvidia"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
base_runtime_spec = "/etc/containerd/base.json"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nvidia.options]
BinaryName = "/usr/bin/nvidia-container-runtime"
CriuPath = ""
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
"#;

/// What CRI-O is given of a mirror of Docker Hub and a registry whose certificate is not checked.
const MIRROR_AND_INSECURE: &str = r#"# Written by Transship: the registries of containerd's configuration.

[[registry]]
location = "docker.io"

[[registry.mirror]]
location = "m.example"

[[registry]]
location = "r.example:5000"
insecure = true
"#;

#[test]
fn settings_of_containerd_come_along_to_cri_o() {
    let mut facts = on_containerd(&format!("{OLD_REGISTRIES}{OF_PODS}"));
    let service = &mut facts.containerd.as_mut().unwrap().service;
    service.environment = vec!["HTTPS_PROXY=http://proxy:3128".to_owned()];
    let request = from_containerd_to_crio();
    assert_eq!(
        written(&facts, &request, REGISTRIES).unwrap(),
        MIRROR_AND_INSECURE
    );
    let text = written(&facts, &request, CRIO_CONF).unwrap();
    for line in [
        "selinux = true\n",
        "default_runtime = \"nvidia\"\n",
        "net.ipv4.ip_unprivileged_port_start=0",
        "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let unit = drop_in(&facts, &request, "crio.service").unwrap();
    for line in ["HTTPS_PROXY=http://proxy:3128", "LimitNOFILE=1024:524288\n"] {
        assert!(unit.contains(line), "{unit}");
    }
    for (subject, wanted) in [
        ("proxies", &[CARRIED][..]),
        ("LimitNOFILE", &[CARRIED]),
        ("enable_selinux", &[CARRIED]),
        ("enable_unprivileged_ports", &[CARRIED]),
        ("runtimes.nvidia", &[CARRIED]),
        ("default_runtime_name", &[CARRIED]),
        ("insecure-registries", &[CARRIED]),
        // All registries cannot have a mirror, and a URL no user.
        ("registry-mirrors", &[LEFT, CARRIED]),
        ("registry-credentials", &[LEFT]),
        ("max_concurrent_downloads", &[NEAR]),
        ("disable_apparmor", &[NEAR]),
        ("runtimes.kata", &[LEFT]),
        ("runtimes.runc.base_runtime_spec", &[LEFT]),
        ("registry.configs.auth", &[CARRIED]),
    ] {
        let mut found = fates(&facts, &request, subject);
        found.sort_unstable_by_key(|code| code != LEFT);
        assert_eq!(found, wanted, "{subject}");
    }
    let all = findings(&facts, &request);
    assert!(!format!("{all:?}").contains("secret"));
}

/// As containerd 1.5 and later have them.
#[test]
fn files_for_registries_come_along_to_cri_o() {
    let lines = "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\"\n";
    let mut facts = on_containerd(lines);
    let directory = |host: &str, text: &str| RegistryDirectory {
        hosts: Some(Digest::of(text)),
        said: transship::edit::hosts_toml::read(text),
        ..registry(&format!("/etc/containerd/certs.d/{host}"), &["hosts.toml"])
    };
    facts.registry_directories = vec![
        directory(
            "docker.io",
            "server = \"https://registry-1.docker.io\"\n[host.\"https://m.example\"]\ncapabilities = [\"pull\"]\n",
        ),
        directory(
            "r.example_5000_",
            "[host.\"https://r.example:5000\"]\nskip_verify = true\n",
        ),
        directory(
            "s.example",
            "server = \"https://s.example\"\nca = \"/etc/s.crt\"\n",
        ),
        directory(
            "t.example",
            "[host.\"https://t.example\".header]\nauthorization = \"Basic secret\"\n",
        ),
    ];
    let request = from_containerd_to_crio();
    assert_eq!(
        written(&facts, &request, REGISTRIES).unwrap(),
        MIRROR_AND_INSECURE
    );
    assert_eq!(fates(&facts, &request, "registry-credentials"), [LEFT]);
    // Nobody has seen the file.
    let mut asked = request;
    asked.preflight.allow.clear();
    let certificates = about(&facts, &asked, "certs.d");
    assert!(
        certificates[0]
            .remedy
            .contains("/etc/s.crt to /etc/containers/certs.d/s.example/ca.crt"),
        "{certificates:?}"
    );
    let daemon = about(&facts, &to_cri_dockerd(), "registry-mirrors");
    assert!(
        daemon[0]
            .remedy
            .contains(r#""registry-mirrors":["https://m.example"]"#),
        "{daemon:?}"
    );
}

/// What somebody must solve blocks, one by one.
#[test]
fn a_setting_that_stays_in_containerd_blocks_until_it_is_accepted() {
    let facts = on_containerd(OF_PODS);
    let mut request = from_containerd_to_crio();
    request.preflight.allow = vec![
        "SettingNotCarried/runtimes.kata".to_owned(),
        "NftMissing".to_owned(),
    ];
    assert_eq!(blocking(&facts, &request), [LEFT]);
    request
        .preflight
        .allow
        .push("SettingNotCarried/runtimes.runc.base_runtime_spec".to_owned());
    assert_eq!(blocking(&facts, &request), [""; 0]);
}

/// Docker's file is the user's: what is to be written into it is told.
#[test]
fn settings_of_containerd_are_told_as_lines_for_docker() {
    let mut facts = on_containerd(&format!("{OLD_REGISTRIES}{OF_PODS}"));
    let service = &mut facts.containerd.as_mut().unwrap().service;
    service.environment = vec!["HTTPS_PROXY=http://me:pw@proxy:3128".to_owned()];
    let mut request = to_cri_dockerd();
    request.preflight.allow = vec!["SettingNotCarried".to_owned()];
    let remedy = |facts: &Facts, subject: &str| {
        let found = about(facts, &to_cri_dockerd(), subject).into_iter();
        found
            .map(|finding| format!("{} {}\n", finding.message, finding.remedy))
            .collect::<String>()
    };
    for (subject, line) in [
        (
            "proxies",
            r#""proxies":{"https-proxy":"(the same, with its password)"}"#,
        ),
        ("enable_selinux", r#""selinux-enabled":true"#),
        (
            "runtimes.nvidia",
            r#""runtimes":{"nvidia":{"path":"/usr/bin/nvidia-container-runtime"}}"#,
        ),
        (
            "runtimes.kata",
            r#""runtimes":{"kata":{"runtimeType":"io.containerd.kata.v2"}}"#,
        ),
        ("default_runtime_name", r#""default-runtime":"nvidia""#),
        ("registry-mirrors", r#""registry-mirrors":["https://m.example"]"#),
        (
            "insecure-registries",
            r#""insecure-registries":["r.example:5000"]"#,
        ),
        ("max_concurrent_downloads", r#""max-concurrent-downloads":9"#),
    ] {
        let found = remedy(&facts, subject);
        assert!(found.contains(line), "{subject}: {found}");
        assert!(!found.contains("pw@"), "{found}");
    }
    // Once they stand there, there is nothing to say.
    daemon_json(
        &mut facts,
        r#"{"selinux-enabled": true, "default-runtime": "nvidia", "insecure-registries": ["r.example:5000"],
            "runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}}}"#,
    );
    for subject in [
        "enable_selinux",
        "default_runtime_name",
        "runtimes.nvidia",
        "insecure-registries",
    ] {
        assert_eq!(fates(&facts, &request, subject), [""; 0], "{subject}");
    }
}

/// Docker has a setting by a flag as well as by its file, and not by both.
#[test]
fn what_docker_has_by_a_flag_is_not_told_as_missing() {
    let mut facts = on_containerd(&format!("{OLD_REGISTRIES}{OF_PODS}"));
    let flags = "/usr/bin/dockerd --registry-mirror=https://m.example --insecure-registry r.example:5000 --selinux-enabled \
                 --default-runtime=nvidia --max-concurrent-downloads=9 --add-runtime=nvidia=/usr/bin/nvidia-container-runtime";
    docker(&mut facts).service.exec_start = flags.split_whitespace().map(str::to_owned).collect();
    let mut request = to_cri_dockerd();
    request.preflight.allow = vec!["SettingNotCarried".to_owned()];
    let subjects = [
        "insecure-registries",
        "enable_selinux",
        "default_runtime_name",
        "runtimes.nvidia",
        "max_concurrent_downloads",
    ];
    for subject in subjects {
        assert_eq!(fates(&facts, &request, subject), [""; 0], "{subject}");
    }
    let mirrors = |facts: &Facts| format!("{:?}", about(facts, &to_cri_dockerd(), "registry-mirrors"));
    assert!(!mirrors(&facts).contains("m.example"), "{}", mirrors(&facts));
    // With another mirror by a flag, dockerd would not start with the key.
    docker(&mut facts).service.exec_start[1] = "--registry-mirror=https://other.example".to_owned();
    assert!(
        mirrors(&facts).contains("into the command of docker.service, as --registry-mirror"),
        "{}",
        mirrors(&facts)
    );
}

/// As somebody has set CRI-O up: what differs from its defaults is no comment.
const CHANGED: &str = r#"
[crio.runtime]
selinux = true
default_ulimits = [
	"nofile=2048:8192",
	"fsize=1000:1000",
]
default_sysctls = [
	"net.ipv4.ip_unprivileged_port_start=0",
	"net.ipv4.ping_group_range=0 2147483647",
	"kernel.shm_rmid_forced=1",
]
default_env = [
	"TOKEN=secret",
]
seccomp_profile = "/etc/crio/seccomp.json"
default_runtime = "fast"
unheard_of = true
# container_exits_dir = "/var/run/crio/exits"
default_capabilities = [
	"CHOWN",
	"SYS_PTRACE",
]
[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
[crio.runtime.runtimes.fast]
runtime_path = "/usr/bin/fast"
[crio.runtime.runtimes.kata]
runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
runtime_type = "vm"
[crio.image]
pause_image = "registry.k8s.io/pause:3.6"
insecure_registries = [
	"i.example",
]
"#;

fn on_set_up_crio() -> Facts {
    let mut facts = on_crio();
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some(CHANGED.to_owned());
    crio.service.environment = vec!["NO_PROXY=localhost".to_owned()];
    crio.service.limit_nofile = Limits { soft: 5, hard: 6 };
    facts.registries_conf = vec![file(
        "/etc/containers/registries.conf",
        "unqualified-search-registries = [\"quay.io\"]\n[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"m.example\"\n\
         [[registry]]\nlocation = \"bad.example\"\nblocked = true\n",
    )];
    facts.registry_directories = vec![registry("/etc/containers/certs.d/c.example", &["ca.crt"])];
    facts
}

#[test]
fn settings_of_cri_o_come_along_to_containerd() {
    let facts = on_set_up_crio();
    let mut request = to_containerd();
    request.preflight.allow = vec![LEFT.to_owned()];
    let config = written(&facts, &request, CONFIG).unwrap();
    for line in [
        "enable_selinux = true\n",
        "enable_unprivileged_ports = true\n",
        "default_runtime_name = \"fast\"\n",
        "BinaryName = \"/usr/bin/fast\"\n",
        "runtime_type = \"io.containerd.kata.v2\"\n",
        "config_path = \"/etc/containerd/certs.d\"\n",
    ] {
        assert!(config.contains(line), "{line}{config}");
    }
    let hosts = |host: &str| {
        written(
            &facts,
            &request,
            &format!("/etc/containerd/certs.d/{host}/hosts.toml"),
        )
        .unwrap()
    };
    assert!(hosts("docker.io").contains("[host.\"https://m.example\"]"));
    assert!(hosts("i.example").contains("skip_verify = true"));
    assert!(hosts("c.example").contains("ca = \"/etc/containers/certs.d/c.example/ca.crt\""));
    let unit = drop_in(&facts, &request, "containerd.service").unwrap();
    for line in [
        "NO_PROXY=localhost",
        "LimitNOFILE=2048:8192\n",
        "what crio.service gave",
    ] {
        assert!(unit.contains(line), "{unit}");
    }
    for (subject, wanted) in [
        ("proxies", &[CARRIED][..]),
        ("selinux", &[CARRIED]),
        ("default_ulimits", &[NEAR]),
        ("default_sysctls", &[LEFT, CARRIED]),
        ("default_env", &[LEFT]),
        ("seccomp_profile", &[LEFT]),
        ("default_capabilities", &[LEFT]),
        ("runtimes.fast", &[CARRIED]),
        ("runtimes.kata", &[CARRIED]),
        ("default_runtime", &[CARRIED]),
        ("unheard_of", &[NEAR]),
        ("registry-mirrors", &[CARRIED]),
        ("insecure-registries", &[CARRIED]),
        ("registries.conf", &[LEFT]),
        ("unqualified-search-registries", &[NEAR]),
        ("runtimes.crun", &[]),
        ("LimitNOFILE", &[]),
    ] {
        let mut found = fates(&facts, &request, subject);
        found.sort_unstable_by_key(|code| code != LEFT);
        assert_eq!(found, wanted, "{subject}");
    }
    assert!(!format!("{:?}", findings(&facts, &request)).contains("secret"));
    assert_eq!(of(&facts, &request, "RegistryCertificates"), []);
}

/// As Kubespray writes Docker Hub, and a registry that has moved; what containerd has no counterpart for has a remedy.
#[test]
fn registries_that_are_elsewhere_come_along_to_containerd() {
    let mut facts = on_crio();
    let text = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"registry-1.docker.io\"\n[[registry]]\nprefix = \"old.example\"\n\
                location = \"new.example:5000/old\"\ninsecure = true\n[[registry]]\nprefix = \"gone.example\"\nlocation = \"here.example\"\n\
                [[registry.mirror]]\nlocation = \"m.example\"\n";
    facts.registries_conf = vec![file("/etc/containers/registries.conf", text)];
    let request = to_containerd();
    assert_eq!(fates(&facts, &request, "registries.conf"), [CARRIED]);
    assert_eq!(fates(&facts, &request, "registry-mirrors"), [CARRIED]);
    let hosts = |host: &str| {
        let at = format!("/etc/containerd/certs.d/{host}/hosts.toml");
        written(&facts, &request, &at)
    };
    assert_eq!(hosts("docker.io"), None);
    let old = "server = \"https://new.example:5000/v2/old\"\noverride_path = true\n\n\
               [host.\"https://new.example:5000/v2/old\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  \
               skip_verify = true\n\n[host.\"http://new.example:5000/v2/old\"]\n";
    let found = hosts("old.example").unwrap();
    assert!(found.contains(old), "{found}");
    let found = hosts("gone.example").unwrap();
    let gone = "server = \"https://here.example\"\n\n[host.\"https://m.example\"]\n  capabilities = [\"pull\", \"resolve\"]\n\n\
                [host.\"https://here.example\"]\n";
    assert!(found.contains(gone), "{found}");
    let text = "[[registry]]\nprefix = \"*.w.example\"\nlocation = \"w.example\"\n[[registry]]\nprefix = \"q.example/part\"\nlocation = \"r.example/part\"\n";
    facts.registries_conf = vec![file("/etc/containers/registries.conf", text)];
    let told = &about(&facts, &request, "registries.conf")[0].remedy;
    for remedy in [
        "name each one whose images pods use",
        "let pods name r.example/part",
    ] {
        assert!(told.contains(remedy), "{told}");
    }
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-o");
    let text = "[[registry]]\nprefix = \"gone.example\"\nlocation = \"here.example\"\n";
    facts.registries_conf = vec![file("/etc/containers/registries.conf", text)];
    let docker = about(&facts, &fixtures::to(Runtime::CriDockerd), "registries.conf");
    assert!(docker[0].remedy.contains("https://here.example"), "{docker:?}");
}

/// Settings of containerd's for all registries without settings of their own cannot be said to another runtime.
#[test]
fn what_is_for_all_registries_is_told() {
    let lines =
        "[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    let mut facts = on_containerd(lines);
    let mut of_all = registry("/etc/containerd/certs.d/_default", &["hosts.toml"]);
    let text = "skip_verify = true\nca = \"/etc/all.crt\"\n[host.\"https://m.example\"]\ncapabilities = [\"pull\"]\n";
    of_all.said = transship::edit::hosts_toml::read(text);
    // Without a server its own settings are those of the registry itself.
    let mut own = registry("/etc/containerd/certs.d/s.example", &["hosts.toml"]);
    own.said = transship::edit::hosts_toml::read("skip_verify = true\n");
    facts.registry_directories = vec![of_all, own];
    let request = from_containerd_to_crio();
    assert_eq!(fates(&facts, &request, "registry-mirrors"), [LEFT]);
    assert_eq!(fates(&facts, &request, "certs.d"), [LEFT]);
    assert_eq!(fates(&facts, &request, "insecure-registries"), [LEFT, CARRIED]);
    let conf = written(&facts, &request, REGISTRIES).unwrap();
    assert!(
        conf.contains("location = \"s.example\"\ninsecure = true\n"),
        "{conf}"
    );
    assert!(!conf.contains("_default"), "{conf}");
}

/// What CRI-O's packages bring says nothing that pods would miss, but for the capabilities that they get more of.
#[test]
fn a_cri_o_as_it_is_installed_is_left_without_a_word() {
    let mut facts = on_crio();
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some(include_str!("../../fuzz/crio-conf/printed-1.34.0.toml").to_owned());
    let subjects = |request: &Request| -> Vec<String> {
        let all = findings(&facts, request)
            .into_iter()
            .filter(|finding| finding.code.starts_with("Setting"));
        all.filter_map(|finding| finding.subject).collect()
    };
    assert_eq!(subjects(&to_containerd()), ["default_capabilities"]);
    let mut request = to_cri_dockerd();
    request.preflight.allow = vec![LEFT.to_owned()];
    // cri-dockerd is not installed there.
    assert_eq!(subjects(&request), [""; 0]);
    // The other way none of them is read.
    assert!(
        !findings(&crio::with_crio(), &to_crio())
            .iter()
            .any(|finding| finding.code.starts_with("Setting"))
    );
}
