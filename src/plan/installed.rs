//! What was found of each runtime, in the same form for all.

use std::collections::BTreeMap;

use super::{
    facts::{CriFacts, Facts, MaybeFile, Store, UnitFacts},
    host_path::HostPath,
    runtime::{self, Runtime},
};

/// A runtime with units of its own that was found on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed<'a> {
    /// Its service.
    pub service: &'a UnitFacts,
    /// The socket unit that starts it, if it has one.
    pub socket: Option<&'a UnitFacts>,
    /// Its version; empty if it could not be asked.
    pub version: &'a str,
    /// Its CRI socket, as it is configured.
    pub endpoint: &'a HostPath,
    /// Its configuration file, if it has one.
    pub config: Option<&'a MaybeFile>,
    /// What its CRI reports; `None` if it does not answer.
    pub cri: Option<&'a CriFacts>,
}

impl Facts {
    /// The runtimes that were found. One that is a part of the kubelet is none of them.
    pub fn installed(&self) -> BTreeMap<Runtime, Installed<'_>> {
        let containerd = self.containerd.as_ref().map(|found| Installed {
            service: &found.service,
            socket: None,
            version: &found.version,
            endpoint: &found.endpoint,
            config: Some(&found.config),
            cri: found.cri.as_ref(),
        });
        let cri_dockerd = self.cri_dockerd.as_ref().map(|found| Installed {
            service: &found.service,
            socket: Some(&found.socket),
            version: &found.version,
            endpoint: &found.endpoint,
            config: None,
            cri: found.cri.as_ref(),
        });
        let crio = self.crio.as_ref().map(|found| Installed {
            service: &found.service,
            socket: None,
            version: &found.version,
            endpoint: &found.endpoint,
            config: Some(&found.config),
            cri: found.cri.as_ref(),
        });
        [
            (Runtime::Containerd, containerd),
            (Runtime::CriDockerd, cri_dockerd),
            (Runtime::CriO, crio),
        ]
        .into_iter()
        .filter_map(|(runtime, found)| Some((runtime, found?)))
        .collect()
    }

    /// What the store has that keeps the containers of a runtime; `None` if whoever has it did not answer.
    pub fn store(&self, runtime: Runtime) -> Option<&Store> {
        match runtime.profile().store {
            runtime::Store::Docker => Some(&self.docker.as_ref()?.engine.as_ref()?.store),
            runtime::Store::Containerd => self.containerd.as_ref()?.store.as_ref(),
            runtime::Store::CriO => self.crio.as_ref()?.store.as_ref(),
        }
    }

    /// The CRI sockets of the runtimes that were found, as they are configured.
    pub fn endpoints(&self) -> Vec<(Runtime, &HostPath)> {
        let found = self.installed().into_iter();
        found.map(|(runtime, found)| (runtime, found.endpoint)).collect()
    }
}
