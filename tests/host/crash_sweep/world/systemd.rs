//! systemd as a state machine: what runs, with which files. What happens at boot is said by links on the disk, which it
//! does not sync.

use std::{fs, path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;

use transship::{
    api::request::Runtime,
    host::{
        files::Effect,
        systemd::{Systemd, SystemdError, Unit, UnitProperties},
    },
    plan::{
        effective::Effective,
        host_path::HostPath,
        step::{HOLD_FILE, KUBELET_UNIT},
    },
};

use super::{
    FakeUnit, Fault, KUBELET, State, World,
    crio::{CRIO, WIPE},
    links::{BASE, vendor, wanted_link},
    moment, path,
};
use crate::crash_sweep::cases::{Bytes, HOLD};

/// The unit of a daemon that is only tried: one of this boot.
const REHEARSAL: &str = "/run/systemd/system/transship-rehearsal.service";
/// When systemd kills what does not exit (`TimeoutStopSec=`).
const STOP_TIMEOUT: Duration = Duration::from_secs(90);

pub(super) fn refused(verb: &'static str, unit: &str, reason: &str) -> SystemdError {
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
        self.wipes(&mut state);
        for unit in state.units.values_mut() {
            unit.active = false;
            unit.failed = false;
            unit.restarts = 0;
        }
        state.booted = true;
        state.rehearsing = false;
        state.lost = false;
        state.newer = false;
        state.hangs = false;
        state.creating = false;
        state.kubelet_waits = false;
        if let Fault::SlowBoot(_) = self.fault {
            state.slow = Runtime::ALL.into();
        }
        // No container outlives the machine; the kubelet makes them again.
        state.pods.clear();
        state.masked.clear();
        self.read_units(&mut state);
        let mut names: Vec<String> = state.units.keys().cloned().collect();
        names.retain(|name| name != WIPE);
        names.sort_by_key(|name| name == KUBELET_UNIT);
        for name in names {
            // Docker's unit wants containerd's, which on some hosts is not enabled itself.
            let wanted = name == self.case.target_unit
                && self
                    .case
                    .units
                    .iter()
                    .any(|(unit, active, _)| *unit == name && *active);
            let boot = self.boot(&name, &state.units[&name]);
            if boot == "enabled" || wanted && boot != "masked" {
                // It is ordered after the runtimes.
                if name == KUBELET_UNIT && !state.slow.is_empty() {
                    state.kubelet_waits = true;
                } else {
                    self.start_with_required(&mut state, &name);
                }
            }
        }
    }

    /// The boot comes to its end, however slow it is.
    pub fn boot_ends(&self) {
        self.state().slow.clear();
        self.boot_goes_on();
    }

    /// The boot comes to the kubelet as soon as no runtime is slow any more.
    pub(super) fn boot_goes_on(&self) {
        for runtime in Runtime::ALL {
            self.boots(runtime);
        }
        let mut state = self.state();
        if state.slow.is_empty() && std::mem::take(&mut state.kubelet_waits) {
            self.start_with_required(&mut state, KUBELET_UNIT);
        }
    }

    pub fn read_units(&self, state: &mut State) {
        let files = self.case.files.iter().map(|(path, ..)| path);
        let paths = self
            .case
            .all_files()
            .chain(files)
            .filter(|path| path.as_str().contains("/systemd/"));
        state.loaded = Arc::new(paths.map(|path| (path.clone(), self.read(path))).collect());
        let file = HostPath::new(REHEARSAL).unwrap();
        let rehearsal = ("transship-rehearsal.service".to_owned(), file);
        for (unit, file) in self.case.packaged.iter().chain([&rehearsal]) {
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
        state.unloadable = state
            .units
            .iter()
            .filter(|(name, unit)| self.boot(name, unit) == "masked" || !self.has_file(name))
            .map(|(name, _)| name.clone())
            .collect();
    }

    /// What the bus does after a change of links: a reload.
    async fn changed(&self, verb: &'static str, name: &str) -> Result<(), SystemdError> {
        self.read_units(&mut self.state());
        self.reported(verb, name).await
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
        state.kubelet_waits &= name != KUBELET_UNIT;
        let hold = state.loaded.get(&path(HOLD)).and_then(Option::as_ref);
        let held = hold.is_some_and(|text| text.windows(20).any(|w| w == b"ConditionPathExists="));
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
        unit.runs_with = runs_with.clone();
        state.hangs &= name != self.hangs_in();
        if name == KUBELET_UNIT {
            self.kubelet_started(state);
            // A boot ended all pods, and the kubelet creates them now.
            state.creating = state.booted;
        }
        if name == CRIO && !dead {
            self.collects_garbage(state);
        }
        if self.case.upgrades() && name == self.case.target_unit && !dead {
            if state.newer && *runs_with == self.case.first_files(name) {
                let what = "the older version was started with pods that it cannot adopt";
                state.violations.push(what.to_owned());
            }
            // What starts with these files is born under the newer shim.
            state.newer |= runs_with == self.target_files;
            // The kubelet, which has waited for it, starts its pods.
            if state
                .units
                .get(KUBELET_UNIT)
                .is_some_and(|kubelet| kubelet.active)
            {
                state.pods.insert(self.case.target());
                state.sandboxes.insert(self.case.target());
            }
        }
        !dead
    }

    /// The kubelet makes its pods in the runtime that its files name.
    fn kubelet_started(&self, state: &mut State) {
        let runs_with = state.units[KUBELET_UNIT].runs_with.clone();
        let (first, last) = self.kubelet_files.clone();
        let edited = match self.fault {
            Fault::Edited { file, .. } => self.case.all_files().nth(file),
            _ => None,
        };
        let runs_as = |files: &Bytes| {
            let same = |(path, bytes)| Some(path) == edited || files.get(path) == Some(bytes);
            runs_with.len() == files.len() && runs_with.iter().all(same)
        };
        // Whoever overwrites the drop-in of the hold lets it start at any time.
        let held = edited.is_none_or(|path| path.as_str() != HOLD);
        if held && !runs_as(&first) && !runs_as(&last) {
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
        if state.serves(under) {
            state.pods.insert(under);
            state.sandboxes.insert(under);
        } else {
            self.odd(format!("the kubelet does not find {under}"));
        }
    }

    pub fn kubelet_under_target(&self, state: &State) -> bool {
        let kubelet = &state.units[KUBELET_UNIT];
        kubelet.active && kubelet.runs_with == self.kubelet_files.1
    }
}

impl Systemd for World {
    async fn unit(&self, name: &str) -> Result<Unit, SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
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
            load: if state.unloadable.contains(name) || state.masked.contains(name) {
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
            boot: self.boot(name, unit),
            main_pid: if unit.active { unit.pid } else { 0 },
            restarts: unit.restarts,
            job: name == KUBELET_UNIT && state.kubelet_waits,
        })
    }

    async fn describe(&self, name: &str) -> Result<UnitProperties, SystemdError> {
        let mut found = UnitProperties {
            unit: self.unit(name).await?,
            ..UnitProperties::default()
        };
        if name == KUBELET_UNIT {
            found.exec_start = vec![KUBELET.to_owned()];
        }
        let state = self.state();
        let of_unit = state
            .loaded
            .iter()
            .filter(|(path, _)| path.as_str().contains(&format!("/{name}.d/")));
        let mut drop_ins: Vec<_> = of_unit
            .filter_map(|(path, bytes)| Some((path, String::from_utf8(bytes.clone()?).unwrap())))
            .collect();
        drop_ins.sort_by_key(|(path, _)| path.as_str().rsplit('/').next().unwrap().to_owned());
        if self.fault == Fault::Overridden && name == self.case.target_unit {
            let text = "[Service]\nLimitNOFILE=5\nExecStart=\nExecStart=/usr/bin/old\n";
            drop_ins.push((&self.override_path, text.to_owned()));
        }
        for (path, text) in drop_ins {
            let set = Effective::of_drop_in(path, &text);
            found.drop_ins.push(path.clone());
            found.environment.extend(set.environment);
            let named = set
                .environment_files
                .iter()
                .map(|file| match file.strip_prefix('-') {
                    Some(file) => (self::path(file), true),
                    None => (self::path(file), false),
                });
            found.environment_files.extend(named);
            found.limits.extend(set.limits);
            if !set.exec_start.is_empty() {
                found.exec_start = set.exec_start;
            }
        }
        Ok(found)
    }

    async fn started_after_boot(&self, _: &str) -> Result<Duration, SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        let booted = self.state().booted;
        Ok(if booted { Duration::ZERO } else { Duration::MAX })
    }

    async fn start(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.note_call(format!("start {name}"));
        self.effect();
        {
            let mut state = self.state();
            let service = name.strip_suffix(".socket").map(|name| format!("{name}.service"));
            let service_masked = service
                .as_ref()
                .is_some_and(|service| state.unloadable.contains(service));
            let service_runs = service.is_some_and(|service| state.runs(&service));
            let masked = state.masked.contains(name) || state.unloadable.contains(name);
            let Some(unit) = state.units.get_mut(name) else {
                return Err(refused("start", name, "not found"));
            };
            if masked {
                return Err(refused("start", name, "it is masked"));
            }
            let active = unit.active;
            if service_masked && !active {
                return Err(refused("start", name, "its service is not loaded"));
            }
            if service_runs && !active {
                return Err(refused("start", name, "its service listens by itself"));
            }
            if !active {
                unit.restarts = 0;
                // The kubelet that is held does not start, which is no failure.
                if !self.start_with_required(&mut state, name) && name != KUBELET_UNIT {
                    return Err(SystemdError::Job {
                        verb: "start",
                        unit: name.to_owned(),
                        result: "failed".to_owned(),
                    });
                }
            }
        }
        moment().await;
        self.reported("start", name).await
    }

    async fn stop(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.note_call(format!("stop {name}"));
        self.effect();
        if self.fault == Fault::KubeletMasked && name == KUBELET_UNIT && self.own_link(name).is_none() {
            self.lay("mask", name, &Path::new(BASE).join(name), "/dev/null")?;
            // It was somebody who synced.
            self.about_to(Effect::SyncDirectory(&self.root.join(BASE)))
                .unwrap();
            self.read_units(&mut self.state());
        }
        if name == KUBELET_UNIT {
            self.exited().await;
        }
        {
            let mut state = self.state();
            self.stop_now(&mut state, name);
            // Somebody starts the kubelet again at once: nothing but the hold keeps it stopped.
            if name == KUBELET_UNIT && !state.unloadable.contains(name) {
                self.start_now(&mut state, name);
            }
        }
        moment().await;
        self.reported("stop", name).await?;
        if self.fault == Fault::StopFails && Some(name) == self.case.last_masked().as_deref() {
            return Err(refused("stop", name, "it ended in another way"));
        }
        Ok(())
    }

    async fn restart(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        let bound;
        {
            let mut state = self.state();
            let runs = |unit| state.units.get(unit).is_some_and(|unit: &FakeUnit| unit.active);
            // The kubelet starts pods at any moment.
            state.lost |= name == "containerd.service" && runs("docker.service") && runs(KUBELET_UNIT);
            bound = self.bound_to(&state, name);
            self.stop_now(&mut state, name);
        }
        // Between its two halves the executor may die, and systemd goes on.
        let started = {
            let mut state = self.state();
            if state.unloadable.contains(name) {
                false
            } else {
                let started = self.start_with_required(&mut state, name);
                for other in &bound {
                    self.start_with_required(&mut state, other);
                }
                started
            }
        };
        moment().await;
        if started {
            return self.reported("restart", name).await;
        }
        Err(SystemdError::Job {
            verb: "restart",
            unit: name.to_owned(),
            result: "failed".to_owned(),
        })
    }

    async fn kill(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.note_call(format!("kill {name}"));
        self.effect();
        {
            let mut state = self.state();
            state.hangs &= name != self.hangs_in();
            if let Some(unit) = state.units.get_mut(name) {
                (unit.active, unit.failed) = (false, true);
            }
        }
        self.answered().await.map_err(SystemdError::Unreachable)
    }

    async fn enable(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        let own = self.own_link(name);
        if own
            .as_ref()
            .is_some_and(|target| target == Path::new("/dev/null"))
        {
            return Err(refused("enable", name, "it is masked"));
        }
        if !self.has_file(name) {
            return Err(refused("enable", name, "it does not exist"));
        }
        let target = own.map_or_else(|| vendor(name), |target| target.to_str().unwrap().to_owned());
        self.lay("enable", name, &wanted_link(name), &target)?;
        self.changed("enable", name).await
    }

    async fn disable(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        for link in self.links_to(name) {
            // The mask stays.
            if fs::read_link(&link).unwrap() == Path::new("/dev/null") {
                continue;
            }
            self.change("disable", name, &link, |path| fs::remove_file(path))?;
            let directory = link.parent().unwrap();
            if fs::read_dir(directory).unwrap().next().is_none() {
                self.change("disable", name, directory, |path| fs::remove_dir(path))?;
            }
        }
        self.changed("disable", name).await
    }

    async fn mask(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        self.lay("mask", name, &Path::new(BASE).join(name), "/dev/null")?;
        self.changed("mask", name).await
    }

    async fn unmask(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        if self
            .own_link(name)
            .is_some_and(|target| target == Path::new("/dev/null"))
        {
            let mask = self.root.join(BASE).join(name);
            self.change("unmask", name, &mask, |path| fs::remove_file(path))?;
        }
        self.read_units(&mut self.state());
        self.answered().await.map_err(SystemdError::Unreachable)
    }

    async fn mask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        self.state().masked.insert(name.to_owned());
        moment().await;
        self.reported("mask", name).await
    }

    async fn unmask_until_boot(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        self.state().masked.remove(name);
        self.answered().await.map_err(SystemdError::Unreachable)
    }

    async fn reset_failed(&self, name: &str) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        if let Some(unit) = self.state().units.get_mut(name) {
            unit.failed = false;
            unit.restarts = 0;
        }
        self.answered().await.map_err(SystemdError::Unreachable)
    }

    async fn reload(&self) -> Result<(), SystemdError> {
        self.called().await.map_err(SystemdError::Unreachable)?;
        self.effect();
        self.read_units(&mut self.state());
        self.answered().await.map_err(SystemdError::Unreachable)
    }
}

impl World {
    /// A kubelet whose runtime hangs does not exit until somebody kills it.
    async fn exited(&self) {
        let until = Instant::now() + STOP_TIMEOUT;
        let runs = || {
            let state = self.state();
            state.hangs && state.units[KUBELET_UNIT].active
        };
        while runs() && Instant::now() < until {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What systemd says of a request that has had its effect.
    async fn reported(&self, verb: &'static str, unit: &str) -> Result<(), SystemdError> {
        self.answered().await.map_err(SystemdError::Unreachable)?;
        if self.step_fails() {
            return Err(refused(verb, unit, "it ended in another way"));
        }
        Ok(())
    }
}
