//! What the agent does next: a pure function of what it sees. The truth is the host's journal and the Node; the
//! status is written before every act, and what it alone remembers (when the drain began, that it timed out) is
//! read back from it after the agent's death in the middle of a switch.

mod begun;
mod untouched;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;
use serde_json::Value;

use super::{
    host::{Attempt, Planned, Run},
    parent::Parent,
    report,
};
use crate::{
    api::node_migration::{
        Action, NodeMigration, NodeMigrationSpec, NodeMigrationStatus, NodePhase, PlanSummary,
    },
    executor::{control::Order, progress::State},
    plan::{baseline::Baseline, document::Plan},
};

/// How long a refused eviction rests (kubectl's interval).
const RETRY_EVICTION: Duration = Duration::from_secs(5);
/// How long something may keep failing before a node that is untouched is given up.
const GIVE_UP: Duration = Duration::from_secs(120);

/// All that a decision is made from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Now.
    pub now: Timestamp,
    /// The namespace and name of the agent's own pod.
    pub own_pod: (&'a str, &'a str),
    /// The contract with the controller.
    pub migration: &'a NodeMigration,
    /// Whether its `RuntimeMigration` says the same; asked while that can still keep the node from its switch.
    pub parent: &'a Parent,
    /// What is on the host, as far as the status alone does not say which attempt goes on.
    pub attempts: &'a [Attempt],
    /// The Node.
    pub node: &'a Node,
    /// All pods that are bound to the node.
    pub pods: &'a [Pod],
    /// The attempt that [`run_name`] names, when it has a plan on the host.
    pub run: Option<&'a Run>,
    /// What the spec means on this host, when that was computed for the same attempt.
    pub planned: Option<&'a Planned>,
    /// What the kubelet's health endpoint said; asked while a commit is awaited.
    pub kubelet: Option<Result<(), &'a str>>,
    /// Evictions that were refused, by the pod's UID.
    pub refusals: &'a BTreeMap<String, Refusal>,
    /// What keeps failing.
    pub trouble: Option<&'a Trouble>,
}

impl Seen<'_> {
    /// Whether the node is asked to end what it began: by the controller, or by whoever deletes the `NodeMigration`.
    fn is_aborted(&self) -> bool {
        let deleted = self.migration.metadata.deletion_timestamp.is_some();
        deleted || self.migration.spec.action == Action::Abort
    }
}

/// An eviction that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

/// Something that keeps failing.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// Since when.
    pub since: Timestamp,
    /// What, and why.
    pub message: String,
}

/// What to do next. The status is written first.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// The status as it shall be.
    pub status: NodeMigrationStatus,
    /// What is done then.
    pub act: Act,
}

/// One act of the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Nothing, until the spec changes.
    Rest,
    /// Look again soon.
    Wait,
    /// Collect facts and compute a plan.
    Plan,
    /// Write the plan to the host and start the executor on it.
    Install(Box<Plan>),
    /// Start the executor again.
    StartExecutor,
    /// Record what the API reports now, and order the switch.
    Go(Box<Baseline>),
    /// Give the executor another order.
    Order(Order),
    /// Patch the Node.
    Patch(Value),
    /// Evict the pods with these UIDs.
    Evict(Vec<String>),
}

/// The name of the attempt that the agent works on: the migration's UID and the generation of its spec. An
/// attempt that has begun is brought to its end before a newer generation is taken up.
pub fn run_name(migration: &NodeMigration, attempts: &[Attempt]) -> String {
    let status = current(migration, attempts);
    let name = format!("{}-{}", migration.spec.migration.uid, status.migration_generation);
    match status.attempt {
        0 => name,
        attempt => format!("{name}-{attempt}"),
    }
}

/// The status, as far as it speaks of this migration and this node; else a new one. What begins (again) gets the
/// generation and the action of the spec.
fn current(migration: &NodeMigration, attempts: &[Attempt]) -> NodeMigrationStatus {
    let mut status = reported(migration);
    if let Some(attempt) = unfinished(&status, attempts, &migration.spec.migration.uid) {
        status.migration_generation = attempt.generation;
        status.attempt = attempt.number;
        status.action = Some(Action::Migrate);
        if status.phase.ended() {
            status.phase = NodePhase::Preparing;
        }
    }
    status
}

fn reported(migration: &NodeMigration) -> NodeMigrationStatus {
    let spec = &migration.spec;
    let ours = migration
        .status
        .as_ref()
        .filter(|status| status.migration_uid == spec.migration.uid && status.node_uid == spec.node_uid);
    match ours {
        None => report::begin(spec),
        Some(status) if starts_over(spec, status) => report::begin(spec),
        Some(status) => {
            let mut status = status.clone();
            if is_between(status.phase) {
                // For what has ended this names the attempt anew; it is not looked at again.
                report::acknowledge(&mut status, spec);
            }
            status
        }
    }
}

/// The attempt of this migration that its status does not speak of and that is not settled: the `NodeMigration` was
/// deleted and made again in the middle, its end was forged, or a person has helped a node that had failed.
fn unfinished<'a>(
    status: &NodeMigrationStatus,
    attempts: &'a [Attempt],
    migration: &str,
) -> Option<&'a Attempt> {
    let mut own = attempts.iter().filter(|attempt| attempt.migration == migration);
    match status.phase {
        NodePhase::Failed => own
            .max_by_key(|attempt| (attempt.generation, attempt.number))
            .filter(|last| last.state.is_some_and(|state| state != State::Broken)),
        // A journal that needs a person is named by the preflight.
        NodePhase::Pending | NodePhase::Preflight => {
            own.find(|attempt| attempt.is_open() && attempt.state != Some(State::Broken))
        }
        phase if phase.ended() => own.find(|attempt| attempt.is_open()),
        _ => None,
    }
}

const fn is_between(phase: NodePhase) -> bool {
    matches!(phase, NodePhase::Pending | NodePhase::Preflight) || phase.ended()
}

/// Whether the status does not say which attempt goes on, so that the host must be asked for all of them.
pub fn asks_for_attempts(migration: &NodeMigration) -> bool {
    is_between(reported(migration).phase)
}

/// Whether the `RuntimeMigration` can still keep the node from its switch.
pub fn asks_for_parent(migration: &NodeMigration, attempts: &[Attempt]) -> bool {
    let phase = current(migration, attempts).phase;
    let early = matches!(
        phase,
        NodePhase::Pending | NodePhase::Preflight | NodePhase::Preparing | NodePhase::Draining
    );
    early && migration.spec.action != Action::Abort
}

/// Whether there is nothing to do until the spec changes.
pub fn is_at_rest(migration: &NodeMigration, attempts: &[Attempt]) -> bool {
    current(migration, attempts).phase.ended()
}

/// Whether an ended node is begun again: it is as it was before, and something else is asked for.
fn starts_over(spec: &NodeMigrationSpec, status: &NodeMigrationStatus) -> bool {
    let untouched = matches!(
        status.phase,
        NodePhase::Blocked | NodePhase::Planned | NodePhase::RolledBack
    );
    let asked = (spec.migration.generation, spec.attempt);
    let newer = asked > (status.migration_generation, status.attempt);
    // A person asks for the attempt, and answers for what another end has left on the node.
    let retried = newer && spec.attempt > 0 && status.phase.ended();
    let news = newer || Some(spec.action) != status.action;
    (untouched && news || retried) && spec.action != Action::Abort
}

/// Decides what to do next; nothing when the `NodeMigration` is not about this node.
pub fn decide(seen: &Seen<'_>) -> Option<Decision> {
    if seen.node.uid().as_deref() != Some(&seen.migration.spec.node_uid) {
        return None;
    }
    let mut status = current(seen.migration, seen.attempts);
    if status.phase.ended() {
        return Some(Decision {
            status,
            act: Act::Rest,
        });
    }
    status.last_error = None;
    let begun = seen
        .run
        .and_then(|run| run.progress.as_ref().map(|progress| (run, progress)));
    let mut decision = match begun {
        Some((run, progress)) => begun::Attempt { seen, run, progress }.decide(status),
        None => untouched::decide(seen, status),
    };
    if let Some(trouble) = seen.trouble.filter(|_| !decision.status.phase.ended()) {
        decision.status.last_error = Some(trouble.message.clone());
    }
    decision.status = report::fit(decision.status);
    Some(decision)
}

/// What is reported when so much fails that nothing can be decided.
pub fn in_trouble(migration: &NodeMigration, trouble: &Trouble, now: Timestamp) -> NodeMigrationStatus {
    let mut status = reported(migration);
    if status.phase.ended() {
        return status;
    }
    let untouched = matches!(status.phase, NodePhase::Pending | NodePhase::Preflight);
    if untouched && trouble.is_lasting(now) {
        report::enter(&mut status, NodePhase::Blocked, now);
        status.message = format!("gave up before anything was changed: {}", trouble.message);
    } else if untouched {
        report::enter(&mut status, NodePhase::Preflight, now);
        status.message = format!("tries again: {}", trouble.message);
    }
    status.last_error = Some(trouble.message.clone());
    report::fit(status)
}

impl Trouble {
    fn is_lasting(&self, now: Timestamp) -> bool {
        now.duration_since(self.since).unsigned_abs() > GIVE_UP
    }
}

/// Fills in what a plan says.
fn describe(status: &mut NodeMigrationStatus, plan: &Plan, words: &[String]) {
    status.source = Some(plan.source.clone());
    status.target = Some(plan.target.clone());
    let digest = plan.digest().as_str().to_owned();
    if status
        .plan
        .as_ref()
        .is_none_or(|summary| summary.digest != digest)
    {
        status.plan = Some(PlanSummary {
            digest,
            steps: words.to_vec(),
            diff: String::new(),
        });
        status.findings.clone_from(&plan.findings);
    }
}

#[cfg(test)]
mod tests;
