//! Files through one mount. `link(2)` and `rename(2)` refuse to cross mounts, even where both sides are one file system,
//! and a store may be mounted onto itself: CRI-O does so with the directory of its layers, for as long as it runs and
//! until it is stopped in order. A clone of the mount that has both sides, without the mounts on top of it, shows what
//! lies there.
//!
//! See `open_tree(2)`; Linux 5.2 and later have it.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::CWD,
    mount::{OpenTreeFlags, open_tree},
};

use super::{Files, naming};
use crate::plan::host_path::HostPath;

/// The files below a directory, all through one mount.
#[derive(Debug)]
pub struct OneMount {
    files: Files,
    outside: Files,
    above: PathBuf,
    /// The clone of the mount, which goes with this descriptor; absent where the kernel makes none.
    clone: Option<OwnedFd>,
}

impl Files {
    /// The mount that has all of these, which exist.
    ///
    /// # Errors
    /// When they are not on one mount, or one of them is not there, naming the path.
    pub fn one_mount(&self, paths: &[&HostPath]) -> io::Result<OneMount> {
        let real: Vec<PathBuf> = paths
            .iter()
            .map(|path| self.real(path))
            .collect::<io::Result<_>>()?;
        let above = above(&real);
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        // Older kernels make none, and some mounts cannot be cloned: what is on one mount as it is can be linked all the same.
        let clone = open_tree(CWD, &above, flags).ok();
        let root = clone.as_ref().map_or_else(
            || above.clone(),
            |clone| Path::new("/proc/self/fd").join(clone.as_raw_fd().to_string()),
        );
        for path in &real {
            let inode = |at: &Path| fs::metadata(at).map(|data| (data.dev(), data.ino()));
            let there = naming("look at", path, inode(path))?;
            let below = path.strip_prefix(&above).unwrap_or(path);
            if inode(&root.join(below)).ok() != Some(there) {
                return Err(io::Error::new(
                    io::ErrorKind::CrossesDevices,
                    format!(
                        "link: {} is not on the mount of {}",
                        path.display(),
                        above.display()
                    ),
                ));
            }
        }
        Ok(OneMount {
            files: Self {
                root,
                hook: self.hook.clone(),
            },
            outside: self.clone(),
            above,
            clone,
        })
    }
}

impl OneMount {
    /// The files, for paths that [`OneMount::path`] gives.
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// What a path of the host is in [`OneMount::files`].
    ///
    /// # Errors
    /// When it is not below the directory that all have in common.
    pub fn path(&self, path: &HostPath) -> io::Result<HostPath> {
        let real = self.outside.real(path)?;
        let below = real.strip_prefix(&self.above).map_err(io::Error::other)?;
        HostPath::new(format!("/{}", below.display())).map_err(io::Error::other)
    }

    /// An error of [`OneMount::files`] with the paths of the host.
    pub fn said(&self, error: &io::Error) -> io::Error {
        let text = error.to_string();
        if self.clone.is_none() {
            return io::Error::new(error.kind(), text);
        }
        let root = self.files.root.display().to_string();
        let above = self.above.display().to_string();
        io::Error::new(error.kind(), text.replace(&root, above.trim_end_matches('/')))
    }
}

/// The directory that is above all of them.
fn above(paths: &[PathBuf]) -> PathBuf {
    let mut parents = paths.iter().filter_map(|path| path.parent());
    let mut above = parents.next().unwrap_or_else(|| Path::new("/"));
    for path in parents {
        while !path.starts_with(above) {
            above = above.parent().unwrap_or_else(|| Path::new("/"));
        }
    }
    above.to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;

    fn path(text: &str) -> HostPath {
        HostPath::new(text).unwrap()
    }

    #[test]
    fn a_directory_that_is_mounted_onto_itself_is_linked_into_and_another_mount_is_not() {
        let root = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let at = |name: &str| root.path().join(name);
        for directory in ["docker/layer", "crio/overlay", "crio/stage", "tmp"] {
            fs::create_dir_all(at(directory)).unwrap();
        }
        fs::write(at("docker/layer/file"), "bytes").unwrap();
        let overlay = at("crio/overlay");
        let bound = mount(
            Some(&overlay),
            &overlay,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        );
        if bound.is_err() {
            return;
        }
        let crossed = fs::hard_link(at("docker/layer/file"), overlay.join("file")).unwrap_err();
        assert_eq!(crossed.kind(), io::ErrorKind::CrossesDevices);
        let files = Files::new(root.path());
        let one = files
            .one_mount(&[&path("/docker/layer"), &path("/crio"), &path("/crio/overlay")])
            .unwrap();
        let to = one.path(&path("/crio/overlay/file")).unwrap();
        one.files()
            .hard_link(&to, &one.path(&path("/docker/layer/file")).unwrap())
            .unwrap();
        assert_eq!(fs::metadata(overlay.join("file")).unwrap().nlink(), 2);
        let wrong = one.files().hard_link(&to, &path("/docker/none")).unwrap_err();
        let said = one.said(&wrong).to_string();
        assert!(
            said.contains(&overlay.join("file").display().to_string()),
            "{said}"
        );

        let tmp = at("tmp");
        mount(Some("none"), &tmp, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let other = files.one_mount(&[&path("/docker/layer"), &path("/tmp")]);
        umount2(&tmp, MntFlags::MNT_DETACH).unwrap();
        umount2(&overlay, MntFlags::MNT_DETACH).unwrap();
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::CrossesDevices);
    }
}
