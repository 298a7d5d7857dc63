//! A decision in words: the status of the migration, and the events that tell what changed. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::runtime::events::EventType;

use super::rollout::{Decision, Hold, Standing, Write};
use super::seen::Seen;
use crate::api::migration::{
    MigrationPhase, Mode, NodeCounts, RuntimeMigrationSpec, RuntimeMigrationStatus, Started,
};
use crate::api::node_migration::{Action, NodePhase};

/// How many nodes a sentence names before it only counts them.
const NAMED: usize = 3;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// Normal or warning.
    pub kind: EventType,
    /// One word for it.
    pub reason: &'static str,
    /// A sentence.
    pub note: String,
    /// The node that it happened to, if to one.
    pub node: Option<String>,
}

/// The status that a decision leads to. Times of conditions that do not change are kept from `before`.
pub fn status(
    seen: &Seen,
    decision: &Decision,
    spec: &RuntimeMigrationSpec,
    before: &RuntimeMigrationStatus,
) -> RuntimeMigrationStatus {
    let nodes = counts(decision);
    let phase = phase(seen, decision, &nodes, before);
    let (reason, message) = sentence(seen, decision, phase, &nodes);
    let started = before.started.clone().or_else(|| {
        (seen.mode == Mode::Apply && !decision.starts.is_empty()).then(|| Started {
            node_selector: spec.node_selector.clone(),
            target: spec.target.clone(),
        })
    });
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let same = before
            .conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == status);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: Some(seen.generation),
            last_transition_time: same.map_or(Time(seen.now), |c| c.last_transition_time.clone()),
        }
    };
    let moving = !decision.slots.is_empty() || decision.hold.is_none() && !phase.ended();
    let bad = bad(decision);
    let degraded = !bad.is_empty() || !seen.problems.is_empty();
    let degraded_reason = match (seen.problems.is_empty(), bad.is_empty()) {
        (false, _) => "InvalidSpec",
        (true, false) => "NodesNotOnTarget",
        (true, true) => "AsExpected",
    };
    let degraded_message = if seen.problems.is_empty() {
        list(&bad)
    } else {
        seen.problems.join("; ")
    };
    RuntimeMigrationStatus {
        observed_generation: seen.generation,
        phase,
        progress: progress(seen.mode, &nodes),
        nodes,
        active_nodes: decision.slots.clone(),
        started,
        conditions: vec![
            condition("Progressing", moving, reason, &message),
            condition("Degraded", degraded, degraded_reason, &degraded_message),
            condition("Complete", phase.ended(), reason, &message),
        ],
        message,
    }
}

fn counts(decision: &Decision) -> NodeCounts {
    let mut counts = NodeCounts::default();
    for (_, standing) in &decision.standing {
        counts.total += 1;
        *match standing {
            Standing::Pending => &mut counts.pending,
            Standing::Active => &mut counts.active,
            Standing::OnTarget | Standing::Ended(NodePhase::Succeeded) => &mut counts.succeeded,
            Standing::Ended(NodePhase::Planned) => &mut counts.planned,
            Standing::Ended(NodePhase::RolledBack) => &mut counts.rolled_back,
            Standing::Ended(NodePhase::Failed) => &mut counts.failed,
            Standing::Ended(_) => &mut counts.blocked,
            Standing::LeftOut(_) => &mut counts.skipped,
        } += 1;
    }
    counts
}

/// In mode Plan a node needs nothing more when it has been looked at, in mode Apply when it is on the target.
fn progress(mode: Mode, nodes: &NodeCounts) -> String {
    let done = match mode {
        Mode::Plan => nodes.planned + nodes.blocked + nodes.succeeded + nodes.failed + nodes.rolled_back,
        Mode::Apply => nodes.succeeded,
    };
    format!("{done}/{}", nodes.total - nodes.skipped)
}

fn phase(
    seen: &Seen,
    decision: &Decision,
    nodes: &NodeCounts,
    before: &RuntimeMigrationStatus,
) -> MigrationPhase {
    let held = match &decision.hold {
        Some(Hold::Deleting) => return before.phase,
        Some(Hold::Invalid(_) | Hold::NoNodes) if decision.slots.is_empty() => {
            return MigrationPhase::Pending;
        }
        Some(Hold::Paused | Hold::Brake(_)) => true,
        Some(Hold::Invalid(_) | Hold::NoNodes | Hold::Budget(..) | Hold::Gates(_)) | None => false,
    };
    if held && nodes.pending > 0 {
        return MigrationPhase::Paused;
    }
    if nodes.pending > 0 || !decision.slots.is_empty() {
        return match seen.mode {
            Mode::Plan => MigrationPhase::Planning,
            Mode::Apply => MigrationPhase::Running,
        };
    }
    if nodes.skipped == nodes.total {
        MigrationPhase::Pending
    } else if nodes.failed > 0 {
        MigrationPhase::Failed
    } else if nodes.rolled_back > 0 || nodes.blocked > 0 {
        MigrationPhase::Degraded
    } else {
        MigrationPhase::Succeeded
    }
}

/// The reason of the condition, and the sentence that answers "why is nothing happening?".
fn sentence(
    seen: &Seen,
    decision: &Decision,
    phase: MigrationPhase,
    nodes: &NodeCounts,
) -> (&'static str, String) {
    let waits: Vec<String> = decision
        .slots
        .iter()
        .zip(&decision.waits)
        .map(|(slot, wait)| format!("{}: {wait}", slot.name))
        .collect();
    let (reason, why) = match &decision.hold {
        Some(Hold::Deleting) => (
            "Deleting",
            "deletion waits until the active nodes have ended".to_owned(),
        ),
        Some(Hold::Invalid(problems)) => (
            "InvalidSpec",
            format!("nothing is started: {}", problems.join("; ")),
        ),
        Some(Hold::NoNodes) => ("NoNodes", "spec.nodeSelector chooses no node".to_owned()),
        Some(Hold::Paused) if phase == MigrationPhase::Paused => (
            "Paused",
            "nothing more is started: spec.paused is true".to_owned(),
        ),
        Some(Hold::Brake(failed)) if phase == MigrationPhase::Paused => (
            "MaxFailuresReached",
            format!(
                "nothing more is started: {} of at most {} failures ({}); edit the spec to try again",
                failed.len(),
                seen.max_failures,
                list(&bad(decision))
            ),
        ),
        Some(Hold::Budget(names, limit)) => (
            "NoBudget",
            format!(
                "nothing is started: unavailable already are {}; maxUnavailable allows {limit}",
                list(names)
            ),
        ),
        Some(Hold::Gates(closed)) => (
            "ControlPlaneNotReady",
            format!("nothing is started: waits {}", list(closed)),
        ),
        Some(Hold::Paused | Hold::Brake(_)) | None => match phase {
            MigrationPhase::Succeeded if seen.mode == Mode::Plan => (
                "Planned",
                format!(
                    "{} planned, {} on the target; nothing was changed",
                    nodes.planned, nodes.succeeded
                ),
            ),
            MigrationPhase::Succeeded => (
                "Succeeded",
                format!("all {} nodes are on the target", nodes.succeeded),
            ),
            MigrationPhase::Degraded | MigrationPhase::Failed => (
                "NodesNotOnTarget",
                format!("ended, and not as asked: {}", list(&bad(decision))),
            ),
            MigrationPhase::Pending => (
                "NothingToDo",
                format!("every chosen node is left out: {}", left_out(decision)),
            ),
            MigrationPhase::Planning | MigrationPhase::Running | MigrationPhase::Paused => {
                let own: Vec<String> = decision
                    .waiting
                    .iter()
                    .filter_map(|(name, reason)| Some(format!("{name}: {}", reason.as_ref()?)))
                    .collect();
                let text = if decision.slots.is_empty() {
                    list(&own)
                } else {
                    String::new()
                };
                ("Progressing", text)
            }
        },
    };
    let waits = if waits.is_empty() {
        String::new()
    } else {
        format!("waiting for {}", list(&waits))
    };
    let message = [why, waits]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    (reason, message)
}

/// Nodes that ended and are not where they should be.
fn bad(decision: &Decision) -> Vec<String> {
    decision
        .standing
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::Ended(phase @ (NodePhase::RolledBack | NodePhase::Failed | NodePhase::Blocked)) => {
                Some(format!("{name} {}", phase.name()))
            }
            Standing::Ended(_)
            | Standing::Pending
            | Standing::Active
            | Standing::OnTarget
            | Standing::LeftOut(_) => None,
        })
        .collect()
}

fn left_out(decision: &Decision) -> String {
    let reasons: Vec<String> = decision
        .standing
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::LeftOut(reason) => Some(format!("{name} is {reason}")),
            Standing::Ended(_) | Standing::Pending | Standing::Active | Standing::OnTarget => None,
        })
        .collect();
    list(&reasons)
}

/// The first few of a list, and how many more there are.
pub(super) fn list(items: &[String]) -> String {
    match items.len().checked_sub(NAMED) {
        Some(more) if more > 0 => format!("{} and {more} more", items[..NAMED].join(", ")),
        _ => items.join(", "),
    }
}

/// What happened between two statuses.
pub fn happened(
    seen: &Seen,
    decision: &Decision,
    before: &RuntimeMigrationStatus,
    after: &RuntimeMigrationStatus,
) -> Vec<Happened> {
    let mut all = Vec::new();
    for name in &decision.starts {
        let note = match seen.mode {
            Mode::Plan => format!("{name}: the plan is being computed; nothing is changed"),
            Mode::Apply => {
                format!("{name}: its plan is computed; unless a finding blocks it, its runtime is switched")
            }
        };
        let reason = if seen.mode == Mode::Plan {
            "NodePlanning"
        } else {
            "NodeStarted"
        };
        all.push(Happened {
            kind: EventType::Normal,
            reason,
            note,
            node: Some(name.clone()),
        });
        let in_place = |(of, write): &(String, Write)| {
            of == name
                && matches!(write, Write::Ask(ask) if ask.no_other_node && ask.action == Action::Migrate)
        };
        if decision.writes.iter().any(in_place) {
            all.push(Happened {
                kind: EventType::Warning,
                reason: "NoOtherNode",
                note: format!(
                    "{name}: its pods will be stopped and started again in place, without evictions: the cluster has no \
                     other node that could take them"
                ),
                node: Some(name.clone()),
            });
        }
    }
    for (name, phase) in &decision.ends {
        let message = seen.share(name).map_or("", |share| share.message.as_str());
        let (kind, reason) = match phase {
            Some(NodePhase::Succeeded) => (EventType::Normal, "NodeSucceeded"),
            Some(NodePhase::Planned) => (EventType::Normal, "NodePlanned"),
            Some(NodePhase::RolledBack) => (EventType::Warning, "NodeRolledBack"),
            Some(NodePhase::Failed) => (EventType::Warning, "NodeFailed"),
            Some(_) => (EventType::Warning, "NodeBlocked"),
            None => (EventType::Normal, "NodeReleased"),
        };
        let note = if message.is_empty() {
            format!("{name} ended")
        } else {
            format!("{name}: {message}")
        };
        all.push(Happened {
            kind,
            reason,
            note,
            node: Some(name.clone()),
        });
    }
    let reason = |status: &RuntimeMigrationStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Progressing")
            .map(|c| c.reason.clone())
    };
    if reason(before) != reason(after) {
        let (kind, reason) = match &decision.hold {
            Some(Hold::Invalid(_)) => (EventType::Warning, "InvalidSpec"),
            Some(Hold::Brake(_)) if after.phase == MigrationPhase::Paused => {
                (EventType::Warning, "MaxFailuresReached")
            }
            Some(Hold::Paused) if after.phase == MigrationPhase::Paused => (EventType::Normal, "Paused"),
            Some(Hold::NoNodes) => (EventType::Warning, "NoNodes"),
            Some(Hold::Budget(..)) => (EventType::Normal, "NoBudget"),
            Some(Hold::Gates(_)) => (EventType::Normal, "ControlPlaneNotReady"),
            Some(Hold::Deleting | Hold::Paused | Hold::Brake(_)) | None => match after.phase {
                MigrationPhase::Succeeded => (EventType::Normal, "Complete"),
                MigrationPhase::Degraded | MigrationPhase::Failed => (EventType::Warning, "Complete"),
                MigrationPhase::Pending
                | MigrationPhase::Planning
                | MigrationPhase::Running
                | MigrationPhase::Paused => return all,
            },
        };
        all.push(Happened {
            kind,
            reason,
            note: after.message.clone(),
            node: None,
        });
    }
    all
}

/// Seconds since the epoch of a moment, for a gauge.
pub fn seconds(moment: Timestamp) -> f64 {
    std::time::Duration::try_from(moment.duration_since(Timestamp::UNIX_EPOCH))
        .map_or(0.0, |d| d.as_secs_f64())
}
