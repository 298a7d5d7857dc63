//! The runtimes that a node can leave or go to. A plan is one source part and one target part, which the
//! [`assembler`](super::assembler) puts together. Adding a runtime is one file here with its [`Planner`], and one
//! line in [`PLANNERS`].

pub mod containerd;
pub mod cri_dockerd;
pub mod docker;
pub mod dockershim;

use super::{
    facts::{Facts, Store},
    finding::Finding,
    findings::View,
    host_path::HostPath,
    kubelet_settings::{PodNetwork, Settings},
    planner::Request,
    step::{Endpoint, Step},
};
use crate::api::request::Runtime;

/// Every runtime that can be planned.
pub const PLANNERS: [Planner; 3] = [dockershim::PLANNER, cri_dockerd::PLANNER, containerd::PLANNER];

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

impl Planner {
    /// The planner of a runtime.
    pub fn of(runtime: Runtime) -> Option<Self> {
        PLANNERS.into_iter().find(|planner| planner.runtime == runtime)
    }
}

/// How a node leaves a runtime.
#[derive(Clone, Copy, Debug)]
pub struct SourcePart {
    /// The runtime as it was found, or why it cannot be left.
    pub look: for<'a> fn(&'a Facts, &Settings) -> Result<Source<'a>, Finding>,
    /// What ends after the critical section.
    pub settle: fn(&View<'_>) -> Vec<Step>,
}

/// How a node goes to a runtime.
#[derive(Clone, Copy, Debug)]
pub struct TargetPart {
    /// The runtime as it will be, or why it cannot be gone to.
    pub look: fn(&Facts, &Request) -> Result<Target, Finding>,
    /// What configures and starts it beside the source, while the node serves.
    pub prepare: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// Checks of what was found of it.
    pub check: fn(&View<'_>) -> Vec<Finding>,
    /// Whether it tells the kubelet its cgroup driver (CRI `RuntimeConfig`).
    pub tells_cgroup_driver: fn(&Target) -> bool,
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
    /// The program that will run, where the plan brings it; otherwise it is the one of the unit.
    pub program: Option<HostPath>,
    /// What brings it.
    pub install: Vec<Step>,
}

/// Whether the pods of a runtime are Docker Engine's containers.
pub const fn over_docker(runtime: Runtime) -> bool {
    matches!(runtime, Runtime::Dockershim | Runtime::CriDockerd)
}

/// What holds the images and containers of a runtime, in words.
pub const fn store_of(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Dockershim | Runtime::CriDockerd => "Docker",
        Runtime::Containerd => "containerd",
        Runtime::CriO => "CRI-O",
    }
}
