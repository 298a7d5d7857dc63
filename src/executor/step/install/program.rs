//! A program that is copied.

use std::io;

use super::{Saved, StepError};
use crate::{
    host::files::Files,
    plan::{host_path::HostPath, step::ProgramCopy},
};

pub(super) fn save(files: &Files, step: &ProgramCopy) -> Result<Saved, StepError> {
    let parent = step.copy.parent();
    Ok(Saved::Program {
        existed: files.exists(&step.copy)?,
        missing_dirs: parent.map_or_else(|| Ok(Vec::new()), |parent| files.missing_dirs(&parent))?,
    })
}

pub(super) fn apply(files: &Files, step: &ProgramCopy) -> Result<(), StepError> {
    let bytes = files.read(&step.program)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("copy {}: it does not exist", step.program),
        )
    })?;
    if files.read(&step.copy)?.as_ref() == Some(&bytes) {
        return Ok(files.settle(&step.copy)?);
    }
    if let Some(parent) = step.copy.parent() {
        files.create_dir_all(&parent)?;
    }
    Ok(files.write(&step.copy, &bytes, 0o755)?)
}

pub(super) fn undo(
    files: &Files,
    step: &ProgramCopy,
    existed: bool,
    missing_dirs: &[HostPath],
) -> Result<(), StepError> {
    files.remove_leftover(&step.copy)?;
    if existed {
        return Ok(());
    }
    files.remove(&step.copy)?;
    for directory in missing_dirs.iter().rev() {
        files.remove_empty_dir(directory)?;
    }
    Ok(())
}
