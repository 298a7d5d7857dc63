//! The configuration of containerd 1.x as containerd 2.x must have it, so that nothing changes for the pods: 2.x drops
//! some keys with a line in its log or without one, and has other built-in defaults. The format of the file stays as it
//! was, because containerd 1.x must be able to read the file after a rollback.
//!
//! Until the commit, containerd 2.x starts new sandboxes with the old shim: containerd 1.x can adopt no others.

mod defaults;
mod draft;
mod handlers;
mod hidden;
mod outcome;
mod registries;
mod sources;
mod translation;

pub use outcome::{Became, Key, Problem, RegistryFile, Translation};
pub use sources::{New, Old};
pub use translation::translate;

#[cfg(test)]
mod tests;
