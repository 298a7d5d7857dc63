//! The world that survives the executor: real files under a temporary root, systemd as a state machine, two
//! runtimes with images and pods. Before every effect on it the whole world can be kept: that is what an executor
//! that is killed there leaves, whatever it would have done next.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::statvfs::{FsFlags, statvfs};
use transship::{
    api::request::Runtime,
    host::{
        files::{Effect, Files},
        systemd::{Systemd, SystemdError, Unit},
    },
    plan::{
        host_path::HostPath,
        step::{ClearPods, Endpoint, HOLD_FILE, ImagesStep, KUBELET_UNIT, Rehearsal, StopPods},
    },
    runtime::{Carried, Health, KubeletHealth, Means, RuntimeError, Runtimes, Stopped},
};

use crate::{
    cases::{Bytes, Case, unit_of},
    disk::{Disk, Image, Left},
    programs::Programs,
};

/// What goes wrong in this world, in every life of the executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// containerd does not start with the new configuration.
    TargetRefusesConfig,
    /// The second image cannot be carried, after the first was.
    CarryFails,
    /// The rehearsal leaves its sandbox behind and fails.
    RehearsalFails,
    /// The pods of the source end, but the runtime reports a failure.
    StopPodsFails,
    /// What is left of the source's pods goes, but the runtime reports a failure.
    ClearPodsFails,
    /// The kubelet starts under the target and never becomes healthy.
    KubeletUnhealthy,
    /// The kubelet dies and is restarted again and again under the target.
    KubeletCrashes,
    /// Stopping the last of the source's units has its effect and is reported as failed.
    StopFails,
    /// Somebody masks the kubelet while it is stopped.
    KubeletMasked,
    /// This step has its effect forwards, and is reported as failed.
    StepFails(usize),
    /// The disk is full from this effect of a life on, until the reserve is given back.
    DiskFull(u64),
    /// `/etc` is read-only from the kubelet's stop on.
    ReadOnly,
    /// containerd dies after the pods of the source have ended, and does not come back with its new files.
    TargetDies,
    /// dpkg is killed while it unpacks this package, forwards.
    UnpackingDies(&'static str),
    /// The script of the target's package fails, after it has had its effect.
    ScriptFails,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FakeUnit {
    pub active: bool,
    pub failed: bool,
    pub boot: String,
    pub pid: u32,
    pub restarts: u32,
    /// The bytes of its files that it runs with.
    pub runs_with: Arc<Bytes>,
}

#[derive(Clone, Debug, Default, Hash)]
pub struct State {
    pub units: BTreeMap<String, FakeUnit>,
    /// Unit files as systemd last read them.
    pub loaded: Arc<Bytes>,
    pub images: BTreeMap<Runtime, BTreeSet<String>>,
    /// Runtimes with containers of pods that run.
    pub pods: BTreeSet<Runtime>,
    /// Runtimes with sandboxes of pods.
    pub sandboxes: BTreeSet<Runtime>,
    pub rehearsing: bool,
    /// Units that do not start until the next boot.
    pub masked: BTreeSet<String>,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    target_dead: bool,
    disk_full: bool,
    pids: u32,
}

/// The whole world at one moment, to go on from it.
#[derive(Clone)]
pub struct Moment {
    disk: Image,
    state: State,
}

impl Moment {
    /// The world after a power cut and before the boot.
    pub fn after_power_cut(&self, left: Left) -> Self {
        Self {
            disk: self.disk.after_power_cut(left),
            state: self.state.clone(),
        }
    }

    /// The same for moments from which everything goes on in the same way.
    pub fn digest(&self, reboot: bool) -> u64 {
        let mut hasher = DefaultHasher::new();
        reboot.hash(&mut hasher);
        self.disk.hash(&mut hasher);
        let mut state = self.state.clone();
        state.pids = 0;
        state.units.values_mut().for_each(|unit| unit.pid = 0);
        state.hash(&mut hasher);
        hasher.finish()
    }
}

/// A file or directory under the root: its mode, and its bytes unless it is a directory.
pub type Tree = BTreeMap<PathBuf, (u32, Option<Vec<u8>>)>;

/// What is kept of a life.
#[derive(Default)]
struct Log {
    /// Whether moments are not kept, and the disk is not watched; its model is then right again when it is restored.
    off: bool,
    moments: Vec<Moment>,
    /// Effects in this life.
    effects: u64,
}

pub struct World {
    root: PathBuf,
    /// How the host's programs say what they are about to do.
    pub programs: Programs,
    pub case: Arc<Case>,
    pub fault: Fault,
    state: Mutex<State>,
    disk: Mutex<Disk>,
    log: Mutex<Log>,
    kubelet_files: (Arc<Bytes>, Arc<Bytes>),
    target_files: Arc<Bytes>,
    _place: tempfile::TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

impl World {
    pub fn new(case: &Arc<Case>, fault: Fault) -> Arc<Self> {
        // In memory where there is such a place in which programs can run: the sweep syncs some million times.
        let shm = Path::new("/dev/shm");
        let runs = statvfs(shm).is_ok_and(|found| !found.flags().contains(FsFlags::ST_NOEXEC));
        let place = if runs {
            tempfile::tempdir_in(shm)
        } else {
            tempfile::tempdir()
        }
        .unwrap();
        let root = place.path().join("root");
        fs::create_dir(&root).unwrap();
        let files = Files::new(&root);
        for (path, mode, bytes) in &case.files {
            files.write(path, bytes, *mode).unwrap();
        }
        let files_of = |unit: &str| (Arc::new(case.first_files(unit)), Arc::new(case.final_files(unit)));
        let world = Arc::new(Self {
            disk: Mutex::new(Disk::new(&root)),
            root,
            programs: Programs::in_(place.path()),
            case: case.clone(),
            fault,
            state: Mutex::default(),
            log: Mutex::default(),
            kubelet_files: files_of(KUBELET_UNIT),
            target_files: files_of(&case.target_unit).1,
            _place: place,
        });
        {
            let mut state = world.state();
            for (name, active, boot) in &case.units {
                let unit = FakeUnit {
                    boot: boot.clone(),
                    ..FakeUnit::default()
                };
                state.units.insert(name.clone(), unit);
                if *active {
                    world.start_now(&mut state, name);
                }
            }
            state
                .images
                .insert(case.source(), case.images.iter().cloned().collect());
            state
                .images
                .insert(case.target(), case.images.iter().take(1).cloned().collect());
            state.pods.insert(case.source());
            state.sandboxes.insert(case.source());
        }
        world.read_units(&mut world.state());
        // Again, now that systemd knows the files.
        for (name, active, _) in &case.units {
            if *active {
                world.start_now(&mut world.state(), name);
            }
        }
        world
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The executor's files.
    pub fn files(self: &Arc<Self>) -> Files {
        let world = self.clone();
        Files::new(&self.root).with_hook(Arc::new(move |effect| world.about_to(effect)))
    }

    /// Something is about to happen on the disk, unless it cannot.
    pub fn about_to(&self, effect: Effect<'_>) -> io::Result<()> {
        let used = self.effect();
        let at = |path: &HostPath| self.root.join(path.relative());
        match (self.fault, effect) {
            // Giving the reserve back is the one thing that a full disk lets happen.
            (Fault::DiskFull(from), Effect::Change(changed)) => {
                let reserve = at(&self.case.dir_path()).join("reserve");
                let mut state = self.state();
                state.disk_full |= used > from;
                if state.disk_full && reserve.exists() && changed != reserve {
                    return Err(io::ErrorKind::StorageFull.into());
                }
            }
            (Fault::ReadOnly, Effect::Change(changed))
                if at(&path(HOLD_FILE)).exists() && changed.starts_with(self.root.join("etc")) =>
            {
                return Err(io::ErrorKind::ReadOnlyFilesystem.into());
            }
            (Fault::StepFails(step), Effect::SyncDirectory(directory)) => {
                let parent = self.case.file_of(step).and_then(HostPath::parent);
                if parent.is_some_and(|parent| directory == at(&parent)) && self.step_fails() {
                    return Err(io::Error::other("input/output error"));
                }
            }
            _ => {}
        }
        if self.is_watched() {
            lock(&self.disk).expect(effect);
        }
        Ok(())
    }

    /// The files of everybody else.
    pub fn free_files(self: &Arc<Self>) -> Files {
        let world = self.clone();
        Files::new(&self.root).with_hook(Arc::new(move |effect| {
            if world.is_watched() {
                let mut disk = lock(&world.disk);
                disk.image();
                disk.expect(effect);
            }
            Ok(())
        }))
    }

    /// The world right now.
    pub fn moment(&self) -> Moment {
        Moment {
            disk: lock(&self.disk).image(),
            state: self.state().clone(),
        }
    }

    /// A life begins; its moments are kept or not.
    pub fn begin_life(&self, keep: bool) {
        let mut log = lock(&self.log);
        log.off = !keep;
        log.effects = 0;
    }

    /// The moments before every effect that were kept.
    pub fn take_moments(&self) -> Vec<Moment> {
        std::mem::take(&mut lock(&self.log).moments)
    }

    fn is_watched(&self) -> bool {
        !lock(&self.log).off
    }

    /// An effect is about to happen; answers how many did in this life.
    pub fn effect(&self) -> u64 {
        let watched = self.is_watched().then(|| self.moment());
        let mut log = lock(&self.log);
        log.moments.extend(watched);
        log.effects += 1;
        log.effects
    }

    /// Whether the step that is being applied is the one that fails.
    fn step_fails(&self) -> bool {
        let Fault::StepFails(step) = self.fault else {
            return false;
        };
        let journal = self.journal();
        let last = journal
            .rfind("\"event\":\"started\",\"step\":")
            .map(|at| &journal[at..]);
        !self.goes_back()
            && last.is_some_and(|last| last.starts_with(&format!("\"event\":\"started\",\"step\":{step},")))
            && !journal.contains(&format!("\"event\":\"done\",\"step\":{step}}}"))
    }

    /// Whether the way back has begun; a torn line has not happened.
    pub fn goes_back(&self) -> bool {
        let journal = self.journal();
        let whole = journal.rsplit_once('\n').map_or("", |(whole, _)| whole);
        ["failed", "reverting"]
            .iter()
            .any(|event| whole.contains(&format!("\"event\":\"{event}\"")))
    }

    /// The text of the journal.
    pub fn journal(&self) -> String {
        let at = self.root.join(self.case.dir_path().relative()).join("journal");
        fs::read_to_string(at).unwrap_or_default()
    }

    /// All that is on the disk but Transship's own state and unit, and what dpkg was about to write down.
    pub fn tree(&self) -> Tree {
        walkdir::WalkDir::new(&self.root)
            .into_iter()
            .map(Result::unwrap)
            .filter_map(|entry| {
                let inside = entry.path().strip_prefix(&self.root).unwrap().to_path_buf();
                let own = inside.starts_with("var/lib/transship")
                    || inside.ends_with("transship-executor.service")
                    || inside.ends_with(".transship-executor.service.transship")
                    || inside.starts_with("var/lib/dpkg")
                        && inside.extension().is_some_and(|end| end == "dpkg-tmp");
                let mode = entry.metadata().unwrap().permissions().mode();
                let bytes = entry
                    .file_type()
                    .is_file()
                    .then(|| fs::read(entry.path()).unwrap());
                (!own).then_some((inside, (mode, bytes)))
            })
            .collect()
    }

    /// Goes back, or on, to this moment.
    pub fn restore(&self, moment: &Moment) {
        lock(&self.disk).restore(&moment.disk);
        *self.state() = moment.state.clone();
    }

    /// A boot: what is enabled starts, runtimes before the kubelet.
    pub fn reboot(&self) {
        let mut state = self.state();
        for unit in state.units.values_mut() {
            unit.active = false;
            unit.failed = false;
            unit.restarts = 0;
        }
        state.rehearsing = false;
        state.masked.clear();
        self.read_units(&mut state);
        let mut names: Vec<String> = state.units.keys().cloned().collect();
        names.sort_by_key(|name| name == KUBELET_UNIT);
        for name in names {
            // Docker's unit wants containerd's, which on some hosts is not enabled itself.
            let wanted = name == self.case.target_unit
                && self
                    .case
                    .units
                    .iter()
                    .any(|(unit, active, _)| *unit == name && *active);
            let boot = &state.units[&name].boot;
            if boot == "enabled" || wanted && boot != "masked" {
                self.start_now(&mut state, &name);
            }
        }
    }

    fn read(&self, path: &HostPath) -> Option<Vec<u8>> {
        fs::read(self.root.join(path.relative())).ok()
    }

    pub fn read_units(&self, state: &mut State) {
        let paths = self
            .case
            .all_files()
            .filter(|path| path.as_str().contains("/systemd/"));
        state.loaded = Arc::new(paths.map(|path| (path.clone(), self.read(path))).collect());
        for (unit, file) in &self.case.packaged {
            if self.read(file).is_some() {
                let new = || FakeUnit {
                    boot: "disabled".to_owned(),
                    ..FakeUnit::default()
                };
                state.units.entry(unit.clone()).or_insert_with(new);
            } else {
                state.units.remove(unit);
            }
        }
    }

    /// The bytes of a unit's files as it would run with them now: its unit files as systemd read them.
    pub fn would_run_with(&self, state: &State, name: &str) -> Bytes {
        let current = |path: &HostPath| state.loaded.get(path).cloned().unwrap_or_else(|| self.read(path));
        self.case
            .files_of(name)
            .into_iter()
            .map(|path| (path.clone(), current(&path)))
            .collect()
    }

    /// Starts a unit as a job of systemd would; answers whether it runs.
    pub fn start_now(&self, state: &mut State, name: &str) -> bool {
        let held = state
            .loaded
            .values()
            .flatten()
            .any(|text| text.windows(20).any(|w| w == b"ConditionPathExists="));
        if name == KUBELET_UNIT && held && self.read(&path(HOLD_FILE)).is_some() {
            return false;
        }
        let runs_with = Arc::new(self.would_run_with(state, name));
        let dead = name == self.case.target_unit
            && (state.target_dead || self.fault == Fault::TargetRefusesConfig)
            && runs_with == self.target_files;
        state.pids += 1;
        let pid = state.pids;
        let unit = state.units.entry(name.to_owned()).or_default();
        (unit.active, unit.failed, unit.pid) = (!dead, dead, pid);
        unit.runs_with = runs_with;
        if name == KUBELET_UNIT {
            self.kubelet_started(state);
        }
        !dead
    }

    /// The kubelet makes its pods in the runtime that its files name.
    fn kubelet_started(&self, state: &mut State) {
        let runs_with = state.units[KUBELET_UNIT].runs_with.clone();
        let (first, last) = self.kubelet_files.clone();
        if runs_with != first && runs_with != last {
            state
                .violations
                .push("the kubelet was started half-switched".to_owned());
        }
        let under = if runs_with == last {
            self.case.target()
        } else {
            self.case.source()
        };
        if state.pods.iter().any(|other| *other != under) {
            state
                .violations
                .push(format!("the kubelet was started under {under} beside other pods"));
        }
        let unit = unit_of(under);
        if state.units.get(unit).is_none_or(|unit| unit.active) {
            state.pods.insert(under);
            state.sandboxes.insert(under);
        }
    }

    fn kubelet_under_target(&self, state: &State) -> bool {
        let kubelet = &state.units[KUBELET_UNIT];
        kubelet.active && kubelet.runs_with == self.kubelet_files.1
    }
}

/// An effect takes a moment, in which others act.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

fn refused(verb: &'static str, unit: &str, reason: &str) -> SystemdError {
    SystemdError::Refused {
        verb,
        unit: unit.to_owned(),
        reason: reason.to_owned(),
    }
}

impl Systemd for World {
    async fn unit(&self, name: &str) -> Result<Unit, SystemdError> {
        let mut state = self.state();
        if self.fault == Fault::KubeletCrashes && name == KUBELET_UNIT && self.kubelet_under_target(&state) {
            state.pids += 1;
            let pid = state.pids;
            let kubelet = state.units.get_mut(name).unwrap();
            kubelet.restarts += 1;
            kubelet.pid = pid;
        }
        let Some(unit) = state.units.get(name) else {
            return Ok(Unit {
                load: "not-found".to_owned(),
                active: "inactive".to_owned(),
                ..Unit::default()
            });
        };
        let needs_reload = state
            .loaded
            .iter()
            .any(|(path, bytes)| path.as_str().contains(&format!("/{name}")) && self.read(path) != *bytes);
        Ok(Unit {
            load: if unit.boot == "masked" || state.masked.contains(name) {
                "masked"
            } else {
                "loaded"
            }
            .to_owned(),
            active: match (unit.active, unit.failed) {
                (true, _) => "active",
                (false, true) => "failed",
                (false, false) => "inactive",
            }
            .to_owned(),
            boot: unit.boot.clone(),
            main_pid: if unit.active { unit.pid } else { 0 },
            restarts: unit.restarts,
            needs_reload,
        })
    }

    async fn start(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        {
            let mut state = self.state();
            let service = name.strip_suffix(".socket").map(|name| format!("{name}.service"));
            let service_masked = service.is_some_and(|service| {
                state
                    .units
                    .get(&service)
                    .is_some_and(|unit| unit.boot == "masked")
            });
            let masked = state.masked.contains(name);
            let Some(unit) = state.units.get_mut(name) else {
                return Err(refused("start", name, "not found"));
            };
            if masked || unit.boot == "masked" {
                return Err(refused("start", name, "it is masked"));
            }
            if service_masked && !unit.active {
                return Err(refused("start", name, "its service is not loaded"));
            }
            if !unit.active {
                unit.restarts = 0;
                let failed = !self.start_now(&mut state, name) && state.units[name].failed;
                if failed {
                    return Err(SystemdError::Job {
                        verb: "start",
                        unit: name.to_owned(),
                        result: "failed".to_owned(),
                    });
                }
            }
        }
        moment().await;
        self.reported("start", name)
    }

    async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        {
            let mut state = self.state();
            if let Some(unit) = state.units.get_mut(name) {
                (unit.active, unit.failed) = (false, false);
                if self.fault == Fault::KubeletMasked && name == KUBELET_UNIT && unit.boot == "enabled" {
                    unit.boot = "masked".to_owned();
                }
            }
            // Somebody starts the kubelet again at once: nothing but the hold keeps it stopped.
            if name == KUBELET_UNIT && state.units[name].boot != "masked" {
                self.start_now(&mut state, name);
            }
        }
        moment().await;
        self.reported("stop", name)?;
        if self.fault == Fault::StopFails && Some(name) == self.case.last_masked().as_deref() {
            return Err(refused("stop", name, "it ended in another way"));
        }
        Ok(())
    }

    async fn restart(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name) {
            unit.active = false;
        }
        // Between its two halves the executor may die, and systemd goes on.
        let started = {
            let mut state = self.state();
            if state.units[name].boot == "masked" {
                false
            } else {
                self.start_now(&mut state, name)
            }
        };
        moment().await;
        if started {
            return self.reported("restart", name);
        }
        Err(SystemdError::Job {
            verb: "restart",
            unit: name.to_owned(),
            result: "failed".to_owned(),
        })
    }

    async fn enable(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        let mut state = self.state();
        let unit = state.units.entry(name.to_owned()).or_default();
        if unit.boot == "masked" {
            return Err(refused("enable", name, "it is masked"));
        }
        unit.boot = "enabled".to_owned();
        drop(state);
        self.reported("enable", name)
    }

    async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name)
            && unit.boot == "enabled"
        {
            unit.boot = "disabled".to_owned();
        }
        self.reported("disable", name)
    }

    async fn mask(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        self.state().units.entry(name.to_owned()).or_default().boot = "masked".to_owned();
        self.reported("mask", name)
    }

    async fn unmask(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name)
            && unit.boot == "masked"
        {
            unit.boot = "disabled".to_owned();
        }
        Ok(())
    }

    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        self.state().masked.insert(name.to_owned());
        moment().await;
        self.reported("mask", name)
    }

    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        self.state().masked.remove(name);
        Ok(())
    }

    async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name) {
            unit.failed = false;
            unit.restarts = 0;
        }
        Ok(())
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.effect();
        self.read_units(&mut self.state());
        Ok(())
    }
}

impl World {
    /// What systemd says of a request that has had its effect.
    fn reported(&self, verb: &'static str, unit: &str) -> Result<(), SystemdError> {
        if self.step_fails() {
            return Err(refused(verb, unit, "it ended in another way"));
        }
        Ok(())
    }

    /// What a runtime says of a request that has had its effect.
    fn asked(&self) -> Result<(), RuntimeError> {
        if self.step_fails() {
            return Err(RuntimeError("it ended in another way".to_owned()));
        }
        Ok(())
    }

    fn answers(&self, of: &Endpoint) -> Result<(), RuntimeError> {
        let state = self.state();
        // Where images are meant, cri-dockerd's are behind the engine's own socket.
        let unit = if of.socket.as_str().ends_with("/docker.sock") {
            unit_of(Runtime::Dockershim)
        } else {
            unit_of(of.runtime)
        };
        if state.units.get(unit).is_some_and(|unit| !unit.active) {
            return Err(RuntimeError(format!(
                "{} does not answer on {}",
                of.runtime, of.socket
            )));
        }
        Ok(())
    }
}

impl Runtimes for World {
    async fn image_names(&self, store: &Endpoint) -> Result<BTreeSet<String>, RuntimeError> {
        self.answers(store)?;
        Ok(self
            .state()
            .images
            .get(&store.runtime)
            .cloned()
            .unwrap_or_default())
    }

    async fn carry_image(&self, step: &ImagesStep, name: &str) -> Result<Carried, RuntimeError> {
        self.answers(&step.from)?;
        self.answers(&step.to)?;
        self.effect();
        if self.fault == Fault::CarryFails && Some(name) == self.case.images.get(2).map(String::as_str) {
            return Err(RuntimeError(format!(
                "{name} is not in the store of {}",
                step.from.runtime
            )));
        }
        self.state()
            .images
            .entry(step.to.runtime)
            .or_default()
            .insert(name.to_owned());
        moment().await;
        self.asked()?;
        Ok(Carried {
            bytes: 7,
            means: Means::Linked,
        })
    }

    async fn remove_images(&self, store: &Endpoint, names: &[String]) -> Result<(), RuntimeError> {
        self.answers(store)?;
        for name in names {
            self.effect();
            self.state().images.entry(store.runtime).or_default().remove(name);
        }
        Ok(())
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        self.answers(&rehearsal.cri)?;
        self.effect();
        self.state().rehearsing = true;
        moment().await;
        if self.fault == Fault::RehearsalFails {
            return Err(RuntimeError("the sandbox got no address".to_owned()));
        }
        self.effect();
        self.state().rehearsing = false;
        self.asked()
    }

    async fn end_rehearsal(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        self.answers(&rehearsal.cri)?;
        self.effect();
        self.state().rehearsing = false;
        Ok(())
    }

    async fn stop_pods(&self, of: &Endpoint, what: &StopPods) -> Result<Stopped, RuntimeError> {
        self.answers(of)?;
        self.effect();
        {
            let mut state = self.state();
            if state.units[KUBELET_UNIT].active {
                state
                    .violations
                    .push("pods were ended beside a running kubelet".to_owned());
            }
            state.pods.remove(&of.runtime);
            if of.runtime == self.case.target() || what.share_an_engine() {
                state.sandboxes.remove(&of.runtime);
            }
            if self.fault == Fault::TargetDies && of.runtime == self.case.source() {
                state.target_dead = true;
                let unit = state.units.get_mut(&self.case.target_unit).unwrap();
                (unit.active, unit.failed) = (false, true);
            }
        }
        moment().await;
        if self.fault == Fault::StopPodsFails && of.runtime == self.case.source() {
            return Err(RuntimeError("a container does not end".to_owned()));
        }
        self.asked()?;
        Ok(Stopped::default())
    }

    async fn clear_pods(&self, what: &ClearPods) -> Result<Stopped, RuntimeError> {
        self.answers(&what.source)?;
        self.effect();
        {
            let mut state = self.state();
            if state.pods.contains(&what.source.runtime) {
                state
                    .violations
                    .push("pods that run were taken away from their kubelet".to_owned());
            }
            state.sandboxes.remove(&what.source.runtime);
        }
        moment().await;
        if self.fault == Fault::ClearPodsFails {
            return Err(RuntimeError("a sandbox does not leave its network".to_owned()));
        }
        self.asked()?;
        Ok(Stopped::default())
    }

    async fn health(&self, of: &Endpoint) -> Result<Health, RuntimeError> {
        self.answers(of)?;
        self.asked()?;
        Ok(Health {
            version: "1".to_owned(),
            ready: true,
            network_ready: true,
        })
    }

    async fn program_version(&self, program: &HostPath) -> Result<String, RuntimeError> {
        // What the program would print is in it; running it some thousand times proves nothing more.
        let bytes = self.read(program).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let says = text.find("containerd ").map(|at| text[at..].to_owned());
        moment().await;
        says.ok_or_else(|| RuntimeError(format!("{program} cannot be run")))
    }

    async fn kubelet(&self, main_pid: u32) -> Result<KubeletHealth, RuntimeError> {
        let state = self.state();
        let kubelet = &state.units[KUBELET_UNIT];
        if !kubelet.active || kubelet.pid != main_pid {
            return Err(RuntimeError(format!("no process {main_pid}")));
        }
        let target = self.kubelet_under_target(&state);
        Ok(KubeletHealth {
            healthy: !(target && self.fault == Fault::KubeletUnhealthy),
            endpoint: if target {
                self.case.target_endpoint()
            } else {
                self.case.source_endpoint()
            },
        })
    }
}
