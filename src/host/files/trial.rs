//! Whether a file can be changed, found out before anything depends on it.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, IFlags, StatxAttributes, StatxFlags, ioctl_getflags, statx};

use super::{Effect, Files, change, naming, present};
use crate::plan::host_path::HostPath;

/// Bytes that are written for a trial: a quota or a full disk refuses them.
const TRIAL: [u8; 4096] = [b'#'; 4096];

impl Files {
    /// Whether the file at `path` can be replaced, made or removed: writes a file beside it, makes it durable and removes
    /// it. Where the directory does not exist the nearest one above it is tried.
    ///
    /// # Errors
    /// Why not, naming the path: a read-only file system, a quota, an immutable or append-only file, a mount point, or a
    /// directory in its place.
    pub fn try_change(&self, path: &HostPath) -> io::Result<()> {
        let real = self.real(path)?;
        naming(
            "change",
            &real,
            self.try_beside(&real).and_then(|()| replaceable(&real)),
        )
    }

    /// Removes what a trial that failed may have left: to a full disk, removing it may be one change too many.
    ///
    /// # Errors
    /// When it is still there, naming the path.
    pub fn end_trial(&self, path: &HostPath) -> io::Result<()> {
        self.discard(&place(&self.real(path)?))
    }

    fn try_beside(&self, real: &Path) -> io::Result<()> {
        let place = place(real);
        self.effect(Effect::Change(&place))?;
        present(fs::remove_file(&place))?;
        let mut options = OpenOptions::new();
        let made = options.write(true).create_new(true).mode(0o600).open(&place);
        let written = made.and_then(|mut file| {
            file.write_all(&TRIAL)?;
            self.sync_file(&file, &place)
        });
        self.effect(Effect::Change(&place))?;
        present(fs::remove_file(&place))?;
        self.sync_parent(&place)?;
        written
    }
}

/// Where the file of a trial is written.
fn place(real: &Path) -> PathBuf {
    let mut place = change::temporary(real);
    while let Some(above) = place.parent().filter(|directory| !directory.exists()) {
        place = change::temporary(above);
    }
    place
}

/// Whether what is there can be renamed over and removed.
fn replaceable(real: &Path) -> io::Result<()> {
    let Some(data) = present(fs::symlink_metadata(real))? else {
        return Ok(());
    };
    if data.is_dir() {
        return Err(io::Error::new(ErrorKind::IsADirectory, "it is a directory"));
    }
    let flags = StatxFlags::BASIC_STATS;
    // Kernels before 5.8 do not report it.
    let mounted = statx(CWD, real, AtFlags::SYMLINK_NOFOLLOW, flags)
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    if mounted {
        let why = "another file is mounted over it, so it cannot be replaced; unmount it";
        return Err(io::Error::new(ErrorKind::ResourceBusy, why));
    }
    // Not every file system has such flags.
    let flags = File::open(real).ok().and_then(|file| ioctl_getflags(file).ok());
    if flags.is_some_and(|flags| flags.intersects(IFlags::IMMUTABLE | IFlags::APPEND)) {
        let why = "it is immutable or append-only; run `chattr -i -a` on it";
        return Err(io::Error::new(ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::fs::ioctl_setflags;

    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.write(&path("/etc/a.conf"), b"text", 0o644).unwrap();
        for tried in ["/etc/a.conf", "/etc/b.conf", "/etc/new/deep/c.conf"] {
            files.try_change(&path(tried)).unwrap();
        }
        let names: Vec<_> = fs::read_dir(root.path().join("etc")).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(files.read_text(&path("/etc/a.conf")).unwrap().unwrap(), "text");
    }

    #[test]
    fn what_cannot_be_changed_is_named_with_its_cause() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files.create_dir_all(&path("/etc/crictl.yaml")).unwrap();
        let error = files
            .try_change(&path("/etc/crictl.yaml"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("crictl.yaml: it is a directory"), "{error}");
        let read_only = files
            .clone()
            .with_hook(Arc::new(|_| Err(ErrorKind::ReadOnlyFilesystem.into())));
        let error = read_only.try_change(&path("/etc/a.conf")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem);
        files.write(&path("/etc/fixed"), b"", 0o644).unwrap();
        let fixed = File::open(root.path().join("etc/fixed")).unwrap();
        let before = ioctl_getflags(&fixed).unwrap_or(IFlags::empty());
        // Root alone may set the flag, on most file systems.
        if ioctl_setflags(&fixed, before | IFlags::IMMUTABLE).is_ok() {
            let error = files.try_change(&path("/etc/fixed")).unwrap_err().to_string();
            ioctl_setflags(&fixed, before).unwrap();
            assert!(error.contains("immutable"), "{error}");
        }
    }
}
