//! Container runtimes: what a step asks of them ([`Runtimes`]), and the clients that do it.
//!
//! - [`hosted`]: all of it, for the runtimes of this host.
//! - [`docker`], [`cri`], [`containerd`]: clients of Docker Engine, of a CRI, and of containerd apart from its CRI.
//! - [`reference`](mod@reference), [`transfer`], [`link`], [`crio_images`], [`restore`]: names of images; carrying an image from one
//!   store to another, by its archive or by links to its layers; giving names back.
//! - [`registry`]: a registry at a loopback address that CRI-O pulls one image from.
//! - [`unpacked`], [`overlay2`], [`containers_storage`], [`tar_split`], [`docker_archive`]: images as they lie in the stores of Docker
//!   and CRI-O, and their archives.
//! - [`rehearsal`], [`sandbox_image`]: a sandbox that proves a CRI before a pod depends on it.
//! - `quiet`: whether a pod is being created.
//! - [`pods`], [`cni_del`]: ending the pods of one runtime, and taking them off the network.
//! - `tasks`: the containers that run on while containerd is restarted.
//! - [`running`]: the pods that run now.
//! - [`program`]: asking a runtime's program which version it is.
//! - [`kubelet`]: asking the kubelet how it is.

pub mod cni_del;
pub mod containerd;
mod containers_storage;
pub mod cri;
pub mod crio_images;
pub mod docker;
mod docker_archive;
mod grpc;
pub mod hosted;
pub mod kubelet;
mod link;
mod overlay2;
pub mod pods;
pub mod program;
mod quiet;
pub use crate::plan::reference;
mod registry;
pub mod rehearsal;
mod restore;
pub mod running;
pub mod sandbox_image;
mod tar_split;
pub mod tasks;
pub mod transfer;
mod unpacked;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::plan::{
    host_path::HostPath,
    shims::ShimUse,
    step::{ClearPods, Direction, Endpoint, ImagesStep, Rehearsal, ShimsStep, StopPods},
};

/// What made a request fail.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A request to a runtime that failed, in a sentence that names the runtime, the object and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct RuntimeError {
    sentence: String,
    #[source]
    cause: Option<Cause>,
}

impl RuntimeError {
    /// A failure that no other error has caused.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            cause: None,
        }
    }

    /// A failure whose cause has the whole sentence.
    pub fn of(cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self {
            sentence: cause.to_string(),
            cause: Some(cause),
        }
    }

    /// A failure with its cause, which ends the sentence.
    pub fn because(failed: impl std::fmt::Display, cause: impl Into<Cause>) -> Self {
        let cause = cause.into();
        Self {
            sentence: format!("{failed}: {cause}"),
            cause: Some(cause),
        }
    }

    /// A failure in a sentence of its own, which its cause does not end.
    pub fn caused(sentence: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self {
            sentence: sentence.into(),
            cause: Some(cause.into()),
        }
    }

    /// The sentence.
    pub fn sentence(&self) -> &str {
        &self.sentence
    }
}

/// What a runtime says of itself now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Its version.
    pub version: String,
    /// CRI condition `RuntimeReady`; for the dockershim: the engine answers.
    pub ready: bool,
    /// CRI condition `NetworkReady`; for the dockershim: true.
    pub network_ready: bool,
}

/// What the running kubelet says of itself now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeletHealth {
    /// `/healthz` answers `ok`.
    pub healthy: bool,
    /// The endpoint that its command line, else its configuration names; absent where nothing names one.
    pub endpoint: Option<String>,
}

/// What `StopPods` ended and `ClearPods` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Containers that ended on SIGTERM or had ended before.
    pub ended: u32,
    /// Containers that were killed: after their grace period, or because they ignore their stop signal.
    pub killed: u32,
    /// Sandboxes that were removed.
    pub sandboxes: u32,
    /// What of their network could not be taken away, a sentence each.
    pub left: Vec<String>,
    /// Sandboxes that have ended and are not removed, by their ids, with the reason in a sentence. What they need may be
    /// there later ([`Runtimes::remove_stuck`]).
    pub stuck: BTreeMap<String, String>,
}

/// An image that is in another store now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Carried {
    /// Bytes of its layers, as far as they were not there.
    pub bytes: u64,
    /// How it came there.
    pub means: Means,
}

/// How an image came into a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Means {
    /// It was there under another name.
    Named,
    /// Its layers are shared with the store that it came from.
    Linked,
    /// Its archive was streamed.
    Streamed {
        /// Why it could not be linked, when it should have been.
        instead: Option<String>,
    },
}

impl std::fmt::Display for Means {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named => f.write_str("there under another name"),
            Self::Linked => f.write_str("linked"),
            Self::Streamed { instead: None } => f.write_str("streamed"),
            Self::Streamed { instead: Some(why) } => write!(f, "streamed, not linked: {why}"),
        }
    }
}

/// The containers of containerd that run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tasks {
    /// The boot that they run since (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// Each one with its first process.
    pub running: Vec<Task>,
}

/// A container that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its namespace in containerd.
    pub namespace: String,
    /// Its id.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// When that was started, in clock ticks since the boot (`/proc/PID/stat`).
    pub started: u64,
}

/// Names of images, each with the id of its image. Stores that call an image by different digests (of its
/// configuration, of its manifest) have different ids for the same one.
pub type Images = BTreeMap<String, String>;

/// When no pod counts as being created.
#[derive(Clone, Copy, Debug)]
pub struct Quiet {
    /// How long nothing new must have appeared.
    pub still_for: Duration,
    /// How long it is waited for.
    pub within: Duration,
}

/// What a step asks of the runtimes of a host. Implemented by the real clients and, in
/// tests, by a state machine. Every verb has a deadline and is idempotent.
#[allow(async_fn_in_trait, reason = "used on one thread, by static dispatch")]
pub trait Runtimes {
    /// The names of all images in a store, as full references, each with the id of its image.
    async fn images(&self, store: &Endpoint) -> Result<Images, RuntimeError>;
    /// Brings an image from one store into another under the same name.
    async fn carry_image(&self, step: &ImagesStep, name: &str) -> Result<Carried, RuntimeError>;
    /// Gives names in a store back to the images of these ids, those without an id to none, and removes what a carry
    /// that was interrupted left.
    async fn restore_images(
        &self,
        store: &Endpoint,
        before: &BTreeMap<String, Option<String>>,
    ) -> Result<(), RuntimeError>;
    /// Brings an image of Transship's own program, which waits, into a store that has no other one. `scratch` is a directory
    /// for its archive.
    async fn bring_sandbox_image(
        &self,
        store: &Endpoint,
        ctr: &HostPath,
        scratch: &HostPath,
        name: &str,
    ) -> Result<(), RuntimeError>;
    /// Runs a sandbox and removes it, with whatever an earlier rehearsal left.
    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError>;
    /// Removes what a rehearsal that was interrupted left.
    async fn end_rehearsal(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError>;
    /// Ends the pods of one of the two runtimes of `what`: forwards the containers of the source, backwards the pods of
    /// the target with their CNI state.
    async fn stop_pods(&self, what: &StopPods, direction: Direction) -> Result<Stopped, RuntimeError>;
    /// Ends the pods of the target, which did not answer with this error, without it.
    async fn stop_pods_without(&self, what: &StopPods, error: RuntimeError) -> Result<Stopped, RuntimeError>;
    /// Removes all that is left of the source's pods, with their CNI state.
    async fn clear_pods(&self, what: &ClearPods) -> Result<Stopped, RuntimeError>;
    /// Waits until no pod is being created: who stops the kubelet, or restarts the runtime, would break it.
    async fn quiet(&self, of: &Endpoint, quiet: Quiet) -> Result<(), RuntimeError>;
    /// Puts the first process of each container of containerd back into those of its cgroups that it is missing from. Returns a
    /// sentence for each one.
    async fn repair_tasks(&self) -> Result<Vec<String>, RuntimeError>;
    /// The containers of containerd that run, in all of its namespaces.
    async fn tasks(&self) -> Result<Tasks, RuntimeError>;
    /// Compares the containers that run with those that were noted, and removes what a restart of the runtime left behind.
    /// Returns a sentence for what is gone and for what stays.
    async fn check_tasks(&self, of: &Endpoint, noted: &Tasks) -> Result<Vec<String>, RuntimeError>;
    /// Ends the pods of a containerd that an older one cannot adopt, and prepares the other ones. Returns a sentence for each
    /// container that the older one will end.
    async fn end_newer_pods(&self, what: &ShimsStep) -> Result<Vec<String>, RuntimeError>;
    /// Whether a container of containerd runs under a shim that is this program, or in this directory.
    async fn runs_on(&self, path: &HostPath) -> Result<bool, RuntimeError>;
    /// The programs of the shims of containerd's containers that run.
    async fn shims(&self) -> Result<Vec<ShimUse>, RuntimeError>;
    /// Ends what a restart of a daemon below this runtime left of its pods without its knowledge, and returns a sentence
    /// for each thing that stays.
    async fn end_lost(&self, of: &Endpoint) -> Result<Vec<String>, RuntimeError>;
    /// Removes sandboxes of the target that have ended and stuck ([`Stopped::stuck`]), without its CRI: once the source serves,
    /// what a CNI plugin asks may answer again. Returns those that still stick, with the reason.
    async fn remove_stuck(&self, what: &StopPods, stuck: &BTreeSet<String>) -> BTreeMap<String, String>;
    /// Whether a runtime answers at all: the one call of those who have another way, with a deadline of seconds.
    async fn answers(&self, of: &Endpoint) -> Result<(), RuntimeError>;
    /// Asks a runtime how it is.
    async fn health(&self, of: &Endpoint) -> Result<Health, RuntimeError>;
    /// What a program, a runtime's daemon or the kubelet, prints when it is run with `--version`.
    async fn program_version(&self, program: &HostPath) -> Result<String, RuntimeError>;
    /// What a runtime's program prints of its effective configuration with this command.
    async fn configuration(&self, command: &[String]) -> Result<String, RuntimeError>;
    /// Asks the kubelet with this process id how it is.
    async fn kubelet(&self, main_pid: u32) -> Result<KubeletHealth, RuntimeError>;
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;
    use std::io;

    use super::*;

    #[test]
    fn a_runtime_error_keeps_its_cause() {
        let cause = || io::Error::new(io::ErrorKind::ConnectionRefused, "nobody listens");
        let because = RuntimeError::because("no CRI answers at /run/x.sock", cause());
        assert_eq!(
            because.to_string(),
            "no CRI answers at /run/x.sock: nobody listens"
        );
        let of = RuntimeError::of(cause());
        assert_eq!(of.to_string(), "nobody listens");
        let caused = RuntimeError::caused("it is away", cause());
        assert_eq!(caused.sentence(), "it is away");
        for error in [because, of, caused] {
            let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
            assert_eq!(cause.map(io::Error::kind), Some(io::ErrorKind::ConnectionRefused));
        }
        assert!(RuntimeError::new("nothing more is known").source().is_none());
    }
}
