//! Decisions while the executor has not begun: preflight, and handing the plan over.

use super::{Act, Decision, Seen, describe};
use crate::{
    agent::{
        node::{self, End},
        report,
    },
    api::{
        node_migration::{Action, NodeMigrationStatus, NodePhase},
        reported,
    },
    executor::control::Order,
    plan::finding::{Finding, Severity},
    planner::request::{Outcome, Verdict},
};

/// Decides what to do on a node whose journal has no line.
pub(super) fn decide(seen: &Seen<'_>, status: NodeMigrationStatus) -> Decision {
    match status.phase {
        NodePhase::Pending | NodePhase::Preflight => preflight(seen, status),
        NodePhase::Preparing => hand_over(seen, status),
        // Aborted before the first step.
        NodePhase::RollingBack if seen.run.is_some_and(|run| run.abort) => abort(seen, status),
        NodePhase::Draining
        | NodePhase::Switching
        | NodePhase::Verifying
        | NodePhase::Uncordoning
        | NodePhase::RollingBack => {
            let message = "the executor's journal is gone from the node, so it is not known how far the switch got; \
                look at the node with `transship node inspect`";
            then(seen, status, NodePhase::Failed, message, Act::Rest)
        }
        NodePhase::Blocked
        | NodePhase::Planned
        | NodePhase::Succeeded
        | NodePhase::RolledBack
        | NodePhase::Failed => Decision {
            status,
            act: Act::Rest,
        },
    }
}

fn then(
    seen: &Seen<'_>,
    mut status: NodeMigrationStatus,
    phase: NodePhase,
    message: impl Into<String>,
    act: Act,
) -> Decision {
    report::enter(&mut status, phase, seen.now);
    status.message = message.into();
    Decision { status, act }
}

fn preflight(seen: &Seen<'_>, mut status: NodeMigrationStatus) -> Decision {
    let spec = &seen.migration.spec;
    if seen.is_aborted() {
        return abort(seen, status);
    }
    if let Some(refusal) = seen.parent.refusal(&spec.migration.name) {
        return then(seen, status, NodePhase::Preflight, refusal, Act::Wait);
    }
    let Some(planned) = seen.planned else {
        return match seen.trouble.filter(|trouble| trouble.is_lasting(seen.now)) {
            Some(trouble) => give_up(seen, status, &trouble.message),
            None => then(
                seen,
                status,
                NodePhase::Preflight,
                "looks at the node and plans",
                Act::Plan,
            ),
        };
    };

    let Outcome { findings, verdict } = &planned.outcome;
    if let Verdict::Ready(plan) | Verdict::Held(plan) = verdict {
        describe(&mut status, plan, &planned.words);
        if let Some(summary) = &mut status.plan {
            summary.diff.clone_from(&planned.diff);
        }
    }
    status.findings.clone_from(findings);
    let plan = match verdict {
        Verdict::Ready(plan) => plan,
        Verdict::AlreadyThere => {
            let version = reported::runtime_version(seen.node);
            let message = format!(
                "runs on {} already ({version}); nothing was touched",
                spec.target.runtime
            );
            return then(seen, status, NodePhase::Succeeded, message, Act::Rest);
        }
        Verdict::Blocked | Verdict::Held(_) => {
            return then(seen, status, NodePhase::Blocked, obstacles(findings), Act::Rest);
        }
    };
    let steps = plan.steps.len();
    if spec.action == Action::Plan {
        let message = format!("planned in {steps} steps; nothing was changed");
        return then(seen, status, NodePhase::Planned, message, Act::Rest);
    }
    let message = format!("hands a plan of {steps} steps to the executor");
    then(
        seen,
        status,
        NodePhase::Preparing,
        message,
        Act::Install(plan.clone()),
    )
}

/// The first of the findings that block, and how many more there are.
fn obstacles(findings: &[Finding]) -> String {
    let mut blocking = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Block);
    let Some(first) = blocking.next() else {
        return "no plan could be made, and no finding says why; please report this".to_owned();
    };
    let others = match blocking.count() {
        0 => String::new(),
        n => format!(" (and {n} more findings)"),
    };
    format!(
        "{}: {}. {}{others}",
        first.full_name(),
        first.message,
        first.remedy
    )
}

/// The plan was made; the executor has it, or gets it.
fn hand_over(seen: &Seen<'_>, status: NodeMigrationStatus) -> Decision {
    if seen.is_aborted() {
        return abort(seen, status);
    }
    if let Some(refusal) = seen.parent.refusal(&seen.migration.spec.migration.name) {
        let act = match seen.run {
            Some(run) if !run.abort => Act::Order(Order::Abort),
            _ => Act::Wait,
        };
        return then(seen, status, NodePhase::Preparing, refusal, act);
    }
    if let Some(trouble) = seen.trouble.filter(|trouble| trouble.is_lasting(seen.now)) {
        return give_up(seen, status, &trouble.message);
    }
    let reported = status.plan.as_ref().map(|summary| summary.digest.as_str());
    match seen
        .run
        .filter(|run| Some(run.plan.digest().as_str()) == reported)
    {
        Some(run) if run.executor_running => then(
            seen,
            status,
            NodePhase::Preparing,
            "the executor begins",
            Act::Wait,
        ),
        Some(run) => {
            let message = "hands the plan to the executor";
            then(
                seen,
                status,
                NodePhase::Preparing,
                message,
                Act::Install(Box::new(run.plan.clone())),
            )
        }
        // The agent died before the plan was on the disk: it is made anew.
        None => preflight(seen, status),
    }
}

/// Ends an attempt before its first step.
fn abort(seen: &Seen<'_>, status: NodeMigrationStatus) -> Decision {
    match seen.run {
        // It may begin at any moment, if only at the next boot.
        Some(run) if !run.abort => {
            let message = "the migration is being deleted; the executor is told not to begin";
            then(
                seen,
                status,
                NodePhase::RollingBack,
                message,
                Act::Order(Order::Abort),
            )
        }
        Some(run) if run.executor_running => then(
            seen,
            status,
            NodePhase::RollingBack,
            "the executor takes note",
            Act::Wait,
        ),
        _ => match node::settle(seen.node, &seen.migration.spec.migration.uid, End::Untouched) {
            Some(patch) => then(
                seen,
                status,
                NodePhase::RollingBack,
                "puts the node back in order",
                Act::Patch(patch),
            ),
            None => {
                let message = "aborted before anything was changed";
                then(seen, status, NodePhase::RolledBack, message, Act::Rest)
            }
        },
    }
}

fn give_up(seen: &Seen<'_>, mut status: NodeMigrationStatus, why: &str) -> Decision {
    status.last_error = Some(why.to_owned());
    let message = format!("gave up before anything was changed: {why}");
    // A plan that was written may begin at any moment, if only at the next boot.
    let act = if seen.run.is_some() {
        Act::Order(Order::Abort)
    } else {
        Act::Rest
    };
    then(seen, status, NodePhase::Blocked, message, act)
}
