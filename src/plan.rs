//! What a request means on one node. Pure: facts and a request in, findings and a plan out; no I/O, no clock.
//!
//! - [`host_path`], [`digest`], [`version`], [`mod@reference`], [`quantity`]: the small types and readers that everything else is written in.
//! - [`facts`]: what was found on a node.
//! - [`finding`]: one result of preflight; [`findings`]: the checks.
//! - [`step`]: the eight primitives that the executor knows.
//! - [`document`]: the plan itself, serialisable, with a digest; [`words`]: the plan for people, and
//!   [`redaction`]: what of it anybody may read.
//! - [`baseline`]: what a node was like right before its switch.
//! - [`planner`]: the way in. [`runtimes`] knows what it takes to leave and to go to each runtime, and [`assembler`]
//!   puts the two parts of a plan together. [`kubelet_settings`], [`kubelet_arguments`] and [`kubelet_endpoint`] know
//!   the kubelet, [`docker_settings`] and [`docker_limits`] Docker, [`pod_environment`] what pods have of it, [`cargo`] which images are carried, [`sharing`] whether they are copied,
//!   [`install`] where the target's files come from, [`support`] which releases go together.

pub mod assembler;
pub mod baseline;
pub mod cargo;
pub mod digest;
pub mod docker_limits;
pub mod docker_settings;
pub mod document;
pub mod effective;
pub mod facts;
pub mod finding;
pub mod findings;
pub mod host_path;
pub mod install;
pub mod kubelet_arguments;
pub mod kubelet_endpoint;
pub mod kubelet_settings;
pub mod planner;
pub mod pod_environment;
pub mod quantity;
pub mod redaction;
pub mod reference;
pub mod runtimes;
pub mod sharing;
pub mod step;
pub mod support;
pub mod version;
pub mod words;

#[cfg(test)]
mod tests;
