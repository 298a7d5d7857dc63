//! One result of preflight.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One result of preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Whether it stops the migration.
    pub severity: Severity,
    /// Stable name, such as `CgroupDriverMismatch`; what `preflight.allow` lists.
    pub code: String,
    /// What was found, naming the object.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Whether a finding stops the migration of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Nothing is touched until it is solved, or accepted by `preflight.allow`.
    Block,
    /// Worth reading before going on.
    Warn,
    /// Good to know.
    Info,
}
