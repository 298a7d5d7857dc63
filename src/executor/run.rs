//! The loop: asks [`decide`] for the next move, and carries it out. No decision is taken here.

use std::{cell::RefCell, io, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{
    control::{self, ControlError, Dir, Order},
    decide::{self, End, Next, Orders},
    journal::{self, Event, Journal, JournalError, Saved},
    step::{Host, Notes, StepError},
    unit::{self, UnitError},
};
use crate::{
    host::{
        files::{Files, Lock},
        systemd::Systemd,
    },
    plan::{
        digest::Digest,
        document::Plan,
        host_path::HostPath,
        step::{AwaitStep, InstallStep, Side, Step},
    },
    runtime::{Carried, Runtimes},
};

/// How often order files are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How often the time that is left is journalled: a crash gives back at most this much.
const TICK: Duration = Duration::from_secs(5);
/// Pauses between the tries to take a step back.
const UNDO_PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Bytes that are set aside before the first step, so that a full disk can still be written to on the way back:
/// some hundred journal lines, and the largest configuration files twice.
const RESERVE: usize = 1 << 20;

/// How a run of the executor ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// `Prepare` is done and `go` is not given.
    Prepared,
    /// It is over.
    Ended(End),
    /// A step could not be taken back; this is what is broken and what to do.
    Broken(String),
}

/// A run that could not go on. The host is as the journal says; starting the executor again goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another executor runs.
    #[error("another transship executor runs on this host: {0} is locked")]
    Locked(HostPath),
    /// Nothing to carry out.
    #[error("{0} holds no plan.json")]
    NoPlan(HostPath),
    /// A plan for another host.
    #[error("the plan was made for the host with machine-id {planned}, this one is {found}; plan again")]
    OtherHost {
        /// The machine-id in the plan.
        planned: String,
        /// That of this host.
        found: String,
    },
    /// A journal of another plan.
    #[error(
        "the journal belongs to the plan {journal}, not to {plan}; put the old plan back, or remove the directory if nothing is half done"
    )]
    OtherPlan {
        /// The digest that the journal names.
        journal: Digest,
        /// The digest of the plan.
        plan: Digest,
    },
    /// A journal that this version cannot go on with.
    #[error("the journal has format {0}, which this version does not know; start the binary that began it")]
    Format(u32),
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Something cannot be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// See [`UnitError`].
    #[error(transparent)]
    Unit(#[from] UnitError),
}

impl RunError {
    /// Whether starting the executor again cannot help without a person.
    pub const fn is_lasting(&self) -> bool {
        matches!(
            self,
            Self::NoPlan(_) | Self::OtherHost { .. } | Self::OtherPlan { .. } | Self::Format(_)
        )
    }
}

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
    match journal.records().first().map(|record| &record.event) {
        None => {
            if !files.exists(&dir.file("reserve"))? {
                files.write(&dir.file("reserve"), &vec![0x55; RESERVE], 0o600)?;
            }
            let binary = env!("CARGO_PKG_VERSION").to_owned();
            journal.append(Event::Opened {
                format: journal::FORMAT,
                plan: digest.clone(),
                binary,
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
    let deadline = decide::fold(journal.records(), &plan)
        .armed
        .map(|left| Instant::now() + left);
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
        deadline: RefCell::new(deadline),
        _lock: lock,
    };
    run.to_the_end().await
}

/// One life of the executor.
struct Run<'a, S, R> {
    host: Host<'a, S, R>,
    dir: &'a Dir,
    plan: Plan,
    digest: Digest,
    journal: RefCell<Journal>,
    /// When the way back begins; set while the kubelet's start under the target waits for its commit.
    deadline: RefCell<Option<Instant>>,
    _lock: Lock,
}

impl<S: Systemd, R: Runtimes> Run<'_, S, R> {
    async fn to_the_end(&self) -> Result<Outcome, RunError> {
        loop {
            let orders = self.orders()?;
            match self.next(orders) {
                Next::Begin(step) => match self.host.save(&self.plan.steps[step].does).await {
                    Ok(saved) => {
                        self.note(Event::Started { step, saved })?;
                        self.apply(step).await?;
                    }
                    Err(error) => self.failed(step, &error)?,
                },
                Next::Resume(step) => self.apply(step).await?,
                Next::Prepared => return Ok(Outcome::Prepared),
                Next::Wait => self.attend(std::future::pending::<()>()).await?.unwrap_or(()),
                Next::Revert(why) => {
                    tracing::warn!(%why, "going back");
                    self.note(Event::Reverting { why })?;
                }
                Next::Undo(step, saved) => {
                    if let Some(broken) = self.undo(step, &saved).await? {
                        return Ok(Outcome::Broken(broken));
                    }
                }
                Next::Conclude(End::Committed) => self.note(Event::Committed)?,
                Next::Conclude(End::RolledBack) => self.note(Event::RolledBack)?,
                Next::Over(end) => {
                    self.host.files.remove(&self.dir.file("reserve"))?;
                    unit::retire(self.host.files, self.host.systemd).await?;
                    tracing::info!(?end, "it is over");
                    return Ok(Outcome::Ended(end));
                }
            }
        }
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
            Some(Err(error)) => self.failed(step, &error)?,
            None => {}
        }
        Ok(())
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

    /// Takes a step back, with some tries; answers what is broken if it cannot be.
    async fn undo(&self, step: usize, saved: &Saved) -> Result<Option<String>, RunError> {
        let does = &self.plan.steps[step].does;
        tracing::info!(step, "taking back");
        let mut pauses = UNDO_PAUSES.into_iter();
        let error = loop {
            match self.host.undo(does, saved).await {
                Ok(()) => {
                    self.note(Event::Undone { step, left: None })?;
                    return Ok(None);
                }
                Err(error) => {
                    tracing::warn!(step, %error, "could not be taken back");
                    if error.is_disk_full() {
                        self.free_reserve()?;
                    }
                    match pauses.next() {
                        Some(pause) if !error.is_lasting() => sleep(pause).await,
                        _ => break error,
                    }
                }
            }
        };
        if self.may_be_left(does) {
            self.note(Event::Undone {
                step,
                left: Some(error.to_string()),
            })?;
            return Ok(None);
        }
        let error = format!(
            "step {} could not be taken back: {error}. When that is solved, `systemctl start {}` goes on",
            step + 1,
            unit::UNIT
        );
        self.note(Event::Broken {
            step,
            error: error.clone(),
        })?;
        Ok(Some(error))
    }

    /// Whether the node serves as before even if `does` cannot be taken back. Images, a rehearsal's sandbox and an
    /// unpacked archive only take space where nothing uses them. A target that was never seen healthy with a kubelet on it has
    /// no pods, and that it cannot even be reached must not keep the source from coming back; one that was may
    /// still run copies of what the source would start.
    fn may_be_left(&self, does: &Step) -> bool {
        let kubelet_on_target = |step: &usize| {
            matches!(
                &self.plan.steps[*step].does,
                Step::Await(AwaitStep {
                    side: Side::Target,
                    kubelet: Some(_),
                    ..
                })
            )
        };
        match does {
            Step::Install(InstallStep::Archive(_)) | Step::Images(_) | Step::Rehearse(_) => true,
            Step::StopPods(_) => !self
                .journal
                .borrow()
                .records()
                .iter()
                .any(|record| matches!(&record.event, Event::Done { step } if kubelet_on_target(step))),
            Step::Install(InstallStep::Package(_))
            | Step::File(_)
            | Step::Unit(_)
            | Step::ClearPods(_)
            | Step::Kubelet(_)
            | Step::Await(_) => false,
        }
    }

    /// Does `work`, while it journals the time that is left and looks at the orders. Answers nothing when it
    /// stopped because the next move is another one now.
    async fn attend<T>(&self, work: impl Future<Output = T>) -> Result<Option<T>, RunError> {
        let mut work = std::pin::pin!(work);
        let mut ticked = Instant::now();
        loop {
            let now = Instant::now();
            // Right at the deadline, too; once it is over, only a commit for which a step is still missing waits.
            let wake = self
                .deadline
                .borrow()
                .filter(|deadline| *deadline > now)
                .unwrap_or(now + LOOK)
                .min(now + LOOK);
            tokio::select! {
                biased;
                done = &mut work => return Ok(Some(done)),
                () = sleep_until(wake) => {}
            }
            let deadline = *self.deadline.borrow();
            if let Some(deadline) = deadline
                && ticked.elapsed() >= TICK
            {
                ticked = Instant::now();
                self.note(Event::Waiting {
                    left_millis: millis(deadline - ticked),
                })?;
            }
            if !matches!(self.next(self.orders()?), Next::Wait | Next::Resume(_)) {
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
    fn carried(&self, image: &str, carried: Carried) -> io::Result<()> {
        self.run.note(Event::Carried {
            step: self.step,
            image: image.to_owned(),
            carried,
        })
    }

    fn armed(&self) -> io::Result<()> {
        if self.run.deadline.borrow().is_some() {
            return Ok(());
        }
        let left = Duration::from_secs(self.run.plan.confirm_within_secs.into());
        *self.run.deadline.borrow_mut() = Some(Instant::now() + left);
        self.run.note(Event::Armed {
            left_millis: millis(left),
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
