//! What is to be done next. Pure: the journal and the orders in, the next move out; the loop in
//! [`run`](super::run) only carries it out.

use std::{collections::BTreeMap, time::Duration};

use super::journal::{Event, Record, Saved};
use crate::plan::document::Plan;

/// Where a journal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Steps that were begun and not undone, with what their undo needs.
    pub begun: BTreeMap<usize, &'a Saved>,
    /// Steps that have their effect.
    pub done: usize,
    /// A step could not be applied.
    pub failed: bool,
    /// Steps are being undone.
    pub backwards: bool,
    /// The deadline runs; so much was left when it was last journalled.
    pub armed: Option<Duration>,
    /// It is over.
    pub end: Option<End>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The switch is confirmed.
    Committed,
    /// Everything is as it was before.
    RolledBack,
}

/// What others want, and what the time says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// Go on from `Prepare` to `Switch`.
    pub go: bool,
    /// Keep the switch.
    pub commit: bool,
    /// Go back.
    pub abort: bool,
    /// Go back, even after a commit.
    pub undo: bool,
    /// The deadline is over.
    pub expired: bool,
    /// The time for `go` is over.
    pub lapsed: bool,
}

/// The next move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Save what undo needs, then apply the step.
    Begin(usize),
    /// Apply the step, which was begun, once more.
    Resume(usize),
    /// Stop here until somebody gives `go` and starts the executor again.
    Prepared,
    /// Wait for an order or the deadline.
    Wait,
    /// Turn back, for this reason.
    Revert(String),
    /// Take the step back.
    Undo(usize, Saved),
    /// Write down how it ended.
    Conclude(End),
    /// Nothing: it is over.
    Over(End),
}

/// Folds a journal of `plan`.
pub fn fold<'a>(records: &'a [Record], plan: &Plan) -> Standing<'a> {
    let mut standing = Standing::default();
    for Record { event, .. } in records {
        match event {
            Event::Opened { .. } | Event::Carried { .. } | Event::Broken { .. } => {}
            Event::Started { step, saved } => {
                standing.begun.insert(*step, saved);
            }
            Event::Done { step } => standing.done = step + 1,
            Event::Failed { .. } => {
                standing.failed = true;
                standing.backwards |= plan.rollback_automatic;
            }
            Event::Reverting { .. } => {
                standing.backwards = true;
                standing.end = None;
            }
            Event::Undone { step, .. } => {
                standing.begun.remove(step);
            }
            Event::Armed { left_millis } | Event::Waiting { left_millis } => {
                standing.armed = Some(Duration::from_millis(*left_millis));
            }
            Event::Committed => standing.end = Some(End::Committed),
            Event::RolledBack => standing.end = Some(End::RolledBack),
        }
    }
    standing
}

/// Decides the next move.
pub fn next(standing: &Standing<'_>, plan: &Plan, orders: Orders) -> Next {
    match standing.end {
        Some(End::Committed) if orders.undo => return Next::Revert("asked for after the commit".to_owned()),
        Some(end) => return Next::Over(end),
        None => {}
    }
    let last = standing.begun.last_key_value();
    if standing.backwards {
        return last.map_or(Next::Conclude(End::RolledBack), |(step, saved)| {
            Next::Undo(*step, (*saved).clone())
        });
    }
    if orders.abort || orders.undo {
        return Next::Revert("asked for before the commit".to_owned());
    }
    // A commit cannot mend a step that failed, but one that comes in time outlives the deadline.
    if orders.expired && (!orders.commit || standing.failed) {
        return Next::Revert(format!(
            "nobody confirmed the switch within {} s",
            plan.confirm_within_secs
        ));
    }
    if standing.failed {
        return Next::Wait;
    }
    match last {
        Some((step, _)) if *step == standing.done => Next::Resume(*step),
        _ if standing.done == plan.steps.len() && orders.commit => Next::Conclude(End::Committed),
        _ if standing.done == plan.steps.len() => Next::Wait,
        _ if standing.done == plan.prepared() && !orders.go && orders.lapsed => Next::Revert(format!(
            "nobody ordered the switch within {} s after the node was prepared",
            plan.prepared_for_secs
        )),
        _ if standing.done == plan.prepared() && !orders.go => Next::Prepared,
        _ => Next::Begin(standing.done),
    }
}
