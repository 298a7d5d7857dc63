//! Lives of the executor in a world, with others acting beside it.

use std::{sync::Arc, time::Duration};

use transship::{
    executor::{
        control::{Dir, Order},
        decide::End,
        run::{self, Outcome, RunError},
        unit::{self, UNIT},
    },
    plan::host_path::HostPath,
};

use crate::crash_sweep::{
    cases::{self, Case},
    world::{self, Fault, World},
};

/// What the others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Commit as soon as the switch waits for it.
    Commit,
    /// Nothing: nobody confirms.
    Nobody,
    /// Abort as soon as so many steps are done.
    Abort(usize),
    /// Abort as soon as a step failed.
    AbortWhenFailed,
    /// Confirm as soon as the switch waits for it, and go back while it is not committed yet.
    BackFromSoak,
    /// They committed, and want to go back all the same.
    Undo,
    /// Go back right after so many steps, the confirmation among them if more steps follow it.
    UndoAfter(usize),
}

/// One life of the executor, with the others acting beside it.
pub fn live(world: &Arc<World>, others: Others, keep: bool) -> Result<Outcome, RunError> {
    live_for(world, others, keep, Duration::MAX).unwrap()
}

/// The same, killed after so long; `None` if it was.
pub fn live_for(
    world: &Arc<World>,
    others: Others,
    keep: bool,
    most: Duration,
) -> Option<Result<Outcome, RunError>> {
    world.begin_life(keep);
    if let Others::UndoAfter(steps) = others {
        world.undo_after(steps);
    }
    let files = world.files();
    let dir = Dir::at(&files, world.case.dir_path());
    let give = |order| {
        Dir::at(&world.free_files(), world.case.dir_path())
            .order(order, &world.case.digest)
            .unwrap();
    };
    let others = async {
        let order = loop {
            // The journal's text is enough to see by, and cheaper than its meaning.
            let journal = world.journal();
            let done = journal.matches("\"event\":\"done\"").count();
            match others {
                Others::Commit if done == world.case.plan.switched() => break Order::Commit,
                Others::BackFromSoak if journal.contains("\"event\":\"soaking\"") => break Order::Undo,
                Others::BackFromSoak => {
                    if done == world.case.plan.switched() {
                        give(Order::Commit);
                    }
                    tokio::time::sleep(Duration::from_millis(400)).await;
                }
                Others::Abort(steps) if done >= steps => break Order::Abort,
                Others::AbortWhenFailed if journal.contains("\"event\":\"failed\"") => break Order::Abort,
                Others::Nobody | Others::Undo | Others::UndoAfter(_) => std::future::pending().await,
                Others::Commit => tokio::time::sleep(Duration::from_millis(400)).await,
                Others::Abort(_) | Others::AbortWhenFailed => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
            }
        };
        give(order);
        std::future::pending().await
    };
    clock(world).block_on(async {
        world.clock_starts();
        tokio::select! {
            biased;
            outcome = run::run(&files, &dir, &**world, &**world) => Some(outcome),
            () = tokio::time::sleep(most) => None,
            () = others => unreachable!("the others wait for ever"),
        }
    })
}

/// Time that goes by only when everybody waits, and no program runs.
pub fn clock(world: &Arc<World>) -> tokio::runtime::Runtime {
    let world = world.clone();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .on_thread_park(move || world.attend_programs())
        .build()
        .unwrap()
}

/// Lives until the executor says how it ended. systemd starts it again after a failure.
pub fn live_on(world: &Arc<World>, others: Others, keep: bool) -> Result<Outcome, RunError> {
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
pub fn begin(case: &Arc<Case>, fault: Fault) -> Arc<World> {
    let world = World::new(case, fault);
    get_ready(&world);
    world
}

/// The same, of which no moment is kept.
pub fn begin_unwatched(case: &Arc<Case>, fault: Fault) -> Arc<World> {
    let world = World::new(case, fault);
    world.begin_life(false);
    get_ready(&world);
    world
}

fn get_ready(world: &Arc<World>) {
    let case = &world.case;
    let files = world.free_files();
    let dir = Dir::at(&files, case.dir_path());
    dir.write_plan(&case.plan).unwrap();
    dir.order(Order::Go, &case.digest).unwrap();
    world
        .state()
        .units
        .insert(UNIT.to_owned(), world::FakeUnit::default());
    let binary = HostPath::new(cases::BINARY).unwrap();
    clock(world)
        .block_on(unit::install(&files, &**world, &binary, &dir))
        .unwrap();
}

/// The same world after a commit, with the order to go back.
pub fn begin_undo(world: &Arc<World>) {
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
