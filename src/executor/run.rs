//! The loop: asks [`decide`] for the next move, and carries it out. How long it waits is in [`clock`].

mod clock;
mod leftovers;
mod outcome;

pub use outcome::{Outcome, RunError};

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    control::{self, ControlError, Dir, Order},
    decide::{self, AfterFailure, End, Next, Orders},
    journal::{self, Event, Journal, PartState, Saved},
    step::{Host, Notes, StepError},
    unit,
};
use crate::{
    host::{
        files::{Files, Lock},
        systemd::{BOOTED_WITHIN, Systemd, is_of_a_boot},
        watchdog::Watchdog,
    },
    plan::{
        digest::Digest,
        document::Plan,
        host_path::HostPath,
        step::{KUBELET_UNIT, Restart, Side, Step},
    },
    runtime::{Runtimes, Tasks},
};

/// Bytes that are set aside before the first step, so that a full disk can still be written to on the way back:
/// some hundred journal lines, and the largest configuration files twice.
const RESERVE: usize = 1 << 20;

/// Carries out the plan in `dir`, from where its journal stands.
///
/// # Errors
/// See [`RunError`].
pub async fn run<S: Systemd, R: Runtimes>(
    files: &Files,
    dir: &Dir,
    systemd: &S,
    runtimes: &R,
) -> Result<Outcome, RunError> {
    let lock_path = control::lock();
    let Some(lock) = files.lock(&lock_path)? else {
        return Err(RunError::Locked(lock_path));
    };
    let plan = dir.plan()?.ok_or_else(|| RunError::NoPlan(dir.path().clone()))?;
    let machine_id = HostPath::new("/etc/machine-id").map_err(io::Error::other)?;
    let found = files
        .read_text(&machine_id)?
        .unwrap_or_default()
        .trim()
        .to_owned();
    if found != plan.machine_id {
        return Err(RunError::OtherHost {
            planned: plan.machine_id,
            found,
        });
    }
    let digest = plan.digest();
    let mut journal = Journal::open(files, &dir.file("journal"))?;
    let patient = !journal.records().is_empty() || is_started_by_boot(systemd).await;
    let patient_until = patient.then(|| Instant::now() + BOOTED_WITHIN);
    match journal.records().first().map(|record| &record.event) {
        None => {
            if !files.exists(&dir.file("reserve"))? {
                reserve(files, dir)?;
            }
            let binary = env!("CARGO_PKG_VERSION").to_owned();
            journal.append(Event::Opened {
                format: journal::FORMAT,
                plan: digest.clone(),
                binary,
                nth: control::next_number(files)?,
            })?;
        }
        Some(Event::Opened { format, .. }) if *format != journal::FORMAT => {
            return Err(RunError::Format(*format));
        }
        Some(Event::Opened { plan: began, .. }) if *began == digest => {}
        Some(Event::Opened { plan: began, .. }) => {
            return Err(RunError::OtherPlan {
                journal: began.clone(),
                plan: digest,
            });
        }
        Some(_) => return Err(RunError::Format(0)),
    }
    let standing = decide::fold(journal.records(), &plan);
    let soaking = standing.soaking.is_some();
    let left = standing.soaking.or(standing.armed);
    let left = left.map(|left| left.saturating_sub(clock::BETWEEN_LIVES));
    let runs = standing.end.is_none() && !standing.backwards && !standing.committed;
    let run = Run {
        host: Host {
            files,
            systemd,
            runtimes,
        },
        dir,
        plan,
        digest,
        journal: RefCell::new(journal),
        deadline: RefCell::new(left.map(|left| Instant::now() + left)),
        born: Instant::now(),
        patient_until,
        forgiven: RefCell::default(),
        watchdog: Watchdog::of_this_process(),
        _lock: lock,
    };
    if let Some(left) = left.filter(|_| runs) {
        run.note(clock::waiting(left, soaking))?;
    }
    run.to_the_end().await
}

/// Whether the executor was started by a boot: in the first of all lives too, if the power was cut right before it.
async fn is_started_by_boot(systemd: &impl Systemd) -> bool {
    let booted = is_of_a_boot(systemd, unit::UNIT).await;
    // At a boot the bus may be late, too.
    booted
        .inspect_err(|error| tracing::warn!(%error, "it is not known whether the machine has just booted"))
        .unwrap_or(true)
}

/// Sets the reserve aside.
fn reserve(files: &Files, dir: &Dir) -> io::Result<()> {
    files.write(&dir.file("reserve"), &vec![0x55; RESERVE], 0o600)
}

/// One life of the executor.
struct Run<'a, S, R> {
    host: Host<'a, S, R>,
    dir: &'a Dir,
    plan: Plan,
    digest: Digest,
    journal: RefCell<Journal>,
    /// When the way back begins, while the kubelet's start under the target waits for its confirmation; when the commit
    /// follows, after it.
    deadline: RefCell<Option<Instant>>,
    born: Instant,
    /// Until when a runtime may still come up; absent if nothing was interrupted: in the first life, unless a boot began it.
    patient_until: Option<Instant>,
    /// Steps that were tried again because a runtime may not have answered yet.
    forgiven: RefCell<BTreeSet<usize>>,
    watchdog: Watchdog,
    _lock: Lock,
}

impl<S: Systemd, R: Runtimes> Run<'_, S, R> {
    async fn to_the_end(&self) -> Result<Outcome, RunError> {
        self.try_files()?;
        loop {
            let orders = self.orders()?;
            match self.next(orders) {
                Next::Begin(step) => match self.attend(self.host.save(&self.plan.steps[step].does)).await? {
                    Some(Ok(saved)) => {
                        self.note(Event::Started { step, saved })?;
                        self.apply(step).await?;
                    }
                    Some(Err(error)) if self.may_come_up(step, &error).await => self.pause_for_boot().await?,
                    Some(Err(error)) => self.failed(step, &error)?,
                    None => {}
                },
                Next::Resume(step) => self.apply(step).await?,
                Next::Prepared => return Ok(Outcome::Prepared),
                Next::Wait => self.attend(std::future::pending::<()>()).await?.unwrap_or(()),
                Next::Soak => {
                    let soak = Duration::from_secs(self.plan.soak_secs.into());
                    self.note(clock::waiting(soak, true))?;
                    *self.deadline.borrow_mut() = Some(Instant::now() + soak);
                }
                Next::Revert(_) if self.refuses_rollback().await? => {}
                Next::Revert(why) => {
                    tracing::warn!(%why, "rolling back");
                    self.set_aside_again();
                    self.note(Event::Reverting { why })?;
                }
                Next::Undo(step, saved) => {
                    if let Some(broken) = self.undo(step, &saved).await? {
                        return Ok(Outcome::Broken(broken));
                    }
                }
                Next::Conclude(End::Committed) => {
                    self.note(Event::Committed)?;
                    *self.deadline.borrow_mut() = None;
                }
                Next::Conclude(End::RolledBack) => {
                    self.end_lost().await;
                    self.remove_stuck().await?;
                    self.note(Event::RolledBack)?;
                }
                Next::Over(end) => {
                    self.host.files.remove(&self.dir.file("reserve"))?;
                    unit::retire(self.host.files, self.host.systemd).await?;
                    tracing::info!(?end, "it is over");
                    return Ok(Outcome::Ended(end));
                }
            }
        }
    }

    /// Before the first step: whether every file of the plan can be changed. Later, the pods would have stopped.
    fn try_files(&self) -> Result<(), RunError> {
        let is_new = |event: &Event| matches!(event, Event::Opened { .. });
        if !self
            .journal
            .borrow()
            .records()
            .iter()
            .all(|record| is_new(&record.event))
        {
            return Ok(());
        }
        for (step, planned) in self.plan.steps.iter().enumerate() {
            if let Step::File(file) = &planned.does
                && let Err(error) = self.host.files.try_change(&file.path)
            {
                let error = StepError::from(error);
                if error.is_disk_full() {
                    self.free_reserve()?;
                }
                if let Err(error) = self.host.files.end_trial(&file.path) {
                    tracing::warn!(%error, "a trial is left");
                }
                return self.failed(step, &error);
            }
        }
        Ok(())
    }

    /// Whether a rollback after the confirmation would meet something that is not as the switch left it: much may have changed
    /// since. Then nothing of it is begun, the target continues to serve, and the order is withdrawn.
    async fn refuses_rollback(&self) -> Result<bool, RunError> {
        let found = {
            let records = self.journal.borrow().records().to_vec();
            let standing = decide::fold(&records, &self.plan);
            if !standing.committed && standing.soaking.is_none() {
                return Ok(false);
            }
            self.host.obstacles(&self.plan, &standing.begun).await
        };
        let obstacles = match found {
            Ok(obstacles) => obstacles,
            Err(error) => vec![error.to_string()],
        };
        if obstacles.is_empty() {
            return Ok(false);
        }
        tracing::warn!(?obstacles, "the rollback is refused");
        self.dir.withdraw(Order::Undo)?;
        self.dir.withdraw(Order::Abort)?;
        self.note(Event::Refused { obstacles })?;
        Ok(true)
    }

    fn next(&self, orders: Orders) -> Next {
        let journal = self.journal.borrow();
        decide::next(&decide::fold(journal.records(), &self.plan), &self.plan, orders)
    }

    fn orders(&self) -> Result<Orders, ControlError> {
        let given = |order| self.dir.ordered(order, &self.digest);
        // The deadline first: a commit that is written between the two looks still counts.
        let expired = self
            .deadline
            .borrow()
            .is_some_and(|deadline| Instant::now() >= deadline);
        Ok(Orders {
            expired,
            go: given(Order::Go)?,
            commit: given(Order::Commit)?,
            abort: given(Order::Abort)?,
            undo: given(Order::Undo)?,
            end_soak: given(Order::EndSoak)?,
            lapsed: given(Order::Lapse)?,
        })
    }

    /// Applies a step, unless an order or the deadline turns the executor back meanwhile; the step is then half
    /// done, like one that a crash interrupted.
    async fn apply(&self, step: usize) -> Result<(), RunError> {
        let does = &self.plan.steps[step].does;
        tracing::info!(step, "applying");
        match self
            .attend(self.host.apply(does, &StepNotes { run: self, step }))
            .await?
        {
            Some(Ok(())) => self.note(Event::Done { step })?,
            Some(Err(error)) if self.may_come_up(step, &error).await => self.pause_for_boot().await?,
            Some(Err(error)) => self.failed(step, &error)?,
            None => {}
        }
        Ok(())
    }

    /// Whether the machine may still boot.
    fn is_patient(&self) -> bool {
        self.patient_until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether a step failed only because the machine boots: a runtime that it needs does not answer yet. The next
    /// move is then the same one again.
    async fn may_come_up(&self, step: usize, error: &StepError) -> bool {
        let does = &self.plan.steps[step].does;
        if !self.is_patient() || !error.is_about_answers() {
            return false;
        }
        // It may have come up since the step asked.
        let first = self.forgiven.borrow_mut().insert(step);
        let waits = !self.watched(self.host.answers(does)).await || first;
        if waits {
            tracing::warn!(step, %error, "a runtime does not answer yet; the step is tried again");
        }
        waits
    }

    async fn pause_for_boot(&self) -> Result<(), RunError> {
        self.attend(sleep(clock::BOOT_PAUSE)).await.map(|_| ())
    }

    /// A commit gave the reserve back; the way back after it needs it again, where there is room.
    fn set_aside_again(&self) {
        let committed = decide::fold(self.journal.borrow().records(), &self.plan).committed;
        if committed && let Err(error) = reserve(self.host.files, self.dir) {
            tracing::warn!(%error, "no disk space can be reserved for the rollback");
        }
    }

    fn failed(&self, step: usize, error: &StepError) -> Result<(), RunError> {
        tracing::error!(step, %error, "the step failed");
        if error.is_disk_full() {
            self.free_reserve()?;
        }
        Ok(self.note(Event::Failed {
            step,
            error: error.to_string(),
        })?)
    }

    /// Undoes a step, however often it has to be tried; answers what is broken if only a person can help.
    async fn undo(&self, step: usize, saved: &Saved) -> Result<Option<String>, RunError> {
        let does = &self.plan.steps[step].does;
        tracing::info!(step, "taking back");
        let (mut failures, mut pause, mut told) = (0, clock::UNDO_PAUSES.0, String::new());
        let (aside, notes) = (self.dir.aside(step), StepNotes { run: self, step });
        self.await_booted(does).await;
        loop {
            let error = match self.watched(self.host.undo(does, saved, &aside, &notes)).await {
                Ok(left) => {
                    self.left(step, &left)?;
                    self.note(Event::Undone { step, left: None })?;
                    return Ok(None);
                }
                Err(error) => error,
            };
            failures += 1;
            tracing::warn!(step, failures, %error, "the step could not be undone");
            if error.is_disk_full() {
                self.free_reserve()?;
            }
            let waits = self.may_come_up(step, &error).await;
            let (error, lasting) = (error.to_string(), error.is_lasting(failures));
            let next = {
                let journal = self.journal.borrow();
                let standing = decide::fold(journal.records(), &self.plan);
                decide::after_failure(&standing, &self.plan, step, failures, lasting)
            };
            let next = match next {
                AfterFailure::Leave if waits => AfterFailure::Retry,
                next => next,
            };
            match next {
                AfterFailure::Retry => {
                    // A line for each cause, not for each try.
                    if told != error {
                        told.clone_from(&error);
                        self.note(Event::Retrying { step, error })?;
                    }
                    self.help(does).await;
                    self.watched(sleep(pause)).await;
                    pause = (pause * 2).min(clock::UNDO_PAUSES.1);
                }
                AfterFailure::Leave => {
                    self.note(Event::Undone {
                        step,
                        left: Some(error),
                    })?;
                    return Ok(None);
                }
                AfterFailure::Postpone => {
                    self.note(Event::Postponed { step, error })?;
                    return Ok(None);
                }
                AfterFailure::GiveUp => {
                    let error = format!(
                        "step {} could not be undone: {error}. When that is solved, `systemctl start {}` continues",
                        step + 1,
                        unit::UNIT
                    );
                    self.note(Event::Broken {
                        step,
                        error: error.clone(),
                    })?;
                    return Ok(Some(error));
                }
            }
        }
    }

    /// Waits for a target that boots, before its pods end.
    async fn await_booted(&self, does: &Step) {
        let Step::StopPods(pods) = does else { return };
        let booting = || self.patient_until.is_some() && self.born.elapsed() < clock::TARGET_BOOTED_WITHIN;
        while booting()
            && self
                .watched(self.host.runtimes.health(&pods.target))
                .await
                .is_err()
        {
            self.watched(sleep(clock::BOOT_PAUSE)).await;
        }
    }

    /// What may make the next try to undo a step better: a source that did not become healthy in time is killed and
    /// started again, or the kubelet where only that is not healthy.
    async fn help(&self, does: &Step) {
        let Step::Await(wait) = does else { return };
        if wait.side != Side::Source {
            return;
        }
        let stays = self.plan.keeps_pods();
        if self.watched(self.host.answers(does)).await {
            if wait.kubelet.is_some() {
                self.watched(self.host.revive(&[KUBELET_UNIT.to_owned()])).await;
            }
            return;
        }
        for planned in &self.plan.steps {
            match &planned.does {
                Step::StopPods(pods) => self.watched(self.host.revive(&pods.source_units)).await,
                // The one unit that is restarted, where no pods stop.
                Step::Unit(unit) if stays && unit.restart == Restart::Backwards => {
                    self.watched(self.host.revive(std::slice::from_ref(&unit.unit)))
                        .await;
                    break;
                }
                _ => {}
            }
        }
    }

    fn left(&self, step: usize, all: &[String]) -> io::Result<()> {
        for what in all {
            self.note(Event::Left {
                step,
                what: what.clone(),
            })?;
        }
        Ok(())
    }

    /// Does `work`, while it reports to systemd that it goes on.
    async fn watched<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            self.watchdog.alive();
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = sleep(clock::LOOK) => {}
            }
        }
    }

    /// Does `work`, while it journals the time that is left and looks at the orders. Answers nothing when it
    /// stopped because the next move is another one now.
    async fn attend<T>(&self, work: impl Future<Output = T>) -> Result<Option<T>, RunError> {
        let mut work = std::pin::pin!(work);
        let mut ticked = Instant::now();
        loop {
            self.watchdog.alive();
            let now = Instant::now();
            // Right at the deadline, too; once it is over, only a commit for which a step is still missing waits.
            let wake = self
                .deadline
                .borrow()
                .filter(|deadline| *deadline > now)
                .unwrap_or(now + clock::LOOK)
                .min(now + clock::LOOK);
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                () = sleep_until(wake) => {}
            }
            let deadline = *self.deadline.borrow();
            let orders = self.orders()?;
            let (soaking, next) = {
                let journal = self.journal.borrow();
                let standing = decide::fold(journal.records(), &self.plan);
                let soaking = standing.soaking.is_some();
                (soaking, decide::next(&standing, &self.plan, orders))
            };
            if let Some(deadline) = deadline
                && ticked.elapsed() >= clock::tick(ticked - self.born, soaking)
            {
                ticked = Instant::now();
                self.note(clock::waiting(deadline - ticked, soaking))?;
            }
            if !matches!(next, Next::Wait | Next::Resume(_) | Next::Begin(_)) {
                return Ok(None);
            }
        }
    }

    /// Journals an event. A full disk gets the reserve back, once.
    fn note(&self, event: Event) -> io::Result<()> {
        let again = event.clone();
        let written = self.journal.borrow_mut().append(event);
        match written {
            Err(error) if StepError::from(io::Error::from(error.kind())).is_disk_full() => {
                self.free_reserve()?;
                self.journal.borrow_mut().append(again)
            }
            written => written,
        }
    }

    fn free_reserve(&self) -> io::Result<()> {
        self.host.files.remove(&self.dir.file("reserve"))
    }
}

/// Lets a step write into the journal.
struct StepNotes<'a, 'b, S, R> {
    run: &'a Run<'b, S, R>,
    step: usize,
}

impl<S: Systemd, R: Runtimes> Notes for StepNotes<'_, '_, S, R> {
    fn part(&self, key: &str, state: PartState) -> io::Result<()> {
        self.run.note(Event::Part {
            step: self.step,
            key: key.to_owned(),
            state,
        })
    }

    fn parts(&self) -> BTreeMap<String, PartState> {
        let journal = self.run.journal.borrow();
        let standing = decide::fold(journal.records(), &self.run.plan);
        let parts = standing.parts.get(&self.step).into_iter().flatten();
        parts
            .map(|(key, state)| ((*key).to_owned(), (*state).clone()))
            .collect()
    }

    fn running(&self) -> Option<Tasks> {
        let journal = self.run.journal.borrow();
        journal
            .records()
            .iter()
            .rev()
            .find_map(|record| match &record.event {
                Event::Part {
                    state: PartState::Running(tasks),
                    ..
                } => Some(tasks.clone()),
                _ => None,
            })
    }

    fn left(&self, what: &[String]) -> io::Result<()> {
        self.run.left(self.step, what)
    }

    fn armed(&self) -> io::Result<()> {
        if self.run.deadline.borrow().is_some() {
            return Ok(());
        }
        let left = Duration::from_secs(self.run.plan.confirm_within_secs.into());
        *self.run.deadline.borrow_mut() = Some(Instant::now() + left);
        self.run.note(Event::Armed {
            left_millis: clock::millis(left),
        })
    }
}
