//! How the status of a `NodeMigration` is kept: phases with their times, conditions, and a size that the API
//! server's store takes without complaint. Pure.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::bounds::{self, cut};
pub use crate::api::node_migration::{DRAIN_TIMED_OUT, READY_TO_SWITCH};
use crate::api::node_migration::{NodeMigrationSpec, NodeMigrationStatus, NodePhase, PhaseTime};

/// Condition of a node whose attempt was given up before its switch, with the reason.
pub const ABORTED: &str = "Aborted";

/// Most bytes of a status as JSON.
const LIMIT: usize = 60 * 1024;

/// The status of a migration at its beginning.
pub fn begin(spec: &NodeMigrationSpec) -> NodeMigrationStatus {
    let mut status = NodeMigrationStatus {
        node_uid: spec.node_uid.clone(),
        ..NodeMigrationStatus::default()
    };
    acknowledge(&mut status, spec);
    status
}

/// Says that the status speaks of this spec.
pub fn acknowledge(status: &mut NodeMigrationStatus, spec: &NodeMigrationSpec) {
    status.migration_uid.clone_from(&spec.migration.uid);
    status.migration_generation = spec.migration.generation;
    status.attempt = spec.attempt;
    status.action = Some(spec.action);
}

/// Enters a phase; the one before ends now. An ended migration's last phase has no length.
pub fn enter(status: &mut NodeMigrationStatus, phase: NodePhase, now: Timestamp) {
    if status.phase == phase && !status.times.is_empty() {
        return;
    }
    // The API keeps whole seconds.
    let now = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
    if let Some(last) = status.times.last_mut() {
        last.end.get_or_insert_with(|| now.clone());
    }
    let end = phase.ended().then(|| now.clone());
    status.times.push(PhaseTime {
        phase,
        start: now,
        end,
    });
    status.phase = phase;
}

/// When a phase was entered first.
pub fn first_entered(status: &NodeMigrationStatus, phase: NodePhase) -> Option<Timestamp> {
    status
        .times
        .iter()
        .find(|time| time.phase == phase)
        .map(|time| time.start.0)
}

/// Sets a condition to true.
pub fn set_condition(status: &mut NodeMigrationStatus, kind: &str, message: String, now: Timestamp) {
    status.conditions.retain(|condition| condition.type_ != kind);
    status.conditions.push(Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: kind.to_owned(),
        message: cut(message, bounds::SENTENCE),
        last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        observed_generation: Some(status.migration_generation),
    });
}

/// Removes a condition.
pub fn unset_condition(status: &mut NodeMigrationStatus, kind: &str) {
    status.conditions.retain(|condition| condition.type_ != kind);
}

/// Since when a condition is true.
pub fn condition_since(status: &NodeMigrationStatus, kind: &str) -> Option<Timestamp> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
        .map(|condition| condition.last_transition_time.0)
}

/// The message of a condition that is true.
pub fn condition<'a>(status: &'a NodeMigrationStatus, kind: &str) -> Option<&'a str> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
        .map(|condition| condition.message.as_str())
}

/// The status, cut to a size that a fleet of them may have (64 KiB each).
pub fn fit(mut status: NodeMigrationStatus) -> NodeMigrationStatus {
    status.message = cut(status.message, bounds::SENTENCE);
    status.last_error = status.last_error.map(|error| cut(error, bounds::SENTENCE));
    status.current_step = status.current_step.map(|step| cut(step, bounds::SENTENCE));
    for runtime in [&mut status.source, &mut status.target].into_iter().flatten() {
        shorten(&mut runtime.version, bounds::VERSION);
    }
    let more = status.findings.len().saturating_sub(bounds::LIST);
    status.findings.truncate(bounds::LIST);
    for finding in &mut status.findings {
        finding.subject = finding
            .subject
            .take()
            .map(|subject| cut(subject, bounds::SUBJECT));
        shorten(&mut finding.message, bounds::FINDING);
        shorten(&mut finding.remedy, bounds::FINDING);
    }
    if let Some(last) = status.findings.last_mut().filter(|_| more > 0) {
        let note = format!(" [and {more} more findings; `transship node plan` on the node shows all]");
        shorten(&mut last.remedy, bounds::FINDING - note.len());
        last.remedy.push_str(&note);
    }
    if let Some(drain) = &mut status.drain {
        // `remaining` counts all of them.
        drain.blocking.truncate(bounds::LIST);
        for pod in &mut drain.blocking {
            shorten(&mut pod.reason, bounds::REASON);
        }
    }
    if let Some(plan) = &mut status.plan {
        let more = plan.steps.len().saturating_sub(bounds::STEPS);
        if more > 0 {
            plan.steps.truncate(bounds::STEPS - 1);
            plan.steps.push(format!(
                "[and {} more steps; `transship node plan` on the node shows all]",
                more + 1
            ));
        }
        for step in &mut plan.steps {
            shorten(step, bounds::STEP);
        }
    }
    if let Some(shims) = &mut status.old_shims {
        shims.programs.truncate(bounds::LIST);
        for shim in &mut shims.programs {
            shorten(&mut shim.program, bounds::PROGRAM);
        }
    }
    status.conditions.truncate(bounds::CONDITIONS);
    let surplus = status.times.len().saturating_sub(bounds::TIMES);
    status.times.drain(..surplus);
    // The diff gets what the rest leaves.
    let excess = json_len(&status).saturating_sub(LIMIT);
    if let Some(plan) = status.plan.as_mut().filter(|_| excess > 0) {
        let (whole, note) = (
            plan.diff.len(),
            "bytes; the whole is shown on the node by `transship node plan`]\n",
        );
        let keep = whole.saturating_sub(excess + note.len() + bounds::SENTENCE);
        plan.diff = format!("{}[cut: {whole} {note}", lines_within(&plan.diff, keep));
    }
    status
}

fn json_len(status: &NodeMigrationStatus) -> usize {
    serde_json::to_vec(status).map_or(0, |json| json.len())
}

fn shorten(text: &mut String, most: usize) {
    *text = cut(std::mem::take(text), most);
}

/// The first lines of `text` that have together at most `limit` bytes.
fn lines_within(text: &str, limit: usize) -> &str {
    let within = &text[..boundary(text, limit)];
    within.rfind('\n').map_or("", |end| &within[..=end])
}

/// The last position up to `limit` at which `text` can be cut.
fn boundary(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::node_migration::{BlockingPod, DrainProgress, PlanSummary},
        plan::finding::{Finding, Severity},
    };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn phases_follow_each_other_without_a_gap() {
        let mut status = NodeMigrationStatus::default();
        enter(&mut status, NodePhase::Preflight, at(10));
        enter(&mut status, NodePhase::Preflight, at(11));
        enter(&mut status, NodePhase::Preparing, at(12));
        enter(&mut status, NodePhase::Blocked, at(15));
        let times: Vec<_> = status
            .times
            .iter()
            .map(|time| {
                (
                    time.phase,
                    time.start.0.as_second(),
                    time.end.as_ref().map(|end| end.0.as_second()),
                )
            })
            .collect();
        assert_eq!(
            times,
            [
                (NodePhase::Preflight, 10, Some(12)),
                (NodePhase::Preparing, 12, Some(15)),
                (NodePhase::Blocked, 15, Some(15)),
            ]
        );
        assert_eq!(first_entered(&status, NodePhase::Preparing), Some(at(12)));
    }

    #[test]
    fn a_status_stays_small() {
        let long = "Ω".repeat(100_000);
        let status = NodeMigrationStatus {
            message: long.clone(),
            last_error: Some(long.clone()),
            findings: (0..100)
                .map(|_| Finding {
                    severity: Severity::Warn,
                    code: "Code".to_owned(),
                    subject: Some("s".repeat(64)),
                    message: "m".repeat(300),
                    remedy: "r".repeat(300),
                })
                .collect(),
            plan: Some(PlanSummary {
                digest: "sha256:0".to_owned(),
                steps: vec!["a step".to_owned(); 40],
                diff: "+ a line of a file\n".repeat(10_000),
            }),
            drain: Some(DrainProgress {
                evicted: 0,
                remaining: 100,
                blocking: vec![
                    BlockingPod {
                        namespace: "n".to_owned(),
                        name: "p".to_owned(),
                        reason: long
                    };
                    100
                ],
            }),
            ..NodeMigrationStatus::default()
        };
        let small = fit(status);
        assert!(serde_json::to_vec(&small).unwrap().len() < 64 * 1024);
        assert!(small.plan.unwrap().diff.ends_with("by `transship node plan`]\n"));
        assert!(small.message.ends_with('…'));
    }
}
