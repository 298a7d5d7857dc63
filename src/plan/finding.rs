//! One result of preflight.

use regex_lite::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One result of preflight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Whether it stops the migration.
    pub severity: Severity,
    /// Stable name, such as `CgroupDriverMismatch`; what `preflight.allow` lists.
    pub code: String,
    /// What it is about, where one code stands for many things (`userns-remap`): `preflight.allow` then accepts
    /// `CODE/SUBJECT`, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
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
    /// Whether its findings have a subject, by which `preflight.allow` can accept one of them (`CODE/SUBJECT`).
    pub has_subjects: bool,
    /// What it means, for the table.
    pub meaning: &'static str,
}

impl Code {
    pub(crate) const fn block(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: false,
            has_subjects: false,
            meaning,
        }
    }

    pub(crate) const fn block_unless_allowed(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Block,
            acceptable: true,
            has_subjects: false,
            meaning,
        }
    }

    pub(crate) const fn warn(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Warn,
            acceptable: false,
            has_subjects: false,
            meaning,
        }
    }

    pub(crate) const fn info(name: &'static str, meaning: &'static str) -> Self {
        Self {
            name,
            severity: Severity::Info,
            acceptable: false,
            has_subjects: false,
            meaning,
        }
    }

    /// The same kind, whose findings have a subject each.
    pub(crate) const fn by_subject(self) -> Self {
        Self {
            has_subjects: true,
            ..self
        }
    }

    /// A finding of this kind.
    pub fn found(&self, message: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding {
            severity: self.severity,
            code: self.name.to_owned(),
            subject: None,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// Whether an entry of `preflight.allow` accepts findings of this kind, all of them or one.
    pub fn is_allowed_as(&self, entry: &str) -> bool {
        let (name, subject) = entry.split_once('/').unwrap_or((entry, ""));
        let of_subject = self.has_subjects && is_subject(subject);
        self.acceptable && name == self.name && (name == entry || of_subject)
    }
}

impl Finding {
    /// The same finding, about one of the many things that its code stands for.
    #[must_use]
    pub fn about(self, subject: impl Into<String>) -> Self {
        Self {
            subject: Some(subject.into()),
            ..self
        }
    }

    /// Its code, and its subject where it has one: what accepts this finding and no other in `preflight.allow`.
    pub fn full_name(&self) -> String {
        match &self.subject {
            Some(subject) => format!("{}/{subject}", self.code),
            None => self.code.clone(),
        }
    }
}

/// What the API server accepts as a subject in `preflight.allow`.
pub(super) const SUBJECT: &str = "[A-Za-z0-9][A-Za-z0-9._-]{0,46}";

/// Whether a text can be a subject: what [`SUBJECT`] says.
fn is_subject(text: &str) -> bool {
    Regex::new(&format!("^{SUBJECT}$")).is_ok_and(|pattern| pattern.is_match(text))
}
