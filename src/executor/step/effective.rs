//! Whether systemd has of a unit what the plan set. Somebody's file that is read later, or that came since the plan was
//! made, would otherwise go unnoticed: the old program or the old proxy would run under the new name.

use super::StepError;
use crate::{
    edit::unit_file,
    host::systemd::{Systemd, UnitProperties},
    plan::{
        configuration::{ConfigurationWant, Difference},
        effective::Effective,
        facts::Limits,
        host_path::HostPath,
        redaction,
    },
    runtime::Runtimes,
};

/// A property that is not as planned: its name, what systemd has, and what was planned, as anybody may read them.
type OfUnit = (String, String, String);

/// Compares `unit` as systemd has it with `wanted`.
pub(super) async fn check(systemd: &impl Systemd, unit: &str, wanted: &Effective) -> Result<(), StepError> {
    let found = systemd.describe(unit).await?;
    match difference(&found, wanted) {
        None => Ok(()),
        Some((property, found, planned)) => Err(StepError::NotAsPlanned {
            unit: unit.to_owned(),
            property,
            found,
            planned,
        }),
    }
}

/// Compares the effective configuration of a runtime with `wanted`. A program that does not print it is not a failure: that
/// it serves was seen.
pub(super) async fn check_configuration(
    runtimes: &impl Runtimes,
    wanted: &ConfigurationWant,
) -> Result<(), StepError> {
    let text = match runtimes.configuration(&wanted.command).await {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(%error, "the effective configuration is not compared with the plan");
            return Ok(());
        }
    };
    match wanted.difference(&text) {
        None => Ok(()),
        Some(Difference {
            setting,
            found,
            planned,
        }) => Err(StepError::OtherConfiguration {
            setting,
            found,
            planned,
            command: wanted.command.join(" "),
        }),
    }
}

fn difference(found: &UnitProperties, wanted: &Effective) -> Option<OfUnit> {
    // By its name: systemd may report a directory that is a link by its target.
    let name = |path: &HostPath| path.as_str().rsplit('/').next().unwrap_or_default().to_owned();
    if found
        .drop_ins
        .iter()
        .all(|path| name(path) != name(&wanted.drop_in))
    {
        let paths: Vec<&str> = found.drop_ins.iter().map(|path| path.as_str()).collect();
        return Some((
            "DropInPaths".to_owned(),
            paths.join(" "),
            wanted.drop_in.to_string(),
        ));
    }
    if !wanted.exec_start.is_empty() && found.exec_start != wanted.exec_start {
        let shown = |words: &[String]| {
            let words: Vec<String> = words.iter().map(|word| unit_file::word(word)).collect();
            redaction::line(&format!("ExecStart={}", words.join(" ")))
        };
        return Some((
            "ExecStart".to_owned(),
            shown(&found.exec_start),
            shown(&wanted.exec_start),
        ));
    }
    for assignment in &wanted.environment {
        let name = assignment.split('=').next().unwrap_or_default();
        let of_name = |other: &&String| other.split('=').next() == Some(name);
        // systemd gives the last value of a name to the program.
        let has = found.environment.iter().rev().find(of_name);
        if has != Some(assignment) {
            let shown = |assignment: &str| redaction::line(&unit_file::environment(assignment));
            let has = has.map_or_else(|| format!("no {name}"), |has| shown(has));
            return Some(("Environment".to_owned(), has, shown(assignment)));
        }
    }
    for path in &wanted.environment_files {
        let has = found.environment_files.iter().map(|(path, _)| path.as_str());
        if has.clone().all(|has| has != path.trim_start_matches('-')) {
            let has: Vec<&str> = has.collect();
            return Some(("EnvironmentFiles".to_owned(), has.join(" "), path.clone()));
        }
    }
    for (property, wanted) in &wanted.limits {
        let limit = found.limits.get(property);
        if limit != Some(wanted) {
            let shown = |limits: &Limits| format!("{}:{}", number(limits.soft), number(limits.hard));
            let has = limit.map_or_else(|| "no limit".to_owned(), shown);
            return Some((property.clone(), has, shown(wanted)));
        }
    }
    None
}

fn number(limit: u64) -> String {
    if limit == u64::MAX {
        "infinity".to_owned()
    } else {
        limit.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_both_values_and_no_secret() {
        let path = HostPath::new("/etc/systemd/system/containerd.service.d/zz-transship.conf").unwrap();
        let text = "[Service]\nEnvironment=\"HTTPS_PROXY=http://me:secret@new:1\"\nExecStart=\nExecStart=/opt/containerd\nLimitNOFILE=9\n";
        let wanted = Effective::of_drop_in(&path, text);
        let right = UnitProperties {
            drop_ins: vec![path],
            exec_start: wanted.exec_start.clone(),
            environment: wanted.environment.clone(),
            limits: wanted.limits.clone(),
            ..UnitProperties::default()
        };
        assert_eq!(difference(&right, &wanted), None);
        let property = |found: &UnitProperties| difference(found, &wanted).unwrap();
        let missing = UnitProperties {
            drop_ins: Vec::new(),
            ..right.clone()
        };
        assert_eq!(property(&missing).0, "DropInPaths");
        let program = vec!["/usr/bin/containerd".to_owned()];
        let (name, found, planned) = property(&UnitProperties {
            exec_start: program,
            ..right.clone()
        });
        assert_eq!(name, "ExecStart");
        assert!(
            found.contains("/usr/bin/containerd") && planned.contains("/opt/containerd"),
            "{found} {planned}"
        );
        let mut proxy = right.clone();
        proxy
            .environment
            .push("HTTPS_PROXY=http://you:other@old:1".to_owned());
        let (name, found, planned) = property(&proxy);
        assert_eq!(name, "Environment");
        assert!(
            found.contains("old:1") && planned.contains("new:1"),
            "{found} {planned}"
        );
        assert!(
            !found.contains("other") && !planned.contains("secret"),
            "{found} {planned}"
        );
        let mut limit = right;
        limit
            .limits
            .insert("LimitNOFILE".to_owned(), Limits { soft: 5, hard: 9 });
        assert_eq!(
            property(&limit),
            ("LimitNOFILE".to_owned(), "5:9".to_owned(), "9:9".to_owned())
        );
    }
}
