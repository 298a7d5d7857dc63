//! Units that start and stop with others.

use transship::{api::request::Runtime, edit::unit_file, plan::step::KUBELET_UNIT};

use super::{State, World, path};

impl World {
    /// Whether the stop of `other` stops this unit: by its own files as it has read them, or by what the host has.
    fn is_bound_to(&self, state: &State, name: &str, other: &str) -> bool {
        let written = [format!("Requires={other}\n"), format!("PartOf={other}\n")];
        let files = state.units.get(name).map(|unit| unit.runs_with.clone());
        let by_file = files
            .iter()
            .flat_map(|files| files.values())
            .flatten()
            .any(|text| {
                let text = String::from_utf8_lossy(text);
                written.iter().any(|line| text.contains(line))
            });
        let bound = self.case.bound.get(name);
        let by_host = bound.is_some_and(|bound| bound.iter().any(|unit| unit == other));
        by_file || (by_host && !self.is_loosened(name, other))
    }

    /// Whether an administrator's file of the unit is there, and no longer has what bound it to `other`.
    fn is_loosened(&self, name: &str, other: &str) -> bool {
        let own = path(&format!("/etc/systemd/system/{name}"));
        let text = self.read(&own).map(|bytes| String::from_utf8(bytes).unwrap());
        let named = |(key, unit): (&str, String)| {
            ["BindsTo", "PartOf", "Requires"].contains(&key)
                && unit.split_whitespace().any(|unit| unit == other)
        };
        text.is_some_and(|text: String| !unit_file::settings(&text).any(named))
    }

    /// The units that run and stop with this one.
    pub(super) fn bound_to(&self, state: &State, name: &str) -> Vec<String> {
        let all = state.units.iter();
        all.filter(|(other, unit)| unit.active && *other != name && self.is_bound_to(state, other, name))
            .map(|(other, _)| other.clone())
            .collect()
    }

    /// Stops a unit and all that are bound to it.
    pub(super) fn stop_now(&self, state: &mut State, name: &str) {
        let Some(unit) = state.units.get_mut(name) else {
            return;
        };
        let ran = std::mem::replace(&mut unit.active, false);
        unit.failed = false;
        state.kubelet_waits &= name != KUBELET_UNIT;
        if ran && name == KUBELET_UNIT {
            state.leaked |= std::mem::take(&mut state.creating);
        }
        let of_docker = |pods: &Runtime| pods.runs_on_docker();
        if ran && name == "docker.service" && state.pods.iter().any(of_docker) && !self.may_end_pods() {
            self.odd("pods die with docker.service".to_owned());
        }
        for other in self.bound_to(state, name) {
            self.stop_now(state, &other);
        }
    }

    /// Starts a unit after all that it requires; answers whether it runs. A socket that is only part of its service
    /// requires nothing.
    pub(super) fn start_with_required(&self, state: &mut State, name: &str) -> bool {
        let wanted = "containerd.service";
        if name == "docker.service"
            && self.case.docker_wants_containerd
            && state.units.contains_key(wanted)
            && !state.runs(wanted)
            && !state.unloadable.contains(wanted)
        {
            self.start_now(state, wanted);
        }
        let started = self.start_now(state, name);
        for other in ["docker.service", "docker.socket", "cri-docker.socket"] {
            let requires = name.ends_with(".service") && self.is_bound_to(state, name, other);
            if !requires || state.runs(other) {
                continue;
            }
            if state.unloadable.contains(other) || !state.units.contains_key(other) {
                self.stop_now(state, name);
                return false;
            }
            self.start_with_required(state, other);
        }
        started
    }
}
