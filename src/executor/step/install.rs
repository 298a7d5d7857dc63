//! `Install`: bring a runtime's files onto the host. An archive is built under a hidden name next to its directory and
//! renamed when all of it is durable and its program has answered; so a directory that is there is whole.

mod package;
mod program;

use super::{Saved, StepError};
use crate::{
    host::{
        archive::{self, ArchiveError},
        fetch::{self, FetchError, RESERVE},
        files::Files,
        systemd::Systemd,
    },
    plan::{
        digest::Digest,
        host_path::{HostPath, NotAHostPath},
        redaction,
        step::{Archive, InstallStep},
    },
    runtime::{RuntimeError, Runtimes},
};

/// Files that could not be brought onto the host.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// See [`FetchError`].
    #[error(transparent)]
    Fetch(FetchError),
    /// See [`ArchiveError`].
    #[error(transparent)]
    Archive(ArchiveError),
    /// Another archive than the one that is meant.
    #[error("{url} has the SHA-256 {found}, not {wanted}; nothing of it was unpacked")]
    OtherDigest {
        /// Where it is, without credentials.
        url: String,
        /// The digest of what came.
        found: Digest,
        /// The digest that was asked for.
        wanted: Digest,
    },
    /// There is no room for what is in the archive.
    #[error(
        "the archive unpacks to {needed} bytes, and {free} are free at {at}, of which {RESERVE} must stay free; make room"
    )]
    NoSpace {
        /// Where it would lie.
        at: HostPath,
        /// Bytes of its files.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
    /// The daemon cannot be run.
    #[error(
        "{0}; a program that needs a newer C library than this host has is released as a static build too"
    )]
    DoesNotRun(RuntimeError),
    /// Another version than planned.
    #[error("{program} says {found:?}, and {wanted} was planned")]
    OtherVersion {
        /// The daemon.
        program: HostPath,
        /// Its words.
        found: String,
        /// The version of the plan.
        wanted: String,
    },
    /// Packages that cannot be installed or removed.
    #[error("{0}")]
    Packages(String),
    /// Another run of the package manager has its lock.
    #[error("{0}")]
    Locked(String),
    /// A package whose signature cannot be verified.
    #[error("{0}")]
    Unverified(String),
    /// A path that cannot be.
    #[error(transparent)]
    Path(#[from] NotAHostPath),
}

impl From<FetchError> for StepError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Io(error) => Self::Io(error),
            error @ (FetchError::Unreadable { .. } | FetchError::NoSpace { .. }) => {
                Self::Install(InstallError::Fetch(error))
            }
        }
    }
}

impl From<ArchiveError> for StepError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Io(error) => Self::Io(error),
            error => Self::Install(InstallError::Archive(error)),
        }
    }
}

impl From<NotAHostPath> for StepError {
    fn from(error: NotAHostPath) -> Self {
        Self::Install(error.into())
    }
}

pub(super) async fn save(files: &Files, step: &InstallStep) -> Result<Saved, StepError> {
    let step = match step {
        InstallStep::Archive(step) => step,
        InstallStep::Package(step) => return package::save(files, step).await,
        InstallStep::Program(step) => return program::save(files, step),
    };
    let parent = step.dir.parent();
    Ok(Saved::Archive {
        existed: files.exists(&step.dir)?,
        missing_dirs: parent.map_or_else(|| Ok(Vec::new()), |parent| files.missing_dirs(&parent))?,
    })
}

pub(super) async fn apply(
    files: &Files,
    systemd: &impl Systemd,
    runtimes: &impl Runtimes,
    step: &InstallStep,
) -> Result<(), StepError> {
    match step {
        InstallStep::Archive(step) => unpack(files, runtimes, step).await,
        InstallStep::Package(step) => package::apply(files, systemd, step).await,
        InstallStep::Program(step) => program::apply(files, step),
    }
}

async fn unpack(files: &Files, runtimes: &impl Runtimes, step: &Archive) -> Result<(), StepError> {
    let scratch = Files::scratch(&step.dir)?;
    // What an executor that died was building is of no use: nobody knows how much of it is durable.
    files.remove_tree(&scratch)?;
    if files.exists(&step.dir)? {
        files.settle(&step.dir)?;
        return answers(runtimes, step, &step.program).await;
    }
    if let Err(error) = build(files, runtimes, step, &scratch).await {
        // Room for what has to be done now. Where that fails the undo of the step does it.
        if let Err(left) = files.remove_tree(&scratch) {
            tracing::warn!(%left, "what was unpacked is left for now");
        }
        return Err(error);
    }
    files.remove_tree(&scratch)?;
    // Directories above it may have been made before a crash, and not synced.
    Ok(files.settle(&step.dir)?)
}

/// Fetches, verifies and unpacks the archive in the directory `scratch`, and publishes what came of it.
async fn build(
    files: &Files,
    runtimes: &impl Runtimes,
    step: &Archive,
    scratch: &HostPath,
) -> Result<(), StepError> {
    files.create_dir_all(scratch)?;
    let (packed, tree) = (scratch.join("archive")?, scratch.join("tree")?);
    let found = fetch::fetch(files, &step.url, step.proxy.as_deref(), &packed).await?;
    if found != step.sha256 {
        return Err(StepError::Install(InstallError::OtherDigest {
            url: redaction::public(&step.url),
            found,
            wanted: step.sha256.clone(),
        }));
    }
    let inside = |path: &HostPath| {
        let below = path.as_str().strip_prefix(step.dir.as_str());
        let below = below.and_then(|rest| rest.strip_prefix('/'));
        below.map(str::to_owned).ok_or(StepError::Mismatch)
    };
    let program = inside(&step.program)?;
    let contents = archive::look_through(files.open(&packed)?.0, &program).await?;
    let (needed, free) = (contents.bytes, files.free_bytes(scratch)?);
    if free < needed.saturating_add(RESERVE) {
        let at = step.dir.clone();
        return Err(StepError::Install(InstallError::NoSpace { at, needed, free }));
    }
    files.create_dir_all(&tree)?;
    archive::unpack(files.open(&packed)?.0, &contents, files, &tree).await?;
    answers(runtimes, step, &tree.join(&program)?).await?;
    tracing::info!(dir = %step.dir, bytes = needed, version = step.version, "unpacked");
    Ok(files.publish(&tree, &step.dir)?)
}

/// Whether the program says the planned version. It was verified: whoever asked for it has it run anyway.
async fn answers(runtimes: &impl Runtimes, step: &Archive, program: &HostPath) -> Result<(), StepError> {
    let found = runtimes
        .program_version(program)
        .await
        .map_err(|error| StepError::Install(InstallError::DoesNotRun(error)))?;
    let mut words = found.split_whitespace();
    if words.any(|word| word.strip_prefix('v').unwrap_or(word) == step.version) {
        return Ok(());
    }
    Err(StepError::Install(InstallError::OtherVersion {
        program: step.program.clone(),
        found: found.trim().to_owned(),
        wanted: step.version.clone(),
    }))
}

pub(super) async fn undo(
    files: &Files,
    systemd: &impl Systemd,
    runtimes: &impl Runtimes,
    step: &InstallStep,
    saved: &Saved,
) -> Result<Vec<String>, StepError> {
    match (step, saved) {
        (InstallStep::Archive(step), Saved::Archive { existed: true, .. }) => {
            files.remove_tree(&Files::scratch(&step.dir)?)?;
        }
        (InstallStep::Archive(step), Saved::Archive { .. }) if runtimes.runs_on(&step.dir).await? => {
            return Ok(vec![stays(&step.dir)]);
        }
        (InstallStep::Program(step), Saved::Program { existed: false, .. })
            if runtimes.runs_on(&step.copy).await? =>
        {
            return Ok(vec![stays(&step.copy)]);
        }
        (
            InstallStep::Program(step),
            Saved::Program {
                existed,
                missing_dirs,
            },
        ) => {
            program::undo(files, step, *existed, missing_dirs)?;
        }
        (InstallStep::Archive(step), Saved::Archive { missing_dirs, .. }) => {
            files.unpublish(&step.dir)?;
            for directory in missing_dirs.iter().rev() {
                files.remove_empty_dir(directory)?;
            }
            files.settle(&step.dir)?;
        }
        (
            InstallStep::Package(step),
            Saved::Packages {
                added,
                configuration,
                links,
            },
        ) => package::undo(files, systemd, step, added, configuration, links).await?,
        _ => return Err(StepError::Mismatch),
    }
    Ok(Vec::new())
}

/// Why something that the plan brought is not removed.
fn stays(path: &HostPath) -> String {
    format!("{path} stays: containers that run depend on the shim in it; remove it when none of them is left")
}
