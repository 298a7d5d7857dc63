//! `File`: create, replace or remove a whole file.

use super::{Saved, StepError};
use crate::{
    executor::journal::SavedFile,
    host::files::{Bytes, Files},
    plan::{digest::Digest, host_path::HostPath, step::FileStep},
};

pub(super) fn save(files: &Files, step: &FileStep) -> Result<Saved, StepError> {
    let bytes = files.read(&step.path)?;
    if bytes.as_ref().map(Digest::of) != step.planned_from {
        return Err(StepError::ChangedBefore(step.path.clone()));
    }
    let file = match (bytes, files.attributes(&step.path)?) {
        (Some(bytes), Some(attributes)) => Some(SavedFile {
            bytes: Bytes(bytes),
            attributes,
        }),
        _ => None,
    };
    let missing_dirs = step
        .path
        .parent()
        .map_or_else(|| Ok(Vec::new()), |parent| files.missing_dirs(&parent))?;
    Ok(Saved::File { file, missing_dirs })
}

pub(super) fn apply(files: &Files, step: &FileStep) -> Result<(), StepError> {
    let found = files.read(&step.path)?;
    if found.as_deref() == wanted(step) {
        // It has happened already, before a crash that may have come before the sync.
        return Ok(files.settle(&step.path)?);
    }
    if found.as_ref().map(Digest::of) != step.planned_from {
        return Err(StepError::ChangedBefore(step.path.clone()));
    }
    match &step.want {
        Some(want) => files.write(&step.path, want.text.as_bytes(), want.mode)?,
        None => files.remove(&step.path)?,
    }
    // Directories above it may have been made before a crash, too.
    Ok(files.settle(&step.path)?)
}

pub(super) fn undo(
    files: &Files,
    step: &FileStep,
    old: Option<&SavedFile>,
    missing_dirs: &[HostPath],
) -> Result<(), StepError> {
    let found = files.read(&step.path)?;
    let was = old.map(|old| old.bytes.0.as_slice());
    if found.as_deref() == was {
        // It was not changed, or put back before a crash. Nothing is written: the disk may be read-only.
        files.remove_leftover(&step.path)?;
    } else if found.is_some() && found.as_deref() != wanted(step) {
        return Err(StepError::ChangedAfter(step.path.clone()));
    } else if let Some(old) = old {
        // Where it is gone nothing is lost: dpkg takes a configuration file away with its package, whosever it was.
        files.restore(&step.path, &old.bytes.0, &old.attributes)?;
    } else {
        files.remove(&step.path)?;
    }
    for directory in missing_dirs.iter().rev() {
        files.remove_empty_dir(directory)?;
    }
    Ok(files.settle(&step.path)?)
}

fn wanted(step: &FileStep) -> Option<&[u8]> {
    step.want.as_ref().map(|want| want.text.as_bytes())
}
