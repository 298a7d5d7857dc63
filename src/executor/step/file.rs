//! `File`: create, replace or remove a whole file. The change of a unit file includes that systemd has read it.

use super::{Saved, StepError, aside::Aside};
use crate::{
    executor::journal::SavedFile,
    host::{
        files::{Bytes, Files, is_private},
        systemd::Systemd,
    },
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

pub(super) async fn apply(files: &Files, systemd: &impl Systemd, step: &FileStep) -> Result<(), StepError> {
    write(files, step)?;
    reload(systemd, step).await
}

/// Reloads systemd if it keeps what it has read of the file, even if the file was changed before a crash: nobody knows
/// whether systemd was reloaded since.
async fn reload(systemd: &impl Systemd, step: &FileStep) -> Result<(), StepError> {
    if step.is_unit_file() {
        systemd.reload().await?;
    }
    Ok(())
}

fn write(files: &Files, step: &FileStep) -> Result<(), StepError> {
    let found = files.read(&step.path)?;
    if found.as_deref() == wanted(step) && !is_too_wide(files, step)? {
        // It has happened already, before a crash that may have come before the sync.
        return Ok(files.settle(&step.path)?);
    }
    if found.as_deref() != wanted(step) && found.as_ref().map(Digest::of) != step.planned_from {
        return Err(StepError::ChangedBefore(step.path.clone()));
    }
    match &step.want {
        Some(want) => files.write(&step.path, want.text.as_bytes(), want.mode)?,
        None => files.remove(&step.path)?,
    }
    // Directories above it may have been made before a crash, too.
    Ok(files.settle(&step.path)?)
}

pub(super) async fn undo(
    files: &Files,
    systemd: &impl Systemd,
    step: &FileStep,
    old: Option<&SavedFile>,
    missing_dirs: &[HostPath],
    aside: &Aside,
) -> Result<Vec<String>, StepError> {
    restore(files, step, old, missing_dirs, aside)?;
    reload(systemd, step).await?;
    Ok(aside.note(files, &step.path)?.into_iter().collect())
}

fn restore(
    files: &Files,
    step: &FileStep,
    old: Option<&SavedFile>,
    missing_dirs: &[HostPath],
    aside: &Aside,
) -> Result<(), StepError> {
    let found = files.read(&step.path)?;
    let was = old.map(|old| old.bytes.0.as_slice());
    let as_it_was = |files: &Files| match old {
        Some(old) => Ok::<_, StepError>(
            files
                .attributes(&step.path)?
                .is_some_and(|now| now.mode == old.attributes.mode),
        ),
        None => Ok(true),
    };
    if is_foreign(step, old, found.as_deref()) {
        // The node must serve as before, whatever became of the file since; nothing of it is lost.
        aside.keep(files, &step.path)?;
    }
    if found.as_deref() == was && as_it_was(files)? {
        // It was not changed, or put back before a crash. Nothing is written: the disk may be read-only.
        files.remove_leftover(&step.path)?;
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

/// Whether a file is neither what the step made it nor what it was before. Nothing is lost of a file that is gone.
pub(super) fn is_foreign(step: &FileStep, old: Option<&SavedFile>, found: Option<&[u8]>) -> bool {
    found.is_some() && found != old.map(|old| old.bytes.0.as_slice()) && found != wanted(step)
}

/// Whether others may read a file that is for its owner alone.
fn is_too_wide(files: &Files, step: &FileStep) -> Result<bool, StepError> {
    let Some(want) = step.want.as_ref().filter(|want| is_private(want.mode)) else {
        return Ok(false);
    };
    let now = files.attributes(&step.path)?;
    Ok(now.is_some_and(|now| now.mode & !want.mode & 0o077 != 0))
}

fn wanted(step: &FileStep) -> Option<&[u8]> {
    step.want.as_ref().map(|want| want.text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::step::Contents;

    #[test]
    fn a_file_with_a_secret_is_taken_from_all_others() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = HostPath::new("/etc/containerd.service.d/transship.env").unwrap();
        let mode = || files.attributes(&path).unwrap().unwrap().mode;
        for (old, new) in [
            ("HTTPS_PROXY=a\n", "HTTPS_PROXY=b\n"),
            ("HTTPS_PROXY=a\n", "HTTPS_PROXY=a\n"),
        ] {
            files.write(&path, old.as_bytes(), 0o644).unwrap();
            assert_eq!(mode(), 0o644);
            let step = FileStep {
                path: path.clone(),
                planned_from: Some(Digest::of(old)),
                want: Some(Contents {
                    text: new.to_owned(),
                    mode: 0o600,
                }),
            };
            let Saved::File { file, missing_dirs } = save(&files, &step).unwrap() else {
                panic!("not a file")
            };
            write(&files, &step).unwrap();
            assert_eq!(mode(), 0o600);
            write(&files, &step).unwrap();
            let aside = Aside::new(HostPath::new("/aside").unwrap());
            restore(&files, &step, file.as_ref(), &missing_dirs, &aside).unwrap();
            assert_eq!(aside.note(&files, &path).unwrap(), None, "nobody else changed it");
            assert_eq!(files.read_text(&path).unwrap().unwrap(), old);
            assert_eq!(mode(), 0o644, "as it was before");
            files.remove(&path).unwrap();
        }
    }
}
