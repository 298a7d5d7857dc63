//! The host: files under a root prefix, systemd over D-Bus, subprocesses. Only this module and `inspect` and
//! `executor` above it touch the machine.

pub mod bus;
pub mod command;
pub mod files;
pub mod systemd;
