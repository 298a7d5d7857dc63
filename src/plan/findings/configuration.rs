//! Files that must be edited, or that decide what the edited ones mean.

use semver::Version;

use super::{Code, View};
use crate::{
    api::request::Runtime,
    edit::{containerd_toml, daemon_json},
    plan::{
        effective::Effective,
        facts::{TextFile, UnitFacts},
        finding::Finding,
        kubelet_arguments::ArgumentsError,
        kubelet_settings::SettingsError,
        runtimes::docker,
        version,
    },
};

/// `daemon.json` is broken.
pub const DAEMON_JSON_BROKEN: Code = Code::block("DaemonJsonBroken", "Docker's `daemon.json` cannot be read");
/// `config.toml` is broken.
pub const CONTAINERD_CONFIG_BROKEN: Code = Code::block(
    "ContainerdConfigBroken",
    "containerd's `config.toml` cannot be read or not be edited safely",
);
/// `config.toml` belongs to the distribution.
pub const CONTAINERD_CONFIG_IN_USR: Code = Code::block_unless_allowed(
    "ContainerdConfigInUsr",
    "containerd reads its configuration from `/usr`, which is read-only on some systems and changed by upgrades on all",
);
/// Docker has not read its configuration.
pub const DAEMON_JSON_UNREAD: Code = Code::block_unless_allowed(
    "DaemonJsonUnread",
    "Docker's `daemon.json` was changed after Docker was started: nobody knows whether Docker would start with it",
);
/// A configuration file of the kubelet is broken.
pub const KUBELET_CONFIG_BROKEN: Code = Code::block(
    "KubeletConfigBroken",
    "A configuration file of the kubelet cannot be read or not be edited safely",
);
/// The kubelet's flags cannot be edited.
pub const FLAGS_NOT_EDITABLE: Code = Code::block(
    "FlagsNotEditable",
    "The kubelet's flags stand in a form that cannot be edited safely",
);
/// A file of somebody else beats a drop-in of the plan.
pub const DROP_IN_SHADOWED: Code = Code::block(
    "DropInShadowed",
    "A file of somebody else is read after the drop-in that the plan writes, and sets the same property of the unit",
);
/// `/etc/crictl.yaml` is broken.
pub const CRICTL_CONFIG_BROKEN: Code = Code::block(
    "CrictlConfigBroken",
    "`/etc/crictl.yaml` cannot be read or not be edited safely",
);
/// `config.toml` has imports.
pub const CONTAINERD_IMPORTS: Code = Code::warn(
    "ContainerdImports",
    "`config.toml` imports other files, which can override what is set in it; the rehearsal shows it",
);
/// The effective configuration could not be had.
pub const CONTAINERD_DUMP_FAILED: Code = Code::warn(
    "ContainerdDumpFailed",
    "`containerd config dump` failed with the files as they are",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    DAEMON_JSON_BROKEN,
    DAEMON_JSON_UNREAD,
    CONTAINERD_CONFIG_BROKEN,
    CONTAINERD_CONFIG_IN_USR,
    KUBELET_CONFIG_BROKEN,
    FLAGS_NOT_EDITABLE,
    DROP_IN_SHADOWED,
    CRICTL_CONFIG_BROKEN,
    CONTAINERD_IMPORTS,
    CONTAINERD_DUMP_FAILED,
];

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
    Some(DROP_IN_SHADOWED.found(
        format!(
            "{} sets {} of {} and is read after {}, which sets it too",
            shadow.path, shadow.property, unit.name, ours.drop_in
        ),
        "Remove the setting, or rename a drop-in so that it sorts before zz-transship.conf; run `systemctl daemon-reload`, and plan again.",
    ))
}

/// The finding for a broken `daemon.json`.
pub fn daemon_json(file: Option<&TextFile>, error: &dyn std::fmt::Display) -> Finding {
    let path = file.map_or(docker::DAEMON_JSON, |file| file.path.as_str());
    DAEMON_JSON_BROKEN.found(
        format!("{path}: {error}"),
        "Correct it: Docker would not start again with it, so there would be no way back.",
    )
}

/// The first Docker Engine that starts with a `daemon.json` that is empty, or begins with a byte order mark
/// (`daemon/config/config.go`).
const LENIENT_SINCE: Version = Version::new(23, 0, 0);

/// What would keep Docker, which runs, from being started again.
fn docker(view: &View<'_>) -> Option<Finding> {
    let (docker, engine) = view.docker.zip(view.engine)?;
    let file = docker.daemon_json.as_ref()?;
    let is_strict = version::upstream(&engine.version).is_some_and(|found| found < LENIENT_SINCE);
    let mistake = if file.text.trim().is_empty() {
        Some(("is empty", "Remove it, or write `{}` into it"))
    } else if file.text.starts_with(daemon_json::BYTE_ORDER_MARK) {
        Some((
            "begins with a byte order mark",
            "Write it without (`sed -i '1s/^\\xEF\\xBB\\xBF//'`)",
        ))
    } else {
        None
    };
    if let Some((what, remedy)) = mistake.filter(|_| is_strict) {
        return Some(DAEMON_JSON_BROKEN.found(
            format!(
                "{} {what}, with which Docker {} does not start",
                file.path, engine.version
            ),
            format!("{remedy}: otherwise Docker cannot be started again by a rollback."),
        ));
    }
    docker.daemon_json_unread.then(|| {
        DAEMON_JSON_UNREAD.found(
            format!("{} is newer than the running Docker {}", file.path, engine.version),
            "Check it (`dockerd --validate` from Docker 23.0 on), restart Docker and plan again, or accept it with \
             `preflight.allow: [DaemonJsonUnread]`. With a file that Docker refuses, a rollback fails.",
        )
    })
}

/// Checks of the files of a pair that can be planned.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = docker(view).into_iter().collect();
    let Some(containerd) = view
        .containerd
        .filter(|_| view.target.runtime == Runtime::Containerd)
    else {
        return findings;
    };
    let config = &containerd.config;
    if let Some(file) = &config.file
        && let Ok(imports) = containerd_toml::imports(&file.text)
        && !imports.is_empty()
    {
        findings.push(CONTAINERD_IMPORTS.found(
            format!("{} imports {}", file.path, super::some(&imports)),
            "Look at these files: what they say about the CRI wins over config.toml.",
        ));
    }
    // What comes in an archive reads the file in its own way.
    if containerd.effective.is_none() && view.target.delivery.is_none() {
        findings.push(CONTAINERD_DUMP_FAILED.found(
            format!("`containerd config dump` fails with {}", config.path),
            "Run it on the node and correct what it says; the node goes back if containerd does not start.",
        ));
    }
    findings
}
