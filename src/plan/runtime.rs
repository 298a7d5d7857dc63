//! The container runtimes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

impl Runtime {
    /// The name used in requests, plans and messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dockershim => "dockershim",
            Self::CriDockerd => "cri-dockerd",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
        }
    }

    /// Whether its pods are Docker Engine's containers.
    pub const fn runs_on_docker(self) -> bool {
        matches!(self, Self::Dockershim | Self::CriDockerd)
    }

    /// What holds its images and containers, in words.
    pub const fn store(self) -> &'static str {
        match self {
            Self::Dockershim | Self::CriDockerd => "Docker",
            Self::Containerd => "containerd",
            Self::CriO => "CRI-O",
        }
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
