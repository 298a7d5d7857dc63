//! What the journal means to those who watch: agent, command line and the executor's own log.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::journal::{Event, PartState, Record};
use crate::plan::{
    document::Plan,
    request::GoDuration,
    shims::ShimUse,
    step::{KubeletStep, Step},
};

/// How far a plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Where it stands.
    #[serde(flatten)]
    pub state: State,
    /// Steps that have their effect now.
    pub steps_done: usize,
    /// The step that is being applied or undone.
    pub current: Option<usize>,
    /// Bytes of images that were carried.
    pub image_bytes: u64,
    /// When the kubelet was about to be stopped.
    pub kubelet_stopped: Option<Timestamp>,
    /// When the kubelet was started: under the target, or after that under the source again.
    pub kubelet_started: Option<Timestamp>,
    /// Why it goes or went back, or what is broken.
    pub error: Option<String>,
    /// What harmless things an undo had to leave behind, a sentence each.
    pub left: Vec<String>,
    /// What still runs on shims of the version before an upgrade in place; `None` before the upgrade.
    pub old_shims: Option<OldShims>,
}

/// What still runs on shims of the version before an upgrade in place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OldShims {
    /// When it was counted.
    pub counted_at: Timestamp,
    /// The programs, each with the number of its pods.
    pub programs: Vec<ShimUse>,
}

/// Where a plan stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "camelCase")]
pub enum State {
    /// Steps of `Prepare` are applied.
    Preparing,
    /// `Prepare` is done; the rest waits for `go`.
    Prepared,
    /// Steps of `Switch` and `Settle` are applied.
    Switching,
    /// All steps before the commit are done; without it the way back begins when the time is over.
    #[serde(rename_all = "camelCase")]
    AwaitingCommit {
        /// Time left, as it was last journalled.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// The switch is confirmed, and the commit follows when the time is over. A rollback is as before the confirmation.
    #[serde(rename_all = "camelCase")]
    Soaking {
        /// Time left, as it was last journalled.
        #[serde(serialize_with = "seconds")]
        left: Duration,
    },
    /// Steps are undone.
    RollingBack,
    /// The switch is confirmed, and the last steps are applied.
    Finishing,
    /// The switch is confirmed, and nothing is left to do.
    Committed,
    /// Everything is as it was before.
    RolledBack,
    /// A person has to help; `error` says with what.
    Broken,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Preparing => f.write_str("preparing, the node serves"),
            Self::Prepared => f.write_str("prepared, waits for its go"),
            Self::Switching => f.write_str("switching"),
            Self::AwaitingCommit { left } => {
                write!(f, "waiting for its confirmation, {} s left", left.as_secs())
            }
            Self::Soaking { left } => write!(f, "confirmed, and commits by itself in {}", in_words(*left)),
            Self::RollingBack => f.write_str("rolling back"),
            Self::Finishing => f.write_str("committed, the last steps are applied"),
            Self::Committed => f.write_str("committed"),
            Self::RolledBack => f.write_str("rolled back, the node is as before"),
            Self::Broken => f.write_str("broken, a person has to help"),
        }
    }
}

impl State {
    /// Whether nothing will happen any more without a new order.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Committed | Self::RolledBack)
    }

    /// Whether the switch is confirmed, so that all that is left is the executor's alone.
    pub const fn is_confirmed(self) -> bool {
        matches!(self, Self::Committed | Self::Soaking { .. })
    }
}

impl Progress {
    /// How long the kubelet was away while the node was switched; nothing before that, or once it went back.
    pub fn kubelet_downtime(&self) -> Option<Duration> {
        let forwards = matches!(
            self.state,
            State::AwaitingCommit { .. } | State::Soaking { .. } | State::Finishing | State::Committed
        );
        let (stopped, started) = (self.kubelet_stopped?, self.kubelet_started?);
        forwards
            .then(|| started.duration_since(stopped).try_into().ok())
            .flatten()
    }
}

/// A time in steps of a minute, as long as it is not shorter than that (`23h59m`).
pub fn in_words(left: Duration) -> GoDuration {
    let seconds = left.as_secs();
    GoDuration::from_secs(if seconds < 60 { seconds } else { seconds / 60 * 60 })
}

fn seconds<S: serde::Serializer>(left: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(left.as_secs())
}

/// Folds the records of a journal of `plan` into what they mean.
pub fn fold(records: &[Record], plan: &Plan) -> Progress {
    let mut progress = Progress {
        state: State::Preparing,
        steps_done: 0,
        current: None,
        image_bytes: 0,
        kubelet_stopped: None,
        kubelet_started: None,
        error: None,
        left: Vec::new(),
        old_shims: None,
    };
    let mut left = Duration::from_secs(plan.confirm_within_secs.into());
    // The step that is tried again, and since when.
    let mut retried: Option<(usize, Timestamp)> = None;
    // A step after the commit could not be applied.
    let mut stays = false;
    // Why it goes back; what was broken meanwhile is of no interest any more once it is taken back.
    let mut why = None;
    let kubelet = |step: usize| match plan.steps.get(step).map(|planned| &planned.does) {
        Some(Step::Kubelet(KubeletStep { run, .. })) => Some(*run),
        _ => None,
    };
    for Record { at, event } in records {
        match event {
            Event::Opened { .. } => {}
            Event::Started { step, .. } => progress.current = Some(*step),
            // It was given time to finish the pods that it was creating, until now.
            Event::Part {
                step,
                state: PartState::Begun,
                ..
            } if kubelet(*step) == Some(false) => {
                progress.kubelet_stopped = Some(*at);
            }
            Event::Part {
                state: PartState::Carried(carried),
                ..
            } => progress.image_bytes += carried.bytes,
            Event::Part {
                state: PartState::Shims { programs },
                ..
            } => {
                progress.old_shims = Some(OldShims {
                    counted_at: *at,
                    programs: plan.old_shims(programs),
                });
            }
            Event::Part { .. } => {}
            Event::Done { step } => {
                progress.current = None;
                progress.steps_done = step + 1;
            }
            Event::Failed { error, .. } if progress.state == State::Finishing => {
                progress.left.push(format!(
                    "what follows the commit could not be done, and the switch stays committed: {error}"
                ));
                stays = true;
            }
            Event::Failed { error, .. } => {
                progress.state = if plan.rollback_automatic {
                    State::RollingBack
                } else {
                    State::Broken
                };
                why = Some(error.clone());
                progress.error = why.clone();
            }
            Event::Reverting { why: reason } => {
                progress.state = State::RollingBack;
                stays = false;
                why = Some(match &why {
                    Some(error) => format!("{reason}; {error}"),
                    None => reason.clone(),
                });
                progress.error = why.clone();
            }
            Event::Retrying { step, error } | Event::Postponed { step, error } => {
                progress.state = State::RollingBack;
                progress.current = Some(*step);
                let since = match retried {
                    Some((before, since)) if before == *step => since,
                    _ => *at,
                };
                retried = Some((*step, since));
                let tried = format!(
                    "step {} could not be undone yet and has been tried again since {} UTC: {error}",
                    step + 1,
                    since.strftime("%Y-%m-%d %H:%M:%S")
                );
                progress.error = Some(match &why {
                    Some(why) => format!("{why}; {tried}"),
                    None => tried,
                });
            }
            Event::Left { what, .. } => progress.left.push(what.clone()),
            Event::Refused { obstacles } => {
                progress.error = Some(format!("the rollback was refused: {}", obstacles.join("; ")));
            }
            Event::Undone { step, left } if stays => {
                progress.current = None;
                progress.steps_done = progress.steps_done.min(*step);
                progress.left.extend(left.clone());
            }
            Event::Undone { step, left } => {
                retried = None;
                progress.state = State::RollingBack;
                progress.error = why.clone();
                // One that was put off is undone after those before it.
                progress.current = (*step < progress.steps_done.max(1))
                    .then(|| step.checked_sub(1))
                    .flatten();
                progress.steps_done = progress.steps_done.min(*step);
                progress.left.extend(left.clone());
                if kubelet(*step) == Some(false) {
                    progress.kubelet_started = Some(*at);
                }
            }
            Event::Armed { left_millis } | Event::Waiting { left_millis } => {
                if matches!(event, Event::Armed { .. }) {
                    progress.kubelet_started = Some(*at);
                    // Where no step stops the kubelet, it was never away.
                    progress.kubelet_stopped.get_or_insert(*at);
                }
                left = Duration::from_millis(*left_millis);
            }
            Event::Soaking { left_millis } => {
                progress.state = State::Soaking {
                    left: Duration::from_millis(*left_millis),
                };
            }
            Event::Committed => progress.state = State::Finishing,
            Event::RolledBack => progress.state = State::RolledBack,
            Event::Broken { error, .. } => {
                progress.state = State::Broken;
                progress.error = Some(error.clone());
            }
        }
    }
    let finished = stays && progress.steps_done <= plan.switched() && progress.current.is_none();
    if progress.state == State::Finishing && (finished || progress.steps_done == plan.steps.len()) {
        progress.state = State::Committed;
    }
    if progress.state == State::Preparing {
        let begun = progress.current.map_or(progress.steps_done, |step| step + 1);
        progress.state = if progress.steps_done == plan.switched() && progress.current.is_none() {
            State::AwaitingCommit { left }
        } else if begun > plan.prepared() {
            State::Switching
        } else if progress.steps_done == plan.prepared() {
            State::Prepared
        } else {
            State::Preparing
        };
    }
    if progress.state.is_final() {
        progress.current = None;
    }
    if matches!(
        progress.state,
        State::RollingBack | State::RolledBack | State::Broken
    ) {
        // Nothing runs on others.
        progress.old_shims = None;
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        executor::journal::Saved,
        plan::{
            document::{PlannedStep, Section},
            host_path::HostPath,
            step::FileStep,
        },
    };

    fn shim(program: &str, pods: u32) -> ShimUse {
        ShimUse {
            program: program.to_owned(),
            pods,
            others: 0,
        }
    }

    /// The last count holds, until a rollback makes them the only ones.
    #[test]
    fn what_runs_on_old_shims_is_what_was_counted_last() {
        let dir = "/opt/transship/containerd-2.4.2";
        let cri = serde_json::json!({ "runtime": "containerd", "socket": "/run/containerd/containerd.sock" });
        let step = |does: serde_json::Value| PlannedStep {
            section: Section::Switch,
            does: serde_json::from_value(does).unwrap(),
        };
        let plan = Plan::example(
            "a",
            vec![
                step(serde_json::json!({ "step": "install", "from": "archive",
                    "url": "file:///a.tar.gz", "sha256": "sha256:0", "dir": dir, "version": "2.4.2",
                    "program": format!("{dir}/bin/containerd") })),
                step(
                    serde_json::json!({ "step": "tasks", "cri": cri, "edge": "closing", "arms": true, "quietWithinSecs": 1 }),
                ),
            ],
        );
        let new = format!("{dir}/bin/containerd-shim-runc-v2");
        let copy = "/opt/transship/containerd-1.7.35-shim/containerd-shim-runc-v1";
        let counted = |shims: Vec<ShimUse>| Record {
            at: Timestamp::UNIX_EPOCH,
            event: Event::Part {
                step: 1,
                key: "shims".to_owned(),
                state: PartState::Shims { programs: shims },
            },
        };
        let (old, kata) = (
            "/usr/bin/containerd-shim-runc-v2",
            "/opt/kata/bin/containerd-shim-kata-v2",
        );
        let mut records = vec![counted(vec![shim(old, 8)])];
        assert_eq!(fold(&records, &plan).old_shims.unwrap().programs, [shim(old, 8)]);
        let all = [shim(copy, 1), shim(&new, 2), shim(kata, 1), shim(old, 5)];
        records.push(counted(all.to_vec()));
        let progress = fold(&records, &plan);
        assert_eq!(
            progress.old_shims.unwrap().programs,
            [shim(copy, 1), shim(old, 5)]
        );
        records.push(Record {
            at: Timestamp::UNIX_EPOCH,
            event: Event::Reverting { why: String::new() },
        });
        assert_eq!(fold(&records, &plan).old_shims, None);
        // A plan that replaces a runtime leaves no pod on a shim.
        assert_eq!(self::plan().old_shims(&all), []);
    }

    /// An upgrade in place, of which the last step follows the commit.
    fn plan() -> Plan {
        let planned =
            [(Section::Switch, "/switch"), (Section::Finish, "/last")].map(|(section, path)| PlannedStep {
                section,
                does: Step::File(FileStep {
                    path: HostPath::new(path).unwrap(),
                    planned_from: None,
                    want: None,
                }),
            });
        Plan::example("a", planned.into())
    }

    #[test]
    fn what_follows_the_commit_is_seen_and_never_a_rollback() {
        let started = |step| Event::Started {
            step,
            saved: Saved::Nothing,
        };
        let failed = Event::Failed {
            step: 1,
            error: "full".to_owned(),
        };
        let undone = Event::Undone { step: 1, left: None };
        let armed = Event::Armed { left_millis: 1000 };
        let waits = State::AwaitingCommit {
            left: Duration::from_secs(1),
        };
        let soaks = |secs| State::Soaking {
            left: Duration::from_secs(secs),
        };
        let steps = [
            (started(0), State::Switching),
            (armed, State::Switching),
            (Event::Done { step: 0 }, waits),
            (Event::Soaking { left_millis: 2000 }, soaks(2)),
            (Event::Soaking { left_millis: 1000 }, soaks(1)),
            (Event::Committed, State::Finishing),
            (started(1), State::Finishing),
            (failed, State::Finishing),
            (undone, State::Committed),
        ];
        let mut records = Vec::new();
        for (event, wanted) in steps {
            records.push(Record {
                at: Timestamp::UNIX_EPOCH,
                event,
            });
            assert_eq!(fold(&records, &plan()).state, wanted, "{records:?}");
        }
        let progress = fold(&records, &plan());
        assert_eq!(progress.error, None);
        assert!(progress.left[0].contains("stays committed: full"), "{progress:?}");
        assert_eq!(progress.kubelet_downtime(), Some(Duration::ZERO));
    }
}
