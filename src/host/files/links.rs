//! Symbolic links as such: not what they lead to.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::symlink,
    path::PathBuf,
};

use super::{Effect, Files, change, naming, present};
use crate::plan::host_path::HostPath;

impl Files {
    /// The place of a link: links in the directories above it are resolved, the link itself is not.
    fn place(&self, path: &HostPath) -> io::Result<PathBuf> {
        let name = path.as_str().rsplit('/').next().unwrap_or_default();
        match path.parent() {
            Some(parent) => Ok(self.real(&parent)?.join(name)),
            None => Ok(self.root.join(name)),
        }
    }

    /// The target of the symbolic link at `path`, as it is written there; `None` if there is nothing, or no link.
    ///
    /// # Errors
    /// When that cannot be found out, naming the path.
    pub fn read_link(&self, path: &HostPath) -> io::Result<Option<String>> {
        let place = self.place(path)?;
        match present(fs::read_link(&place)) {
            // EINVAL: it is not a link.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(None),
            found => {
                Ok(naming("read the link", &place, found)?
                    .map(|target| target.to_string_lossy().into_owned()))
            }
        }
    }

    /// Makes a symbolic link, in the place of another one if there is one. Directories above it are made.
    ///
    /// # Errors
    /// When it could not be made, or something else than a link is in its place, naming the path.
    pub fn put_link(&self, path: &HostPath, target: &str) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.create_dir_all(&parent)?;
        }
        let place = self.place(path)?;
        let there = naming("look at", &place, present(fs::symlink_metadata(&place)))?;
        if there.is_some_and(|data| !data.is_symlink()) {
            let error = io::Error::new(ErrorKind::AlreadyExists, "there is something else in its place");
            return naming("link", &place, Err(error));
        }
        let temporary = change::temporary(&place);
        let made = self.effect(Effect::Change(&place)).and_then(|()| {
            present(fs::remove_file(&temporary))?;
            symlink(target, &temporary)?;
            self.effect(Effect::Change(&place))?;
            fs::rename(&temporary, &place)?;
            self.sync_parent(&place)
        });
        naming("link", &place, made)
    }

    /// Makes durable that there is a link at `path`, or nothing. Somebody who died may have changed it and not synced.
    ///
    /// # Errors
    /// When a power cut may still change it, naming the path.
    pub fn settle_link(&self, path: &HostPath) -> io::Result<()> {
        self.settle_above(&self.place(path)?)
    }

    /// Removes a symbolic link, and what a writer of it that died may have left.
    ///
    /// # Errors
    /// When it is still there, naming the path.
    pub fn remove_link(&self, path: &HostPath) -> io::Result<()> {
        self.remove_link_leftover(path)?;
        if self.read_link(path)?.is_some() {
            self.discard(&self.place(path)?)?;
        }
        Ok(())
    }

    /// Removes what a writer of the link at `path` that died may have left beside it.
    ///
    /// # Errors
    /// When it is still there, naming the path.
    pub fn remove_link_leftover(&self, path: &HostPath) -> io::Result<()> {
        self.discard(&change::temporary(&self.place(path)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_not_what_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = |text: &str| HostPath::new(text).unwrap();
        let (link, file) = (path("/etc/a.wants/b"), path("/opt/b"));
        files.write(&file, b"text", 0o644).unwrap();
        assert_eq!(files.read_link(&link).unwrap(), None);
        files.put_link(&link, "/opt/b").unwrap();
        assert_eq!(files.read(&link).unwrap().unwrap(), b"text");
        files.put_link(&link, "/dev/null").unwrap();
        assert_eq!(files.read_link(&link).unwrap().unwrap(), "/dev/null");
        assert!(files.put_link(&file, "/dev/null").is_err(), "a file stays");
        assert_eq!(files.read_link(&file).unwrap(), None);
        files.remove_link(&link).unwrap();
        files.remove_link(&link).unwrap();
        assert_eq!(fs::read_dir(root.path().join("etc/a.wants")).unwrap().count(), 0);
        assert!(files.exists(&file).unwrap());
    }
}
