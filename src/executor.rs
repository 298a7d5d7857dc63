//! Carries out a plan on the host, survives anything, and rolls back without the network. It has no access to the API
//! server. What it does with runtimes are the primitives in [`crate::plan::step`].
//!
//! - [`control`]: the directory of a migration on the host, through which others speak with the executor.
//! - [`journal`]: the append-only write-ahead log of a plan being carried out.
//! - [`progress`]: what the journal means to those who watch.
//! - [`decide`]: what is to be done next (pure).
//! - [`step`]: the primitives: save, apply, undo.
//! - [`run`]: the loop.
//! - [`standby`]: the wait for the order to switch, and its end.
//! - [`mod@unit`]: the systemd unit that the executor runs in.
//! - [`command`]: `transship executor run|install`.

pub mod command;
pub mod control;
pub mod decide;
pub mod journal;
pub mod progress;
pub mod run;
pub mod standby;
pub mod step;
pub mod unit;
