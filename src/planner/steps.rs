//! Parts of plans that several planners write alike.

use crate::{
    plan::{
        codes::configuration::FLAGS_NOT_EDITABLE,
        document::Section,
        effective::Effective,
        facts::{Facts, MaybeFile, TextFile, UnitFacts},
        finding::Finding,
        host_path::HostPath,
        paths::OWN_UNITS,
        step::{
            AwaitStep, Boot, Contents, FileStep, KubeletWant, Proof, Rehearsal, Restart, Side, Step, UnitStep,
        },
    },
    planner::context::View,
};

/// What a recipe does in each section of a plan, in order.
pub type Sections = [(Section, Vec<Step>); 3];

/// How long a runtime may take until it answers.
pub const RUNTIME_WITHIN_SECS: u32 = 60;

/// A step that waits for the target in the version that runs from then on, and for the kubelet on it where that is to be
/// healthy too.
pub fn await_target(view: &View<'_>, kubelet: Option<KubeletWant>, within_secs: u32) -> Step {
    Step::Await(AwaitStep {
        side: Side::Target,
        runtime: view.target.cri.clone(),
        configuration: None,
        version: view
            .target
            .runtime
            .reports_own_version()
            .then(|| view.target.version.clone()),
        kubelet,
        within_secs,
    })
}

/// A step for a file whose text changes, or which is open to others and must not be; a file that is as it must be
/// needs none.
pub fn file(path: &HostPath, old: Option<&TextFile>, text: String, mode: u32) -> Option<Step> {
    let too_wide = |old: &TextFile| mode & 0o077 == 0 && old.mode & 0o077 != 0;
    if old.is_some_and(|old| old.text == text && !too_wide(old)) {
        return None;
    }
    Some(Step::File(FileStep {
        path: path.clone(),
        planned_from: old.map(|old| old.digest.clone()),
        want: Some(Contents { text, mode }),
    }))
}

/// Steps for those files of a unit that an edit changes; `None` if one of them is not an administrator's, or none is changed.
pub fn own_files<'a>(
    files: impl Iterator<Item = &'a TextFile>,
    edit: impl Fn(&str) -> Option<String>,
) -> Option<Vec<Step>> {
    let changed = files.filter_map(|old| Some((old, edit(&old.text)?)));
    let steps = changed.map(|(old, text)| {
        let is_own = old.path.as_str().starts_with(OWN_UNITS);
        is_own
            .then(|| file(&old.path, Some(old), text, old.mode))
            .flatten()
    });
    let steps: Option<Vec<Step>> = steps.collect();
    steps.filter(|steps| !steps.is_empty())
}

/// A path of the host, or the finding that it is not a plain one.
pub fn path(text: &str) -> Result<HostPath, Finding> {
    HostPath::new(text).map_err(|error| {
        FLAGS_NOT_EDITABLE.found(
            error.to_string(),
            "Name the directory by its plain, absolute path.",
        )
    })
}

/// The step that opens the bracket of a unit's files: it changes nothing, and restarts the unit when it is undone, after its old
/// files are back.
pub fn opening(unit: &UnitFacts) -> Step {
    Step::Unit(UnitStep {
        unit: unit.name.clone(),
        active: None,
        boot: None,
        restart: Restart::Backwards,
        socket: None,
        effective: None,
    })
}

/// Whether a line of a drop-in of ours names the program that an archive has brought.
pub fn starts_program(line: &str) -> bool {
    line.starts_with("ExecStart=") || line.starts_with("Environment=\"PATH=")
}

/// Lines of a unit's drop-in for its program: its command and its `PATH` where the plan has `brought` one for a unit that `is_there`;
/// else those of the `old` drop-in, for the program that an earlier plan brought goes on running.
pub fn program_lines(
    brought: Option<(String, String)>,
    is_there: bool,
    old: Option<&TextFile>,
) -> Vec<String> {
    match brought {
        Some((command, search_path)) if is_there => vec![
            search_path,
            "ExecStart=".to_owned(),
            format!("ExecStart={command}"),
        ],
        Some(_) => Vec::new(),
        None => {
            let text = old.map_or("", |file| file.text.as_str());
            text.lines()
                .filter(|line| starts_program(line))
                .map(str::to_owned)
                .collect()
        }
    }
}

/// A unit that the plan is going to write.
pub fn future_unit(name: &str, exec_start: &[&str]) -> UnitFacts {
    UnitFacts {
        name: name.to_owned(),
        load: "loaded".to_owned(),
        active: "inactive".to_owned(),
        boot: "disabled".to_owned(),
        exec_start: exec_start.iter().map(|word| (*word).to_owned()).collect(),
        ..UnitFacts::default()
    }
}

/// A service and its socket stopped, and kept from being started by anybody. The socket would start the service
/// again, so both are; and systemd starts no socket whose service is masked, so the service is masked last and, on
/// the way back, unmasked first.
pub fn ended(service: &UnitFacts, socket: &UnitFacts, listens: &HostPath) -> Vec<Step> {
    let step = |unit: &UnitFacts, active, boot| {
        Step::Unit(UnitStep {
            unit: unit.name.clone(),
            active,
            boot: Some(boot),
            restart: Restart::Never,
            socket: Some(listens.clone()),
            effective: None,
        })
    };
    let mut steps = Vec::new();
    if exists(service) {
        steps.push(step(service, Some(false), Boot::Disabled));
    }
    if exists(socket) {
        steps.push(step(socket, Some(false), never(socket)));
    }
    if exists(service) && never(service) == Boot::Masked {
        steps.push(step(service, None, Boot::Masked));
    }
    steps
}

/// A service and its socket enabled and running. What is so already needs no step, but for a service that is
/// restarted because its files changed. As the socket of a masked service cannot be started, the service is
/// unmasked first; on the way back it is masked last.
pub fn started(
    service: &UnitFacts,
    socket: &UnitFacts,
    restart: Restart,
    listens: &HostPath,
    effective: Option<Effective>,
) -> Vec<Step> {
    let step = |unit: &UnitFacts, active, restart, effective| {
        Step::Unit(UnitStep {
            unit: unit.name.clone(),
            active,
            boot: Some(Boot::Enabled),
            restart,
            socket: Some(listens.clone()),
            effective,
        })
    };
    let ready = |unit: &UnitFacts| unit.active == "active" && unit.boot == "enabled";
    let mut steps = Vec::new();
    // A service that runs without its socket listens by itself, and the socket could not be started beside it.
    let by_itself = service.active == "active" && socket.active != "active";
    if exists(socket) && !ready(socket) && !by_itself {
        if service.load == "masked" {
            steps.push(step(service, None, Restart::Never, None));
        }
        steps.push(step(socket, Some(true), Restart::Never, None));
    }
    if !ready(service) || restart != Restart::Never {
        steps.push(step(service, Some(true), restart, effective));
    }
    steps
}

/// Whether there is such a unit.
fn exists(unit: &UnitFacts) -> bool {
    unit.load != "not-found" && !unit.load.is_empty()
}

/// Masked, or, where the unit's file lies where the mask would, disabled.
fn never(unit: &UnitFacts) -> Boot {
    if unit.own_file().is_some() {
        Boot::Disabled
    } else {
        Boot::Masked
    }
}

/// A path with the file there, if one was found.
pub fn maybe(facts: &Facts, path: &str) -> Result<MaybeFile, Finding> {
    let path = self::path(path)?;
    let file = facts.text_at(&path).cloned();
    Ok(MaybeFile { path, file })
}

/// Seconds within which a switch must be confirmed.
pub fn confirm_within_secs(view: &View<'_>) -> u32 {
    let within = view.request.rollback.confirm_within.get().as_secs();
    u32::try_from(within).unwrap_or(u32::MAX)
}

/// Seconds between the confirmation and the commit.
pub fn soak_secs(view: &View<'_>) -> u32 {
    let soak = view.request.rollback.soak.get().as_secs();
    u32::try_from(soak).unwrap_or(u32::MAX)
}

/// A step that proves the target with a sandbox.
pub fn rehearsal(view: &View<'_>, pod_network: bool, proof: Proof) -> Step {
    Step::Rehearse(sandbox(view, pod_network, proof))
}

/// The sandbox of such a step.
pub fn sandbox(view: &View<'_>, pod_network: bool, proof: Proof) -> Rehearsal {
    Rehearsal {
        cri: view.target.cri.clone(),
        cgroup_parent: match view.cgroup_driver() {
            "systemd" => "transship.slice".to_owned(),
            _ => "/transship".to_owned(),
        },
        pod_network,
        proof,
    }
}
