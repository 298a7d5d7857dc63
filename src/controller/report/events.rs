//! The events that tell what changed from one status to the next.

use kube_runtime::events::EventType;

use super::{OVERLAPPING, REVERTED};
use crate::api::migration::{MigrationPhase, Mode, RuntimeMigrationStatus, Slot};
use crate::api::node_migration::{Action, NodePhase};
use crate::controller::rollout::{Decision, Hold, Write};
use crate::controller::seen::Seen;

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
                note: if seen.is_upgrade(name) {
                    format!(
                        "{name}: its pods keep running while the runtime is upgraded, and are not evicted: the cluster has no \
                         other node that could take them"
                    )
                } else {
                    format!(
                        "{name}: its pods will be stopped and started again in place, without evictions: the cluster has \
                         no other node that could take them"
                    )
                },
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
    for slot in &decision.slots {
        all.extend(lost_or_found(decision, before, slot));
    }
    let condition = |status: &RuntimeMigrationStatus, kind: &str| {
        let found = status.conditions.iter().find(|c| c.type_ == kind);
        found.map(|c| (c.status == "True", c.reason.clone(), c.message.clone()))
    };
    for (kind, event) in [(OVERLAPPING, OVERLAPPING), ("Degraded", REVERTED)] {
        let holds = |status: &RuntimeMigrationStatus| {
            condition(status, kind)
                .filter(|(holds, reason, _)| *holds && (kind == OVERLAPPING || reason == REVERTED))
        };
        if let (None, Some((_, _, note))) = (holds(before), holds(after)) {
            all.push(Happened {
                kind: EventType::Warning,
                reason: event,
                note,
                node: None,
            });
        }
    }
    let reason =
        |status: &RuntimeMigrationStatus| condition(status, "Progressing").map(|(_, reason, _)| reason);
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
            // The condition has its event.
            Some(Hold::Opposed(..)) => return all,
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

/// What is said of a node that is lost since this decision, or not any more.
fn lost_or_found(decision: &Decision, before: &RuntimeMigrationStatus, slot: &Slot) -> Option<Happened> {
    let was_lost = before
        .active_nodes
        .iter()
        .any(|old| old.name == slot.name && old.lost.is_some());
    let (kind, reason) = match (was_lost, slot.lost.is_some()) {
        (false, true) => (EventType::Warning, "NodeLost"),
        (true, false) => (EventType::Normal, "NodeFound"),
        (true, true) | (false, false) => return None,
    };
    let at = decision.slots.iter().position(|other| other.name == slot.name)?;
    Some(Happened {
        kind,
        reason,
        note: format!("{}: {}", slot.name, decision.waits.get(at)?),
        node: Some(slot.name.clone()),
    })
}
