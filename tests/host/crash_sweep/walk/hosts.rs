//! The plans of all hosts, as asked for in different ways, and plans that are wrong in one place.

use transship::{
    plan::{
        facts::{MaybeFile, TextFile},
        step::Restart,
    },
    planner::{self, plan},
};

use transship::plan::{facts::RegistryDirectory, host_path::HostPath};

use super::*;
use crate::fixtures;

#[test]
fn every_plan_can_be_walked_there_and_back() {
    for (name, facts, request) in fixtures::cases() {
        walk(&facts, &request, &name);
    }
}

#[test]
fn archives_and_packages_are_walked_too() {
    let mut seen = 0;
    for (name, mut facts, request) in fixtures::cases() {
        let request = fixtures::from_archive(request.target.runtime);
        // As an earlier plan leaves it.
        if let Some(shim) = &mut facts.cri_dockerd {
            shim.service.bound_to.push(DOCKER.to_owned());
        }
        seen += usize::from(walk(&facts, &request, &name).is_some());
        match request.target.runtime {
            Runtime::CriDockerd => facts.cri_dockerd = None,
            Runtime::CriO => facts.crio = None,
            _ => facts.containerd = None,
        }
        walk(&facts, &request, &name);
        walk(&facts, &fixtures::from_package(request.target.runtime), &name);
    }
    assert!(seen >= 4, "{seen}");
}

#[test]
fn a_cri_dockerd_that_ran_before_goes_on_as_it_was() {
    let mut seen = 0;
    for (name, mut facts, request) in fixtures::cases() {
        let units = facts.cri_dockerd.iter_mut();
        for unit in units.flat_map(|shim| [&mut shim.service, &mut shim.socket]) {
            (unit.active, unit.boot) = ("active".into(), "enabled".into());
        }
        for unit in facts
            .docker
            .iter_mut()
            .flat_map(|docker| [&mut docker.service, &mut docker.socket])
        {
            (unit.active, unit.boot) = ("active".into(), "enabled".into());
        }
        seen += usize::from(request.target.runtime == Runtime::CriDockerd);
        walk(&facts, &request, &name);
    }
    assert!(seen > 0);
}

#[test]
fn what_an_earlier_plan_masked_is_unmasked_and_masked_again() {
    let mut seen = 0;
    for (name, mut facts, request) in fixtures::cases() {
        let off = facts
            .docker
            .as_ref()
            .is_some_and(|docker| docker.service.active != "active");
        if request.target.runtime != Runtime::CriDockerd || !off {
            continue;
        }
        let docker = facts
            .docker
            .iter_mut()
            .flat_map(|docker| [&mut docker.service, &mut docker.socket]);
        let shim = facts.cri_dockerd.iter_mut();
        for unit in docker.chain(shim.flat_map(|shim| [&mut shim.service, &mut shim.socket])) {
            (unit.load, unit.boot) = ("masked".into(), "masked".into());
        }
        seen += 1;
        walk(&facts, &request, &name);
    }
    assert!(seen > 0);
}

/// Docker that runs nothing gets the kubelet's cgroup driver, between two steps for its unit.
#[test]
fn dockers_cgroup_driver_changes_where_nothing_runs_under_it() {
    let mut seen = 0;
    for (name, mut facts, request) in fixtures::cases() {
        let to_docker = request.target.runtime == Runtime::CriDockerd;
        let docker = facts.docker.as_mut().filter(|docker| docker.engine.is_none());
        let Some(docker) = docker.filter(|_| to_docker) else {
            continue;
        };
        docker.daemon_json = None;
        let Some(plan) = walk(&facts, &request, &name) else {
            continue;
        };
        let changes =
            |step: &Step| matches!(step, Step::File(file) if file.path.as_str() == "/etc/docker/daemon.json");
        assert!(plan.steps.iter().any(|step| changes(&step.does)), "{name}");
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn a_containerd_that_did_not_run_is_stopped_again() {
    for (name, mut facts) in fixtures::all() {
        let Some(containerd) = &mut facts.containerd else {
            continue;
        };
        containerd.service.active = "inactive".into();
        containerd.service.boot = "disabled".into();
        containerd.cri = None;
        walk(&facts, &fixtures::request(), &name);
    }
}

#[test]
fn docker_stays_where_it_is_asked_for() {
    let mut request = fixtures::request();
    request.source.keep = true;
    for (name, facts) in fixtures::all() {
        walk(&facts, &request, &name);
    }
}

#[test]
fn a_containerd_that_is_configured_already_is_not_restarted() {
    let mut seen = 0;
    for (name, mut facts) in fixtures::all() {
        let outcome = plan(&facts, &fixtures::request());
        let Some(first) = outcome.plan() else { continue };
        for step in &first.steps {
            let Step::File(FileStep {
                path,
                want: Some(want),
                ..
            }) = &step.does
            else {
                continue;
            };
            let (text, digest) = (want.text.clone(), Digest::of(&want.text));
            let file = Some(TextFile {
                path: path.clone(),
                text,
                digest,
                mode: want.mode,
            });
            let containerd = facts.containerd.as_mut().unwrap();
            for place in [&mut containerd.config, &mut containerd.drop_in] {
                if place.path == *path {
                    place.file.clone_from(&file);
                }
            }
            if containerd.config.path == *path {
                containerd.effective = Some(want.text.clone());
            }
            if let Some(directory) = path.as_str().strip_suffix("/hosts.toml") {
                facts.registry_directories.push(RegistryDirectory {
                    path: HostPath::new(directory).unwrap(),
                    files: vec!["hosts.toml".to_owned()],
                    hosts: Some(Digest::of(&want.text)),
                    said: transship::edit::hosts_toml::read(&want.text),
                    links: Default::default(),
                });
            }
            if path.as_str().ends_with("/transship.env") {
                let path = path.clone();
                facts.files.push(MaybeFile { path, file });
            }
        }
        if facts.containerd.as_ref().unwrap().cri.is_some() {
            seen += 1;
            let outcome = plan(&facts, &fixtures::request());
            let restarts = |step: &Step| matches!(step, Step::Unit(unit) if unit.restart != Restart::Never);
            assert!(
                !outcome
                    .plan()
                    .unwrap()
                    .steps
                    .iter()
                    .any(|step| restarts(&step.does)),
                "{name}"
            );
        }
        walk(&facts, &fixtures::request(), &name);
    }
    assert!(seen > 0);
}

/// Plans that are wrong in one place each: the walk must notice.
#[test]
fn the_walk_notices_a_wrong_plan() {
    let facts = fixtures::named("debian12-kubeadm-1.23-dockershim");
    let request = fixtures::request();
    let outcome = plan(&facts, &request);
    let right = outcome.plan().unwrap();
    let at = |wanted: &dyn Fn(&Step) -> bool| right.steps.iter().position(|step| wanted(&step.does)).unwrap();
    let unit = |name: &'static str| at(&|step| matches!(step, Step::Unit(unit) if unit.unit == name));
    let stop_kubelet = at(&|step| matches!(step, Step::Kubelet(kubelet) if !kubelet.run));
    let stop_pods = at(&|step| matches!(step, Step::StopPods(_)));
    let clear_pods = at(&|step| matches!(step, Step::ClearPods(_)));
    let flags = at(&|step| matches!(step, Step::File(file) if file.path.as_str().ends_with("flags.env")));
    let mut wrong: Vec<(&str, Plan)> = Vec::new();
    for (what, missing) in [
        ("nothing restarts containerd on the way back", unit(CONTAINERD)),
        ("pods run twice", stop_pods),
        ("sandboxes of ended pods are left", clear_pods),
        ("the kubelet runs while its pods are ended", stop_kubelet),
        ("the kubelet starts with its old flags", flags),
    ] {
        let mut plan = right.clone();
        plan.steps.remove(missing);
        wrong.push((what, plan));
    }
    let mut swapped = right.clone();
    swapped.steps.swap(unit(DOCKER), unit(DOCKER_SOCKET));
    wrong.push(("stopping the socket stops the service unseen", swapped));
    let shim_facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let outcome = planner::plan(&shim_facts, &request);
    let mut socket = outcome.plan().unwrap().clone();
    let of_socket = |step: &Step| matches!(step, Step::Unit(unit) if unit.unit == SHIM_SOCKET);
    socket.steps.retain(|step| !of_socket(&step.does));
    let walked = panic::catch_unwind(|| walk_plan(&shim_facts, &request, "socket", socket, 1));
    assert!(walked.is_err(), "not noticed: the socket of cri-dockerd stays");
    let archive = fixtures::from_archive(Runtime::Containerd);
    let outcome = planner::plan(&shim_facts, &archive);
    let mut restarted = outcome.plan().unwrap().clone();
    for planned in &mut restarted.steps {
        if let Step::Unit(unit) = &mut planned.does
            && unit.restart == Restart::StartedBackwards
        {
            unit.restart = Restart::Backwards;
        }
    }
    let walked = panic::catch_unwind(|| walk_plan(&shim_facts, &archive, "restarted", restarted, 1));
    assert!(
        walked.is_err(),
        "not noticed: pods die with Docker on the way back"
    );
    for (what, plan) in wrong {
        let walked = panic::catch_unwind(|| walk_plan(&facts, &request, what, plan, 1));
        assert!(walked.is_err(), "not noticed: {what}");
    }
}
