//! Who else acts on the runtimes of this node: units and scripts that start Docker again, and agents that write files
//! back.

use crate::{
    plan::{
        codes::rivals::{
            DOCKER_NOT_A_SERVICE, DOCKER_STARTED_ELSEWHERE, FILES_MANAGED, INSTALLER_WOULD_UNDO,
            KUBESPRAY_WOULD_UNDO, UNITS_NEED_DOCKER,
        },
        finding::Finding,
        installed::Installed,
        lists,
        paths::DOCKER_UNITS,
        runtime::Runtime,
        step::KUBELET_UNIT,
    },
    planner::context::View,
};

/// Checks of the rest of the host.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(not_a_service(view));
    if view.docker_ends() {
        findings.extend(dependents(view));
        findings.extend(starters(view));
    }
    findings.extend(managed(view));
    findings.extend(kubespray(view));
    findings.extend(installer(view));
    findings
}

/// Where Kubespray writes the kubelet's variables, and its configuration.
const KUBESPRAYS: [&str; 2] = [
    "/etc/kubernetes/kubelet.env",
    "/etc/kubernetes/kubelet-config.yaml",
];

/// Kubespray, whose inventory must say what the node has become.
fn kubespray(view: &View<'_>) -> Option<Finding> {
    let [variables, settings] = KUBESPRAYS;
    let kubelet = view.kubelet;
    let reads = (kubelet.unit.environment_files.iter()).any(|file| file.path.as_str() == variables);
    let configured = (kubelet.config.as_ref()).is_some_and(|config| config.path.as_str() == settings);
    if !reads || !configured {
        return None;
    }
    let wanted = if view.upgrades() {
        format!("{}_version: {}", view.target.runtime.name(), view.target.version)
    } else {
        let mut wanted = view.target.runtime.profile().kubespray.join(", ");
        // Names of the cluster are Docker's to resolve; `docs/upgrades/migrate_docker2containerd.md` of Kubespray.
        let drop_ins = view.docker_left().into_iter();
        let mut drop_ins = drop_ins.flat_map(|(docker, _)| &docker.service.drop_ins);
        if drop_ins.any(|file| file.path.as_str().ends_with("/docker-dns.conf")) {
            wanted.push_str(", resolvconf_mode: host_resolvconf (in the place of docker_dns)");
        }
        wanted
    };
    Some(KUBESPRAY_WOULD_UNDO.found(
        format!("kubelet.service reads {variables} and {settings}, which Kubespray's next play writes for the runtime of its inventory"),
        format!("Set in the inventory before that: {wanted}."),
    ))
}

/// Where minikube has the programs of a cluster.
const MINIKUBES: &str = "/var/lib/minikube/binaries/";
/// The variable with all flags of a kubelet of kOps, and its file (`nodeup/pkg/model/kubelet.go`).
const KOPS: [&str; 2] = ["$DAEMON_ARGS", "/etc/sysconfig/kubelet"];

/// Installers that write the files of the kubelet and of its runtime at every start.
fn installer(view: &View<'_>) -> Option<Finding> {
    let kubelet = view.kubelet;
    let names = view.target.runtime.profile().installers;
    let program = kubelet.command_line.first().filter(|_| !view.upgrades())?;
    if program.starts_with(MINIKUBES) {
        return Some(INSTALLER_WOULD_UNDO.found(
            format!("kubelet.service starts {program}: `minikube start` writes its flags and the runtimes' files again, for the runtime of its profile"),
            format!("From then on start the profile with `--container-runtime={}`, which minikube remembers.", names.minikube),
        ));
    }
    let [variable, file] = KOPS;
    let unit = &kubelet.unit;
    let has_all = unit.exec_start.iter().any(|word| word == variable)
        && unit
            .environment_files
            .iter()
            .any(|found| found.path.as_str() == file);
    has_all.then(|| {
        INSTALLER_WOULD_UNDO.found(
            format!("kubelet.service takes {variable} from {file}: nodeup of kOps writes that file and the runtimes' own at every boot, for the runtime of its cluster, and after a boot the node would not serve"),
            match names.kops {
                Some(name) => format!("Set `spec.containerRuntime: {name}` in the cluster, and let `kops rolling-update cluster` bring new nodes; a move of this one lasts until its next boot."),
                None => "kOps has no such runtime: leave this node out.".to_owned(),
            },
        )
    })
}

fn not_a_service(view: &View<'_>) -> Option<Finding> {
    let (docker, engine) = view.docker_left()?;
    if docker.service.load != "not-found" {
        return None;
    }
    let unit = docker.other_unit.as_deref();
    let runs_as = unit.map_or("not as a known unit".to_owned(), |unit| format!("as {unit}"));
    Some(DOCKER_NOT_A_SERVICE.found(
        format!(
            "Docker {} answers at {} and runs {runs_as}; there is no docker.service: Docker is not stopped, keeps its \
             packet filter rules, and its settings are not read",
            engine.version, docker.endpoint
        ),
        format!(
            "Carry its settings over by hand, stop and disable {} after the switch, and accept it with \
             `preflight.allow: [DockerNotAService]`.",
            unit.unwrap_or("it")
        ),
    ))
}

fn dependents(view: &View<'_>) -> Option<Finding> {
    let (docker, _) = view.docker_left()?;
    let units = docker.service.needed_by.iter().chain(&docker.socket.needed_by);
    let mut units: Vec<String> = units
        .filter(|unit| !unit.ends_with(".target") && !is_of_runtimes(view, unit))
        .cloned()
        .collect();
    units.sort_unstable();
    units.dedup();
    (!units.is_empty()).then(|| {
        UNITS_NEED_DOCKER.found(
            format!("docker.service is required or wanted by {}", lists::many(&units)),
            "Units that require it stop with it and do not start again; disable them, or keep Docker with \
             `source.keep: true` if they run containers of their own.",
        )
    })
}

/// Whether a unit is Docker's, the kubelet's or a runtime's: the plan itself takes care of it.
fn is_of_runtimes(view: &View<'_>, unit: &str) -> bool {
    let usual = |runtime: Runtime| runtime.profile().units.contains(&unit);
    let found = |found: Installed<'_>| {
        let units = std::iter::once(found.service).chain(found.socket);
        units.into_iter().any(|one| one.name == unit)
    };
    unit == KUBELET_UNIT
        || DOCKER_UNITS.contains(&unit)
        || Runtime::ALL.into_iter().any(usual)
        || view.facts.installed().into_values().any(found)
}

fn starters(view: &View<'_>) -> Option<Finding> {
    let files: Vec<String> = view
        .facts
        .rivals
        .starters
        .iter()
        .map(ToString::to_string)
        .collect();
    (!files.is_empty()).then(|| {
        DOCKER_STARTED_ELSEWHERE.found(
            format!("Docker is started by {}", lists::many(&files)),
            "Switch that off before the move: a masked docker.service cannot be started, but whoever tries may report \
             the node as broken or restart it.",
        )
    })
}

fn managed(view: &View<'_>) -> Option<Finding> {
    let marked = view
        .facts
        .texts()
        .filter(|file| is_managed(&file.text))
        .map(|file| file.path.to_string());
    let agents = view.facts.rivals.agents.iter().cloned();
    let mut who: Vec<String> = agents.chain(marked).collect();
    who.sort_unstable();
    who.dedup();
    (!who.is_empty()).then(|| {
        FILES_MANAGED.found(
            format!("configuration management writes files here: {}", lists::many(&who)),
            "Change what it applies (roles, manifests, templates) to the target first, or stop it on this node until \
             that is done.",
        )
    })
}

/// Whether the comment at the head of a file says that a program writes it.
fn is_managed(text: &str) -> bool {
    const MARKS: [&str; 8] = [
        "ansible managed",
        "managed by ansible",
        "managed by puppet",
        "managed by chef",
        "generated by chef",
        "managed by salt",
        "managed by terraform",
        "managed by cfengine",
    ];
    let comments = text
        .lines()
        .take(10)
        .filter(|line| line.trim_start().starts_with(['#', ';', '/']));
    let mut comments = comments.map(str::to_ascii_lowercase);
    comments.any(|line| MARKS.iter().any(|mark| line.contains(mark)))
}
