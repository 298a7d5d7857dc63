//! The crash sweep: real files under a temporary root, systemd and the runtimes as state machines. The executor is
//! killed before every single effect, between a temporary file and its rename, in the middle of a file and in the
//! middle of a journal line; and again while it recovers. Either it alone dies, or the power is cut: then the machine
//! boots with what was synced, or with some or all of the rest. Whatever the schedule, the end is one of the two:
//! migrated, or byte for byte, unit for unit and pod for pod as before.
//!
//! That it can fail was tried with one mutation of the executor at a time; it caught each of these: `Started`
//! journalled only after the change, or with what was found after it; a torn journal line not cut off, or read as a
//! whole one; steps undone forwards, or without the one that was half done; the hold not placed, placed after the
//! kubelet's stop, or not lifted; the unit step that opens a bracket not restarting on the way back (this
//! one on the captured hosts: on the one by hand, containerd does not run before). And of what makes changes durable:
//! no sync of a file before its rename, of the journal's line, or of the directory after a rename or a removal; and
//! `settle` doing nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test"
)]

mod archive;
mod cases;
mod disk;
#[path = "../hosts/fixtures.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod fixtures;
mod package;
mod programs;
mod rules;
mod world;

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    hash::BuildHasher as _,
    sync::Arc,
    time::Duration,
};

use rstest::rstest;
use transship::{
    executor::{
        control::{Dir, Order, STATE},
        decide::End,
        run::{self, Outcome, RunError},
        unit::{self, UNIT},
    },
    plan::{
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
};

use cases::Case;
use disk::Left;
use world::{EDITED, Fault, Moment, Tree, World, stores};

/// What the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// Commit as soon as the switch waits for it.
    Commit,
    /// Nothing: nobody confirms.
    Nobody,
    /// Abort as soon as so many steps are done.
    Abort(usize),
    /// Abort as soon as a step failed.
    AbortWhenFailed,
    /// They committed, and want to go back all the same.
    Undo,
}

/// One life of the executor, with the others acting beside it.
fn live(world: &Arc<World>, others: Others, keep: bool) -> Result<Outcome, RunError> {
    world.begin_life(keep);
    let files = world.files();
    let dir = Dir::at(&files, world.case.dir_path());
    let others = async {
        let order = loop {
            // The journal's text is enough to see by, and cheaper than its meaning.
            let journal = world.journal();
            let done = journal.matches("\"event\":\"done\"").count();
            match others {
                Others::Commit if done == world.case.plan.steps.len() => break Order::Commit,
                Others::Abort(steps) if done >= steps => break Order::Abort,
                Others::AbortWhenFailed if journal.contains("\"event\":\"failed\"") => break Order::Abort,
                Others::Nobody | Others::Undo => std::future::pending().await,
                Others::Commit => tokio::time::sleep(Duration::from_millis(400)).await,
                Others::Abort(_) | Others::AbortWhenFailed => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
            }
        };
        Dir::at(&world.free_files(), world.case.dir_path())
            .order(order, &world.case.digest)
            .unwrap();
        std::future::pending().await
    };
    clock(world).block_on(async {
        world.clock_starts();
        tokio::select! {
            biased;
            outcome = run::run(&files, &dir, &**world, &**world) => outcome,
            () = others => unreachable!("the others wait for ever"),
        }
    })
}

/// Time that goes by only when everybody waits, and no program runs.
fn clock(world: &Arc<World>) -> tokio::runtime::Runtime {
    let world = world.clone();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || world.attend_programs())
        .build()
        .unwrap()
}

/// Lives until the executor says how it ended. systemd starts it again after a failure.
fn live_on(world: &Arc<World>, others: Others, keep: bool) -> Result<Outcome, RunError> {
    let mut last = live(world, others, keep);
    for _ in 0..4 {
        if last.is_ok() {
            break;
        }
        last = live(world, others, keep);
    }
    last
}

/// A world right before the executor is started, with its unit installed and the switch let go.
fn begin(case: &Arc<Case>, fault: Fault) -> Arc<World> {
    let world = World::new(case, fault);
    let files = world.free_files();
    let dir = Dir::at(&files, case.dir_path());
    dir.write_plan(&case.plan).unwrap();
    dir.order(Order::Go, &case.plan.digest()).unwrap();
    world
        .state()
        .units
        .insert(UNIT.to_owned(), world::FakeUnit::default());
    let binary = HostPath::new(cases::BINARY).unwrap();
    clock(&world)
        .block_on(unit::install(&files, &*world, &binary, &dir))
        .unwrap();
    world
}

/// The same world after a commit, with the order to go back.
fn begin_undo(world: &Arc<World>) {
    assert_eq!(
        live_on(world, Others::Commit, true).unwrap(),
        Outcome::Ended(End::Committed)
    );
    // The one that committed has ended.
    world.state().units.get_mut(UNIT).unwrap().active = false;
    let files = world.free_files();
    let dir = Dir::at(&files, world.case.dir_path());
    dir.order(Order::Undo, &world.case.digest).unwrap();
    let binary = HostPath::new(cases::BINARY).unwrap();
    clock(world)
        .block_on(unit::install(&files, &**world, &binary, &dir))
        .unwrap();
}

/// What the node is after the plan: every file as planned, all others untouched.
fn planned(case: &Case, before: &Tree) -> Tree {
    let mut tree = before.clone();
    for (path, mode, bytes) in &case.unpacked {
        tree.insert(path.relative().into(), (0o100_000 | mode, Some(bytes.clone())));
    }
    for step in &case.plan.steps {
        if let transship::plan::step::Step::File(step) = &step.does {
            let at = std::path::PathBuf::from(step.path.relative());
            match &step.want {
                Some(want) => {
                    let mode = tree.get(&at).map_or(0o100_000 | want.mode, |(mode, _)| *mode);
                    tree.insert(at, (mode, Some(want.text.clone().into_bytes())));
                }
                None => drop(tree.remove(&at)),
            }
        }
    }
    tree
}

fn files_only(tree: Tree) -> Tree {
    tree.into_iter()
        // What the links of units mean is looked at on its own.
        .filter(|(_, (mode, bytes))| bytes.is_some() && mode & 0o170_000 != 0o120_000)
        .collect()
}

/// What differs, in words.
fn differing(found: &Tree, wanted: &Tree) -> Vec<String> {
    let paths: BTreeSet<_> = found.keys().chain(wanted.keys()).collect();
    let differ = paths
        .into_iter()
        .filter(|path| found.get(*path) != wanted.get(*path));
    differ
        .map(|path| {
            let in_words = |tree: &Tree| match tree.get(path) {
                Some((mode, Some(bytes))) => format!("{mode:o} {:?}", String::from_utf8_lossy(bytes)),
                Some((mode, None)) => format!("{mode:o} directory"),
                None => "nothing".to_owned(),
            };
            format!(
                "{}: {}, not {}",
                path.display(),
                in_words(found),
                in_words(wanted)
            )
        })
        .collect()
}

/// Demands that the node is in the one of the two states that `end` names, wholly.
fn check(world: &Arc<World>, before: &Tree, end: End, schedule: &str) {
    let case = &world.case;
    let state = world.state();
    assert_eq!(state.violations, Vec::<String>::new(), "{schedule}");
    assert!(!state.rehearsing, "{schedule}: the rehearsal's sandbox is left");
    assert!(!state.lost, "{schedule}: a pod that its runtime lost is left");
    assert!(
        state.masked.is_empty(),
        "{schedule}: {:?} are masked",
        state.masked
    );
    for left in ["archives", ".archives.transship"] {
        let path = HostPath::new(format!("{STATE}/{left}")).unwrap();
        assert!(
            !world.free_files().exists(&path).unwrap(),
            "{schedule}: {path} is left"
        );
    }
    assert!(
        world
            .free_files()
            .read(&HostPath::new(HOLD_FILE).unwrap())
            .unwrap()
            .is_none(),
        "{schedule}: held"
    );
    let own = &state.units[UNIT];
    assert_ne!(
        world.boot(UNIT, own),
        "enabled",
        "{schedule}: the executor would start again"
    );
    let (runtime, units) = match end {
        End::Committed => {
            let (found, planned) = (files_only(world.tree()), files_only(planned(case, before)));
            assert_eq!(differing(&found, &planned), [""; 0], "{schedule}");
            (case.target(), case.final_units())
        }
        End::RolledBack => {
            assert_eq!(differing(&world.tree(), before), [""; 0], "{schedule}");
            for (unit, _) in &case.packaged {
                assert!(!state.units.contains_key(unit), "{schedule}: {unit} is left");
            }
            let units = case
                .units
                .iter()
                .map(|(name, active, boot)| (name.clone(), (*active, boot.clone())));
            (case.source(), units.collect())
        }
    };
    assert_eq!(
        state.pods.iter().copied().collect::<Vec<_>>(),
        [runtime],
        "{schedule}: pods"
    );
    // A target that does not answer keeps what it has; that is journalled.
    let keeps = matches!(
        world.fault,
        Fault::TargetDies | Fault::TargetHangs | Fault::SandboxSticks
    );
    if !keeps {
        assert_eq!(
            state.sandboxes.iter().copied().collect::<Vec<_>>(),
            [runtime],
            "{schedule}: sandboxes"
        );
    }
    for (name, expected) in units {
        let unit = &state.units[&name];
        assert_eq!(
            (unit.active, world.boot(&name, unit)),
            expected,
            "{schedule}: {name}"
        );
        if unit.active {
            assert_eq!(
                *unit.runs_with,
                world.would_run_with(&state, &name),
                "{schedule}: {name} runs with other files"
            );
        }
    }
    let (source, before) = stores(case);
    let images = &state.images[&case.target()];
    match end {
        End::Committed => assert_eq!(*images, source, "{schedule}: images"),
        // A target that does not answer keeps its images; that is journalled.
        End::RolledBack if keeps => {}
        End::RolledBack => assert_eq!(*images, before, "{schedule}: images"),
    }
}

/// How an executor dies.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// Alone.
    Killed,
    /// With the machine.
    PowerCut(Left),
}

/// Dies as `death` says at `moment`; answers the moment after it, and whether the machine has to boot.
fn die(moment: &Moment, death: Death) -> (Moment, bool) {
    match death {
        Death::Killed => (moment.clone(), false),
        Death::PowerCut(left) => (moment.after_power_cut(left), true),
    }
}

/// What is swept: a case, what goes wrong, what the others do, and at how many effects of the recovery from a first
/// crash the executor dies once more: at every n-th, or at none.
struct Sweep<'a> {
    case: &'a Arc<Case>,
    fault: Fault,
    others: Others,
    again: Option<Again>,
}

/// At which effects of a recovery the executor dies once more.
#[derive(Clone, Copy, Debug)]
enum Again {
    /// Every n-th of all.
    Every(usize),
    /// So many of each of some recoveries, all of them drawn at random.
    Drawn { seed: u64, of_each: usize },
}

/// Numbers that look random (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// One recovery of so many is drawn.
const DRAWN_OF: u64 = 150;

/// What came of it.
#[derive(Debug, Default)]
struct Swept {
    /// Lives after a death that differed from all others.
    schedules: usize,
    committed: usize,
    rolled_back: usize,
}

impl<'a> Sweep<'a> {
    /// One death each.
    fn new(case: &'a Arc<Case>, fault: Fault, others: Others) -> Self {
        Self {
            case,
            fault,
            others,
            again: None,
        }
    }

    /// A second death at every n-th effect of the recovery.
    fn again(self, every: usize) -> Self {
        Self {
            again: Some(Again::Every(every)),
            ..self
        }
    }

    /// Second deaths that are drawn at random.
    fn drawn(self, seed: u64) -> Self {
        Self {
            again: Some(Again::Drawn { seed, of_each: 2 }),
            ..self
        }
    }

    /// Kills the executor before every effect, lets it recover, and kills it again while it recovers. Two deaths
    /// that leave the same world are one.
    fn run(&self) -> Swept {
        let name = format!("{}, {:?}, {:?}", self.case.name, self.fault, self.others);
        let world = begin(self.case, self.fault);
        let before = world.tree();
        if self.others == Others::Undo {
            begin_undo(&world);
        }
        world.take_moments();
        let mut random = Random(match self.again {
            Some(Again::Drawn { seed, .. }) => seed,
            _ => 0,
        });
        let mut swept = Swept::default();
        let mut seen = HashSet::new();
        let mut counter = 0;
        let mut queue = VecDeque::from([(world.moment(), false, Vec::<(usize, Death)>::new())]);
        while let Some((start, boot, deaths)) = queue.pop_front() {
            let schedule = format!("{name}: died at {deaths:?}");
            world.restore(&start);
            if boot {
                world.reboot();
            }
            let keep = match (deaths.len(), self.again) {
                (0, _) | (1, Some(Again::Every(_))) => true,
                (1, Some(Again::Drawn { .. })) => random.below(DRAWN_OF) == 0,
                _ => false,
            };
            // After a boot systemd starts what is enabled; without one it restarts what failed.
            let own = world.state().units[UNIT].clone();
            if !boot || world.boot(UNIT, &own) == "enabled" {
                match live_on(&world, self.others, keep) {
                    Ok(Outcome::Ended(_)) => {}
                    other => panic!("{schedule}: {other:?}"),
                }
            }
            let end = if world.journal().contains("\"event\":\"rolledBack\"") {
                swept.rolled_back += 1;
                End::RolledBack
            } else {
                swept.committed += 1;
                End::Committed
            };
            check(&world, &before, end, &schedule);
            swept.schedules += 1;
            let moments = world.take_moments();
            for (at, moment) in moments.iter().enumerate() {
                counter += 1;
                let dies = deaths.is_empty()
                    || match self.again {
                        Some(Again::Every(n)) => counter % n == 0,
                        Some(Again::Drawn { of_each, .. }) => {
                            random.below(moments.len() as u64) < of_each as u64
                        }
                        None => false,
                    };
                if !dies {
                    continue;
                }
                for death in [
                    Death::Killed,
                    Death::PowerCut(Left::All),
                    Death::PowerCut(Left::Names),
                    Death::PowerCut(Left::Nothing),
                ] {
                    let (after, boot) = die(moment, death);
                    if seen.insert(after.digest(boot)) {
                        let deaths = deaths.iter().copied().chain([(at, death)]).collect();
                        queue.push_back((after, boot, deaths));
                    }
                }
            }
        }
        eprintln!("{name}: {swept:?}");
        swept
    }

    /// Runs it, and demands that it ends in this one way, however often the executor dies.
    fn ends(&self, end: End) -> usize {
        let swept = self.run();
        let other = match end {
            End::Committed => swept.rolled_back,
            End::RolledBack => swept.committed,
        };
        assert_eq!(
            other, 0,
            "{}, {:?}, {:?}",
            self.case.name, self.fault, self.others
        );
        swept.schedules
    }
}

fn by_hand() -> Arc<Case> {
    Arc::new(cases::by_hand())
}

fn captured() -> Vec<Arc<Case>> {
    cases::captured().into_iter().map(Arc::new).collect()
}

#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed, 400)]
#[case::without_one(Others::Nobody, End::RolledBack, 600)]
fn every_crash_ends_as_the_others_say(#[case] others: Others, #[case] end: End, #[case] at_least: usize) {
    let case = by_hand();
    let sweep = Sweep::new(&case, Fault::Nothing, others).again(150);
    assert!(sweep.ends(end) > at_least);
}

#[test]
fn every_fault_ends_rolled_back() {
    for fault in [
        Fault::TargetRefusesConfig,
        Fault::CarryFails,
        Fault::RehearsalFails,
        Fault::StopPodsFails,
        Fault::ClearPodsFails,
        Fault::KubeletUnhealthy,
        Fault::KubeletCrashes,
        Fault::StopFails,
        Fault::KubeletMasked,
        Fault::ReadOnly,
        Fault::TargetDies,
        Fault::TargetHangs,
        Fault::Overridden,
    ] {
        assert!(Sweep::new(&by_hand(), fault, Others::Commit).ends(End::RolledBack) > 30);
    }
}

/// The kubelet hangs with its runtime, and nothing waits for either longer than once.
#[test]
fn a_target_that_hangs_keeps_the_kubelet_away_for_seconds() {
    let world = begin(&by_hand(), Fault::TargetHangs);
    let before = world.tree();
    let ended = live(&world, Others::Commit, false).unwrap();
    assert_eq!(ended, Outcome::Ended(End::RolledBack));
    check(&world, &before, End::RolledBack, "the target hangs");
    let calls = world.calls();
    let back = calls
        .iter()
        .rposition(|(_, what)| what == "stop kubelet.service")
        .unwrap();
    let back = &calls[back..];
    let order: Vec<&str> = back.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        order[..4],
        [
            "stop kubelet.service",
            "kill kubelet.service",
            "wait for containerd",
            "kill containerd.service",
        ],
        "{order:?}"
    );
    let waits = order.iter().filter(|what| what.starts_with("wait for")).count();
    assert_eq!(waits, 1, "{order:?}");
    let served = back.iter().find(|(_, what)| what == "start kubelet.service");
    let away = served.unwrap().0 - back[0].0;
    assert!(away < Duration::from_secs(20), "{away:?}");
}

/// Runtimes that answer late after a boot turn nobody back.
#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed, 3)]
#[case::later(Others::Commit, End::Committed, 10)]
#[case::without_one(Others::Nobody, End::RolledBack, 10)]
fn a_slow_boot_changes_no_end(#[case] others: Others, #[case] end: End, #[case] secs: u64) {
    let mut case = cases::by_hand();
    // The time of a boot counts.
    case.confirm_within(60);
    Sweep::new(&Arc::new(case), Fault::SlowBoot(secs), others).ends(end);
}

/// Sandboxes that stay, and a target that hangs, keep no node from its source, on the way back after a commit too.
#[rstest]
#[case::nothing(Fault::Nothing)]
#[case::sandboxes(Fault::SandboxSticks)]
fn an_undo_after_the_commit_ends_rolled_back(#[case] fault: Fault) {
    Sweep::new(&by_hand(), fault, Others::Undo).ends(End::RolledBack);
}

/// Without `rollback.automatic` nothing but an order or the deadline turns the node back.
#[rstest]
#[case::step(Fault::StopPodsFails)]
#[case::hung(Fault::TargetHangs)]
fn a_rollback_by_hand_ends_rolled_back(#[case] fault: Fault) {
    let mut case = cases::by_hand();
    case.roll_back_by_hand();
    let case = Arc::new(case);
    Sweep::new(&case, fault, Others::AbortWhenFailed).ends(End::RolledBack);
}

/// Each step once has its effect and fails all the same. An executor that died meanwhile may not learn of it: what
/// has its effect is done.
#[test]
fn every_step_that_fails_ends_in_one_of_the_two() {
    let case = &by_hand();
    let mut rolled_back = 0;
    for step in 0..case.plan.steps.len() {
        let fault = Fault::StepFails(step);
        let end = end_with(case, fault, &format!("step {step} fails"));
        rolled_back += usize::from(end == End::RolledBack);
        // With crashes, a sample: they take their time.
        if step % 4 == 1 {
            Sweep::new(case, fault, Others::Commit).run();
        }
    }
    assert!(rolled_back > case.plan.steps.len() / 2);
}

/// What runs is compared with the plan before any pod is stopped.
#[rstest]
#[case::a_drop_in(
    Fault::Overridden,
    "LimitNOFILE of containerd.service is 5:5, and 1048576:1048576 was planned"
)]
#[case::an_import(Fault::ImportWins, "SystemdCgroup of the default runtime runc is false")]
fn what_beats_the_plan_is_found_while_the_node_serves(#[case] fault: Fault, #[case] words: &str) {
    let world = begin(&by_hand(), fault);
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::RolledBack)
    );
    check(&world, &before, End::RolledBack, words);
    let journal = world.journal();
    assert!(journal.contains(words), "{journal}");
    let switch = world.case.plan.prepared();
    assert!(
        !journal.contains(&format!("\"event\":\"started\",\"step\":{switch},")),
        "{journal}"
    );
}

/// Every file of the plan, changed by somebody else at moments spread over the whole life: the node is never stuck, and
/// what was replaced on the way back is kept.
#[rstest]
#[case::forwards(Others::Commit)]
#[case::and_back(Others::Nobody)]
fn a_file_that_somebody_else_changed_is_never_in_the_way(#[case] others: Others) {
    let case = &by_hand();
    let whole = begin(case, Fault::Nothing);
    live_on(&whole, others, false).unwrap();
    let (mut edits, mut kept, mut in_place) = (0, 0, 0);
    for (file, path) in case.all_files().enumerate() {
        for at in (1 + file as u64..whole.effects()).step_by(7) {
            let world = begin(case, Fault::Edited { file, at });
            let before = world.tree();
            let what = format!("{path} is changed before effect {at}");
            let ended = live_on(&world, others, false);
            let Ok(Outcome::Ended(end)) = ended else {
                panic!("{what}: {ended:?}")
            };
            let (mut tree, place) = (world.tree(), std::path::Path::new(path.relative()));
            let changed = tree
                .get(place)
                .is_some_and(|(_, bytes)| bytes.as_deref() == Some(EDITED));
            let aside = world.kept_aside().contains(&EDITED.to_vec());
            edits += 1;
            in_place += usize::from(changed);
            kept += usize::from(aside);
            let runtime = match end {
                End::Committed => case.target(),
                End::RolledBack => {
                    if changed {
                        tree.remove(place);
                        tree.extend(
                            before
                                .get(place)
                                .map(|found| (place.to_path_buf(), found.clone())),
                        );
                    }
                    let (found, before) = (files_only(tree), files_only(before));
                    assert_eq!(differing(&found, &before), [""; 0], "{what}");
                    case.source()
                }
            };
            let state = world.state();
            assert_eq!(
                state.pods.iter().copied().collect::<Vec<_>>(),
                [runtime],
                "{what}"
            );
            assert_eq!(
                state
                    .violations
                    .iter()
                    .find(|what| what.contains("half-switched")),
                None,
                "{what}"
            );
            let kubelet = &state.units[KUBELET_UNIT];
            assert!(kubelet.active, "{what}");
            // Only what was written since the kubelet started is read at its next start.
            let unread = |at: &HostPath| changed && at == path;
            let would = world.would_run_with(&state, KUBELET_UNIT);
            for (at, bytes) in kubelet.runs_with.iter().filter(|(at, _)| !unread(at)) {
                assert_eq!(
                    would.get(at),
                    Some(bytes),
                    "{what}: the kubelet runs with another {at}"
                );
            }
        }
    }
    eprintln!("{others:?}: {edits} edits, {in_place} stay, {kept} are kept aside");
    assert!(in_place > 10 && (others == Others::Commit || kept > 10), "{kept}");
}

/// A file that cannot be changed is found before anything else is done.
#[test]
fn a_directory_in_the_place_of_a_file_is_found_before_the_first_step() {
    let case = &by_hand();
    let world = begin(case, Fault::Nothing);
    let path = HostPath::new("/etc/crictl.yaml").unwrap();
    world.free_files().create_dir_all(&path).unwrap();
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::RolledBack)
    );
    check(&world, &before, End::RolledBack, "a directory");
    let journal = world.journal();
    assert!(
        journal.contains("/etc/crictl.yaml: it is a directory"),
        "{journal}"
    );
    assert!(!journal.contains("\"event\":\"started\""), "{journal}");
}

/// A rollback after the commit that would overwrite what somebody else changed is refused as a whole, with all that is
/// in its way; without that it goes on.
#[test]
fn a_rollback_that_meets_changes_of_somebody_else_is_refused_while_the_target_serves() {
    let case = &by_hand();
    let world = begin(case, Fault::Nothing);
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::Committed)
    );
    let (files, dir) = (world.free_files(), Dir::at(&world.free_files(), case.dir_path()));
    let crictl = HostPath::new("/etc/crictl.yaml").unwrap();
    let config = HostPath::new("/etc/containerd/config.toml").unwrap();
    let ours = [&crictl, &config].map(|path| files.read(path).unwrap().unwrap());
    for path in [&crictl, &config] {
        files.write(path, EDITED, 0o644).unwrap();
    }
    // The package is removed, which the mask hides.
    let docker = HostPath::new("/lib/systemd/system/docker.service").unwrap();
    files.remove(&docker).unwrap();
    let committed = world.tree();
    let roll_back = || {
        dir.order(Order::Undo, &case.plan.digest()).unwrap();
        let binary = HostPath::new(cases::BINARY).unwrap();
        world
            .state()
            .units
            .insert(UNIT.to_owned(), world::FakeUnit::default());
        clock(&world)
            .block_on(unit::install(&files, &*world, &binary, &dir))
            .unwrap();
        live_on(&world, Others::Nobody, false).unwrap()
    };
    assert_eq!(roll_back(), Outcome::Ended(End::Committed));
    assert_eq!(differing(&world.tree(), &committed), [""; 0]);
    let journal = world.journal();
    let (_, refused) = journal.rsplit_once("\"event\":\"refused\"").unwrap();
    assert!(
        refused.contains("/etc/crictl.yaml was changed")
            && refused.contains("config.toml was changed")
            && refused.contains("docker.service ran before the switch and does not exist any more"),
        "{refused}"
    );
    assert!(
        !dir.ordered(Order::Undo, &case.plan.digest()).unwrap(),
        "the order is withdrawn"
    );
    assert!(world.state().pods.contains(&case.target()));
    for (path, bytes) in [&crictl, &config].into_iter().zip(&ours) {
        files.write(path, bytes, 0o644).unwrap();
    }
    files.write(&docker, b"", 0o644).unwrap();
    assert_eq!(roll_back(), Outcome::Ended(End::RolledBack));
    check(&world, &before, End::RolledBack, "rolled back after a commit");
}

#[test]
fn an_abort_at_any_step_ends_rolled_back() {
    let case = &by_hand();
    for steps in [0, 4, 12, 18, case.plan.steps.len()] {
        let sweep = Sweep::new(case, Fault::Nothing, Others::Abort(steps));
        assert!(sweep.ends(End::RolledBack) > 20);
    }
}

/// A disk that is full from any one effect on: the node is as before, or, where nothing needed space any more,
/// migrated. Without the reserve the way back could not be journalled.
#[test]
fn a_full_disk_ends_in_one_of_the_two() {
    let rolled_back = rolled_back_when_full(&by_hand(), 14..300);
    assert!(rolled_back > 10, "{rolled_back}");
}

/// How many of the disks that are full from one of these effects on end rolled back; the others end migrated.
fn rolled_back_when_full(case: &Arc<Case>, effects: std::ops::Range<u64>) -> usize {
    effects
        .filter(|from| {
            let end = end_with(case, Fault::DiskFull(*from), &format!("full from {from}"));
            end == End::RolledBack
        })
        .count()
}

/// The end of one life with a fault and without a crash, which must be one of the two.
fn end_with(case: &Arc<Case>, fault: Fault, what: &str) -> End {
    let world = begin(case, fault);
    let before = world.tree();
    let Ok(Outcome::Ended(end)) = live_on(&world, Others::Commit, false) else {
        panic!("broken: {what}")
    };
    check(&world, &before, end, what);
    end
}

/// A seed of its own for every run, which is printed, or the one that `SWEEP_SEED` names.
fn seed() -> u64 {
    let seed = std::env::var("SWEEP_SEED").map_or_else(
        |_| std::collections::hash_map::RandomState::new().hash_one(0),
        |seed| seed.parse().unwrap(),
    );
    eprintln!("SWEEP_SEED={seed}");
    seed
}

/// The executor dies at every effect on every captured host and for every target, and once more at moments that are
/// drawn.
#[test]
fn captured_hosts_end_migrated() {
    let seed = seed();
    for (at, case) in captured().iter().enumerate() {
        let sweep = Sweep::new(case, Fault::Nothing, Others::Commit);
        sweep.drawn(seed.wrapping_add(at as u64)).ends(End::Committed);
    }
}

/// Docker is stopped on the way back, too, as far as pods of the target may run.
#[rstest]
#[case::with_a_commit(Fault::Nothing, Others::Commit, End::Committed)]
#[case::without_one(Fault::Nothing, Others::Nobody, End::RolledBack)]
#[case::that_does_not_start(Fault::TargetRefusesConfig, Others::Nobody, End::RolledBack)]
fn a_containerd_in_the_place_of_dockers_ends_as_it_should(
    #[case] fault: Fault,
    #[case] others: Others,
    #[case] end: End,
) {
    Sweep::new(&Arc::new(cases::replaced()), fault, others).ends(end);
}

#[test]
fn captured_hosts_end_rolled_back() {
    let seed = seed();
    for (at, case) in captured().iter().enumerate() {
        for fault in [Fault::StopFails, Fault::TargetRefusesConfig] {
            let sweep = Sweep::new(case, fault, Others::Nobody);
            sweep.drawn(seed.wrapping_add(at as u64)).ends(End::RolledBack);
        }
    }
}
