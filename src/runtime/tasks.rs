//! The containers of containerd that run, by the bundles that it keeps of them (`<state>/io.containerd.runtime.v2.task`,
//! a directory for each namespace and in it for each container). Their processes and shims run on while containerd is
//! restarted; the next containerd adopts them by their bundles.
//!
//! - [`check`]: what has become of them, and what a restart did not remove.
//! - [`newer`]: those that an older containerd cannot adopt.
//! - [`shims`]: which programs their shims run.

pub(super) mod check;
pub(super) mod newer;
pub(super) mod shims;

use std::{collections::BTreeSet, io};

use super::{RuntimeError, Task, Tasks, pods::bundles::directories};
use crate::{
    edit::parse,
    host::{files::Files, process::Process},
    plan::host_path::HostPath,
};

/// Where cgroups of version 1 are mounted, a directory for each hierarchy.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Which boot this is.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// The directory of the bundles in containerd's state directory.
const BUNDLES: &str = "io.containerd.runtime.v2.task";

/// The bundle of a sandbox or of a container.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// containerd's namespace.
    pub namespace: String,
    /// The id of the sandbox or container.
    pub id: String,
    dir: HostPath,
}

impl Bundle {
    /// The text of one of its files, without the white space around it; `None` if the file does not exist or is empty.
    pub fn text(&self, files: &Files, name: &str) -> Option<String> {
        let text = files.read_text(&self.dir.join(name).ok()?).ok()??;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    pub(super) fn file(&self, name: &str) -> Option<HostPath> {
        self.dir.join(name).ok()
    }

    /// The socket of its shim as every version of containerd reads it.
    pub fn address(&self, files: &Files) -> Option<String> {
        self.text(files, "address")
    }

    /// The socket of its shim as containerd 1.7 and later write it.
    pub fn bootstrap_address(&self, files: &Files) -> Option<String> {
        bootstrap_address(&self.text(files, "bootstrap.json")?)
    }

    /// Its first process.
    pub fn pid(&self, files: &Files) -> Option<u32> {
        self.text(files, "init.pid")?.parse().ok()
    }

    /// The container, if its first process runs.
    pub(super) fn task(&self, files: &Files) -> Option<Task> {
        let pid = self.pid(files)?;
        Some(Task {
            namespace: self.namespace.clone(),
            id: self.id.clone(),
            pid,
            started: started(files, pid)?,
        })
    }
}

/// All bundles, of every namespace.
pub(super) fn bundles(files: &Files) -> Vec<Bundle> {
    let plugins: BTreeSet<HostPath> = directories(files).iter().filter_map(HostPath::parent).collect();
    let mut found = Vec::new();
    for plugin in plugins {
        for namespace in files.list(&plugin).unwrap_or_default() {
            found.extend(bundles_of(files, &plugin, &namespace).unwrap_or_default());
        }
    }
    found
}

/// The bundles of a containerd with this state directory, by namespace and id. A bundle that vanishes meanwhile may be among
/// them.
///
/// # Errors
/// When one of their directories cannot be listed, naming the path.
pub fn bundles_in_state(files: &Files, state: &HostPath) -> io::Result<Vec<Bundle>> {
    let plugin = state.join(BUNDLES).map_err(io::Error::other)?;
    let mut found = Vec::new();
    for namespace in files.list(&plugin)? {
        found.extend(bundles_of(files, &plugin, &namespace)?);
    }
    Ok(found)
}

fn bundles_of(files: &Files, plugin: &HostPath, namespace: &str) -> io::Result<Vec<Bundle>> {
    let directory = plugin.join(namespace).map_err(io::Error::other)?;
    // containerd gives a bundle that it removes a hidden name.
    let ids = files.list(&directory)?.into_iter();
    ids.filter(|id| !id.starts_with('.'))
        .map(|id| {
            Ok(Bundle {
                namespace: namespace.to_owned(),
                dir: directory.join(&id).map_err(io::Error::other)?,
                id,
            })
        })
        .collect()
}

/// The containers that run.
pub(super) fn running(files: &Files) -> Tasks {
    let bundles = bundles(files);
    let mut running: Vec<Task> = bundles.iter().filter_map(|bundle| bundle.task(files)).collect();
    running.sort();
    Tasks {
        boot: boot(files),
        running,
    }
}

/// Which boot this is; empty if the kernel does not report it.
pub(super) fn boot(files: &Files) -> String {
    read(files, BOOT).unwrap_or_default().trim().to_owned()
}

/// Whether a shim that a bundle names is this program, or lies in this directory.
pub(super) fn runs_on(files: &Files, path: &HostPath) -> bool {
    let below = format!("{path}/");
    bundles(files).iter().any(|bundle| {
        bundle
            .text(files, "shim-binary-path")
            .is_some_and(|shim| shim == path.as_str() || shim.starts_with(&below))
    })
}

/// Puts the first processes of containers back into the cgroups of version 1 of their containers. After a boot some are in
/// those of their pods in single hierarchies; containerd asks runc for the processes of a container, gets none, and ends
/// the container at its next start.
///
/// # Errors
/// The kernel's, if it refuses one.
pub(super) fn repair(files: &Files) -> Result<Vec<String>, RuntimeError> {
    let root = HostPath::new(CGROUPS).map_err(RuntimeError::of)?;
    let hierarchies = files.list(&root).unwrap_or_default();
    let mut repaired = Vec::new();
    for task in running(files).running {
        let text = read(files, &format!("/proc/{}/cgroup", task.pid)).unwrap_or_default();
        for (hierarchy, scope) in astray(&text, &task.id, &hierarchies) {
            let procs = HostPath::new(format!("{CGROUPS}/{hierarchy}{scope}/cgroup.procs"));
            let procs = procs.map_err(RuntimeError::of)?;
            if !files.exists(&procs).map_err(RuntimeError::of)? {
                continue;
            }
            files
                .order(&procs, &task.pid.to_string())
                .map_err(RuntimeError::of)?;
            repaired.push(format!(
                "process {} of container {} was not in the cgroup of its container in the hierarchy {hierarchy}, and was put there",
                task.pid, task.id
            ));
        }
    }
    Ok(repaired)
}

/// The hierarchies in which a process is not in the cgroup of its container, each with that cgroup; `text` is
/// `/proc/PID/cgroup`.
fn astray<'a>(text: &'a str, id: &str, hierarchies: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let lines = || {
        text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        })
    };
    let Some((_, scope)) = lines().find(|(_, path)| path.contains(id)) else {
        return Vec::new();
    };
    let directory = |controllers: &str| {
        let wanted: BTreeSet<&str> = controllers.split(',').collect();
        let named = hierarchies.iter().map(String::as_str);
        named
            .into_iter()
            .find(|name| name.split(',').collect::<BTreeSet<_>>() == wanted)
    };
    lines()
        .filter(|(controllers, path)| {
            !controllers.is_empty() && !controllers.starts_with("name=") && !path.contains(id)
        })
        .filter_map(|(controllers, _)| Some((directory(controllers)?, scope)))
        .collect()
}

/// When a process was started; `None` if it does not run.
pub(super) fn started(files: &Files, pid: u32) -> Option<u64> {
    Process::of(files, pid).filter(|process| !process.ended)?.started
}

/// The address of a shim in `bootstrap.json`.
fn bootstrap_address(text: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Bootstrap {
        address: String,
    }
    let read: Bootstrap = parse::json(text).ok()?;
    Some(read.address)
}

/// A file of the kernel.
pub(super) fn read(files: &Files, path: &str) -> Option<String> {
    files.read_text(&HostPath::new(path).ok()?).ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn a_process_in_the_cgroup_of_its_pod_is_astray() {
        let pod = "/kubepods.slice/kubepods-pod1.slice";
        let scope = format!("{pod}/cri-containerd-{ID}.scope");
        let names = ["devices", "cpu,cpuacct", "systemd", "memory"].map(str::to_owned);
        let text = format!("9:devices:{pod}\n4:cpuacct,cpu:{scope}\n1:name=systemd:{scope}\n0::/\n");
        assert_eq!(astray(&text, ID, &names), [("devices", &*scope)]);
        let text = format!("9:devices:{scope}\n4:cpuacct,cpu:{pod}\n1:name=systemd:{scope}\n");
        assert_eq!(astray(&text, ID, &names), [("cpu,cpuacct", &*scope)]);
        let well = format!("9:devices:{scope}\n1:name=systemd:{scope}\n");
        assert_eq!(astray(&well, ID, &names), []);
        // With cgroups of version 2 there is one path, and it is right.
        assert_eq!(astray(&format!("0::{scope}\n"), ID, &names), []);
        assert_eq!(astray("9:devices:/elsewhere\n", ID, &names), []);
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let stat = |pid: u32, state: &str| {
            let path = HostPath::new(format!("/proc/{pid}/stat")).unwrap();
            let fields = (4..22)
                .map(|field| field.to_string())
                .collect::<Vec<_>>()
                .join(" ");
            let text = format!("{pid} (a (b) c) {state} {fields} 4711 0 0\n");
            files.write(&path, text.as_bytes(), 0o444).unwrap();
        };
        stat(7, "S");
        stat(8, "Z");
        assert_eq!(started(&files, 7), Some(4711));
        assert_eq!(started(&files, 8), None);
        assert_eq!(started(&files, 9), None);
    }
}
