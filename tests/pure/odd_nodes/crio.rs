//! CRI-O as the target and as the source.

use serde_json::json;
use transship::plan::facts::{CriFacts, Crio, MaybeFile, UnitFacts};

use super::*;

pub(super) const CRIO_CONF: &str = "/etc/crio/crio.conf.d/zz-transship.conf";
pub(super) const REGISTRIES: &str = "/etc/containers/registries.conf.d/zz-transship.conf";

/// The node of the lab with CRI-O next to Docker, as upstream's packages install it.
pub(super) fn with_crio() -> Facts {
    let mut facts = lab();
    let unit = |name: &str, boot: &str| UnitFacts {
        name: name.to_owned(),
        load: "loaded".to_owned(),
        active: "inactive".to_owned(),
        boot: boot.to_owned(),
        exec_start: vec!["/usr/bin/crio".to_owned()],
        ..UnitFacts::default()
    };
    let maybe = |at: &str| MaybeFile {
        path: path(at),
        file: None,
    };
    facts.crio = Some(Crio {
        service: unit("crio.service", "disabled"),
        version: "1.23.5".to_owned(),
        effective: Some(include_str!("../../fuzz/crio-conf/printed-1.34.0.toml").to_owned()),
        endpoint: path("/run/crio/crio.sock"),
        cri: None,
        store: None,
        config: maybe(CRIO_CONF),
        drop_in: maybe("/etc/systemd/system/crio.service.d/zz-transship.conf"),
        policy: None,
        namespace_policies: Vec::new(),
        wipe: UnitFacts::default(),
    });
    let mut disk = facts.disks[0].clone();
    disk.path = path("/var/lib/containers/storage");
    facts.disks.push(disk);
    let programs = ["conmon", "crun", "nft", "pinns", "runc"];
    facts.crio_programs = programs
        .map(|name| (name.to_owned(), path(&format!("/usr/bin/{name}"))))
        .into();
    facts
}

/// A control plane on containerd that is ready for CRI-O.
pub(super) fn on_containerd() -> Facts {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.crio_programs = with_crio().crio_programs;
    let mut disk = facts.disks[0].clone();
    for name in ["/var/lib/containerd", "/var/lib/containers/storage"] {
        disk.path = path(name);
        facts.disks.push(disk.clone());
    }
    facts
}

pub(super) fn to_crio() -> Request {
    let mut request = fixtures::to(Runtime::CriO);
    request.preflight.allow = vec!["DockerSettingNotCarried".to_owned()];
    request
}

#[test]
fn docker_can_be_left_for_cri_o() {
    let facts = with_crio();
    assert_eq!(blocking(&facts, &to_crio()), [""; 0]);
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    for line in [
        "pause_image = \"registry.k8s.io/pause:3.6\"\n",
        "cgroup_manager = \"systemd\"\n",
        "plugin_dirs = [\"/opt/cni/bin\"]\n",
        // What Docker gives every container.
        "\"NET_RAW\", ",
        "\"net.ipv4.ip_unprivileged_port_start=0\"",
        // It limited the number of processes itself before 1.26.
        "pids_limit = -1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(
        !text.contains("default_runtime") && !text.contains("signature_policy"),
        "{text}"
    );
}

/// The bundle names crun; nobody has installed it.
#[test]
fn runc_serves_where_the_runtime_of_the_configuration_is_missing() {
    let mut facts = with_crio();
    facts.crio_programs.remove("crun");
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some("[crio.runtime]\n# default_runtime = \"crun\"\n".to_owned());
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    for line in [
        "default_runtime = \"runc\"\n",
        "[crio.runtime.runtimes.runc]\nruntime_path = \"/usr/bin/runc\"\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
}

/// What a plan has written is a part of what CRI-O prints at the next one.
#[test]
fn a_second_plan_keeps_what_the_first_one_wrote() {
    let mut facts = with_crio();
    facts.crio_programs.remove("crun");
    let printed = "[crio.runtime]\n# default_runtime = \"crun\"\n";
    facts.crio.as_mut().unwrap().effective = Some(printed.to_owned());
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some(format!("{printed}{text}"));
    crio.config.file = Some(file(CRIO_CONF, &text));
    assert_eq!(written(&facts, &to_crio(), CRIO_CONF), None);
}

#[test]
fn a_node_without_nft_is_refused_for_releases_that_call_it() {
    let mut facts = with_crio();
    facts.crio_programs.remove("nft");
    assert_eq!(of(&facts, &to_crio(), "NftMissing"), []);
    let mut request = fixtures::from_archive(Runtime::CriO);
    assert_eq!(one(&facts, &request, "NftMissing").severity, Severity::Block);
    request.preflight.allow = vec!["NftMissing".to_owned()];
    assert_eq!(one(&facts, &request, "NftMissing").severity, Severity::Warn);
}

#[test]
fn containerd_is_not_stopped_and_that_is_told() {
    let mut facts = on_containerd();
    let request = fixtures::from_archive(Runtime::CriO);
    let found = one(&facts, &request, "ContainerdRunsOn");
    assert!(
        found
            .remedy
            .contains("systemctl disable --now containerd.service"),
        "{found:?}"
    );
    // Docker's, which is left too.
    one(&with_crio(), &to_crio(), "ContainerdRunsOn");
    facts.containerd.as_mut().unwrap().service.active = "inactive".to_owned();
    assert_eq!(of(&facts, &request, "ContainerdRunsOn"), []);
}

#[test]
fn the_unit_that_removes_images_is_disabled_and_named() {
    let mut facts = with_crio();
    assert_eq!(of(&facts, &to_crio(), "CrioWipe"), []);
    facts.crio.as_mut().unwrap().wipe = UnitFacts {
        name: "crio-wipe.service".to_owned(),
        load: "loaded".to_owned(),
        boot: "enabled".to_owned(),
        ..UnitFacts::default()
    };
    one(&facts, &to_crio(), "CrioWipe");
    let outcome = plan(&facts, &to_crio());
    let words = outcome.plan().unwrap().words().join("\n");
    assert!(words.contains("crio-wipe.service"), "{words}");
}

/// Its start would cost the pods of containerd their network, and those of Docker where the plugins collect garbage: it starts with a
/// copy of the pod network that forbids that, and has the real one when they have ended.
#[test]
fn pods_keep_their_network_until_they_have_ended() {
    const PART: &str = "/etc/crio/crio.conf.d/zzz-transship-until-switch.conf";
    const NETWORK: &str = "/var/lib/transship/cni/10-until-switch.conflist";
    let with_version = |facts: &mut Facts, version: &str| {
        let config = &mut facts.cni.configs[0];
        let mut value: serde_json::Value = serde_json::from_str(&config.text).unwrap();
        value["cniVersion"] = version.into();
        *config = file(config.path.as_str(), &value.to_string());
    };
    let containerd = on_containerd();
    let mut docker = with_crio();
    assert_eq!(written(&docker, &to_crio(), PART), None, "its pods are safe");
    with_version(&mut docker, "1.1.0");
    for (facts, request) in [
        (containerd, fixtures::from_archive(Runtime::CriO)),
        (docker, to_crio()),
    ] {
        let part = written(&facts, &request, PART).unwrap();
        assert!(
            part.contains("network_dir = \"/var/lib/transship/cni\"\n"),
            "{part}"
        );
        let network: serde_json::Value =
            serde_json::from_str(&written(&facts, &request, NETWORK).unwrap()).unwrap();
        let real: serde_json::Value = serde_json::from_str(&facts.cni.configs[0].text).unwrap();
        assert_eq!(network["disableGC"], true);
        assert_eq!(network["name"], real["name"]);
        assert_eq!(network["plugins"], real["plugins"]);
        let words = plan(&facts, &request).plan().unwrap().words();
        let at = |wanted: &str| words.iter().position(|words| words.contains(wanted)).unwrap();
        let order = [
            at(&format!("Create {PART}")),
            at("enable crio.service"),
            at("End the pods of"),
            at(&format!("Remove {PART}")),
            at(&format!("Remove {NETWORK}")),
            at("Start the kubelet"),
        ];
        assert!(order.is_sorted(), "{order:?} {words:#?}");
    }
}

/// A rollback would restart it with the real pod network, and without a configuration there is nothing to copy.
#[test]
fn pods_that_would_lose_their_network_are_told_how_to_keep_it() {
    let code = "PodsLoseNetwork";
    let mut facts = on_containerd();
    facts.crio = with_crio().crio;
    let request = fixtures::to(Runtime::CriO);
    assert_eq!(of(&facts, &request, code), []);
    facts.crio.as_mut().unwrap().service.active = "active".to_owned();
    assert!(
        one(&facts, &request, code)
            .remedy
            .contains("disable --now crio.service")
    );
    facts.crio.as_mut().unwrap().service.active = "inactive".to_owned();
    facts.cni.configs.clear();
    one(&facts, &request, code);
}

/// A file with one plugin is written as a list, which has a place for the word.
#[test]
fn a_pod_network_of_one_plugin_is_copied_as_a_list() {
    let mut facts = on_containerd();
    let list: serde_json::Value = serde_json::from_str(&facts.cni.configs[0].text).unwrap();
    let mut plugin = list["plugins"][0].clone();
    plugin["cniVersion"] = list["cniVersion"].clone();
    plugin["name"] = list["name"].clone();
    facts.cni.configs = vec![file("/etc/cni/net.d/10-one.conf", &plugin.to_string())];
    let name = "/var/lib/transship/cni/10-until-switch.conflist";
    let text = written(&facts, &fixtures::from_archive(Runtime::CriO), name).unwrap();
    let network: serde_json::Value = serde_json::from_str(&text).unwrap();
    let wanted = json!({
        "cniVersion": list["cniVersion"],
        "name": list["name"],
        "plugins": [plugin],
        "disableGC": true,
    });
    assert_eq!(network, wanted);
}

/// Without its images there would be no way back after a power cut.
#[test]
fn its_images_stay_when_it_is_left() {
    let wipe = UnitFacts {
        name: "crio-wipe.service".to_owned(),
        load: "loaded".to_owned(),
        boot: "enabled".to_owned(),
        ..UnitFacts::default()
    };
    let mut facts = on_crio();
    let request = fixtures::from_archive(Runtime::Containerd);
    assert_eq!(of(&facts, &request, "CrioWipe"), []);
    facts.crio.as_mut().unwrap().wipe = wipe;
    one(&facts, &request, "CrioWipe");
    let words = plan(&facts, &request).plan().unwrap().words();
    assert_eq!(words[0], "Disable crio-wipe.service");
}

/// The step of the images in words.
fn carries(facts: &Facts, request: &Request) -> String {
    let outcome = plan(facts, request);
    let words = outcome.plan().unwrap().words();
    let step = words.into_iter().find(|step| step.contains("Carry "));
    step.unwrap()
}

/// Layers are copied where they cannot be linked, whatever hinders them, and the plan says what it costs.
#[test]
fn images_are_copied_where_layers_cannot_be_linked() {
    let mut facts = with_crio();
    assert_eq!(of(&facts, &to_crio(), "LayersNotLinked"), []);
    let step = carries(&facts, &to_crio());
    assert!(step.contains("linking their layers, without a copy"), "{step}");
    for (changed, why) in [
        (
            Box::new(|facts: &mut Facts| {
                let mut disks = facts.disks.iter_mut();
                let docker = disks.find(|disk| disk.path.as_str() == "/var/lib/docker");
                docker.unwrap().device += 1;
            }) as Box<dyn Fn(&mut Facts)>,
            "lie on different file systems",
        ),
        (
            // Docker on containerd's image store.
            Box::new(|facts| engine(facts).storage_driver = "overlayfs".to_owned()),
            "Docker's storage driver is overlayfs",
        ),
        (
            Box::new(|facts| engine(facts).user_namespaces = true),
            "Docker shifts the owners of files",
        ),
        (
            Box::new(|facts| {
                let printed = "[crio]\nstorage_driver = \"vfs\"\n";
                facts.crio.as_mut().unwrap().effective = Some(printed.to_owned());
            }),
            "CRI-O's storage driver is vfs",
        ),
    ] {
        let mut facts = facts.clone();
        changed(&mut facts);
        let found = one(&facts, &to_crio(), "LayersNotLinked");
        assert_eq!(found.severity, Severity::Info);
        assert!(
            found.message.contains(why) && found.message.contains("MiB"),
            "{}",
            found.message
        );
        assert_eq!(blocking(&facts, &to_crio()), [""; 0]);
        let step = carries(&facts, &to_crio());
        assert!(step.contains("copied, because ") && step.contains(why), "{step}");
    }
    // Twice the images.
    for disk in &mut facts.disks {
        match disk.path.as_str() {
            "/var/lib/docker" => disk.device += 1,
            "/var/lib/containers/storage" => disk.free = 512 << 20,
            _ => {}
        }
    }
    let full = one(&facts, &to_crio(), "DiskSpace");
    assert_eq!(full.severity, Severity::Block);
}

/// The store of a CRI-O that has never run lies beside Docker's on a larger disk, where the layers can be linked.
#[test]
fn an_empty_store_goes_where_docker_has_the_room() {
    let mut facts = with_crio();
    on_a_disk_of_its_own(&mut facts, "/data/containers/storage");
    facts.empty_stores.push(path("/var/lib/containers/storage"));
    let finding = one_about(&facts, &to_crio(), "data-root");
    assert_eq!(finding.code, "DockerSettingCarried", "{finding:?}");
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    assert!(
        text.contains("[crio]\nroot = \"/data/containers/storage\"\n"),
        "{text}"
    );
    assert_eq!(of(&facts, &to_crio(), "LayersNotLinked"), []);
    // It stays there in a second plan.
    let crio = facts.crio.as_mut().unwrap();
    let printed = crio.effective.clone().unwrap_or_default();
    crio.effective = Some(format!("{printed}{text}"));
    crio.config.file = Some(file(CRIO_CONF, &text));
    assert_eq!(written(&facts, &to_crio(), CRIO_CONF), None);
    // podman has images there.
    let mut facts = with_crio();
    on_a_disk_of_its_own(&mut facts, "/data/containers/storage");
    let finding = one_about(&facts, &to_crio(), "data-root");
    assert_eq!(finding.code, "DockerSettingApproximated", "{finding:?}");
    one(&facts, &to_crio(), "LayersNotLinked");
}

/// Its minor release is that of the kubelet.
#[test]
fn a_release_of_another_minor_is_told() {
    let mut facts = with_crio();
    assert_eq!(of(&facts, &to_crio(), "TargetVersionUnsupported"), []);
    facts.crio.as_mut().unwrap().version = "1.22.4".to_owned();
    one(&facts, &to_crio(), "TargetVersionUnsupported");
}

#[test]
fn settings_of_docker_come_along_in_cri_os_own_words() {
    let mut facts = with_crio();
    let daemon = json!({
        "exec-opts": ["native.cgroupdriver=systemd"],
        "registry-mirrors": ["https://m.example/", "http://10.1.2.3:5000", "https://p.example/docker/hub"],
        "insecure-registries": ["r.example:5000", "10.0.0.0/8"],
        "selinux-enabled": true,
        "max-concurrent-downloads": 10,
        "default-runtime": "nvidia",
        "runtimes": {
            "nvidia": { "path": "nvidia-container-runtime" },
            "kata": { "runtimeType": "io.containerd.kata.v2" },
        },
        "default-ulimits": { "memlock": { "Name": "memlock", "Hard": -1, "Soft": -1 } },
        "proxies": { "https-proxy": "http://me:pw@proxy:3128" },
    });
    daemon_json(&mut facts, &daemon.to_string());
    engine(&mut facts).default_runtime = "nvidia".into();
    let programs = ["nvidia-container-runtime", "containerd-shim-kata-v2"];
    docker(&mut facts).runtime_programs = programs
        .map(|name| (name.to_owned(), path(&format!("/usr/bin/{name}"))))
        .into();
    assert_eq!(
        written(&facts, &to_crio(), REGISTRIES).unwrap(),
        r#"# Written by Transship: the registries of Docker's configuration.

[[registry]]
location = "docker.io"

[[registry.mirror]]
location = "m.example"

[[registry.mirror]]
location = "10.1.2.3:5000"
insecure = true

[[registry]]
location = "r.example:5000"
insecure = true
"#
    );
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    for line in [
        "selinux = true\n",
        "default_runtime = \"nvidia\"\n",
        "default_ulimits = [\"memlock=-1:-1\"]\n",
        "[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia-container-runtime\"\nruntime_root = \"/run/nvidia\"\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    let unit = drop_in(&facts, &to_crio(), "crio.service").unwrap();
    assert!(!unit.contains("LimitMEMLOCK"), "{unit}");
    assert!(
        unit.contains("EnvironmentFile=") && !unit.contains("pw@"),
        "{unit}"
    );
    let fate = |name: &str| -> Vec<String> {
        about(&facts, &to_crio(), name)
            .into_iter()
            .map(|finding| finding.code)
            .collect()
    };
    let (carried, near, left) = (
        "DockerSettingCarried",
        "DockerSettingApproximated",
        "DockerSettingNotCarried",
    );
    // A mirror with a path cannot be written.
    assert_eq!(fate("registry-mirrors"), [left, carried]);
    assert_eq!(fate("insecure-registries"), [near, carried]);
    assert_eq!(fate("selinux-enabled"), [carried]);
    assert_eq!(fate("max-concurrent-downloads"), [near]);
    assert_eq!(fate("runtimes.nvidia"), [carried]);
    assert_eq!(fate("default-runtime"), [carried]);
    for finding in findings(&facts, &to_crio()) {
        assert!(
            !finding.message.contains("containerd's configuration"),
            "{}",
            finding.message
        );
    }
}

/// CRI-O has a setting for limits of containers, which are none of its own: all that Docker has come along.
#[test]
fn limits_of_containers_are_no_limits_of_cri_o() {
    let mut facts = with_crio();
    let daemon = json!({ "default-ulimits": {
        "nofile": { "Name": "nofile", "Hard": 8192, "Soft": 2048 }, "fsize": { "Hard": 1000, "Soft": 1000 } } });
    daemon_json(&mut facts, &daemon.to_string());
    let printed = "[crio.runtime]\ndefault_ulimits = [\n\t\"nofile=1:1\",\n\t\"core=0:0\",\n]\n";
    facts.crio.as_mut().unwrap().effective = Some(printed.to_owned());
    let text = written(&facts, &to_crio(), CRIO_CONF).unwrap();
    let line = "default_ulimits = [\"core=0:0\", \"fsize=1000:1000\", \"nofile=2048:8192\"]\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(drop_in(&facts, &to_crio(), "crio.service"), None);
    let finding = one(&facts, &to_crio(), "UlimitsCarried");
    assert!(
        finding
            .message
            .contains("default_ulimits of CRI-O has fsize=1000:1000"),
        "{finding:?}"
    );
    assert_eq!(of(&facts, &to_crio(), "UlimitsLost"), []);
    // CRI-O would not start with it.
    let daemon = json!({ "default-ulimits": { "nofile": { "Hard": 1, "Soft": 2 } } });
    daemon_json(&mut facts, &daemon.to_string());
    let finding = one(&facts, &to_crio(), "UlimitsLost");
    assert!(finding.message.contains("nofile=2:1"), "{finding:?}");
}

/// Docker's containers have the limit of the containerd that starts them.
#[test]
fn what_containers_inherit_comes_from_whoever_starts_them() {
    let mut facts = with_crio();
    let limits = |number| transship::plan::facts::Limits {
        soft: number,
        hard: number,
    };
    docker(&mut facts).service.limit_nofile = limits(4096);
    facts.containerd.as_mut().unwrap().service.limit_nofile = limits(5000);
    let text = drop_in(&facts, &to_crio(), "crio.service").unwrap();
    assert!(text.contains("LimitNOFILE=5000\n"), "{text}");
    facts.containerd.as_mut().unwrap().service.active = "inactive".to_owned();
    let text = drop_in(&facts, &to_crio(), "crio.service").unwrap();
    assert!(text.contains("LimitNOFILE=4096\n"), "{text}");
}

/// CRI-O would end where there is no program of the runtime's name.
#[test]
fn a_runtime_without_a_program_of_its_own_is_told() {
    let mut facts = with_crio();
    let runtime = json!({ "runtimeType": "io.containerd.runc.v2", "options": { "Root": "/run/r2" } });
    daemon_json(&mut facts, &json!({ "runtimes": { "r2": runtime } }).to_string());
    engine(&mut facts).default_runtime = "r2".into();
    let finding = one_about(&facts, &to_crio(), "runtimes.r2");
    assert_eq!(finding.code, "DockerSettingNotCarried");
    assert!(!written(&facts, &to_crio(), CRIO_CONF).unwrap().contains("r2"));
}

/// Certificates are read where Docker reads them.
#[test]
fn certificates_of_docker_are_read_as_they_are() {
    let mut facts = with_crio();
    facts.registry_directories = vec![registry("/etc/docker/certs.d/r.example", &["ca.crt"])];
    assert_eq!(of(&facts, &to_crio(), "RegistryCertificates"), []);
}

/// The node of the lab after a move to CRI-O.
pub(super) fn on_crio() -> Facts {
    let mut facts = with_crio();
    let store = engine(&mut facts).store.clone();
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some("[crio.image]\npause_image = \"registry.k8s.io/pause:3.6\"\n".to_owned());
    crio.service.active = "active".to_owned();
    crio.service.boot = "enabled".to_owned();
    crio.store = Some(store);
    crio.cri = Some(CriFacts {
        name: "cri-o".to_owned(),
        version: "1.23.5".to_owned(),
        api_version: "v1".to_owned(),
        runtime_ready: true,
        network_ready: true,
        cgroup_driver: None,
    });
    let words = kubelet(&mut facts).command_line.join(" ");
    command_line(
        &mut facts,
        &format!(
            "{words} --container-runtime=remote --container-runtime-endpoint=unix:///var/run/crio/crio.sock"
        ),
    );
    facts
}

#[test]
fn cri_o_is_left_and_ends() {
    let facts = on_crio();
    let outcome = plan(&facts, &to_containerd());
    let plan = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    assert_eq!(plan.source.runtime, Runtime::CriO);
    let words = plan.words().join("\n");
    assert!(words.contains("Stop and disable crio.service"), "{words}");
    assert_eq!(plan.source.version, "1.23.5");
}

/// As Kubespray's unit does it.
#[test]
fn a_kubelet_that_starts_cri_o_again_is_refused() {
    let mut facts = on_crio();
    let starts = ["KubeletStartsCrio"];
    let service = &mut facts.crio.as_mut().unwrap().service;
    service.needed_by = vec!["kubelet.service".to_owned()];
    // A unit of its package is masked.
    assert_ne!(blocking(&facts, &to_containerd()), starts);
    kubelet(&mut facts).unit.bound_to.push("crio.service".to_owned());
    assert_eq!(blocking(&facts, &to_containerd()), ["KubeletBoundToSource"]);
    kubelet(&mut facts).unit.bound_to.pop();
    let service = &mut facts.crio.as_mut().unwrap().service;
    service.fragment = Some(path("/etc/systemd/system/crio.service"));
    assert_eq!(blocking(&facts, &to_containerd()), starts);
    // In a file of the administrator's the plan takes it out while the kubelet does not run.
    let name = "/etc/systemd/system/kubelet.service";
    let text = "[Unit]\nAfter=crio.service\nWants=crio.service\n[Service]\n";
    kubelet(&mut facts).own_unit = Some(file(name, text));
    assert_ne!(blocking(&facts, &to_containerd()), starts);
    let package = "/usr/lib/systemd/system/kubelet.service.d/10.conf";
    let drop_in = file(package, "[Unit]\nRequires=crio.service\n");
    kubelet(&mut facts).unit.drop_ins.push(drop_in);
    assert_eq!(blocking(&facts, &to_containerd()), starts);
}

#[test]
fn a_cri_o_that_does_not_answer_is_not_left() {
    let mut facts = on_crio();
    facts.crio.as_mut().unwrap().cri = None;
    assert_eq!(blocking(&facts, &to_containerd()), ["SourceNotAnswering"]);
}
