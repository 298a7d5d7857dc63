//! The living tasks of a containerd, read from its bundles and from `/proc`. Whether a restart of containerd loses one
//! of them can be seen there and not over its API.

use std::io;

use crate::{
    host::{files::Files, process::Process},
    plan::{facts::Task, host_path::HostPath},
    runtime::tasks::{self, Bundle},
};

/// How the kernel names a shim of containerd (`/proc/PID/comm`, 15 characters at most).
const SHIM: &str = "containerd-shim";

/// The living tasks of all namespaces, by namespace and id. A bundle that vanishes meanwhile is not among them.
///
/// # Errors
/// When the directory of the bundles cannot be listed, naming the path.
pub(super) fn living(files: &Files, state: &HostPath) -> io::Result<Vec<Task>> {
    let bundles = tasks::bundles_in_state(files, state)?;
    Ok(bundles.iter().filter_map(|bundle| task(files, bundle)).collect())
}

/// The task of a bundle; `None` if its first process does not run.
fn task(files: &Files, bundle: &Bundle) -> Option<Task> {
    let pid = bundle.pid(files)?;
    let Process { parent, .. } = Process::of(files, pid).filter(|process| !process.ended)?;
    let shim = bundle.text(files, "shim-binary-path").unwrap_or_default();
    let address = bundle.address(files);
    let is_shim = process(files, parent, "comm").is_some_and(|name| name.starts_with(SHIM));
    Some(Task {
        namespace: bundle.namespace.clone(),
        id: bundle.id.clone(),
        pid,
        shim_present: shim.is_empty() || is_program(files, &shim),
        shim,
        lost_pids: process(files, pid, "cgroup").is_some_and(|cgroup| is_lost(&cgroup)),
        adoptable: address.is_some(),
        address: address
            .or_else(|| bundle.bootstrap_address(files))
            .unwrap_or_default(),
        shim_pid: if is_shim { parent } else { 0 },
    })
}

fn process(files: &Files, pid: u32, name: &str) -> Option<String> {
    let path = HostPath::new(format!("/proc/{pid}/{name}")).ok()?;
    files.read_text(&path).ok().flatten()
}

fn is_program(files: &Files, path: &str) -> bool {
    let attributes = HostPath::new(path)
        .ok()
        .and_then(|path| files.attributes(&path).ok());
    attributes.flatten().is_some_and(|found| found.mode & 0o111 != 0)
}

/// Whether a process is in another cgroup in the hierarchy of `devices` than in systemd's own (cgroup v1): runc lists
/// the processes of the first. After a boot systemd has moved the first containers out of it.
fn is_lost(cgroup: &str) -> bool {
    let of = |wanted: &str| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            let path = parts.next()?;
            names.split(',').any(|name| name == wanted).then_some(path)
        })
    };
    matches!((of("name=systemd"), of("devices")), (Some(scope), Some(devices)) if scope != devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "/run/containerd";
    const BUNDLES: &str = "io.containerd.runtime.v2.task";
    /// Of a real node: the first process of a DNS pod after a boot.
    const LOST: &str = "12:devices:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice\n\
        5:cpu,cpuacct:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-a.scope\n\
        1:name=systemd:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-a.scope\n";

    fn host() -> (tempfile::TempDir, Files) {
        let place = tempfile::tempdir().unwrap();
        let files = Files::new(place.path());
        (place, files)
    }

    fn write(files: &Files, path: &str, text: &str, mode: u32) {
        files
            .write(&HostPath::new(path).unwrap(), text.as_bytes(), mode)
            .unwrap();
    }

    fn bundle(files: &Files, at: &str, entries: &[(&str, &str)]) {
        for (name, text) in entries {
            write(files, &format!("{STATE}/{BUNDLES}/{at}/{name}"), text, 0o644);
        }
    }

    fn runs(files: &Files, pid: u32, parent: u32, state: char, cgroup: &str) {
        write(
            files,
            &format!("/proc/{pid}/stat"),
            &format!("{pid} (a) b) {state} {parent} 1 1\n"),
            0o444,
        );
        write(files, &format!("/proc/{pid}/cgroup"), cgroup, 0o444);
    }

    fn living_here(files: &Files) -> Vec<Task> {
        living(files, &HostPath::new(STATE).unwrap()).unwrap()
    }

    #[test]
    fn a_task_is_what_its_bundle_and_its_process_say() {
        let (_place, files) = host();
        write(&files, "/usr/bin/containerd-shim-runc-v2", "", 0o755);
        write(&files, "/proc/7/comm", "containerd-shim\n", 0o444);
        bundle(
            &files,
            "k8s.io/a",
            &[
                ("init.pid", "100"),
                ("address", "unix:///s/1"),
                ("shim-binary-path", "/usr/bin/containerd-shim-runc-v2"),
            ],
        );
        runs(&files, 100, 7, 'S', LOST);
        // As containerd 2.x leaves a container in a sandbox of its own.
        bundle(
            &files,
            "k8s.io/b",
            &[
                ("init.pid", "101"),
                (
                    "bootstrap.json",
                    r#"{"version":3,"address":"unix:///s/2","protocol":"ttrpc"}"#,
                ),
            ],
        );
        runs(&files, 101, 1, 'S', "0::/kubepods.slice/cri-containerd-b.scope\n");
        bundle(
            &files,
            "moby/c",
            &[
                ("init.pid", "102"),
                ("address", "unix:///s/3"),
                ("shim-binary-path", "/gone"),
            ],
        );
        runs(
            &files,
            102,
            7,
            'S',
            "12:devices:/docker/c\n1:name=systemd:/docker/c\n",
        );
        // Exited, not started, and gone.
        bundle(&files, "k8s.io/d", &[("init.pid", "103")]);
        runs(&files, 103, 7, 'Z', "");
        bundle(&files, "k8s.io/e", &[("config.json", "{}")]);
        bundle(&files, "k8s.io/f", &[("init.pid", "104")]);
        let task = |namespace: &str, id: &str, pid| Task {
            namespace: namespace.into(),
            id: id.into(),
            pid,
            ..Task::default()
        };
        assert_eq!(
            living_here(&files),
            [
                Task {
                    shim: "/usr/bin/containerd-shim-runc-v2".into(),
                    shim_present: true,
                    lost_pids: true,
                    adoptable: true,
                    address: "unix:///s/1".into(),
                    shim_pid: 7,
                    ..task("k8s.io", "a", 100)
                },
                Task {
                    shim_present: true,
                    address: "unix:///s/2".into(),
                    ..task("k8s.io", "b", 101)
                },
                Task {
                    shim: "/gone".into(),
                    adoptable: true,
                    address: "unix:///s/3".into(),
                    shim_pid: 7,
                    ..task("moby", "c", 102)
                },
            ]
        );
    }

    #[test]
    fn a_program_that_cannot_be_executed_is_missing() {
        let (_place, files) = host();
        write(&files, "/shim", "", 0o644);
        bundle(
            &files,
            "k8s.io/a",
            &[("init.pid", "100"), ("shim-binary-path", "/shim")],
        );
        runs(&files, 100, 7, 'S', "");
        assert!(!living_here(&files)[0].shim_present);
    }

    #[test]
    fn a_node_without_bundles_has_no_tasks() {
        let (_place, files) = host();
        assert_eq!(living_here(&files), []);
    }

    #[test]
    fn fuzz_cgroups_of_a_task() {
        use crate::fuzz::{hold, samples};

        hold(&samples("proc-status", &[]), |text| {
            is_lost(text);
        });
    }
}
