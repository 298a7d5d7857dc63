//! What a plan does is chosen from more than one recipe, by the pair of runtimes.
//!
//! - [`replace`]: the pods of one runtime stop, and start again under the other runtime.
//! - [`upgrade`]: the same runtime in another version takes over the pods, which keep running.

pub mod replace;
pub mod upgrade;

use crate::{
    plan::{
        document::{FORMAT, Plan, PlannedStep, Section},
        finding::Finding,
        request::Drain,
        runtime::RuntimeVersion,
        step::Step,
    },
    planner::{
        context::View,
        steps::{confirm_within_secs, soak_secs},
    },
};

/// How long the agent may be away from a prepared node, beyond the time that it waits itself.
const AGENT_AWAY_SECS: u32 = 900;

/// How a node is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// The pods of the source stop, and start again under the target.
    Replace,
    /// The pods keep running while their runtime is restarted in a newer version.
    Upgrade,
}

/// The plan, or why there is none.
///
/// # Errors
/// The finding that says why a file cannot be edited.
pub fn plan(recipe: Recipe, view: &View<'_>) -> Result<Plan, Finding> {
    let sections = match recipe {
        Recipe::Replace => replace::steps(view)?,
        Recipe::Upgrade => upgrade::steps(view)?,
    };
    let planned = |(section, steps): (Section, Vec<Step>)| {
        steps.into_iter().map(move |does| PlannedStep { section, does })
    };
    Ok(Plan {
        format: FORMAT,
        migration: view.request.migration.clone(),
        migration_name: view.request.migration_name.clone(),
        node: view.facts.node.clone(),
        machine_id: view.facts.machine_id.clone(),
        source: RuntimeVersion {
            runtime: view.source.runtime,
            version: view.source.version.clone(),
        },
        target: RuntimeVersion {
            runtime: view.target.runtime,
            version: view.target.version.clone(),
        },
        confirm_within_secs: confirm_within_secs(view),
        soak_secs: soak_secs(view),
        prepared_for_secs: prepared_for_secs(&view.request.drain),
        rollback_automatic: view.request.rollback.automatic,
        findings: Vec::new(),
        steps: sections.into_iter().flat_map(planned).collect(),
        digest_key: view.facts.digest_key.clone(),
    })
}

/// The agent gives a drain up after its timeout, and waits as long for the controller's permission. What comes later
/// has no agent.
fn prepared_for_secs(drain: &Drain) -> u32 {
    let timeout = u32::try_from(drain.timeout.get().as_secs()).unwrap_or(u32::MAX);
    timeout.saturating_mul(2).saturating_add(AGENT_AWAY_SECS)
}
