//! `Link`: a symbolic link in the place of nothing, or of another link. What it leads to is neither read nor changed.

use super::{Saved, StepError, aside::Aside};
use crate::{
    host::files::Files,
    plan::{host_path::HostPath, step::LinkStep},
};

/// What is in the place of a link.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Link(String),
    Other,
}

fn look(files: &Files, path: &HostPath) -> Result<Found, StepError> {
    Ok(match files.read_link(path)? {
        Some(to) => Found::Link(to),
        None if files.exists(path)? => Found::Other,
        None => Found::Nothing,
    })
}

fn of(link: Option<&str>) -> Found {
    link.map_or(Found::Nothing, |to| Found::Link(to.to_owned()))
}

pub(super) fn save(files: &Files, step: &LinkStep) -> Result<Saved, StepError> {
    let link = step.planned_from.clone();
    if look(files, &step.path)? != of(link.as_deref()) {
        return Err(StepError::ChangedBefore(step.path.clone()));
    }
    let parent = step.path.parent();
    let missing_dirs = parent.map_or_else(|| Ok(Vec::new()), |parent| files.missing_dirs(&parent))?;
    Ok(Saved::Link { link, missing_dirs })
}

pub(super) fn apply(files: &Files, step: &LinkStep) -> Result<(), StepError> {
    let found = look(files, &step.path)?;
    if found == of(Some(step.to.as_str())) {
        // It has happened already, before a crash that may have come before the sync.
        return Ok(files.settle_link(&step.path)?);
    }
    if found != of(step.planned_from.as_deref()) {
        return Err(StepError::ChangedBefore(step.path.clone()));
    }
    files.put_link(&step.path, step.to.as_str())?;
    // Directories above it may have been made before a crash, too.
    Ok(files.settle_link(&step.path)?)
}

pub(super) fn undo(
    files: &Files,
    step: &LinkStep,
    old: Option<&str>,
    missing_dirs: &[HostPath],
    aside: &Aside,
) -> Result<Vec<String>, StepError> {
    let found = look(files, &step.path)?;
    if is_foreign(step, old, &found) {
        // The node must serve as before, whatever is in its place since; nothing of it is lost.
        match &found {
            Found::Link(to) => aside.keep_link(files, &step.path, to)?,
            Found::Other | Found::Nothing => aside.keep(files, &step.path)?,
        }
    }
    if found == of(old) {
        // It was not changed, or put back before a crash. Nothing is written: the disk may be read-only.
        files.remove_link_leftover(&step.path)?;
    } else {
        if found == Found::Other {
            files.remove(&step.path)?;
        }
        match old {
            Some(to) => files.put_link(&step.path, to)?,
            None => files.remove_link(&step.path)?,
        }
    }
    for directory in missing_dirs.iter().rev() {
        files.remove_empty_dir(directory)?;
    }
    files.settle_link(&step.path)?;
    Ok(aside.note(files, &step.path)?.into_iter().collect())
}

/// What the undo of the step would overwrite, in a sentence.
pub(super) fn obstacle(
    files: &Files,
    step: &LinkStep,
    old: Option<&str>,
) -> Result<Option<String>, StepError> {
    let is_foreign = is_foreign(step, old, &look(files, &step.path)?);
    Ok(is_foreign.then(|| {
        format!(
            "{} was a link to {}, and somebody else has changed it since the switch; remove it",
            step.path, step.to
        )
    }))
}

/// Whether something is neither what the step made it nor what it was before. Nothing is lost of a link that is gone.
fn is_foreign(step: &LinkStep, old: Option<&str>, found: &Found) -> bool {
    *found != Found::Nothing && *found != of(old) && *found != of(Some(step.to.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    fn step(planned_from: Option<&str>) -> LinkStep {
        LinkStep {
            path: path("/etc/containers/certs.d/r.example/transship.key"),
            planned_from: planned_from.map(str::to_owned),
            to: path("/etc/pki/r.key"),
        }
    }

    /// Applies a step; returns what it would be undone with.
    fn applied(files: &Files, step: &LinkStep) -> (Option<String>, Vec<HostPath>) {
        let Saved::Link { link, missing_dirs } = save(files, step).unwrap() else {
            panic!("not a link")
        };
        for _ in 0..2 {
            apply(files, step).unwrap();
        }
        (link, missing_dirs)
    }

    #[test]
    fn a_link_is_made_and_taken_back() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write(&path("/etc/pki/r.key"), b"secret", 0o600).unwrap();
        let aside = Aside::new(path("/aside"));
        let step = step(None);
        let (link, missing_dirs) = applied(&files, &step);
        assert_eq!(files.read_text(&step.path).unwrap().unwrap(), "secret");
        assert_eq!(obstacle(&files, &step, None).unwrap(), None);
        for _ in 0..2 {
            let notes = undo(&files, &step, link.as_deref(), &missing_dirs, &aside).unwrap();
            assert_eq!(notes, [""; 0]);
            assert!(!files.exists(&path("/etc/containers")).unwrap());
        }
        let text = files.read_text(&path("/etc/pki/r.key")).unwrap();
        assert_eq!(text.unwrap(), "secret", "what it led to stays");
    }

    #[test]
    fn another_link_is_put_back() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let step = step(Some("/etc/old.key"));
        assert!(save(&files, &step).is_err(), "it is gone");
        files.put_link(&step.path, "/etc/old.key").unwrap();
        let (link, missing_dirs) = applied(&files, &step);
        assert_eq!(files.read_link(&step.path).unwrap().unwrap(), "/etc/pki/r.key");
        let aside = Aside::new(path("/aside"));
        undo(&files, &step, link.as_deref(), &missing_dirs, &aside).unwrap();
        assert_eq!(files.read_link(&step.path).unwrap().unwrap(), "/etc/old.key");
    }

    #[test]
    fn what_somebody_else_has_put_there_is_kept_and_never_overwritten_forwards() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let step = step(None);
        files.write(&step.path, b"mine", 0o600).unwrap();
        assert!(matches!(save(&files, &step), Err(StepError::ChangedBefore(_))));
        assert!(matches!(apply(&files, &step), Err(StepError::ChangedBefore(_))));
        files.remove(&step.path).unwrap();
        for (file, kept) in [(true, Some("mine")), (false, None)] {
            let aside = Aside::new(path(&format!("/aside/{file}")));
            let (link, missing_dirs) = applied(&files, &step);
            files.remove_link(&step.path).unwrap();
            if file {
                files.write(&step.path, b"mine", 0o600).unwrap();
            } else {
                files.put_link(&step.path, "/etc/other.key").unwrap();
            }
            assert!(obstacle(&files, &step, None).unwrap().is_some());
            let notes = undo(&files, &step, link.as_deref(), &missing_dirs, &aside).unwrap();
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert_eq!(look(&files, &step.path).unwrap(), Found::Nothing);
            let place = path(&format!("/aside/{file}/transship.key"));
            assert_eq!(files.read_text(&place).unwrap().as_deref(), kept);
            let link = files.read_link(&place).unwrap();
            assert_eq!(link.is_some(), !file, "{link:?}");
        }
    }
}
