//! The crash sweep: real files under a temporary root, systemd and the runtimes as state machines. The executor is
//! killed before every single effect, between a temporary file and its rename, in the middle of a file and in the
//! middle of a journal line; and again while it recovers; with the machine rebooted in between or not. Whatever the
//! schedule, the end is one of the two: migrated, or byte for byte, unit for unit and pod for pod as before.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    missing_debug_implementations,
    reason = "a test"
)]

mod cases;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use transship::{
    executor::{
        control::{Dir, Order},
        decide::End,
        progress::State as Progress,
        run::{self, Outcome, RunError},
        unit::{self, UNIT},
    },
    plan::{host_path::HostPath, step::HOLD_FILE},
};

use cases::Case;
use world::{Fault, Killed, Tree, World};

/// What the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// Commit as soon as the switch waits for it.
    Commit,
    /// Nothing: nobody confirms.
    Nobody,
    /// Abort as soon as so many steps are done.
    Abort(usize),
}

/// How many second crashes are tried after each first one.
#[derive(Clone, Copy)]
enum Second {
    None,
    /// Every n-th, from another start after each first crash.
    Nth(u64),
}

/// One life of the executor, with the others acting beside it; nothing when it was killed.
fn live(world: &World, others: Others, fuel: u64) -> Option<Result<Outcome, RunError>> {
    world.set_fuel(fuel);
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let files = world.files();
    let dir = Dir::at(&files, world.case.dir_path());
    let seen = Dir::at(&world.free_files(), world.case.dir_path());
    let digest = world.case.plan.digest();
    let others = async {
        // A look costs more than all that the executor does between two of them.
        let pause = match others {
            Others::Commit => Duration::from_millis(400),
            Others::Nobody => std::future::pending().await,
            Others::Abort(_) => Duration::from_millis(50),
        };
        loop {
            let progress = seen.progress().unwrap().unwrap();
            match others {
                Others::Commit if matches!(progress.state, Progress::AwaitingCommit { .. }) => {
                    seen.order(Order::Commit, &digest).unwrap();
                }
                Others::Abort(steps) if progress.steps_done >= steps => {
                    seen.order(Order::Abort, &digest).unwrap()
                }
                _ => {
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            break;
        }
        std::future::pending().await
    };
    let life = AssertUnwindSafe(|| {
        clock.block_on(async {
            tokio::select! {
                biased;
                outcome = run::run(&files, &dir, world, world) => outcome,
                () = others => unreachable!("the others wait for ever"),
            }
        })
    });
    match catch_unwind(life) {
        Ok(outcome) => Some(outcome),
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => std::panic::resume_unwind(payload),
    }
}

/// Lives until the executor says how it ended. systemd starts it again after a failure.
fn live_on(world: &World, others: Others) -> Outcome {
    for _ in 0..5 {
        match live(world, others, u64::MAX).unwrap() {
            Ok(outcome) => return outcome,
            Err(error) => eprintln!("the executor failed: {error}"),
        }
    }
    panic!("the executor does not come to an end");
}

/// A world right before the executor is started, with its unit installed and the switch let go.
fn begin(case: &Arc<Case>, fault: Fault) -> World {
    let world = World::new(case, fault);
    let files = world.free_files();
    let dir = Dir::at(&files, case.dir_path());
    dir.write_plan(&case.plan).unwrap();
    dir.order(Order::Go, &case.plan.digest()).unwrap();
    world
        .state()
        .units
        .insert(UNIT.to_owned(), world::FakeUnit::default());
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let binary = HostPath::new(cases::BINARY).unwrap();
    clock
        .block_on(unit::install(&files, &world, &binary, &dir))
        .unwrap();
    world
}

/// What the node is after the plan: every file as planned, all others untouched.
fn planned(case: &Case, before: &Tree) -> Tree {
    let mut tree = before.clone();
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
        .filter(|(_, (_, bytes))| bytes.is_some())
        .collect()
}

/// Demands that the node is in the one of the two states that `end` names, wholly.
fn check(world: &World, before: &Tree, end: End, schedule: &str) {
    let case = &world.case;
    let state = world.state();
    assert_eq!(state.violations, Vec::<String>::new(), "{schedule}");
    assert!(!state.rehearsing, "{schedule}: the rehearsal's sandbox is left");
    assert!(
        world
            .free_files()
            .read(&HostPath::new(HOLD_FILE).unwrap())
            .unwrap()
            .is_none(),
        "{schedule}: held"
    );
    let own = &state.units[UNIT];
    assert_ne!(own.boot, "enabled", "{schedule}: the executor would start again");
    let (runtime, units) = match end {
        End::Committed => {
            assert_eq!(
                files_only(world.tree()),
                files_only(planned(case, before)),
                "{schedule}"
            );
            (case.target(), case.final_units())
        }
        End::RolledBack => {
            assert_eq!(world.tree(), *before, "{schedule}");
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
    for (name, expected) in units {
        let unit = &state.units[&name];
        assert_eq!((unit.active, unit.boot.clone()), expected, "{schedule}: {name}");
        if unit.active {
            assert_eq!(
                unit.runs_with,
                world.would_run_with(&state, &name),
                "{schedule}: {name} runs with other files"
            );
        }
    }
    let carried = state.images[&case.target()].len();
    match end {
        End::Committed => assert_eq!(carried, case.images.len(), "{schedule}: images"),
        // A target that does not answer keeps its images; that is journalled.
        End::RolledBack if world.fault == Fault::TargetDies => {}
        End::RolledBack => assert_eq!(carried, case.images.len().min(1), "{schedule}: images"),
    }
}

/// Kills the executor before every effect, lets it recover with and without a reboot, and kills it again while it
/// recovers. Answers the number of schedules.
fn sweep(case: &Arc<Case>, fault: Fault, others: Others, second: Second, end: End) -> usize {
    let name = format!("{}, {fault:?}, {others:?}", case.name);
    let world = begin(case, fault);
    let (start, before) = (world.save(), world.tree());
    let mut schedules = 0;
    // Without a second crash the schedules are many for what they add: every third.
    let stride = if matches!(second, Second::None) { 3 } else { 1 };
    for first in (0..).step_by(stride) {
        world.load(&start);
        let killed = live(&world, others, first).is_none();
        let crashed = world.save();
        for reboot in [false, true] {
            world.load(&crashed);
            if reboot {
                world.reboot();
            }
            let restarted = world.save();
            let recover = |schedule: &str| {
                // After a reboot systemd starts what is enabled; without one it restarts what failed.
                if world.state().units[UNIT].boot == "enabled" || !reboot {
                    assert_eq!(live_on(&world, others), Outcome::Ended(end), "{schedule}");
                }
                check(&world, &before, end, schedule);
            };
            recover(&format!("{name}: killed at {first}, reboot {reboot}"));
            schedules += 1;
            let (start, stride) = match second {
                Second::None => continue,
                Second::Nth(n) => (first % n, n),
            };
            for again in (start..).step_by(usize::try_from(stride).unwrap()) {
                world.load(&restarted);
                if world.state().units[UNIT].boot != "enabled" || live(&world, others, again).is_some() {
                    break;
                }
                recover(&format!(
                    "{name}: killed at {first}, reboot {reboot}, again at {again}"
                ));
                schedules += 1;
            }
        }
        if !killed {
            return schedules;
        }
    }
    unreachable!("a life without a crash ends the loop")
}

#[test]
fn every_crash_ends_migrated() {
    let case = Arc::new(cases::by_hand());
    assert!(
        sweep(
            &case,
            Fault::Nothing,
            Others::Commit,
            Second::Nth(29),
            End::Committed
        ) > 400
    );
}

#[test]
fn every_crash_without_a_commit_ends_rolled_back() {
    let case = Arc::new(cases::by_hand());
    assert!(
        sweep(
            &case,
            Fault::Nothing,
            Others::Nobody,
            Second::Nth(53),
            End::RolledBack
        ) > 600
    );
}

#[test]
fn every_fault_ends_rolled_back() {
    let case = Arc::new(cases::by_hand());
    for fault in [
        Fault::TargetRefusesConfig,
        Fault::CarryFails,
        Fault::RehearsalFails,
        Fault::StopPodsFails,
        Fault::KubeletUnhealthy,
        Fault::KubeletCrashes,
        Fault::StopFails,
        Fault::KubeletMasked,
        Fault::ReadOnly,
        Fault::TargetDies,
    ] {
        assert!(sweep(&case, fault, Others::Commit, Second::None, End::RolledBack) > 30);
    }
}

#[test]
fn an_abort_at_any_step_ends_rolled_back() {
    let case = Arc::new(cases::by_hand());
    for steps in [0, 4, 12, 18, case.plan.steps.len()] {
        assert!(
            sweep(
                &case,
                Fault::Nothing,
                Others::Abort(steps),
                Second::None,
                End::RolledBack
            ) > 20
        );
    }
}

/// A disk that is full from any one effect on: the node is as before, or, where nothing needed space any more,
/// migrated. Without the reserve the way back could not be journalled.
#[test]
fn a_full_disk_ends_in_one_of_the_two() {
    let case = Arc::new(cases::by_hand());
    let mut ends = std::collections::BTreeMap::new();
    for from in 8..140 {
        let world = begin(&case, Fault::DiskFull(from));
        let before = world.tree();
        let Outcome::Ended(end) = live_on(&world, Others::Commit) else {
            panic!("broken when full from {from}")
        };
        check(&world, &before, end, &format!("full from {from}"));
        *ends.entry(format!("{end:?}")).or_insert(0) += 1;
    }
    assert!(ends["RolledBack"] > 10, "{ends:?}");
}

#[test]
fn captured_hosts_end_in_one_of_the_two() {
    for case in cases::captured() {
        let case = Arc::new(case);
        sweep(
            &case,
            Fault::Nothing,
            Others::Commit,
            Second::None,
            End::Committed,
        );
        for fault in [Fault::StopFails, Fault::TargetRefusesConfig] {
            sweep(&case, fault, Others::Nobody, Second::None, End::RolledBack);
        }
    }
}
