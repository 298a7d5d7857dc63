//! Logs: `tracing` to standard error, filtered by `RUST_LOG`. Standard output belongs to the result of a command.
//! Logs leave the node, so everything that is written to standard error is redacted here, and nowhere else is anything
//! written there.

use std::io::{self, IsTerminal as _, Write};

use tracing_subscriber::EnvFilter;

use crate::{
    edit::parse,
    plan::redaction::{self, Published},
};

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
    let terminal = io::stderr().is_terminal();
    let (level, usual) = match role {
        Role::Service if terminal => ("info", LogFormat::Text),
        Role::Service => ("info", LogFormat::Json),
        Role::Command => ("warn", LogFormat::Text),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let format = format.unwrap_or(usual);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Redacting {
            to: io::stderr(),
            format,
        });
    let _already_started = match format {
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
        LogFormat::Text => lines.with_ansi(terminal).with_target(false).try_init(),
    };
    std::panic::set_hook(Box::new(|panic| complain(panic)));
}

/// Says on standard error why a command failed.
pub fn complain(error: &dyn std::fmt::Display) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(
        io::stderr().lock(),
        "transship: {}",
        redaction::sentence(&error.to_string())
    );
}

/// Writes log lines as anybody may read them.
struct Redacting<W> {
    to: W,
    format: LogFormat,
}

impl<W: Write> Write for Redacting<W> {
    /// Takes a whole line: the subscriber writes each event at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let document = match self.format {
            LogFormat::Json => parse::json(&*text).ok(),
            LogFormat::Text => None,
        };
        let shown = match document {
            Some(document) => format!("{}\n", Published::of(document)),
            None => redaction::sentence(&text),
        };
        self.to.write_all(shown.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat) -> String {
        let kept = Kept::default();
        let to = kept.clone();
        let lines = tracing_subscriber::fmt().with_writer(move || Redacting {
            to: to.clone(),
            format,
        });
        let said = || {
            let error = "3 | token: zq7\nAuthorization: \"Bearer zq7\"";
            tracing::warn!(%error, password = "zq7", url = "https://me:zq7@h/\\", "https://me:zq7@h/ says \"no\"");
        };
        match format {
            LogFormat::Json => {
                tracing::subscriber::with_default(lines.json().flatten_event(true).finish(), said)
            }
            LogFormat::Text => tracing::subscriber::with_default(lines.with_ansi(false).finish(), said),
        }
        let kept = kept.0.lock().unwrap().clone();
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn no_log_line_shows_a_secret() {
        let text = logged(LogFormat::Text);
        assert!(
            text.contains("https://…@h/ says \"no\"") && !text.contains("zq7"),
            "{text}"
        );
        let json = logged(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["message"], "https://…@h/ says \"no\"");
        assert_eq!(line["password"], "…");
        assert!(!json.contains("zq7") && json.ends_with("}\n"), "{json}");
    }
}
