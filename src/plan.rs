//! What a request means on one node. Pure: facts and a request in, findings and a plan out; no I/O, no clock.
//!
//! - [`host_path`], [`digest`]: the two small types that everything else is written in.
//! - [`facts`]: what was found on a node.
//! - [`finding`]: one result of preflight.
//! - [`step`]: the eight primitives that the executor knows.
//! - [`document`]: the plan itself, serialisable, with a digest.

pub mod digest;
pub mod document;
pub mod facts;
pub mod finding;
pub mod host_path;
pub mod step;
