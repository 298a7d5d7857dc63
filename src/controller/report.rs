//! A decision in words: the status of the migration, and in [`events`] what changed. Pure.

mod events;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::rollout::{Decision, Hold, Standing};
use super::seen::Seen;
use crate::api::RETRY_ANNOTATION;
use crate::api::migration::{
    MigrationPhase, Mode, NodeCounts, RuntimeMigrationSpec, RuntimeMigrationStatus, Started,
};
use crate::api::node_migration::{DRAIN_TIMED_OUT, NodePhase};
use crate::plan::lists;

pub use events::{Happened, happened};

/// How many nodes a sentence names before it only counts them.
const NAMED: usize = 3;
/// How many codes a sentence names.
const CODES: usize = 5;
/// Condition of a migration that chooses nodes of another active one.
const OVERLAPPING: &str = "Overlapping";
/// Reason of `Degraded` where nodes were migrated and left the target afterwards.
const REVERTED: &str = "NodesReverted";

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
            source: spec.source.clone(),
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
    let bad = bad(seen, decision);
    let degraded = !bad.is_empty() || !seen.problems.is_empty();
    let degraded_reason = if !seen.problems.is_empty() {
        "InvalidSpec"
    } else if nodes.lost > 0 {
        "NodesLost"
    } else if has_reverted(decision) {
        REVERTED
    } else if !bad.is_empty() {
        "NodesNotOnTarget"
    } else {
        "AsExpected"
    };
    let degraded_message = if seen.problems.is_empty() {
        bad
    } else {
        seen.problems.join("; ")
    };
    let overlapping = overlapping(seen);
    RuntimeMigrationStatus {
        observed_generation: seen.generation,
        phase,
        progress: progress(seen.mode, &nodes),
        nodes,
        pods_on_old_shims: pods_on_old_shims(seen),
        active_nodes: decision.slots.clone(),
        started,
        conditions: vec![
            condition("Progressing", moving, reason, &message),
            condition("Degraded", degraded, degraded_reason, &degraded_message),
            condition("Complete", phase.ended(), reason, &message),
            match &overlapping {
                Some(message) => condition(OVERLAPPING, true, "SameNodes", message),
                None => condition(OVERLAPPING, false, "NoOverlap", ""),
            },
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
            Standing::Lost => &mut counts.lost,
            Standing::OnTarget | Standing::Ended(NodePhase::Succeeded) => &mut counts.succeeded,
            Standing::Ended(NodePhase::Planned) => &mut counts.planned,
            Standing::Ended(NodePhase::RolledBack) | Standing::Reverted(_) => &mut counts.rolled_back,
            Standing::Ended(NodePhase::Failed) => &mut counts.failed,
            Standing::Ended(_) => &mut counts.blocked,
            Standing::LeftOut(_) => &mut counts.skipped,
        } += 1;
    }
    counts
}

fn pods_on_old_shims(seen: &Seen) -> i64 {
    let own = seen
        .shares
        .values()
        .filter(|share| share.migration_uid == seen.uid);
    own.map(|share| i64::from(share.pods_on_old_shims)).sum()
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
        Some(Hold::Invalid(_) | Hold::NoNodes | Hold::Budget(..) | Hold::Gates(_) | Hold::Opposed(..))
        | None => false,
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
                "nothing more is started: {} of at most {} failures ({}); repair the cause, then annotate the \
                 NodeMigration with {RETRY_ANNOTATION}, or edit what is asked of nodes",
                failed.len(),
                seen.max_failures,
                list(&failures(decision, failed))
            ),
        ),
        Some(Hold::Opposed(other, runtime)) => (
            "Overlapping",
            format!(
                "nothing is started: migration {other}, which is older and has not ended, moves some of the same nodes \
                 to {runtime}; delete one of the two, or wait"
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
                format!("ended, and not as asked: {}", bad(seen, decision)),
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

/// The nodes that are not where they should be, in words. Blocked ones are counted by what blocks them.
fn bad(seen: &Seen, decision: &Decision) -> String {
    let mut blocked: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut count = 0;
    let mut others = Vec::new();
    for (name, standing) in &decision.standing {
        if let Some(how) = how_bad(standing) {
            others.push(format!("{name} {how}"));
        }
        if *standing == Standing::Ended(NodePhase::Blocked) {
            count += 1;
            let share = seen.share(name);
            let codes = share.map_or(&[][..], |share| &share.blocked_by);
            let other = match share {
                Some(share) if share.timed_out => DRAIN_TIMED_OUT,
                _ => "without a finding",
            };
            let codes = codes
                .iter()
                .map(String::as_str)
                .chain(codes.is_empty().then_some(other));
            for code in codes.collect::<BTreeSet<_>>() {
                blocked.entry(code).or_default().push(name.clone());
            }
        }
    }
    let mut parts = Vec::new();
    if !others.is_empty() {
        parts.push(list(&others));
    }
    if count > 0 {
        let mut blocked: Vec<(&str, Vec<String>)> = blocked.into_iter().collect();
        blocked.sort_by_key(|(code, names)| (std::cmp::Reverse(names.len()), *code));
        let more = blocked.len().saturating_sub(CODES);
        let mut codes: Vec<String> = blocked
            .iter()
            .take(CODES)
            .map(|(code, names)| format!("{} {code} ({})", names.len(), list(names)))
            .collect();
        if more > 0 {
            codes.push(format!("{more} more codes"));
        }
        parts.push(format!("{count} Blocked: {}", codes.join(", ")));
    }
    parts.join("; ")
}

/// How a node that is not where it should be stands; `None` also for what is only blocked.
fn how_bad(standing: &Standing) -> Option<String> {
    match standing {
        Standing::Ended(phase @ (NodePhase::RolledBack | NodePhase::Failed)) => Some(phase.name().to_owned()),
        Standing::Lost => Some("Lost".to_owned()),
        Standing::Reverted(shows) => Some(format!("was migrated and shows {shows} now")),
        Standing::Ended(_)
        | Standing::Pending
        | Standing::Active
        | Standing::OnTarget
        | Standing::LeftOut(_) => None,
    }
}

/// The nodes that count for `maxFailures`, each with how it stands.
fn failures(decision: &Decision, failed: &[String]) -> Vec<String> {
    let of = |name: &String| decision.standing.iter().find(|(other, _)| other == name);
    failed
        .iter()
        .map(|name| {
            let how = of(name).and_then(|(_, standing)| how_bad(standing));
            format!("{name} {}", how.unwrap_or_else(|| "RollingBack".to_owned()))
        })
        .collect()
}

fn has_reverted(decision: &Decision) -> bool {
    let reverted = |(_, standing): &(String, Standing)| matches!(standing, Standing::Reverted(_));
    decision.standing.iter().any(reverted)
}

/// Whether a node of an ended migration has left the target, or the status says so of one that came back to it.
pub fn reverted(decision: &Decision, before: &RuntimeMigrationStatus) -> bool {
    has_reverted(decision) || before.conditions.iter().any(|c| c.reason == REVERTED)
}

/// What is to be said of migrations that choose some of the same nodes.
fn overlapping(seen: &Seen) -> Option<String> {
    let each = seen.overlaps.iter().map(|overlap| {
        let first = if overlap.older {
            "it is older and goes first"
        } else {
            "it is younger and waits"
        };
        let runtime = overlap
            .opposed
            .map(|runtime| format!(", which it moves to {runtime}"))
            .unwrap_or_default();
        format!(
            "migration {} chooses {} of the same nodes ({}){runtime}; {first}",
            overlap.migration,
            overlap.nodes.len(),
            list(&overlap.nodes)
        )
    });
    let each: Vec<String> = each.collect();
    (!each.is_empty()).then(|| list(&each))
}

fn left_out(decision: &Decision) -> String {
    let reasons: Vec<String> = decision
        .standing
        .iter()
        .filter_map(|(name, standing)| match standing {
            Standing::LeftOut(reason) => Some(format!("{name} is {reason}")),
            Standing::Ended(_)
            | Standing::Pending
            | Standing::Active
            | Standing::Lost
            | Standing::Reverted(_)
            | Standing::OnTarget => None,
        })
        .collect();
    list(&reasons)
}

/// The first few of a list, and how many more there are.
pub(super) fn list(items: &[String]) -> String {
    lists::listed(items, NAMED)
}

/// Seconds since the epoch of a moment, for a gauge.
pub fn seconds(moment: Timestamp) -> f64 {
    std::time::Duration::try_from(moment.duration_since(Timestamp::UNIX_EPOCH))
        .map_or(0.0, |d| d.as_secs_f64())
}

#[cfg(test)]
mod tests;
