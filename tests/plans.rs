//! What is planned on every host: snapshots in words, and hosts and requests that must be refused.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

#[path = "hosts/fixtures.rs"]
mod fixtures;

use std::collections::BTreeSet;

use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;
use transship::{
    api::request::{CgroupDriverChoice, DrainMode, Origin, Runtime, Transfer},
    edit::{flags, yaml},
    plan::{
        digest::Digest,
        facts::{Container, Facts, Image, Layout, MaybeFile, OpenAttempt, Prerequisites, TextFile},
        finding::{Finding, Severity},
        host_path::HostPath,
        kubelet_arguments,
        kubelet_settings::Settings,
        planner::{Outcome, Request, Verdict, plan},
        step::{Boot, FileStep, Proof, Step},
        words,
    },
};

const LAB: &str = "debian12-kubeadm-1.23-dockershim";

fn in_words(facts: &Facts, outcome: &Outcome) -> String {
    let mut text = String::new();
    for finding in &outcome.findings {
        let severity = format!("{:?}", finding.severity);
        text.push_str(&format!(
            "{severity:5} {}: {}\n      {}\n",
            finding.code, finding.message, finding.remedy
        ));
    }
    match &outcome.verdict {
        Verdict::Blocked => text.push_str("\nBlocked: nothing is touched.\n"),
        Verdict::AlreadyThere => text.push_str("\nAlready there: nothing is to be done.\n"),
        Verdict::Ready(plan) => {
            for (section, sentences) in plan.sections() {
                text.push_str(&format!("\n{}:\n", section.heading()));
                sentences
                    .iter()
                    .for_each(|sentence| text.push_str(&format!("  {sentence}\n")));
            }
            text.push('\n');
            text.push_str(&words::diff(plan, facts));
        }
    }
    text
}

#[test]
fn every_host_has_its_plan() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        insta::assert_snapshot!(name, in_words(&facts, &outcome));
    }
}

#[test]
fn pods_that_gain_no_privileges_have_no_successors_under_cri_dockerd_before_1_24() {
    let mut facts = fixtures::named("debian12-kubeadm-1.23-control-plane-dockershim");
    let request = fixtures::to(Runtime::CriDockerd);
    assert_eq!(blocking(&facts, &request), [""; 0]);
    let store = &mut facts.docker.as_mut().unwrap().engine.as_mut().unwrap().store;
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

/// What comes in an archive is switched to by a drop-in, or by units of its own where there are none.
#[test]
fn archives_have_their_plans() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let request = fixtures::from_archive(Runtime::Containerd);
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("archive-containerd-beside-an-old-one", in_words(&facts, &outcome));
    facts.containerd = None;
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("archive-containerd-alone", in_words(&facts, &outcome));
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.cri_dockerd = None;
    let outcome = plan(&facts, &fixtures::from_archive(Runtime::CriDockerd));
    insta::assert_snapshot!("archive-cri-dockerd-alone", in_words(&facts, &outcome));
}

/// A package has its unit; its configuration is written before it, so that the package manager keeps what the plan wrote.
#[test]
fn packages_have_their_plans() {
    let mut facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    facts.containerd = None;
    let outcome = plan(&facts, &fixtures::from_package(Runtime::Containerd));
    insta::assert_snapshot!("package-containerd", in_words(&facts, &outcome));
    let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
    facts.cri_dockerd = None;
    let outcome = plan(&facts, &fixtures::from_package(Runtime::CriDockerd));
    insta::assert_snapshot!("package-cri-dockerd", in_words(&facts, &outcome));
    let mut facts = fixtures::named("rocky8-kubeadm-1.22-rpm");
    facts.containerd = None;
    let mut request = fixtures::from_package(Runtime::Containerd);
    request.target.version = Some("1.6.33".into());
    let outcome = plan(&facts, &request);
    insta::assert_snapshot!("package-containerd-rpm", in_words(&facts, &outcome));
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
    // Another version of the runtime in use is no pair.
    assert_eq!(blocking(&facts, &request), ["TargetVersionMismatch"]);
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

#[test]
fn the_hosts_cover_layouts_drivers_and_forms_of_files() {
    let hosts = fixtures::all();
    let covered = |of: &dyn Fn(&Facts) -> Option<String>| -> BTreeSet<String> {
        hosts.iter().filter_map(|(_, facts)| of(facts)).collect()
    };
    let layouts = covered(&|facts| Some(format!("{:?}", facts.layout)));
    assert!(
        ["Kubeadm", "PlainUnit", "K3s"]
            .iter()
            .all(|layout| layouts.contains(*layout)),
        "{layouts:?}"
    );
    let drivers = covered(&|facts| Some(Settings::of(facts.kubelet.as_ref()?, &[]).unwrap().cgroup_driver));
    assert_eq!(drivers.into_iter().collect::<Vec<_>>(), ["cgroupfs", "systemd"]);
    let runtimes = covered(&|facts| {
        Settings::of(facts.kubelet.as_ref()?, &[])
            .unwrap()
            .runtime
            .map(|found| found.to_string())
    });
    assert_eq!(
        runtimes.into_iter().collect::<Vec<_>>(),
        ["containerd", "cri-dockerd", "dockershim"]
    );
    let pairs: BTreeSet<_> = fixtures::cases()
        .iter()
        .filter_map(|(_, facts, request)| {
            let outcome = plan(facts, request);
            let planned = outcome.plan()?;
            Some((planned.source.runtime.name(), planned.target.runtime.name()))
        })
        .collect();
    assert_eq!(
        pairs.into_iter().collect::<Vec<_>>(),
        [
            ("containerd", "cri-dockerd"),
            ("cri-dockerd", "containerd"),
            ("dockershim", "containerd"),
            ("dockershim", "cri-dockerd"),
        ]
    );
    let configs = covered(&|facts| {
        let file = &facts.containerd.as_ref()?.config.file;
        let version = file.as_ref().map_or("no file", |file| {
            file.text
                .lines()
                .find(|line| line.starts_with("version"))
                .unwrap_or("no version")
        });
        Some(version.split(" #").next()?.to_owned())
    });
    assert_eq!(
        configs.into_iter().collect::<Vec<_>>(),
        ["no file", "no version", "version = 2", "version = 3"]
    );
    let ready = hosts
        .iter()
        .filter(|(_, facts)| plan(facts, &fixtures::request()).plan().is_some())
        .count();
    assert!(ready >= 6, "{ready} hosts can be planned");
}

#[test]
fn what_was_found_is_what_its_digest_says() {
    for (name, facts) in fixtures::all() {
        for file in facts.texts() {
            assert_eq!(file.digest, Digest::of(&file.text), "{name}: {}", file.path);
        }
    }
}

#[test]
fn a_plan_survives_serialisation_and_is_the_same_every_time() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        assert_eq!(outcome, plan(&facts, &request), "{name}");
        if let Some(plan) = outcome.plan() {
            let read = serde_json::from_slice(&serde_json::to_vec(plan).unwrap()).unwrap();
            assert_eq!(plan, &read, "{name}");
            assert_eq!(plan.words().len(), plan.steps.len());
        }
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

fn blocking(facts: &Facts, request: &Request) -> Vec<String> {
    let outcome = plan(facts, request);
    let codes: Vec<String> = outcome
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Block)
        .map(|finding| finding.code.clone())
        .collect();
    assert_eq!(
        outcome.verdict == Verdict::Blocked,
        !codes.is_empty(),
        "{:?}",
        outcome.findings
    );
    codes
}

fn text(file: &mut TextFile, text: &str) {
    file.text = text.to_owned();
    file.digest = Digest::of(text);
}

fn config(facts: &mut Facts, new: &str) {
    let maybe = &mut facts.containerd.as_mut().unwrap().config;
    maybe.file = Some(TextFile {
        path: maybe.path.clone(),
        text: new.into(),
        digest: Digest::of(new),
        mode: 0o644,
    });
}

fn flags(facts: &mut Facts, new: &str) {
    text(
        &mut facts.kubelet.as_mut().unwrap().unit.environment_files[0],
        new,
    );
}

fn container(name: &str, mount: Option<&str>, facts: &mut Facts) {
    let containers = &mut facts
        .docker
        .as_mut()
        .unwrap()
        .engine
        .as_mut()
        .unwrap()
        .store
        .containers;
    let pod = mount.and_then(|_| containers[0].pod.clone());
    containers.push(Container {
        id: name.into(),
        name: name.into(),
        image_id: containers[0].image_id.clone(),
        running: true,
        pod,
        mounts: mount.into_iter().map(str::to_owned).collect(),
        no_new_privileges: false,
    });
}

#[rstest]
#[case::layout("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Talos)]
#[case::windows("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Windows)]
#[case::unknown("UnsupportedLayout", |f: &mut Facts| f.layout = Layout::Unknown)]
#[case::no_kubelet("NoKubelet", |f: &mut Facts| f.kubelet = None)]
#[case::stopped("KubeletNotRunning", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.clear())]
#[case::flag_of_1_23("KubeletFlagUnknown", |f: &mut Facts| { let k = f.kubelet.as_mut().unwrap(); k.command_line.clear(); k.version = "1.24.17".into(); })]
#[case::version("KubeletConfigBroken", |f: &mut Facts| f.kubelet.as_mut().unwrap().version.clear())]
#[case::kubelet_yaml("KubeletConfigBroken", |f: &mut Facts| text(f.kubelet.as_mut().unwrap().config.as_mut().unwrap(), "a: [\n"))]
#[case::bound_kubelet("KubeletBoundToDocker", |f: &mut Facts| f.kubelet.as_mut().unwrap().unit.bound_to.push("docker.service".into()))]
#[case::log_links("LogLinksRemain", |f: &mut Facts| f.kubelet.as_mut().unwrap().version = "1.21.14".into())]
#[case::cri_dockerd("SourceNotAnswering", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--container-runtime=remote".into(), "--container-runtime-endpoint=unix:///var/run/cri-dockerd.sock".into()]))]
#[case::endpoint("UnknownEndpoint", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--container-runtime=remote".into(), "--container-runtime-endpoint=unix:///x.sock".into()]))]
#[case::engine("SourceNotAnswering", |f: &mut Facts| f.docker.as_mut().unwrap().engine = None)]
#[case::no_containerd("TargetNotInstalled", |f: &mut Facts| f.containerd = None)]
#[case::masked("TargetMasked", |f: &mut Facts| f.containerd.as_mut().unwrap().service.load = "masked".into())]
#[case::old_containerd("TargetVersionUnfit", |f: &mut Facts| f.containerd.as_mut().unwrap().version = "1.4.13~ds1".into())]
#[case::driver("CgroupDriverMismatch", |f: &mut Facts| f.docker.as_mut().unwrap().engine.as_mut().unwrap().cgroup_driver = "cgroupfs".into())]
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
#[case::nvidia("DefaultRuntime", |f: &mut Facts| f.docker.as_mut().unwrap().engine.as_mut().unwrap().default_runtime = "nvidia".into())]
#[case::sandbox("SandboxImageMissing", |f: &mut Facts| f.docker.as_mut().unwrap().engine.as_mut().unwrap().store.images.retain(|image| !image.names[0].contains("pause")))]
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
#[case::cri_o("UnsupportedPair", |r: &mut Request| r.target.runtime = Runtime::CriO)]
#[case::sandbox("SandboxImageMissing", |r: &mut Request| r.target.sandbox_image = Some("registry.k8s.io/pause:3.9".into()))]
#[case::agent("RequiredImageMissing", |r: &mut Request| r.own_images.push("transship:0.1.0".into()))]
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

#[test]
fn images_are_carried_as_asked() {
    let names = |transfer: Transfer| -> Vec<String> {
        let request = Request {
            images: transship::api::request::Images { transfer },
            ..fixtures::request()
        };
        let outcome = plan(&fixtures::named(LAB), &request);
        let steps = &outcome.plan().unwrap().steps;
        let mut lists = steps.iter().filter_map(|step| match &step.does {
            Step::Images(images) => Some(images.names.clone()),
            _ => None,
        });
        let (first, again) = (lists.next().unwrap(), lists.next().unwrap());
        assert_eq!(first, again, "checked again before the kubelet is stopped");
        first
    };
    assert_eq!(names(Transfer::None), ["registry.k8s.io/pause:3.6"]);
    assert_eq!(names(Transfer::InUse).len(), 3);
    assert_eq!(names(Transfer::All).len(), 4);
}

/// Where Docker ends, and where the way back has to stop it; not where it stays in peace.
#[rstest]
#[case::ends(false, false, true)]
#[case::kept(true, false, false)]
#[case::replaced(false, true, true)]
#[case::kept_over_another_containerd(true, true, true)]
fn containers_that_are_not_kubernetes_are_spared(
    #[case] keep: bool,
    #[case] archive: bool,
    #[case] blocks: bool,
) {
    let mut request = if archive {
        fixtures::from_archive(Runtime::Containerd)
    } else {
        fixtures::request()
    };
    request.source.keep = keep;
    let clean = fixtures::named(LAB);
    assert_eq!(blocking(&clean, &request), [""; 0]);
    for (name, image, code) in [
        ("registry", "docker.io/library/registry:2", "ForeignContainers"),
        ("etcd-backup", "docker.io/library/busybox:1", "EtcdInDocker"),
        ("etcd1", "docker.io/library/x:1", "EtcdInDocker"),
        (
            "store",
            "docker.io/rancher/mirrored-coreos-etcd:v3.5.9",
            "EtcdInDocker",
        ),
        ("store", "registry.example/etcd/backup:etcd", "ForeignContainers"),
        ("setcd", "docker.io/library/etcdkeeper:1", "ForeignContainers"),
    ] {
        let mut facts = clean.clone();
        container(name, None, &mut facts);
        let store = &mut facts.docker.as_mut().unwrap().engine.as_mut().unwrap().store;
        store.images.push(Image {
            id: "sha256:of-it".to_owned(),
            names: vec![image.to_owned()],
            digests: Vec::new(),
            size: 1,
        });
        store.containers.last_mut().unwrap().image_id = "sha256:of-it".to_owned();
        let expected = if blocks { vec![code] } else { Vec::new() };
        assert_eq!(blocking(&facts, &request), expected, "{name} of {image}");
        request.preflight.allow = vec![code.to_owned()];
        let stays = blocks && code == "EtcdInDocker";
        assert_eq!(
            plan(&facts, &request).plan().is_none(),
            stays,
            "{name} of {image}"
        );
        request.preflight.allow.clear();
    }
}

/// In whichever store the pods are, and whatever the socket is called in them.
#[rstest]
#[case::dockershim(LAB, Runtime::Containerd, "/var/run/dockershim.sock", true)]
#[case::dockershim_to_another_shim(
    "debian12-kubeadm-1.23-control-plane-dockershim",
    Runtime::CriDockerd,
    "/run/dockershim.sock",
    true
)]
#[case::cri_dockerd(
    "debian12-kubeadm-1.36-cri-dockerd",
    Runtime::Containerd,
    "/run/cri-dockerd.sock",
    true
)]
#[case::containerd(
    "debian12-kubeadm-1.36-control-plane-containerd-2.4",
    Runtime::CriDockerd,
    "/run/containerd/containerd.sock",
    true
)]
#[case::the_targets(LAB, Runtime::Containerd, "/run/containerd/containerd.sock", false)]
fn pods_that_use_the_cri_are_named(
    #[case] host: &str,
    #[case] target: Runtime,
    #[case] socket: &str,
    #[case] found: bool,
) {
    let mut facts = fixtures::named(host);
    let engine = facts.docker.as_mut().and_then(|docker| docker.engine.as_mut());
    let containerd = facts
        .containerd
        .as_mut()
        .and_then(|containerd| containerd.store.as_mut());
    let stores = engine
        .map(|engine| &mut engine.store)
        .into_iter()
        .chain(containerd);
    let of_pod = |one: &&mut Container| one.running && one.pod.is_some();
    let user = stores
        .flat_map(|store| &mut store.containers)
        .find(of_pod)
        .unwrap();
    user.mounts.push(socket.to_owned());
    let pod = user.pod.clone().unwrap();
    let findings = plan(&facts, &fixtures::to(target)).findings;
    let named = |finding: &&Finding| finding.code == "CriSocketMounted";
    let users = findings.iter().find(named).map(|finding| finding.message.clone());
    assert_eq!(users.is_some(), found);
    assert!(users.is_none_or(|users| users.ends_with(&format!(": {}/{}", pod.namespace, pod.name))));
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
    let request = Request {
        pods_in_pod_network,
        ..fixtures::request()
    };
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

/// What is streamed is written more than once: see the two factors of the finding.
#[rstest]
#[case::into_containerd("debian12-kubeadm-1.23-dockershim", Runtime::Containerd, 2)]
#[case::into_docker("debian12-kubeadm-1.36-control-plane-containerd-2.4", Runtime::CriDockerd, 4)]
fn images_that_are_streamed_need_room(#[case] host: &str, #[case] target: Runtime, #[case] times: u64) {
    const RESERVE: u64 = 512 << 20;
    let mut facts = fixtures::named(host);
    if let Some(engine) = facts.docker.as_mut().and_then(|docker| docker.engine.as_mut()) {
        engine.storage_driver = "vfs".to_owned();
    }
    let source = if target == Runtime::Containerd {
        &mut facts.docker.as_mut().unwrap().engine.as_mut().unwrap().store
    } else {
        facts.containerd.as_mut().unwrap().store.as_mut().unwrap()
    };
    source.images.iter_mut().for_each(|image| image.size = 1 << 30);
    let images = source.images.clone();
    let request = fixtures::to(target);
    let outcome = plan(&facts, &request);
    let carried = outcome
        .plan()
        .unwrap()
        .steps
        .iter()
        .find_map(|step| match &step.does {
            Step::Images(images) => Some(&images.names),
            _ => None,
        });
    let carried = carried.unwrap();
    let of_them = |image: &&Image| image.names.iter().any(|name| carried.contains(name));
    let needed = (images.iter().filter(of_them).count() as u64 * times) << 30;
    for (free, expected) in [
        (needed + RESERVE, &[][..]),
        (needed + RESERVE - 1, &["DiskSpace"]),
    ] {
        facts.disks.iter_mut().for_each(|disk| disk.free = free);
        assert_eq!(blocking(&facts, &request), *expected, "{free} free");
    }
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

#[test]
fn no_secret_is_in_the_words() {
    for (name, facts, request) in fixtures::cases() {
        let outcome = plan(&facts, &request);
        let words = in_words(&facts, &outcome);
        for secret in ["s3cr", "hunter2"] {
            assert!(!words.contains(secret), "{name}: {secret}");
        }
    }
}

/// Ways to write a secret into containerd's configuration, the kubelet's and an environment file; `<Q>` is the
/// secret in quotes, `<P>` as it is.
const LAYOUTS: [(usize, &str); 13] = [
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"r.example:5000\".auth]\npassword = <Q>\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs]\n\"r.example:5000\" = { auth = { username = \"u\", password = <Q> } }\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\nAuthorization = [<Q>]\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n\"Authorization\"=[\n  <Q>,\n]\n",
    ),
    (
        0,
        "[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry = { headers = { Authorization = [<Q>] } }\nsandbox_image = \"a\" # <P>\n",
    ),
    (0, "# password = <Q>\n"),
    (0, "[plugins.other]\nkey = \"\"\"\n<P>\n\"\"\"\n"),
    (1, "staticPodURLHeader:\n  Authorization:\n  - <Q>\n"),
    (1, "staticPodURLHeader: {Authorization: [<Q>]}\n"),
    (1, "staticPodURLHeader:\n  Authorization: [\n    <Q>\n  ]\n"),
    (2, "HTTPS_PROXY=\"http://me:<P>@proxy:3128\"\n"),
    (2, "HTTPS_PROXY=\"me:<P>@proxy:3128\"\nREGISTRY_TOKEN=\"<P>\"\n"),
    (3, "me:<P>@proxy:3128"),
];

/// Nor do the findings, where a file cannot be read or says something else than what runs.
#[rstest]
#[case::yaml("KubeletConfigBroken", |f: &mut Facts| text(f.kubelet.as_mut().unwrap().config.as_mut().unwrap(), "staticPodURLHeader:\n  Authorization: [zq7, \"\n"))]
#[case::toml("ContainerdConfigBroken", |f: &mut Facts| config(f, "version = 2\n[x]\npassword = zq7\n"))]
#[case::json("DaemonJsonBroken", |f: &mut Facts| text(f.docker.as_mut().unwrap().daemon_json.as_mut().unwrap(), "{\"x\": zq7}"))]
#[case::quote("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS=\"--token=zq7 '\"\n"))]
#[case::backslash("FlagsNotEditable", |f: &mut Facts| flags(f, "KUBELET_KUBEADM_ARGS='--token=zq7\\ b'\n"))]
#[case::differs("KubeletArgumentsDiffer", |f: &mut Facts| f.kubelet.as_mut().unwrap().command_line.extend(["--token=zq7".into(), "--other".into(), "zq7".into()]))]
fn no_secret_is_in_a_finding(#[case] code: &str, #[case] spoil: fn(&mut Facts)) {
    let mut facts = fixtures::named(LAB);
    spoil(&mut facts);
    let outcome = plan(&facts, &fixtures::request());
    let found = outcome.findings.iter().find(|finding| finding.code == code);
    let message = &found.unwrap_or_else(|| panic!("{:?}", outcome.findings)).message;
    assert!(!message.contains("zq7"), "{message}");
}

/// systemd shows a unit's `Environment=` to everybody on D-Bus, and every file may be read that is not for root alone.
#[test]
fn a_proxys_password_is_in_a_file_for_root_alone() {
    let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
    let written = |facts: &Facts| -> Vec<FileStep> {
        let outcome = plan(facts, &fixtures::request());
        let steps = outcome.plan().unwrap().steps.iter();
        let files = steps.filter_map(|step| match &step.does {
            Step::File(file) if file.path.as_str().contains("/containerd.service.d/") => Some(file.clone()),
            _ => None,
        });
        files.collect()
    };
    let files = written(&facts);
    let [environment, drop_in] = &files[..] else {
        panic!("{files:?}")
    };
    let (environment_text, drop_in_text) = (
        environment.want.as_ref().unwrap(),
        &drop_in.want.as_ref().unwrap().text,
    );
    assert!(
        environment_text
            .text
            .contains("HTTP_PROXY=\"http://svc:s3cr%25t@proxy.example.org:3128\"\n")
    );
    assert_eq!(environment_text.mode, 0o600);
    let named = format!("EnvironmentFile={}\n", environment.path);
    assert!(
        drop_in_text.contains(&named) && !drop_in_text.contains("s3cr"),
        "{drop_in_text}"
    );

    // One that is there and open to others is closed; where there is nothing to change nothing is.
    let there = |mode| TextFile {
        path: environment.path.clone(),
        digest: Digest::of(&environment_text.text),
        text: environment_text.text.clone(),
        mode,
    };
    let drop_in_there = TextFile {
        path: drop_in.path.clone(),
        digest: Digest::of(drop_in_text),
        text: drop_in_text.clone(),
        mode: 0o644,
    };
    facts.containerd.as_mut().unwrap().drop_in.file = Some(drop_in_there);
    for (mode, steps) in [(0o644, 1), (0o600, 0)] {
        facts.files.retain(|file| file.path != environment.path);
        facts.files.push(MaybeFile {
            path: environment.path.clone(),
            file: Some(there(mode)),
        });
        assert_eq!(written(&facts).len(), steps, "{mode:o}");
    }
}

/// The digest is shown beside the diff, in which passwords are hidden.
#[test]
fn no_password_can_be_tried_out_on_the_digest_of_a_plan() {
    let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
    // Nor on those of its files.
    let outcome = plan(&facts, &fixtures::request());
    let page = in_words(&facts, &outcome);
    for step in &outcome.plan().unwrap().steps {
        let Step::File(file) = &step.does else { continue };
        let new = file.want.as_ref().map(|want| Digest::of(&want.text));
        for digest in [&file.planned_from, &new].into_iter().flatten() {
            assert!(!page.contains(digest.as_str()), "{}", file.path);
        }
    }
    let mut shown = |key: &str| {
        facts.digest_key = key.to_owned();
        let outcome = plan(&facts, &fixtures::request());
        let page = transship::node::plan::page(&facts, &outcome);
        let digest = outcome.plan().unwrap().digest();
        assert!(page.contains(digest.as_str()) && !page.contains(key), "{page}");
        digest
    };
    let first = shown("key-of-one-node");
    assert_eq!(shown("key-of-one-node"), first);
    assert_ne!(shown("key-of-another"), first);
}

/// Mode `Plan` shows the digest of the plan that `Apply` runs, if nothing changes on the node in between.
#[test]
fn a_digest_is_that_of_what_is_done() {
    let (facts, request) = (fixtures::named(LAB), fixtures::request());
    let digest = |facts: &Facts, request: &Request| plan(facts, request).plan().unwrap().digest();
    let first = digest(&facts, &request);

    let mut same = request.clone();
    same.migration = "00000000-0000-4000-8000-000000000002-7".into();
    same.migration_name = Some("another".into());
    same.preflight.allow = vec!["DiskSpace".into(), "NoSuchCode".into()];
    same.images.transfer = Transfer::All;
    let mut later = facts.clone();
    for disk in &mut later.disks {
        disk.free -= 1 << 20;
    }
    // A pod has gone.
    later
        .docker
        .as_mut()
        .unwrap()
        .engine
        .as_mut()
        .unwrap()
        .store
        .containers
        .pop();
    let outcome = plan(&later, &same);
    assert_ne!(outcome.findings, plan(&facts, &request).findings);
    assert_ne!(outcome.plan(), plan(&facts, &request).plan());
    assert_eq!(digest(&later, &same), first);

    let changes: [fn(&mut Facts, &mut Request); 6] = [
        |facts, _| facts.machine_id = "another".into(),
        |facts, _| facts.digest_key = "another".into(),
        |facts, _| facts.containerd.as_mut().unwrap().version = "1.7.28".into(),
        |_, request| {
            request.target.sandbox_image = Some("registry.k8s.io/pause:3.9".into());
            request.preflight.allow = vec!["SandboxImageMissing".into()];
        },
        |_, request| request.drain.mode = DrainMode::InPlace,
        |_, request| request.source.keep = true,
    ];
    for (number, change) in changes.iter().enumerate() {
        let (mut facts, mut request) = (facts.clone(), request.clone());
        change(&mut facts, &mut request);
        assert_ne!(digest(&facts, &request), first, "change {number}");
    }
    // Every step counts, and so does their order.
    let planned = plan(&facts, &request).plan().unwrap().clone();
    for index in 1..planned.steps.len() {
        let mut other = planned.clone();
        let step = other.steps.remove(index);
        assert_ne!(other.digest(), first, "without step {index}");
        other.steps.insert(index - 1, step);
        assert_ne!(other.digest(), first, "step {index} is one earlier");
    }
}

proptest! {
    /// However a secret is written, neither the words nor the diff show a part of it.
    #[test]
    fn no_secret_of_a_file_is_in_the_words_or_the_diff(
        layouts in prop::collection::btree_set(0..LAYOUTS.len(), 1..5),
        sign in prop::sample::select(vec!["", "@", ":", "/", "?", "#", " #", "=", " ", ",", " --", "]", "}"]),
    ) {
        let mut facts = fixtures::named("debian11-kubeadm-1.23-proxies");
        let secret = format!("zq7a{sign}zq7b");
        let quoted = format!("\"{secret}\"");
        let mut written = [const { String::new() }; 4];
        for (file, layout) in layouts.into_iter().map(|index| LAYOUTS[index]) {
            // One table of a name, and one key of the others.
            let goes_along = file == 0 && !(layout.starts_with('[') && written[0].contains('['));
            if goes_along || written[file].is_empty() {
                written[file].push_str(&layout.replace("<Q>", &quoted).replace("<P>", &secret));
            }
        }
        let [toml, yaml, variables, proxy] = written;
        config(&mut facts, &format!("version = 2\n{toml}"));
        let kubelet = facts.kubelet.as_mut().unwrap();
        let file = kubelet.config.as_mut().unwrap();
        let old = file.text.clone();
        text(file, &format!("{yaml}{old}"));
        let file = &mut kubelet.unit.environment_files[0];
        let old = file.text.clone();
        text(file, &format!("{variables}{old}"));
        if !proxy.is_empty() {
            facts.docker.as_mut().unwrap().service.environment = vec![format!("HTTPS_PROXY={proxy}")];
        }
        let outcome = plan(&facts, &fixtures::request());
        prop_assert!(outcome.plan().is_some(), "{:?}", outcome.findings);
        let words = in_words(&facts, &outcome);
        prop_assert!(!words.contains("zq7"), "{}", words);
    }

    /// Nor where Docker's file is in one line, or in many.
    #[test]
    fn no_secret_of_dockers_file_is_in_the_diff(pretty: bool, sign in prop::sample::select(vec!["@", ":", "/", "=", ", "])) {
        let mut facts = fixtures::named("debian12-kubeadm-1.36-control-plane-containerd-2.4");
        // Docker, which does not run, would use another cgroup driver than the kubelet.
        facts.cgroup_version = 1;
        let secret = format!("zq7a{sign}zq7b");
        let settings = serde_json::json!({
            "proxies": { "https-proxy": format!("http://me:{secret}@proxy:3128"), "no-proxy": "localhost" },
            "http-headers": ["a", secret],
        });
        let docker = facts.docker.as_mut().unwrap();
        let new = if pretty { serde_json::to_string_pretty(&settings).unwrap() } else { settings.to_string() };
        docker.daemon_json = Some(TextFile {
            path: HostPath::new("/etc/docker/daemon.json").unwrap(),
            digest: Digest::of(&new),
            text: new,
            mode: 0o600,
        });
        let outcome = plan(&facts, &fixtures::to(Runtime::CriDockerd));
        let words = in_words(&facts, &outcome);
        prop_assert!(words.contains("+  \"exec-opts\": [\"native.cgroupdriver=systemd\"],\n"), "{}", words);
        prop_assert!(!words.contains("zq7"), "{}", words);
    }

    /// Whatever text a file has, planning ends with a plan or a finding.
    #[test]
    fn no_text_makes_the_planner_panic(at in 0..6usize, new in "(\\PC|\n|[\"'\\\\={}\\[\\]:#-]){0,60}") {
        let mut facts = fixtures::named(LAB);
        match at {
            0 => flags(&mut facts, &format!("KUBELET_KUBEADM_ARGS={new}")),
            1 => flags(&mut facts, &new),
            2 => config(&mut facts, &new),
            3 => text(facts.docker.as_mut().unwrap().daemon_json.as_mut().unwrap(), &new),
            4 => text(facts.kubelet.as_mut().unwrap().config.as_mut().unwrap(), &new),
            _ => text(&mut facts.cni.configs[0], &new),
        }
        let outcome = plan(&facts, &fixtures::request());
        prop_assert_eq!(outcome.plan().is_none(), outcome.findings.iter().any(|f| f.severity == Severity::Block));
    }
}
