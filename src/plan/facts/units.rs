//! Units of systemd.

use serde::{Deserialize, Serialize};

use super::texts::TextFile;
use crate::plan::{host_path::HostPath, paths::OWN_UNITS};

/// A systemd unit as systemd itself describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UnitFacts {
    /// Name with its suffix.
    pub name: String,
    /// `LoadState`: `loaded`, `not-found`, `masked`, …
    pub load: String,
    /// `ActiveState`: `active`, `inactive`, `failed`, …
    pub active: String,
    /// `UnitFileState`: `enabled`, `disabled`, `static`, `masked`, …
    pub boot: String,
    /// `FragmentPath`, where there is one.
    pub fragment: Option<HostPath>,
    /// Text of the drop-ins, in systemd's order.
    pub drop_ins: Vec<TextFile>,
    /// `Environment`: `NAME=value`.
    pub environment: Vec<String>,
    /// `EnvironmentFiles` that exist, in systemd's order, with their text.
    pub environment_files: Vec<TextFile>,
    /// First command of `ExecStart` as it stands in the unit, before variables are replaced.
    pub exec_start: Vec<String>,
    /// `MainPID`, 0 when it does not run.
    pub main_pid: u32,
    /// `Requires`, `BindsTo`, `Requisite` and `PartOf`: units whose stop would stop this one.
    pub bound_to: Vec<String>,
    /// `RequiredBy`, `BoundBy` and `WantedBy`: units that start this one, or stop with it.
    pub needed_by: Vec<String>,
    /// When it became active, in microseconds since 1970; 0 if it never was.
    pub active_since_micros: u64,
    /// Effective `LimitNOFILE`.
    pub limit_nofile: Limits,
}

impl UnitFacts {
    /// Its file, where an administrator has written it: it lies where a mask would.
    pub fn own_file(&self) -> Option<&HostPath> {
        let path = self.fragment.as_ref();
        path.filter(|path| path.as_str().starts_with(OWN_UNITS))
    }
}

/// A soft and a hard limit (setrlimit(2)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The soft limit; [`u64::MAX`] is infinity, written as `"infinity"`.
    #[serde(with = "limit")]
    pub soft: u64,
    /// The hard limit; [`u64::MAX`] is infinity, written as `"infinity"`.
    #[serde(with = "limit")]
    pub hard: u64,
}

/// A limit, which may be infinite. JSON has no number for [`u64::MAX`] that every reader keeps exactly.
mod limit {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Limit {
        Number(u64),
        Word(Infinity),
    }

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Infinity {
        Infinity,
    }

    pub(super) fn serialize<S: Serializer>(limit: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        match *limit {
            u64::MAX => Limit::Word(Infinity::Infinity),
            number => Limit::Number(number),
        }
        .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(match Limit::deserialize(deserializer)? {
            Limit::Number(number) => number,
            Limit::Word(Infinity::Infinity) => u64::MAX,
        })
    }
}
