//! Running a program of a runtime for what it prints: its version, its configuration.

use std::{io::ErrorKind, path::Path, time::Duration};

use super::RuntimeError;
use crate::host::command::{self, CommandError};

/// How long it may take to answer.
const WITHIN: Duration = Duration::from_secs(10);
/// How often a program that is still open for writing is tried again.
const TRIES: usize = 20;
/// Pause between the tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What `program --version` prints.
pub(super) async fn version(program: &Path) -> Result<String, RuntimeError> {
    output(program, &["--version".to_owned()]).await
}

/// What a program prints with these arguments.
pub(super) async fn output(program: &Path, arguments: &[String]) -> Result<String, RuntimeError> {
    let mut tries = 0;
    let output = loop {
        let mut command = command::command(program);
        command.args(arguments);
        match command::run(command, b"", WITHIN).await {
            // A process that another thread is just starting has inherited the file descriptor that it was written by.
            Err(CommandError::Start { source, .. })
                if source.kind() == ErrorKind::ExecutableFileBusy && tries < TRIES =>
            {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            other => break other.map_err(RuntimeError::of)?,
        }
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(RuntimeError::new(format!(
        "{} {}: {}: {}",
        program.display(),
        arguments.join(" "),
        output.status,
        output.stderr.trim()
    )))
}
