//! Which node, when: a pure function of what was seen.
//!
//! A node is started by claiming a slot; the shell writes the slots with the status, by optimistic locking, before it
//! writes anything else. So a slot whose NodeMigration is missing is one that was claimed and not begun, or whose
//! NodeMigration was taken away: it is created (again).
//!
//! - [`slots`]: what becomes of the slots that are held, and [`ends`]: whether an end that is reported is believed.
//! - [`brake`]: how every node stands, and whether too many failed.
//! - [`starts`]: which nodes get a new slot.

mod brake;
mod ends;
mod slots;
mod starts;

use super::seen::{NodeView, Seen};
use crate::api::migration::{ControlPlane, Mode, Slot};
use crate::api::node_migration::{Action, NodePhase};
use crate::api::request::Runtime;
use slots::Fate;
pub(super) use slots::UNBEGUN;
use starts::Budget;

/// What shall be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// The slots from now on: those that go on, and the new ones.
    pub slots: Vec<Slot>,
    /// Nodes of new slots.
    pub starts: Vec<String>,
    /// Nodes that gave their slot back, with the phase that they ended in (none: nothing had begun).
    pub ends: Vec<(String, Option<NodePhase>)>,
    /// NodeMigrations to write, by the name of their node.
    pub writes: Vec<(String, Write)>,
    /// NodeMigrations of nodes that do not exist any more.
    pub forget: Vec<String>,
    /// Why nothing more is started now.
    pub hold: Option<Hold>,
    /// What each slot waits for, in the order of [`Decision::slots`].
    pub waits: Vec<String>,
    /// Nodes that could be started and are not, with the reason where it is the node's own.
    pub waiting: Vec<(String, Option<String>)>,
    /// A node could be started, or its switch let begin, if the gates of the control plane are open, and nobody has
    /// looked at them yet.
    pub asks_gates: bool,
    /// The switch of a node waits for something that no watch reports.
    pub gated: bool,
    /// How every selected node stands, by name.
    pub standing: Vec<(String, Standing)>,
}

/// What is written to a NodeMigration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// The whole spec, new.
    Ask(Ask),
    /// The action `Abort`; the rest stays as the agent began it.
    Abort,
    /// Whether the switch may begin.
    Proceed(bool),
    /// The pods leave the node after all: the cluster has another node now.
    Evict,
}

/// What a new spec asks of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What the agent does.
    pub action: Action,
    /// The pods stay, because the cluster has no other node for them.
    pub no_other_node: bool,
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
    /// Too many nodes failed, rolled back or were lost; their names.
    Brake(Vec<String>),
    /// An older migration moves some of the same nodes to another runtime: its name, and that runtime.
    Opposed(String, Runtime),
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
    /// It holds a slot, and its Node is not Ready for longer than a switch and its rollback take.
    Lost,
    /// It was migrated, and its Node shows this runtime now.
    Reverted(String),
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
        match slots::fate(seen, slot) {
            Fate::Keep(kept) => decision.keep(slots::marked(seen, slot), kept),
            Fate::Release(phase) => decision.ends.push((slot.name.clone(), phase)),
        }
    }
    slots::adopt(seen, &mut decision);
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
        .map(|(name, node)| (*name, brake::standing(seen, &decision, name, node)))
        .collect();
    decision.hold = brake::hold(seen, &standing);
    let mut budget = Budget::new(seen, &decision);
    for (name, standing) in standing {
        let started = standing == Standing::Pending && starts::start(seen, &mut decision, &mut budget, name);
        let standing = if started { Standing::Active } else { standing };
        decision.standing.push((name.clone(), standing));
    }
    let idle = decision.slots.is_empty() && !decision.waiting.is_empty() && seen.mode == Mode::Apply;
    if decision.hold.is_none() && idle {
        let closed = seen.gates.as_ref().filter(|closed| !closed.is_empty());
        decision.hold = match closed {
            Some(closed) => Some(Hold::Gates(closed.clone())),
            // Others wait for something of their own.
            None if decision.waiting.iter().all(|(_, reason)| reason.is_some()) => None,
            None => budget.exhausted(),
        };
    }
    decision
}

#[cfg(test)]
pub(super) mod tests;
