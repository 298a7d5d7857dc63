//! What a node does, with files, sockets, processes and package managers of this machine: the executor, its clients of
//! runtimes, and the commands for one node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

#[path = "../support/archive.rs"]
mod archives;
mod no_units;

mod bad_archives;
mod fetch;
mod node_commands;
mod packages;
mod runtimes;
