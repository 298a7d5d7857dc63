//! The executor's own unit: a real file in `/etc/systemd/system`, enabled while a journal is open, so that the
//! executor also finishes or rolls back after a reboot in the middle.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

use super::control::{ControlError, Dir};
use crate::{
    host::{
        files::Files,
        selinux,
        systemd::{Systemd, SystemdError},
    },
    plan::host_path::HostPath,
};

/// The name of the unit.
pub const UNIT: &str = "transship-executor.service";
/// Exit status of an executor that needs a person; systemd does not start it again by itself.
pub const NEEDS_A_PERSON: u8 = 3;

/// Pause before systemd starts the executor again after it died.
pub const RESTARTS_AFTER: Duration = Duration::from_secs(1);
/// How long the executor's loop may give no sign of life before systemd kills it and starts it again. It syncs files
/// and links the layers of images on its own thread, which a slow disk delays.
const WATCHDOG: Duration = Duration::from_secs(300);

/// How long an executor may take to end after the last line of its journal: two daemon-reloads.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// How often it is looked for.
const POLL: Duration = Duration::from_millis(100);

/// The executor's unit could not be installed or removed.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// Another migration is in the middle.
    #[error(
        "the migration in {0} is not over on this host; wait for it, or take it back with `transship node rollback`"
    )]
    Busy(HostPath),
    /// The file system of the binary does not let it run.
    #[error("{0} is on a file system that is mounted noexec; the executor cannot run from there")]
    NoExec(HostPath),
    /// The executor of an earlier attempt does not end.
    #[error("{UNIT} is over but does not end; see `journalctl -u {UNIT}`")]
    Lingers,
    /// See [`ControlError`].
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A file cannot be read or written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// systemd did not do it.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

#[allow(clippy::expect_used, reason = "a constant")]
fn path() -> HostPath {
    HostPath::new(format!("/etc/systemd/system/{UNIT}")).expect("an absolute path")
}

/// The directory of the link that has systemd start the unit at a boot, as its `[Install]` section names it.
#[allow(clippy::expect_used, reason = "a constant")]
fn wants() -> HostPath {
    HostPath::new("/etc/systemd/system/multi-user.target.wants").expect("an absolute path")
}

#[allow(clippy::expect_used, reason = "a constant")]
fn link() -> HostPath {
    wants().join(UNIT).expect("a plain name")
}

/// The text of the unit that runs `binary` for `dir`.
///
/// systemd before 230 has the start limit in `[Service]` only, under another name, which later ones read too.
/// It depends on no runtime, and waits for those that it needs by itself: a unit that is ordered after one that hangs
/// would never start. SIGTERM ends it: at a shutdown, and by `systemctl stop`, until the next boot or start; sent by
/// anybody else, systemd starts it again.
fn text(binary: &HostPath, dir: &HostPath) -> String {
    format!(
        "# Written by transship. It is removed when the migration is over on this node.\n\
         [Unit]\n\
         Description=Transship switches the container runtime of this node\n\
         RequiresMountsFor={dir} {binary}\n\
         Wants=dbus.service\n\
         After=dbus.service\n\
         StartLimitIntervalSec=0\n\
         \n\
         [Service]\n\
         StartLimitInterval=0\n\
         ExecStart={binary} executor run --dir {dir}\n\
         Restart=on-failure\n\
         RestartSec={}\n\
         RestartForceExitStatus=SIGTERM SIGINT SIGHUP SIGPIPE\n\
         RestartPreventExitStatus={NEEDS_A_PERSON}\n\
         NotifyAccess=main\n\
         WatchdogSec={}\n\
         OOMScoreAdjust=-900\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n",
        RESTARTS_AFTER.as_secs(),
        WATCHDOG.as_secs()
    )
}

/// Makes sure that no other migration than that of `dir` is in the middle on this host.
///
/// # Errors
/// [`UnitError::Busy`], naming it.
pub fn refuse_beside_another(files: &Files, dir: &Dir) -> Result<(), UnitError> {
    for other in Dir::all(files)? {
        let busy = other.path() != dir.path()
            && !other.journal()?.is_empty()
            && other
                .progress()?
                .is_some_and(|progress| !progress.state.is_final());
        if busy {
            return Err(UnitError::Busy(other.path().clone()));
        }
    }
    Ok(())
}

/// Writes, enables and starts the unit for `dir`; one that runs already goes on. Of an executor that could not be started
/// nothing stays, so that no later boot begins what was reported as failed.
///
/// # Errors
/// See [`UnitError`].
pub async fn install<S: Systemd>(
    files: &Files,
    systemd: &S,
    binary: &HostPath,
    dir: &Dir,
) -> Result<(), UnitError> {
    refuse_beside_another(files, dir)?;
    if !files.can_execute(binary)? {
        return Err(UnitError::NoExec(binary.clone()));
    }
    selinux::try_to_label(files, binary);
    let text = text(binary, dir.path());
    let placed = place(files, systemd, dir, &text).await;
    if placed.is_err() && dir.journal()?.is_empty() && files.read_text(&path())?.as_deref() == Some(&text) {
        let runs = systemd.unit(UNIT).await;
        if runs.is_ok_and(|unit| !matches!(&*unit.active, "active" | "activating" | "reloading")) {
            let _ = retire(files, systemd).await;
        }
    }
    placed
}

async fn place<S: Systemd>(files: &Files, systemd: &S, dir: &Dir, text: &str) -> Result<(), UnitError> {
    let same = files.read_text(&path())?.as_deref() == Some(text);
    let over = match dir.progress()? {
        Some(progress) if !dir.journal()?.is_empty() => progress.state.is_final(),
        _ => !same,
    };
    if over {
        // An executor that is over takes its unit away, and would take the new one.
        ended(systemd).await?;
    }
    // The link first: a power cut between the two must not leave a unit that nothing starts.
    if files.read_link(&link())?.as_deref() == Some(path().as_str()) {
        files.remove_link_leftover(&link())?;
    } else {
        files.put_link(&link(), path().as_str())?;
    }
    if over || !same {
        files.write(&path(), text.as_bytes(), 0o644)?;
    }
    systemd.reload().await?;
    systemd.reset_failed(UNIT).await?;
    let started = systemd.start(UNIT).await;
    // One that was at work has obeyed an order meanwhile, and has taken its unit away.
    if started.is_err() && !over && dir.progress()?.is_some_and(|progress| progress.state.is_final()) {
        return retire(files, systemd).await;
    }
    Ok(started?)
}

/// Waits until an executor whose journal is over has taken its unit away and ended.
///
/// # Errors
/// [`UnitError::Lingers`] when it does not in time.
pub async fn ended<S: Systemd>(systemd: &S) -> Result<(), UnitError> {
    let until = Instant::now() + ENDS_WITHIN;
    while matches!(&*systemd.unit(UNIT).await?.active, "active" | "deactivating") {
        if Instant::now() >= until {
            return Err(UnitError::Lingers);
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Disables and removes the unit, from inside it: the last thing that an executor does.
///
/// The file goes first. So a power cut leaves either a unit that starts at the next boot and is removed then, or a link
/// without a file, which has no effect. A file without its link would stay, for nothing starts it.
pub(super) async fn retire<S: Systemd>(files: &Files, systemd: &S) -> Result<(), UnitError> {
    files.remove(&path())?;
    files.remove_link(&link())?;
    files.remove_empty_dir(&wants())?;
    // The last steps may have changed files of other units, too, and a crash may have come in between.
    Ok(systemd.reload().await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        executor::journal::{self, Event, Journal},
        plan::document::Plan,
    };

    #[test]
    fn systemd_starts_it_again_when_it_hangs_or_is_ended_by_others() {
        let [binary, dir] = ["/var/lib/transship/bin/0/transship", "/var/lib/transship/a"]
            .map(|path| HostPath::new(path).unwrap());
        let text = text(&binary, &dir);
        for line in [
            "Restart=on-failure",
            "RestartSec=1",
            "RestartForceExitStatus=SIGTERM SIGINT SIGHUP SIGPIPE",
            "RestartPreventExitStatus=3",
            "NotifyAccess=main",
            "WatchdogSec=300",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(!text.contains("docker") && !text.contains("containerd"), "{text}");
    }

    #[test]
    fn one_migration_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let [this, other] = ["this", "other"].map(|name| Dir::new(&files, name).unwrap());
        let plan = Plan::example("other", Vec::new());
        other.write_plan(&plan).unwrap();
        // A plan alone has changed nothing.
        refuse_beside_another(&files, &this).unwrap();
        let mut journal = Journal::open(&files, &other.file("journal")).unwrap();
        journal
            .append(Event::Opened {
                format: journal::FORMAT,
                plan: plan.digest(),
                binary: "0".to_owned(),
                nth: 1,
            })
            .unwrap();
        let refused = refuse_beside_another(&files, &this).unwrap_err();
        assert!(matches!(&refused, UnitError::Busy(path) if path == other.path()));
        assert!(
            refused.to_string().contains("/var/lib/transship/other"),
            "{refused}"
        );
        refuse_beside_another(&files, &other).unwrap();
        journal.append(Event::RolledBack).unwrap();
        refuse_beside_another(&files, &this).unwrap();
    }
}
