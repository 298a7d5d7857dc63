//! Nodes as people have them: spellings, settings and leftovers of public reports, each with what the plan must do.

mod certificates;
mod credentials;
mod crio;
mod docker;
mod environment;
mod files;
mod fuzz;
mod images;
mod layouts;
mod other_fates;
mod other_settings;
mod registries;
mod settings;
mod spellings;
mod upgrade;

use transship::{
    api::request::Runtime,
    plan::{
        digest::Digest,
        facts::{Container, Docker, Facts, Kubelet, RegistryDirectory, TextFile},
        finding::{Finding, Severity},
        host_path::HostPath,
        step::Step,
    },
    planner::{
        plan,
        request::{Request, Verdict},
    },
};

use crate::{
    fixtures,
    lab::{LAB, blocking, engine},
};

fn lab() -> Facts {
    fixtures::named(LAB)
}

fn kubelet(facts: &mut Facts) -> &mut Kubelet {
    facts.kubelet.as_mut().unwrap()
}

fn docker(facts: &mut Facts) -> &mut Docker {
    facts.docker.as_mut().unwrap()
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// The directory of a registry with these files.
fn registry(at: &str, files: &[&str]) -> RegistryDirectory {
    RegistryDirectory {
        path: path(at),
        files: files.iter().map(|&name| name.to_owned()).collect(),
        hosts: None,
        said: None,
        links: Default::default(),
    }
}

fn file(at: &str, text: &str) -> TextFile {
    TextFile {
        path: path(at),
        text: text.to_owned(),
        digest: Digest::of(text),
        mode: 0o644,
    }
}

fn daemon_json(facts: &mut Facts, text: &str) {
    docker(facts).daemon_json = Some(file("/etc/docker/daemon.json", text));
}

fn config_toml(facts: &mut Facts, text: &str) {
    facts.containerd.as_mut().unwrap().config.file = Some(file("/etc/containerd/config.toml", text));
}

/// Gives the kubelet another command line, in its process and in its unit.
fn command_line(facts: &mut Facts, words: &str) {
    let kubelet = kubelet(facts);
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    kubelet.command_line.clone_from(&words);
    kubelet.unit.exec_start = words;
}

/// Docker's data root on a larger disk of its own, below /data, where there may be another store beside it.
fn on_a_disk_of_its_own(facts: &mut Facts, beside: &str) {
    engine(facts).data_root = path("/data/docker");
    daemon_json(facts, r#"{"data-root": "/data/docker"}"#);
    for at in ["/data/docker", beside] {
        let mut disk = facts.disks[0].clone();
        disk.path = path(at);
        (disk.device, disk.total, disk.free) = (disk.device + 7, disk.total * 4, disk.total * 3);
        facts.disks.push(disk);
    }
    facts.empty_stores.push(path(beside));
}

/// A running container of a pod, or of nobody, with mounts.
fn container(facts: &mut Facts, pod: Option<&str>, name: &str, mounts: &[&str]) {
    let containers = &mut engine(facts).store.containers;
    let of_pod = containers
        .iter()
        .find_map(|container| container.pod.clone())
        .unwrap();
    let one = Container {
        id: name.to_owned(),
        name: name.to_owned(),
        image_id: containers[0].image_id.clone(),
        running: true,
        pod: pod.map(|pod| {
            let mut found = of_pod.clone();
            let (namespace, name) = pod.split_once('/').unwrap();
            (found.namespace, found.name, found.uid) = (namespace.into(), name.into(), pod.into());
            found.container = "main".to_owned();
            found
        }),
        mounts: mounts.iter().map(|&mount| mount.to_owned()).collect(),
        no_new_privileges: false,
        of_job: false,
    };
    containers.push(one);
}

fn findings(facts: &Facts, request: &Request) -> Vec<Finding> {
    plan(facts, request).findings
}

/// The findings of a code.
fn of(facts: &Facts, request: &Request, code: &str) -> Vec<Finding> {
    let found = findings(facts, request).into_iter();
    found.filter(|finding| finding.code == code).collect()
}

/// The findings about a subject.
fn about(facts: &Facts, request: &Request, subject: &str) -> Vec<Finding> {
    let found = findings(facts, request).into_iter();
    found
        .filter(|finding| finding.subject.as_deref() == Some(subject))
        .collect()
}

/// The one finding about a subject.
fn one_about(facts: &Facts, request: &Request, subject: &str) -> Finding {
    let mut found = about(facts, request, subject);
    assert_eq!(found.len(), 1, "{subject}: {:?}", findings(facts, request));
    found.remove(0)
}

/// The one finding of a code.
fn one(facts: &Facts, request: &Request, code: &str) -> Finding {
    let mut found = of(facts, request, code);
    assert_eq!(found.len(), 1, "{code}: {:?}", findings(facts, request));
    found.remove(0)
}

/// The text that the plan gives to a file; the last one.
fn written(facts: &Facts, request: &Request, at: &str) -> Option<String> {
    let outcome = plan(facts, request);
    let planned = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    let mut texts = planned.steps.iter().rev().filter_map(|step| match &step.does {
        Step::File(step) if step.path.as_str() == at => step.want.as_ref(),
        _ => None,
    });
    texts.next().map(|want| want.text.clone())
}

/// The text that the plan gives to a drop-in of a unit; whatever its name is.
fn drop_in(facts: &Facts, request: &Request, unit: &str) -> Option<String> {
    let outcome = plan(facts, request);
    let planned = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    let directory = format!("/etc/systemd/system/{unit}.d/");
    let mut texts = planned.steps.iter().rev().filter_map(|step| match &step.does {
        Step::File(step) if step.path.as_str().starts_with(&directory) => step.want.as_ref(),
        _ => None,
    });
    texts.next().map(|want| want.text.clone())
}

const CONFIG: &str = "/etc/containerd/config.toml";

fn to_containerd() -> Request {
    fixtures::request()
}

fn to_cri_dockerd() -> Request {
    fixtures::to(Runtime::CriDockerd)
}
