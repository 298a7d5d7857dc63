//! Locks on the files of a program that locks them with `fcntl(2)`, as the libraries of CRI-O do.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::PathBuf,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};
use rustix::rand::{GetRandomFlags, getrandom};

use super::{Effect, Files, naming};
use crate::plan::host_path::HostPath;

/// How often a lock is tried that somebody else holds.
const POLL: Duration = Duration::from_millis(20);
/// Bytes by which those who share a lock see that somebody has written since they looked.
const STAMP: usize = 64;

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct RecordLock {
    files: Files,
    file: File,
    real: PathBuf,
}

impl Files {
    /// Takes the write lock on the whole file at `path`, which is made (0644) if need be; waits for it, and gives nothing
    /// when another process holds it all that time.
    ///
    /// It is a lock of the open file (`F_OFD_SETLK`), which conflicts with the classic ones of other processes, and which
    /// closing the file elsewhere in this process does not end.
    ///
    /// # Errors
    /// When the file cannot be made or locked, naming the path.
    pub fn lock_records(&self, path: &HostPath, within: Duration) -> io::Result<Option<RecordLock>> {
        let real = self.real(path)?;
        self.effect(Effect::Change(&real))?;
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&real);
        let file = naming("open", &real, opened)?;
        let whole = libc::flock {
            l_type: i16::try_from(libc::F_WRLCK).map_err(io::Error::other)?,
            l_whence: i16::try_from(libc::SEEK_SET).map_err(io::Error::other)?,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        let until = Instant::now() + within;
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLK(&whole)) {
                Ok(_) => {
                    return Ok(Some(RecordLock {
                        files: self.clone(),
                        file,
                        real,
                    }));
                }
                Err(Errno::EAGAIN | Errno::EACCES) if Instant::now() < until => sleep(POLL),
                Err(Errno::EAGAIN | Errno::EACCES) => return Ok(None),
                Err(error) => return naming("lock", &real, Err(error.into())),
            }
        }
    }
}

impl RecordLock {
    /// Tells those who share the lock that what it guards has changed: they compare the first bytes of the file. It need
    /// not be durable, for whoever starts reads everything.
    ///
    /// # Errors
    /// When they may not see it, naming the path.
    pub fn stamp(&self) -> io::Result<()> {
        self.files.effect(Effect::Change(&self.real))?;
        let mut bytes = [0; STAMP];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled < STAMP {
            return naming("write to", &self.real, Err(io::ErrorKind::UnexpectedEof.into()));
        }
        naming("write to", &self.real, self.file.write_all_at(&bytes, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_lock_is_waited_for_and_closing_the_file_elsewhere_does_not_end_it() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = HostPath::new("/layers.lock").unwrap();
        let short = Duration::from_millis(50);
        let held = files.lock_records(&path, short).unwrap().unwrap();
        drop(File::open(root.path().join("layers.lock")).unwrap());
        assert!(files.lock_records(&path, short).unwrap().is_none());
        held.stamp().unwrap();
        let first = fs::read(root.path().join("layers.lock")).unwrap();
        held.stamp().unwrap();
        assert_eq!(first.len(), STAMP);
        assert_ne!(first, fs::read(root.path().join("layers.lock")).unwrap());
        let waiting = std::thread::spawn(move || files.lock_records(&path, Duration::from_secs(20)).unwrap());
        sleep(short);
        drop(held);
        assert!(waiting.join().unwrap().is_some());
    }
}
