//! Which nodes get a slot now: their turn, the budget, and a place for their pods.

use std::collections::BTreeSet;

use super::slots::{Kept, ask, new_slot, no_room};
use super::{Decision, Hold, Write};
use crate::api::migration::{ControlPlane, Mode};
use crate::api::request::DrainMode;
use crate::controller::seen::{Elsewhere, NodeView, Seen};

/// How many nodes compute their plan at a time. Nothing is changed on them; the number bounds pods and requests.
pub(super) const PLANNING: usize = 10;

/// What may still be started, computed once for a decision and spent node by node.
pub(super) struct Budget {
    /// The nodes that are or may become unavailable, for any reason.
    unavailable: BTreeSet<String>,
    /// How many of them there may be.
    limit: usize,
    /// What one control plane node has left behind is looked at before any other node is touched.
    gated: bool,
}

impl Budget {
    /// What the slots that are held leave.
    pub(super) fn new(seen: &Seen, decision: &Decision) -> Self {
        let unavailable = Seen::budgeted(&seen.nodes)
            .filter(|(_, node)| !node.ready || node.cordoned || node.busy_with.is_some())
            .map(|(name, _)| name.clone())
            .chain(decision.slots.iter().map(|slot| slot.name.clone()));
        Self {
            unavailable: unavailable.collect(),
            limit: seen.max_unavailable,
            gated: seen.moved_control_plane(),
        }
    }

    /// Whether a node may become unavailable too.
    fn has_room(&self, name: &str, decision: &Decision) -> bool {
        let more = usize::from(!self.unavailable.contains(name));
        self.unavailable.len() + more <= self.limit && decision.slots.len() < self.limit
    }

    /// Why nothing is started, where that is the reason.
    pub(super) fn exhausted(self) -> Option<Hold> {
        (self.unavailable.len() >= self.limit)
            .then(|| Hold::Budget(self.unavailable.into_iter().collect(), self.limit))
    }
}

/// Whether it is a node's turn.
enum Turn {
    Now,
    /// It is, if the gates of the control plane are open; they have to be asked.
    AskGates,
    /// It is not; the reason.
    Wait(String),
}

/// Claims a slot for a node if nothing speaks against it; notes why not otherwise.
pub(super) fn start(seen: &Seen, decision: &mut Decision, budget: &mut Budget, name: &str) -> bool {
    let Some(node) = seen.nodes.get(name) else {
        return false;
    };
    if let Err(reason) = may_start(seen, decision, budget, (name, node)) {
        decision.waiting.push((name.to_owned(), reason));
        return false;
    }
    budget.unavailable.insert(name.to_owned());
    let kept = Kept {
        write: Some(Write::Ask(ask(seen, name))),
        wait: "it is being started".to_owned(),
        ..Kept::default()
    };
    decision.keep(new_slot(name, seen.generation, seen.now, node), kept);
    decision.starts.push(name.to_owned());
    true
}

/// Why a node is not started now, if it is not; `None` where the reason is not the node's own.
fn may_start(
    seen: &Seen,
    decision: &mut Decision,
    budget: &Budget,
    (name, node): (&str, &NodeView),
) -> Result<(), Option<String>> {
    if decision.hold.is_some() || seen.ended {
        return Err(None);
    }
    if let Some(other) = seen.left_to(name) {
        return Err(Some(format!("waits for {name}, which migration {other} has")));
    }
    if !node.ready {
        return Err(Some("it is not Ready".to_owned()));
    }
    if seen.unreadable.contains_key(name) {
        let reason = "its NodeMigration cannot be read; correct or delete it";
        return Err(Some(reason.to_owned()));
    }
    if seen.mode == Mode::Plan {
        let room = decision.slots.len() < PLANNING;
        return if room { Ok(()) } else { Err(None) };
    }
    match turn(seen, decision, budget, node) {
        Turn::Now => {}
        Turn::AskGates => {
            decision.asks_gates = true;
            return Err(None);
        }
        Turn::Wait(reason) => return Err(Some(reason)),
    }
    if !budget.has_room(name, decision) {
        return Err(None);
    }
    match seen.elsewhere(name, &decision.slots) {
        Elsewhere::Later(others) if seen.drain_of(name) == DrainMode::Evict => Err(Some(no_room(&others))),
        Elsewhere::Later(_) | Elsewhere::Now | Elsewhere::Never => Ok(()),
    }
}

/// The nodes before a node in the order have been decided about.
fn turn(seen: &Seen, decision: &Decision, budget: &Budget, node: &NodeView) -> Turn {
    let is_control_plane = |name: &str| seen.nodes.get(name).is_some_and(|node| node.control_plane);
    let mut slots = decision.slots.iter().map(|slot| slot.name.as_str());
    let active = if node.control_plane {
        slots.next()
    } else {
        slots.find(|name| is_control_plane(name))
    };
    let mut waiting = decision.waiting.iter().map(|(name, _)| name.as_str());
    let before = active.or_else(|| match seen.control_plane {
        ControlPlane::Last if node.control_plane => waiting.find(|name| !is_control_plane(name)),
        ControlPlane::First if !node.control_plane => waiting.find(|name| is_control_plane(name)),
        ControlPlane::Last | ControlPlane::First | ControlPlane::Skip => None,
    });
    if let Some(before) = before {
        return Turn::Wait(format!("waits until {before} has ended"));
    }
    match &seen.gates {
        _ if !node.control_plane && !budget.gated => Turn::Now,
        None => Turn::AskGates,
        Some(closed) if closed.is_empty() => Turn::Now,
        Some(closed) => Turn::Wait(format!("waits {}", closed.join(", and "))),
    }
}
