//! Findings that several planners and checks return alike.

use crate::plan::{
    codes::{
        configuration::{DAEMON_JSON_BROKEN, DROP_IN_SHADOWED, FLAGS_NOT_EDITABLE, KUBELET_CONFIG_BROKEN},
        runtimes::{TARGET_MASKED, UNSUPPORTED_PAIR},
    },
    effective::{Effective, Shadow},
    facts::{TextFile, UnitFacts},
    finding::Finding,
    kubelet_arguments::ArgumentsError,
    kubelet_settings::SettingsError,
    lists,
    paths::DAEMON_JSON,
    runtime::Runtime,
};

/// The finding for a pair that cannot be planned.
pub fn pair(source: Runtime, target: Runtime) -> Finding {
    UNSUPPORTED_PAIR.found(
        format!("the node uses {source}, and {target} is asked for"),
        format!(
            "This version moves from {} to {}.",
            lists::whole(&Runtime::sources().map(Runtime::name).collect::<Vec<_>>()),
            lists::whole(&Runtime::targets().map(Runtime::name).collect::<Vec<_>>()),
        ),
    )
}

/// The finding for a unit of the target that cannot be started.
pub fn not_loaded(unit: &UnitFacts) -> Option<Finding> {
    (unit.load != "loaded").then(|| {
        TARGET_MASKED.found(
            format!("{} is {}", unit.name, unit.load),
            format!(
                "If you masked it after its installation to keep the new runtime from starting, unmask it now \
                 (`systemctl unmask {}`): the plan starts it while the source runs. Otherwise install its unit.",
                unit.name
            ),
        )
    })
}

/// The finding for settings of the kubelet that cannot be read.
pub fn settings(error: &SettingsError) -> Finding {
    match error {
        SettingsError::Arguments(error) => arguments(error),
        SettingsError::Version(_) | SettingsError::Config { .. } => KUBELET_CONFIG_BROKEN.found(
            error.to_string(),
            "Correct it; the kubelet itself would not start with it.",
        ),
    }
}

/// The finding for flags that cannot be edited.
pub fn arguments(error: &ArgumentsError) -> Finding {
    FLAGS_NOT_EDITABLE.found(
        error.to_string(),
        "Write the kubelet's flags as plain words (--name=value) in one variable, restart the kubelet, and plan again.",
    )
}

/// The finding for a file that beats the plan's drop-in of `unit`.
pub fn shadowed(ours: &Effective, unit: &UnitFacts) -> Option<Finding> {
    let shadow = ours.shadow(unit)?;
    if unit.environment_files.iter().any(|file| file.path == shadow.path) {
        return Some(beaten_by_a_file(&shadow, ours, unit));
    }
    Some(DROP_IN_SHADOWED.found(
        format!(
            "{} sets {} of {} and is read after {}, which sets it too",
            shadow.path, shadow.property, unit.name, ours.drop_in
        ),
        "Remove the setting, or rename a drop-in so that it sorts before zz-transship.conf; run `systemctl daemon-reload`, and plan again.",
    ))
}

/// The same for an environment file: each beats every `Environment=`, wherever that stands. It may be the whole host's
/// (`/etc/environment`, which nodeup of kOps gives to Docker and containerd), so that nobody can take the variable out of it; but a
/// unit can do without it, for an empty `EnvironmentFile=` empties the list (systemd.exec(5)).
fn beaten_by_a_file(shadow: &Shadow, ours: &Effective, unit: &UnitFacts) -> Finding {
    let others: Vec<String> = unit
        .environment_files
        .iter()
        .filter(|file| file.path != shadow.path)
        .map(|file| format!(", and `EnvironmentFile=-{}`", file.path))
        .collect();
    DROP_IN_SHADOWED.found(
        format!(
            "{} sets {} of {}, and an environment file counts for more than {}, which sets it too",
            shadow.path, shadow.property, unit.name, ours.drop_in
        ),
        format!(
            "Take {} out of that file, or keep the file from this unit: a drop-in of yours with `[Service]`, then \
             `EnvironmentFile=`, which empties the list{}. Run `systemctl daemon-reload`, and plan again.",
            shadow.property,
            others.concat()
        ),
    )
}

/// The finding for a broken `daemon.json`.
pub fn daemon_json(file: Option<&TextFile>, error: &dyn std::fmt::Display) -> Finding {
    let path = file.map_or(DAEMON_JSON, |file| file.path.as_str());
    DAEMON_JSON_BROKEN.found(
        format!("{path}: {error}"),
        "Correct it: Docker would not start again with it, so no rollback would be possible.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host_path::HostPath;

    /// As nodeup of kOps writes it. Nobody takes PATH out of /etc/environment.
    #[test]
    fn a_variable_of_the_whole_host_is_kept_from_the_unit() {
        let path = HostPath::new("/etc/systemd/system/containerd.service.d/zz-transship.conf").unwrap();
        let ours = Effective::of_drop_in(&path, "[Service]\nEnvironment=PATH=/opt/transship/bin:/bin\n");
        let unit = UnitFacts {
            name: "containerd.service".to_owned(),
            environment_files: vec![
                TextFile::example("/etc/sysconfig/containerd", "CONTAINERD_OPTS=--log-level=info\n"),
                TextFile::example("/etc/environment", "PATH=\"/usr/bin:/bin\"\n"),
            ],
            ..UnitFacts::default()
        };
        let found = shadowed(&ours, &unit).unwrap();
        assert!(
            found
                .message
                .starts_with("/etc/environment sets PATH of containerd.service, and an environment file"),
            "{}",
            found.message
        );
        let drop_in =
            "`EnvironmentFile=`, which empties the list, and `EnvironmentFile=-/etc/sysconfig/containerd`.";
        assert!(found.remedy.contains(drop_in), "{}", found.remedy);
        let kept = UnitFacts {
            environment_files: unit.environment_files[..1].to_vec(),
            ..unit
        };
        assert_eq!(shadowed(&ours, &kept), None);
    }
}
