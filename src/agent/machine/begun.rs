//! Decisions once the journal has a line: watching the executor, draining, verifying, and putting the Node in order.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt as _;

use super::{Act, Decision, RETRY_EVICTION, Refusal, Seen, describe};
use crate::{
    agent::{
        baseline,
        drain::{Survey, blocking, held},
        host::Run,
        node::{self, End},
        parent::Parent,
        report,
    },
    api::{
        node_migration::{BlockingPod, DrainProgress, NodeMigrationStatus, NodePhase, OldShims},
        reported,
        request::DrainMode,
    },
    executor::{
        control::Order,
        progress::{Progress, State},
    },
    plan::{lists, version},
};

/// A node that the executor has begun to work on.
pub(super) struct Attempt<'a> {
    pub(super) seen: &'a Seen<'a>,
    pub(super) run: &'a Run,
    pub(super) progress: &'a Progress,
}

impl Attempt<'_> {
    /// Decides what to do next.
    pub(super) fn decide(&self, mut status: NodeMigrationStatus) -> Decision {
        self.describe(&mut status);
        let endpoint = self.run.plan.target_endpoint();
        let target = endpoint.as_deref();
        match self.progress.state {
            State::Committed | State::Soaking { .. } => self.settle(status, End::Target(target)),
            State::RolledBack => self.settle(status, End::Source { target }),
            State::Broken => {
                let error = self
                    .progress
                    .error
                    .as_deref()
                    .unwrap_or("the executor does not say why");
                let message = format!(
                    "a person has to help: {error}; `transship node status` on the node says how far it is"
                );
                self.then(status, NodePhase::Failed, message, Act::Rest)
            }
            State::RollingBack => self.going_back(status),
            _ if self.run.abort => self.going_back(status),
            State::Preparing if self.aborted() => self.abort(status),
            State::Preparing => self.watch(status, NodePhase::Preparing, "prepares while the node serves"),
            State::Prepared if self.run.go => {
                self.watch(status, NodePhase::Switching, "the executor takes over")
            }
            State::Prepared if self.aborted() => self.abort(status),
            State::Prepared if report::condition(&status, report::DRAIN_TIMED_OUT).is_some() => {
                self.give_up_drain(status)
            }
            State::Prepared if matches!(self.seen.parent, Parent::Differs(_)) => self.refuse(status),
            State::Prepared => match self.seen.migration.spec.drain.mode.of(self.run.plan.keeps_pods()) {
                DrainMode::Auto | DrainMode::Evict => self.drain(status),
                DrainMode::InPlace => self.stay(status),
                DrainMode::Live => self.keep(status),
            },
            State::Switching if self.run.plan.keeps_pods() => {
                self.watch(status, NodePhase::Switching, IN_PLACE)
            }
            State::Switching => self.watch(status, NodePhase::Switching, "switches"),
            State::AwaitingCommit { .. } if self.run.commit => self.watch(
                status,
                NodePhase::Verifying,
                "confirmed; the executor takes note of it",
            ),
            State::Finishing => self.watch(
                status,
                NodePhase::Verifying,
                "confirmed; the executor applies the last steps",
            ),
            State::AwaitingCommit { .. } => self.verify(status),
        }
    }

    fn then(
        &self,
        mut status: NodeMigrationStatus,
        phase: NodePhase,
        message: impl Into<String>,
        act: Act,
    ) -> Decision {
        report::enter(&mut status, phase, self.seen.now);
        status.message = message.into();
        Decision { status, act }
    }

    fn describe(&self, status: &mut NodeMigrationStatus) {
        let Run { plan, words, .. } = self.run;
        describe(status, plan, words);
        status.steps_done = u32::try_from(self.progress.steps_done).unwrap_or(u32::MAX);
        status.current_step = self.progress.current.and_then(|step| words.get(step).cloned());
        status.image_bytes = Some(self.progress.image_bytes)
            .filter(|bytes| *bytes > 0)
            .map(|bytes| bytes.cast_signed());
        status.old_shims = self.progress.old_shims.as_ref().map(|counted| OldShims {
            counted_at: Time(counted.counted_at),
            programs: counted.programs.clone(),
        });
        let switched = matches!(
            self.progress.state,
            State::AwaitingCommit { .. } | State::Soaking { .. } | State::Finishing | State::Committed
        );
        if plan.keeps_pods() {
            // No step stops the kubelet.
            status.kubelet_downtime_millis = switched.then_some(0);
        } else if let Some(downtime) = self.progress.kubelet_downtime() {
            status.kubelet_downtime_millis = i64::try_from(downtime.as_millis()).ok();
        }
        // That it goes back because it was told to is no error.
        status.last_error = self.progress.error.clone().filter(|_| !self.run.abort);
    }

    fn aborted(&self) -> bool {
        self.seen.is_aborted() || *self.seen.parent == Parent::Gone
    }

    fn why_aborted(&self) -> String {
        match self.seen.parent {
            Parent::Gone => {
                let name = &self.seen.migration.spec.migration.name;
                format!("its RuntimeMigration {name} is gone")
            }
            _ => "the migration is being deleted".to_owned(),
        }
    }

    /// The spec was changed by somebody else than the controller: it is not obeyed.
    fn refuse(&self, status: NodeMigrationStatus) -> Decision {
        let phase = match status.phase {
            NodePhase::Draining => NodePhase::Draining,
            _ => NodePhase::Preparing,
        };
        let name = &self.seen.migration.spec.migration.name;
        let refusal = self.seen.parent.refusal(name).unwrap_or_default();
        self.then(status, phase, refusal, Act::Wait)
    }

    /// The executor works; it is started if it does not run.
    fn keep_running(&self) -> Act {
        if self.run.executor_running {
            Act::Wait
        } else {
            Act::StartExecutor
        }
    }

    fn watch(&self, status: NodeMigrationStatus, phase: NodePhase, what: &str) -> Decision {
        let message = match &status.current_step {
            Some(step) => format!(
                "{what}: step {} of {}: {step}",
                self.progress.steps_done + 1,
                self.run.plan.steps.len()
            ),
            None => what.to_owned(),
        };
        self.then(status, phase, message, self.keep_running())
    }

    fn going_back(&self, status: NodeMigrationStatus) -> Decision {
        let message = format!("rolling back: {}", self.why_back(&status));
        self.then(status, NodePhase::RollingBack, message, self.keep_running())
    }

    fn why_back(&self, status: &NodeMigrationStatus) -> String {
        if let Some(timed_out) = report::condition(status, report::DRAIN_TIMED_OUT) {
            timed_out.to_owned()
        } else if let Some(aborted) = report::condition(status, report::ABORTED) {
            aborted.to_owned()
        } else if self.aborted() && self.run.abort {
            self.why_aborted()
        } else {
            self.progress
                .error
                .clone()
                .unwrap_or_else(|| "it was told to".to_owned())
        }
    }

    fn abort(&self, mut status: NodeMigrationStatus) -> Decision {
        let why = self.why_aborted();
        let message = format!("{why}; what was prepared is undone");
        // The reason is not seen again once the executor has turned back.
        report::set_condition(&mut status, report::ABORTED, why, self.seen.now);
        self.then(status, NodePhase::RollingBack, message, Act::Order(Order::Abort))
    }

    /// The pods start again here. The node is not cordoned: a new pod has nowhere else to go either and would be
    /// Pending, while one that is bound to this node meanwhile starts with the new kubelet; some clouds take a
    /// cordoned node, here the only one, out of their load balancers; and where this node carries the API server,
    /// nothing may be left for it to take back.
    fn stay(&self, status: NodeMigrationStatus) -> Decision {
        self.go(status, NodePhase::Preparing, "the pods stay")
    }

    /// The containers run on. The node is cordoned, so that no pod is being created while the runtime is restarted.
    fn keep(&self, status: NodeMigrationStatus) -> Decision {
        match node::cordon(self.seen.node, &self.seen.migration.spec.migration.uid) {
            Some(patch) => self.then(
                status,
                NodePhase::Preparing,
                format!("cordons the node; {IN_PLACE}"),
                Act::Patch(patch),
            ),
            None => self.go(status, NodePhase::Preparing, IN_PLACE),
        }
    }

    /// Nothing is left to do but the switch. What allowed it when the node was started may have changed since, so the
    /// controller is asked again, and not longer than the drain may take.
    fn go(&self, mut status: NodeMigrationStatus, phase: NodePhase, ready: &str) -> Decision {
        let spec = &self.seen.migration.spec;
        if spec.proceed {
            report::unset_condition(&mut status, report::READY_TO_SWITCH);
            let message = format!("{ready}; the executor takes over");
            let seen = self.seen;
            let mut baseline = baseline::record(seen.node, seen.pods, &spec.drain, seen.own_pod);
            if self.run.plan.keeps_pods() {
                // They are not started again.
                baseline.pods.clear();
            }
            return self.then(status, NodePhase::Switching, message, Act::Go(Box::new(baseline)));
        }
        let since = report::condition_since(&status, report::READY_TO_SWITCH);
        if since.is_none() {
            report::set_condition(
                &mut status,
                report::READY_TO_SWITCH,
                ready.to_owned(),
                self.seen.now,
            );
        }
        let waited = self.seen.now.duration_since(since.unwrap_or(self.seen.now));
        if waited.unsigned_abs() > spec.drain.timeout.get() {
            let message = format!(
                "{ready}, but RuntimeMigration {} did not let the switch begin within {}; its message names the reason",
                spec.migration.name, spec.drain.timeout
            );
            report::set_condition(&mut status, report::DRAIN_TIMED_OUT, message, self.seen.now);
            return self.give_up_drain(status);
        }
        let message = format!(
            "{ready}; waits until RuntimeMigration {} lets the switch begin",
            spec.migration.name
        );
        self.then(status, phase, message, Act::Wait)
    }

    fn drain(&self, mut status: NodeMigrationStatus) -> Decision {
        let seen = self.seen;
        let spec = &seen.migration.spec;
        if let Some(patch) = node::cordon(seen.node, &spec.migration.uid) {
            return self.then(status, NodePhase::Draining, "cordons the node", Act::Patch(patch));
        }

        let survey = Survey::new(seen.pods, &spec.drain, seen.own_pod.0);
        let remaining = u32::try_from(survey.remaining()).unwrap_or(u32::MAX);
        let refused = |pod: &&Pod| seen.refusals.get(&pod.uid().unwrap_or_default());
        let before = status.drain.take().unwrap_or_default();
        // A new agent knows from the status what the old one was told.
        let told = |pod: &Pod| {
            let here = |told: &&BlockingPod| {
                told.name == pod.name_any() && pod.namespace().as_ref() == Some(&told.namespace)
            };
            before.blocking.iter().find(here).map(|told| told.reason.clone())
        };
        let mut in_the_way = held::terminating(&survey.ending, spec.drain.timeout, seen.now);
        in_the_way.extend(survey.blocked.iter().cloned());
        in_the_way.extend(survey.evict.iter().filter_map(|pod| {
            let reason = refused(pod)
                .map(|refusal| refusal.reason.clone())
                .or_else(|| told(pod))?;
            Some(blocking(pod, reason))
        }));
        status.drain = Some(DrainProgress {
            evicted: before.evicted + before.remaining.saturating_sub(remaining),
            remaining,
            blocking: in_the_way,
        });
        if remaining == 0 {
            return self.go(status, NodePhase::Draining, "no pod is left to evict");
        }
        report::unset_condition(&mut status, report::READY_TO_SWITCH);

        let since = report::first_entered(&status, NodePhase::Draining).unwrap_or(seen.now);
        if seen.now.duration_since(since).unsigned_abs() > spec.drain.timeout.get() {
            let message = format!(
                "{remaining} pods did not leave within {}: {}",
                spec.drain.timeout,
                in_words(&status)
            );
            report::set_condition(&mut status, report::DRAIN_TIMED_OUT, message, seen.now);
            return self.give_up_drain(status);
        }
        let rested = |refusal: &Refusal| seen.now.duration_since(refusal.at).unsigned_abs() >= RETRY_EVICTION;
        let due: Vec<String> = survey
            .evict
            .iter()
            .filter(|pod| refused(pod).is_none_or(rested))
            .filter_map(|pod| pod.uid())
            .collect();
        let message = format!("waits for {remaining} pods to leave: {}", in_words(&status));
        let act = if due.is_empty() {
            Act::Wait
        } else {
            Act::Evict(due)
        };
        self.then(status, NodePhase::Draining, message, act)
    }

    fn give_up_drain(&self, mut status: NodeMigrationStatus) -> Decision {
        report::unset_condition(&mut status, report::READY_TO_SWITCH);
        let message = report::condition(&status, report::DRAIN_TIMED_OUT)
            .unwrap_or_default()
            .to_owned();
        self.then(status, NodePhase::RollingBack, message, Act::Order(Order::Abort))
    }

    /// The node runs under the target: is everything there that a commit stands for?
    fn verify(&self, status: NodeMigrationStatus) -> Decision {
        let missing = self.missing();
        if missing.is_empty() {
            let message = format!("healthy on {}; confirms", self.run.plan.target.runtime);
            self.then(status, NodePhase::Verifying, message, Act::Order(Order::Commit))
        } else {
            let message = format!("waits until {}", missing.join(", and until "));
            self.then(status, NodePhase::Verifying, message, self.keep_running())
        }
    }

    /// What a commit still waits for. No time is compared: what is newer than the switch has another identity than what
    /// the baseline holds. For a pair of Docker's shims the Node looks the same before and after; there the executor's
    /// check of the kubelet's endpoint and the new containers prove the switch.
    fn missing(&self) -> Vec<String> {
        const SHOWN: usize = 3;
        let target = self.run.plan.target.runtime;
        let scheme = &*target.scheme();
        let baseline = &self.run.baseline;
        let (namespace, name) = self.seen.own_pod;
        let own = self
            .seen
            .pods
            .iter()
            .find(|pod| pod.name_any() == name && pod.namespace().as_deref() == Some(namespace));
        let mut missing = Vec::new();
        // In an upgrade it runs on, as all pods do: the executor has compared them.
        let runs_on = self.run.plan.keeps_pods();
        if !runs_on && !own.is_some_and(|pod| baseline::runs_under(pod, baseline, scheme)) {
            missing.push(format!(
                "the agent's own pod is reported as running under {target}"
            ));
        }
        let reported = reported::runtime_version(self.seen.node);
        if !reported.starts_with(scheme) {
            missing.push(format!("the Node reports {target} instead of {reported}"));
        } else if self.is_of_another_version(reported) {
            let planned = &self.run.plan.target.version;
            missing.push(format!(
                "the Node reports {target} {planned} instead of {reported}"
            ));
        }
        if !baseline::node_is_ready(self.seen.node, baseline) {
            missing.push("the Node reports Ready since the switch".to_owned());
        }
        match self.seen.kubelet {
            Some(Ok(())) => {}
            Some(Err(error)) => missing.push(format!("the kubelet is healthy ({error})")),
            None => missing.push("the kubelet was asked for its health".to_owned()),
        }
        let absent = baseline::missing(baseline, self.seen.pods, scheme);
        if !absent.is_empty() {
            missing.push(format!(
                "the pods are Ready again that were Ready before ({})",
                lists::clauses_of(&absent, SHOWN)
            ));
        }
        missing
    }

    /// Whether the Node reports another version of the target than the planned one. Docker Engine's version, which
    /// the Node reports for its shims, is not the target's.
    fn is_of_another_version(&self, reported: &str) -> bool {
        let target = &self.run.plan.target;
        let is_own = target.runtime.reports_own_version();
        let reported = reported.strip_prefix(&target.runtime.scheme()).filter(|_| is_own);
        let (planned, reported) = (
            version::upstream(&target.version),
            reported.and_then(version::upstream),
        );
        planned
            .zip(reported)
            .is_some_and(|(planned, reported)| planned != reported)
    }

    /// What was left behind, or of an upgrade what is not as before, to follow a sentence.
    fn left(&self) -> String {
        let what = if self.run.plan.keeps_pods() {
            ""
        } else {
            "not removed: "
        };
        let left = self.progress.left.iter();
        left.map(|left| format!("; {what}{left}")).collect()
    }

    /// Until when the node can still be rolled back without a loss; empty once it has committed. The time is what the node's
    /// own count comes to if it keeps running.
    fn soaks(&self) -> String {
        let State::Soaking { left } = self.progress.state else {
            return String::new();
        };
        let left = SignedDuration::try_from(left).unwrap_or(SignedDuration::MAX);
        let until = self.seen.now.saturating_add(left).unwrap_or(Timestamp::MAX);
        format!(
            "; soaking on the old shim until {until:.0}, then it commits by itself; until then `transship node rollback` on \
             the node loses no pod"
        )
    }

    /// The executor is done: the Node is put in order, and the migration of the node ends.
    fn settle(&self, mut status: NodeMigrationStatus, end: End<'_>) -> Decision {
        let patch = node::settle(self.seen.node, &self.seen.migration.spec.migration.uid, end);
        status.current_step = None;
        match (end, patch) {
            (End::Target(_), Some(patch)) => {
                let message = "confirmed; the node is put back in order";
                self.then(status, NodePhase::Uncordoning, message, Act::Patch(patch))
            }
            (End::Source { .. } | End::Untouched, Some(patch)) => {
                let message = "rolled back to the source; the node is being put in order again";
                self.then(status, NodePhase::RollingBack, message, Act::Patch(patch))
            }
            (End::Target(_), None) => {
                let mut message = format!("runs on {}", self.run.plan.target);
                if self.run.plan.keeps_pods() {
                    message.push_str("; upgraded in place, the kubelet was not stopped");
                } else if let Some(millis) = status.kubelet_downtime_millis {
                    let seconds = Duration::from_millis(millis.unsigned_abs()).as_secs_f64();
                    message.push_str(&format!("; the kubelet was away for {seconds:.1} s"));
                }
                message.push_str(&self.soaks());
                message.push_str(&self.left());
                self.then(status, NodePhase::Succeeded, message, Act::Rest)
            }
            (End::Source { .. } | End::Untouched, None) => {
                let why = self.why_back(&status);
                if report::condition(&status, report::DRAIN_TIMED_OUT).is_some() {
                    let message = format!("{why}. What was prepared is undone, the node serves");
                    return self.then(status, NodePhase::Blocked, message, Act::Rest);
                }
                let message = format!(
                    "rolled back to {}: {why}{}",
                    self.run.plan.source.runtime,
                    self.left()
                );
                self.then(status, NodePhase::RolledBack, message, Act::Rest)
            }
        }
    }
}

/// Said of an upgrade in the place of the words for a drain and for an end of the pods.
const IN_PLACE: &str = "in place, no pod restarts";

/// What a drain waits for: the first few pods, the longest waiting first.
fn in_words(status: &NodeMigrationStatus) -> String {
    const SHOWN: usize = 3;
    let blocking = status.drain.iter().flat_map(|drain| &drain.blocking);
    let words: Vec<String> = blocking
        .map(|pod| format!("{}/{}: {}", pod.namespace, pod.name, pod.reason))
        .collect();
    if words.is_empty() {
        "evictions are on their way".to_owned()
    } else {
        lists::clauses_of(&words, SHOWN)
    }
}
