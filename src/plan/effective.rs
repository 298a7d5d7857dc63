//! What a drop-in sets, and what systemd must therefore have of its unit once it was started.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    facts::{Limits, UnitFacts},
    host_path::HostPath,
};
use crate::edit::{env_file, unit_file};

/// What systemd must have of a unit that was started with a drop-in of the plan: the properties that the drop-in sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Effective {
    /// The drop-in.
    pub drop_in: HostPath,
    /// Words of `ExecStart`; empty if the drop-in does not set it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec_start: Vec<String>,
    /// Assignments of `Environment` (`NAME=value`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment: Vec<String>,
    /// Paths of `EnvironmentFile`, with the sign before them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_files: Vec<String>,
    /// Limits by property (`LimitNOFILE`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, Limits>,
}

/// A setting of somebody else that beats the drop-in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// The file with the setting.
    pub path: HostPath,
    /// The property (`ExecStart`), or the name of the variable.
    pub property: String,
}

impl Effective {
    /// What the drop-in at `path` with this text sets.
    pub fn of_drop_in(path: &HostPath, text: &str) -> Self {
        let mut effective = Self {
            drop_in: path.clone(),
            exec_start: Vec::new(),
            environment: Vec::new(),
            environment_files: Vec::new(),
            limits: BTreeMap::new(),
        };
        for (key, value) in unit_file::settings(text) {
            match key {
                "ExecStart" => effective.exec_start = unit_file::words(&value),
                "Environment" => effective.environment.extend(unit_file::words(&value)),
                "EnvironmentFile" => effective.environment_files.push(value),
                _ if key.starts_with("Limit") => {
                    if let Some(limit) = limit(&value) {
                        effective.limits.insert(key.to_owned(), limit);
                    }
                }
                _ => {}
            }
        }
        effective
    }

    /// The first setting of somebody else that beats the drop-in: in a drop-in of the unit whose name sorts after it, or in
    /// an environment file, which beats every `Environment=`.
    pub fn shadow(&self, unit: &UnitFacts) -> Option<Shadow> {
        let name = |path: &HostPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        let ours = name(&self.drop_in);
        let later = unit.drop_ins.iter().filter(|file| name(&file.path) > ours);
        let in_drop_in = later
            .flat_map(|file| unit_file::settings(&file.text).map(move |(key, value)| (file, key, value)))
            .find_map(|(file, key, value)| {
                let theirs = unit_file::words(&value);
                let beats = match key {
                    "ExecStart" => !self.exec_start.is_empty() && theirs != self.exec_start,
                    "Environment" => {
                        let clears = value.is_empty() && !self.environment.is_empty();
                        clears || theirs.iter().any(|assignment| self.is_contradicted(assignment))
                    }
                    "EnvironmentFile" => !self.environment_files.is_empty(),
                    _ => self
                        .limits
                        .get(key)
                        .is_some_and(|limit_| limit(&value) != Some(*limit_)),
                };
                beats.then(|| (file.path.clone(), key.to_owned()))
            });
        let in_file = || {
            unit.environment_files.iter().find_map(|file| {
                let names = self
                    .environment
                    .iter()
                    .filter_map(|assignment| assignment.split_once('='));
                let mut beaten = names.filter(|(name, value)| {
                    env_file::get(&file.text, name)
                        .ok()
                        .flatten()
                        .is_some_and(|found| found != *value)
                });
                beaten
                    .next()
                    .map(|(name, _)| (file.path.clone(), name.to_owned()))
            })
        };
        let (path, property) = in_drop_in.or_else(in_file)?;
        Some(Shadow { path, property })
    }

    /// Whether an assignment gives another value to a variable that the drop-in sets.
    fn is_contradicted(&self, assignment: &str) -> bool {
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        let same_name = |ours: &&String| name(ours) == name(assignment);
        self.environment
            .iter()
            .rev()
            .find(same_name)
            .is_some_and(|ours| ours != assignment)
    }
}

/// A resource limit as a unit file has it, soft and hard (`1024:4096`, `infinity`); `None` for a value with a unit, which
/// is compared by nobody.
fn limit(value: &str) -> Option<Limits> {
    let number = |text: &str| match text.trim() {
        "infinity" => Some(u64::MAX),
        text => text.parse().ok(),
    };
    match value.split_once(':') {
        Some((soft, hard)) => Some(Limits {
            soft: number(soft)?,
            hard: number(hard)?,
        }),
        None => number(value).map(|limit| Limits {
            soft: limit,
            hard: limit,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::TextFile;

    fn ours() -> Effective {
        let path = HostPath::new("/etc/systemd/system/containerd.service.d/zz-transship.conf").unwrap();
        let text = format!(
            "[Service]\n{}\nExecStart=\nExecStart=/opt/c/bin/containerd --log-level=warn\nLimitNOFILE=1024:infinity\n",
            unit_file::environment("HTTPS_PROXY=http://u:50%@p:1/")
        );
        Effective::of_drop_in(&path, &text)
    }

    #[test]
    fn what_a_drop_in_sets_is_read_as_systemd_reads_it() {
        let ours = ours();
        assert_eq!(ours.exec_start, ["/opt/c/bin/containerd", "--log-level=warn"]);
        assert_eq!(ours.environment, ["HTTPS_PROXY=http://u:50%@p:1/"]);
        let hard = u64::MAX;
        assert_eq!(ours.limits["LimitNOFILE"], Limits { soft: 1024, hard });
    }

    #[test]
    fn what_sorts_later_or_stands_in_an_environment_file_beats_it() {
        let shadowed = |name: &str, text: &str| {
            let path = format!("/etc/systemd/system/containerd.service.d/{name}");
            let drop_ins = vec![TextFile::example(&path, text)];
            let unit = UnitFacts {
                drop_ins,
                ..UnitFacts::default()
            };
            ours().shadow(&unit).map(|shadow| shadow.property)
        };
        let proxy = "[Service]\nEnvironment=HTTPS_PROXY=http://old:1\n";
        assert_eq!(shadowed("zzz.conf", proxy).unwrap(), "Environment");
        assert_eq!(shadowed("http-proxy.conf", proxy), None);
        assert_eq!(
            shadowed("zzz.conf", "[Service]\nEnvironment=A=b\nMemoryMax=1G\n"),
            None
        );
        assert_eq!(
            shadowed("zzz.conf", "[Service]\nEnvironment=\n").unwrap(),
            "Environment"
        );
        assert_eq!(
            shadowed("zzz.conf", "[Service]\nExecStart=\nExecStart=/bin/c\n").unwrap(),
            "ExecStart"
        );
        assert_eq!(
            shadowed("zzz.conf", "[Service]\nLimitNOFILE=5\n").unwrap(),
            "LimitNOFILE"
        );
        let environment_files = vec![TextFile::example(
            "/etc/default/containerd",
            "HTTPS_PROXY=http://old:1\n",
        )];
        let unit = UnitFacts {
            environment_files,
            ..UnitFacts::default()
        };
        assert_eq!(ours().shadow(&unit).unwrap().property, "HTTPS_PROXY");
    }
}
