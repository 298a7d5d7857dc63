//! What CRI-O does beside its units: at its start it takes pods of others off the network, its helper removes its images at a
//! boot after a power cut, and it prints its configuration.

use std::fs;

use transship::{
    api::request::Runtime,
    edit::crio_conf::Printed,
    plan::paths::{CRIO_CONFIG, CRIO_UNTIL_SWITCH},
};

use super::{Fault, State, World, path};

pub(super) const CRIO: &str = "crio.service";
/// The unit that removes images and containers at a boot after CRI-O was not stopped. It runs and ends.
pub(super) const WIPE: &str = "crio-wipe.service";

impl World {
    /// The daemon that [`Fault::TargetHangs`] is about.
    pub(super) fn hangs_in(&self) -> &'static str {
        match self.case.target() {
            Runtime::CriO => CRIO,
            _ => "containerd.service",
        }
    }

    /// Whether a runtime answers nobody while that daemon hangs: Docker stands on containerd, and CRI-O on neither.
    pub(super) fn hangs_with_it(&self, runtime: Runtime) -> bool {
        (runtime == Runtime::CriO) == (self.hangs_in() == CRIO)
    }

    /// CRI-O starts: it takes those pods off the network that stand in the cache of libcni, which containerd writes too, and has
    /// plugins of CNI 1.1 free what they hold for everybody else's (`GC` of ocicni), unless the configuration says no.
    pub(super) fn collects_garbage(&self, state: &mut State) {
        let network = self.network_of_crio();
        if network.contains("\"disableGC\": true") {
            return;
        }
        let asks_plugins = network.contains("\"cniVersion\": \"1.1");
        let taken = state
            .pods
            .iter()
            .find(|pods| **pods == Runtime::Containerd || pods.runs_on_docker() && asks_plugins);
        if let Some(taken) = taken {
            let what = format!("CRI-O took pods of {taken} off the network");
            state.violations.push(what);
        }
    }

    /// The boot after a power cut, as far as CRI-O's helper is enabled.
    pub(super) fn wipes(&self, state: &mut State) {
        let enabled = state
            .units
            .get(WIPE)
            .is_some_and(|unit| self.boot(WIPE, unit) == "enabled");
        if enabled && state.runs(CRIO) {
            state.images.entry(Runtime::CriO).or_default().clear();
        }
    }

    /// The first configuration in the directory that CRI-O's own names.
    fn network_of_crio(&self) -> String {
        let directory = Printed::read(&self.crio_reads()).network_dir();
        let directory = directory.unwrap_or_else(|| "/etc/cni/net.d".to_owned());
        let entries = fs::read_dir(self.root.join(directory.trim_start_matches('/')));
        let files = entries.into_iter().flatten().map(|entry| entry.unwrap().path());
        let first = files.filter(|file| {
            file.extension()
                .is_some_and(|kind| kind == "conflist" || kind == "conf")
        });
        first
            .min()
            .map_or_else(String::new, |file| fs::read_to_string(file).unwrap())
    }

    /// The parts of its configuration that the plan writes, in their order.
    fn crio_reads(&self) -> String {
        let parts = [CRIO_CONFIG, CRIO_UNTIL_SWITCH];
        let parts = parts.map(|part| self.read(&path(part)).unwrap_or_default());
        String::from_utf8(parts.concat()).unwrap()
    }

    /// What `crio config` prints of them, and of one that is read after them.
    pub(super) fn crio_prints(&self) -> String {
        let mut text = self.crio_reads();
        if self.fault == Fault::ImportWins {
            text.push_str("[crio.runtime]\ncgroup_manager = \"cgroupfs\"\n");
        }
        text
    }
}
