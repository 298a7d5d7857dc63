//! Reads the tree of a container image's layer.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use super::{Files, naming};
use crate::plan::host_path::HostPath;

/// What a layer holds, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerCount {
    /// The users who own something.
    pub uids: BTreeSet<u32>,
    /// The groups that own something.
    pub gids: BTreeSet<u32>,
    /// Bytes of its regular files, each once.
    pub bytes: u64,
}

impl Files {
    /// Counts what the layer at `directory` holds.
    ///
    /// # Errors
    /// When it cannot be read, naming the path.
    pub fn count_layer(&self, directory: &HostPath) -> io::Result<LayerCount> {
        let real = self.real(directory)?;
        let mut count = LayerCount::default();
        count_below(&real, &mut count, &mut HashSet::new())?;
        Ok(count)
    }

    /// The regular file that an archive calls `name` in the tree at `directory`, and its length. Links on the way are
    /// resolved inside the tree; the file itself must not be one.
    ///
    /// # Errors
    /// When there is none, naming the path.
    pub fn open_in(&self, directory: &HostPath, name: &[u8]) -> io::Result<(impl Read + use<>, u64)> {
        let tree = Self::new(self.real(directory)?);
        let parts = name
            .split(|byte| *byte == b'/')
            .filter(|part| !matches!(*part, b"" | b"."));
        let parts: Vec<OsString> = parts
            .rev()
            .map(|part| OsStr::from_bytes(part).to_owned())
            .collect();
        let real = tree.resolve_parts(parts)?;
        let opened = fs::symlink_metadata(&real).and_then(|data| {
            // Opening a pipe waits for a writer.
            if data.is_file() {
                File::open(&real).map(|file| (file, data.len()))
            } else {
                Err(io::Error::other("it is not a regular file"))
            }
        });
        naming("open", &real, opened)
    }
}

fn count_below(at: &Path, count: &mut LayerCount, seen: &mut HashSet<u64>) -> io::Result<()> {
    let data = naming("look at", at, fs::symlink_metadata(at))?;
    count.uids.insert(data.uid());
    count.gids.insert(data.gid());
    if data.is_file() && (data.nlink() == 1 || seen.insert(data.ino())) {
        count.bytes += data.len();
    }
    if data.is_dir() {
        for entry in naming("list", at, fs::read_dir(at))? {
            count_below(&naming("list", at, entry)?.path(), count, seen)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{lchown, symlink};

    use super::*;

    #[test]
    fn a_layer_is_counted_and_a_file_of_it_found_by_any_name() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join("layer").join(name);
        fs::create_dir_all(at("usr/bin")).unwrap();
        symlink("/usr/bin", at("bin")).unwrap();
        fs::write(at("usr/bin/a"), "12345").unwrap();
        fs::hard_link(at("usr/bin/a"), at("usr/bin/b")).unwrap();
        let odd = root.path().join("layer/usr/bin").join(OsStr::from_bytes(b"\xff"));
        fs::write(&odd, "odd").unwrap();
        lchown(at("usr/bin/a"), Some(7), Some(9)).unwrap();
        let files = Files::new(root.path());
        let layer = HostPath::new("/layer").unwrap();
        let count = files.count_layer(&layer).unwrap();
        assert_eq!(
            (count.bytes, count.uids, count.gids),
            (8, [0, 7].into(), [0, 9].into())
        );
        for (name, length) in [(&b"./usr/bin/a"[..], 5), (b"bin/b", 5), (b"usr//bin/\xff", 3)] {
            let (mut file, found) = files.open_in(&layer, name).unwrap();
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).unwrap();
            assert_eq!((found, bytes.len()), (length, usize::try_from(length).unwrap()));
        }
        assert!(files.open_in(&layer, b"usr").is_err());
        assert!(files.open_in(&layer, b"../../etc/passwd").is_err());
    }
}
