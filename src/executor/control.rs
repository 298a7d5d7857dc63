//! The directory of a migration on the host, through which agent, command line and executor speak:
//! `/var/lib/transship/<migration>/` with `facts.json`, `plan.json`, the `journal`, and the order files. Every
//! file is written atomically and durably.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    journal::{self, Event, JournalError, Record},
    progress::{self, Progress},
    step::Aside,
};
use crate::{
    edit::parse::{self, ParseError},
    host::files::Files,
    plan::{
        baseline::Baseline,
        digest::Digest,
        document::{self, Plan},
        facts::{Facts, OpenAttempt},
        host_path::HostPath,
    },
};

pub use crate::plan::document::STATE;

/// What the executor is told; the file holds the digest of the plan that is meant, and a newline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Go on from `Prepare` to `Switch`.
    Go,
    /// Keep the switch.
    Commit,
    /// Go back; has no effect after a commit.
    Abort,
    /// Go back although the switch was committed.
    Undo,
    /// Commit before the time between the confirmation and the commit is over.
    EndSoak,
    /// The time for [`Order::Go`] is over. The executor gives this order to itself.
    Lapse,
}

impl Order {
    const fn file(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Commit => "commit",
            Self::Abort => "abort",
            Self::Undo => "undo",
            Self::EndSoak => "end-soak",
            Self::Lapse => "lapsed",
        }
    }
}

/// A control directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file cannot be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// A file holds something else than it should.
    #[error("{path}: {error}; it was written by another version or damaged")]
    Content {
        /// The file.
        path: HostPath,
        /// What is wrong.
        error: ParseError,
    },
    /// The plan has a form that this version does not know.
    #[error("{path}: plan format {found}, this version reads {}", document::FORMAT)]
    Format {
        /// The file.
        path: HostPath,
        /// Its format.
        found: u32,
    },
    /// See [`JournalError`].
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Another plan began.
    #[error("another plan was begun in {0}; roll it back first with `transship node rollback`")]
    Begun(HostPath),
    /// A migration's name that would lead out of the directory.
    #[error("{0:?} cannot be the name of a directory in {STATE}")]
    Name(String),
}

/// What is left of the time for [`Order::Go`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Standby {
    plan: Digest,
    left_millis: u64,
}

/// The control directory of one migration.
#[derive(Clone, Debug)]
pub struct Dir {
    files: Files,
    path: HostPath,
}

impl Dir {
    /// The directory of `migration` (`<UID>-<generation>`, with `-<attempt>` after a retry, or `hand-<time>`); it need not exist yet.
    ///
    /// # Errors
    /// When `migration` is no plain name.
    pub fn new(files: &Files, migration: &str) -> Result<Self, ControlError> {
        let wrong = || ControlError::Name(migration.to_owned());
        if migration.contains('/') {
            return Err(wrong());
        }
        let path = HostPath::new(format!("{STATE}/{migration}")).map_err(|_| wrong())?;
        Ok(Self::at(files, path))
    }

    /// The directory at `path`.
    pub fn at(files: &Files, path: HostPath) -> Self {
        Self {
            files: files.clone(),
            path,
        }
    }

    /// The migration's name: the last part of its path.
    pub fn name(&self) -> &str {
        self.path.as_str().rsplit('/').next().unwrap_or_default()
    }

    /// The directories of all migrations that this host has a plan of, sorted by name.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn all(files: &Files) -> Result<Vec<Self>, ControlError> {
        let mut all = Vec::new();
        for name in files.list(&state())? {
            let dir = Self::new(files, &name)?;
            if files.exists(&dir.file("plan.json"))? {
                all.push(dir);
            }
        }
        Ok(all)
    }

    /// The attempts on this host whose journals are open. A directory that cannot be read is skipped: `transship node
    /// status` names the cause.
    ///
    /// # Errors
    /// When the directories cannot be listed.
    pub fn open_attempts(files: &Files) -> Result<Vec<OpenAttempt>, ControlError> {
        let mut open = Vec::new();
        for dir in Self::all(files)? {
            let begun = dir.journal().is_ok_and(|journal| !journal.is_empty());
            let Ok(Some(progress)) = dir.progress() else {
                continue;
            };
            if begun && !progress.state.is_final() {
                open.push(OpenAttempt {
                    name: dir.name().to_owned(),
                    dir: dir.path.clone(),
                    state: progress.state.to_string(),
                });
            }
        }
        Ok(open)
    }

    /// The directory of the migration that is not over, else of the one that began last; `None` if none ever began.
    ///
    /// # Errors
    /// When the journals cannot be read.
    pub fn newest(files: &Files) -> Result<Option<Self>, ControlError> {
        let mut newest = None;
        for dir in Self::all(files)? {
            let Some(number) = dir.number()? else { continue };
            let open = dir.progress()?.is_some_and(|progress| !progress.state.is_final());
            if newest.as_ref().is_none_or(|(rank, _)| (open, number) > *rank) {
                newest = Some(((open, number), dir));
            }
        }
        Ok(newest.map(|(_, dir)| dir))
    }

    /// Its number among the migrations of this host; `None` if it has not begun.
    fn number(&self) -> Result<Option<u64>, ControlError> {
        Ok(self.journal()?.first().map(|record| match record.event {
            Event::Opened { nth, .. } => nth,
            _ => 0,
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &HostPath {
        &self.path
    }

    /// The path of one of its files.
    #[allow(clippy::expect_used, reason = "a plain name in a path is a path")]
    pub(super) fn file(&self, name: &str) -> HostPath {
        self.path.join(name).expect("a plain name")
    }

    /// Where versions of somebody else are kept that the undo of a step replaces.
    #[allow(clippy::expect_used, reason = "a plain name in a path is a path")]
    pub(super) fn aside(&self, step: usize) -> Aside {
        let directory = self.file("aside").join(&format!("step-{}", step + 1));
        Aside::new(directory.expect("a plain name"))
    }

    /// The plan; nothing when there is none yet.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn plan(&self) -> Result<Option<Plan>, ControlError> {
        let path = self.file("plan.json");
        let Some(plan) = self.json::<Plan>(&path)? else {
            return Ok(None);
        };
        if plan.format == document::FORMAT {
            Ok(Some(plan))
        } else {
            Err(ControlError::Format {
                path,
                found: plan.format,
            })
        }
    }

    /// Writes the plan; orders that were given for another one have no effect on it.
    ///
    /// # Errors
    /// [`ControlError::Begun`] if another plan is being carried out, or was; and if it is not durable.
    pub fn write_plan(&self, plan: &Plan) -> Result<(), ControlError> {
        // Plans with the same digest can carry other images.
        if !self.journal()?.is_empty() && self.plan()?.as_ref() != Some(plan) {
            return Err(ControlError::Begun(self.path.clone()));
        }
        self.write_json(self.file("plan.json"), plan)
    }

    /// The facts; nothing when there are none yet.
    ///
    /// # Errors
    /// When they cannot be read or understood.
    pub fn facts(&self) -> Result<Option<Facts>, ControlError> {
        self.json(&self.file("facts.json"))
    }

    /// Writes the facts.
    ///
    /// # Errors
    /// When they are not durable.
    pub fn write_facts(&self, facts: &Facts) -> Result<(), ControlError> {
        self.write_json(self.file("facts.json"), facts)
    }

    /// What the API reported right before the switch; `None` if nobody recorded it.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn baseline(&self) -> Result<Option<Baseline>, ControlError> {
        self.json(&self.file("baseline.json"))
    }

    /// Writes what the API reports right before the switch.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn write_baseline(&self, baseline: &Baseline) -> Result<(), ControlError> {
        self.write_json(self.file("baseline.json"), baseline)
    }

    /// The time that the plan with this digest still has to wait for [`Order::Go`]; `None` if it was never written down.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub(super) fn standby(&self, plan: &Digest) -> Result<Option<Duration>, ControlError> {
        let left: Option<Standby> = self.json(&self.file("standby.json"))?;
        Ok(left
            .filter(|left| left.plan == *plan)
            .map(|left| Duration::from_millis(left.left_millis)))
    }

    /// Writes down the time that the plan with this digest still has.
    ///
    /// # Errors
    /// When it is not durable.
    pub(super) fn write_standby(&self, plan: &Digest, left: Duration) -> Result<(), ControlError> {
        let left_millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let plan = plan.clone();
        self.write_json(self.file("standby.json"), &Standby { plan, left_millis })
    }

    /// The journal's records; none when it was not begun.
    ///
    /// # Errors
    /// When it cannot be read or understood.
    pub fn journal(&self) -> Result<Vec<Record>, ControlError> {
        Ok(journal::read(&self.files, &self.file("journal"))?)
    }

    /// What plan and journal mean together; nothing when there is no plan.
    ///
    /// # Errors
    /// When one of them cannot be read or understood.
    pub fn progress(&self) -> Result<Option<Progress>, ControlError> {
        let Some(plan) = self.plan()? else { return Ok(None) };
        Ok(Some(progress::fold(&self.journal()?, &plan)))
    }

    /// Whether `order` was given for the plan with this digest.
    ///
    /// # Errors
    /// When that cannot be found out.
    pub fn ordered(&self, order: Order, plan: &Digest) -> Result<bool, ControlError> {
        let given = self.files.read(&self.file(order.file()))?;
        Ok(given.is_some_and(|bytes| bytes.trim_ascii() == plan.as_str().as_bytes()))
    }

    /// Gives `order` for the plan with this digest.
    ///
    /// # Errors
    /// When it is not durable.
    pub fn order(&self, order: Order, plan: &Digest) -> Result<(), ControlError> {
        Ok(self
            .files
            .write(&self.file(order.file()), format!("{plan}\n").as_bytes(), 0o600)?)
    }

    /// Takes an order back.
    ///
    /// # Errors
    /// When it may still be there.
    pub(super) fn withdraw(&self, order: Order) -> Result<(), ControlError> {
        Ok(self.files.remove(&self.file(order.file()))?)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &HostPath) -> Result<Option<T>, ControlError> {
        let Some(bytes) = self.files.read(path)? else {
            return Ok(None);
        };
        parse::json(&bytes)
            .map(Some)
            .map_err(|error| ControlError::Content {
                path: path.clone(),
                error,
            })
    }

    fn write_json<T: serde::Serialize>(&self, path: HostPath, value: &T) -> Result<(), ControlError> {
        let bytes = serde_json::to_vec(value).map_err(io::Error::from)?;
        Ok(self.files.write(&path, &bytes, 0o600)?)
    }
}

/// The number of a migration that begins now. Directories that cannot be read do not count: they must not keep the
/// executor from its work.
pub(super) fn next_number(files: &Files) -> Result<u64, ControlError> {
    let numbers = Dir::all(files)?.into_iter().filter_map(|dir| dir.number().ok()?);
    Ok(numbers.max().unwrap_or(0) + 1)
}

/// The lock that the executor holds for its life: one change at a time on a host.
#[allow(clippy::expect_used, reason = "a constant")]
pub(super) fn lock() -> HostPath {
    state().join("lock").expect("a plain name")
}

/// [`STATE`] as a path.
#[allow(clippy::expect_used, reason = "a constant")]
pub(crate) fn state() -> HostPath {
    HostPath::new(STATE).expect("an absolute path")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::journal::Journal;

    #[test]
    fn an_order_is_for_one_plan() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::new(&Files::new(root.path()), "hand-1").unwrap();
        let (this, other) = (Digest::of("this"), Digest::of("other"));
        assert!(!dir.ordered(Order::Commit, &this).unwrap());
        dir.order(Order::Commit, &this).unwrap();
        assert!(dir.ordered(Order::Commit, &this).unwrap());
        assert!(!dir.ordered(Order::Commit, &other).unwrap());
        assert!(!dir.ordered(Order::Abort, &this).unwrap());
    }

    fn plan(migration: &str) -> Plan {
        Plan::example(migration, Vec::new())
    }

    fn open(dir: &Dir, files: &Files, plan: &Plan, nth: u64) -> Journal {
        dir.write_plan(plan).unwrap();
        let mut journal = Journal::open(files, &dir.file("journal")).unwrap();
        let opened = Event::Opened {
            format: journal::FORMAT,
            plan: plan.digest(),
            binary: "0".to_owned(),
            nth,
        };
        journal.append(opened).unwrap();
        journal
    }

    /// The clock may have been set back between two migrations: their numbers count.
    #[test]
    fn the_newest_is_the_one_that_is_open_and_else_the_one_that_began_last() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let [first, second] = ["a", "b"].map(|name| Dir::new(&files, name).unwrap());
        assert!(Dir::newest(&files).unwrap().is_none());
        let number = next_number(&files).unwrap();
        open(&second, &files, &plan("b"), number + 1)
            .append(Event::Committed)
            .unwrap();
        let mut journal = open(&first, &files, &plan("a"), number);
        assert_eq!(Dir::newest(&files).unwrap().unwrap().path(), first.path());
        journal.append(Event::RolledBack).unwrap();
        assert_eq!(Dir::newest(&files).unwrap().unwrap().path(), second.path());
        assert_eq!(next_number(&files).unwrap(), number + 2);
    }

    #[test]
    fn a_plan_that_began_is_not_replaced() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let dir = Dir::new(&files, "a").unwrap();
        open(&dir, &files, &plan("a"), 1);
        dir.write_plan(&plan("a")).unwrap();
        let refused = dir.write_plan(&plan("b"));
        assert!(matches!(refused, Err(ControlError::Begun(_))), "{refused:?}");
        assert_eq!(dir.plan().unwrap().unwrap().migration, "a");
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["..", "", "a/b", "."] {
            assert!(
                matches!(Dir::new(&Files::new("/"), name), Err(ControlError::Name(_))),
                "{name:?}"
            );
        }
    }
}
