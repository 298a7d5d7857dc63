//! How the pods are to leave the node, and how they come back.

use crate::{
    plan::{
        codes::drain::{LIVE_NOT_SUPPORTED, NOTHING_TO_SOAK},
        finding::Finding,
        request::DrainMode,
    },
    planner::context::View,
};

/// Checks of `drain.mode` and `rollback.soak`.
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
    finding.into_iter().chain(soak(view)).collect()
}

/// Check of `rollback.soak`.
fn soak(view: &View<'_>) -> Option<Finding> {
    let soak = view.request.rollback.soak;
    (!soak.get().is_zero() && !view.upgrades()).then(|| {
        NOTHING_TO_SOAK.found(
            format!(
                "rollback.soak is {soak}, and the pods of {} stop and start again under {}, and stop again in a rollback: \
                 there is nothing to wait for uncommitted",
                view.source.runtime, view.target.runtime
            ),
            "Remove rollback.soak. strategy.canary is the time to watch the first nodes; `transship node rollback` works after \
             the commit too.",
        )
    })
}
