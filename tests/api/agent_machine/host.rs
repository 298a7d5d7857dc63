//! A host that is a state machine: what a host remembers, and what its executor does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use transship::agent::host::{Attempt, Host, HostError, Run};
use transship::executor::control::Order;
use transship::executor::progress::{Progress, State};
use transship::plan::baseline::Baseline;
use transship::plan::digest::Digest;
use transship::plan::document::Plan;
use transship::plan::facts::{Facts, Layout};
use transship::plan::finding::Finding;
use transship::planner;
use transship::planner::request::{Outcome, Request, Verdict};

/// Three steps from dockershim to containerd.
pub(crate) fn plan() -> Plan {
    serde_json::from_str(include_str!("../../support/plan.json")).unwrap()
}

#[derive(Clone, Debug)]
pub(crate) struct FakeRun {
    pub(crate) plan: Plan,
    pub(crate) progress: Option<Progress>,
    pub(crate) baseline: Baseline,
    pub(crate) go: bool,
    pub(crate) commit: bool,
    pub(crate) abort: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Inner {
    pub(crate) verdict: Option<Verdict>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) broken_inspect: bool,
    pub(crate) unhealthy: bool,
    pub(crate) runs: BTreeMap<String, FakeRun>,
    /// The run that the unit is for, and whether it runs.
    pub(crate) unit: Option<(String, bool)>,
    pub(crate) changes: Vec<String>,
    pub(crate) own_images: Vec<String>,
    /// kubeadm set the host up.
    pub(crate) by_kubeadm: bool,
}

/// Shared with all agents that a test starts one after another: what a host remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeHost(Arc<Mutex<Inner>>);

pub(crate) fn progress(state: State) -> Progress {
    Progress {
        state,
        steps_done: 1,
        current: None,
        image_bytes: 4096,
        kubelet_stopped: None,
        kubelet_started: None,
        error: None,
        left: Vec::new(),
        old_shims: None,
    }
}

/// The name of a run ends with the generation of its spec.
fn generation_of(run: &str) -> &str {
    run.rsplit('-').next().unwrap()
}

impl FakeHost {
    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// What the executor does while nobody looks, up to where it waits or stops.
    pub(crate) fn executor(&self) {
        let mut inner = self.inner();
        let Some((name, true)) = inner.unit.clone() else {
            return;
        };
        let run = inner.runs.get_mut(&name).unwrap();
        let state = run
            .progress
            .as_ref()
            .map_or(State::Preparing, |progress| progress.state);
        let (next, runs) = match state {
            State::Committed | State::RolledBack | State::Broken => (state, false),
            State::Soaking { .. } => (state, true),
            _ if run.abort => (State::RolledBack, false),
            State::RollingBack => (State::RolledBack, false),
            State::Preparing => (State::Prepared, false),
            State::Prepared => (State::Switching, true),
            State::AwaitingCommit { .. } if run.commit => (State::Finishing, true),
            State::Finishing => (State::Committed, false),
            State::Switching | State::AwaitingCommit { .. } => (state, true),
        };
        let next = if state == State::Prepared && !run.go && !run.abort {
            (state, false)
        } else {
            (next, runs)
        };
        let before = run.progress.take();
        run.progress = Some(Progress {
            state: next.0,
            ..before.unwrap_or_else(|| progress(next.0))
        });
        inner.unit = Some((name, next.1));
    }

    /// Where the run of this generation stands.
    pub(crate) fn state(&self, generation: &str) -> Option<State> {
        let inner = self.inner();
        let mut runs = inner.runs.iter();
        let (_, run) = runs.find(|(name, _)| generation_of(name) == generation)?;
        run.progress.as_ref().map(|progress| progress.state)
    }

    /// Changes the progress of the run of this generation.
    pub(crate) fn set(&self, generation: &str, change: impl FnOnce(&mut Progress)) {
        let mut inner = self.inner();
        let mut runs = inner.runs.iter_mut();
        let (_, run) = runs.find(|(name, _)| generation_of(name) == generation).unwrap();
        change(run.progress.as_mut().unwrap());
    }

    pub(crate) fn changes(&self) -> Vec<String> {
        self.inner().changes.clone()
    }
}

impl Host for FakeHost {
    async fn look(&self, run: &str) -> Result<Option<Run>, HostError> {
        let inner = self.inner();
        Ok(inner.runs.get(run).map(|found| Run {
            words: vec!["stop the kubelet".to_owned(), "start it".to_owned()],
            plan: found.plan.clone(),
            progress: found.progress.clone(),
            baseline: found.baseline.clone(),
            go: found.go,
            commit: found.commit,
            abort: found.abort,
            executor_running: inner.unit == Some((run.to_owned(), true)),
        }))
    }

    async fn attempts(&self) -> Result<Vec<Attempt>, HostError> {
        let inner = self.inner();
        let attempt = |(name, run): (&String, &FakeRun)| Attempt {
            run: name.clone(),
            migration: name.rsplit_once('-').unwrap().0.to_owned(),
            migration_name: Some("m".to_owned()),
            generation: generation_of(name).parse().unwrap(),
            number: 0,
            state: run.progress.as_ref().map(|progress| progress.state),
            ordered: run.go,
            endpoint: run.plan.target_endpoint(),
        };
        Ok(inner.runs.iter().map(attempt).collect())
    }

    async fn facts(&self, _: &str) -> Result<Facts, HostError> {
        let inner = self.inner();
        if inner.broken_inspect {
            return Err(HostError::Answer(
                "`transship node inspect` ended with 1 on the host".to_owned(),
            ));
        }
        let text = include_str!("../../hosts/debian12-kubeadm-1.23-dockershim/facts.json");
        let mut facts: Facts = serde_json::from_str(text).unwrap();
        if !inner.by_kubeadm {
            facts.layout = Layout::PlainUnit;
        }
        Ok(facts)
    }

    /// What the host means is given; what the cluster means is found and judged as on every host.
    fn plan(&self, facts: &Facts, request: &Request) -> Outcome {
        let mut inner = self.inner();
        inner.own_images = request.pods().unwrap().images.clone();
        let verdict = inner
            .verdict
            .clone()
            .unwrap_or_else(|| Verdict::Ready(Box::new(plan())));
        planner::judge(facts, request, inner.findings.clone(), verdict)
    }

    async fn install(&self, run: &str, plan: &Plan) -> Result<(), HostError> {
        let mut inner = self.inner();
        inner.changes.push(format!("install {}", generation_of(run)));
        inner.runs.entry(run.to_owned()).or_insert_with(|| FakeRun {
            plan: plan.clone(),
            progress: None,
            baseline: Baseline::default(),
            go: false,
            commit: false,
            abort: false,
        });
        inner.unit = Some((run.to_owned(), true));
        Ok(())
    }

    async fn start_executor(&self) -> Result<(), HostError> {
        let mut inner = self.inner();
        let (run, _) = inner
            .unit
            .clone()
            .ok_or_else(|| HostError::Answer("no such unit".to_owned()))?;
        inner.unit = Some((run, true));
        Ok(())
    }

    async fn record(&self, run: &str, baseline: &Baseline) -> Result<(), HostError> {
        self.inner().runs.get_mut(run).unwrap().baseline = baseline.clone();
        Ok(())
    }

    async fn order(&self, run: &str, order: Order, plan: &Digest) -> Result<(), HostError> {
        let mut inner = self.inner();
        inner.changes.push(format!("{order:?}"));
        let run = inner.runs.get_mut(run).unwrap();
        assert_eq!(*plan, run.plan.digest());
        match order {
            Order::Go => run.go = true,
            Order::Commit => run.commit = true,
            Order::Abort => run.abort = true,
            Order::Undo | Order::EndSoak | Order::Lapse => panic!("the agent never gives this order"),
        }
        Ok(())
    }

    async fn kubelet_health(&self, _: &str) -> Result<(), HostError> {
        if self.inner().unhealthy {
            Err(HostError::Answer("it does not answer".to_owned()))
        } else {
            Ok(())
        }
    }
}
