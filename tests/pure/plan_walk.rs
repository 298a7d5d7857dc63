//! A plan read backwards must be a valid procedure too. Every plan of every host is walked forwards to every
//! step and back again, on a small model of systemd, files and pods that knows what each process has read.

mod hosts;

use std::collections::{BTreeMap, BTreeSet};

use transship::{
    api::request::Runtime,
    plan::{
        digest::Digest,
        document::Plan,
        facts::{Facts, MaybeFile, TextFile},
        host_path::HostPath,
        paths::HOLD_DROP_IN,
        step::{Boot, FileStep, InstallStep, KUBELET_UNIT, Restart, Side, Step, UnitStep},
    },
    planner::{self, plan, request::Request},
};

use crate::fixtures;

const CONTAINERD: &str = "containerd.service";

const DOCKER: &str = "docker.service";

const DOCKER_SOCKET: &str = "docker.socket";

const SHIM: &str = "cri-docker.service";

const SHIM_SOCKET: &str = "cri-docker.socket";

type Files = BTreeMap<String, Option<String>>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Unit {
    active: bool,
    boot: String,
    /// Its files as they were when it was started; none while it does not run.
    read: Files,
    /// Units whose stop or restart is its own.
    bound_to: Vec<String>,
}

impl Unit {
    /// Whether its own files, as it read them, or the unit itself bind it to another one.
    fn is_bound_to(&self, other: &str) -> bool {
        let written = [format!("Requires={other}\n"), format!("PartOf={other}\n")];
        let says = |text: &String| written.iter().any(|line| text.contains(line));
        self.bound_to.iter().any(|unit| unit == other) || self.read.values().flatten().any(says)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Host {
    files: Files,
    /// The unit files as systemd read them when it was last reloaded.
    loaded: Files,
    units: BTreeMap<String, Unit>,
    /// Whose pods run.
    pods: Option<Runtime>,
    /// The source has sandboxes of pods.
    sandboxes: bool,
    /// Pods ended with Docker, which nobody meant to.
    died: bool,
    /// Directories that archives were unpacked into, and programs that were copied.
    unpacked: BTreeSet<HostPath>,
}

/// What undo needs, saved before a step is applied.
#[derive(Clone, Debug)]
enum Saved {
    File(Option<String>),
    Unit(Option<Unit>),
    Nothing,
}

impl Host {
    fn new(facts: &Facts, plan: &Plan) -> Self {
        let files: Files = plan
            .steps
            .iter()
            .filter_map(|step| match &step.does {
                Step::File(file) => Some(file),
                _ => None,
            })
            .map(|file| {
                (
                    file.path.to_string(),
                    facts.text_at(&file.path).map(|found| found.text.clone()),
                )
            })
            .collect();
        let docker = facts
            .docker
            .iter()
            .flat_map(|docker| [&docker.service, &docker.socket]);
        let shim = facts
            .cri_dockerd
            .iter()
            .flat_map(|shim| [&shim.service, &shim.socket]);
        let containerd = facts.containerd.iter().map(|containerd| &containerd.service);
        let kubelet = facts.kubelet.iter().map(|kubelet| &kubelet.unit);
        let units = kubelet
            .chain(docker)
            .chain(shim)
            .chain(containerd)
            .map(|unit| {
                let active = unit.active == "active";
                let read = if active {
                    read_by(&unit.name, &files)
                } else {
                    Files::new()
                };
                let unit_of = Unit {
                    active,
                    boot: unit.boot.clone(),
                    read,
                    bound_to: unit.bound_to.clone(),
                };
                (unit.name.clone(), unit_of)
            })
            .collect();
        Self {
            loaded: unit_files(&files),
            files,
            units,
            pods: Some(plan.source.runtime),
            sandboxes: true,
            died: false,
            unpacked: BTreeSet::new(),
        }
    }

    fn active(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.active)
    }

    /// A unit, which is new where the plan writes its file.
    fn unit(&mut self, name: &str) -> &mut Unit {
        self.units.entry(name.to_owned()).or_insert_with(|| Unit {
            active: false,
            boot: "disabled".to_owned(),
            read: Files::new(),
            bound_to: Vec::new(),
        })
    }

    /// The files as a unit that is started now has them.
    fn seen(&self) -> Files {
        let seen = |(path, text): (&String, &Option<String>)| {
            let loaded = is_unit_file(path).then(|| self.loaded[path].clone());
            (path.clone(), loaded.unwrap_or_else(|| text.clone()))
        };
        self.files.iter().map(seen).collect()
    }

    /// A file changes; systemd is reloaded where the executor does that.
    fn write(&mut self, file: &FileStep, text: Option<String>) {
        self.files.insert(file.path.to_string(), text);
        if file.is_unit_file() {
            self.loaded = unit_files(&self.files);
        }
    }

    fn start(&mut self, name: &str) {
        let read = read_by(name, &self.seen());
        if let Some(service) = name.strip_suffix(".socket").map(|name| format!("{name}.service")) {
            let masked = self.units.get(&service).is_some_and(|unit| unit.boot == "masked");
            assert!(!masked, "systemd starts no socket whose service is masked");
            assert!(
                self.active(name) || !self.active(&service),
                "systemd starts no socket whose service listens by itself"
            );
        }
        let unit = self.unit(name);
        assert_ne!(unit.boot, "masked", "{name} is started while it is masked");
        if unit.active {
            return;
        }
        (unit.active, unit.read) = (true, read);
        // What it requires comes with it; a socket that is only part of its service requires nothing.
        let unit = unit.clone();
        for other in [DOCKER, DOCKER_SOCKET, SHIM_SOCKET] {
            if name.ends_with(".service") && unit.is_bound_to(other) && !self.active(other) {
                self.units.get_mut(name).unwrap().active = false;
                self.start(other);
                self.units.get_mut(name).unwrap().active = true;
            }
        }
    }

    /// Active units that are bound to this one.
    fn bound(&self, name: &str) -> Vec<String> {
        let bound = self
            .units
            .iter()
            .filter(|(_, unit)| unit.active && unit.is_bound_to(name));
        bound.map(|(name, _)| name.clone()).collect()
    }

    fn stop(&mut self, name: &str) {
        let Some(unit) = self.units.get_mut(name) else {
            return;
        };
        let ran = std::mem::replace(&mut unit.active, false);
        unit.read = Files::new();
        if ran && name == DOCKER && self.pods.is_some_and(|pods| units_of(pods).contains(&DOCKER)) {
            (self.pods, self.died) = (None, true);
        }
        for other in self.bound(name) {
            self.stop(&other);
        }
    }

    fn restart(&mut self, name: &str) {
        let bound = self.bound(name);
        self.stop(name);
        self.start(name);
        bound.iter().for_each(|other| self.start(other));
    }

    fn save(&self, step: &Step) -> Saved {
        match step {
            Step::File(file) => Saved::File(self.files[file.path.as_str()].clone()),
            Step::Unit(unit) => Saved::Unit(self.units.get(&unit.unit).cloned()),
            _ => Saved::Nothing,
        }
    }

    fn serves(&self, runtime: Runtime) -> bool {
        units_of(runtime).iter().all(|unit| self.active(unit))
    }

    /// Whether the store of a runtime can be asked.
    fn stores(&self, runtime: Runtime) -> bool {
        self.serves(if runtime == Runtime::Containerd {
            runtime
        } else {
            Runtime::Dockershim
        })
    }

    fn apply(&mut self, step: &Step, walk: &Walk<'_>) {
        match step {
            Step::File(file) => self.apply_file(file),
            Step::Unit(unit) => self.apply_unit(unit),
            // It brings its units, which are not started by it.
            Step::Install(InstallStep::Package(package)) => {
                assert!(package.units.iter().all(|unit| !self.active(unit)), "{package:?}");
            }
            Step::Install(InstallStep::Archive(archive)) => {
                assert!(self.unpacked.insert(archive.dir.clone()), "unpacked once");
            }
            Step::Images(images) => {
                assert!(self.stores(images.from.runtime) && self.stores(images.to.runtime));
                assert_ne!(images.from.socket, images.to.socket);
                assert!(!images.names.is_empty());
            }
            Step::Rehearse(rehearsal) => assert!(self.serves(rehearsal.cri.runtime)),
            // A daemon of its own, of which nothing stays.
            Step::RehearseDaemon(_) => {}
            Step::Install(InstallStep::Program(program)) => {
                assert!(self.unpacked.insert(program.copy.clone()), "copied once");
            }
            Step::Tasks(tasks) => assert!(self.serves(tasks.cri.runtime)),
            Step::Shims(_) => {}
            Step::StopPods(stop) => {
                self.end_pods(stop.source.runtime);
                // Over one engine their sandboxes go with them.
                self.sandboxes &= !stop.share_an_engine();
            }
            Step::ClearPods(clear) => {
                assert!(
                    self.serves(clear.source.runtime),
                    "{} can be asked",
                    clear.source.runtime
                );
                assert_ne!(self.pods, Some(clear.source.runtime), "its containers have ended");
                self.sandboxes = false;
            }
            Step::Kubelet(kubelet) if kubelet.run => self.start_kubelet(walk),
            Step::Kubelet(_) => {
                assert!(self.loaded[HOLD_DROP_IN].is_some(), "the hold holds");
                self.stop(KUBELET_UNIT);
            }
            Step::Await(wait) if wait.side == Side::Target => {
                assert!(self.serves(wait.runtime.runtime), "the target runs");
                for unit in units_of(wait.runtime.runtime) {
                    let read = &self.units[*unit].read;
                    assert_eq!(*read, read_by(unit, &self.files), "with its new files");
                }
                if wait.kubelet.is_some() {
                    assert_eq!(
                        self.units[KUBELET_UNIT].read, walk.after,
                        "the kubelet runs with its new files"
                    );
                    assert_eq!(self.pods, Some(wait.runtime.runtime));
                }
            }
            Step::Await(_) => {}
        }
    }

    fn apply_file(&mut self, file: &FileStep) {
        let now = self.files[file.path.as_str()].as_ref().map(Digest::of);
        assert_eq!(
            now, file.planned_from,
            "{} is the one that the step was planned from",
            file.path
        );
        let want = file.want.as_ref().map(|want| want.text.clone());
        assert_ne!(now, want.as_ref().map(Digest::of), "{} changes", file.path);
        self.write(file, want);
    }

    fn apply_unit(&mut self, step: &UnitStep) {
        let name = &step.unit;
        let was = self.active(name);
        if let Some(boot) = step.boot {
            let word = match boot {
                Boot::Enabled => "enabled",
                Boot::Disabled => "disabled",
                Boot::Masked => "masked",
            };
            self.unit(name).boot = word.to_owned();
        }
        match step.active {
            Some(true) => self.start(name),
            Some(false) => self.stop(name),
            None => {}
        }
        if was && step.restart == Restart::Forwards {
            self.restart(name);
        }
    }

    fn undo(&mut self, step: &Step, saved: Saved, walk: &Walk<'_>) {
        match (step, saved) {
            (Step::File(file), Saved::File(old)) => {
                self.write(file, old);
            }
            (Step::Unit(step), Saved::Unit(Some(old))) => {
                self.units.get_mut(&step.unit).unwrap().boot = old.boot.clone();
                if step.active.is_some() {
                    if old.active {
                        self.start(&step.unit)
                    } else {
                        self.stop(&step.unit)
                    }
                }
                if old.active && step.restart == Restart::StartedBackwards {
                    self.start(&step.unit);
                }
                if old.active && step.restart == Restart::StoppedBackwards {
                    self.stop(&step.unit);
                }
                if old.active && step.restart == Restart::Backwards {
                    self.restart(&step.unit);
                }
            }
            // A step that was begun and not applied is undone, too.
            (Step::Install(InstallStep::Archive(archive)), _) => drop(self.unpacked.remove(&archive.dir)),
            (Step::Install(InstallStep::Program(program)), _) => drop(self.unpacked.remove(&program.copy)),
            (Step::Install(InstallStep::Package(package)), _) => {
                assert!(
                    package.units.iter().all(|unit| !self.active(unit)),
                    "stopped before they go"
                );
            }
            (Step::Unit(step), Saved::Unit(None)) => {
                self.stop(&step.unit);
                self.units.remove(&step.unit);
            }
            (Step::Images(images), _) => assert!(self.stores(images.to.runtime), "images can be removed"),
            (Step::Rehearse(rehearsal), _) => assert!(self.serves(rehearsal.cri.runtime)),
            (Step::RehearseDaemon(_), _) => {}
            (Step::Tasks(tasks), _) => assert!(self.serves(tasks.cri.runtime)),
            (Step::Shims(shims), _) => assert!(self.serves(shims.cri.runtime)),
            (Step::StopPods(stop), _) => self.end_pods(stop.target.runtime),
            (Step::Kubelet(kubelet), _) if kubelet.run => self.stop(KUBELET_UNIT),
            (Step::Kubelet(_), _) => self.start_kubelet(walk),
            (Step::Await(wait), _) if wait.side == Side::Source => {
                assert!(self.serves(wait.runtime.runtime), "the source runs");
                assert_eq!(
                    self.units[KUBELET_UNIT].read, walk.before,
                    "the kubelet runs with its old files"
                );
                assert_eq!(self.pods, Some(wait.runtime.runtime));
            }
            (Step::Await(_) | Step::ClearPods(_), _) => {}
            (step, saved) => panic!("{step:?} with {saved:?}"),
        }
    }

    fn end_pods(&mut self, runtime: Runtime) {
        assert!(!self.active(KUBELET_UNIT), "the kubelet would start them again");
        assert!(self.serves(runtime), "{runtime} can be asked");
        if self.pods == Some(runtime) {
            self.pods = None;
        }
    }

    fn start_kubelet(&mut self, walk: &Walk<'_>) {
        if self.active(KUBELET_UNIT) {
            return;
        }
        let read = read_by(KUBELET_UNIT, &self.seen());
        let runtime = if read == walk.after {
            walk.plan.target.runtime
        } else {
            assert_eq!(
                read, walk.before,
                "the kubelet is never started while its files are half-changed"
            );
            walk.plan.source.runtime
        };
        assert!(self.serves(runtime), "the kubelet finds {runtime}");
        assert!(self.pods.is_none_or(|pods| pods == runtime), "no pod runs twice");
        self.start(KUBELET_UNIT);
        self.pods = Some(runtime);
        self.sandboxes |= runtime == walk.plan.source.runtime;
    }
}

/// The kubelet's files before and after a plan.
struct Walk<'a> {
    plan: &'a Plan,
    before: Files,
    after: Files,
}

/// The units that must run for a runtime to serve.
fn units_of(runtime: Runtime) -> &'static [&'static str] {
    match runtime {
        Runtime::Containerd => &[CONTAINERD],
        Runtime::CriDockerd => &[DOCKER, SHIM],
        Runtime::Dockershim => &[DOCKER],
        Runtime::CriO => panic!("no plan has it"),
    }
}

fn unit_files(files: &Files) -> Files {
    let found = files.iter().filter(|(path, _)| is_unit_file(path));
    found.map(|(path, text)| (path.clone(), text.clone())).collect()
}

/// Whether systemd keeps what it has read of this file until it is reloaded.
fn is_unit_file(path: &str) -> bool {
    path.starts_with("/etc/systemd/system/")
}

/// Which files a unit reads when it is started. The hold does not change what the kubelet is.
fn read_by(unit: &str, files: &Files) -> Files {
    let reads = |path: &str| match unit {
        CONTAINERD => path.starts_with("/etc/containerd/") || path.contains("/containerd.service"),
        DOCKER => path.starts_with("/etc/docker/"),
        SHIM => path.contains("/cri-docker.service"),
        SHIM_SOCKET => path.contains("/cri-docker.socket"),
        KUBELET_UNIT => path.contains("kube") && !path.ends_with("-hold.conf"),
        _ => false,
    };
    files
        .iter()
        .filter(|(path, _)| reads(path))
        .map(|(path, text)| (path.clone(), text.clone()))
        .collect()
}

impl Walk<'_> {
    /// Forwards over `steps` steps, one more begun but not applied if `begun`, and back again.
    fn there_and_back(&self, start: &Host, steps: usize, begun: bool) {
        let mut host = start.clone();
        let mut saved = Vec::new();
        for planned in &self.plan.steps[..steps] {
            saved.push(host.save(&planned.does));
            host.apply(&planned.does, self);
        }
        if begun {
            saved.push(host.save(&self.plan.steps[steps].does));
        }
        // From here on the pods end, or Docker is about to be stopped on the way back from where they have.
        let ends = |step: &Step| match step {
            Step::StopPods(_) => true,
            Step::Unit(unit) => unit.restart == Restart::StoppedBackwards,
            _ => false,
        };
        let alive = !self.plan.steps[..saved.len()].iter().any(|step| ends(&step.does));
        while let Some(old) = saved.pop() {
            host.undo(&self.plan.steps[saved.len()].does, old, self);
        }
        assert!(!(alive && host.died), "pods died after {steps} steps and back");
        host.died = false;
        assert_eq!(&host, start, "after {steps} steps and back");
    }
}

fn walk(facts: &Facts, request: &Request, name: &str) {
    let outcome = plan(facts, request);
    if let Some(plan) = outcome.plan() {
        walk_plan(facts, request, name, plan);
    }
}

fn walk_plan(facts: &Facts, request: &Request, name: &str, plan: &Plan) {
    let start = Host::new(facts, plan);
    let mut after = start.files.clone();
    for step in &plan.steps {
        if let Step::File(FileStep { path, want, .. }) = &step.does {
            after.insert(path.to_string(), want.as_ref().map(|want| want.text.clone()));
        }
    }
    let walk = Walk {
        plan,
        before: read_by(KUBELET_UNIT, &start.files),
        after: read_by(KUBELET_UNIT, &after),
    };
    // A newer version of the same runtime takes over the pods, and the kubelet runs on.
    let upgrades = plan.source.runtime == plan.target.runtime;
    assert_eq!(
        walk.before == walk.after,
        upgrades,
        "{name}: the kubelet's files change"
    );
    assert!(
        plan.steps.is_sorted_by_key(|step| step.section),
        "{name}: sections follow each other"
    );
    for steps in 0..=plan.steps.len() {
        walk.there_and_back(&start, steps, false);
        if steps < plan.steps.len() {
            walk.there_and_back(&start, steps, true);
        }
    }

    let mut end = start.clone();
    plan.steps
        .iter()
        .for_each(|planned| end.apply(&planned.does, &walk));
    let target = plan.target.runtime;
    assert_eq!(end.pods, Some(target), "{name}");
    assert_eq!(
        end.sandboxes, upgrades,
        "{name}: what is left of the source's pods"
    );
    for unit in units_of(target) {
        assert!(end.active(unit), "{name}: {unit}");
        assert_eq!(end.units[*unit].boot, "enabled", "{name}: {unit}");
    }
    assert!(
        end.active(CONTAINERD) >= start.active(CONTAINERD),
        "{name}: Docker's engine runs on it"
    );
    let docker_stays = request.source.keep || target == Runtime::CriDockerd;
    assert_eq!(
        end.active(DOCKER),
        docker_stays && facts.docker.is_some(),
        "{name}"
    );
    for unit in [SHIM, SHIM_SOCKET] {
        assert_eq!(end.active(unit), target == Runtime::CriDockerd, "{name}: {unit}");
        if plan.source.runtime == Runtime::CriDockerd {
            assert_eq!(
                end.units[unit].boot, "masked",
                "{name}: any client would start {unit}"
            );
        }
    }
    assert!(
        end.files
            .iter()
            .all(|(path, text)| !path.ends_with("-hold.conf") || text.is_none()),
        "{name}"
    );
}
