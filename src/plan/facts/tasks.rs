//! What containerd runs, as its bundles on disk and its records have it.

use serde::{Deserialize, Serialize};

/// A living task: a container, or the sandbox of a pod, whose first process runs. Read from its bundle
/// (`STATE/io.containerd.runtime.v2.task/NAMESPACE/ID`) and from `/proc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Task {
    /// containerd's namespace (`k8s.io`, Docker's `moby`).
    pub namespace: String,
    /// Id of the container or sandbox.
    pub id: String,
    /// Its first process (`init.pid`).
    pub pid: u32,
    /// Program of its shim (`shim-binary-path`); empty if the bundle does not name one, as a container in a sandbox
    /// that was started by containerd 2.x.
    pub shim: String,
    /// The program exists and is executable, or none is named.
    pub shim_present: bool,
    /// cgroup v1: the first process is in its scope in systemd's hierarchy, and not in that of `devices`, so the shim
    /// lists no processes.
    pub lost_pids: bool,
    /// The bundle has the file `address`, without which containerd 1.x cannot adopt the task.
    pub adoptable: bool,
    /// Socket of its shim (`address`, else from `bootstrap.json`).
    pub address: String,
    /// Process of its shim, the parent of the first process; 0 if it is not a shim.
    pub shim_pid: u32,
}

/// A container in containerd's records with another runtime than `io.containerd.runc.v2`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignRecord {
    /// containerd's namespace.
    pub namespace: String,
    /// Id of the container.
    pub id: String,
    /// Name of its runtime (`io.containerd.runtime.v1.linux`).
    pub runtime: String,
}
