//! The world that survives the executor: real files under a temporary root, systemd as a state machine, two
//! runtimes with images and pods. Before every effect on it the whole world can be kept: that is what an executor
//! that is killed there leaves, whatever it would have done next.

mod bound;
mod crio;
mod fault;
mod links;
mod runtimes;
mod systemd;
mod turns;

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
use tokio::time::Instant;
use transship::{
    api::request::Runtime,
    host::files::{Effect, Files},
    plan::{
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
    runtime::Images,
};

use crate::crash_sweep::{
    cases::{Bytes, Case, units_of},
    disk::{Disk, Image, Left},
    programs::Programs,
};

pub use fault::{EDITED, Fault, Late};

/// The program of the kubelet's unit.
pub const KUBELET: &str = "/usr/bin/kubelet";
/// How long a call that hangs is waited for.
const CALL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FakeUnit {
    pub active: bool,
    pub failed: bool,
    /// What it is called where no link says otherwise.
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
    /// Units that systemd found masked, or without a file, when it last read them.
    pub unloadable: BTreeSet<String>,
    /// What somebody else did has happened.
    pub edited: bool,
    pub images: BTreeMap<Runtime, Images>,
    /// Runtimes with containers of pods that run.
    pub pods: BTreeSet<Runtime>,
    /// Runtimes with sandboxes of pods.
    pub sandboxes: BTreeSet<Runtime>,
    pub rehearsing: bool,
    /// A pod whose start a restart below its runtime broke, of which the runtime does not know any more.
    pub lost: bool,
    /// Pods that only the newer version of the runtime can run on with.
    pub newer: bool,
    /// Units that do not start until the next boot.
    pub masked: BTreeSet<String>,
    /// What must never happen, and did.
    pub violations: Vec<String>,
    /// The daemon of the target hangs.
    pub hangs: bool,
    /// The machine has booted since the beginning.
    pub booted: bool,
    /// The machine has booted, and these runtimes do not answer yet.
    pub slow: BTreeSet<Runtime>,
    /// The kubelet creates pods, and nobody has waited for it.
    pub creating: bool,
    /// An address of the pod network belongs to a pod whose creation was interrupted.
    pub leaked: bool,
    /// The boot has not come to the kubelet yet.
    pub kubelet_waits: bool,
    target_dead: bool,
    disk_full: bool,
    pids: u32,
}

impl State {
    /// Whether a unit runs.
    pub fn runs(&self, unit: &str) -> bool {
        self.units.get(unit).is_some_and(|unit| unit.active)
    }

    /// Whether all that a runtime needs to answer runs.
    pub fn serves(&self, runtime: Runtime) -> bool {
        units_of(runtime).iter().all(|unit| self.runs(unit))
    }
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
    /// When it began, by the clock of its own.
    began: Option<Instant>,
    /// Calls to systemd and to runtimes in all lives.
    asked: usize,
    /// Those of them that have had their effect, with an answer to lose.
    answered: Vec<usize>,
    /// Some of the calls in this life: when and what.
    calls: Vec<(Instant, String)>,
    /// What happened in this life that happens only after a crash or a fault.
    odd: Vec<String>,
    /// After how many steps the rollback is ordered in this life.
    undo_after: Option<usize>,
    /// [`Fault::StepRefused`] has happened.
    refused: bool,
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
    /// The drop-in of [`Fault::Overridden`].
    override_path: HostPath,
    _place: tempfile::TempDir,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// The images of source and target at the beginning: the target has one, and under another's name an older one.
pub fn stores(case: &Case) -> (Images, Images) {
    let image = |age: &str, name: &String| (name.clone(), format!("{age} {name}"));
    let source = case.images.iter().map(|name| image("new", name)).collect();
    let mut target: Images = case
        .images
        .iter()
        .take(1)
        .map(|name| image("new", name))
        .collect();
    target.extend(case.images.iter().skip(1).take(1).map(|name| image("old", name)));
    (source, target)
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
            disk: Mutex::new({
                links::lay_links(&root, case);
                Disk::new(&root)
            }),
            root,
            programs: Programs::in_(place.path()),
            case: case.clone(),
            fault,
            state: Mutex::default(),
            log: Mutex::default(),
            kubelet_files: files_of(KUBELET_UNIT),
            target_files: files_of(&case.target_unit).1,
            override_path: path(&format!(
                "/etc/systemd/system/{}.d/zzz-admin.conf",
                case.target_unit
            )),
            _place: place,
        });
        {
            let mut state = world.state();
            for (name, active, boot) in &case.units {
                let by_link = matches!(boot.as_str(), "enabled" | "masked");
                let unit = FakeUnit {
                    boot: if by_link {
                        "disabled".to_owned()
                    } else {
                        boot.clone()
                    },
                    ..FakeUnit::default()
                };
                state.units.insert(name.clone(), unit);
                if *active {
                    world.start_now(&mut state, name);
                }
            }
            let (source, target) = stores(case);
            state.images.insert(case.source(), source);
            state.images.insert(case.target(), target);
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
        Files::new(&self.root).with_hook(Arc::new(move |effect| {
            if let Some(done) = world.just_done(&effect) {
                world.order_after(done);
            }
            world.about_to(effect)
        }))
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
            (Fault::StepRefused(_), Effect::Change(changed))
                if !changed.starts_with(at(&self.case.dir_path())) && self.is_refused() =>
            {
                return Err(io::Error::other("input/output error"));
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
        log.began = None;
        log.calls.clear();
        log.odd.clear();
        log.undo_after = None;
    }

    /// Somebody is called; waits for the deadline, and says so, if this is the call that hangs.
    async fn called(&self) -> Result<(), String> {
        self.boot_goes_on();
        let asked = {
            let mut log = lock(&self.log);
            log.asked += usize::from(log.began.is_some());
            log.asked
        };
        if self.is_refused() {
            return Err("it is refused".to_owned());
        }
        if asked == 0 || self.fault != Fault::CallHangs(asked) {
            return Ok(());
        }
        tokio::time::sleep(CALL).await;
        Err(format!("no answer within {} s", CALL.as_secs()))
    }

    /// Calls to systemd and to runtimes in all lives.
    pub fn times_called(&self) -> usize {
        lock(&self.log).asked
    }

    /// The call that was made last has had its effect; its answer may be lost.
    async fn answered(&self) -> Result<(), String> {
        let asked = {
            let mut log = lock(&self.log);
            if log.began.is_none() {
                return Ok(());
            }
            let asked = log.asked;
            log.answered.push(asked);
            asked
        };
        if self.fault != Fault::AnswerLost(asked) {
            return Ok(());
        }
        tokio::time::sleep(CALL).await;
        Err(format!("no answer within {} s", CALL.as_secs()))
    }

    /// The calls that had an effect, by their number among all calls.
    pub fn calls_with_an_effect(&self) -> Vec<usize> {
        lock(&self.log).answered.clone()
    }

    fn note_call(&self, what: String) {
        lock(&self.log).calls.push((Instant::now(), what));
    }

    /// The calls in this life that say who keeps whom away, by the clock of this life.
    pub fn calls(&self) -> Vec<(Instant, String)> {
        lock(&self.log).calls.clone()
    }

    /// The clock of this life starts.
    pub fn clock_starts(&self) {
        lock(&self.log).began = Some(Instant::now());
    }

    /// Whether the boot is so short ago that this runtime does not answer.
    fn boots(&self, runtime: Runtime) -> bool {
        let Fault::SlowBoot(late) = self.fault else {
            return false;
        };
        let began = lock(&self.log).began;
        let passed = began.map_or(Duration::MAX, |began| began.elapsed());
        let mut state = self.state();
        state
            .slow
            .retain(|slow| passed < Duration::from_secs(late.of(*slow)));
        state.slow.contains(&runtime)
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
        let effects = log.effects;
        drop(log);
        if let Fault::Edited { file, at } = self.fault
            && at == effects
            && !std::mem::replace(&mut self.state().edited, true)
        {
            self.edit(file);
        }
        effects
    }

    /// Effects in this life.
    pub fn effects(&self) -> u64 {
        lock(&self.log).effects
    }

    /// Somebody else writes a file of the plan, where there is a directory for it.
    fn edit(&self, file: usize) {
        let path = self.case.all_files().nth(file).unwrap();
        let real = self.root.join(path.relative());
        if real.parent().is_some_and(Path::is_dir) {
            fs::write(real, EDITED).unwrap();
        }
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
                let bytes = if entry.path_is_symlink() {
                    let target = fs::read_link(entry.path()).unwrap();
                    Some(target.to_str().unwrap().as_bytes().to_vec())
                } else {
                    let is_file = entry.file_type().is_file();
                    is_file.then(|| fs::read(entry.path()).unwrap())
                };
                (!own).then_some((inside, (mode, bytes)))
            })
            .collect()
    }

    /// The versions of somebody else that the executor has set aside.
    pub fn kept_aside(&self) -> Vec<Vec<u8>> {
        let aside = self.root.join(self.case.dir_path().relative()).join("aside");
        let entries = walkdir::WalkDir::new(aside).into_iter().filter_map(Result::ok);
        let files = entries.filter(|entry| entry.file_type().is_file());
        files.map(|entry| fs::read(entry.path()).unwrap()).collect()
    }

    /// Goes back, or on, to this moment.
    pub fn restore(&self, moment: &Moment) {
        lock(&self.disk).restore(&moment.disk);
        *self.state() = moment.state.clone();
    }

    fn read(&self, path: &HostPath) -> Option<Vec<u8>> {
        fs::read(self.root.join(path.relative())).ok()
    }
}

/// An effect takes a moment, in which others act.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}
