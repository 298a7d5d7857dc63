//! Settings of containerd and CRI-O that other runtimes have in another way, or not at all: none is dropped in silence.

use super::{
    crio::{self, CRIO_CONF, REGISTRIES, on_crio, with_crio},
    *,
};

const CARRIED: &str = "SettingCarried";
const NEAR: &str = "SettingApproximated";
const LEFT: &str = "SettingNotCarried";
const SHIM: &str = "/opt/kata/bin/containerd-shim-kata-v2";
const CONFIG_OF_SHIM: &str = "/opt/kata/configuration.toml";

fn on_containerd(lines: &str) -> Facts {
    let mut facts = crio::on_containerd();
    let image = "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"registry.k8s.io/pause:3.10.2\"\n";
    facts.containerd.as_mut().unwrap().effective = Some(format!("version = 3\n{image}{lines}"));
    facts
}

fn from_containerd() -> Request {
    let mut request = fixtures::from_archive(Runtime::CriO);
    request.preflight.allow = vec!["NftMissing".to_owned()];
    request
}

fn on_set_up_crio(lines: &str) -> Facts {
    let mut facts = on_crio();
    let image = "[crio.image]\npause_image = \"registry.k8s.io/pause:3.6\"\n";
    facts.crio.as_mut().unwrap().effective = Some(format!("{image}{lines}"));
    facts
}

fn codes(facts: &Facts, request: &Request, subject: &str) -> Vec<String> {
    let found = about(facts, request, subject).into_iter();
    found.map(|finding| finding.code).collect()
}

/// As kata-deploy writes it.
const KATA: &str = r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata]
runtime_type = "io.containerd.kata.v2"
runtime_path = "/opt/kata/bin/containerd-shim-kata-v2"
privileged_without_host_devices = true
pod_annotations = ["io.katacontainers.*"]
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.kata.options]
ConfigPath = "/opt/kata/configuration.toml"
TypeUrl = ""
"#;

#[test]
fn a_shim_of_kata_comes_along_to_cri_o() {
    let mut facts = on_containerd(KATA);
    let remedy = |facts: &Facts| one_about(facts, &from_containerd(), "runtimes.kata").remedy;
    // CRI-O ends where one of them is missing.
    assert!(
        remedy(&facts).contains("containerd-shim-kata-v2"),
        "{}",
        remedy(&facts)
    );
    facts.crio_programs.insert(SHIM.to_owned(), path(SHIM));
    assert!(remedy(&facts).contains(CONFIG_OF_SHIM), "{}", remedy(&facts));
    facts
        .crio_programs
        .insert(CONFIG_OF_SHIM.to_owned(), path(CONFIG_OF_SHIM));
    assert_eq!(codes(&facts, &from_containerd(), "runtimes.kata"), [CARRIED]);
    let text = written(&facts, &from_containerd(), CRIO_CONF).unwrap();
    let table = "[crio.runtime.runtimes.kata]\nruntime_path = \"/opt/kata/bin/containerd-shim-kata-v2\"\nruntime_root = \"/run/vc\"\n\
                 runtime_type = \"vm\"\nruntime_config_path = \"/opt/kata/configuration.toml\"\n\
                 privileged_without_host_devices = true\n";
    assert!(text.contains(table), "{text}");
    // Without its path it is looked for.
    let mut facts = on_containerd(&KATA.replace("runtime_path", "other"));
    let there = "/usr/local/bin/containerd-shim-kata-v2";
    for (name, at) in [
        ("containerd-shim-kata-v2", there),
        (CONFIG_OF_SHIM, CONFIG_OF_SHIM),
    ] {
        facts.crio_programs.insert(name.to_owned(), path(at));
    }
    assert!(
        written(&facts, &from_containerd(), CRIO_CONF)
            .unwrap()
            .contains(there)
    );
    // A shim of the first version, and options that are not CRI-O's.
    let first = on_containerd(&KATA.replace("io.containerd.kata.v2", "io.containerd.kata.v1"));
    assert_eq!(codes(&first, &from_containerd(), "runtimes.kata"), [LEFT]);
    let other = KATA.replace("TypeUrl = \"\"", "Root = \"/run/kata\"");
    let mut other = on_containerd(&other);
    other.crio_programs.insert(SHIM.to_owned(), path(SHIM));
    assert!(
        one_about(&other, &from_containerd(), "runtimes.kata")
            .remedy
            .contains("options")
    );
}

/// Docker names it by its type.
#[test]
fn a_shim_of_kata_comes_along_from_docker_to_cri_o() {
    let mut facts = with_crio();
    daemon_json(
        &mut facts,
        r#"{"runtimes": {"kata": {"runtimeType": "io.containerd.kata.v2"}}}"#,
    );
    let there = "/usr/bin/containerd-shim-kata-v2";
    docker(&mut facts)
        .runtime_programs
        .insert("containerd-shim-kata-v2".to_owned(), path(there));
    let text = written(&facts, &crio::to_crio(), CRIO_CONF).unwrap();
    assert!(
        text.contains(&format!("runtime_path = {there:?}\n")) && text.contains("runtime_type = \"vm\"\n"),
        "{text}"
    );
}

#[test]
fn a_shim_of_kata_comes_along_from_cri_o_to_containerd() {
    let lines = "[crio.runtime.runtimes.kata]\nruntime_path = \"/opt/kata/bin/containerd-shim-kata-v2\"\nruntime_type = \"vm\"\n\
                 runtime_config_path = \"/opt/kata/configuration.toml\"\nprivileged_without_host_devices = true\n";
    let text = written(&on_set_up_crio(lines), &to_containerd(), CONFIG).unwrap();
    let start = "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata";
    let table = format!(
        "{start}]\nruntime_type = \"io.containerd.kata.v2\"\nruntime_path = {SHIM:?}\nprivileged_without_host_devices = true\n\n\
         {start}.options]\nConfigPath = {CONFIG_OF_SHIM:?}\n"
    );
    assert!(text.contains(&table), "{text}");
    // Where programs are looked for, its type is enough.
    let lines = lines.replace("/opt/kata/bin/", "/usr/bin/");
    let text = written(&on_set_up_crio(&lines), &to_containerd(), CONFIG).unwrap();
    assert!(
        text.contains("io.containerd.kata.v2") && !text.contains("runtime_path"),
        "{text}"
    );
}

/// As gVisor's manual writes it (`docs/user_guide/containerd/configuration.md`).
const GVISOR: &str = r#"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]
runtime_type = "io.containerd.runsc.v1"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc.options]
TypeUrl = "io.containerd.runsc.v1.options"
ConfigPath = "/etc/containerd/runsc.toml"
"#;

/// CRI-O calls its program itself, without the configuration of the shim.
#[test]
fn gvisor_comes_along_to_cri_o_as_a_program() {
    let mut facts = on_containerd(GVISOR);
    let told = one_about(&facts, &from_containerd(), "runtimes.runsc");
    assert!(told.code == LEFT && told.remedy.contains("runsc"), "{told:?}");
    facts
        .crio_programs
        .insert("runsc".to_owned(), path("/usr/local/bin/runsc"));
    let told = one_about(&facts, &from_containerd(), "runtimes.runsc");
    assert!(
        told.code == NEAR && told.message.contains("/etc/containerd/runsc.toml"),
        "{told:?}"
    );
    assert!(told.remedy.contains("\"handler\":\"runsc\""), "{told:?}");
    let table = "[crio.runtime.runtimes.runsc]\nruntime_path = \"/usr/local/bin/runsc\"\nruntime_root = \"/run/runsc\"\n";
    let text = written(&facts, &from_containerd(), CRIO_CONF).unwrap();
    assert!(text.contains(table) && !text.contains("\"vm\""), "{text}");
    let plain = facts.containerd.as_mut().unwrap().effective.as_mut().unwrap();
    *plain = plain.replace("ConfigPath", "TypeUrl2");
    assert_eq!(
        codes(&facts, &from_containerd(), "runtimes.runsc"),
        [LEFT],
        "another option"
    );
    let plain = facts.containerd.as_mut().unwrap().effective.as_mut().unwrap();
    *plain = plain.replace("TypeUrl2 = \"/etc/containerd/runsc.toml\"\n", "");
    assert_eq!(codes(&facts, &from_containerd(), "runtimes.runsc"), [CARRIED]);
}

/// Docker calls its program too, and has no shim of it.
#[test]
fn gvisor_comes_along_from_docker_to_cri_o() {
    let mut facts = with_crio();
    daemon_json(
        &mut facts,
        r#"{"runtimes": {"runsc": {"path": "/usr/local/bin/runsc"}}}"#,
    );
    let there = "/usr/local/bin/runsc";
    docker(&mut facts)
        .runtime_programs
        .insert(there.to_owned(), path(there));
    let text = written(&facts, &crio::to_crio(), CRIO_CONF).unwrap();
    assert!(text.contains(&format!("runtime_path = {there:?}\n")), "{text}");
}

#[test]
fn gvisor_comes_along_from_cri_o_to_containerd_with_its_shim() {
    let lines =
        "[crio.runtime.runtimes.runsc]\nruntime_path = \"/usr/local/bin/runsc\"\nruntime_type = \"oci\"\n";
    let mut facts = on_set_up_crio(lines);
    let told = one_about(&facts, &to_containerd(), "runtimes.runsc");
    assert!(told.remedy.contains("containerd-shim-runsc-v1"), "{told:?}");
    let shim = "containerd-shim-runsc-v1";
    facts
        .crio_programs
        .insert(shim.to_owned(), path("/usr/local/bin/containerd-shim-runsc-v1"));
    let text = written(&facts, &to_containerd(), CONFIG).unwrap();
    assert!(
        text.contains("runtime_type = \"io.containerd.runsc.v1\"")
            && !text.contains("BinaryName = \"/usr/local/bin/runsc\""),
        "{text}"
    );
}

/// A path of the API is one of the name of an image where it stands after `/v2`.
#[test]
fn mirrors_with_a_path_come_along_between_containerd_and_cri_o() {
    let lines = r#"
[plugins."io.containerd.cri.v1.images".registry.mirrors."docker.io"]
endpoint = ["https://m.example/v2/hub", "https://n.example/v2", "https://p.example/before/v2"]
"#;
    let facts = on_containerd(lines);
    let mut request = from_containerd();
    request.preflight.allow.push(LEFT.to_owned());
    let text = written(&facts, &request, REGISTRIES).unwrap();
    assert!(
        text.contains("location = \"m.example/hub\"\n")
            && text.contains("location = \"n.example\"\n")
            && !text.contains("p.example"),
        "{text}"
    );
    let mut found = codes(&facts, &from_containerd(), "registry-mirrors");
    found.sort_unstable();
    assert_eq!(found, [CARRIED, LEFT]);
    // Docker's mirrors have theirs before `/v2`.
    let told = format!("{:?}", about(&facts, &to_cri_dockerd(), "registry-mirrors"));
    assert!(told.contains("m.example/v2/hub"), "{told}");

    let mut facts = on_set_up_crio("");
    facts.registries_conf = vec![file(
        "/etc/containers/registries.conf",
        "[[registry]]\nlocation = \"docker.io\"\n[[registry.mirror]]\nlocation = \"m.example/hub\"\ninsecure = true\n",
    )];
    let hosts = written(
        &facts,
        &to_containerd(),
        "/etc/containerd/certs.d/docker.io/hosts.toml",
    )
    .unwrap();
    let tables = "[host.\"https://m.example/v2/hub\"]\n  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n  \
                  skip_verify = true\n\n[host.\"http://m.example/v2/hub\"]\n";
    assert!(hosts.contains(tables), "{hosts}");
}

#[test]
fn each_setting_of_containerd_is_told() {
    let lines = r#"
[proxy_plugins.stargz]
type = "snapshot"
[plugins."io.containerd.cri.v1.images"]
snapshotter = "stargz"
[plugins."io.containerd.cri.v1.images".image_decryption]
key_model = ""
[plugins."io.containerd.grpc.v1.cri"]
stream_idle_timeout = "1h0m0s"
[plugins."io.containerd.cri.v1.runtime"]
device_ownership_from_security_context = true
cdi_spec_dirs = ["/srv/cdi"]
restrict_oom_score_adj = true
unset_seccomp_profile = "runtime/default"
[plugins."io.containerd.cri.v1.runtime".cni]
conf_template = "/etc/cni/template"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
snapshotter = "devmapper"
"#;
    let mut facts = on_containerd(lines);
    facts.containerd.as_mut().unwrap().upgrade.nri_plugins = vec!["10-log".to_owned()];
    for request in [from_containerd(), to_cri_dockerd()] {
        for subject in [
            "proxy_plugins",
            "snapshotter",
            "image_decryption.key_model",
            "stream_idle_timeout",
            "device_ownership_from_security_context",
            "cdi_spec_dirs",
            "restrict_oom_score_adj",
            "unset_seccomp_profile",
            "cni.conf_template",
            "runtimes.runc.snapshotter",
            "nri",
        ] {
            assert_eq!(codes(&facts, &request, subject), [NEAR], "{subject}");
        }
    }
}

#[test]
fn each_setting_of_cri_o_is_told() {
    let lines = r#"
[crio.runtime]
allowed_devices = [
	"/dev/kvm",
]
additional_devices = [
	"/dev/kvm:/dev/kvm:rwm",
]
hooks_dir = [
	"/srv/hooks",
]
pids_limit = 2048
default_mounts_file = "/etc/mounts"
seccomp_profile = "/etc/crio/seccomp.json"
[crio.runtime.runtimes.crun]
runtime_path = "/usr/bin/crun"
allowed_annotations = [
	"io.kubernetes.cri-o.userns-mode",
]
seccomp_profile = "/etc/crun.json"
"#;
    let mut facts = on_set_up_crio(lines);
    facts.registries_conf = vec![file(
        "/etc/containers/registries.conf",
        "unqualified-search-registries = [\"quay.io\"]\nshort-name-mode = \"permissive\"\n[aliases]\nfedora = \"r.example/fedora\"\n",
    )];
    for (subject, code) in [
        ("allowed_devices", NEAR),
        ("additional_devices", LEFT),
        ("hooks_dir", LEFT),
        ("pids_limit", NEAR),
        ("default_mounts_file", LEFT),
        ("seccomp_profile", LEFT),
        ("runtimes.crun.allowed_annotations", NEAR),
        ("runtimes.crun.seccomp_profile", LEFT),
        ("unqualified-search-registries", NEAR),
        ("aliases", NEAR),
    ] {
        assert_eq!(codes(&facts, &to_containerd(), subject), [code], "{subject}");
    }
    // Both in numbers.
    let limit = one_about(&facts, &to_containerd(), "pids_limit").message;
    assert!(
        limit.contains("2048") && limit.contains("podPidsLimit"),
        "{limit}"
    );
}
