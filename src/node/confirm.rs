//! What has to be seen before a switch by hand is confirmed, by the command that made it or by a person.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::pods::{Pods, Seen};
use crate::{
    executor::{
        control::{ControlError, Dir},
        journal::{Event, Record},
    },
    host::files::Files,
    plan::document::Plan,
};

/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long pods may start before it is said which ones are waited for.
const QUIET: Duration = Duration::from_secs(15);
/// How often that is said at most.
const SAID: Duration = Duration::from_secs(30);

/// Waits for the pods that ran before a switch.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None` where nobody has recorded them.
    pods: Option<Pods>,
    began: Instant,
    looked: Option<Instant>,
    /// What was seen, or why nothing could be seen.
    seen: Result<Seen, String>,
    said: Option<(String, Instant)>,
}

impl Waiting {
    pub(super) fn new(files: &Files, dir: &Dir, plan: &Plan) -> Result<Self, ControlError> {
        Ok(Self {
            pods: Pods::of(files, dir, plan)?,
            began: Instant::now(),
            looked: None,
            seen: Ok(Seen::default()),
            said: None,
        })
    }

    /// Looks once more, unless that was just done, and answers whether all of them run.
    pub(super) async fn is_over(&mut self) -> bool {
        let Some(pods) = &mut self.pods else { return true };
        let just = self.looked.is_some_and(|looked| looked.elapsed() < LOOK);
        if !just {
            self.seen = pods.look().await.map_err(|error| format!("{error:#}"));
            self.looked = Some(Instant::now());
        }
        self.seen.as_ref().is_ok_and(|seen| seen.steady)
    }

    /// Which of them do not run; nothing if all do.
    pub(super) fn missing(&self) -> Option<String> {
        match &self.seen {
            Ok(seen) => self.pods.as_ref().and_then(|pods| pods.words(seen)),
            Err(error) => Some(format!("it cannot be seen which pods run: {error}")),
        }
    }

    /// The same, where those that run have not run for long enough either.
    pub(super) fn reason(&self) -> String {
        self.missing().unwrap_or_else(|| {
            "the containers of the pods that ran before are started again and again".to_owned()
        })
    }

    /// Prints what is waited for, if that takes long, and if it is news.
    pub(super) fn say(&mut self, deadline: Timestamp) {
        if self.began.elapsed() < QUIET {
            return;
        }
        let reason = self.reason();
        match &self.said {
            None => {
                println!("\nNot confirmed yet: {reason}");
                println!(
                    "It is confirmed when they run, while this command does. {}\n",
                    choices(deadline)
                );
            }
            Some((said, at)) if *said != reason && at.elapsed() >= SAID => {
                println!("\nNot confirmed yet: {reason}\n");
            }
            Some(_) => return,
        }
        self.said = Some((reason, Instant::now()));
    }
}

/// What a person can do about a switch that is not confirmed.
pub(super) fn choices(deadline: Timestamp) -> String {
    format!(
        "`transship node commit --force` keeps the switch without them, `transship node rollback` takes it back; without \
         either the node rolls back by itself at {} UTC.",
        deadline.strftime("%H:%M:%S")
    )
}

/// When the time to confirm is over, if the machine keeps running.
pub(super) fn deadline(records: &[Record]) -> Timestamp {
    let noted = records.iter().rev().find_map(|record| match record.event {
        Event::Armed { left_millis } | Event::Waiting { left_millis } => Some((record.at, left_millis)),
        _ => None,
    });
    let (at, left_millis) = noted.unwrap_or((Timestamp::now(), 0));
    let left = SignedDuration::try_from(Duration::from_millis(left_millis)).unwrap_or(SignedDuration::MAX);
    at.saturating_add(left).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps are noted after the time that is left.
    #[test]
    fn the_deadline_is_counted_from_where_it_was_noted() {
        let record = |second, event| Record {
            at: Timestamp::from_second(second).unwrap(),
            event,
        };
        let records = [
            record(100, Event::Armed { left_millis: 60_000 }),
            record(110, Event::Waiting { left_millis: 50_500 }),
            record(118, Event::Done { step: 20 }),
        ];
        let wanted = Timestamp::from_millisecond(160_500).unwrap();
        assert_eq!(deadline(&records), wanted);
        assert!(choices(wanted).ends_with("rolls back by itself at 00:02:40 UTC."));
    }
}
