//! systemd as a state machine: what runs, with which files, and what happens at boot.

use std::sync::Arc;

use transship::{
    host::systemd::{Systemd, SystemdError, Unit},
    plan::{
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
};

use super::{FakeUnit, Fault, State, World, moment, path};
use crate::cases::{Bytes, unit_of};

fn refused(verb: &'static str, unit: &str, reason: &str) -> SystemdError {
    SystemdError::Refused {
        verb,
        unit: unit.to_owned(),
        reason: reason.to_owned(),
    }
}

impl World {
    /// A boot: what is enabled starts, runtimes before the kubelet.
    pub fn reboot(&self) {
        let mut state = self.state();
        for unit in state.units.values_mut() {
            unit.active = false;
            unit.failed = false;
            unit.restarts = 0;
        }
        state.rehearsing = false;
        state.masked.clear();
        self.read_units(&mut state);
        let mut names: Vec<String> = state.units.keys().cloned().collect();
        names.sort_by_key(|name| name == KUBELET_UNIT);
        for name in names {
            // Docker's unit wants containerd's, which on some hosts is not enabled itself.
            let wanted = name == self.case.target_unit
                && self
                    .case
                    .units
                    .iter()
                    .any(|(unit, active, _)| *unit == name && *active);
            let boot = &state.units[&name].boot;
            if boot == "enabled" || wanted && boot != "masked" {
                self.start_now(&mut state, &name);
            }
        }
    }

    pub fn read_units(&self, state: &mut State) {
        let paths = self
            .case
            .all_files()
            .filter(|path| path.as_str().contains("/systemd/"));
        state.loaded = Arc::new(paths.map(|path| (path.clone(), self.read(path))).collect());
        for (unit, file) in &self.case.packaged {
            if self.read(file).is_some() {
                let new = || FakeUnit {
                    boot: "disabled".to_owned(),
                    ..FakeUnit::default()
                };
                state.units.entry(unit.clone()).or_insert_with(new);
            } else {
                state.units.remove(unit);
            }
        }
    }

    /// The bytes of a unit's files as it would run with them now: its unit files as systemd read them.
    pub fn would_run_with(&self, state: &State, name: &str) -> Bytes {
        let current = |path: &HostPath| state.loaded.get(path).cloned().unwrap_or_else(|| self.read(path));
        self.case
            .files_of(name)
            .into_iter()
            .map(|path| (path.clone(), current(&path)))
            .collect()
    }

    /// Starts a unit as a job of systemd would; answers whether it runs.
    pub fn start_now(&self, state: &mut State, name: &str) -> bool {
        let held = state
            .loaded
            .values()
            .flatten()
            .any(|text| text.windows(20).any(|w| w == b"ConditionPathExists="));
        if name == KUBELET_UNIT && held && self.read(&path(HOLD_FILE)).is_some() {
            return false;
        }
        let runs_with = Arc::new(self.would_run_with(state, name));
        let dead = name == self.case.target_unit
            && (state.target_dead || self.fault == Fault::TargetRefusesConfig)
            && runs_with == self.target_files;
        state.pids += 1;
        let pid = state.pids;
        let unit = state.units.entry(name.to_owned()).or_default();
        (unit.active, unit.failed, unit.pid) = (!dead, dead, pid);
        unit.runs_with = runs_with;
        if name == KUBELET_UNIT {
            self.kubelet_started(state);
        }
        !dead
    }

    /// The kubelet makes its pods in the runtime that its files name.
    fn kubelet_started(&self, state: &mut State) {
        let runs_with = state.units[KUBELET_UNIT].runs_with.clone();
        let (first, last) = self.kubelet_files.clone();
        if runs_with != first && runs_with != last {
            state
                .violations
                .push("the kubelet was started half-switched".to_owned());
        }
        let under = if runs_with == last {
            self.case.target()
        } else {
            self.case.source()
        };
        if state.pods.iter().any(|other| *other != under) {
            state
                .violations
                .push(format!("the kubelet was started under {under} beside other pods"));
        }
        let unit = unit_of(under);
        if state.units.get(unit).is_none_or(|unit| unit.active) {
            state.pods.insert(under);
            state.sandboxes.insert(under);
        }
    }

    pub fn kubelet_under_target(&self, state: &State) -> bool {
        let kubelet = &state.units[KUBELET_UNIT];
        kubelet.active && kubelet.runs_with == self.kubelet_files.1
    }
}

impl Systemd for World {
    async fn unit(&self, name: &str) -> Result<Unit, SystemdError> {
        let mut state = self.state();
        if self.fault == Fault::KubeletCrashes && name == KUBELET_UNIT && self.kubelet_under_target(&state) {
            state.pids += 1;
            let pid = state.pids;
            let kubelet = state.units.get_mut(name).unwrap();
            kubelet.restarts += 1;
            kubelet.pid = pid;
        }
        let Some(unit) = state.units.get(name) else {
            return Ok(Unit {
                load: "not-found".to_owned(),
                active: "inactive".to_owned(),
                ..Unit::default()
            });
        };
        Ok(Unit {
            load: if unit.boot == "masked" || state.masked.contains(name) {
                "masked"
            } else {
                "loaded"
            }
            .to_owned(),
            active: match (unit.active, unit.failed) {
                (true, _) => "active",
                (false, true) => "failed",
                (false, false) => "inactive",
            }
            .to_owned(),
            boot: unit.boot.clone(),
            main_pid: if unit.active { unit.pid } else { 0 },
            restarts: unit.restarts,
        })
    }

    async fn start(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        {
            let mut state = self.state();
            let service = name.strip_suffix(".socket").map(|name| format!("{name}.service"));
            let service_masked = service.is_some_and(|service| {
                state
                    .units
                    .get(&service)
                    .is_some_and(|unit| unit.boot == "masked")
            });
            let masked = state.masked.contains(name);
            let Some(unit) = state.units.get_mut(name) else {
                return Err(refused("start", name, "not found"));
            };
            if masked || unit.boot == "masked" {
                return Err(refused("start", name, "it is masked"));
            }
            if service_masked && !unit.active {
                return Err(refused("start", name, "its service is not loaded"));
            }
            if !unit.active {
                unit.restarts = 0;
                let failed = !self.start_now(&mut state, name) && state.units[name].failed;
                if failed {
                    return Err(SystemdError::Job {
                        verb: "start",
                        unit: name.to_owned(),
                        result: "failed".to_owned(),
                    });
                }
            }
        }
        moment().await;
        self.reported("start", name)
    }

    async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        {
            let mut state = self.state();
            if let Some(unit) = state.units.get_mut(name) {
                (unit.active, unit.failed) = (false, false);
                if self.fault == Fault::KubeletMasked && name == KUBELET_UNIT && unit.boot == "enabled" {
                    unit.boot = "masked".to_owned();
                }
            }
            // Somebody starts the kubelet again at once: nothing but the hold keeps it stopped.
            if name == KUBELET_UNIT && state.units[name].boot != "masked" {
                self.start_now(&mut state, name);
            }
        }
        moment().await;
        self.reported("stop", name)?;
        if self.fault == Fault::StopFails && Some(name) == self.case.last_masked().as_deref() {
            return Err(refused("stop", name, "it ended in another way"));
        }
        Ok(())
    }

    async fn restart(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name) {
            unit.active = false;
        }
        // Between its two halves the executor may die, and systemd goes on.
        let started = {
            let mut state = self.state();
            if state.units[name].boot == "masked" {
                false
            } else {
                self.start_now(&mut state, name)
            }
        };
        moment().await;
        if started {
            return self.reported("restart", name);
        }
        Err(SystemdError::Job {
            verb: "restart",
            unit: name.to_owned(),
            result: "failed".to_owned(),
        })
    }

    async fn enable(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        let mut state = self.state();
        let unit = state.units.entry(name.to_owned()).or_default();
        if unit.boot == "masked" {
            return Err(refused("enable", name, "it is masked"));
        }
        unit.boot = "enabled".to_owned();
        drop(state);
        self.reported("enable", name)
    }

    async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name)
            && unit.boot == "enabled"
        {
            unit.boot = "disabled".to_owned();
        }
        self.reported("disable", name)
    }

    async fn mask(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        {
            let mut state = self.state();
            let unit = state.units.entry(name.to_owned()).or_default();
            unit.enabled_below |= unit.boot == "enabled";
            unit.boot = "masked".to_owned();
        }
        self.reported("mask", name)
    }

    async fn unmask(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name)
            && unit.boot == "masked"
        {
            let below = std::mem::take(&mut unit.enabled_below);
            unit.boot = if below { "enabled" } else { "disabled" }.to_owned();
        }
        Ok(())
    }

    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        self.state().masked.insert(name.to_owned());
        moment().await;
        self.reported("mask", name)
    }

    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        self.state().masked.remove(name);
        Ok(())
    }

    async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name) {
            unit.failed = false;
            unit.restarts = 0;
        }
        Ok(())
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.effect();
        self.read_units(&mut self.state());
        Ok(())
    }
}

impl World {
    /// What systemd says of a request that has had its effect.
    fn reported(&self, verb: &'static str, unit: &str) -> Result<(), SystemdError> {
        if self.step_fails() {
            return Err(refused(verb, unit, "it ended in another way"));
        }
        Ok(())
    }
}
