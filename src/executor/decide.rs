//! What is to be done next. Pure: the journal and the orders in, the next move out; the loop in
//! [`run`](super::run) only carries it out.

use std::{collections::BTreeMap, time::Duration};

use super::journal::{Event, PartState, Record, Saved};
use crate::plan::{
    document::Plan,
    step::{AwaitStep, InstallStep, KubeletStep, Side, Step},
};

/// Failures after which a step is left behind, put off or given up, where it can be.
const ENOUGH: u32 = 3;

/// Where a journal stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing<'a> {
    /// Steps that were begun and not undone, with what their undo needs.
    pub begun: BTreeMap<usize, &'a Saved>,
    /// Steps that could not be undone in their turn, and are undone after all others.
    pub postponed: BTreeMap<usize, &'a Saved>,
    /// How far the steps of many parts came with each of them, by its key.
    pub parts: BTreeMap<usize, BTreeMap<&'a str, &'a PartState>>,
    /// The kubelet's start under the target was begun, now or in an earlier life: the target may run pods.
    pub started_on_target: bool,
    /// Steps that have their effect.
    pub done: usize,
    /// A step could not be applied.
    pub failed: bool,
    /// Steps are being undone.
    pub backwards: bool,
    /// The switch is confirmed, and nobody has ordered the way back since.
    pub committed: bool,
    /// A step after the commit could not be applied. The steps after the commit are undone, and no others.
    pub stays: bool,
    /// The deadline runs; so much was left when it was last journalled.
    pub armed: Option<Duration>,
    /// The switch is confirmed and not committed yet; so much of the time was left when it was last journalled.
    pub soaking: Option<Duration>,
    /// It is over.
    pub end: Option<End>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The switch is confirmed, and nothing is left to do.
    Committed,
    /// Everything is as it was before.
    RolledBack,
}

impl Standing<'_> {
    /// Whether nothing of [`Section::Finish`](crate::plan::document::Section::Finish) is left to be done, or to be undone.
    fn is_finished(&self, plan: &Plan) -> bool {
        if self.stays {
            return self.begun.range(plan.switched()..).next().is_none();
        }
        self.done >= plan.steps.len()
    }
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
    /// Commit now what was confirmed.
    pub end_soak: bool,
    /// The deadline of the confirmation is over, or the time between it and the commit.
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
    /// Write down that the switch is confirmed, and that the commit follows later.
    Soak,
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
            Event::Opened { .. }
            | Event::Retrying { .. }
            | Event::Left { .. }
            | Event::Refused { .. }
            | Event::Broken { .. } => {}
            Event::Started { step, saved } => {
                standing.begun.insert(*step, saved);
                standing.started_on_target |= matches!(
                    plan.steps.get(*step).map(|planned| &planned.does),
                    Some(Step::Kubelet(KubeletStep { run: true, .. }))
                );
            }
            Event::Part { step, key, state } => {
                standing.parts.entry(*step).or_default().insert(key, state);
            }
            Event::Postponed { step, .. } => {
                let saved = standing.begun.remove(step);
                standing.postponed.extend(saved.map(|saved| (*step, saved)));
            }
            Event::Done { step } => standing.done = step + 1,
            Event::Failed { .. } if standing.committed => standing.stays = true,
            Event::Failed { .. } => {
                standing.failed = true;
                standing.backwards |= plan.rollback_automatic;
            }
            Event::Reverting { .. } => {
                standing.backwards = true;
                standing.committed = false;
                standing.soaking = None;
            }
            Event::Undone { step, .. } => {
                standing.begun.remove(step);
                standing.postponed.remove(step);
            }
            Event::Armed { left_millis } | Event::Waiting { left_millis } => {
                standing.armed = Some(Duration::from_millis(*left_millis));
            }
            Event::Soaking { left_millis } => {
                standing.soaking = Some(Duration::from_millis(*left_millis));
                standing.armed = None;
            }
            Event::Committed => {
                standing.committed = true;
                (standing.armed, standing.soaking) = (None, None);
            }
            Event::RolledBack => standing.end = Some(End::RolledBack),
        }
    }
    if standing.committed && standing.is_finished(plan) {
        standing.end = Some(End::Committed);
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
    if standing.committed {
        return finish(standing, orders);
    }
    if standing.backwards {
        let last = last.or_else(|| standing.postponed.last_key_value());
        return last.map_or(Next::Conclude(End::RolledBack), |(step, saved)| {
            Next::Undo(*step, (*saved).clone())
        });
    }
    if orders.abort || orders.undo {
        return Next::Revert("asked for before the commit".to_owned());
    }
    if standing.soaking.is_some() {
        return if orders.expired || orders.end_soak {
            Next::Conclude(End::Committed)
        } else {
            Next::Wait
        };
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
        _ if standing.done == plan.switched() && orders.commit && plan.soak_secs > 0 => Next::Soak,
        _ if standing.done == plan.switched() && orders.commit => Next::Conclude(End::Committed),
        _ if standing.done == plan.switched() => Next::Wait,
        _ if standing.done == plan.prepared() && !orders.go && orders.lapsed => Next::Revert(format!(
            "nobody ordered the switch within {} s after the node was prepared",
            plan.prepared_for_secs
        )),
        _ if standing.done == plan.prepared() && !orders.go => Next::Prepared,
        _ => Next::Begin(standing.done),
    }
}

/// The next move after the commit, while steps are left. An order to go back is obeyed between two steps.
fn finish(standing: &Standing<'_>, orders: Orders) -> Next {
    match standing.begun.last_key_value() {
        // The ones before the commit stay: else there would be nothing left to do.
        Some((step, saved)) if standing.stays => Next::Undo(*step, (*saved).clone()),
        Some((step, _)) if *step == standing.done => Next::Resume(*step),
        _ if orders.undo => Next::Revert("asked for after the commit".to_owned()),
        _ => Next::Begin(standing.done),
    }
}

/// What comes after a step could not be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterFailure {
    /// Try again.
    Retry,
    /// Go on without it: what it leaves behind is harmless.
    Leave,
    /// Undo the others first.
    Postpone,
    /// Ask a person.
    GiveUp,
}

/// Decides what comes after the undo of `step` failed `failures` times in this life. Whatever may be different later
/// is tried again for ever: only what no time heals needs a person.
///
/// - Images, the sandbox of a rehearsal, an unpacked archive and a copied program only take space where nothing uses them.
/// - What watches over containers only reports. A container that the older runtime cannot adopt is made again by the kubelet.
/// - A target under which no kubelet was ever started has no pods. Under any other one its pods must end, else they
///   would run beside those of the source.
/// - The last look at the source protects nothing: what is undone after it can only help.
pub fn after_failure(
    standing: &Standing<'_>,
    plan: &Plan,
    step: usize,
    failures: u32,
    lasting: bool,
) -> AfterFailure {
    let enough = lasting || failures >= ENOUGH;
    match plan.steps.get(step).map(|planned| &planned.does) {
        Some(
            Step::Install(InstallStep::Archive(_) | InstallStep::Program(_))
            | Step::Tasks(_)
            | Step::Shims(_)
            | Step::Images(_)
            | Step::Rehearse(_)
            | Step::RehearseDaemon(_),
        ) if enough => AfterFailure::Leave,
        // Its sandbox ends with the pods of the target, and the source waits.
        Some(Step::Rehearse(_)) if standing.started_on_target => AfterFailure::Leave,
        Some(Step::StopPods(_)) if !standing.started_on_target => AfterFailure::Leave,
        Some(Step::Await(AwaitStep {
            side: Side::Source, ..
        })) if failures > 1 && !standing.postponed.contains_key(&step) => AfterFailure::Postpone,
        _ if lasting => AfterFailure::GiveUp,
        _ => AfterFailure::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{
        document::{PlannedStep, Section},
        host_path::HostPath,
        runtime::Runtime,
        step::{Endpoint, FileStep, StopPods},
    };

    fn endpoint(runtime: Runtime) -> Endpoint {
        Endpoint {
            runtime,
            socket: HostPath::new("/run/socket").unwrap(),
        }
    }

    /// The end of pods, the kubelet's start, and the look at the source.
    fn plan() -> Plan {
        let path = HostPath::new("/opt").unwrap();
        let steps = [
            Step::Await(AwaitStep {
                side: Side::Source,
                runtime: endpoint(Runtime::Dockershim),
                version: None,
                configuration: None,
                kubelet: None,
                within_secs: 1,
            }),
            Step::StopPods(StopPods {
                source: endpoint(Runtime::Dockershim),
                target: endpoint(Runtime::Containerd),
                grace_limit_secs: 1,
                cni_bin_dirs: Vec::new(),
                cni_cache_dir: path,
                engine: None,
                source_units: Vec::new(),
                target_units: Vec::new(),
            }),
            Step::Kubelet(KubeletStep {
                run: true,
                runtime: endpoint(Runtime::Containerd),
            }),
        ];
        let planned = steps.map(|does| PlannedStep {
            section: Section::Switch,
            does,
        });
        Plan::example("a", planned.into())
    }

    fn records(events: &[Event]) -> Vec<Record> {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let record = |event: &Event| Record {
            at,
            event: event.clone(),
        };
        events.iter().map(record).collect()
    }

    const fn started(step: usize) -> Event {
        Event::Started {
            step,
            saved: Saved::Nothing,
        }
    }

    /// Static pods start before the kubelet is seen healthy: from the moment that its start is announced on, the
    /// target may run pods, which must end.
    #[test]
    fn pods_that_may_have_started_are_never_left() {
        let plan = plan();
        let began = [started(0), started(1)];
        for (more, wanted) in [
            (vec![], AfterFailure::Leave),
            (vec![started(2)], AfterFailure::Retry),
            (
                vec![started(2), Event::Undone { step: 2, left: None }],
                AfterFailure::Retry,
            ),
        ] {
            let journal = records(&[&began[..], &more].concat());
            let standing = fold(&journal, &plan);
            for failures in [1, 3, 1000] {
                let next = after_failure(&standing, &plan, 1, failures, false);
                assert_eq!(next, wanted, "{more:?} {failures}");
            }
        }
    }

    /// A step before the commit, and two after it.
    fn plan_with_finish() -> Plan {
        let file = |path: &str| {
            Step::File(FileStep {
                path: HostPath::new(path).unwrap(),
                planned_from: None,
                want: None,
            })
        };
        let planned = [
            (Section::Switch, "/switch"),
            (Section::Finish, "/first"),
            (Section::Finish, "/last"),
        ]
        .map(|(section, path)| PlannedStep {
            section,
            does: file(path),
        });
        Plan::example("a", planned.into())
    }

    fn failed(step: usize) -> Event {
        Event::Failed {
            step,
            error: String::new(),
        }
    }

    fn reverting() -> Event {
        Event::Reverting { why: String::new() }
    }

    /// Between the confirmation and the commit neither the first deadline nor anybody's absence turns the node back. The commit
    /// follows at the end of that time, or when a person orders it.
    #[test]
    fn a_confirmed_switch_soaks_and_commits_by_itself() {
        let mut plan = plan_with_finish();
        plan.soak_secs = 60;
        let commit = Orders {
            commit: true,
            ..Orders::default()
        };
        let with = |change: fn(&mut Orders)| {
            let mut orders = commit;
            change(&mut orders);
            orders
        };
        let armed = Event::Armed { left_millis: 1000 };
        let mut events = vec![started(0), armed, Event::Done { step: 0 }];
        let decided = |events: &[Event], orders: Orders| {
            let journal = records(events);
            let standing = fold(&journal, &plan);
            (next(&standing, &plan, orders), standing.armed, standing.soaking)
        };
        let confirm = Some(Duration::from_secs(1));
        assert_eq!(decided(&events, commit), (Next::Soak, confirm, None));
        events.push(Event::Soaking { left_millis: 60_000 });
        events.push(Event::Soaking { left_millis: 5000 });
        let left = Some(Duration::from_secs(5));
        assert_eq!(decided(&events, commit), (Next::Wait, None, left));
        let revert = Next::Revert("asked for before the commit".to_owned());
        for (orders, wanted) in [
            (
                with(|orders| orders.expired = true),
                Next::Conclude(End::Committed),
            ),
            (
                with(|orders| orders.end_soak = true),
                Next::Conclude(End::Committed),
            ),
            (with(|orders| orders.undo = true), revert.clone()),
            (with(|orders| orders.abort = true), revert),
        ] {
            assert_eq!(decided(&events, orders).0, wanted, "{orders:?}");
        }
        events.push(reverting());
        assert_eq!(
            decided(&events, commit),
            (Next::Undo(0, Saved::Nothing), None, None)
        );
        events.pop();
        events.push(Event::Committed);
        assert_eq!(decided(&events, commit), (Next::Begin(1), None, None));
    }

    /// The commit is awaited before the last section, which no failure and no deadline turns into a rollback. An order to go
    /// back is obeyed between two steps.
    #[test]
    fn what_follows_the_commit_is_finished_or_undone_alone() {
        let plan = plan_with_finish();
        let undone = |step| Event::Undone { step, left: None };
        let nobody = Orders::default();
        let (commit, undo) = (
            Orders {
                commit: true,
                ..nobody
            },
            Orders {
                commit: true,
                undo: true,
                ..nobody
            },
        );
        let late = Orders {
            expired: true,
            ..nobody
        };
        let done = |step| Event::Done { step };
        let revert = || Next::Revert("asked for after the commit".to_owned());
        let over = || Next::Over(End::Committed);
        let undoes = |step| Next::Undo(step, Saved::Nothing);
        let mut events = vec![started(0), done(0)];
        let table: [(Vec<Event>, Orders, Next); 16] = [
            (vec![], nobody, Next::Wait),
            (vec![], commit, Next::Conclude(End::Committed)),
            (vec![Event::Committed], nobody, Next::Begin(1)),
            (vec![Event::Committed], late, Next::Begin(1)),
            (vec![Event::Committed], undo, revert()),
            (vec![Event::Committed, started(1)], nobody, Next::Resume(1)),
            (vec![Event::Committed, started(1)], undo, Next::Resume(1)),
            (
                vec![Event::Committed, started(1), done(1)],
                nobody,
                Next::Begin(2),
            ),
            (vec![Event::Committed, started(1), done(1)], undo, revert()),
            (
                vec![Event::Committed, started(1), done(1), started(2), failed(2)],
                undo,
                undoes(2),
            ),
            (
                vec![
                    Event::Committed,
                    started(1),
                    done(1),
                    started(2),
                    failed(2),
                    undone(2),
                ],
                nobody,
                undoes(1),
            ),
            (
                vec![Event::Committed, started(1), failed(1), undone(1)],
                nobody,
                over(),
            ),
            // What its undo needs could not be saved: nothing was begun.
            (vec![Event::Committed, failed(1)], nobody, over()),
            (vec![Event::Committed, failed(1)], undo, revert()),
            (
                vec![Event::Committed, started(1), done(1), started(2), done(2)],
                nobody,
                over(),
            ),
            (
                vec![Event::Committed, started(1), done(1), reverting()],
                nobody,
                undoes(1),
            ),
        ];
        for (more, orders, wanted) in table {
            let journal = records(&[&events[..], &more].concat());
            assert_eq!(
                next(&fold(&journal, &plan), &plan, orders),
                wanted,
                "{more:?} {orders:?}"
            );
        }
        events.extend([
            Event::Committed,
            started(1),
            done(1),
            started(2),
            done(2),
            reverting(),
        ]);
        events.extend([undone(2), undone(1), undone(0)]);
        let journal = records(&events);
        let next = next(&fold(&journal, &plan), &plan, undo);
        assert_eq!(next, Next::Conclude(End::RolledBack));
    }

    #[test]
    fn what_is_put_off_is_undone_after_the_others() {
        let plan = plan();
        let mut events = vec![started(0), started(1), Event::Reverting { why: String::new() }];
        let next_after = |events: &[Event]| {
            let journal = records(events);
            next(&fold(&journal, &plan), &plan, Orders::default())
        };
        assert_eq!(next_after(&events), Next::Undo(1, Saved::Nothing));
        events.push(Event::Postponed {
            step: 1,
            error: String::new(),
        });
        assert_eq!(next_after(&events), Next::Undo(0, Saved::Nothing));
        events.push(Event::Undone { step: 0, left: None });
        assert_eq!(next_after(&events), Next::Undo(1, Saved::Nothing));
        events.push(Event::Undone { step: 1, left: None });
        assert_eq!(next_after(&events), Next::Conclude(End::RolledBack));
    }

    #[test]
    fn a_source_that_is_not_healthy_is_put_off_once_and_then_tried_for_ever() {
        let plan = plan();
        let mut events = vec![started(0), Event::Reverting { why: String::new() }];
        let after = |events: &[Event], failures, lasting| {
            let journal = records(events);
            after_failure(&fold(&journal, &plan), &plan, 0, failures, lasting)
        };
        assert_eq!(after(&events, 1, false), AfterFailure::Retry);
        assert_eq!(after(&events, 2, false), AfterFailure::Postpone);
        events.push(Event::Postponed {
            step: 0,
            error: String::new(),
        });
        assert_eq!(after(&events, 1000, false), AfterFailure::Retry);
    }
}
