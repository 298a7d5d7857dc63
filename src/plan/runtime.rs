//! The container runtimes: what is known of each, in one place. Nothing else in the crate asks which runtime it is, but
//! for what `tests/pure/architecture/runtimes.rs` names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::paths;

/// A container runtime as the kubelet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Docker Engine through the dockershim inside a kubelet up to 1.23.
    Dockershim,
    /// Docker Engine through the cri-dockerd service.
    CriDockerd,
    /// containerd's own CRI plugin.
    Containerd,
    /// CRI-O.
    CriO,
}

/// What is known of one runtime wherever it is met. What it takes to leave it and to go to it is its planner's.
#[derive(Debug)]
pub struct Profile {
    /// The name used in requests, plans and messages.
    pub name: &'static str,
    /// What a Node and container IDs say before `://`.
    pub scheme: &'static str,
    /// What holds its images and containers.
    pub store: Store,
    /// Where its CRI is, under `/run`, unless it is configured otherwise.
    pub socket: &'static str,
    /// Its program.
    pub program: &'static str,
    /// Names of its service and of the socket unit that starts it, as its packages have them. Empty if it is a part of
    /// the kubelet.
    pub units: &'static [&'static str],
    /// Minor version of the first kubelet without it, if it is a part of the kubelet.
    pub in_kubelet_before: Option<u64>,
    /// Files that a plan may write for it if it is not installed: its configuration, and the drop-in of its unit.
    pub written: &'static [&'static str],
    /// Where it keeps a file for each sandbox. `None` if its store alone knows the sandboxes.
    pub checkpoints: Option<&'static str>,
    /// The directory that it gets for its images and containers beside Docker's data root, where it has no store yet and that file
    /// system is the larger one. `None` if it has no store of its own.
    pub beside_docker: Option<&'static str>,
    /// Where it looks for certificates of registries: a directory per registry.
    pub certificates: &'static str,
    /// Another such directory that it reads.
    pub more_certificates: Option<&'static str>,
    /// Whether it reads that directory only if its configuration names it.
    pub certificates_are_named: bool,
    /// Whether an image can be given a name with a digest there. Docker Engine gives one to nothing but what it pulls.
    pub takes_digests: bool,
    /// Whether a node can be moved away from it by this version: its planner has a part for the source.
    pub is_source: bool,
    /// Whether a node can be moved to it by this version: its planner has a part for the target.
    pub is_target: bool,
    /// How its project's archives are named and laid out. `None` if archives cannot be used.
    pub archive: Option<ArchiveForm>,
    /// The client in the directory of its program that loads images.
    pub client: Option<&'static str>,
    /// What Kubespray's inventory says for a node with it.
    pub kubespray: &'static [&'static str],
    /// What other installers call it.
    pub installers: InstallerNames,
}

/// What installers call a runtime that they write the files of.
#[derive(Clone, Copy, Debug)]
pub struct InstallerNames {
    /// `--container-runtime` of `minikube start`.
    pub minikube: &'static str,
    /// `spec.containerRuntime` of kOps, which does not have all.
    pub kops: Option<&'static str>,
}

/// What holds the images and containers of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Docker Engine.
    Docker,
    /// containerd.
    Containerd,
    /// The libraries of CRI-O (containers/storage).
    CriO,
}

/// Archives of a runtime: `<prefix>1.2.3<separator>amd64.tar.gz`.
#[derive(Debug)]
pub struct ArchiveForm {
    /// What the name begins with, the longest first.
    pub prefixes: &'static [&'static str],
    /// What stands between the version and the architecture.
    pub separator: &'static str,
    /// Whether the architecture comes before the version.
    pub architecture_first: bool,
    /// The directory of its programs.
    pub bin_dir: &'static str,
}

const DOCKERSHIM: Profile = Profile {
    name: "dockershim",
    scheme: "docker",
    store: Store::Docker,
    socket: "/run/dockershim.sock",
    program: "kubelet",
    units: &[],
    in_kubelet_before: Some(24),
    written: &[],
    checkpoints: Some("/var/lib/dockershim/sandbox"),
    beside_docker: None,
    certificates: paths::DOCKER_CERTIFICATES,
    more_certificates: None,
    certificates_are_named: false,
    takes_digests: false,
    is_source: true,
    is_target: false,
    archive: None,
    client: None,
    kubespray: &["container_manager: docker", "cri_dockerd_enabled: false"],
    installers: InstallerNames {
        minikube: "docker",
        kops: None,
    },
};

const CRI_DOCKERD: Profile = Profile {
    name: "cri-dockerd",
    socket: paths::CRI_DOCKERD_SOCKET,
    program: "cri-dockerd",
    units: &["cri-docker.service", "cri-docker.socket"],
    in_kubelet_before: None,
    written: &[paths::CRI_DOCKERD_DROP_IN],
    checkpoints: Some("/var/lib/cri-dockerd/sandbox"),
    is_target: true,
    archive: Some(ArchiveForm {
        prefixes: &["cri-dockerd-"],
        separator: ".",
        architecture_first: false,
        bin_dir: "cri-dockerd",
    }),
    kubespray: &[
        "container_manager: docker",
        "cri_dockerd_enabled: true (Kubespray 2.19; later ones have no other way)",
    ],
    ..DOCKERSHIM
};

const CONTAINERD: Profile = Profile {
    name: "containerd",
    scheme: "containerd",
    store: Store::Containerd,
    socket: paths::CONTAINERD_SOCKET,
    program: "containerd",
    units: &["containerd.service"],
    in_kubelet_before: None,
    written: &[paths::CONTAINERD_CONFIG, paths::CONTAINERD_DROP_IN],
    checkpoints: None,
    beside_docker: Some("containerd"),
    certificates: paths::CONTAINERD_CERTIFICATES,
    more_certificates: None,
    certificates_are_named: true,
    takes_digests: true,
    is_source: true,
    is_target: true,
    archive: Some(ArchiveForm {
        prefixes: &["containerd-static-", "containerd-"],
        separator: "-linux-",
        architecture_first: false,
        bin_dir: "bin",
    }),
    client: Some("ctr"),
    kubespray: &[
        "container_manager: containerd",
        "etcd_deployment_type: host (in the place of docker)",
    ],
    installers: InstallerNames {
        minikube: "containerd",
        kops: Some("containerd"),
    },
};

const CRI_O: Profile = Profile {
    name: "cri-o",
    scheme: "cri-o",
    store: Store::CriO,
    socket: paths::CRIO_SOCKET,
    program: "crio",
    units: &["crio.service"],
    in_kubelet_before: None,
    written: &[
        paths::CRIO_CONFIG,
        paths::CRIO_POLICY,
        paths::CONTAINERS_POLICY,
        paths::CRIO_DROP_IN,
    ],
    checkpoints: None,
    beside_docker: Some("containers/storage"),
    // containers/image looks there, too.
    certificates: paths::DOCKER_CERTIFICATES,
    more_certificates: Some(paths::CONTAINERS_CERTIFICATES),
    certificates_are_named: false,
    takes_digests: true,
    is_source: true,
    is_target: true,
    archive: Some(ArchiveForm {
        prefixes: &["cri-o."],
        separator: ".",
        architecture_first: true,
        bin_dir: "cri-o/bin",
    }),
    client: None,
    kubespray: &[
        "container_manager: crio",
        "etcd_deployment_type: host (in the place of docker)",
    ],
    installers: InstallerNames {
        minikube: "cri-o",
        kops: None,
    },
};

impl Runtime {
    /// Every runtime.
    pub const ALL: [Self; 4] = [Self::Dockershim, Self::CriDockerd, Self::Containerd, Self::CriO];

    /// What a node is moved to unless something else is asked for.
    pub const DEFAULT_TARGET: Self = Self::Containerd;

    /// Those that a node can be moved away from.
    pub fn sources() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|runtime| runtime.profile().is_source)
    }

    /// Those that a node can be moved to.
    pub fn targets() -> impl Iterator<Item = Self> {
        Self::ALL
            .into_iter()
            .filter(|runtime| runtime.profile().is_target)
    }

    /// What is known of it.
    pub const fn profile(self) -> &'static Profile {
        match self {
            Self::Dockershim => &DOCKERSHIM,
            Self::CriDockerd => &CRI_DOCKERD,
            Self::Containerd => &CONTAINERD,
            Self::CriO => &CRI_O,
        }
    }

    /// The name used in requests, plans and messages.
    pub const fn name(self) -> &'static str {
        self.profile().name
    }

    /// What precedes the ID of its containers, and its version in `containerRuntimeVersion` (`docker://`).
    pub fn scheme(self) -> String {
        format!("{}://", self.profile().scheme)
    }

    /// Whether its pods are Docker Engine's containers.
    pub const fn runs_on_docker(self) -> bool {
        matches!(self.profile().store, Store::Docker)
    }

    /// What holds its images and containers, in words.
    pub const fn store(self) -> &'static str {
        match self.profile().store {
            Store::Docker => "Docker",
            Store::Containerd => "containerd",
            Store::CriO => "CRI-O",
        }
    }

    /// Whether it is a part of kubelets.
    pub const fn is_in_kubelet(self) -> bool {
        self.profile().in_kubelet_before.is_some()
    }

    /// Whether the version that its CRI and the Node report is its own, and not that of the engine under it.
    pub const fn reports_own_version(self) -> bool {
        !self.runs_on_docker()
    }

    /// The runtime that kubelets of this minor version have in themselves.
    pub fn in_kubelet(minor: u64) -> Option<Self> {
        let is_there = |before: u64| minor < before;
        Self::ALL
            .into_iter()
            .find(|runtime| runtime.profile().in_kubelet_before.is_some_and(is_there))
    }

    /// The runtime that serves a socket under `/run` unless somebody configured it otherwise.
    pub fn at(socket: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|runtime| runtime.profile().socket == socket)
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A runtime and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeVersion {
    /// The runtime.
    pub runtime: Runtime,
    /// Its version, as the runtime itself gives it.
    pub version: String,
}

impl std::fmt::Display for RuntimeVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.runtime, self.version)
    }
}

/// Whether a program starts containers, so that a kubelet that it starts is one of them.
pub fn starts_containers(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    ["docker", "podman", "nerdctl", "ctr", "rkt", "crictl"].contains(&name)
}
