//! What a node does, with files, sockets, processes and package managers of this machine: the executor, its clients of
//! runtimes, and the commands for one node.

#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

mod archives;
#[path = "../hosts/fixtures.rs"]
#[allow(dead_code, reason = "each test uses a part")]
mod fixtures;
mod no_units;

mod bad_archives;
mod coverage;
mod crash_sweep;
mod executor_unit;
mod fetch;
mod node_commands;
mod packages;
mod runtimes;
