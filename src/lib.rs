//! Transship moves the containers of a Kubernetes node from one container runtime to another, and can always
//! roll back. The modules in reading order:
//!
//! - [`api`]: what a user can ask for, and what is reported back: the two custom resources.
//! - [`edit`]: other people's configuration, text in and text out (pure).
//! - [`plan`]: what a request, a node and a plan are made of: facts, kinds of findings and an ordered list of steps (data).
//! - [`planner`]: what a request means on one node: facts in, findings and a plan out (pure).
//! - [`host`]: files under a root prefix, systemd over D-Bus, subprocesses.
//! - [`runtime`]: clients of the CRI, Docker Engine and containerd; image transfer; ending pods.
//! - [`inspect`]: reads a host into facts.
//! - [`executor`]: carries out a plan on the host, survives anything, rolls back without the network.
//! - [`node`]: the commands for one node and a shell: `transship node inspect|plan|switch|…`.
//! - [`agent`]: brings a migration to its node: cordon, drain, executor, verification, commit, report.
//! - [`controller`]: which node, when.
//! - [`console`]: standard output, and the exit codes.
//! - [`cli`], [`telemetry`]: the command line of all roles, and their logs.
//! - [`metrics`], [`admin`]: what Prometheus and the probes see.
//!
//! Dependencies point one way (`tests/pure/architecture.rs` holds it): `edit ← plan ← planner ← agent`,
//! the executor sees neither `kube` nor `planner`, the controller never sees `host`, and `edit`, `plan` and `planner`
//! do no I/O.

pub mod admin;
pub mod agent;
pub mod api;
pub mod cli;
pub mod console;
pub mod controller;
pub mod edit;
pub mod executor;
pub mod host;
pub mod inspect;
pub mod metrics;
pub mod node;
pub mod plan;
pub mod planner;
pub mod runtime;
pub mod telemetry;

#[cfg(test)]
#[path = "../tests/support/fuzz.rs"]
mod fuzz;
