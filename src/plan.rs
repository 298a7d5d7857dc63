//! What a request, a node and a plan are made of: types that are written to disk, sent to the API server or read by several
//! rooms. Plain data with its readers; no I/O, no clock, and nothing that decides what a plan does: that is
//! [`planner`](crate::planner). The executor knows this room and never that one.
//!
//! - [`host_path`], [`digest`], [`version`], [`mod@reference`], [`quantity`], [`lists`], [`causes`]: the small types and readers that everything else is written in.
//! - [`runtime`]: the runtimes; [`paths`]: the files of theirs that more than one room names.
//! - [`request`]: what a user asks for.
//! - [`facts`]: what was found on a node; [`installed`]: its runtimes, all in one form; [`kubelet_settings`] and [`kubelet_arguments`]: what of it the kubelet makes,
//!   [`snapshots`]: what containerd makes of it, [`registry_certificates`]: what of registries' directories, [`docker_runtimes`]: what Docker does, [`effective`]: what systemd must have of a unit,
//!   [`configuration`]: what a runtime must have in effect.
//! - [`cluster`]: what the API server reports of a node.
//! - [`finding`]: one result of preflight; [`codes`]: every kind.
//! - [`step`]: the primitives that the executor knows.
//! - [`document`]: the plan itself, serialisable, with a digest; [`words`]: the plan for people, and
//!   [`redaction`]: what of it anybody may read.
//! - [`baseline`]: what a node was like right before its switch; [`shims`]: what its pods run on after an upgrade in place.

pub mod baseline;
pub mod causes;
pub mod cluster;
pub mod codes;
pub mod configuration;
pub mod digest;
pub mod docker_runtimes;
pub mod document;
pub mod effective;
pub mod environment;
pub mod facts;
pub mod finding;
pub mod host_path;
pub mod installed;
pub mod kubelet_arguments;
pub mod kubelet_settings;
pub mod lists;
pub mod paths;
pub mod quantity;
pub mod redaction;
pub mod reference;
pub mod registry_certificates;
pub mod request;
pub mod runtime;
pub mod shims;
pub mod snapshots;
pub mod step;
pub mod version;
pub mod words;

#[cfg(test)]
mod tests;
