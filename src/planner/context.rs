//! What planners and checks look at, and the two parts of a plan.

use serde_json::{Map, Value};

use crate::{
    edit::{containerd_toml::Handler, crio_conf::Printed, registry_auth::Credential, unit_file},
    plan::{
        configuration::ConfigurationWant,
        effective::Effective,
        facts::{Containerd, CriDockerd, Docker, Engine, Facts, Kubelet, Store},
        finding::Finding,
        host_path::HostPath,
        kubelet_settings::{LogLimits, PodNetwork, Settings},
        runtime::Runtime,
        step::{Endpoint, FileStep, Layers, ShimsStep, Step},
    },
    planner::{
        delivery::Delivery,
        images::CarriedImages,
        request::Request,
        setting::{Fate, Left, Registries, Translation},
    },
};

/// What is known of one runtime.
#[derive(Clone, Copy, Debug)]
pub struct Planner {
    /// The runtime.
    pub runtime: Runtime,
    /// How a node leaves it; absent where it cannot be left.
    pub source: Option<SourcePart>,
    /// How a node goes to it; absent where it cannot be gone to.
    pub target: Option<TargetPart>,
}

/// How a node leaves a runtime.
#[derive(Clone, Copy, Debug)]
pub struct SourcePart {
    /// The runtime as it was found, or why it cannot be left.
    pub look: for<'a> fn(&'a Facts, &Settings) -> Result<Source<'a>, Finding>,
    /// What keeps the way back open, before anything else changes.
    pub prepare: fn(&View<'_>) -> Vec<Step>,
    /// What lets it start beside the target's pods, should the plan be undone: it is done once the kubelet has stopped, and taken
    /// back once the target's pods have ended.
    pub switch: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What ends after the critical section.
    pub settle: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What it has set on which pods may depend. Docker's settings are read by planners of their own.
    pub settings: fn(&View<'_>) -> Vec<Left>,
    /// Where the layers of its images lie, if another store can share them.
    pub layers: fn(&View<'_>) -> Result<LayersOf, String>,
    /// Checks of what was found of it.
    pub check: fn(&View<'_>) -> Vec<Finding>,
}

/// Where the layers of a source's images lie, in the form of overlayfs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayersOf {
    /// The directory that they are below.
    pub directory: String,
    /// Docker's data root, where Docker has them: the other stores say themselves where a layer is.
    pub data_root: Option<HostPath>,
}

/// How a node goes to a runtime.
#[derive(Clone, Copy, Debug)]
pub struct TargetPart {
    /// The runtime as it will be, or why it cannot be gone to.
    pub look: fn(&Facts, &Request) -> Result<Target, Finding>,
    /// What brings, configures and starts it beside the source, while the node serves.
    pub prepare: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What cannot be done beside the source: it is done once the kubelet has stopped, before the pods end.
    pub switch: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What cannot be done while the source has pods: it is done once they have ended, before the kubelet starts, which waits until
    /// the target is ready again.
    pub without_pods: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What its program must report as its configuration once it has started; `None` where nothing is asked.
    pub configuration: fn(&View<'_>) -> Option<ConfigurationWant>,
    /// Its store, into which images are carried.
    pub store: fn(&View<'_>) -> TargetStore,
    /// How it takes settings of Docker's; `None` if it stands on Docker itself.
    pub takes: Option<Takes>,
    /// Files beside its own configuration that its packages bring, and plans change.
    pub packaged: &'static [&'static str],
    /// Checks of what was found of it.
    pub check: fn(&View<'_>) -> Vec<Finding>,
    /// How it takes the place of an older version of itself, whose pods keep running; `None` if it cannot.
    pub upgrade: Option<Upgrade>,
}

/// How a target takes settings of Docker's that pods depend on.
#[derive(Clone, Copy, Debug)]
pub struct Takes {
    /// The setting that gives containers labels of SELinux.
    pub selinux: &'static str,
    /// How many layers are downloaded at the same time.
    pub downloads: Downloads,
    /// The setting that names the runtime of pods that name none.
    pub default_runtime: &'static str,
    /// Whether it runs, or has a place for its store that somebody chose.
    pub store_is_settled: fn(&View<'_>) -> bool,
    /// The setting with the limits (setrlimit(2)) of containers, as Docker writes them; `None` where pods inherit those of the
    /// target's unit.
    pub ulimits: Option<&'static str>,
    /// A runtime beside runc as the target can have it, or what keeps it from that and what to do.
    pub handler: fn(&View<'_>, &Handler) -> Result<Handler, String>,
    /// It calls gVisor's program itself, and not a shim.
    pub calls_runsc: bool,
    /// Whether it has a runtime of this name.
    pub has_runtime: fn(&View<'_>, &str) -> bool,
    /// What becomes of settings of registries.
    pub registries: fn(&View<'_>) -> Registries,
    /// What becomes of credentials of registries.
    pub credentials: fn(&View<'_>, &[Credential]) -> Fate,
}

/// How many layers a target downloads at the same time.
#[derive(Clone, Copy, Debug)]
pub enum Downloads {
    /// As many of each image as its configuration says.
    Configured,
    /// As many of each image, whatever anybody says.
    Fixed(u32),
}

/// The store of a target, as far as images are carried into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetStore {
    /// The directory that its images are in.
    pub directory: String,
    /// How many times its size, as the source tells it, an image takes there if its layers are copied.
    pub copies: u64,
    /// How the layers come there.
    pub layers: Layers,
    /// Where it keeps what it pulls until it is unpacked, if it pulls them.
    pub pull_directory: Option<HostPath>,
}

/// What it takes on one node, or why it cannot be done.
pub type Upgrade = fn(&View<'_>) -> Result<InPlace, Finding>;

/// What it takes to put a newer version of a runtime into the place of an older one.
#[derive(Clone, Debug, Default)]
pub struct InPlace {
    /// What is brought while the node serves, beside the program itself. Nothing reads it yet.
    pub beside: Vec<Step>,
    /// The files that change while the pods run on.
    pub files: Vec<FileStep>,
    /// What systemd must have of the unit once it has started with them.
    pub effective: Option<Effective>,
    /// The file that changes once more after the commit: until then, new pods start as the older version can adopt them.
    pub settled: Option<FileStep>,
    /// What the way back after the commit needs, before the older version starts.
    pub shims: Option<ShimsStep>,
}

/// The runtime that is left.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    /// Which one.
    pub runtime: Runtime,
    /// Its version.
    pub version: String,
    /// Where its pods are ended, and its health is asked.
    pub cri: Endpoint,
    /// Where its images are.
    pub images: Endpoint,
    /// What it holds.
    pub store: &'a Store,
    /// How its pods are connected.
    pub network: PodNetwork,
    /// The image of its sandboxes.
    pub sandbox_image: String,
    /// How long a pull may make no progress, if it is set (`30m`).
    pub pull_deadline: Option<String>,
    /// Its cgroup driver; absent where it cannot be known.
    pub cgroup_driver: Option<&'a str>,
    /// The cgroup driver that it tells the kubelet (CRI `RuntimeConfig`); absent where it does not.
    pub told_cgroup_driver: Option<&'a str>,
    /// The unit in whose cgroup it runs.
    pub unit: &'a str,
}

/// The runtime that is gone to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Which one.
    pub runtime: Runtime,
    /// The version that will run.
    pub version: String,
    /// Where its CRI will be.
    pub cri: Endpoint,
    /// Where its images will be.
    pub images: Endpoint,
    /// The unit in whose cgroup it will run.
    pub unit: String,
    /// What the plan brings along; absent where the program is the one of the unit.
    pub delivery: Option<Delivery>,
    /// The version that serves until the switch, where the program that the plan brings takes the place of one that
    /// Docker's containers run on. Containers survive that forwards, but not on the way back: an older containerd kills
    /// what shims of a newer one run, without telling Docker (seen with 2.4 and 1.6). So it happens between the kubelet's
    /// stop and its start, when the pods of the target have ended or are not there yet, and Docker is stopped for it on
    /// the way back.
    pub until_switch: Option<String>,
    /// How long a pull may make no progress, as it is configured now (`5m0s`); absent where it does not say.
    pub pull_deadline: Option<String>,
}

impl Target {
    /// The step that brings it.
    pub fn delivered(&self) -> Option<Step> {
        self.delivery.as_ref().map(|delivery| delivery.step.clone())
    }

    /// Whether the plan brings its program next to what is installed.
    pub fn is_unpacked(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| !delivery.has_unit)
    }

    /// Whether the plan installs its package.
    pub fn is_packaged(&self) -> bool {
        self.delivery.as_ref().is_some_and(|delivery| delivery.has_unit)
    }

    /// The command of a unit that was `words`, and the assignment of `PATH` for it, where the plan brings the program
    /// without a unit.
    pub fn command(&self, words: &[String]) -> Option<(String, String)> {
        let delivery = self.delivery.as_ref().filter(|delivery| !delivery.has_unit)?;
        let arguments = words.iter().skip(1).map(String::as_str);
        let command: Vec<String> = std::iter::once(delivery.program.as_str())
            .chain(arguments)
            .map(unit_file::word)
            .collect();
        Some((
            command.join(" "),
            unit_file::environment(&delivery.path_variable()),
        ))
    }
}

/// Everything that planners and checks of a pair look at, once the pair is known to be one that can be planned.
#[derive(Clone, Debug)]
pub struct View<'a> {
    /// What was found.
    pub facts: &'a Facts,
    /// What is asked for.
    pub request: &'a Request,
    /// The kubelet.
    pub kubelet: &'a Kubelet,
    /// Its settings in effect.
    pub settings: &'a Settings,
    /// The runtime that is left.
    pub source: Source<'a>,
    /// The runtime that is gone to.
    pub target: Target,
    /// The two parts of the plan.
    pub parts: (SourcePart, TargetPart),
    /// Docker Engine, where it is installed.
    pub docker: Option<&'a Docker>,
    /// Docker Engine, where it answers.
    pub engine: Option<&'a Engine>,
    /// `daemon.json`; empty where there is none.
    pub daemon: &'a Map<String, Value>,
    /// containerd, where it is installed.
    pub containerd: Option<&'a Containerd>,
    /// cri-dockerd, where it is installed.
    pub cri_dockerd: Option<&'a CriDockerd>,
    /// The images that are to be carried.
    pub carried: &'a CarriedImages,
    /// What CRI-O prints of its configuration; empty where it is not installed.
    pub crio_conf: Printed,
    /// What the source has set, if it is not Docker; empty where the runtime stays.
    pub left: Vec<Left>,
    /// What becomes of the source's settings.
    pub translation: Translation,
}

impl View<'_> {
    /// Whether source and target have one and the same store, as all that stand on Docker Engine do.
    pub fn shares_store(&self) -> bool {
        self.source.images.socket == self.target.images.socket
    }

    /// Whether a runtime is replaced by another version of the same runtime, whose pods keep running.
    pub fn upgrades(&self) -> bool {
        self.source.runtime == self.target.runtime
    }

    /// Whether the pods are Docker's containers now, and will not be any more.
    pub const fn leaves_docker(&self) -> bool {
        self.source.runtime.runs_on_docker() && !self.target.runtime.runs_on_docker()
    }

    /// Whether the pods will be Docker's containers, and are not yet.
    pub const fn enters_docker(&self) -> bool {
        self.target.runtime.runs_on_docker() && !self.source.runtime.runs_on_docker()
    }

    /// Docker Engine as the source, whose pods are its containers.
    pub fn docker_left(&self) -> Option<(&Docker, &Engine)> {
        self.docker.zip(self.engine).filter(|_| self.leaves_docker())
    }

    /// How the target takes the source's settings, where it is another runtime with a store of its own.
    pub fn takes(&self) -> Option<Takes> {
        let leaves = self.docker_left().is_some() || !self.source.runtime.runs_on_docker();
        self.parts.1.takes.filter(|_| leaves && !self.upgrades())
    }

    /// How much of a container's log the kubelet keeps after the switch.
    pub fn logs_kept(&self) -> &LogLimits {
        self.translation.logs().unwrap_or(&self.settings.logs)
    }

    /// Whether Docker ends after the switch.
    pub fn docker_ends(&self) -> bool {
        self.docker_left().is_some() && !self.request.source.keep
    }

    /// The cgroup driver that the kubelet uses: from 1.31 on what the runtime says, else what is configured.
    pub fn cgroup_driver(&self) -> &str {
        let told = self.source.told_cgroup_driver;
        told.filter(|_| self.settings.version.minor >= DRIVER_FROM_CRI_SINCE)
            .unwrap_or(&self.settings.cgroup_driver)
    }

    /// Whether the program that the plan brings takes the place of one that Docker's containers run on.
    pub const fn replaces_docker_containerd(&self) -> bool {
        self.target.until_switch.is_some()
    }
}

/// Minor version of the first kubelet that takes the cgroup driver from the runtime, where it says one (KEP-4033).
pub const DRIVER_FROM_CRI_SINCE: u64 = 31;
