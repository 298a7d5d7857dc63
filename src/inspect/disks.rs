//! The file systems below the stores.

use nix::sys::{stat, statvfs};

use super::notes::Notes;
use crate::{
    host::files::Files,
    plan::{
        facts::Disk,
        host_path::HostPath,
        paths::{ARCHIVES, DOCKER_DATA_ROOT},
        runtime::Runtime,
    },
};

const KUBELET: &str = "/var/lib/kubelet";
const TRANSSHIP: &str = "/var/lib/transship";
/// Where the logs of pods lie under a CRI.
const LOGS: &str = "/var/log/pods";

/// Looks at the disks, with those of these stores.
pub(super) fn inspect(files: &Files, stores: &[&str], notes: &Notes) -> Vec<Disk> {
    let mut paths = [&[KUBELET, TRANSSHIP, ARCHIVES, LOGS], stores].concat();
    paths.sort_unstable();
    paths.dedup();
    let mounts = HostPath::new("/proc/self/mountinfo")
        .ok()
        .and_then(|path| notes.keep(files.read_text(&path)));
    let mounts = mounts.flatten().unwrap_or_default();
    paths
        .into_iter()
        .filter_map(|path| disk(files, path, &mounts, notes))
        .collect()
}

/// The directories that the runtimes may get beside Docker's data root, if it is not the usual one.
pub(super) fn beside(data_root: &str) -> Vec<HostPath> {
    let parent = HostPath::new(data_root).ok().and_then(|path| path.parent());
    let Some(parent) = parent.filter(|parent| data_root != DOCKER_DATA_ROOT && parent.as_str() != "/") else {
        return Vec::new();
    };
    Runtime::targets()
        .filter_map(|runtime| parent.join(runtime.profile().beside_docker?).ok())
        .collect()
}

/// Those of these directories that are not there, or have nothing in them.
pub(super) fn empty(files: &Files, stores: &[&str]) -> Vec<HostPath> {
    let paths = stores.iter().filter_map(|path| HostPath::new(*path).ok());
    let mut found: Vec<HostPath> = paths
        .filter(|path| files.list(path).is_ok_and(|names| names.is_empty()))
        .collect();
    found.sort();
    found.dedup();
    found
}

fn disk(files: &Files, path: &str, mounts: &str, notes: &Notes) -> Option<Disk> {
    let path = notes.keep(HostPath::new(path))?;
    let mut real = notes.keep(files.real(&path))?;
    // A store that does not exist yet will lie on the file system of the directory above it.
    while !real.exists() && real.pop() {}
    let say = |error: nix::Error| format!("the file system of {path}: {error}");
    let space = notes.keep(statvfs::statvfs(&real).map_err(say))?;
    let device = notes.keep(stat::stat(&real).map_err(say))?.st_dev;
    let block = space.fragment_size();
    Some(Disk {
        kind: kind(mounts, stat::major(device), stat::minor(device)),
        // Without the blocks that are reserved for root: so the kubelet counts.
        free: space.blocks_available().saturating_mul(block),
        total: space.blocks().saturating_mul(block),
        device,
        path,
    })
}

/// Type of a file system by its device number in `/proc/self/mountinfo` (proc(5)):
/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw`.
fn kind(mounts: &str, major: u64, minor: u64) -> String {
    let device = format!("{major}:{minor}");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(device.as_str()));
    let kind = line
        .and_then(|line| line.split_once(" - "))
        .and_then(|(_, rest)| rest.split(' ').next());
    kind.unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use crate::{host::files::Files, plan::host_path::HostPath};

    #[test]
    fn a_place_beside_dockers_is_empty_until_something_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        assert_eq!(super::beside("/var/lib/docker"), []);
        assert_eq!(super::beside("/docker"), []);
        let beside = super::beside("/data/docker");
        let mut paths: Vec<&str> = beside.iter().map(HostPath::as_str).collect();
        paths.sort_unstable();
        assert_eq!(paths, ["/data/containerd", "/data/containers/storage"]);
        assert_eq!(super::empty(&files, &paths).len(), 2);
        let file = HostPath::new("/data/containerd/x").unwrap();
        files.write(&file, b"", 0o644).unwrap();
        let empty = super::empty(&files, &paths);
        assert_eq!(
            empty.iter().map(HostPath::as_str).collect::<Vec<_>>(),
            ["/data/containers/storage"]
        );
    }

    #[test]
    fn the_type_is_that_of_the_device() {
        let mounts = "103 51 254:0 /var/root / rw,relatime shared:35 - ext4 /dev/vda rw\n\
                      104 103 0:55 / /proc rw - proc proc rw\n";
        assert_eq!(super::kind(mounts, 254, 0), "ext4");
        assert_eq!(super::kind(mounts, 0, 55), "proc");
        assert_eq!(super::kind(mounts, 8, 1), "unknown");
    }

    #[test]
    fn fuzz_mounts() {
        use crate::fuzz::{hold, samples};

        hold(&samples("mountinfo", &[]), |text| {
            assert!(
                !super::kind(text, 254, 0).contains([' ', '\n']),
                "a type is one word"
            );
        });
    }
}
