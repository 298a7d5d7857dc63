//! Trees of files that are made next to others and put into place as a whole. Until it has its name a tree is built piece
//! by piece, under a name that nobody reads ([`Files::scratch`]).

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Effect, Files, change, naming, present};
use crate::plan::host_path::{HostPath, NotAHostPath};

/// Bytes between two effects on a file that is being written.
pub const PIECE: usize = 1 << 20;

/// A file that is being written.
#[derive(Debug)]
pub struct NewFile<'a> {
    files: &'a Files,
    real: PathBuf,
    file: File,
}

impl NewFile<'_> {
    /// Writes a piece.
    ///
    /// # Errors
    /// When not all of it could be written, naming the path.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        let written = self
            .files
            .effect(Effect::Change(&self.real))
            .and_then(|()| self.file.write_all(piece));
        naming("write", &self.real, written)
    }

    /// Gives it its permission bits and makes its bytes durable; its name is not yet.
    ///
    /// # Errors
    /// When a power cut may still take bytes away, naming the path.
    pub fn finish(self, mode: u32) -> io::Result<()> {
        let finished = self
            .files
            .effect(Effect::Change(&self.real))
            .and_then(|()| self.file.set_permissions(fs::Permissions::from_mode(mode)))
            .and_then(|()| self.files.sync_file(&self.file, &self.real));
        naming("sync", &self.real, finished)
    }
}

impl Files {
    /// Where `path` is built before it gets its name: hidden, beside it.
    ///
    /// # Errors
    /// When it has no such name.
    pub fn scratch(path: &HostPath) -> Result<HostPath, NotAHostPath> {
        HostPath::new(change::temporary(Path::new(path.as_str())).to_string_lossy())
    }

    /// A regular file to read from, and its length.
    ///
    /// # Errors
    /// When there is none, naming the path.
    pub fn open(&self, path: &HostPath) -> io::Result<(impl Read + use<>, u64)> {
        let real = self.real(path)?;
        let opened = fs::metadata(&real).and_then(|data| {
            // Opening a pipe waits for a writer.
            if data.is_file() {
                File::open(&real).map(|file| (file, data.len()))
            } else {
                Err(io::Error::other("it is not a regular file"))
            }
        });
        naming("open", &real, opened)
    }

    /// A new, empty file in a directory that exists.
    ///
    /// # Errors
    /// When it could not be made or there is something by that name, naming the path.
    pub fn create(&self, path: &HostPath) -> io::Result<NewFile<'_>> {
        let real = self.real(path)?;
        let opened = self.effect(Effect::Change(&real)).and_then(|()| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&real)
        });
        Ok(NewFile {
            files: self,
            file: naming("make", &real, opened)?,
            real,
        })
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// When it could not be made, naming the path.
    pub fn link(&self, path: &HostPath, target: &str) -> io::Result<()> {
        let real = self.real(path)?;
        let made = self
            .effect(Effect::Change(&real))
            .and_then(|()| std::os::unix::fs::symlink(target, &real));
        naming("link", &real, made)
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// When it could not be given, naming the path.
    pub fn hard_link(&self, path: &HostPath, existing: &HostPath) -> io::Result<()> {
        let (real, existing) = (self.real(path)?, self.real(existing)?);
        let made = self
            .effect(Effect::Change(&real))
            .and_then(|()| fs::hard_link(&existing, &real));
        naming("link", &real, made)
    }

    /// Makes the names in a directory and in those below it durable.
    ///
    /// # Errors
    /// When a power cut may still take names away, naming the path.
    pub fn sync_tree(&self, directory: &HostPath) -> io::Result<()> {
        let real = self.real(directory)?;
        naming("sync", &real, self.sync_names(&real))
    }

    fn sync_names(&self, directory: &Path) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.sync_names(&entry.path())?;
            }
        }
        self.effect(Effect::SyncDirectory(directory))?;
        File::open(directory)?.sync_all()
    }

    /// Gives a tree, of which everything is durable, the name that it is known by.
    ///
    /// # Errors
    /// When it still has its old name, or there is something by the new one, naming the path.
    pub fn publish(&self, tree: &HostPath, name: &HostPath) -> io::Result<()> {
        let (from, to) = (self.real(tree)?, self.real(name)?);
        // rename(2) would replace an empty directory.
        if self.exists(name)? {
            return naming("publish", &to, Err(ErrorKind::AlreadyExists.into()));
        }
        let published = self
            .effect(Effect::Change(&from))
            .and_then(|()| self.effect(Effect::Change(&to)))
            .and_then(|()| fs::rename(&from, &to))
            .and_then(|()| self.sync_parent(&to))
            .and_then(|()| self.sync_parent(&from));
        naming("publish", &to, published)
    }

    /// Removes whatever is at `path`, with all that is below it; links in it are not followed.
    ///
    /// # Errors
    /// When something is left, naming the path.
    pub fn remove_tree(&self, path: &HostPath) -> io::Result<()> {
        let real = self.real(path)?;
        if self.exists(path)? {
            naming("remove", &real, self.remove_below(&real))?;
        }
        self.settle_name(&real)
    }

    /// Takes the name of a tree away in one go, then the tree.
    ///
    /// # Errors
    /// As [`Files::remove_tree`]; what is left then has its [`Files::scratch`] name.
    pub fn unpublish(&self, path: &HostPath) -> io::Result<()> {
        let scratch = Self::scratch(path).map_err(io::Error::other)?;
        self.remove_tree(&scratch)?;
        if self.exists(path)? {
            self.publish(path, &scratch)?;
        }
        self.remove_tree(&scratch)
    }

    fn remove_below(&self, real: &Path) -> io::Result<()> {
        let is_dir = fs::symlink_metadata(real)?.is_dir();
        if is_dir {
            for entry in fs::read_dir(real)? {
                self.remove_below(&entry?.path())?;
            }
        }
        self.effect(Effect::Change(real))?;
        if is_dir {
            fs::remove_dir(real)
        } else {
            fs::remove_file(real)
        }
    }

    /// Makes durable whether there is something by this name.
    fn settle_name(&self, real: &Path) -> io::Result<()> {
        match real.parent() {
            Some(parent) if parent.is_dir() => naming("sync", parent, self.sync_parent(real)),
            _ => Ok(()),
        }
    }

    /// Free bytes for whoever is not root on the file system that `path` is or would be on.
    ///
    /// # Errors
    /// When the file system does not say, naming the path.
    pub fn free_bytes(&self, path: &HostPath) -> io::Result<u64> {
        let mut at = self.real(path)?;
        while naming("look at", &at, present(fs::symlink_metadata(&at)))?.is_none() && at.pop() {}
        let stat = naming(
            "ask for the free space of",
            &at,
            nix::sys::statvfs::statvfs(&at).map_err(Into::into),
        )?;
        Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
    }
}
