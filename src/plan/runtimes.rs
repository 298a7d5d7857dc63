//! The runtimes that a node can leave or go to. A plan is one source part and one target part, which the
//! [`assembler`] puts together. Adding a runtime is one file here with its [`Planner`], and one
//! line in [`PLANNERS`].

pub mod containerd;
pub mod cri_dockerd;
pub mod docker;
pub mod dockershim;

use super::{
    assembler,
    facts::{Facts, MaybeFile, Store, UnitFacts},
    finding::Finding,
    findings::View,
    install::Delivery,
    kubelet_settings::{PodNetwork, Settings},
    planner::Request,
    step::{Endpoint, Step},
};
use crate::{api::request::Runtime, edit::unit_file};

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
    /// What brings, configures and starts it beside the source, while the node serves.
    pub prepare: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// What cannot be done beside the source: it is done once the kubelet has stopped, before the pods end.
    pub switch: fn(&View<'_>) -> Result<Vec<Step>, Finding>,
    /// Checks of what was found of it.
    pub check: fn(&View<'_>) -> Vec<Finding>,
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
}

impl Target {
    /// The step that brings it.
    fn delivered(&self) -> Option<Step> {
        self.delivery.as_ref().map(|delivery| delivery.step.clone())
    }

    /// The command of a unit that was `words`, and the assignment of `PATH` for it, where the plan brings the program
    /// without a unit.
    fn command(&self, words: &[String]) -> Option<(String, String)> {
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

/// A unit that the plan is going to write.
fn future_unit(name: &str, exec_start: &[&str]) -> UnitFacts {
    UnitFacts {
        name: name.to_owned(),
        load: "loaded".to_owned(),
        active: "inactive".to_owned(),
        boot: "disabled".to_owned(),
        exec_start: exec_start.iter().map(|word| (*word).to_owned()).collect(),
        ..UnitFacts::default()
    }
}

/// A path with the file there, if one was found.
fn maybe(facts: &Facts, path: &str) -> Result<MaybeFile, Finding> {
    let path = assembler::path(path)?;
    let file = facts.text_at(&path).cloned();
    Ok(MaybeFile { path, file })
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
