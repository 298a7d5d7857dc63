//! The configuration of containerd for a newer containerd.

use semver::Version;

use crate::{
    edit::containerd_toml::upgrade::{New, Old, Problem, Translation, translate},
    plan::{codes::upgrade::CONTAINERD_CONFIG_NOT_TRANSLATED, facts::Containerd, finding::Finding, version},
    planner::{context::View, docker_registries},
};

/// The translation of the configuration in use; `shim` is the program with which sandboxes start until the commit.
///
/// # Errors
/// Everything that keeps the configuration from being translated.
pub fn translation(
    view: &View<'_>,
    containerd: &Containerd,
    shim: &str,
) -> Result<Translation, Vec<Problem>> {
    let imported: Vec<(String, String)> = containerd
        .imported
        .iter()
        .map(|file| (file.path.to_string(), file.text.clone()))
        .collect();
    let old = Old {
        text: containerd.config.file.as_ref().map(|file| file.text.as_str()),
        imported: &imported,
        effective: containerd.effective.as_deref(),
        first: from_first(view),
    };
    let new = New {
        shim,
        from_2_1: since(&view.target.version, 2, 1),
        registries: docker_registries::directory(
            view.facts,
            containerd.effective.as_deref().unwrap_or_default(),
        ),
    };
    translate(&old, &new)
}

/// A finding for each problem.
pub fn refused(containerd: &Containerd, problems: &[Problem]) -> Vec<Finding> {
    let found = |problem: &Problem| {
        CONTAINERD_CONFIG_NOT_TRANSLATED.found(
            format!("{}: {problem}", containerd.config.path),
            "Correct the configuration, check it with `containerd config dump`, and plan again.",
        )
    };
    problems.iter().map(found).collect()
}

/// Whether the node leaves containerd 1.x for 2.x.
pub fn from_first(view: &View<'_>) -> bool {
    !since(&view.source.version, 2, 0) && is_translated(view)
}

/// Whether the configuration is translated. A release of 1.x reads what an older one reads.
pub fn is_translated(view: &View<'_>) -> bool {
    since(&view.target.version, 2, 0)
}

/// Whether a version is this release or a later one.
pub fn since(found: &str, major: u64, minor: u64) -> bool {
    version::upstream(found) >= Some(Version::new(major, minor, 0))
}
