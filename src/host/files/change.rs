//! Changes of files. Every one is durable when the call returns, and happens entirely or not at all.

use std::{
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use super::{Attributes, Effect, Files, naming, present};
use crate::plan::host_path::HostPath;

/// The permission bits of a directory that is made on the way to a file.
const DIRECTORY_MODE: u32 = 0o755;

/// The name under which a file is written before it is renamed: hidden, so that no `conf.d` reads it.
pub(super) fn temporary(real: &Path) -> PathBuf {
    let mut name = OsStr::new(".").to_os_string();
    name.push(real.file_name().unwrap_or_default());
    name.push(".transship");
    real.with_file_name(name)
}

/// The permissions of group and others.
const NOT_THE_OWNERS: u32 = 0o077;

/// Whether a mode leaves a file to its owner alone.
pub const fn is_private(mode: u32) -> bool {
    mode & NOT_THE_OWNERS == 0
}

impl Files {
    /// Writes a whole file: into a temporary file beside it, then renamed over it. A file that exists keeps its
    /// mode, owner and extended attributes, but loses the permissions of group and others if `mode` has none for
    /// them: it gets a secret. A new one gets `mode` and the owner of this process. Directories on the way are made.
    ///
    /// # Errors
    /// When the file could not be replaced, naming the path; it is then as it was.
    pub fn write(&self, path: &HostPath, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut attributes = self.attributes(path)?;
        if let Some(attributes) = attributes.as_mut().filter(|_| is_private(mode)) {
            attributes.mode &= !NOT_THE_OWNERS;
        }
        self.replace(path, bytes, mode, attributes.as_ref())
    }

    /// Writes a whole file with exactly these attributes.
    ///
    /// # Errors
    /// As [`Files::write`].
    pub fn restore(&self, path: &HostPath, bytes: &[u8], attributes: &Attributes) -> io::Result<()> {
        self.replace(path, bytes, attributes.mode, Some(attributes))
    }

    fn replace(&self, path: &HostPath, bytes: &[u8], mode: u32, like: Option<&Attributes>) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_dir_all(&parent)?;
        }
        let real = self.real(path)?;
        naming("write", &real, self.replace_at(&real, bytes, mode, like))
    }

    fn replace_at(&self, real: &Path, bytes: &[u8], mode: u32, like: Option<&Attributes>) -> io::Result<()> {
        let temporary = temporary(real);
        self.effect(Effect::Change(real))?;
        // Readable by nobody else until its mode is set: it may hold a proxy's password.
        // What a writer that died left has another owner or other attributes, so it does not serve again.
        present(fs::remove_file(&temporary))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        self.effect(Effect::Change(real))?;
        file.write_all(second)?;
        if let Some(like) = like {
            chown(&temporary, Some(like.uid), Some(like.gid))?;
        }
        // After the owner: chown clears setuid and setgid.
        file.set_permissions(fs::Permissions::from_mode(like.map_or(mode, |like| like.mode)))?;
        for (name, value) in like.iter().flat_map(|like| &like.xattrs) {
            xattr::set(&temporary, name, &value.0)?;
        }
        self.sync_file(&file, &temporary)?;
        self.effect(Effect::Change(real))?;
        fs::rename(&temporary, real)?;
        self.sync_parent(real)
    }

    /// Renames a file within its directory.
    ///
    /// # Errors
    /// When it still has its old name, naming the path.
    pub fn rename(&self, from: &HostPath, to: &HostPath) -> io::Result<()> {
        let (from, to) = (self.real(from)?, self.real(to)?);
        self.effect(Effect::Change(&from))?;
        naming(
            "rename",
            &from,
            fs::rename(&from, &to).and_then(|()| self.sync_parent(&to)),
        )
    }

    /// Removes a file, and what a writer of it that died may have left; one that is not there is removed.
    ///
    /// # Errors
    /// When it is still there, naming the path.
    pub fn remove(&self, path: &HostPath) -> io::Result<()> {
        let real = self.real(path)?;
        self.discard(&temporary(&real))?;
        if self.exists(path)? {
            return self.discard(&real);
        }
        self.settle(path)
    }

    /// Makes durable what is at `path` now, be it nothing. Somebody who died may have changed it and not synced.
    ///
    /// # Errors
    /// When a power cut may still change it, naming the path.
    pub fn settle(&self, path: &HostPath) -> io::Result<()> {
        let real = self.real(path)?;
        if let Some(file) = naming("open", &real, present(File::open(&real)))? {
            naming("sync", &real, self.sync_file(&file, &real))?;
        }
        self.settle_above(&real)
    }

    /// Makes the directories above `real` durable: they may be as new as the file.
    pub(super) fn settle_above(&self, real: &Path) -> io::Result<()> {
        let mut below = real;
        while let Some(parent) = below.parent().filter(|parent| parent.starts_with(&self.root)) {
            if parent.is_dir() {
                naming("sync", parent, self.sync_parent(below))?;
            }
            below = parent;
        }
        Ok(())
    }

    /// Removes what a writer of `path` that died may have left beside it.
    ///
    /// # Errors
    /// When it is still there, naming the path.
    pub fn remove_leftover(&self, path: &HostPath) -> io::Result<()> {
        self.discard(&temporary(&self.real(path)?))
    }

    pub(super) fn discard(&self, real: &Path) -> io::Result<()> {
        if naming("look at", real, present(fs::symlink_metadata(real)))?.is_none() {
            return Ok(());
        }
        self.effect(Effect::Change(real))?;
        naming("remove", real, present(fs::remove_file(real)))?;
        naming("remove", real, self.sync_parent(real))
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// When one of them could not be made, naming the path.
    pub fn create_dir_all(&self, directory: &HostPath) -> io::Result<()> {
        for missing in self.missing_dirs(directory)? {
            let real = self.real(&missing)?;
            self.effect(Effect::Change(&real))?;
            let made = match fs::create_dir(&real) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists && real.is_dir() => Ok(()),
                made => made.and_then(|()| {
                    fs::set_permissions(&real, fs::Permissions::from_mode(DIRECTORY_MODE))?;
                    self.sync_parent(&real)
                }),
            };
            naming("make the directory", &real, made)?;
        }
        Ok(())
    }

    /// Gives a file an extended attribute.
    ///
    /// # Errors
    /// When it does not have it, naming the path.
    pub fn set_attribute(&self, path: &HostPath, name: &str, value: &[u8]) -> io::Result<()> {
        let real = self.real(path)?;
        if xattr::get(&real, name).is_ok_and(|found| found.as_deref() == Some(value)) {
            return Ok(());
        }
        self.effect(Effect::Change(&real))?;
        let set = xattr::set(&real, name, value).and_then(|()| fs::File::open(&real)?.sync_all());
        naming("label", &real, set)
    }

    /// Makes a directory, or takes the permissions of group and others from the one that is there.
    ///
    /// # Errors
    /// When others may still look into it, naming the path.
    pub fn make_private(&self, directory: &HostPath) -> io::Result<()> {
        self.create_dir_all(directory)?;
        let real = self.real(directory)?;
        let mode = naming("look at", &real, fs::metadata(&real))?
            .permissions()
            .mode();
        if is_private(mode) {
            return Ok(());
        }
        self.effect(Effect::Change(&real))?;
        let narrow = fs::Permissions::from_mode(mode & 0o7777 & !NOT_THE_OWNERS);
        naming("change the mode of", &real, fs::set_permissions(&real, narrow))
    }

    /// Removes a directory if it is there and empty.
    ///
    /// # Errors
    /// When it is empty and still there, naming the path.
    pub fn remove_empty_dir(&self, directory: &HostPath) -> io::Result<()> {
        let real = self.real(directory)?;
        if naming("list", &real, present(fs::read_dir(&real)))?
            .is_none_or(|mut entries| entries.next().is_some())
        {
            return Ok(());
        }
        self.effect(Effect::Change(&real))?;
        naming(
            "remove",
            &real,
            fs::remove_dir(&real).and_then(|()| self.sync_parent(&real)),
        )
    }

    /// Writes to a file of the kernel (below `/sys` or `/proc`), which takes each write as an order. Nothing of it is on a disk.
    ///
    /// # Errors
    /// The kernel's, naming the path.
    pub fn order(&self, path: &HostPath, text: &str) -> io::Result<()> {
        let real = self.real(path)?;
        let write = || {
            let mut file = OpenOptions::new().write(true).open(&real)?;
            file.write_all(text.as_bytes())
        };
        naming("write to", &real, write())
    }

    /// Appends to a file of which the first `keep` bytes are good: cuts off what is behind them (a line that was
    /// torn), writes, and syncs. Makes the file if need be.
    ///
    /// # Errors
    /// When the bytes are not durable, naming the path; some of them may then stand behind the first `keep`.
    pub fn append(&self, path: &HostPath, keep: u64, bytes: &[u8]) -> io::Result<()> {
        let real = self.real(path)?;
        naming("append to", &real, self.append_at(&real, keep, bytes))
    }

    fn append_at(&self, real: &Path, keep: u64, bytes: &[u8]) -> io::Result<()> {
        self.effect(Effect::Change(real))?;
        let new = !real.exists();
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(real)?;
        if file.metadata()?.len() > keep {
            file.set_len(keep)?;
        }
        if new {
            self.sync_parent(real)?;
        }
        let (first, second) = bytes.split_at(bytes.len() / 2);
        file.write_all(first)?;
        self.effect(Effect::Change(real))?;
        file.write_all(second)?;
        self.sync_file(&file, real)
    }

    /// Makes bytes and attributes of the open file at `real` durable.
    pub(super) fn sync_file(&self, file: &File, real: &Path) -> io::Result<()> {
        self.effect(Effect::SyncFile(real))?;
        file.sync_all()
    }

    /// Makes the directory entry of `real` durable.
    pub(super) fn sync_parent(&self, real: &Path) -> io::Result<()> {
        let Some(parent) = real.parent() else {
            return Ok(());
        };
        self.effect(Effect::SyncDirectory(parent))?;
        File::open(parent)?.sync_all()
    }
}
