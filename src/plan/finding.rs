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

/// A kind of finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// Its stable name.
    pub name: &'static str,
    /// How much it weighs.
    pub severity: Severity,
    /// Whether `preflight.allow` can accept it. What makes a plan impossible cannot be accepted.
    pub acceptable: bool,
    /// What it means, for the table.
    pub meaning: &'static str,
}

impl Code {
    pub(crate) const fn block(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: false,
            meaning,
        }
    }

    pub(crate) const fn block_unless_allowed(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: true,
            meaning,
        }
    }

    pub(crate) const fn warn(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Warn,
            acceptable: false,
            meaning,
        }
    }

    pub(crate) const fn info(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Info,
            acceptable: false,
            meaning,
        }
    }

    /// A finding of this kind.
    pub fn found(&self, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            severity: self.severity,
            code: self.name.to_owned(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }
}
