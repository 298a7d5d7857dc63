//! Subprocesses: each has a deadline, and what it prints is bounded. A child whose deadline passes is killed.

use std::{ffi::OsStr, io, process::ExitStatus, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

/// Longest output that is kept, in bytes; the rest is read and thrown away.
const LIMIT: u64 = 1024 * 1024;

/// What a process left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// The first mebibyte of its standard output.
    pub stdout: Vec<u8>,
    /// The first mebibyte of its standard error, as text.
    pub stderr: String,
}

/// A process that gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{program} could not be started: {source}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
    /// It was killed because its deadline passed.
    #[error("{program} gave no answer within {} s and was killed", within.as_secs())]
    Deadline {
        /// The program.
        program: String,
        /// Its deadline.
        within: Duration,
    },
    /// Its pipes broke.
    #[error("talking to {program}: {source}")]
    Pipe {
        /// The program.
        program: String,
        /// The cause.
        source: io::Error,
    },
}

/// A command of which the child dies with its deadline, with no terminal and no input.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command made by [`command`] with `input` on its standard input, and waits for its end.
///
/// # Errors
/// When it gave no answer. An exit code other than 0 is an answer.
pub async fn run(mut command: Command, input: &[u8], within: Duration) -> Result<Output, CommandError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    if !input.is_empty() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(|source| CommandError::Start {
        program: program.clone(),
        source,
    })?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async move {
        match stdin {
            // A program that does not read its input closes it early, which is its right.
            Some(mut pipe) => match pipe.write_all(input).await {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
                written => written,
            },
            None => Ok(()),
        }
    };
    let all = async { tokio::try_join!(feed, bounded(stdout), bounded(stderr), child.wait()) };
    match tokio::time::timeout(within, all).await {
        Ok(Ok(((), stdout, stderr, status))) => Ok(Output {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        }),
        Ok(Err(source)) => Err(CommandError::Pipe { program, source }),
        Err(_) => Err(CommandError::Deadline { program, within }),
    }
}

/// Reads a pipe to its end and keeps the first [`LIMIT`] bytes.
///
/// # Errors
/// When the pipe breaks.
pub async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        (&mut pipe).take(LIMIT).read_to_end(&mut kept).await?;
        tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await?;
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut shell = command("/bin/sh");
        shell.args(["-c", script]);
        shell
    }

    #[tokio::test]
    async fn input_goes_in_and_output_comes_out() {
        let output = run(shell("cat; echo no >&2; exit 3"), b"yes", Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_str()),
            (b"yes".as_slice(), "no\n")
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[tokio::test]
    async fn output_is_bounded_and_the_child_still_ends() {
        let output = run(shell("head -c 3000000 /dev/zero"), b"", Duration::from_secs(10))
            .await
            .unwrap();
        assert_eq!(output.stdout.len() as u64, LIMIT);
        assert!(output.status.success());
    }

    #[tokio::test]
    async fn a_child_that_hangs_is_killed() {
        let hung = run(shell("exec sleep 60"), b"", Duration::from_millis(50)).await;
        assert!(matches!(hung, Err(CommandError::Deadline { .. })), "{hung:?}");
    }
}
