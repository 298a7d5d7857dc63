//! The names of images in CRI-O's store, whatever its storage driver is and wherever it keeps its layers.

use super::{LOCKED, cannot};
use crate::{
    edit::containers_storage::{FoundImage, Images},
    host::files::Files,
    plan::host_path::HostPath,
    runtime::{RuntimeError, unpacked::hex},
};

/// The list of the images of a CRI-O. Its libraries change names under the lock of the images alone (containers/storage,
/// `store.go`).
#[derive(Clone, Debug)]
pub(in crate::runtime) struct ImageList {
    files: Files,
    directory: HostPath,
}

impl ImageList {
    /// The list in the directory where CRI-O says that it keeps its images (`<graph root>/<driver>-images`).
    ///
    /// # Errors
    /// When that is no path.
    pub(in crate::runtime) fn at(files: &Files, images: &str) -> Result<Self, RuntimeError> {
        Ok(Self {
            files: files.clone(),
            directory: HostPath::new(images).map_err(RuntimeError::of)?,
        })
    }

    /// The directory on whose file system the layers are.
    pub(in crate::runtime) const fn directory(&self) -> &HostPath {
        &self.directory
    }

    fn path(&self, name: &str) -> Result<HostPath, RuntimeError> {
        self.directory.join(name).map_err(RuntimeError::of)
    }

    fn read(&self) -> Result<(Images, HostPath), RuntimeError> {
        let path = self.path("images.json")?;
        let text = self.files.read(&path).map_err(cannot)?;
        match Images::read(text.as_deref()) {
            Ok(list) => Ok((list, path)),
            Err(error) => Err(RuntimeError::because(&path, error)),
        }
    }

    /// The image of this id.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(in crate::runtime) fn image(&self, id: &str) -> Result<Option<FoundImage>, RuntimeError> {
        Ok(self.read()?.0.image(hex(id)))
    }

    /// Whether an image has this very name. CRI-O finds an image by the digest of its manifest, too.
    ///
    /// # Errors
    /// When the list cannot be read.
    pub(in crate::runtime) fn has_name(&self, name: &str) -> Result<bool, RuntimeError> {
        Ok(self.read()?.0.has_name(name))
    }

    /// Gives a name to the image of this id, and takes it from any other one; and takes `instead_of` from whatever image
    /// has it. Returns whether there is an image of this id; nothing has changed if there is none.
    ///
    /// # Errors
    /// When the list cannot be read or written.
    pub(in crate::runtime) fn name(
        &self,
        id: &str,
        name: &str,
        instead_of: Option<&str>,
    ) -> Result<bool, RuntimeError> {
        let path = self.path("images.lock")?;
        let taken = self.files.lock_records(&path, LOCKED).map_err(cannot)?;
        let lock = taken.ok_or_else(|| {
            RuntimeError::new(format!(
                "CRI-O holds the lock {path} for {} s: try again",
                LOCKED.as_secs()
            ))
        })?;
        let (mut images, path) = self.read()?;
        if !images.name(hex(id), name) {
            return Ok(false);
        }
        if let Some(other) = instead_of {
            images.unname(other);
        }
        let text = images.text().ok_or_else(|| {
            RuntimeError::new(format!(
                "{path} has something in it that would be lost in writing"
            ))
        })?;
        self.files.write(&path, &text, 0o600).map_err(cannot)?;
        lock.stamp().map_err(cannot)?;
        Ok(true)
    }
}
