//! A process as the kernel describes it in `/proc/PID/stat` (proc(5)).

use std::time::Duration;

use super::files::Files;
use crate::plan::host_path::HostPath;

/// How long the machine has run, in seconds (proc(5)).
const UPTIME: &str = "/proc/uptime";
/// Clock ticks in a second as the kernel shows them to programs, on every architecture that containers run on (`USER_HZ`).
const TICKS_PER_SEC: u64 = 100;

/// How long the machine has run; `None` if that is not known.
pub fn uptime(files: &Files) -> Option<Duration> {
    let text = files.read_text(&HostPath::new(UPTIME).ok()?).ok()??;
    let secs = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(secs).ok()
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    /// It has exited, and nobody has asked how yet.
    pub ended: bool,
    /// Its parent.
    pub parent: u32,
    /// When it was started, in clock ticks since the boot. With its number it tells processes apart; `None` if the text ends
    /// before.
    pub started: Option<u64>,
}

impl Process {
    /// The process with this number; `None` if there is none.
    pub fn of(files: &Files, pid: u32) -> Option<Self> {
        let path = HostPath::new(format!("/proc/{pid}/stat")).ok()?;
        Self::read(&files.read_text(&path).ok()??)
    }

    /// How long it has run; `None` if that is not known.
    pub fn age(&self, files: &Files) -> Option<Duration> {
        let started = Duration::from_millis(self.started? * (1000 / TICKS_PER_SEC));
        Some(uptime(files)?.saturating_sub(started))
    }

    /// Reads the text of its file. The name of the program, which stands before what counts, may hold blanks and parentheses.
    fn read(stat: &str) -> Option<Self> {
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        Some(Self {
            ended: state.starts_with(['Z', 'X']),
            parent: fields.next()?.parse().ok()?,
            started: fields.nth(17).and_then(|ticks| ticks.parse().ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_hold_what_ends_it() {
        let lives = Process {
            ended: false,
            parent: 7,
            started: None,
        };
        assert_eq!(Process::read("100 (a) b) S 7 1 1\n"), Some(lives));
        assert_eq!(
            Process::read("100 (a) b) Z 7 1 1\n"),
            Some(Process { ended: true, ..lives })
        );
        assert_eq!(Process::read("100 a S 7\n"), None);
    }

    #[test]
    fn a_process_is_as_old_as_the_machine_without_what_came_before_it() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let process = Process::read(&format!("7 (a) S 1{} 1250 0", " 0".repeat(17))).unwrap();
        assert_eq!(process.age(&files), None);
        files
            .write(&HostPath::new(UPTIME).unwrap(), b"20.75 3.10\n", 0o444)
            .unwrap();
        assert_eq!(process.age(&files), Some(Duration::from_millis(8250)));
    }

    #[test]
    fn fuzz_process() {
        use crate::fuzz::{hold, samples};

        hold(&samples("proc-status", &[]), |text| {
            Process::read(text);
        });
    }
}
