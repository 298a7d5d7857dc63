//! Logs: `tracing` to standard error, filtered by `RUST_LOG`. Standard output belongs to the result of a command.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// What a role logs when `RUST_LOG` is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs for ever and its log is collected: what happens, as JSON unless a person watches.
    Service,
    /// A person waits for its result on standard output: warnings only.
    Command,
}

/// Starts logging. Does nothing when a subscriber is there already (tests).
pub fn start(role: Role, format: Option<LogFormat>) {
    let terminal = std::io::stderr().is_terminal();
    let (level, usual) = match role {
        Role::Service if terminal => ("info", LogFormat::Text),
        Role::Service => ("info", LogFormat::Json),
        Role::Command => ("warn", LogFormat::Text),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let _already_started = match format.unwrap_or(usual) {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Text => lines.with_ansi(terminal).with_target(false).try_init(),
    };
}
