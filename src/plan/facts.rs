//! What was found on a node: pure data, including the text of every file that may be edited. `inspect` collects
//! it; planners and findings are computed from it alone.

mod registries;
mod tasks;
mod texts;
mod units;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use registries::{Pem, RegistryDirectory};
pub use tasks::{ForeignRecord, Task};
pub use texts::{MaybeFile, TextFile};
pub use units::{Limits, UnitFacts};

use super::host_path::HostPath;
use crate::edit::crio_conf::Printed;

/// What kubeadm, from 1.34 on, patches `config.yaml` of its node with at every upgrade
/// (`cmd/kubeadm/app/phases/kubelet/config.go`).
pub const INSTANCE_CONFIG: &str = "/var/lib/kubelet/instance-config.yaml";

/// What was found on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Name of the Node: the kubelet's `--hostname-override`, else the host name in lower case.
    pub node: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The distribution.
    pub os: Os,
    /// Kernel release.
    pub kernel: String,
    /// Architecture in Go's words (`amd64`, `arm64`).
    pub arch: String,
    /// 1 or 2: the cgroup version that the runtimes see.
    pub cgroup_version: u8,
    /// systemd's version number (`252`), 0 when it does not answer.
    pub systemd_version: u32,
    /// What manages the kubelet on this host.
    pub layout: Layout,
    /// The kubelet; absent when none runs and no unit exists.
    pub kubelet: Option<Kubelet>,
    /// Docker Engine; absent when it is not installed.
    pub docker: Option<Docker>,
    /// containerd; absent when it is not installed.
    pub containerd: Option<Containerd>,
    /// cri-dockerd; absent when there is no unit for it.
    #[serde(default)]
    pub cri_dockerd: Option<CriDockerd>,
    /// CRI-O; absent when there is no unit for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crio: Option<Crio>,
    /// Programs that CRI-O calls and that are where systemd looks for programs, by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub crio_programs: BTreeMap<String, HostPath>,
    /// Whether `/etc/group` has a group `docker`; absent where it could not be read.
    #[serde(default)]
    pub docker_group: Option<bool>,
    /// CNI configuration and plugins.
    pub cni: Cni,
    /// What pods need of the kernel; absent in facts that were captured without it.
    #[serde(default)]
    pub prerequisites: Option<Prerequisites>,
    /// Files of other tools that name a runtime's socket, and drop-ins that Transship would write; each with its
    /// text, or absent where there is no such file: `/etc/crictl.yaml`, the kubelet's hold drop-in, and what would be
    /// read by a runtime that is not installed yet.
    pub files: Vec<MaybeFile>,
    /// File systems below the stores and the logs.
    pub disks: Vec<Disk>,
    /// Directories of stores, and those that a store may get, that are not there or have nothing in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub empty_stores: Vec<HostPath>,
    /// Directories of registries under `/etc/docker/certs.d` and `/etc/containerd/certs.d`.
    #[serde(default)]
    pub registry_directories: Vec<RegistryDirectory>,
    /// Files with certificates and keys that containerd names for registries; those that cannot be read are not among them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registry_pems: BTreeMap<HostPath, Pem>,
    /// `/etc/containers/registries.conf` and the files of its directory, in the order in which they are read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub registries_conf: Vec<TextFile>,
    /// Files of logrotate(8) that name the logs under Docker's data root.
    #[serde(default)]
    pub log_rules: Vec<HostPath>,
    /// Who else acts on the runtimes of this host.
    #[serde(default)]
    pub rivals: Rivals,
    /// Attempts of Transship on this host that are not over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<OpenAttempt>,
    /// What could not be read, a sentence each, naming the object.
    pub unreadable: Vec<String>,
    /// See [`Plan::digest_key`](super::document::Plan::digest_key).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest_key: String,
}

/// The distribution of a host, as os-release(5) names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Os {
    /// `ID` (`debian`).
    pub id: String,
    /// `VERSION_ID` (`12`).
    pub version: String,
}

/// Who else acts on the runtimes of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rivals {
    /// Units, jobs of cron and checks of monit that start Docker.
    pub starters: Vec<HostPath>,
    /// Running services of configuration management.
    pub agents: Vec<String>,
}

/// An attempt of Transship whose journal is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OpenAttempt {
    /// Name of its directory.
    pub name: String,
    /// Its directory.
    pub dir: HostPath,
    /// Where it stands, in words that follow "it is".
    pub state: String,
}

/// What manages the kubelet on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layout {
    /// A `kubelet.service` whose arguments come from kubeadm's files.
    Kubeadm,
    /// A `kubelet.service` with its arguments in the unit, drop-ins or environment files.
    PlainUnit,
    /// The kubelet runs inside the `k3s` process.
    K3s,
    /// The kubelet runs inside the `rke2` process.
    Rke2,
    /// The kubelet is a child of `k0s`.
    K0s,
    /// A snap daemon.
    Microk8s,
    /// Talos Linux: no shell, driven by an API.
    Talos,
    /// Bottlerocket: no shell, driven by an API.
    Bottlerocket,
    /// Container-Optimized OS of GKE: `/etc` does not outlive a boot.
    ContainerOptimizedOs,
    /// OpenShift's CoreOS, whose files the Machine Config Operator owns.
    OpenShift,
    /// Windows.
    Windows,
    /// No kubelet was recognised.
    Unknown,
}

/// The kubelet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kubelet {
    /// Its unit.
    pub unit: UnitFacts,
    /// The file of the unit, where an administrator or an installer has written it (below `/etc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_unit: Option<TextFile>,
    /// `/proc/<pid>/cmdline` of the running process: the truth about its flags. Empty when it does not run.
    pub command_line: Vec<String>,
    /// Version without `v` (`1.23.17`); empty when it could not be asked.
    pub version: String,
    /// The file of `--config`.
    pub config: Option<TextFile>,
    /// `*.conf` files of `--config-dir`, in the kubelet's order.
    pub config_drop_ins: Vec<TextFile>,
    /// [`INSTANCE_CONFIG`].
    pub instance_config: Option<TextFile>,
    /// `--kubeconfig`.
    pub kubeconfig: Option<HostPath>,
    /// Commands before and after its start that use Docker, by property and program (`ExecStartPre=/usr/bin/docker`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub docker_users: Vec<String>,
    /// Manifests of static pods: images that they name, by file.
    pub static_pod_images: Vec<String>,
    /// The pods that it has directories of: those that it runs, those that it is going to start, and those that have ended and
    /// still have a Pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<KubeletPod>,
}

/// A pod that the kubelet has a directory of (`pods/UID` below its `--root-dir`), which it makes before the first container
/// (`makePodDataDirs` in `SyncPod`, `pkg/kubelet/kubelet.go`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubeletPod {
    /// UID of the pod; of a static pod, what the kubelet has computed from its manifest.
    pub uid: String,
    /// Namespace and name, if there is a directory for its logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its containers that the kubelet has started on this node at some time, under whatever runtime.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub containers: Vec<String>,
}

/// Docker Engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Docker {
    /// `docker.service`.
    pub service: UnitFacts,
    /// The file of `docker.service`, where an administrator has written it (below `/etc`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_unit: Option<TextFile>,
    /// `docker.socket`.
    pub socket: UnitFacts,
    /// Where the engine listens (`/var/run/docker.sock`).
    pub endpoint: HostPath,
    /// `/etc/docker/daemon.json`.
    pub daemon_json: Option<TextFile>,
    /// `daemon.json` was written after the running engine was started, so the engine has never read it.
    #[serde(default)]
    pub daemon_json_unread: bool,
    /// The unit that runs the engine if it is not docker.service (`snap.docker.dockerd.service`).
    #[serde(default)]
    pub other_unit: Option<String>,
    /// What the running engine says of itself; absent when it does not answer.
    pub engine: Option<Engine>,
    /// Where the programs are that its runtimes beside runc need, by the names or paths by which they are called.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub runtime_programs: BTreeMap<String, HostPath>,
}

/// What a running Docker Engine says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Engine {
    /// Version (`20.10.24+dfsg1`).
    pub version: String,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
    /// Storage driver (`overlay2`).
    pub storage_driver: String,
    /// Data root (`/var/lib/docker`).
    pub data_root: HostPath,
    /// The owners of files in its store are shifted (`userns-remap`).
    #[serde(default)]
    pub user_namespaces: bool,
    /// Containers survive a stop of the engine.
    pub live_restore: bool,
    /// Its default runtime (`runc`).
    pub default_runtime: String,
    /// Its default logging driver (`json-file`).
    pub logging_driver: String,
    /// What it holds.
    #[serde(flatten)]
    pub store: Store,
}

/// What a runtime holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Store {
    /// All containers, running or not, those that hold a pod's sandbox included.
    pub containers: Vec<Container>,
    /// All images that have a name.
    pub images: Vec<Image>,
}

/// A container in a runtime's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its name without the leading slash.
    pub name: String,
    /// Id of its image (`sha256:…`).
    pub image_id: String,
    /// Whether it runs.
    pub running: bool,
    /// The pod that it belongs to, by the labels of dockershim and cri-dockerd; absent for other containers.
    pub pod: Option<PodRef>,
    /// Paths on the host of its bind mounts.
    pub mounts: Vec<String>,
    /// Its processes gain no privileges (`allowPrivilegeEscalation: false`); known of pods that run under Docker.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privileges: bool,
    /// Its pod is one of a Job, which replaces a pod that failed by another one; known of sandboxes, which have the labels of the
    /// pod (`newPodLabels` in `pkg/kubelet/kuberuntime/labels.go`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub of_job: bool,
}

/// Labels that the pods of a Job have (`JobNameLabel` and `LegacyJobNameLabel` in `pkg/apis/batch/types.go`; kubelets before 1.27 see
/// the second one alone).
pub const JOB_LABELS: [&str; 2] = ["batch.kubernetes.io/job-name", "job-name"];

/// What is written for the name of a container that holds a pod's sandbox.
pub const SANDBOX: &str = "POD";

/// The pod that a container belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRef {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    pub uid: String,
    /// Name of the container, or [`SANDBOX`].
    pub container: String,
}

/// An image in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Its id (`sha256:…` of its configuration).
    pub id: String,
    /// Tags as full references (`docker.io/library/nginx:1.25`).
    pub names: Vec<String>,
    /// Digests as full references (`docker.io/library/nginx@sha256:…`).
    pub digests: Vec<String>,
    /// Bytes on disk, shared layers included.
    pub size: u64,
}

/// containerd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Containerd {
    /// `containerd.service`.
    pub service: UnitFacts,
    /// Version without `v` (`1.6.20~ds1`), of the binary in the unit.
    pub version: String,
    /// `/etc/containerd/config.toml`.
    pub config: MaybeFile,
    /// Output of `containerd config dump`: the effective configuration with all defaults; absent when it failed
    /// (what it said is in [`Facts::unreadable`]).
    pub effective: Option<String>,
    /// Its socket (`/run/containerd/containerd.sock`).
    pub endpoint: HostPath,
    /// What its CRI says; absent when it does not answer or is disabled.
    pub cri: Option<CriFacts>,
    /// Why the CRI of a running containerd does not answer, as containerd reports it.
    #[serde(default)]
    pub cri_problem: Option<String>,
    /// What its CRI holds; absent when it does not answer or is disabled.
    #[serde(default)]
    pub store: Option<Store>,
    /// The drop-in that Transship writes for the unit (proxies, limits).
    pub drop_in: MaybeFile,
    /// Files that the configuration imports, in containerd's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub imported: Vec<TextFile>,
    /// What an upgrade of it depends on; empty where containerd is not the kubelet's runtime.
    #[serde(default, skip_serializing_if = "UpgradeFacts::is_empty")]
    pub upgrade: UpgradeFacts,
}

impl Containerd {
    /// Its configuration: as it says itself, else as its file does; empty where neither is known.
    pub fn configuration(&self) -> &str {
        let file = self.config.file.as_ref().map(|file| file.text.as_str());
        self.effective.as_deref().or(file).unwrap_or_default()
    }
}

/// What an upgrade of a containerd that serves the kubelet depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UpgradeFacts {
    /// Living tasks of all namespaces, by namespace and id.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<Task>,
    /// Records of containers of other runtimes, in all namespaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub foreign_records: Vec<ForeignRecord>,
    /// Names in `/opt/nri/plugins`: containerd 2.x starts each of them unless NRI is disabled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nri_plugins: Vec<String>,
    /// Files `/etc/containerd/conf.d/*.toml` that the configuration does not import.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_imported: Vec<HostPath>,
    /// Names of images that were converted from Docker's schema 1 when they were pulled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub schema_1_images: Vec<String>,
    /// Ids of the deprecated features that were used since containerd started; empty before 1.6.27 and 1.7.12, which do not
    /// report any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub deprecations: Vec<String>,
}

impl UpgradeFacts {
    /// Whether there is nothing that an upgrade depends on.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// cri-dockerd. Its containers and images are those of Docker Engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CriDockerd {
    /// `cri-docker.service`; Kubespray calls it `cri-dockerd.service`.
    pub service: UnitFacts,
    /// The socket unit of the same name.
    pub socket: UnitFacts,
    /// Version without `v` (`0.4.3`), of the binary in the unit; empty when it could not be asked.
    pub version: String,
    /// Its CRI socket (`/run/cri-dockerd.sock`).
    pub endpoint: HostPath,
    /// What its CRI says; absent when it does not answer.
    pub cri: Option<CriFacts>,
    /// The drop-in that Transship writes for the unit.
    pub drop_in: MaybeFile,
}

/// CRI-O.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Crio {
    /// `crio.service`.
    pub service: UnitFacts,
    /// Version (`1.34.0`) of the program in the unit.
    pub version: String,
    /// Output of `crio config`: what its files say together, the defaults as comments; absent when it failed.
    pub effective: Option<String>,
    /// Its socket (`/run/crio/crio.sock`).
    pub endpoint: HostPath,
    /// What its CRI says; absent when it does not answer.
    pub cri: Option<CriFacts>,
    /// What its CRI holds; absent when it does not answer.
    pub store: Option<Store>,
    /// The part of its configuration that Transship writes.
    pub config: MaybeFile,
    /// The drop-in that Transship writes for the unit.
    pub drop_in: MaybeFile,
    /// Its policy of signatures (containers-policy.json(5)); absent where there is no such file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<TextFile>,
    /// Policies for single namespaces, whose names the files have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namespace_policies: Vec<TextFile>,
    /// `crio-wipe.service`, which removes images and containers at boot after CRI-O was not stopped cleanly.
    pub wipe: UnitFacts,
}

impl Crio {
    /// What it prints of its configuration; empty where it printed nothing.
    pub fn printed(&self) -> Printed {
        self.effective.as_deref().map(Printed::read).unwrap_or_default()
    }
}

/// What a CRI says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CriFacts {
    /// `RuntimeName` (`containerd`).
    pub name: String,
    /// `RuntimeVersion`.
    pub version: String,
    /// `RuntimeApiVersion` (`v1`).
    pub api_version: String,
    /// Condition `RuntimeReady`.
    pub runtime_ready: bool,
    /// Condition `NetworkReady`.
    pub network_ready: bool,
    /// `systemd` or `cgroupfs`, as `RuntimeConfig` says (KEP-4033); absent where the runtime does not know the call.
    #[serde(default)]
    pub cgroup_driver: Option<String>,
}

/// CNI configuration and plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Cni {
    /// `*.conf`, `*.conflist` and `*.json` of the configuration directory in lexical order, whole.
    pub configs: Vec<TextFile>,
    /// Directories with plugins.
    pub bin_dirs: Vec<PluginDir>,
}

/// A directory with CNI plugins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginDir {
    /// Its path.
    pub path: HostPath,
    /// The names of the files in it.
    pub plugins: Vec<String>,
}

/// What pods need of the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Prerequisites {
    /// The kernel lists the overlay file system.
    pub overlay: bool,
    /// `net.ipv4.ip_forward` is on.
    pub ip_forward: bool,
    /// `net.bridge.bridge-nf-call-iptables`; absent while `br_netfilter` is not loaded.
    pub bridge_nf_call_iptables: Option<bool>,
    /// There is swap.
    pub swap: bool,
    /// Settings that files of sysctl.d(5) switch on at boot, and modules that files of modules-load.d(5) load.
    pub at_boot: BTreeSet<String>,
}

/// A file system below a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// The directory that was looked at.
    pub path: HostPath,
    /// Type of the file system (`ext4`, `xfs`).
    pub kind: String,
    /// Free bytes, without those that are reserved for root.
    pub free: u64,
    /// All bytes.
    pub total: u64,
    /// Device number: two paths with the same one lie on one file system.
    pub device: u64,
}

impl Facts {
    /// The file that was found at `path`, wherever in the facts it is.
    pub fn text_at(&self, path: &HostPath) -> Option<&TextFile> {
        self.texts().find(|file| file.path == *path)
    }

    /// Every file whose text was read.
    pub fn texts(&self) -> impl Iterator<Item = &TextFile> {
        let kubelet = self.kubelet.iter().flat_map(|kubelet| {
            (kubelet.config.iter())
                .chain(&kubelet.config_drop_ins)
                .chain(&kubelet.instance_config)
                .chain(&kubelet.own_unit)
        });
        let docker = self.docker.iter();
        let docker = docker.flat_map(|docker| docker.daemon_json.iter().chain(&docker.own_unit));
        let containerd = self.containerd.iter().flat_map(|containerd| {
            (containerd.config.file.iter())
                .chain(&containerd.drop_in.file)
                .chain(&containerd.imported)
        });
        let cri_dockerd = self.cri_dockerd.iter().flat_map(|shim| &shim.drop_in.file);
        let crio = self
            .crio
            .iter()
            .flat_map(|crio| crio.config.file.iter().chain(&crio.drop_in.file));
        let units = (self.kubelet.iter().map(|kubelet| &kubelet.unit))
            .chain(
                self.docker
                    .iter()
                    .flat_map(|docker| [&docker.service, &docker.socket]),
            )
            .chain(self.containerd.iter().map(|containerd| &containerd.service))
            .chain(
                self.cri_dockerd
                    .iter()
                    .flat_map(|shim| [&shim.service, &shim.socket]),
            )
            .chain(self.crio.iter().map(|crio| &crio.service));
        let units = units.flat_map(|unit| unit.drop_ins.iter().chain(&unit.environment_files));
        let files = self.files.iter().filter_map(|maybe| maybe.file.as_ref());
        files
            .chain(kubelet)
            .chain(docker)
            .chain(containerd)
            .chain(cri_dockerd)
            .chain(crio)
            .chain(units)
            .chain(&self.cni.configs)
    }
}
