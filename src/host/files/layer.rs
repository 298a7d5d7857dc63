//! A second tree of a container image's layer that shares the bytes of the first: every file is cloned where the file
//! system can (reflink), and otherwise hard-linked. The first tree is only read; its files get a further link.
//!
//! A layer of overlayfs is made of plain files: a deleted name is a device 0/0, a directory that hides those below
//! it has an extended attribute. Both Docker's `overlay2` and containerd's `overlayfs` keep layers in that form.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsStr,
    fs::{self, File, FileTimes, Metadata, OpenOptions, Permissions},
    io::{self, ErrorKind},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt, PermissionsExt, lchown},
    },
    path::{Path, PathBuf},
};

use super::{Effect, Files, naming, present};
use crate::plan::host_path::HostPath;

/// Where programs look at the number of links of a file: cron refuses a crontab that has two, as a link could be
/// somebody else's way to a root's crontab. These are small, so they are copied.
const COPIED: [&str; 2] = ["etc", "var/spool/cron"];
/// Hides what lower layers have in a directory.
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// What else overlayfs writes for itself (an origin, a mark that there are such): it means nothing in another mount.
const OVERLAY: &[u8] = b"trusted.overlay.";
/// A file whose bytes, or a directory whose names, are elsewhere: only the mount that made it can show it.
const ELSEWHERE: [&[u8]; 2] = [b"trusted.overlay.metacopy", b"trusted.overlay.redirect"];

impl Files {
    /// Fills the empty directory `to` with what the layer at `from` holds, and gives it the attributes of `from`.
    /// Modes, owners, times, extended attributes and hard links among the files of the layer are the same.
    /// Nothing is durable yet: see [`Files::sync_file_system`].
    ///
    /// # Errors
    /// When that is not possible, naming the path: another file system, a file that can have no more links, a layer
    /// that only the mount that made it can show. `to` is then filled in part.
    pub fn share_layer(&self, from: &HostPath, to: &HostPath) -> io::Result<()> {
        let (from, to) = (self.real(from)?, self.real(to)?);
        self.effect(Effect::Change(&to))?;
        let mut sharing = Sharing {
            from: &from,
            to: &to,
            clones: true,
            apart: HashSet::new(),
            made: HashMap::new(),
        };
        for directory in COPIED {
            sharing.note_links(&from.join(directory))?;
        }
        let top = naming("look at", &from, fs::symlink_metadata(&from))?;
        sharing.directory(Path::new(""), &top, false)
    }

    /// Makes durable all that was changed on the file system of `path`.
    ///
    /// # Errors
    /// When a power cut may still take a change back, naming the path.
    pub fn sync_file_system(&self, path: &HostPath) -> io::Result<()> {
        let real = self.real(path)?;
        self.effect(Effect::SyncFileSystem(&real))?;
        let synced = File::open(&real).and_then(|file| Ok(rustix::fs::syncfs(file)?));
        naming("sync the file system of", &real, synced)
    }
}

/// A layer that is being shared.
struct Sharing<'a> {
    from: &'a Path,
    to: &'a Path,
    /// The file system has not refused to clone a file yet.
    clones: bool,
    /// Inodes that have a name in a directory that is copied: their other names must lead to the copy too.
    apart: HashSet<u64>,
    /// Where a file with several names was made under the first of them.
    made: HashMap<u64, PathBuf>,
}

impl Sharing<'_> {
    /// Notes the files with several names below a directory that is copied.
    fn note_links(&mut self, directory: &Path) -> io::Result<()> {
        let is_dir = present(fs::symlink_metadata(directory))?.is_some_and(|found| found.is_dir());
        if !is_dir {
            return Ok(());
        }
        for entry in naming("list", directory, fs::read_dir(directory))? {
            let path = naming("list", directory, entry)?.path();
            let found = naming("look at", &path, fs::symlink_metadata(&path))?;
            if found.is_dir() {
                self.note_links(&path)?;
            } else if found.nlink() > 1 {
                self.apart.insert(found.ino());
            }
        }
        Ok(())
    }

    /// The directory at `below` in the layer, with all that is in it. It exists if it is the layer's own.
    fn directory(&mut self, below: &Path, found: &Metadata, copied: bool) -> io::Result<()> {
        let (from, to) = (self.from.join(below), self.to.join(below));
        let copied = copied || COPIED.iter().any(|directory| Path::new(directory) == below);
        for entry in naming("list", &from, fs::read_dir(&from))? {
            let below = below.join(naming("list", &from, entry)?.file_name());
            let (from, to) = (self.from.join(&below), self.to.join(&below));
            let found = naming("look at", &from, fs::symlink_metadata(&from))?;
            if found.is_dir() {
                naming("make the directory", &to, fs::create_dir(&to))?;
                self.directory(&below, &found, copied)?;
            } else if found.is_file() {
                let apart = copied || self.apart.contains(&found.ino());
                naming("share", &from, self.file(&from, &to, &found, apart))?;
            } else {
                // Symbolic links, devices, pipes.
                naming("link", &from, fs::hard_link(&from, &to))?;
            }
        }
        // After its contents, which change its time and may need its mode.
        let made = File::open(&to).and_then(|opened| adopt(&opened, &from, &to, found));
        naming("set the attributes of", &to, made)
    }

    fn file(&mut self, from: &Path, to: &Path, found: &Metadata, apart: bool) -> io::Result<()> {
        if let Some(first) = self.made.get(&found.ino()) {
            return fs::hard_link(first, to);
        }
        if !apart && !self.clones {
            names(from)?;
            return fs::hard_link(from, to);
        }
        let mut original = File::open(from)?;
        let mut made = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        // An empty file says nothing about the file system.
        if self.clones && found.len() > 0 && rustix::fs::ioctl_ficlone(&made, &original).is_err() {
            self.clones = false;
            if !apart {
                fs::remove_file(to)?;
                return self.file(from, to, found, apart);
            }
        }
        if !self.clones {
            io::copy(&mut original, &mut made)?;
        }
        if found.nlink() > 1 {
            self.made.insert(found.ino(), to.to_owned());
        }
        adopt(&made, from, to, found)
    }
}

/// Gives what was made the attributes of what it was made from.
fn adopt(made: &File, from: &Path, to: &Path, found: &Metadata) -> io::Result<()> {
    lchown(to, Some(found.uid()), Some(found.gid()))?;
    // After the owner: chown clears setuid and setgid, and capabilities, which are an extended attribute.
    for name in names(from)? {
        let bytes = name.as_bytes();
        if (!bytes.starts_with(OVERLAY) || bytes == OPAQUE)
            && let Some(value) = xattr::get(from, &name)?
        {
            xattr::set(to, &name, &value)?;
        }
    }
    made.set_permissions(Permissions::from_mode(found.mode() & 0o7777))?;
    let times = FileTimes::new()
        .set_accessed(found.accessed()?)
        .set_modified(found.modified()?);
    made.set_times(times)
}

/// The names of the extended attributes of a file of a layer.
fn names(from: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    let names: Vec<_> = match xattr::list(from) {
        Ok(names) => names.collect(),
        Err(error) if error.kind() == ErrorKind::Unsupported => Vec::new(),
        Err(error) => return Err(error),
    };
    let elsewhere = |name: &&std::ffi::OsString| ELSEWHERE.contains(&OsStr::as_bytes(name));
    match names.iter().find(elsewhere) {
        Some(name) => Err(io::Error::new(
            ErrorKind::Unsupported,
            format!("it has {}", name.to_string_lossy()),
        )),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    /// Everything that a container could see of a tree, and the number of links of regular files.
    fn seen(root: &Path) -> Vec<String> {
        let mut lines: Vec<String> = walkdir::WalkDir::new(root)
            .into_iter()
            .map(|entry| {
                let entry = entry.unwrap();
                let data = fs::symlink_metadata(entry.path()).unwrap();
                let text = if data.is_file() {
                    fs::read_to_string(entry.path()).unwrap()
                } else if data.is_symlink() {
                    fs::read_link(entry.path()).unwrap().display().to_string()
                } else {
                    String::new()
                };
                let mut xattrs: Vec<_> = xattr::list(entry.path())
                    .unwrap()
                    .map(|name| (xattr::get(entry.path(), &name).unwrap(), name))
                    .collect();
                xattrs.sort();
                format!(
                    "{} {:o} {}:{} {}.{} {text} {xattrs:?}",
                    entry.path().strip_prefix(root).unwrap().display(),
                    data.mode(),
                    data.uid(),
                    data.gid(),
                    data.mtime(),
                    data.mtime_nsec()
                )
            })
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn a_shared_layer_looks_the_same_and_copies_what_cron_looks_at() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let from = root.path().join("from");
        for directory in ["etc/cron.d", "usr/bin", "var/spool/cron/crontabs", "empty"] {
            fs::create_dir_all(from.join(directory)).unwrap();
        }
        for file in [
            "etc/cron.d/job",
            "usr/bin/su",
            "var/spool/cron/crontabs/root",
            "usr/zero",
        ] {
            fs::write(from.join(file), if file == "usr/zero" { "" } else { file }).unwrap();
        }
        fs::hard_link(from.join("etc/cron.d/job"), from.join("usr/bin/job")).unwrap();
        fs::hard_link(from.join("usr/bin/su"), from.join("usr/bin/sudo")).unwrap();
        symlink("../bin/su", from.join("usr/link")).unwrap();
        lchown(from.join("usr/bin/su"), Some(1234), Some(4321)).unwrap();
        fs::set_permissions(from.join("usr/bin/su"), Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(from.join("usr/bin"), Permissions::from_mode(0o2555)).unwrap();
        xattr::set(from.join("etc/cron.d/job"), "user.note", b"kept").unwrap();
        xattr::set(from.join("empty"), "trusted.overlay.opaque", b"y").unwrap();
        let old = FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(7, 9));
        for name in ["", "usr", "etc/cron.d/job"] {
            File::open(from.join(name)).unwrap().set_times(old).unwrap();
        }
        let before = seen(&from);

        let files = Files::new(root.path());
        let to = root.path().join("to");
        fs::create_dir(&to).unwrap();
        files.share_layer(&path("/from"), &path("/to")).unwrap();
        files.sync_file_system(&path("/to")).unwrap();
        assert_eq!(seen(&to), before);
        assert_eq!(seen(&from), before, "the layer itself is as it was");

        let links = |name: &str| fs::metadata(to.join(name)).unwrap().nlink();
        assert_eq!(links("var/spool/cron/crontabs/root"), 1);
        assert_eq!(
            links("etc/cron.d/job"),
            2,
            "its other name in the layer, not Docker's"
        );
        let inode = |tree: &Path, name: &str| fs::metadata(tree.join(name)).unwrap().ino();
        assert_eq!(inode(&to, "etc/cron.d/job"), inode(&to, "usr/bin/job"));
        assert_ne!(inode(&to, "etc/cron.d/job"), inode(&from, "etc/cron.d/job"));
        assert_eq!(inode(&to, "usr/bin/su"), inode(&to, "usr/bin/sudo"));
    }

    #[test]
    fn a_layer_that_only_its_own_mount_can_show_is_refused() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let files = Files::new(root.path());
        for (name, at) in [("metacopy", "file"), ("redirect", "directory")] {
            let from = root.path().join(name);
            fs::create_dir_all(from.join("directory")).unwrap();
            fs::write(from.join("file"), "bytes").unwrap();
            xattr::set(from.join(at), format!("trusted.overlay.{name}"), b"").unwrap();
            fs::create_dir(root.path().join("to")).unwrap();
            let refused = files.share_layer(&path(&format!("/{name}")), &path("/to"));
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains(name), "{refused}");
            fs::remove_dir_all(root.path().join("to")).unwrap();
        }
    }
}
