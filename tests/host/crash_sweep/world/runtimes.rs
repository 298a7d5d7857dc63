//! Two runtimes with images and pods, and the kubelet's own word.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use transship::{
    api::request::Runtime,
    plan::{
        configuration::Form,
        host_path::HostPath,
        shims::ShimUse,
        step::{
            ClearPods, Direction, Endpoint, ImagesStep, KUBELET_UNIT, Rehearsal, ShimsStep, Step, StopPods,
        },
    },
    runtime::{Carried, Health, Images, KubeletHealth, Means, Quiet, RuntimeError, Runtimes, Stopped, Tasks},
};

use super::{Fault, World, moment};
use crate::crash_sweep::cases::units_of;

/// How long a caller waits for a runtime that hangs.
const DEADLINE: Duration = Duration::from_secs(10);
/// And where it has another way.
const FIRST: Duration = Duration::from_secs(5);

impl World {
    /// What a runtime says of a request that has had its effect.
    async fn asked(&self) -> Result<(), RuntimeError> {
        self.answered().await.map_err(RuntimeError::new)?;
        if self.step_fails() {
            return Err(RuntimeError::new("it ended in another way".to_owned()));
        }
        Ok(())
    }

    /// The version that a runtime reports: the planned one once it runs with all of its files.
    fn version_of(&self, runtime: Runtime) -> String {
        let plan = &self.case.plan;
        let waits = plan.steps.iter().find_map(|planned| match &planned.does {
            Step::Await(wait) => wait.version.clone(),
            _ => None,
        });
        let state = self.state();
        let unit = state.units.get(&self.case.target_unit);
        if self.case.upgrades() {
            // Its drop-in names the program.
            let is_drop_in = |path: &&HostPath| path.as_str().ends_with(".conf");
            let drop_in = self.target_files.keys().find(is_drop_in).unwrap();
            let new = unit.is_some_and(|unit| unit.runs_with.get(drop_in) == self.target_files.get(drop_in));
            let version = if new { &plan.target } else { &plan.source };
            return version.version.clone();
        }
        let new = unit.is_some_and(|unit| unit.runs_with == self.target_files);
        match waits.filter(|_| runtime == self.case.target() && !new) {
            Some(first) => first,
            None => plan.target.version.clone(),
        }
    }

    /// A runtime that is awaited must run with the files that are there.
    fn compare_files_of(&self, runtime: Runtime) {
        let state = self.state();
        for name in units_of(runtime) {
            let unit = state.units.get(*name);
            if unit.is_some_and(|unit| *unit.runs_with != self.would_run_with(&state, name)) {
                self.odd(format!("{name} is awaited and has not read its files"));
            }
        }
    }

    async fn answers_within(&self, deadline: Duration, of: &Endpoint) -> Result<(), RuntimeError> {
        let hangs = {
            let mut state = self.state();
            state.hangs |= self.fault == Fault::TargetHangs && self.kubelet_under_target(&state);
            state.hangs && self.hangs_with_it(of.runtime)
        };
        if hangs {
            self.note_call(format!("wait for {}", of.runtime));
            tokio::time::sleep(deadline).await;
            return Err(RuntimeError::new(format!(
                "{} gives no answer on {}",
                of.runtime, of.socket
            )));
        }
        // Where images are meant, cri-dockerd's are behind the engine's own socket.
        let serves = if of.socket.as_str().ends_with("/docker.sock") {
            Runtime::Dockershim
        } else {
            of.runtime
        };
        if self.boots(serves) {
            return Err(RuntimeError::new(format!("nobody listens on {} yet", of.socket)));
        }
        if !self.state().serves(serves) {
            return Err(RuntimeError::new(format!(
                "{} does not answer on {}",
                of.runtime, of.socket
            )));
        }
        Ok(())
    }

    /// Ends pods, and their sandboxes as far as their runtime answers.
    async fn end_pods(
        &self,
        what: &StopPods,
        direction: Direction,
        answers: bool,
    ) -> Result<Stopped, RuntimeError> {
        let (of, forwards) = (what.ending(direction), direction == Direction::Forwards);
        self.effect();
        let mut stuck = BTreeMap::new();
        {
            let mut state = self.state();
            if state.units[KUBELET_UNIT].active {
                state
                    .violations
                    .push("pods were ended beside a running kubelet".to_owned());
            }
            state.pods.remove(&of.runtime);
            let sticks = !answers || self.fault == Fault::SandboxSticks;
            if !forwards && !sticks || what.share_an_engine() {
                state.sandboxes.remove(&of.runtime);
            }
            if !forwards && state.sandboxes.contains(&of.runtime) {
                stuck.insert("sandbox".to_owned(), "its network does not let it go".to_owned());
            }
            if self.fault == Fault::TargetDies && forwards {
                state.target_dead = true;
                let unit = state.units.get_mut(&self.case.target_unit).unwrap();
                (unit.active, unit.failed) = (false, true);
            }
        }
        moment().await;
        if self.fault == Fault::StopPodsFails && forwards {
            return Err(RuntimeError::new("a container does not end".to_owned()));
        }
        self.asked().await?;
        Ok(Stopped {
            stuck,
            ..Stopped::default()
        })
    }
}

impl Runtimes for World {
    async fn images(&self, store: &Endpoint) -> Result<Images, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, store).await?;
        Ok(self
            .state()
            .images
            .get(&store.runtime)
            .cloned()
            .unwrap_or_default())
    }

    async fn carry_image(&self, step: &ImagesStep, name: &str) -> Result<Carried, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, &step.from).await?;
        self.answers_within(DEADLINE, &step.to).await?;
        self.effect();
        if self.fault == Fault::CarryFails && Some(name) == self.case.images.get(2).map(String::as_str) {
            return Err(RuntimeError::new(format!(
                "{name} is not in the store of {}",
                step.from.runtime
            )));
        }
        let id = self.state().images[&step.from.runtime][name].clone();
        self.state()
            .images
            .entry(step.to.runtime)
            .or_default()
            .insert(name.to_owned(), id);
        moment().await;
        self.asked().await?;
        Ok(Carried {
            bytes: 7,
            means: Means::Linked,
        })
    }

    async fn restore_images(
        &self,
        store: &Endpoint,
        before: &BTreeMap<String, Option<String>>,
    ) -> Result<(), RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, store).await?;
        for (name, id) in before {
            self.effect();
            let begun = self.journal().contains(&format!("\"key\":\"{name}\""));
            let mut state = self.state();
            if !begun {
                let what = format!("the name {name} was given back, and the plan had not touched it");
                state.violations.push(what);
            }
            let there = state.images.entry(store.runtime).or_default();
            match id {
                Some(id) => there.insert(name.clone(), id.clone()),
                None => there.remove(name),
            };
        }
        self.answered().await.map_err(RuntimeError::new)
    }

    async fn bring_sandbox_image(
        &self,
        _: &Endpoint,
        _: &HostPath,
        _: &HostPath,
        _: &str,
    ) -> Result<(), RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.effect();
        moment().await;
        self.asked().await
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, &rehearsal.cri).await?;
        self.effect();
        self.state().rehearsing = true;
        moment().await;
        if self.fault == Fault::RehearsalFails {
            return Err(RuntimeError::new("the sandbox got no address".to_owned()));
        }
        self.effect();
        self.state().rehearsing = false;
        self.asked().await
    }

    async fn end_rehearsal(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, &rehearsal.cri).await?;
        self.effect();
        self.state().rehearsing = false;
        self.answered().await.map_err(RuntimeError::new)
    }

    async fn stop_pods(&self, what: &StopPods, direction: Direction) -> Result<Stopped, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, what.ending(direction)).await?;
        self.end_pods(what, direction, true).await
    }

    async fn stop_pods_without(&self, what: &StopPods, _: RuntimeError) -> Result<Stopped, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.odd(format!("pods are stopped without {}", what.target.runtime));
        self.end_pods(what, Direction::Backwards, false).await
    }

    async fn clear_pods(&self, what: &ClearPods) -> Result<Stopped, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, &what.source).await?;
        self.effect();
        {
            let mut state = self.state();
            if state.pods.contains(&what.source.runtime) {
                state
                    .violations
                    .push("pods that run were taken away from their kubelet".to_owned());
            }
            state.sandboxes.remove(&what.source.runtime);
            state.lost = false;
        }
        moment().await;
        if self.fault == Fault::ClearPodsFails {
            return Err(RuntimeError::new(
                "a sandbox does not leave its network".to_owned(),
            ));
        }
        self.asked().await?;
        Ok(Stopped::default())
    }

    async fn quiet(&self, of: &Endpoint, _: Quiet) -> Result<(), RuntimeError> {
        self.state().creating = false;
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, of).await?;
        moment().await;
        self.asked().await
    }

    async fn repair_tasks(&self) -> Result<Vec<String>, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.effect();
        self.answered().await.map_err(RuntimeError::new)?;
        Ok(Vec::new())
    }

    async fn tasks(&self) -> Result<Tasks, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        Ok(Tasks::default())
    }

    async fn check_tasks(&self, of: &Endpoint, _: &Tasks) -> Result<Vec<String>, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, of).await?;
        self.effect();
        moment().await;
        self.asked().await?;
        Ok(Vec::new())
    }

    async fn end_newer_pods(&self, what: &ShimsStep) -> Result<Vec<String>, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, &what.cri).await?;
        self.effect();
        self.state().newer = false;
        moment().await;
        self.answered().await.map_err(RuntimeError::new)?;
        Ok(Vec::new())
    }

    async fn runs_on(&self, _: &HostPath) -> Result<bool, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        Ok(false)
    }

    async fn shims(&self) -> Result<Vec<ShimUse>, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        Ok(Vec::new())
    }

    async fn end_lost(&self, of: &Endpoint) -> Result<Vec<String>, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, of).await?;
        self.effect();
        self.state().lost = false;
        self.answered().await.map_err(RuntimeError::new)?;
        Ok(Vec::new())
    }

    async fn remove_stuck(&self, what: &StopPods, stuck: &BTreeSet<String>) -> BTreeMap<String, String> {
        let asked = self.called().await;
        self.effect();
        {
            let mut state = self.state();
            if !state.units[KUBELET_UNIT].active {
                let what = "sandboxes that stuck were tried again before the kubelet ran".to_owned();
                state.violations.push(what);
            }
            // The source serves, and with it whatever the network asks.
            if asked.is_ok() {
                state.sandboxes.remove(&what.target.runtime);
            }
        }
        moment().await;
        match asked.and(self.answered().await) {
            Ok(()) => BTreeMap::new(),
            Err(why) => stuck.iter().map(|id| (id.clone(), why.clone())).collect(),
        }
    }

    async fn answers(&self, of: &Endpoint) -> Result<(), RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(FIRST, of).await
    }

    async fn health(&self, of: &Endpoint) -> Result<Health, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        self.answers_within(DEADLINE, of).await?;
        self.asked().await?;
        self.compare_files_of(of.runtime);
        Ok(Health {
            version: self.version_of(of.runtime),
            ready: true,
            network_ready: true,
        })
    }

    async fn program_version(&self, program: &HostPath) -> Result<String, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        // What the program would print is in it; running it some thousand times proves nothing more.
        let bytes = self.read(program).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let names = ["containerd ", "Kubernetes "];
        let says = names
            .into_iter()
            .find_map(|name| text.find(name))
            .map(|at| text[at..].to_owned());
        moment().await;
        says.ok_or_else(|| RuntimeError::new(format!("{program} cannot be run")))
    }

    async fn configuration(&self, _: &[String]) -> Result<String, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        let waits = self
            .case
            .plan
            .steps
            .iter()
            .find_map(|planned| match &planned.does {
                Step::Await(wait) => wait.configuration.clone(),
                _ => None,
            });
        let wanted = waits.unwrap();
        if wanted.form == Form::Crio {
            return Ok(self.crio_prints());
        }
        let systemd = wanted.systemd_cgroup != (self.fault == Fault::ImportWins);
        let (table, carried) = ("plugins.'io.containerd.grpc.v1.cri'", wanted.carried);
        let name = carried.default_runtime.as_deref().unwrap_or("runc");
        Ok(format!(
            "version = 2\n[{table}]\nsandbox_image = '{}'\nmax_concurrent_downloads = {}\nenable_selinux = {}\n[{table}.containerd]\ndefault_runtime_name = '{name}'\n[{table}.containerd.runtimes.{name}]\nruntime_type = 'io.containerd.runc.v2'\n[{table}.containerd.runtimes.{name}.options]\nSystemdCgroup = {systemd}\n[{table}.registry]\nconfig_path = '{}'\n",
            wanted.sandbox_image,
            carried.max_downloads.unwrap_or(3),
            carried.selinux.unwrap_or_default(),
            carried.registries.unwrap_or_default()
        ))
    }

    async fn kubelet(&self, main_pid: u32) -> Result<KubeletHealth, RuntimeError> {
        self.called().await.map_err(RuntimeError::new)?;
        let state = self.state();
        let kubelet = &state.units[KUBELET_UNIT];
        if !kubelet.active || kubelet.pid != main_pid {
            return Err(RuntimeError::new(format!("no process {main_pid}")));
        }
        let target = self.kubelet_under_target(&state);
        Ok(KubeletHealth {
            healthy: !(target && self.fault == Fault::KubeletUnhealthy),
            endpoint: if target && !self.case.upgrades() {
                self.case.target_endpoint()
            } else {
                self.case.source_endpoint()
            },
        })
    }
}
