//! What becomes of the slots that are held: written, waited for, aborted, let switch, given back. A node that is under
//! way without a slot gets one.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Ask, Decision, Write, ends};
use crate::api::migration::{Mode, Slot};
use crate::api::node_migration::{Action, NodePhase};
use crate::api::request::DrainMode;
use crate::controller::report::list;
use crate::controller::seen::{Elsewhere, NodeView, Seen, Share};

/// How long a deletion waits for an agent that has not begun.
pub(in crate::controller) const UNBEGUN: SignedDuration = SignedDuration::from_mins(2);

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
    let mut fate = fate_of(seen, slot);
    if let (Fate::Keep(kept), Some(silence)) = (&mut fate, silence(seen, slot)) {
        kept.wait.push_str(&silence);
    }
    fate
}

fn fate_of(seen: &Seen, slot: &Slot) -> Fate {
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
        .filter(|share| share.generation >= slot.generation && !(share.retry && share.phase.ended()))
    else {
        // Claimed and not written yet, or taken away by somebody. Where the agent was called, it may have begun.
        let cordoned = node.cordoned_for.as_ref() == Some(&seen.uid);
        let begun = seen.mode == Mode::Apply && node.label.is_some() || cordoned;
        return if seen.foreign(&slot.name).is_some() {
            Fate::Release(None)
        } else if stale && begun && seen.share(&slot.name).is_none() {
            writes(
                Write::Abort,
                "its NodeMigration was deleted and is created again, to finish what was begun",
            )
        } else if stale {
            Fate::Release(None)
        } else {
            writes(
                Write::Ask(ask(seen, &slot.name)),
                "its NodeMigration is being written",
            )
        };
    };
    if share.action == Action::Plan && stale {
        // Planning changes nothing: it can be let go at any time.
        return Fate::Release(None);
    }
    if share.phase.ended() {
        return match ends::doubt(seen, share, node, slot) {
            Some(wait) => waits(wait),
            None => Fate::Release(Some(share.phase)),
        };
    }
    let wait = waits_for(seen, slot, share);
    let unbegun = share.phase == NodePhase::Pending;
    match share.action {
        Action::Migrate if seen.deleting => writes(Write::Abort, wait),
        Action::Abort
            if unbegun
                && seen.now.duration_since(slot.since.0) >= UNBEGUN
                && node.cordoned_for.as_ref() != Some(&seen.uid) =>
        {
            Fate::Release(None)
        }
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
        no_other_node: seen.drain_of(name) == DrainMode::Evict
            && seen.elsewhere(name, &[]) == Elsewhere::Never,
    }
}

fn waits_for(seen: &Seen, slot: &Slot, share: &Share) -> String {
    let since = slot.since.0;
    let trouble = seen.agent_trouble.get(&slot.name);
    if share.phase == NodePhase::Pending {
        return match trouble {
            Some(trouble) => format!("its agent has not begun since {since:.0}: {trouble}"),
            None => format!("its agent has not begun since {since:.0}"),
        };
    }
    let mut wait = format!("{} (started {since:.0})", share.phase.name());
    if !share.message.is_empty() {
        wait.push_str(&format!(": {}", share.message));
    }
    if share.no_other_node {
        wait.push_str(if share.keeps_pods {
            "; its pods keep running, the cluster has no other node for them"
        } else {
            "; its pods stop in place, the cluster has no other node for them"
        });
    }
    if let Some(trouble) = trouble {
        wait.push_str(&format!("; its agent: {trouble}"));
    }
    wait
}

/// A slot with what is seen of its node now: that its switch has begun, and that the node is lost.
pub(super) fn marked(seen: &Seen, slot: &Slot) -> Slot {
    let mut slot = slot.clone();
    let phase = seen.share(&slot.name).map(|share| share.phase);
    slot.switching |= matches!(
        phase,
        Some(NodePhase::Switching | NodePhase::Verifying | NodePhase::Uncordoning)
    );
    slot.lost = match lost_from(seen, &slot) {
        Some((_, from)) if from <= seen.now => Some(slot.lost.unwrap_or(Time(seen.now))),
        _ => None,
    };
    slot
}

/// Since when the Node of a slot whose work has begun is not Ready, and from when on it counts as lost. Of other
/// clocks, only the control plane's counts: the time of the Node's condition.
fn lost_from(seen: &Seen, slot: &Slot) -> Option<(Timestamp, Timestamp)> {
    let node = seen.nodes.get(&slot.name).filter(|node| !node.ready)?;
    let share = seen.share(&slot.name).filter(|share| {
        share.action != Action::Plan && (share.phase != NodePhase::Pending || slot.switching)
    })?;
    let since = node.ready_changed.unwrap_or(slot.since.0).max(slot.since.0);
    Some((
        since,
        since.saturating_add(share.patience).unwrap_or(Timestamp::MAX),
    ))
}

/// What is known of a node that is silent, to follow what it waits for.
fn silence(seen: &Seen, slot: &Slot) -> Option<String> {
    let (since, lost) = lost_from(seen, slot)?;
    let share = seen.share(&slot.name)?;
    let mut words = format!("; the Node is not Ready since {since:.0}");
    if let Some(reported) = share.reported {
        words.push_str(&format!(", its agent last reported at {reported:.0}"));
    }
    let switches = matches!(share.phase, NodePhase::Switching | NodePhase::Verifying);
    words.push_str(&if lost <= seen.now {
        "; it is lost: look at the machine (docs/runbooks.md#transshipnodelost)".to_owned()
    } else if switches {
        format!("; unless its switch is confirmed it rolls back by itself; it counts as lost from {lost:.0}")
    } else {
        format!("; it counts as lost from {lost:.0}")
    });
    Some(words)
}

/// A node that is under way without a slot gets one, whatever the budget says: it is under way. So does a node that
/// bears this migration's cordon, whatever its NodeMigration says: its agent lifts the cordon before it reports an end.
pub(super) fn adopt(seen: &Seen, decision: &mut Decision) {
    for (name, node) in &seen.nodes {
        if seen.slots.iter().any(|slot| slot.name == *name) {
            continue;
        }
        let marked = node.cordoned_for.as_ref() == Some(&seen.uid) && seen.foreign(name).is_none();
        let begun = match seen.share(name) {
            Some(share) if share.phase.ended() => marked && share.phase != NodePhase::Failed,
            Some(share) => share.phase.is_under_way() && share.action != Action::Plan,
            None => marked && seen.mode == Mode::Apply,
        };
        if !begun {
            continue;
        }
        let generation = seen.share(name).map_or(seen.generation, |share| share.generation);
        let slot = new_slot(name, generation, seen.now, node);
        if let Fate::Keep(kept) = fate(seen, &slot) {
            decision.keep(self::marked(seen, &slot), kept);
        }
    }
}

pub(super) fn new_slot(name: &str, generation: i64, now: Timestamp, node: &NodeView) -> Slot {
    Slot {
        name: name.to_owned(),
        generation,
        since: Time(now),
        cordoned: node.cordoned_by_others,
        switching: false,
        lost: None,
    }
}
