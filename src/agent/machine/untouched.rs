//! Decisions while the executor has not begun: preflight, and handing the plan over.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{Act, Decision, Seen, describe};
use crate::{
    agent::{
        baseline,
        drain::{Survey, held},
        node::{self, End},
        report,
    },
    api::{
        node_migration::{Action, NodeMigrationStatus, NodePhase},
        request::DrainMode,
    },
    executor::control::Order,
    plan::{
        codes::{
            PLAN_NOT_APPROVED,
            drain::{
                NO_OTHER_NODE, PODS_BLOCK_DRAIN, PODS_END_IN_PLACE, PODS_MUST_RETURN, PODS_OUTLAST_DRAIN,
                PODS_TO_EVICT, PRE_STOP_SKIPPED,
            },
        },
        finding::{Finding, Severity},
    },
    planner::{
        findings::soften,
        request::{Outcome, Verdict},
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
    status.findings = [findings.clone(), about_pods(seen, verdict)].concat();
    status.findings.extend(not_approved(seen, verdict));
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

/// A plan that nobody approved, where only approved plans may run.
fn not_approved(seen: &Seen<'_>, verdict: &Verdict) -> Option<Finding> {
    let approved = &seen.migration.spec.approved_plans;
    let Verdict::Ready(plan) = verdict else {
        return None;
    };
    let digest = plan.digest();
    let is_approved = approved.is_empty() || approved.iter().any(|approved| approved == digest.as_str());
    (!is_approved).then(|| {
        PLAN_NOT_APPROVED.found(
            format!("the plan of this node has the digest {digest}, which spec.approvedPlans does not list"),
            format!(
                "Review the plan (`kubectl describe nodemigration {}`), then add its digest to spec.approvedPlans of \
                 RuntimeMigration {}.",
                seen.migration.name_any(),
                seen.migration.spec.migration.name
            ),
        )
    })
}

/// What the migration would mean for the pods that are on the node now.
fn about_pods(seen: &Seen<'_>, verdict: &Verdict) -> Vec<Finding> {
    let keeps_pods = matches!(verdict, Verdict::Ready(plan) if plan.keeps_pods());
    let spec = &seen.migration.spec;
    let mut findings = match spec.drain.mode.of(keeps_pods) {
        DrainMode::Auto | DrainMode::Evict => soften(about_drain(seen), &spec.preflight.allow),
        DrainMode::InPlace if !keeps_pods => about_staying(seen),
        DrainMode::InPlace | DrainMode::Live => Vec::new(),
    };
    if !keeps_pods {
        findings.extend(about_returning(seen));
    }
    findings
}

/// The pods that the commit waits for.
fn about_returning(seen: &Seen<'_>) -> Option<Finding> {
    let spec = &seen.migration.spec;
    let pods = baseline::staying(seen.pods, &spec.drain, seen.own_pod);
    let names: Vec<String> = pods
        .iter()
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    (!names.is_empty()).then(|| {
        PODS_MUST_RETURN.found(
            format!(
                "{} pods must be Ready again within {} of the kubelet's start, or the node rolls back: {}",
                names.len(),
                spec.rollback.confirm_within,
                list(&names)
            ),
            "Raise rollback.confirmWithin if one of them needs longer to become Ready.",
        )
    })
}

/// The first few of a list, and how many more there are.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 8;
    match names.len().checked_sub(SHOWN) {
        Some(more) if more > 0 => format!("{}; and {more} more", names[..SHOWN].join("; ")),
        _ => names.join("; "),
    }
}

fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

/// What pods go through that end with the source and start again under the target.
fn about_staying(seen: &Seen<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if seen.migration.spec.no_other_node {
        findings.push(NO_OTHER_NODE.found(
            "the cluster has no other node that could ever take the pods, so they stay: they stop with the source and \
             start again under the target. Nothing is evicted, no PodDisruptionBudget is asked, and the node is not \
             cordoned",
            "To have the pods move away instead, add a node. Without one, do by hand what an eviction would do for them.",
        ));
    }
    let named = |which: fn(&Pod) -> bool| -> Vec<String> {
        let those = seen.pods.iter().filter(|pod| !is_finished(pod) && which(pod));
        those.map(name).collect()
    };
    let lost = named(never_restarts);
    if !lost.is_empty() {
        findings.push(PODS_END_IN_PLACE.found(
            format!(
                "{} pods have restartPolicy Never: they will be Failed and not start again: {}",
                lost.len(),
                list(&lost)
            ),
            "Wait until they have finished; a Job makes a new pod for its own, nobody does for one without a \
             controller.",
        ));
    }
    let hooked = named(has_pre_stop);
    if !hooked.is_empty() {
        findings.push(PRE_STOP_SKIPPED.found(
            format!(
                "{} pods have a preStop hook, which is not run: they get their stop signal at once, and their grace \
                 period: {}",
                hooked.len(),
                list(&hooked)
            ),
            "Do by hand before the switch what the hooks are for; where there is another node, `drain.mode: Evict` runs \
             them.",
        ));
    }
    findings
}

fn is_finished(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn never_restarts(pod: &Pod) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    policy == Some("Never")
}

/// Whether one of its containers has a preStop hook; an init container has one where it runs beside the others.
fn has_pre_stop(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| {
        let beside = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(beside)
    });
    containers
        .filter_map(|container| container.lifecycle.as_ref())
        .any(|lifecycle| lifecycle.pre_stop.is_some())
}

/// What a drain would do.
fn about_drain(seen: &Seen<'_>) -> Vec<Finding> {
    let survey = Survey::new(seen.pods, &seen.migration.spec.drain, seen.own_pod.0);
    let mut findings = Vec::new();
    if !survey.blocked.is_empty() {
        let pods: Vec<String> = survey
            .blocked
            .iter()
            .map(|pod| format!("{}/{}: {}", pod.namespace, pod.name, pod.reason))
            .collect();
        findings.push(PODS_BLOCK_DRAIN.found(
            format!("{} pods would not be evicted: {}", survey.blocked.len(), list(&pods)),
            format!(
                "Set drain.deleteEmptyDirData or drain.force, delete the pods, or accept {}: the drain then waits \
                 for them.",
                PODS_BLOCK_DRAIN.name
            ),
        ));
    }
    let drain = &seen.migration.spec.drain;
    let slow = held::too_slow(&survey.evict, drain.grace_period, drain.timeout);
    if !slow.is_empty() {
        let pods: Vec<String> = slow
            .iter()
            .map(|(pod, grace)| format!("{} has {grace} s to stop", name(pod)))
            .collect();
        findings.push(PODS_OUTLAST_DRAIN.found(
            format!("drain.timeout is {}: {}", drain.timeout, list(&pods)),
            "Raise drain.timeout, or set drain.gracePeriod; a pod that stops sooner is not waited for.",
        ));
    }
    if !survey.evict.is_empty() {
        let pods: Vec<String> = survey.evict.iter().map(|pod| name(pod)).collect();
        findings.push(PODS_TO_EVICT.found(
            format!("{} pods would be evicted: {}", survey.evict.len(), list(&pods)),
            "Nothing to do; their controllers start them elsewhere.",
        ));
    }
    findings
}
