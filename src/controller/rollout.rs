//! Which node, when: a pure function of what was seen.
//!
//! A node is started by claiming a slot; the shell writes the slots with the status, by optimistic locking, before it
//! writes anything else. So a slot whose NodeMigration is missing is one that was claimed and not begun.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::seen::{NodeView, OnTarget, Seen, Share};
use crate::api::migration::{ControlPlane, Mode, Slot};
use crate::api::node_migration::{Action, NodePhase};

/// How many nodes compute their plan at a time. Nothing is changed on them; the number bounds pods and requests.
pub const PLANNING: usize = 10;
/// How long a deletion waits for an agent that has not begun.
pub const UNBEGUN: SignedDuration = SignedDuration::from_mins(2);

/// What shall be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The slots from now on: those that go on, and the new ones.
    pub slots: Vec<Slot>,
    /// Nodes of new slots.
    pub starts: Vec<String>,
    /// Nodes that gave their slot back, with the phase that they ended in (none: nothing had begun).
    pub ends: Vec<(String, Option<NodePhase>)>,
    /// NodeMigrations to write, with their action.
    pub writes: Vec<(String, Action)>,
    /// NodeMigrations of nodes that do not exist any more.
    pub forget: Vec<String>,
    /// Why nothing more is started now.
    pub hold: Option<Hold>,
    /// What each slot waits for, in the order of [`Decision::slots`].
    pub waits: Vec<String>,
    /// Nodes that could be started and are not, with the reason where it is the node's own.
    pub waiting: Vec<(String, Option<String>)>,
    /// A node could be started if the gates of the control plane are open, and nobody has looked at them yet.
    pub asks_gates: bool,
    /// How every selected node stands, by name.
    pub standing: Vec<(String, Standing)>,
}

/// Why nothing more is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The migration is being deleted.
    Deleting,
    /// The spec is invalid; the sentences say what is wrong.
    Invalid(Vec<String>),
    /// The user paused it.
    Paused,
    /// Too many nodes failed or rolled back; their names.
    Brake(Vec<String>),
    /// The selector chooses no node.
    NoNodes,
    /// Nodes are unavailable already; their names, and the limit.
    Budget(Vec<String>, usize),
    /// The control plane as a whole waits for this.
    Gates(Vec<String>),
}

/// How a selected node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not started.
    Pending,
    /// It holds a slot.
    Active,
    /// It ended in this phase.
    Ended(NodePhase),
    /// It is on the target.
    OnTarget,
    /// Left out, with the reason.
    LeftOut(String),
}

/// Decides.
pub fn decide(seen: &Seen) -> Decision {
    let mut decision = Decision::default();
    for slot in &seen.slots {
        match fate(seen, slot) {
            Fate::Keep { write, wait } => keep(&mut decision, slot.clone(), write, wait),
            Fate::Release(phase) => decision.ends.push((slot.name.clone(), phase)),
        }
    }
    adopt(seen, &mut decision);
    decision.forget = seen
        .shares
        .iter()
        .filter(|(name, share)| share.migration_uid == seen.uid && !seen.nodes.contains_key(*name))
        .map(|(name, _)| name.clone())
        .collect();

    let mut order: Vec<(&String, &NodeView)> = seen.nodes.iter().filter(|(_, node)| node.selected).collect();
    // The controller's own node goes last among its kind: its pod moves when that node is drained.
    order.sort_by_key(|(name, node)| {
        let second = node.control_plane != (seen.control_plane == ControlPlane::First);
        (second, Some(*name) == seen.own_node.as_ref(), *name)
    });
    let standing: Vec<_> = order
        .iter()
        .map(|(name, node)| (*name, standing(seen, &decision, name, node)))
        .collect();
    decision.hold = hold(seen, &standing);
    for (name, standing) in standing {
        let standing = if standing == Standing::Pending && start(seen, &mut decision, name) {
            Standing::Active
        } else {
            standing
        };
        decision.standing.push((name.clone(), standing));
    }
    let idle = decision.slots.is_empty() && !decision.waiting.is_empty() && seen.mode == Mode::Apply;
    if decision.hold.is_none() && idle {
        let unavailable = unavailable(seen, &decision);
        let closed = seen.gates.as_ref().filter(|closed| !closed.is_empty());
        if let Some(closed) = closed {
            decision.hold = Some(Hold::Gates(closed.clone()));
        } else if unavailable.len() >= seen.max_unavailable {
            decision.hold = Some(Hold::Budget(
                unavailable.into_iter().collect(),
                seen.max_unavailable,
            ));
        }
    }
    decision
}

fn keep(decision: &mut Decision, slot: Slot, write: Option<Action>, wait: String) {
    if let Some(action) = write {
        decision.writes.push((slot.name.clone(), action));
    }
    decision.waits.push(wait);
    decision.slots.push(slot);
}

enum Fate {
    Keep { write: Option<Action>, wait: String },
    Release(Option<NodePhase>),
}

/// What becomes of a slot.
fn fate(seen: &Seen, slot: &Slot) -> Fate {
    let Some(node) = seen.nodes.get(&slot.name) else {
        return Fate::Release(None);
    };
    if let Some(error) = seen.unreadable.get(&slot.name) {
        // It may be under way.
        return Fate::Keep {
            write: None,
            wait: format!("its NodeMigration cannot be read, correct or delete it ({error})"),
        };
    }
    let stale = slot.generation != seen.generation || seen.deleting;
    let Some(share) = seen
        .share(&slot.name)
        .filter(|share| share.generation >= slot.generation)
    else {
        // Claimed, and nothing was written yet.
        return if stale || seen.foreign(&slot.name).is_some() {
            Fate::Release(None)
        } else {
            Fate::Keep {
                write: Some(action(seen.mode)),
                wait: "its NodeMigration is being written".to_owned(),
            }
        };
    };
    if share.phase.ended() {
        return match doubt(share, node, slot) {
            Some(wait) => Fate::Keep { write: None, wait },
            None => Fate::Release(Some(share.phase)),
        };
    }
    let wait = waits_for(seen, slot, share);
    let unbegun = share.phase == NodePhase::Pending;
    match share.action {
        // Planning changes nothing: it can be let go at any time.
        Action::Plan if stale => Fate::Release(None),
        Action::Migrate if seen.deleting => Fate::Keep {
            write: Some(Action::Abort),
            wait,
        },
        Action::Abort if unbegun && seen.now.duration_since(slot.since.0) >= UNBEGUN => Fate::Release(None),
        Action::Migrate if unbegun && stale => Fate::Release(None),
        Action::Plan | Action::Migrate | Action::Abort => Fate::Keep { write: None, wait },
    }
}

/// Why a claim of success is not believed: on servers without admission policies any agent could have written it, the
/// Node is written by the node's own kubelet.
fn doubt(share: &Share, node: &NodeView, slot: &Slot) -> Option<String> {
    if share.phase != NodePhase::Succeeded {
        None
    } else if node.on_target == OnTarget::No {
        Some("its agent says Succeeded, but the Node shows another runtime".to_owned())
    } else if !node.ready {
        Some("its agent says Succeeded, but the Node is not Ready".to_owned())
    } else if node.cordoned && !slot.cordoned {
        Some("its agent says Succeeded, but the Node is still cordoned".to_owned())
    } else {
        None
    }
}

fn waits_for(seen: &Seen, slot: &Slot, share: &Share) -> String {
    let since = slot.since.0;
    if share.phase == NodePhase::Pending {
        return match seen.agent_trouble.get(&slot.name) {
            Some(trouble) => format!("its agent has not begun since {since:.0}: {trouble}"),
            None => format!("its agent has not begun since {since:.0}"),
        };
    }
    let colon = if share.message.is_empty() { "" } else { ": " };
    format!(
        "{} (started {since:.0}){colon}{}",
        share.phase.name(),
        share.message
    )
}

/// A node that is under way without a slot gets one, whatever the budget says: it is under way.
fn adopt(seen: &Seen, decision: &mut Decision) {
    for (name, node) in &seen.nodes {
        let Some(share) = seen.share(name) else { continue };
        let under_way =
            !share.phase.ended() && share.phase != NodePhase::Pending && share.action != Action::Plan;
        let has_slot = seen.slots.iter().any(|slot| slot.name == *name);
        if under_way && !has_slot {
            let slot = new_slot(name, share.generation, seen.now, node);
            let write = (seen.deleting && share.action == Action::Migrate).then_some(Action::Abort);
            let wait = waits_for(seen, &slot, share);
            keep(decision, slot, write, wait);
        }
    }
}

fn new_slot(name: &str, generation: i64, now: Timestamp, node: &NodeView) -> Slot {
    Slot {
        name: name.to_owned(),
        generation,
        since: Time(now),
        cordoned: node.cordoned_by_others,
    }
}

const fn action(mode: Mode) -> Action {
    match mode {
        Mode::Plan => Action::Plan,
        Mode::Apply => Action::Migrate,
    }
}

fn standing(seen: &Seen, decision: &Decision, name: &str, node: &NodeView) -> Standing {
    if decision.slots.iter().any(|slot| slot.name == name) {
        return Standing::Active;
    }
    if let Some(why) = node.left_out {
        return Standing::LeftOut(why.reason().to_owned());
    }
    if let Some(other) = seen.foreign(name) {
        return Standing::LeftOut(format!(
            "under the migration {}, which has not ended",
            other.migration_name
        ));
    }
    let Some(share) = seen.share(name) else {
        return if node.on_target == OnTarget::Yes {
            Standing::OnTarget
        } else {
            Standing::Pending
        };
    };
    match share.phase {
        // A new generation retries the others; what has succeeded stays, and what is broken needs a person.
        NodePhase::Succeeded | NodePhase::Failed => Standing::Ended(share.phase),
        phase if phase.ended() && share.generation == seen.generation => Standing::Ended(phase),
        _ => Standing::Pending,
    }
}

fn hold(seen: &Seen, standing: &[(&String, Standing)]) -> Option<Hold> {
    let failed: Vec<String> = standing
        .iter()
        .filter(|(name, standing)| {
            matches!(
                standing,
                Standing::Ended(NodePhase::RolledBack | NodePhase::Failed)
            ) && seen
                .share(name)
                .is_some_and(|share| share.generation == seen.generation)
        })
        .map(|(name, _)| (*name).clone())
        .collect();
    if seen.deleting {
        Some(Hold::Deleting)
    } else if !seen.problems.is_empty() {
        Some(Hold::Invalid(seen.problems.clone()))
    } else if standing.is_empty() {
        Some(Hold::NoNodes)
    } else if seen.paused {
        Some(Hold::Paused)
    } else if failed.len() >= seen.max_failures {
        Some(Hold::Brake(failed))
    } else {
        None
    }
}

/// Claims a slot for a node if nothing speaks against it; notes why not otherwise.
fn start(seen: &Seen, decision: &mut Decision, name: &str) -> bool {
    let Some(node) = seen.nodes.get(name) else {
        return false;
    };
    let why_not = if decision.hold.is_some() || seen.ended {
        Some(None)
    } else if !node.ready {
        Some(Some("it is not Ready".to_owned()))
    } else if seen.unreadable.contains_key(name) {
        Some(Some(
            "its NodeMigration cannot be read; correct or delete it".to_owned(),
        ))
    } else if let Some(turn) = turn(seen, decision, node).filter(|_| seen.mode == Mode::Apply) {
        decision.asks_gates |= turn.is_none();
        Some(turn)
    } else {
        let room = match seen.mode {
            Mode::Plan => decision.slots.len() < PLANNING,
            Mode::Apply => {
                let mut then = unavailable(seen, decision);
                then.insert(name.to_owned());
                then.len() <= seen.max_unavailable && decision.slots.len() < seen.max_unavailable
            }
        };
        (!room).then_some(None)
    };
    if let Some(reason) = why_not {
        decision.waiting.push((name.to_owned(), reason));
        return false;
    }
    let slot = new_slot(name, seen.generation, seen.now, node);
    keep(
        decision,
        slot,
        Some(action(seen.mode)),
        "it is being started".to_owned(),
    );
    decision.starts.push(name.to_owned());
    true
}

/// Why it is not a node's turn yet, if it is not; without words when the gates have to be asked first. The nodes
/// before it in the order have been decided about.
fn turn(seen: &Seen, decision: &Decision, node: &NodeView) -> Option<Option<String>> {
    let is_control_plane = |name: &str| seen.nodes.get(name).is_some_and(|node| node.control_plane);
    let ended = |name: &str| Some(Some(format!("waits until {name} has ended")));
    let slots = || decision.slots.iter().map(|slot| slot.name.as_str());
    let active = if node.control_plane {
        slots().next()
    } else {
        slots().find(|name| is_control_plane(name))
    };
    if let Some(active) = active {
        return ended(active);
    }
    let mut waiting = decision.waiting.iter().map(|(name, _)| name.as_str());
    let before = match seen.control_plane {
        ControlPlane::Last if node.control_plane => waiting.find(|name| !is_control_plane(name)),
        ControlPlane::First if !node.control_plane => waiting.find(|name| is_control_plane(name)),
        ControlPlane::Last | ControlPlane::First | ControlPlane::Skip => None,
    };
    if let Some(before) = before {
        return ended(before);
    }
    // What one control plane node has left behind is looked at before any other node is touched.
    let moved = seen.nodes.iter().any(|(name, node)| {
        let migrated = |share: &Share| share.action == Action::Migrate && share.phase.ended();
        node.control_plane && seen.share(name).is_some_and(migrated)
    });
    match &seen.gates {
        _ if !node.control_plane && !moved => None,
        None => Some(None),
        Some(closed) if closed.is_empty() => None,
        Some(closed) => Some(Some(format!("waits {}", closed.join(", and ")))),
    }
}

/// The nodes that are or may become unavailable, for any reason.
fn unavailable(seen: &Seen, decision: &Decision) -> BTreeSet<String> {
    Seen::budgeted(&seen.nodes)
        .filter(|(_, node)| !node.ready || node.cordoned)
        .map(|(name, _)| name.clone())
        .chain(decision.slots.iter().map(|slot| slot.name.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
