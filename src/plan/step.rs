//! The primitives of the executor. Which of them a runtime or a distribution needs is decided by the planners that
//! produce them. A step is the smallest change that can be undone.
//!
//! A plan read in reverse must be a valid procedure too, so steps come in brackets: see [`Restart`] and [`Side`].

use serde::{Deserialize, Serialize};

use crate::plan::runtime::Runtime;
use crate::plan::{
    configuration::ConfigurationWant, digest::Digest, effective::Effective, host_path::HostPath,
};

/// One change to the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "camelCase")]
pub enum Step {
    /// Create, replace or remove a whole file. Undo: the old bytes and attributes.
    File(FileStep),
    /// Make a symbolic link. Undo: the old link, or nothing.
    Link(LinkStep),
    /// Change a systemd unit. Undo: its old state.
    Unit(UnitStep),
    /// Bring a runtime's files onto the host, beside what is there. Undo: remove what was added, nothing else,
    /// without the network.
    Install(InstallStep),
    /// Bring images into the target's store. Undo: remove those that it brought.
    Images(ImagesStep),
    /// Prove the target's CRI with a sandbox. Undo: remove the sandbox that was run for it.
    Rehearse(Rehearsal),
    /// Prove a daemon that does not serve yet. Undo: end what is left of it.
    RehearseDaemon(DaemonRehearsal),
    /// End the containers of one runtime's pods. Undo: end the pods of the other one.
    StopPods(StopPods),
    /// Remove what [`Step::StopPods`] left of the source's pods. Undo: nothing.
    ClearPods(ClearPods),
    /// Watch over the containers that run on while their runtime is restarted. It acts in both directions.
    Tasks(TasksStep),
    /// Nothing forwards. Undo: prepare containers for the older runtime, and end those that it cannot adopt.
    Shims(ShimsStep),
    /// Stop or start the kubelet. Undo: the other.
    Kubelet(KubeletStep),
    /// Wait until a side is healthy. It acts in one direction only.
    Await(AwaitStep),
}

/// Create, replace or remove a whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileStep {
    /// The file.
    pub path: HostPath,
    /// Digest of the bytes that it was planned from; absent when there was no file. If the file is another one
    /// when its turn comes, the executor stops and says so.
    pub planned_from: Option<Digest>,
    /// What it shall be; absent to remove it.
    pub want: Option<Contents>,
}

/// Directories below which systemd reads unit files and drop-ins (systemd.unit(5)). What it has read it keeps until it
/// is told to reload.
const UNIT_DIRECTORIES: [&str; 7] = [
    "/etc/systemd/system/",
    "/etc/systemd/system.control/",
    "/run/systemd/system/",
    "/run/systemd/system.control/",
    "/usr/local/lib/systemd/system/",
    "/usr/lib/systemd/system/",
    "/lib/systemd/system/",
];

impl FileStep {
    /// Whether systemd has to reload before the change has an effect. It is no use to ask systemd: `NeedDaemonReload` stays
    /// false when a drop-in is the first one in its directory, and when the new file has an older time than the old one.
    pub fn is_unit_file(&self) -> bool {
        UNIT_DIRECTORIES
            .iter()
            .any(|directory| self.path.as_str().starts_with(directory))
    }
}

/// Make a symbolic link to a file of the host: a program that reads a file in one place is given it where it lies, with no copy
/// of a secret in a plan, and follows when it is renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStep {
    /// The link.
    pub path: HostPath,
    /// Where it led when the plan was made; absent when there was nothing. If something else is in its place when its turn
    /// comes, the executor stops and says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub planned_from: Option<String>,
    /// The file that it leads to.
    pub to: HostPath,
}

/// What a file shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contents {
    /// Its text.
    pub text: String,
    /// Its permission bits, for a file that is created; an existing file keeps its mode, owner and xattrs, but is taken
    /// from group and others if these bits give it to its owner alone.
    pub mode: u32,
}

/// Change a systemd unit. `boot` is applied before `active`, so that a unit that is masked and stopped cannot be
/// activated in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitStep {
    /// Name with its suffix, such as `containerd.service`.
    pub unit: String,
    /// Running or not; absent to leave it.
    pub active: Option<bool>,
    /// What happens at boot; absent to leave it.
    pub boot: Option<Boot>,
    /// In which direction a running unit is restarted, because its files changed.
    pub restart: Restart,
    /// Where the unit listens, if its socket may be lost while it is away: a pod that mounts the socket then gets an
    /// empty directory in its place, which is removed before the unit is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<HostPath>,
    /// What systemd must have of the unit once the step has started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effective: Option<Effective>,
}

/// What systemd does with a unit at boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Boot {
    /// Started at boot (`systemctl enable`).
    Enabled,
    /// Not started at boot, but may be started (`systemctl disable`; `static` units too).
    Disabled,
    /// Cannot be started at all (`systemctl disable` and `mask`).
    Masked,
}

/// In which direction a unit is restarted. The files of a unit stand between two steps for it: the closing one
/// restarts it forwards, after its files are the new ones; the opening one restarts it backwards, after its files
/// are the old ones again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Restart {
    /// In neither direction.
    Never,
    /// When the step is applied.
    Forwards,
    /// When the step is applied, between the kubelet's stop and its start: a step after it waits for the unit's health, and
    /// no time is lost here with a look whether it stays.
    ForwardsAtOnce,
    /// When the step is undone and the unit was running before.
    Backwards,
    /// When the step is undone the unit is only stopped, if it was running before: a step that opens the bracket, and
    /// starts it backwards, starts it again. What it runs must not outlive what is undone in between.
    StoppedBackwards,
    /// When the step is undone the unit is started, if it was running before and does not now. One that was not
    /// stopped meanwhile goes on as it is, with all that it runs.
    StartedBackwards,
}

impl Restart {
    /// Whether a running unit is restarted when the step is applied.
    pub const fn is_forwards(self) -> bool {
        matches!(self, Self::Forwards | Self::ForwardsAtOnce)
    }
}

/// Bring a runtime's files onto the host. Nothing that runs changes: the steps after it point a unit to them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "camelCase")]
pub enum InstallStep {
    /// Unpack an archive.
    Archive(Archive),
    /// Install a package of the distribution.
    Package(Package),
    /// Copy a program that is on the host, so that it stays when its package goes.
    Program(ProgramCopy),
}

/// Copy a program that is on the host. Undo: remove the copy, unless a running container depends on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramCopy {
    /// The program.
    pub program: HostPath,
    /// The copy.
    pub copy: HostPath,
}

/// Unpack an archive whose digest is known into a directory of its own, wholly or not at all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// Where it is fetched: `https://…`, or `file://` with an absolute path.
    pub url: String,
    /// The proxy for `https://`, as Docker's unit or the runtime's names it; it may hold a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Digest of the archive's bytes.
    pub sha256: Digest,
    /// The directory that is made.
    pub dir: HostPath,
    /// The daemon in `dir`: it must be there, run on this machine and say `version`.
    pub program: HostPath,
    /// The version that `program --version` must say, without `v` (`2.4.2`).
    pub version: String,
}

/// Install a package in one version with all that it needs, from the repositories that the host is set up with, unless
/// the host would lose, upgrade or downgrade anything by it. Its services are not started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// What installs it.
    pub manager: PackageManager,
    /// Its name.
    pub name: String,
    /// Its upstream version, without what the distribution adds (`1.7.28`).
    pub version: String,
    /// The units that it brings and that are kept from starting while it is installed.
    pub units: Vec<String>,
}

/// What installs packages on a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PackageManager {
    /// apt and dpkg, of Debian and Ubuntu.
    Apt,
    /// dnf (4 or 5) and rpm, of Fedora, RHEL 8 and later and what is built from them, and Amazon Linux 2023.
    Dnf,
}

/// Where a runtime is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Which runtime.
    pub runtime: Runtime,
    /// Its socket, without a scheme: that of its CRI, Docker Engine's for the dockershim. Where images are meant,
    /// that of its store, which is Docker Engine's for cri-dockerd too.
    pub socket: HostPath,
}

impl Endpoint {
    /// As kubelet, kubeadm and crictl write it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket)
    }
}

/// Bring images into the target's store; a name that stands for the same image there already is left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImagesStep {
    /// The store that has them.
    pub from: Endpoint,
    /// The store that shall have them.
    pub to: Endpoint,
    /// Full references (`docker.io/library/nginx:1.25`, `registry.k8s.io/pause:3.6`), tags and digests.
    pub names: Vec<String>,
    /// How the layers come there.
    pub layers: Layers,
    /// containerd's `ctr`, for what is streamed; where it is not there, the one in `PATH` serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctr: Option<HostPath>,
    /// Where CRI-O keeps what it pulls until it is unpacked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_directory: Option<HostPath>,
}

/// How the layers of images come into the target's store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Layers {
    /// The two stores share the files: nothing is copied. An image of which that is not possible is copied.
    Linked {
        /// Docker's data root, where Docker has the images; the other stores say themselves where their layers are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        data_root: Option<HostPath>,
    },
    /// As copies: in the archive that one store makes and the other reads, or, into CRI-O's, pulled from a registry that
    /// Transship is for the time at a loopback address.
    Streamed {
        /// Why they are not linked, in words that follow "because".
        why: String,
    },
}

/// A sandbox that proves a CRI. Before the kubelet uses the CRI, the sandbox is run outside the kubelet's cgroups and
/// removed. After it, a sandbox of the kubelet is as good: none can be left from before, because the pods of the source
/// are not the target's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// The CRI.
    pub cri: Endpoint,
    /// Parent cgroup in the form of the cgroup driver: `transship.slice` for systemd, `/transship` for cgroupfs.
    pub cgroup_parent: String,
    /// In the pod network; otherwise in the host's.
    pub pod_network: bool,
    /// Which sandbox is the proof.
    pub proof: Proof,
}

/// Start a daemon beside the one that serves, with places of its own, run a sandbox under it and end it, so that a program or a
/// configuration that does not work is found before anything of the node changes. Nothing of it stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DaemonRehearsal {
    /// The daemon.
    pub program: HostPath,
    /// The assignment of its `PATH`, with the directory of its own programs first.
    pub search_path: String,
    /// Its client, which brings the image of the sandbox.
    pub ctr: HostPath,
    /// Its configuration, with places below [`REHEARSAL_ROOT`](super::paths::REHEARSAL_ROOT).
    pub configuration: String,
    /// Its version.
    pub version: String,
    /// The image of the sandbox, which is made of Transship's own program.
    pub sandbox_image: String,
    /// The sandbox, at the daemon's socket.
    pub sandbox: Rehearsal,
}

/// Which sandbox proves a CRI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "sandbox", rename_all = "camelCase")]
pub enum Proof {
    /// A sandbox that is run for the proof and removed.
    Own,
    /// A sandbox that is run for the proof and removed, while the kubelet, which serves there, may end it: then it is run again.
    OwnBesideKubelet,
    /// A Ready sandbox of the kubelet in the pod network; if there is none, a sandbox that is run for the proof and
    /// removed.
    KubeletOrOwn,
    /// A Ready sandbox of the kubelet in the pod network.
    #[serde(rename_all = "camelCase")]
    Kubelet {
        /// Deadline in seconds.
        within_secs: u32,
    },
}

/// End the containers of one runtime's pods: their stop signal, their grace period up to a limit, SIGKILL; and take
/// those pods off the network that hold ports of the node, whose rules would shadow those of the next pod there. The
/// rest is [`ClearPods`]'s. Backwards, the pods of the target end with their sandboxes and all of their network.
/// Never other containers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopPods {
    /// Whose pods end forwards.
    pub source: Endpoint,
    /// Whose pods end backwards.
    pub target: Endpoint,
    /// Longest grace period in seconds, forwards and backwards; a pod's own may be shorter.
    pub grace_limit_secs: u32,
    /// Directories with CNI plugins, for the CNI DEL of sandboxes whose server is gone.
    pub cni_bin_dirs: Vec<HostPath>,
    /// libcni's cache of the source (`/var/lib/cni/cache` for dockershim).
    pub cni_cache_dir: HostPath,
    /// Docker Engine's socket where the source stands on it: it knows the stop signals of its containers, which
    /// cri-dockerd does not tell.
    pub engine: Option<HostPath>,
    /// Units of the daemons that the source stands on, the lowest first: on the way back those that do not answer are
    /// killed and started again.
    #[serde(default)]
    pub source_units: Vec<String>,
    /// The same of the target.
    #[serde(default)]
    pub target_units: Vec<String>,
}

/// In which direction a plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Its steps are applied.
    Forwards,
    /// Its steps are undone.
    Backwards,
}

impl StopPods {
    /// The runtime whose pods end in this direction.
    pub const fn ending(&self, direction: Direction) -> &Endpoint {
        match direction {
            Direction::Forwards => &self.source,
            Direction::Backwards => &self.target,
        }
    }

    /// Whether both runtimes serve pods from one Docker Engine. Each takes every sandbox in it for its own, so those
    /// of the source end with their containers, before the kubelet starts under the target, and there is nothing left
    /// for [`ClearPods`].
    pub const fn share_an_engine(&self) -> bool {
        self.source.runtime.runs_on_docker() && self.target.runtime.runs_on_docker()
    }
}

/// Remove the sandboxes and the ended containers of the source's pods, with their network state (CNI DEL).
///
/// It comes after the kubelet's start under the target, because nothing of the new pods depends on it: a sandbox
/// without containers only sleeps; the address of a pod stays leased until its CNI DEL, so nobody is given it twice;
/// the masquerade chains of a pod are named after its sandbox; and what holds ports of the node is gone already. A kubelet
/// that goes back to the source before or in the middle of it finds ready sandboxes without containers, which it
/// uses again, or none, and makes new ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClearPods {
    /// Whose pods are removed.
    pub source: Endpoint,
    /// Directories with CNI plugins, for the CNI DEL of sandboxes whose server is gone.
    pub cni_bin_dirs: Vec<HostPath>,
    /// libcni's cache of the source (`/var/lib/cni/cache` for dockershim).
    pub cni_cache_dir: HostPath,
}

/// Watch over the containers that run on while containerd is restarted with other files. The restart stands between two
/// of these steps. Whichever of them comes before the restart, in the direction that the plan is carried out in, waits until no
/// pod is being created, puts processes back into cgroups that containerd looks for them in, and notes every container
/// that runs. The other one compares, and removes what the restart left behind: sandboxes that hold an address of the pod
/// network and are not ready, and shims without a container.
///
/// A container that is gone is reported, and is not a reason to go back: its pod is restarted already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TasksStep {
    /// The runtime, before and after its restart.
    pub cri: Endpoint,
    /// On which side of the restart it stands.
    pub edge: Edge,
    /// Start the confirm deadline once it is applied.
    pub arms: bool,
    /// How long it waits until no pod is being created, in seconds. Forwards the step then fails; backwards it goes on.
    pub quiet_within_secs: u32,
}

/// On which side of a restart a [`TasksStep`] stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Edge {
    /// Before it, forwards.
    Opening,
    /// After it, forwards.
    Closing,
}

impl TasksStep {
    /// Whether the restart comes after the step when the plan is carried out in this direction.
    pub const fn is_before(&self, direction: Direction) -> bool {
        matches!(
            (self.edge, direction),
            (Edge::Opening, Direction::Forwards) | (Edge::Closing, Direction::Backwards)
        )
    }
}

/// Undone, it prepares the containers that containerd 1.x cannot adopt from containerd 2.x, before 1.x is started: the address
/// of the shim is written where 1.x looks for it, if the shim is one of 1.x; the other sandboxes end with the grace
/// periods of their pods, and the kubelet makes them again with the old shim, which 2.x uses again by then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShimsStep {
    /// containerd 2.x.
    pub cri: Endpoint,
    /// Longest grace period in seconds; a pod's own may be shorter.
    pub grace_limit_secs: u32,
}

/// Stop or start the kubelet. Stopping puts the hold in place first, starting lifts it first: while the file
/// [`HOLD_FILE`] exists a drop-in keeps everybody else from starting a half-switched kubelet.
///
/// Before it is stopped it is given a while to finish the pods that it is creating: one that is interrupted while it joins
/// the pod network leaves an address there that belongs to nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletStep {
    /// Start it (and arm the confirm deadline), or stop it.
    pub run: bool,
    /// The runtime of the kubelet that the step stops; of the one that its undo stops, where it starts one.
    pub runtime: Endpoint,
}

/// The kubelet's unit.
pub const KUBELET_UNIT: &str = "kubelet.service";
/// The file that keeps the kubelet from starting.
pub const HOLD_FILE: &str = "/var/lib/transship/hold";

/// Wait until a runtime answers over CRI (or its own API) and the kubelet is healthy on it. A kubelet must stay so; a
/// runtime alone was seen to stay when its unit was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AwaitStep {
    /// In which direction it acts.
    pub side: Side,
    /// The runtime that must answer and be ready.
    pub runtime: Endpoint,
    /// The version that the runtime must report, as far as both name an upstream version; `None` for a runtime whose CRI
    /// reports that of another program (cri-dockerd: Docker's).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What the runtime's effective configuration must have once it answers; `None` for a runtime that does not print one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationWant>,
    /// The kubelet must be healthy and use this endpoint too; absent to look at the runtime alone.
    pub kubelet: Option<KubeletWant>,
    /// Deadline in seconds.
    pub within_secs: u32,
}

/// Which runtime the kubelet shall use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletWant {
    /// The endpoint that its command line, else its configuration name, as written there; absent where nothing
    /// names one (dockershim, and containerd by default from 1.27 on).
    pub endpoint: Option<String>,
}

/// In which direction an [`AwaitStep`] acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// On the way back; forwards it does nothing. The critical section opens with it, so it is checked last.
    Source,
    /// Forwards; on the way back it does nothing.
    Target,
}
