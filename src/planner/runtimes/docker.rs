//! Docker Engine, on which dockershim and cri-dockerd stand: its units, and its cgroup driver.

use serde_json::Value;

use crate::{
    edit::{daemon_json, flags},
    plan::{
        codes::runtimes::{CGROUP_DRIVER_MISMATCH, SOURCE_NOT_ANSWERING},
        facts::{Docker, Engine, Facts, UnitFacts},
        finding::Finding,
        kubelet_arguments,
        paths::{DAEMON_JSON, DOCKER_DATA_ROOT, DOCKER_UNITS},
        runtime::Runtime,
        step::{Restart, Step, UnitStep},
    },
    planner::{
        context::{LayersOf, TargetStore, View},
        layers::streamed,
        steps::{ended, file, opening, path, started},
    },
};

/// Docker's unit.
pub const SERVICE: &str = DOCKER_UNITS[0];

/// Docker with its engine, which answers.
pub fn answering(facts: &Facts) -> Result<(&Docker, &Engine), Finding> {
    let docker = facts.docker.as_ref();
    docker
        .and_then(|docker| docker.engine.as_ref().map(|engine| (docker, engine)))
        .ok_or_else(|| {
            SOURCE_NOT_ANSWERING.found(
                "Docker Engine does not answer, although the kubelet uses it",
                "Look at `systemctl status docker`; a source that does not work cannot be rolled back to.",
            )
        })
}

/// A CRI tells the compressed size of an image. Docker unpacks it to about three times that, and `docker load` spools
/// what it reads below the data root before.
const TIMES_COMPRESSED: u64 = 4;

/// Docker's store, for a target that stands on it.
pub fn store(view: &View<'_>) -> TargetStore {
    let given = view.daemon.get("data-root").and_then(Value::as_str);
    let engine = view.engine.map(|engine| engine.data_root.as_str());
    TargetStore {
        directory: engine.or(given).unwrap_or(DOCKER_DATA_ROOT).to_owned(),
        copies: TIMES_COMPRESSED,
        layers: streamed(view),
        pull_directory: None,
    }
}

/// Where its layers lie.
pub fn layers(view: &View<'_>) -> Result<LayersOf, String> {
    let engine = view.engine.ok_or("Docker does not answer")?;
    if engine.storage_driver != "overlay2" {
        return Err(format!("Docker's storage driver is {}", engine.storage_driver));
    }
    if engine.user_namespaces {
        return Err("Docker shifts the owners of files (userns-remap)".to_owned());
    }
    Ok(LayersOf {
        directory: engine.data_root.to_string(),
        data_root: Some(engine.data_root.clone()),
    })
}

/// Docker's units end after a switch, unless the target needs the engine or the user keeps it; and before them
/// those of cri-dockerd, where it is the source or would start again in front of an engine that is gone.
pub fn settle(view: &View<'_>) -> Vec<Step> {
    let docker = view.docker.filter(|_| view.docker_ends());
    let starts = |unit: &UnitFacts| unit.active == "active" || unit.boot == "enabled";
    let shim = view.cri_dockerd.filter(|shim| {
        let again = docker.is_some() && (starts(&shim.service) || starts(&shim.socket));
        again || view.source.runtime == Runtime::CriDockerd
    });
    let shim = shim.map(|shim| ended(&shim.service, &shim.socket, &shim.endpoint));
    let docker = docker.map(|docker| ended(&docker.service, &docker.socket, &docker.endpoint));
    shim.into_iter().chain(docker).flatten().collect()
}

/// What stands between Docker's cgroup driver and the kubelet's, under a target that stands on Docker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Driver {
    /// Nothing.
    Fits,
    /// `daemon.json` becomes this text: nothing runs under Docker.
    Changes(String),
    /// It cannot be changed; why.
    Stuck(String),
}

/// Docker's cgroup driver against the one that the kubelet uses.
pub fn driver(view: &View<'_>, docker: &Docker) -> Driver {
    let wanted = view.cgroup_driver();
    let has = docker.engine.as_ref().map_or_else(
        || driver_ahead(view, docker),
        |engine| engine.cgroup_driver.clone(),
    );
    if has == wanted {
        return Driver::Fits;
    }
    let containers = docker.engine.iter().flat_map(|engine| &engine.store.containers);
    let running = containers.filter(|container| container.running).count();
    if running > 0 || view.source.runtime.runs_on_docker() {
        return Driver::Stuck(format!(
            "the kubelet uses {wanted}, and Docker, under which containers run, uses {has}"
        ));
    }
    if command(docker).iter().any(|word| word.starts_with("--exec-opt")) {
        return Driver::Stuck(format!(
            "the kubelet uses {wanted}, and Docker's command line sets --exec-opt"
        ));
    }
    let old = docker.daemon_json.as_ref().map(|file| file.text.as_str());
    match daemon_json::set_cgroup_driver(old, wanted) {
        Ok(text) => Driver::Changes(text),
        Err(error) => Driver::Stuck(format!(
            "the kubelet uses {wanted}, Docker uses {has}, and {DAEMON_JSON}: {error}"
        )),
    }
}

/// The driver that Docker will have when it is started: `native.cgroupdriver`, else systemd on cgroup v2.
fn driver_ahead(view: &View<'_>, docker: &Docker) -> String {
    let in_file = view.daemon.get("exec-opts").and_then(Value::as_array);
    let options = in_file.into_iter().flatten().filter_map(Value::as_str);
    let command = command(docker);
    let set = options
        .chain(command.iter().map(String::as_str))
        .find_map(|option| option.split_once("native.cgroupdriver="))
        .map(|(_, driver)| driver.to_owned());
    let default = if view.facts.cgroup_version == 2 {
        "systemd"
    } else {
        "cgroupfs"
    };
    set.unwrap_or_else(|| default.to_owned())
}

fn command(docker: &Docker) -> Vec<String> {
    kubelet_arguments::command(&docker.service)
}

/// The containerd that Docker's engine stands on, where neither runs: Docker's unit would start it (`Wants=containerd.service`), and it
/// would run on when the plan is undone (seen with Debian's 20.10).
fn below(view: &View<'_>, docker: &Docker) -> Option<Step> {
    let containerd = view.containerd?;
    let command = command(docker);
    let socket = flags::value(&command, "containerd")?;
    let (unit, stands) = (&containerd.service, socket == containerd.endpoint.as_str());
    (stands && unit.load == "loaded" && unit.active != "active").then(|| {
        Step::Unit(UnitStep {
            unit: unit.name.clone(),
            active: Some(true),
            boot: None,
            restart: Restart::Never,
            socket: None,
            effective: None,
        })
    })
}

/// Docker running, enabled and with the kubelet's cgroup driver, for a target that stands on it.
pub fn ready(view: &View<'_>, docker: &Docker) -> Result<Vec<Step>, Finding> {
    let mut steps: Vec<Step> = below(view, docker).into_iter().collect();
    let mut restart = Restart::Never;
    match driver(view, docker) {
        Driver::Fits => {}
        Driver::Changes(text) => {
            steps.push(opening(&docker.service));
            let old = docker.daemon_json.as_ref();
            let path = old.map_or_else(|| path(DAEMON_JSON), |old| Ok(old.path.clone()))?;
            steps.extend(file(&path, old, text, 0o644));
            restart = Restart::Forwards;
        }
        Driver::Stuck(why) => {
            return Err(CGROUP_DRIVER_MISMATCH.found(
                why,
                "Stop Docker's containers, give Docker the kubelet's driver (exec-opts native.cgroupdriver in daemon.json), restart it, and plan again.",
            ));
        }
    }
    steps.extend(started(
        &docker.service,
        &docker.socket,
        restart,
        &docker.endpoint,
        None,
    ));
    Ok(steps)
}
