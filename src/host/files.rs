//! Real files under a root prefix: `/` on a host, a temporary directory in tests. The only place that calls
//! `std::fs`. Every change is durable when the call returns, and happens entirely or not at all.
//!
//! There is no clean-up in `Drop`: a process that dies leaves at most one temporary file next to the file that it
//! was writing, and the next write or removal of that file takes it away.

mod change;
mod layer;
mod layer_reader;
mod links;
mod one_mount;
mod record_lock;
mod spool;
mod tree;
mod trial;

pub use change::is_private;
pub use layer_reader::LayerCount;
pub use one_mount::OneMount;
pub use record_lock::RecordLock;
pub use spool::{Spool, SpoolReader};
pub use tree::{NewFile, PIECE};

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::plan::host_path::HostPath;

/// Longest chain of symbolic links that is followed; the kernel's own limit.
const MAX_LINKS: usize = 40;

/// What is about to happen on the disk.
#[derive(Clone, Copy, Debug)]
pub enum Effect<'a> {
    /// What is at this path changes; until it is synced a power cut may take the change back.
    Change(&'a Path),
    /// Bytes and attributes of this file become durable.
    SyncFile(&'a Path),
    /// The names in this directory become durable.
    SyncDirectory(&'a Path),
    /// All that is on the file system of this path becomes durable.
    SyncFileSystem(&'a Path),
}

/// Called before every single effect on the disk. A test looks at the disk here, as a crash would leave it, or
/// answers with the error of a full or read-only file system.
pub type Hook = Arc<dyn Fn(Effect<'_>) -> io::Result<()> + Send + Sync>;

/// The files of a host.
#[derive(Clone)]
pub struct Files {
    root: PathBuf,
    hook: Option<Hook>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// What a file has beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// User id of the owner.
    pub uid: u32,
    /// Group id of the owner.
    pub gid: u32,
    /// Extended attributes (SELinux label, ACL, capabilities).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub xattrs: BTreeMap<String, Bytes>,
}

/// Bytes that are written as text where they are UTF-8, and in base64 where they are not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// How [`Bytes`] are serialised.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Encoded {
    Text(String),
    Base64(String),
}

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        match std::str::from_utf8(&self.0) {
            Ok(text) => Encoded::Text(text.to_owned()),
            Err(_) => Encoded::Base64(base64::engine::general_purpose::STANDARD.encode(&self.0)),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        match Encoded::deserialize(deserializer)? {
            Encoded::Text(text) => Ok(Self(text.into_bytes())),
            Encoded::Base64(text) => base64::engine::general_purpose::STANDARD
                .decode(text)
                .map(Self)
                .map_err(serde::de::Error::custom),
        }
    }
}

/// A lock that is held until this is dropped or the process ends.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, never read")] Flock<File>);

/// Puts what was done, and to which file, in front of an error; its kind stays.
fn naming<T>(verb: &str, path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| io::Error::new(error.kind(), format!("{verb} {}: {error}", path.display())))
}

/// The value of `result`, or nothing when there is no such file.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

impl Files {
    /// The files below `root`, which is `/` on a host.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            hook: None,
        }
    }

    /// The same files, with a call before every effect on the disk.
    #[must_use]
    pub fn with_hook(mut self, hook: Hook) -> Self {
        self.hook = Some(hook);
        self
    }

    fn effect(&self, effect: Effect<'_>) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(effect))
    }

    /// Where `path` really is, symbolic links resolved inside the root; what does not exist yet resolves to
    /// itself. For processes and sockets that need a path of the machine.
    ///
    /// # Errors
    /// When a directory on the way cannot be read, or links form a loop.
    pub fn real(&self, path: &HostPath) -> io::Result<PathBuf> {
        naming("resolve", Path::new(path.as_str()), self.resolve(path))
    }

    /// Where `path` really is on the host, symbolic links resolved.
    ///
    /// # Errors
    /// As [`Files::real`], or when it cannot be written as a path of the host.
    pub fn resolved(&self, path: &HostPath) -> io::Result<HostPath> {
        let real = self.real(path)?;
        let inside = real.strip_prefix(&self.root).unwrap_or(&real);
        HostPath::new(format!("/{}", inside.display())).map_err(io::Error::other)
    }

    fn resolve(&self, path: &HostPath) -> io::Result<PathBuf> {
        let parts = path.relative().rsplit('/');
        self.resolve_parts(parts.map(|part| OsStr::new(part).to_os_string()).collect())
    }

    /// The place of what is called so; the first part stands last in `rest`.
    fn resolve_parts(&self, mut rest: Vec<std::ffi::OsString>) -> io::Result<PathBuf> {
        let (mut inside, mut links) = (PathBuf::new(), 0);
        while let Some(part) = rest.pop() {
            if part.as_bytes() == b".." {
                inside.pop();
                continue;
            }
            let next = inside.join(&part);
            match present(fs::read_link(self.root.join(&next))) {
                Ok(Some(target)) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::other("too many levels of symbolic links"));
                    }
                    if target.is_absolute() {
                        inside = PathBuf::new();
                    }
                    rest.extend(target.components().rev().filter_map(|component| match component {
                        Component::Normal(_) | Component::ParentDir => {
                            Some(component.as_os_str().to_os_string())
                        }
                        Component::Prefix(_) | Component::RootDir | Component::CurDir => None,
                    }));
                }
                Ok(None) => inside = next,
                // EINVAL: it exists and is no link.
                Err(error) if error.kind() == ErrorKind::InvalidInput => inside = next,
                Err(error) => return Err(error),
            }
        }
        Ok(self.root.join(inside))
    }

    /// The bytes of a file, or nothing when there is none.
    ///
    /// # Errors
    /// Whatever else kept it from being read, naming the path.
    pub fn read(&self, path: &HostPath) -> io::Result<Option<Vec<u8>>> {
        let real = self.real(path)?;
        naming("read", &real, present(fs::read(&real)))
    }

    /// The text of a file, or nothing when there is none.
    ///
    /// # Errors
    /// As [`Files::read`]; `InvalidData` when it is not UTF-8.
    pub fn read_text(&self, path: &HostPath) -> io::Result<Option<String>> {
        let Some(bytes) = self.read(path)? else {
            return Ok(None);
        };
        let text = String::from_utf8(bytes).map_err(|error| {
            let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = valid.split(|byte| *byte == b'\n').count();
            io::Error::new(
                ErrorKind::InvalidData,
                format!("line {line} is not text in UTF-8"),
            )
        });
        naming("read", Path::new(path.as_str()), text).map(Some)
    }

    /// The first `limit` bytes of a file, or nothing when there is none; for files without an end.
    ///
    /// # Errors
    /// Whatever else kept it from being read, naming the path.
    pub fn read_at_most(&self, path: &HostPath, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let real = self.real(path)?;
        let mut bytes = Vec::new();
        let read = present(File::open(&real).and_then(|file| file.take(limit).read_to_end(&mut bytes)));
        Ok(naming("read", &real, read)?.map(|_| bytes))
    }

    /// Names in a directory, sorted; none when there is no such directory. Names that are not UTF-8 and the
    /// temporary files of a writer that died are left out.
    ///
    /// # Errors
    /// Whatever else kept it from being read, naming the path.
    pub fn list(&self, directory: &HostPath) -> io::Result<Vec<String>> {
        let real = self.real(directory)?;
        let Some(entries) = naming("list", &real, present(fs::read_dir(&real)))? else {
            return Ok(Vec::new());
        };
        let mut names = Vec::new();
        for entry in entries {
            if let Ok(name) = naming("list", &real, entry)?.file_name().into_string()
                && !(name.starts_with('.') && name.ends_with(".transship"))
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Whether there is anything at `path`.
    ///
    /// # Errors
    /// When that cannot be found out, naming the path.
    pub fn exists(&self, path: &HostPath) -> io::Result<bool> {
        let real = self.real(path)?;
        naming("look at", &real, present(fs::symlink_metadata(&real))).map(|found| found.is_some())
    }

    /// When the content of a file was last written, or `None` if there is no such file.
    ///
    /// # Errors
    /// When that cannot be found out, naming the path.
    pub fn modified(&self, path: &HostPath) -> io::Result<Option<SystemTime>> {
        let real = self.real(path)?;
        let found = present(fs::metadata(&real).and_then(|found| found.modified()));
        naming("look at", &real, found)
    }

    /// Mode, owner and extended attributes, or nothing when there is no such file.
    ///
    /// # Errors
    /// When they cannot be read, naming the path.
    pub fn attributes(&self, path: &HostPath) -> io::Result<Option<Attributes>> {
        let real = self.real(path)?;
        let Some(data) = naming("look at", &real, present(fs::metadata(&real)))? else {
            return Ok(None);
        };
        let mut xattrs = BTreeMap::new();
        match xattr::list(&real) {
            Ok(names) => {
                for name in names {
                    if let Some(value) = naming("read the attributes of", &real, xattr::get(&real, &name))? {
                        xattrs.insert(name.to_string_lossy().into_owned(), Bytes(value));
                    }
                }
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => return naming("read the attributes of", &real, Err(error)),
        }
        Ok(Some(Attributes {
            mode: data.mode() & 0o7777,
            uid: data.uid(),
            gid: data.gid(),
            xattrs,
        }))
    }

    /// Those of `directory` and the directories above it that do not exist, the outermost first.
    ///
    /// # Errors
    /// When that cannot be found out, naming the path.
    pub fn missing_dirs(&self, directory: &HostPath) -> io::Result<Vec<HostPath>> {
        let mut missing = Vec::new();
        let mut at = Some(directory.clone());
        while let Some(directory) = at {
            if self.exists(&directory)? {
                break;
            }
            at = directory.parent();
            missing.push(directory);
        }
        missing.reverse();
        Ok(missing)
    }

    /// Whether programs on the file system of `path` can be executed.
    ///
    /// # Errors
    /// When the file system does not say, naming the path.
    pub fn can_execute(&self, path: &HostPath) -> io::Result<bool> {
        let real = self.real(path)?;
        let stat = naming(
            "ask for the mount options of",
            &real,
            nix::sys::statvfs::statvfs(&real).map_err(Into::into),
        )?;
        Ok(!stat.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC))
    }

    /// Takes the lock on `path`, which is made if need be; nothing when another process holds it.
    ///
    /// # Errors
    /// When the file cannot be made or locked, naming the path.
    pub fn lock(&self, path: &HostPath) -> io::Result<Option<Lock>> {
        if let Some(parent) = path.parent() {
            self.create_dir_all(&parent)?;
        }
        let real = self.real(path)?;
        self.effect(Effect::Change(&real))?;
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&real);
        match Flock::lock(naming("open", &real, opened)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Lock(lock))),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => naming("lock", &real, Err(error.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    #[test]
    fn links_stay_inside_the_root() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files
            .write(&path("/opt/real/config.toml"), b"one", 0o640)
            .unwrap();
        std::os::unix::fs::symlink("/opt/real", root.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("../../../../opt/real", root.path().join("opt/up")).unwrap();
        assert_eq!(files.read(&path("/etc/config.toml")).unwrap().unwrap(), b"one");
        files.write(&path("/opt/up/config.toml"), b"two", 0o600).unwrap();
        assert_eq!(
            files.read_text(&path("/opt/real/config.toml")).unwrap().unwrap(),
            "two"
        );
        std::os::unix::fs::symlink("loop", root.path().join("loop")).unwrap();
        assert!(files.read(&path("/loop")).is_err());
    }

    #[test]
    fn a_write_keeps_the_attributes_of_the_file_and_leaves_no_other() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let config = path("/etc/containerd/config.toml");
        files.write(&config, b"old", 0o604).unwrap();
        let before = files.attributes(&config).unwrap().unwrap();
        files.write(&config, b"new", 0o644).unwrap();
        assert_eq!(files.attributes(&config).unwrap().unwrap(), before);
        assert_eq!(before.mode, 0o604);
        assert_eq!(
            fs::read_dir(root.path().join("etc/containerd")).unwrap().count(),
            1
        );
        files.remove(&config).unwrap();
        files.remove(&config).unwrap();
        assert_eq!(files.attributes(&config).unwrap(), None);
        assert_eq!(files.list(&path("/etc/none")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn appending_cuts_a_torn_line_off() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let journal = path("/journal");
        files.append(&journal, 0, b"one\n").unwrap();
        files.append(&journal, 4, b"tw").unwrap();
        files.append(&journal, 4, b"three\n").unwrap();
        assert_eq!(files.read_text(&journal).unwrap().unwrap(), "one\nthree\n");
    }

    #[test]
    fn a_lock_is_held_once() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let held = files.lock(&path("/var/lock")).unwrap();
        assert!(held.is_some());
        assert!(files.lock(&path("/var/lock")).unwrap().is_none());
        drop(held);
        assert!(files.lock(&path("/var/lock")).unwrap().is_some());
    }

    #[test]
    fn bytes_that_are_no_text_survive_the_journal() {
        for bytes in [b"text\n".to_vec(), vec![0xff, 0, 7]] {
            let json = serde_json::to_string(&Bytes(bytes.clone())).unwrap();
            assert_eq!(serde_json::from_str::<Bytes>(&json).unwrap().0, bytes);
        }
    }
}
