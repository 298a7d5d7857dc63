//! The order in which the parts of a configuration are translated.

use super::{
    super::imports,
    defaults,
    draft::Draft,
    handlers, hidden,
    outcome::{Became, Problem, Translation},
    registries,
    sources::{Imported, New, Old, Sources, read_effective, read_imported},
};

/// Translates the configuration of an old containerd for a newer one.
///
/// # Errors
/// Everything that keeps the configuration from being translated; at least one problem.
pub fn translate(old: &Old<'_>, new: &New<'_>) -> Result<Translation, Vec<Problem>> {
    let mut draft = Draft::new(old.text.unwrap_or_default()).map_err(|error| vec![error.into()])?;
    let effective = read_effective(old).map_err(|error| vec![error.into()])?;
    let imported = read_imported(old).map_err(|problem| vec![problem])?;
    let sources = Sources {
        text: old.effective,
        effective: effective.as_ref(),
        imported: &imported,
    };
    let mut registries = Vec::new();
    missing_imports(&mut draft, old);
    if old.first {
        if draft.version > 2 {
            draft.impossible(
                &["version".to_owned()],
                "is newer than 2: containerd 1.x reads none of its tables, and containerd 2.x would",
            );
        }
        for imported in &imported {
            lossy(&mut draft, imported, new);
        }
        hidden::write_out(&mut draft, &sources);
        plugin_lists(&mut draft);
        handlers::translate(&mut draft, &sources);
        registries = registries::translate(&mut draft, &sources, new);
        ignored(&mut draft);
        defaults::write_out_first(&mut draft, &sources);
    }
    defaults::write_out(&mut draft, &sources, new);
    let mut soak = draft.clone();
    handlers::old_shim(&mut soak, &sources, new.shim);
    if !soak.problems.is_empty() {
        return Err(soak.problems);
    }
    let done = |draft: &Draft| draft.text().map_err(|error| vec![error.into()]);
    Ok(Translation {
        soak: done(&soak)?,
        settled: done(&draft)?,
        registries,
        keys: soak.keys,
    })
}

fn missing_imports(draft: &mut Draft, old: &Old<'_>) {
    let entries = imports(old.text.unwrap_or_default()).unwrap_or_default();
    for entry in entries {
        let relative = entry.trim_start_matches("./");
        let exists = |(path, _): &(String, String)| *path == entry || path.ends_with(&format!("/{relative}"));
        if !entry.contains(['*', '?', '[']) && !old.imported.iter().any(exists) {
            draft.problems.push(Problem::ImportMissing(entry));
        }
    }
}

/// Blocks on what containerd 2.x would lose of an imported file.
fn lossy(draft: &mut Draft, imported: &Imported, new: &New<'_>) {
    let mut trial = imported.draft.clone();
    let alone = Sources::none();
    plugin_lists(&mut trial);
    handlers::translate(&mut trial, &alone);
    registries::lost(&mut trial, new.registries);
    for problem in trial.problems {
        match problem {
            Problem::Impossible { key, why } => draft.problems.push(Problem::Impossible {
                key: format!("{} in {}", key, imported.path),
                why,
            }),
            other => draft.problems.push(other),
        }
    }
    let changed = trial
        .keys
        .into_iter()
        .find(|key| !matches!(key.became, Became::Kept(_)));
    if let Some(key) = changed {
        draft.problems.push(Problem::ImportedKey {
            path: imported.path.clone(),
            key: key.key,
        });
    }
}

/// Plugins that containerd 2.x does not have: it exits if one of them is required.
const GONE: [&str; 4] = [
    "aufs",
    "linux",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.runtime.v1.linux",
];

/// Takes the CRI out of `disabled_plugins`, and what 2.x does not have out of `required_plugins`.
fn plugin_lists(draft: &mut Draft) {
    draft.retain(
        "disabled_plugins",
        |name| !super::super::is_cri(name),
        "the kubelet needs the CRI",
    );
    let kept = |name: &str| !GONE.contains(&name);
    draft.retain(
        "required_plugins",
        kept,
        "containerd 2.x does not have this plugin",
    );
}

/// Keys that containerd 2.x does not read, and what replaces them.
const IGNORED: [(&[&str], &str); 3] = [
    (&["enable_cdi"], "CDI is always on"),
    (&["disable_cgroup"], "cgroups are always on"),
    (
        &["containerd", "no_pivot"],
        "NoPivotRoot in the options of a handler replaces it",
    ),
];

/// Notes keys without effect. They stay in the file: containerd 2.x logs and ignores them.
fn ignored(draft: &mut Draft) {
    for (key, why) in IGNORED {
        let path = draft.cri(key);
        if draft.bool(&path) == Some(true) {
            draft.note(&path, Became::Dropped(why));
        }
    }
    for name in draft.handlers() {
        let path = draft.cri(&["containerd", "runtimes", &name, "options", "CriuPath"]);
        if draft.str(&path).is_some_and(|value| !value.is_empty()) {
            draft.note(
                &path,
                Became::Dropped("containerd 2.x looks for criu in its PATH"),
            );
        }
    }
}
