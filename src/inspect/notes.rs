//! The host that is looked at, and what could not be read there.

use std::{cell::RefCell, time::Duration};

use crate::{
    host::{
        command::{self, CommandError},
        files::Files,
    },
    plan::{
        digest::Digest,
        facts::{MaybeFile, TextFile},
        host_path::HostPath,
    },
};

/// How long a program may take to tell its version or its configuration.
const PROGRAM: Duration = Duration::from_secs(10);

/// The host to look at.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its files.
    pub files: Files,
    /// Whether it is the one that this process runs on: only its systemd can be asked, and its programs started.
    pub live: bool,
}

/// What could not be read, in sentences, each once.
#[derive(Debug, Default)]
pub(super) struct Notes(pub(super) RefCell<Vec<String>>);

impl Notes {
    pub(super) fn add(&self, note: String) {
        let mut notes = self.0.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The value, or a note.
    pub(super) fn keep<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(error.to_string())).ok()
    }

    /// A file with its text, when it is there.
    pub(super) fn text(&self, files: &Files, path: &str) -> Option<TextFile> {
        let path = self.keep(HostPath::new(path))?;
        let text = self.keep(files.read_text(&path))??;
        let mode = self.keep(files.attributes(&path))??.mode;
        Some(TextFile {
            digest: Digest::of(&text),
            path,
            text,
            mode,
        })
    }

    /// A path, with the file there if there is one.
    pub(super) fn maybe(&self, files: &Files, path: &str) -> Option<MaybeFile> {
        let file = self.text(files, path);
        Some(MaybeFile {
            path: self.keep(HostPath::new(path))?,
            file,
        })
    }

    /// The names in a directory.
    pub(super) fn list(&self, files: &Files, directory: &str) -> Vec<String> {
        let path = self.keep(HostPath::new(directory));
        path.and_then(|path| self.keep(files.list(&path)))
            .unwrap_or_default()
    }

    /// What a program prints.
    pub(super) async fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let mut command = command::command(program);
        command.args(arguments);
        let output: Result<_, CommandError> = command::run(command, b"", PROGRAM).await;
        let output = self.keep(output)?;
        if !output.status.success() {
            let words = output.stderr.trim();
            self.add(format!(
                "{program} {} ended with {}: {words}",
                arguments.join(" "),
                output.status
            ));
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether there is something at a path; what cannot be looked at is not there.
pub(super) fn exists(files: &Files, path: &str) -> bool {
    HostPath::new(path).is_ok_and(|path| files.exists(&path).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock goes on only to deadlines once the program runs.
    #[tokio::test]
    async fn a_program_that_says_nothing_is_noted() {
        let place = tempfile::tempdir().unwrap();
        let hung = place.path().join("hung");
        let script = format!("touch {}; exec sleep 86400", hung.display());
        let notes = Notes::default();
        let skip = async {
            while !hung.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::pause();
            tokio::time::sleep(Duration::from_secs(24 * 60 * 60)).await;
        };
        let arguments = ["-c", script.as_str()];
        tokio::select! {
            printed = notes.output("/bin/sh", &arguments) => assert_eq!(printed, None),
            () = skip => panic!("it has no deadline"),
        }
        let said = notes.0.take().join("\n");
        assert!(
            said.contains("/bin/sh gave no answer within 10 s and was killed"),
            "{said}"
        );
    }
}
