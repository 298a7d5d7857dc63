//! The host: files under a root prefix, systemd over D-Bus, subprocesses, archives from elsewhere. Only this module and what
//! stands on it (`runtime`, `inspect`, `executor`) touch the machine.

pub mod archive;
pub mod bus;
pub mod command;
pub mod fetch;
pub mod files;
pub mod own_binary;
pub mod pidfd;
pub mod process;
pub mod selinux;
pub mod systemd;
pub mod unit_links;
pub mod watchdog;
