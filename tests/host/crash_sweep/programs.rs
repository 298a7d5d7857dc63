//! Programs of the host that the executor runs: real processes. Before every change they ask for leave, so that the
//! world can be kept as a crash in the middle of them would leave it, and they die with the executor.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    thread,
    time::Duration,
};

use nix::{
    libc,
    sys::{
        stat::Mode,
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::mkfifo,
};
use transship::host::files::Effect;

use crate::crash_sweep::world::{Fault, World};

/// Two pipes beside the root.
pub struct Programs {
    asks: File,
    answers: File,
}

impl Programs {
    pub fn in_(place: &Path) -> Self {
        let pipe = |name: &str| {
            let at = place.join(name);
            mkfifo(&at, Mode::S_IRWXU).unwrap();
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
            options.open(at).unwrap()
        };
        Self {
            asks: pipe("asks"),
            answers: pipe("answers"),
        }
    }
}

impl World {
    /// While a program runs, time stands still: answers what it asks until it has ended.
    pub fn attend_programs(&self) {
        if self.case.packaged.is_empty() {
            return;
        }
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while waitid(Id::All, flags) == Ok(WaitStatus::StillAlive) {
            let mut asked = [0; 4096];
            match (&self.programs.asks).read(&mut asked) {
                Ok(length) => {
                    let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                    let answer = self.leave(asked.trim_end());
                    (&self.programs.answers).write_all(answer.as_bytes()).unwrap();
                }
                // Nothing.
                Err(_) => thread::sleep(Duration::from_micros(50)),
            }
        }
    }

    fn leave(&self, asked: &str) -> String {
        let (verb, what) = asked.split_once(' ').unwrap();
        let refused = match verb {
            "change" => self.about_to(Effect::Change(Path::new(what))).err(),
            "sync-file" => self.about_to(Effect::SyncFile(Path::new(what))).err(),
            "sync-directory" => self.about_to(Effect::SyncDirectory(Path::new(what))).err(),
            "unpack" => return self.unpacking(what).to_owned(),
            "start" => return self.script_starts(what),
            "remove" => return self.unit_goes(what),
            _ => panic!("{asked}"),
        };
        refused.map_or_else(|| "go\n".to_owned(), |error| format!("{error}\n"))
    }

    fn unpacking(&self, package: &str) -> &'static str {
        match self.fault {
            Fault::UnpackingDies(dies) if dies == package && !self.goes_back() => "Killed\n",
            _ => "go\n",
        }
    }

    /// A package's script enables its unit and starts it, if that is possible.
    fn script_starts(&self, unit: &str) -> String {
        self.effect();
        self.read_units(&mut self.state());
        if let Err(error) = self.link_wanted(unit) {
            return format!("{error}\n");
        }
        let mut state = self.state();
        if !state.masked.contains(unit) {
            state
                .violations
                .push(format!("{unit} was started by its package"));
        }
        if self.fault == Fault::ScriptFails && !self.goes_back() {
            "the script failed\n".to_owned()
        } else {
            "go\n".to_owned()
        }
    }

    /// A package's script takes its unit away.
    fn unit_goes(&self, unit: &str) -> String {
        self.effect();
        let mut state = self.state();
        if state.units.get(unit).is_some_and(|unit| unit.active) {
            state
                .violations
                .push(format!("{unit} ran when its package was removed"));
        }
        state.units.remove(unit);
        drop(state);
        match self.unlink_wanted(unit) {
            Ok(()) => "go\n".to_owned(),
            Err(error) => format!("{error}\n"),
        }
    }
}
