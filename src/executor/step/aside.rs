//! What somebody else changed since the plan was carried out, and what the rollback would overwrite: it is kept first.

use super::StepError;
use crate::{host::files::Files, plan::host_path::HostPath};

/// The directory of one step for versions of somebody else, and how they are told.
#[derive(Clone, Debug)]
pub struct Aside {
    directory: HostPath,
}

impl Aside {
    /// Versions that the undo of one step replaces are kept in `directory`, which is made when it is needed.
    pub const fn new(directory: HostPath) -> Self {
        Self { directory }
    }

    /// Keeps the file at `path` as it is now, durably, for root alone.
    pub(super) fn keep(&self, files: &Files, path: &HostPath) -> Result<(), StepError> {
        if let Some(bytes) = files.read(path)? {
            files.write(&self.place(path)?, &bytes, 0o600)?;
        }
        Ok(())
    }

    /// Keeps where the link at `path` leads, durably.
    pub(super) fn keep_link(&self, files: &Files, path: &HostPath, to: &str) -> Result<(), StepError> {
        Ok(files.put_link(&self.place(path)?, to)?)
    }

    /// A sentence about the version of `path` that was kept, in this life or in an earlier one.
    pub(super) fn note(&self, files: &Files, path: &HostPath) -> Result<Option<String>, StepError> {
        let place = self.place(path)?;
        let is_kept = files.exists(&place)? || files.read_link(&place)?.is_some();
        Ok(is_kept.then(|| {
            format!(
                "somebody else changed {path} since Transship wrote it; that version is kept in {place}, and {path} is as it was before the migration"
            )
        }))
    }

    fn place(&self, path: &HostPath) -> Result<HostPath, StepError> {
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        Ok(self.directory.join(name)?)
    }
}
