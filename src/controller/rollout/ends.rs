//! Whether an end that an agent reports is believed. On servers without admission policies any agent could have written
//! it; the Node is written by the node's own kubelet, and what was seen before by the controller.

use crate::api::migration::Slot;
use crate::api::node_migration::{Action, NodePhase};
use crate::controller::seen::{NodeView, OnTarget, Seen, Share};

/// Why an end is not believed, if it is not. An agent puts the Node in order before it reports any end but `Failed`.
pub(super) fn doubt(seen: &Seen, share: &Share, node: &NodeView, slot: &Slot) -> Option<String> {
    let ours = node.cordoned_for.as_ref() == Some(&seen.uid);
    let but = match (share.phase, share.action) {
        (NodePhase::Planned, Action::Migrate | Action::Abort) => {
            "that is not an end of a migration".to_owned()
        }
        (NodePhase::RolledBack | NodePhase::Failed, Action::Plan) => {
            "that is not an end of a plan".to_owned()
        }
        (NodePhase::Blocked, _) if slot.switching => "its switch had begun".to_owned(),
        (NodePhase::Failed, _) => return None,
        _ if ours => "the Node is still cordoned by this migration".to_owned(),
        (NodePhase::Succeeded, _) if node.on_target == OnTarget::No => {
            format!("the Node shows {}", node.shows)
        }
        (NodePhase::RolledBack, _) if node.on_target == OnTarget::Yes => {
            format!("the Node shows {}, which is the target", node.shows)
        }
        (NodePhase::Succeeded | NodePhase::RolledBack, _) if !node.ready => {
            "the Node is not Ready".to_owned()
        }
        (NodePhase::Succeeded, _) if node.cordoned && !slot.cordoned => {
            "the Node is still cordoned".to_owned()
        }
        _ => return None,
    };
    let says = share.phase.name();
    Some(format!(
        "its agent reports {says}, but {but}; `transship node status` on the node shows how far it is"
    ))
}
