//! Decisions while the executor has not begun: preflight, and handing the plan over.

use kube::ResourceExt as _;

use super::{Act, Decision, Seen, describe};
use crate::{
    agent::{
        drain::Survey,
        node::{self, End},
        report,
    },
    api::node_migration::{Action, NodeMigrationStatus, NodePhase},
    executor::control::Order,
    plan::{
        finding::{Finding, Severity},
        findings::{
            drain::{PODS_BLOCK_DRAIN, PODS_TO_EVICT},
            soften,
        },
        planner::{Outcome, Verdict},
    },
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
            let message = "the executor's journal is gone from the node, so nobody knows how far the switch got; \
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
    if spec.action == Action::Abort {
        return abort(seen, status);
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
    status.findings.clone_from(findings);
    if *verdict == Verdict::AlreadyThere {
        let version = node::runtime_version(seen.node);
        let message = format!(
            "runs on {} already ({version}); nothing was touched",
            spec.target.runtime
        );
        return then(seen, status, NodePhase::Succeeded, message, Act::Rest);
    }
    if let Verdict::Ready(plan) = verdict {
        describe(&mut status, plan, &planned.words);
        if let Some(summary) = &mut status.plan {
            summary.diff.clone_from(&planned.diff);
        }
    }
    status.findings = [findings.clone(), about_pods(seen)].concat();
    status.findings.sort_by_key(|finding| finding.severity);
    let blocking: Vec<&Finding> = status
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Block)
        .collect();
    if let Some(first) = blocking.first() {
        let others = match blocking.len() - 1 {
            0 => String::new(),
            n => format!(" (and {n} more findings)"),
        };
        let message = format!("{}: {}. {}{others}", first.code, first.message, first.remedy);
        return then(seen, status, NodePhase::Blocked, message, Act::Rest);
    }
    let Verdict::Ready(plan) = verdict else {
        let message = "no plan could be made, and no finding says why; please report this";
        return then(seen, status, NodePhase::Blocked, message, Act::Rest);
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

/// The plan was made; the executor has it, or gets it.
fn hand_over(seen: &Seen<'_>, status: NodeMigrationStatus) -> Decision {
    if seen.migration.spec.action == Action::Abort {
        return abort(seen, status);
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
        _ => match node::settle(seen.node, &seen.migration.spec.migration.uid, End::Source) {
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

/// What a drain would mean for the pods that are on the node now.
fn about_pods(seen: &Seen<'_>) -> Vec<Finding> {
    const SHOWN: usize = 8;
    let spec = &seen.migration.spec;
    let survey = Survey::new(seen.pods, &spec.drain, seen.own_pod.0);
    let list = |names: Vec<String>| match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{}; and {more} more", names[..SHOWN].join("; ")),
        _ => names.join("; "),
    };
    let mut findings = Vec::new();
    if !survey.blocked.is_empty() {
        let pods = survey
            .blocked
            .iter()
            .map(|pod| format!("{}/{}: {}", pod.namespace, pod.name, pod.reason));
        findings.push(PODS_BLOCK_DRAIN.found(
            format!("{} pods would not be evicted: {}", survey.blocked.len(), list(pods.collect())),
            format!(
                "Set drain.deleteEmptyDirData or drain.force, delete the pods, or accept {}: the drain then waits \
                 for them.",
                PODS_BLOCK_DRAIN.name
            ),
        ));
    }
    if !survey.evict.is_empty() {
        let pods = survey
            .evict
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any()));
        findings.push(PODS_TO_EVICT.found(
            format!(
                "{} pods would be evicted: {}",
                survey.evict.len(),
                list(pods.collect())
            ),
            "Nothing to do; their controllers start them elsewhere.",
        ));
    }
    soften(findings, &spec.preflight.allow)
}
