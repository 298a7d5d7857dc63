//! A plan read backwards must be a valid procedure too. The executor walks every plan of every host to a step and back
//! again in the sweep's world, without a crash: the rollback is ordered right after the step, or the step is refused.
//! The last step and the last before the confirmation are always among the steps, the others are drawn; `make
//! crash-sweep` takes them all. What must be true of a plan:
//!
//! - Its sections follow each other; every file step changes its file; images are copied between two stores.
//! - The kubelet's files change, but in an upgrade of the runtime under it.
//! - From each step the way back leads to the host as it was: its files to the byte, its units, its pods and its images.
//! - Each step finds what it needs: the runtimes that it asks run, with the files that are there; no socket is started
//!   before its service can be; the kubelet never starts without its runtime.
//! - No pod dies with Docker before a step whose purpose is to stop pods.
//! - In the end the target alone has the pods, its units are enabled, and no unit of the source can be started by
//!   chance.

mod hosts;

use std::{collections::BTreeSet, panic, sync::Arc, time::Duration};

use transship::{
    api::request::Runtime,
    executor::{decide::End, run::Outcome},
    plan::{
        digest::Digest,
        document::Plan,
        facts::Facts,
        host_path::HostPath,
        step::{FileStep, InstallStep, KUBELET_UNIT, Step},
    },
    planner::request::Request,
};

use crate::{
    archives::{Tar, containerd_says, program},
    crash_sweep::{
        captured,
        cases::{Case, units_of},
        checks::check,
        lives::{Others, begin_unwatched, live_for},
        random::{Random, seed, whole},
        world::{Fault, World, path},
    },
};

/// Where not all steps are turned back at: at every so many, beginning with a drawn one.
const EVERY: usize = 16;

/// How long the executor may take for a plan and for the way back, by the clock of the sweep.
const LONGEST: Duration = Duration::from_secs(600);

const CONTAINERD: &str = "containerd.service";

const CRIO: &str = "crio.service";

const DOCKER: &str = "docker.service";

const DOCKER_SOCKET: &str = "docker.socket";

const SHIM: &str = "cri-docker.service";

const SHIM_SOCKET: &str = "cri-docker.socket";

/// Walks the plan of a request, if there is one; answers it.
fn walk(facts: &Facts, request: &Request, name: &str) -> Option<Plan> {
    let facts = &captured::with_names_of_packages(facts);
    let plan = captured::accepted(facts, request.clone())?;
    let every = if whole() { 1 } else { EVERY };
    walk_plan(facts, request, name, plan.clone(), every);
    Some(plan)
}

/// Walks a plan to every so many of its steps.
fn walk_plan(facts: &Facts, request: &Request, name: &str, plan: Plan, every: usize) {
    let keeps_docker = request.source.keep && facts.docker.is_some();
    let walk = Walk {
        case: Arc::new(case(name, facts, plan)),
        keeps_docker,
        own_units: own_units(facts),
    };
    walk.look();
    walk.to_the_end();
    let (steps, switched) = (walk.case.plan.steps.len(), walk.case.plan.switched());
    walk.and_back(switched);
    walk.and_back(steps);
    let mut random = Random(seed());
    let mut drawn = |steps: usize| (random.below(every as u64) as usize..steps).step_by(every);
    drawn(steps).for_each(|step| walk.and_back(step));
    drawn(steps).for_each(|step| walk.to_a_refusal(step));
}

struct Walk {
    case: Arc<Case>,
    keeps_docker: bool,
    /// Units of runtimes that an administrator has written: no mask has room beside their files.
    own_units: BTreeSet<String>,
}

fn own_units(facts: &Facts) -> BTreeSet<String> {
    let shim = facts.cri_dockerd.iter();
    let shim = shim.flat_map(|shim| [&shim.service, &shim.socket]);
    let crio = facts.crio.iter().map(|crio| &crio.service);
    let units = shim.chain(crio).filter(|unit| unit.own_file().is_some());
    units.map(|unit| unit.name.clone()).collect()
}

/// A host and its plan, with the archives that it fetches and the programs that it copies. What a package brings is
/// there already: packages are swept for themselves.
fn case(name: &str, facts: &Facts, mut plan: Plan) -> Case {
    let (mut files, mut brought, mut packaged) = (Vec::new(), Vec::new(), Vec::new());
    plan.steps.retain_mut(|planned| match &mut planned.does {
        Step::Install(InstallStep::Archive(archive)) => {
            let bytes = program(&containerd_says(&archive.version));
            let inside = archive.program.as_str().strip_prefix(archive.dir.as_str());
            let inside = inside.unwrap().trim_start_matches('/');
            let packed = Tar::default().file(inside, 0o755, &bytes).packed();
            let at = path("/srv/archive.tar.gz");
            archive.url = format!("file://{at}");
            archive.sha256 = Digest::of(&packed);
            files.push((at, 0o644, packed));
            brought.push((archive.program.clone(), 0o755, bytes));
            true
        }
        Step::Install(InstallStep::Program(copied)) => {
            files.push((copied.program.clone(), 0o755, b"a program".to_vec()));
            brought.push((copied.copy.clone(), 0o755, b"a program".to_vec()));
            true
        }
        Step::Install(InstallStep::Package(package)) => {
            packaged.append(&mut package.units);
            false
        }
        _ => true,
    });
    let mut case = captured::of_plan(name, facts, plan);
    case.files.extend(files);
    case.unpacked = brought;
    for unit in packaged {
        if !case.units.iter().any(|(name, ..)| *name == unit) {
            case.units.push((unit, false, "disabled".to_owned()));
        }
    }
    case
}

impl Walk {
    /// What is seen of the plan without walking it.
    fn look(&self) {
        let (case, name) = (&self.case, &self.case.name);
        let changes = case.first_files(KUBELET_UNIT) != case.final_files(KUBELET_UNIT);
        assert_ne!(changes, case.upgrades(), "{name}: the kubelet's files change");
        let steps = &case.plan.steps;
        assert!(
            steps.is_sorted_by_key(|step| step.section),
            "{name}: sections follow each other"
        );
        for planned in steps {
            match &planned.does {
                Step::File(FileStep {
                    path,
                    planned_from,
                    want,
                }) => {
                    let want = want.as_ref().map(|want| Digest::of(&want.text));
                    assert_ne!(*planned_from, want, "{name}: {path} changes");
                }
                Step::Images(images) => {
                    assert_ne!(images.from.socket, images.to.socket, "{name}");
                    assert!(!images.names.is_empty(), "{name}");
                }
                _ => {}
            }
        }
    }

    /// Forwards over so many steps and back again.
    fn and_back(&self, steps: usize) {
        let world = begin_unwatched(&self.case, Fault::Nothing);
        let before = world.tree();
        let what = format!("{}: {steps} steps and back", self.case.name);
        let end = end(&world, Others::UndoAfter(steps), &what);
        assert_eq!(end, End::RolledBack, "{what}: {}", world.journal());
        check(&world, &before, End::RolledBack, &what);
        let done = world.journal().matches("\"event\":\"done\"").count();
        assert_eq!(done, steps, "{what}");
        without_faults(&world, &what);
    }

    /// Forwards to a step that is begun and not applied.
    fn to_a_refusal(&self, step: usize) {
        let world = begin_unwatched(&self.case, Fault::StepRefused(step));
        let before = world.tree();
        let what = format!("{}: step {step} is refused", self.case.name);
        let end = end(&world, Others::Commit, &what);
        check(&world, &before, end, &what);
    }

    /// Forwards over all steps, with the confirmation.
    fn to_the_end(&self) {
        let (case, name) = (&self.case, &self.case.name);
        let world = begin_unwatched(case, Fault::Nothing);
        let before = world.tree();
        let ran: BTreeSet<String> = case
            .units
            .iter()
            .filter(|(_, active, _)| *active)
            .map(|(name, ..)| name.clone())
            .collect();
        let end = end(&world, Others::Commit, name);
        assert_eq!(end, End::Committed, "{name}: {}", world.journal());
        check(&world, &before, End::Committed, name);
        without_faults(&world, name);
        let held = |path: &HostPath| path.as_str().ends_with("-hold.conf");
        for hold in case.all_files().filter(|path| held(path)) {
            assert!(
                !world.free_files().exists(hold).unwrap(),
                "{name}: {hold} is left"
            );
        }
        let (state, target) = (world.state(), case.target());
        let boot = |unit: &str| world.boot(unit, &state.units[unit]);
        for unit in units_of(target) {
            assert!(state.runs(unit), "{name}: {unit}");
            assert_eq!(boot(unit), "enabled", "{name}: {unit}");
        }
        assert!(
            state.runs(CONTAINERD) || !ran.contains(CONTAINERD),
            "{name}: Docker's engine runs on it"
        );
        let (over_docker, leaves_docker) = (target == Runtime::CriDockerd, case.source().runs_on_docker());
        assert_eq!(
            state.runs(DOCKER),
            over_docker || ran.contains(DOCKER) && (!leaves_docker || self.keeps_docker),
            "{name}: {DOCKER}"
        );
        let never = |unit: &str| {
            if self.own_units.contains(unit) {
                "disabled"
            } else {
                "masked"
            }
        };
        if case.source() == Runtime::CriO {
            assert!(!state.runs(CRIO) && boot(CRIO) == never(CRIO), "{name}: {CRIO}");
        }
        for unit in [SHIM, SHIM_SOCKET] {
            assert_eq!(
                state.runs(unit),
                over_docker || ran.contains(unit) && !leaves_docker,
                "{name}: {unit}"
            );
            if case.source() == Runtime::CriDockerd {
                assert_eq!(boot(unit), never(unit), "{name}: any client would start {unit}");
            }
        }
    }
}

/// How a life ends, which it must: an undo that fails is tried again forever.
fn end(world: &Arc<World>, others: Others, what: &str) -> End {
    match live_for(world, others, false, LONGEST) {
        Some(Ok(Outcome::Ended(end))) => end,
        other => panic!("{what}: {other:?}, {}", world.journal()),
    }
}

/// Nothing happened that happens only after a crash or a fault.
fn without_faults(world: &World, what: &str) {
    let journal = world.journal();
    for event in ["failed", "retrying", "postponed", "left", "refused"] {
        assert!(
            !journal.contains(&format!("\"event\":\"{event}\"")),
            "{what}: {journal}"
        );
    }
    assert_eq!(world.oddities(), [""; 0], "{what}");
}
