//! A file without a name, for what has to be read in another order than it comes in. It goes with the process, whatever happens.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt},
    path::PathBuf,
    sync::Arc,
};

use nix::libc;

use super::{Effect, Files, naming, present};
use crate::plan::host_path::HostPath;

/// A file without a name.
#[derive(Clone, Debug)]
pub struct Spool {
    files: Files,
    /// The directory that it would be in.
    real: PathBuf,
    file: Arc<File>,
}

/// Reads a part of a [`Spool`].
#[derive(Debug)]
pub struct SpoolReader {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Files {
    /// A file without a name on the file system of a directory.
    ///
    /// # Errors
    /// When there can be none, naming the directory.
    pub fn spool(&self, directory: &HostPath) -> io::Result<Spool> {
        let real = self.real(directory)?;
        let opened = self.effect(Effect::Change(&real)).and_then(|()| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_TMPFILE)
                .mode(0o600)
                .open(&real)
        });
        Ok(Spool {
            files: self.clone(),
            file: Arc::new(naming("make a file in", &real, opened)?),
            real,
        })
    }

    /// Whether two paths are, or would be, on one file system.
    ///
    /// # Errors
    /// When one of them cannot be looked at, naming it.
    pub fn on_one_file_system(&self, one: &HostPath, other: &HostPath) -> io::Result<bool> {
        Ok(self.device(one)? == self.device(other)?)
    }

    fn device(&self, path: &HostPath) -> io::Result<u64> {
        let mut at = self.real(path)?;
        loop {
            let found = naming("look at", &at, present(fs::metadata(&at)))?;
            match found {
                Some(found) => return Ok(found.dev()),
                None if at.pop() => {}
                None => return naming("look at", &at, Err(io::ErrorKind::NotFound.into())),
            }
        }
    }
}

impl Spool {
    /// Writes a piece after all others.
    ///
    /// # Errors
    /// When not all of it could be written.
    pub fn write(&self, piece: &[u8]) -> io::Result<()> {
        let written = self
            .files
            .effect(Effect::Change(&self.real))
            .and_then(|()| (&*self.file).write_all(piece));
        naming("write to a file in", &self.real, written)
    }

    /// Reads `length` bytes from `at` on.
    pub fn part(&self, at: u64, length: u64) -> SpoolReader {
        SpoolReader {
            file: Arc::clone(&self.file),
            at,
            end: at.saturating_add(length),
        }
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When its length is not known.
    pub fn whole(&self) -> io::Result<SpoolReader> {
        let length = naming("look at a file in", &self.real, self.file.metadata())?.len();
        Ok(self.part(0, length))
    }
}

impl Read for SpoolReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for SpoolReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.end.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spooled_has_no_name_and_is_read_in_any_order() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = |text: &str| HostPath::new(text).unwrap();
        fs::create_dir(root.path().join("store")).unwrap();
        let spool = files.spool(&path("/store")).unwrap();
        spool.write(b"one ").unwrap();
        spool.write(b"two").unwrap();
        assert_eq!(fs::read_dir(root.path().join("store")).unwrap().count(), 0);
        let read = |mut reader: SpoolReader| {
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(read(spool.part(4, 2)), "tw");
        assert_eq!(read(spool.part(4, 200)), "two");
        assert_eq!(read(spool.part(100, 2)), "");
        assert_eq!(read(spool.whole().unwrap()), "one two");
        let mut reader = spool.whole().unwrap();
        reader.seek(SeekFrom::End(-3)).unwrap();
        reader.seek(SeekFrom::Current(1)).unwrap();
        assert_eq!(read(reader), "wo");
        assert!(files.spool(&path("/elsewhere")).is_err());
        assert!(
            files
                .on_one_file_system(&path("/store"), &path("/not/there"))
                .unwrap()
        );
    }
}
