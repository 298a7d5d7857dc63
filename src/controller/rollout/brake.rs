//! How every node stands, and whether too many failed to continue. Neither forgets: a failure counts until its node is
//! tried again on purpose, and a success no longer than the Node agrees.

use super::{Decision, Hold, Standing};
use crate::api::node_migration::{Action, NodePhase};
use crate::controller::seen::{NodeView, OnTarget, Seen, Share};

/// How a node stands before anything is started.
pub(super) fn standing(seen: &Seen, decision: &Decision, name: &str, node: &NodeView) -> Standing {
    if let Some(slot) = decision.slots.iter().find(|slot| slot.name == name) {
        return match slot.lost {
            Some(_) => Standing::Lost,
            None => Standing::Active,
        };
    }
    if let Some(why) = node.left_out {
        return Standing::LeftOut(why.reason().to_owned());
    }
    let Some(share) = seen.share(name) else {
        return match (seen.left_to(name), node.on_target) {
            // What has ended is not begun again for nodes that joined, or that another migration took over.
            (Some(other), _) if seen.ended => Standing::LeftOut(format!("under the migration {other}")),
            (None, OnTarget::No | OnTarget::Perhaps) if seen.ended => {
                Standing::LeftOut("newer than the end of the migration".to_owned())
            }
            (Some(_), _) | (None, OnTarget::No | OnTarget::Perhaps) => Standing::Pending,
            (None, OnTarget::Yes) => Standing::OnTarget,
        };
    };
    match share.phase {
        _ if share.retry => Standing::Pending,
        NodePhase::Succeeded if node.on_target == OnTarget::No => Standing::Reverted(node.shows.clone()),
        // What is broken needs a person, who asks for the next attempt.
        NodePhase::Succeeded | NodePhase::Failed => Standing::Ended(share.phase),
        phase if phase.ended() && !is_tried_again(seen, share) => Standing::Ended(phase),
        _ => Standing::Pending,
    }
}

/// Whether an edit of the spec tries a node again. What rolled back is tried again by an edit of what is asked of
/// nodes, and not by one of how fast; what was not touched, by any.
fn is_tried_again(seen: &Seen, share: &Share) -> bool {
    share.generation != seen.generation && (share.phase != NodePhase::RolledBack || !share.same_request)
}

/// Why nothing more is started.
pub(super) fn hold(seen: &Seen, standing: &[(&String, Standing)]) -> Option<Hold> {
    let failed: Vec<String> = standing
        .iter()
        .filter(|(name, standing)| is_failure(seen, name, standing))
        .map(|(name, _)| (*name).clone())
        .collect();
    let opposed = seen
        .overlaps
        .iter()
        .filter(|overlap| overlap.older)
        .find_map(|overlap| Some(Hold::Opposed(overlap.migration.clone(), overlap.opposed?)));
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
        opposed
    }
}

/// Whether a node counts for `maxFailures`. A rollback counts from its beginning; an undone preparation does not.
fn is_failure(seen: &Seen, name: &str, standing: &Standing) -> bool {
    match standing {
        Standing::Lost | Standing::Reverted(_) => true,
        Standing::Ended(phase) => matches!(phase, NodePhase::RolledBack | NodePhase::Failed),
        Standing::Active => seen.share(name).is_some_and(|share| {
            share.phase == NodePhase::RollingBack && share.action == Action::Migrate && !share.timed_out
        }),
        Standing::Pending | Standing::OnTarget | Standing::LeftOut(_) => false,
    }
}
