//! What becomes of the slots that are held: written, waited for, aborted, let switch, given back. A node that is under
//! way without a slot gets one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Ask, Decision, Write};
use crate::api::migration::{Mode, Slot};
use crate::api::node_migration::{Action, NodePhase};
use crate::api::request::DrainMode;
use crate::controller::report::list;
use crate::controller::seen::{Elsewhere, NodeView, OnTarget, Seen, Share};

/// How long a deletion waits for an agent that has not begun.
const UNBEGUN: SignedDuration = SignedDuration::from_mins(2);

/// What becomes of a slot.
pub(super) enum Fate {
    /// It is held further.
    Keep(Kept),
    /// It is given back, with the phase that its node ended in (`None` if nothing had begun).
    Release(Option<NodePhase>),
}

/// A slot that is held further.
#[derive(Default)]
pub(super) struct Kept {
    /// What is written to its NodeMigration.
    pub(super) write: Option<Write>,
    /// What it waits for.
    pub(super) wait: String,
    /// The gates of the control plane have to be asked.
    pub(super) asks_gates: bool,
    /// It waits for something that no watch reports.
    pub(super) gated: bool,
}

impl Decision {
    /// Holds a slot.
    pub(super) fn keep(&mut self, slot: Slot, kept: Kept) {
        if let Some(write) = kept.write {
            self.writes.push((slot.name.clone(), write));
        }
        self.asks_gates |= kept.asks_gates;
        self.gated |= kept.gated;
        self.waits.push(kept.wait);
        self.slots.push(slot);
    }
}

fn waits(wait: impl Into<String>) -> Fate {
    Fate::Keep(Kept {
        wait: wait.into(),
        ..Kept::default()
    })
}

fn writes(write: Write, wait: impl Into<String>) -> Fate {
    Fate::Keep(Kept {
        write: Some(write),
        wait: wait.into(),
        ..Kept::default()
    })
}

/// What becomes of a slot.
pub(super) fn fate(seen: &Seen, slot: &Slot) -> Fate {
    let Some(node) = seen.nodes.get(&slot.name) else {
        return Fate::Release(None);
    };
    if let Some(error) = seen.unreadable.get(&slot.name) {
        // It may be under way.
        return waits(format!(
            "its NodeMigration cannot be read, correct or delete it ({error})"
        ));
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
            writes(
                Write::Ask(ask(seen, &slot.name)),
                "its NodeMigration is being written",
            )
        };
    };
    if share.phase.ended() {
        return match doubt(share, node, slot) {
            Some(wait) => waits(wait),
            None => Fate::Release(Some(share.phase)),
        };
    }
    let wait = waits_for(seen, slot, share);
    let unbegun = share.phase == NodePhase::Pending;
    match share.action {
        // Planning changes nothing: it can be let go at any time.
        Action::Plan if stale => Fate::Release(None),
        Action::Migrate if seen.deleting => writes(Write::Abort, wait),
        Action::Abort if unbegun && seen.now.duration_since(slot.since.0) >= UNBEGUN => Fate::Release(None),
        Action::Migrate if unbegun && stale => Fate::Release(None),
        Action::Migrate if share.ready_to_switch => permit(seen, slot, node, share),
        Action::Plan | Action::Migrate | Action::Abort => waits(wait),
    }
}

/// Whether a node that has only the switch left to do may begin it. What allowed it when the node was started is
/// looked at again: a drain lies between.
fn permit(seen: &Seen, slot: &Slot, node: &NodeView, share: &Share) -> Fate {
    let closed = match seen.elsewhere(&slot.name, &seen.slots) {
        Elsewhere::Now if share.no_other_node => {
            return writes(
                Write::Evict,
                "another node can take its pods now: they are evicted",
            );
        }
        Elsewhere::Later(why) if share.no_other_node => Some(no_room(&why)),
        _ if !node.control_plane && !seen.moved_control_plane() => None,
        _ => match &seen.gates {
            None => {
                return Fate::Keep(Kept {
                    wait: "ready to switch; the gates of the control plane are asked".to_owned(),
                    asks_gates: true,
                    gated: true,
                    ..Kept::default()
                });
            }
            Some(closed) if closed.is_empty() => None,
            Some(closed) => Some(format!("waits {}", closed.join(", and "))),
        },
    };
    let proceed = closed.is_none();
    Fate::Keep(Kept {
        write: (share.proceed != proceed).then_some(Write::Proceed(proceed)),
        gated: !proceed,
        asks_gates: false,
        wait: match closed {
            Some(why) => format!("ready to switch; {why}"),
            None => waits_for(seen, slot, share),
        },
    })
}

/// Why the pods of a node have nowhere to go now.
pub(super) fn no_room(others: &[String]) -> String {
    format!("waits until another node can take the pods: {}", list(others))
}

/// What is asked of a node that is started now.
pub(super) fn ask(seen: &Seen, name: &str) -> Ask {
    Ask {
        action: match seen.mode {
            Mode::Plan => Action::Plan,
            Mode::Apply => Action::Migrate,
        },
        no_other_node: seen.drain == DrainMode::Evict && seen.elsewhere(name, &[]) == Elsewhere::Never,
    }
}

/// Why a claim of success is not believed: on servers without admission policies any agent could have written it, the
/// Node is written by the node's own kubelet.
fn doubt(share: &Share, node: &NodeView, slot: &Slot) -> Option<String> {
    if share.phase != NodePhase::Succeeded {
        None
    } else if node.on_target == OnTarget::No {
        Some(format!(
            "its agent says Succeeded, but the Node shows {}",
            node.shows
        ))
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
    let in_place = if share.no_other_node {
        "; its pods stop in place, the cluster has no other node for them"
    } else {
        ""
    };
    format!(
        "{} (started {since:.0}){colon}{}{in_place}",
        share.phase.name(),
        share.message
    )
}

/// A node that is under way without a slot gets one, whatever the budget says: it is under way.
pub(super) fn adopt(seen: &Seen, decision: &mut Decision) {
    for (name, node) in &seen.nodes {
        let Some(share) = seen.share(name) else { continue };
        let under_way =
            !share.phase.ended() && share.phase != NodePhase::Pending && share.action != Action::Plan;
        let has_slot = seen.slots.iter().any(|slot| slot.name == *name);
        if under_way && !has_slot {
            let slot = new_slot(name, share.generation, seen.now, node);
            let write = (seen.deleting && share.action == Action::Migrate).then_some(Write::Abort);
            let wait = waits_for(seen, &slot, share);
            let kept = Kept {
                write,
                wait,
                ..Kept::default()
            };
            decision.keep(slot, kept);
        }
    }
}

pub(super) fn new_slot(name: &str, generation: i64, now: Timestamp, node: &NodeView) -> Slot {
    Slot {
        name: name.to_owned(),
        generation,
        since: Time(now),
        cordoned: node.cordoned_by_others,
    }
}
