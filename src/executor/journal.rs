//! The journal: the append-only write-ahead log of a plan being carried out. One JSON object per line, synced
//! before the change that it announces. A torn last line never happened.

use std::{collections::BTreeMap, io};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    edit::parse::{self, ParseError},
    host::{
        files::{Attributes, Bytes, Files},
        unit_links::UnitLink,
    },
    plan::{digest::Digest, host_path::HostPath, shims::ShimUse},
    runtime::{Carried, Tasks},
};

/// Version of the lines' form; an executor refuses any other.
pub const FORMAT: u32 = 1;

/// One line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was written, by the host's clock; nothing is decided by it.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// What happened. Steps are indices into the plan's steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase")]
pub enum Event {
    /// The first line.
    Opened {
        /// [`FORMAT`].
        format: u32,
        /// Digest of the plan.
        plan: Digest,
        /// Version of the binary that began.
        binary: String,
        /// Its number among the migrations of this host: the one with the highest began last.
        #[serde(default)]
        nth: u64,
    },
    /// A step is about to be applied.
    Started {
        /// The step.
        step: usize,
        /// All that its undo needs.
        saved: Saved,
    },
    /// How far a step of many parts came with one of them. A step that is resumed does not do again what is done, and one
    /// that is undone undoes what was begun.
    Part {
        /// The step.
        step: usize,
        /// Which part, in the step's own words: the full reference of an image.
        key: String,
        /// How far it came.
        state: PartState,
    },
    /// A step has its effect.
    Done {
        /// The step.
        step: usize,
    },
    /// A step could not be applied.
    Failed {
        /// The step.
        step: usize,
        /// Why, in a sentence.
        error: String,
    },
    /// From here on steps are undone, for another reason than a step that failed.
    Reverting {
        /// The reason, in a sentence.
        why: String,
    },
    /// A step could not be undone yet. It is tried again, with growing pauses, until it is undone.
    Retrying {
        /// The step.
        step: usize,
        /// Why, in a sentence.
        error: String,
    },
    /// A step could not be undone yet, and the source serves without it: it is tried again after all others.
    Postponed {
        /// The step.
        step: usize,
        /// Why, in a sentence.
        error: String,
    },
    /// Something harmless stays behind although the step has its effect, or is undone.
    Left {
        /// The step.
        step: usize,
        /// What, and why, in a sentence.
        what: String,
    },
    /// A rollback after the commit was ordered and not begun; the order was withdrawn.
    Refused {
        /// What is in its way, a sentence each.
        obstacles: Vec<String>,
    },
    /// A step was taken back.
    Undone {
        /// The step.
        step: usize,
        /// What harmless thing had to be left behind, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        left: Option<String>,
    },
    /// The kubelet was started under the target; without a commit the way back begins when the time is over.
    Armed {
        /// Milliseconds until then.
        left_millis: u64,
    },
    /// Time went by since [`Event::Armed`].
    Waiting {
        /// Milliseconds until the way back begins.
        left_millis: u64,
    },
    /// The switch is confirmed, and nothing is undone by itself any more. The commit follows when the time is over.
    Soaking {
        /// Milliseconds until then.
        left_millis: u64,
    },
    /// Nothing is undone without a loss any more.
    Committed,
    /// Everything is as it was before.
    RolledBack,
    /// A step could not be taken back, and a person has to help. Starting the executor again tries again.
    Broken {
        /// The step.
        step: usize,
        /// What is broken and what to do, in a sentence.
        error: String,
    },
}

/// How far a step came with one of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "camelCase")]
pub enum PartState {
    /// It is about to be changed.
    Begun,
    /// An image is in the other store.
    Carried(Carried),
    /// These containers run; those that run after a restart of their runtime are compared with them.
    Running(Tasks),
    /// A sandbox, whose id is the key, has ended and is not removed. It is tried again once the source serves.
    Stuck {
        /// Why, in a sentence.
        why: String,
    },
    /// The shims of the containers that run now.
    Shims {
        /// Their programs.
        programs: Vec<ShimUse>,
    },
}

/// All that the undo of a step needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "camelCase")]
pub enum Saved {
    /// The step itself says how it is undone.
    Nothing,
    /// A file.
    File {
        /// What it was; absent when there was none.
        file: Option<SavedFile>,
        /// Directories above it that did not exist, the outermost first.
        missing_dirs: Vec<HostPath>,
    },
    /// A symbolic link.
    Link {
        /// Where it led; absent when there was none.
        link: Option<String>,
        /// Directories above it that did not exist, the outermost first.
        missing_dirs: Vec<HostPath>,
    },
    /// A unit.
    Unit {
        /// It was running.
        active: bool,
        /// The links that decide what happens to it at boot.
        links: Vec<UnitLink>,
    },
    /// An archive's directory.
    Archive {
        /// It was there, whole.
        existed: bool,
        /// Directories above it that did not exist, the outermost first.
        missing_dirs: Vec<HostPath>,
    },
    /// The copy of a program.
    Program {
        /// It was there.
        existed: bool,
        /// Directories above it that did not exist, the outermost first.
        missing_dirs: Vec<HostPath>,
    },
    /// Packages.
    Packages {
        /// Names of those that will be installed; none of them was there.
        added: Vec<String>,
        /// Their configuration files that the package manager does not take back by itself as they were.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        configuration: Vec<HostPath>,
        /// The links of their units, which their scripts make and remove without syncing them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        links: Vec<UnitLink>,
    },
    /// Images.
    Images {
        /// The step's names, each with the id of the image in the target's store that had it.
        before: BTreeMap<String, Option<String>>,
    },
}

/// A file as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedFile {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its mode, owner and extended attributes.
    pub attributes: Attributes,
}

/// A journal that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the journal: {0}")]
    Io(#[from] io::Error),
    /// A line in the middle is none.
    #[error("the journal {path}, line {line}: {error}; it was written by another version or damaged")]
    Line {
        /// The file.
        path: HostPath,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        error: ParseError,
    },
}

/// Reads all whole lines, and tells how many bytes they are.
fn parse(path: &HostPath, bytes: &[u8]) -> Result<(Vec<Record>, u64), JournalError> {
    let whole = bytes
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |last| last + 1);
    let records = bytes[..whole]
        .split_inclusive(|byte| *byte == b'\n')
        .enumerate()
        .map(|(index, line)| {
            parse::json(line).map_err(|error| JournalError::Line {
                path: path.clone(),
                line: index + 1,
                error,
            })
        })
        .collect::<Result<_, _>>()?;
    Ok((records, whole as u64))
}

/// The records of the journal at `path`; none when it does not exist.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(files: &Files, path: &HostPath) -> Result<Vec<Record>, JournalError> {
    Ok(parse(path, &files.read(path)?.unwrap_or_default())?.0)
}

/// The journal of the executor that holds the lock.
#[derive(Debug)]
pub struct Journal {
    files: Files,
    path: HostPath,
    records: Vec<Record>,
    /// Bytes of the file that are whole lines; whatever is behind them is cut off by the next append.
    length: u64,
}

impl Journal {
    /// Opens the journal at `path` to go on with it, or an empty one. Its last line may be one that was written
    /// and not synced before a crash; it is durable when this returns, before anybody acts on it.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(files: &Files, path: &HostPath) -> Result<Self, JournalError> {
        let (records, length) = parse(path, &files.read(path)?.unwrap_or_default())?;
        files.settle(path)?;
        Ok(Self {
            files: files.clone(),
            path: path.clone(),
            records,
            length,
        })
    }

    /// What happened so far.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends a line; it is durable when this returns.
    ///
    /// # Errors
    /// When it is not; it then never happened, and may be tried again.
    pub fn append(&mut self, event: Event) -> io::Result<()> {
        let record = Record {
            at: Timestamp::now(),
            event,
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.files.append(&self.path, self.length, &line)?;
        self.length += line.len() as u64;
        self.records.push(record);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_never_happened() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = HostPath::new("/journal").unwrap();
        let mut journal = Journal::open(&files, &path).unwrap();
        journal.append(Event::Done { step: 0 }).unwrap();
        let good = files.read(&path).unwrap().unwrap();
        files
            .append(
                &path,
                good.len() as u64,
                br#"{"at":"2026-01-01T00:00:00Z","event":"comm"#,
            )
            .unwrap();
        let mut journal = Journal::open(&files, &path).unwrap();
        assert_eq!(journal.records().len(), 1);
        journal.append(Event::RolledBack).unwrap();
        let events: Vec<Event> = read(&files, &path)
            .unwrap()
            .into_iter()
            .map(|record| record.event)
            .collect();
        assert_eq!(events, [Event::Done { step: 0 }, Event::RolledBack]);
    }

    /// A form that cannot be written fails its step on every node.
    #[test]
    fn every_state_of_a_part_can_be_written_and_read() {
        use crate::runtime::Means;

        let shim = ShimUse {
            program: "/usr/bin/containerd-shim-runc-v2".to_owned(),
            pods: 3,
            others: 0,
        };
        let carried = Carried {
            bytes: 1,
            means: Means::Linked,
        };
        let states = [
            PartState::Begun,
            PartState::Carried(carried),
            PartState::Running(Tasks::default()),
            PartState::Shims { programs: vec![shim] },
            PartState::Stuck {
                why: "away".to_owned(),
            },
        ];
        for state in states {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(serde_json::from_str::<PartState>(&text).unwrap(), state, "{text}");
        }
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_an_error() {
        let path = HostPath::new("/journal").unwrap();
        assert!(matches!(
            parse(&path, b"{\n"),
            Err(JournalError::Line { line: 1, .. })
        ));
    }

    #[test]
    fn fuzz_journals() {
        use crate::fuzz::{hold, quiet, samples};

        let path = HostPath::new("/journal").unwrap();
        hold(&samples("journal", &[]), |text| {
            let Some((records, whole)) = quiet(parse(&path, text.as_bytes())) else {
                return;
            };
            let lines = text.matches('\n').count();
            assert_eq!(records.len(), lines, "each whole line is a record");
            let (again, _) = parse(&path, &text.as_bytes()[..whole as usize]).unwrap();
            assert_eq!(again, records, "a torn last line changes nothing");
        });
    }
}
