//! How the pods are to leave the node.

use crate::{
    plan::{codes::drain::LIVE_NOT_SUPPORTED, finding::Finding, request::DrainMode},
    planner::context::View,
};

/// Checks of `drain.mode`.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let live = view.request.drain.mode == DrainMode::Live;
    let finding = (live && !view.upgrades()).then(|| {
        LIVE_NOT_SUPPORTED.found(
            format!(
                "drain.mode is Live, and the pods of {} have to stop before they start under {}",
                view.source.runtime, view.target.runtime
            ),
            "Set drain.mode to Evict or InPlace, or remove it: by default only an upgrade is Live.",
        )
    });
    finding.into_iter().collect()
}
