//! A switch of this node that is not over: `plan`, `switch` and `status` say so before anything else.

use crate::{
    console,
    executor::{
        control::{ControlError, Dir},
        progress::{Progress, State, in_words},
        unit::UNIT,
    },
    host::files::Files,
};

/// The switch that is not over, with the next step; `None` if there is none.
///
/// # Errors
/// When a journal cannot be read.
pub(super) fn notice(files: &Files) -> Result<Option<String>, ControlError> {
    for dir in Dir::all(files)? {
        // A plan alone has changed nothing.
        if dir.journal()?.is_empty() {
            continue;
        }
        if let Some(notice) = dir.progress()?.and_then(|progress| of(dir.name(), &progress)) {
            return Ok(Some(notice));
        }
    }
    Ok(None)
}

/// The state of a switch that is not over, with the next step; `None` if it is.
pub(super) fn of(migration: &str, progress: &Progress) -> Option<String> {
    let (state, next) = match progress.state {
        State::Committed | State::RolledBack => return None,
        State::AwaitingCommit { left } => (
            format!("waits for its confirmation ({} s left)", left.as_secs()),
            "Keep it with `transship node commit`, or undo it with `transship node rollback`. Without either the node \
             is rolled back by itself."
                .to_owned(),
        ),
        State::Soaking { left } => (
            format!("is confirmed, and commits by itself in {}", in_words(left)),
            "Until then `transship node rollback` loses no pod. `transship node commit` commits now."
                .to_owned(),
        ),
        State::Prepared => (
            "is prepared and waits for its go".to_owned(),
            "Its migration gives it; `transship node rollback` removes what was prepared.".to_owned(),
        ),
        State::Preparing | State::Switching => (
            "is under way".to_owned(),
            format!("Wait for it (`journalctl -fu {UNIT}`), or take it back with `transship node rollback`."),
        ),
        State::Finishing => (
            "is committed, and its last steps are applied".to_owned(),
            format!("Wait for it: `journalctl -fu {UNIT}`."),
        ),
        State::RollingBack => (
            "is being rolled back".to_owned(),
            format!("Wait for it: `journalctl -fu {UNIT}`."),
        ),
        State::Broken => {
            let why = progress.error.as_deref().unwrap_or("the journal has the reason");
            (
                format!("is BROKEN: {why}"),
                format!("Correct that, then run `systemctl start {UNIT}`: it continues where it stopped."),
            )
        }
    };
    Some(format!(
        "UNFINISHED  switch {migration} {state}\n      {next}\n\n"
    ))
}

/// The exit code of `status` for a switch in this state. A soak is no reason to wait: the switch is confirmed.
pub(super) const fn code(state: State) -> u8 {
    match state {
        State::Committed | State::RolledBack | State::Soaking { .. } => 0,
        State::Preparing
        | State::Prepared
        | State::Switching
        | State::AwaitingCommit { .. }
        | State::Finishing
        | State::RollingBack
        | State::Broken => console::UNFINISHED,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rstest::rstest;

    use super::*;

    fn progress(state: State) -> Progress {
        Progress {
            state,
            steps_done: 1,
            current: None,
            image_bytes: 0,
            kubelet_stopped: None,
            kubelet_started: None,
            error: Some("/etc/x was changed".to_owned()),
            left: Vec::new(),
            old_shims: None,
        }
    }

    #[rstest]
    #[case::waits(
        State::AwaitingCommit { left: Duration::from_secs(42) },
        "waits for its confirmation (42 s left)",
        "transship node commit"
    )]
    #[case::soaks(
        State::Soaking { left: Duration::from_secs(86_399) },
        "is confirmed, and commits by itself in 23h59m",
        "transship node rollback"
    )]
    #[case::broken(
        State::Broken,
        "is BROKEN: /etc/x was changed",
        "systemctl start transship-executor"
    )]
    #[case::prepared(State::Prepared, "waits for its go", "transship node rollback")]
    #[case::preparing(State::Preparing, "is under way", "journalctl")]
    #[case::switching(State::Switching, "is under way", "journalctl")]
    #[case::going_back(State::RollingBack, "is being rolled back", "journalctl")]
    fn what_is_not_over_is_said_with_the_next_step(
        #[case] state: State,
        #[case] words: &str,
        #[case] next: &str,
    ) {
        let notice = of("hand-1", &progress(state)).unwrap();
        assert!(notice.starts_with("UNFINISHED  switch hand-1 "), "{notice}");
        assert!(notice.contains(words) && notice.contains(next), "{notice}");
    }

    #[rstest]
    #[case(State::Committed)]
    #[case(State::RolledBack)]
    fn what_is_over_is_no_notice(#[case] state: State) {
        assert_eq!(of("hand-1", &progress(state)), None);
    }

    /// A script that waits for a switch must not wait for a soak of a day.
    #[rstest]
    #[case(State::Preparing, 3)]
    #[case(State::Prepared, 3)]
    #[case(State::Switching, 3)]
    #[case(State::AwaitingCommit { left: Duration::from_secs(42) }, 3)]
    #[case(State::Soaking { left: Duration::from_secs(86_399) }, 0)]
    #[case(State::Finishing, 3)]
    #[case(State::Committed, 0)]
    #[case(State::RollingBack, 3)]
    #[case(State::RolledBack, 0)]
    #[case(State::Broken, 3)]
    fn status_exits_with_0_once_nothing_is_to_be_waited_for(#[case] state: State, #[case] exit: u8) {
        assert_eq!(code(state), exit);
    }

    #[test]
    fn a_host_without_a_switch_has_nothing_to_say() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(notice(&Files::new(root.path())).unwrap(), None);
    }
}
