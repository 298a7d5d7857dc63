//! What needs a real API server: the controller, the agent, the definitions and the chart.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is a test"
)]

mod field_reference;
mod fleet;
mod generated;
mod scenario;
mod server;

mod agent_drain;
mod agent_machine;
mod bad_input;
mod chart;
mod controller;
mod controller_process;
mod crds;
mod deletion;
mod identities;
mod permissions;
