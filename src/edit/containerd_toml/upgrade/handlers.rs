//! Handlers (runtimes) of the CRI: forms that containerd 2.x drops, and the old shim.

use super::{
    super::{CRI, CRI_RUNTIME, RUNC, SYSTEMD_CGROUP},
    draft::{Draft, get, path, shown},
    outcome::{Became, Problem},
    sources::Sources,
};

/// The runtime of containerd 1.1, whose containers have another shim.
const LINUX: &str = "io.containerd.runtime.v1.linux";
/// The first shim of runc.
const RUNC_FIRST: &str = "io.containerd.runc.v1";

/// Translates the handlers of containerd 1.x.
pub(super) fn translate(draft: &mut Draft, sources: &Sources<'_>) {
    let switch = draft.cri(&[SYSTEMD_CGROUP]);
    if draft.bool(&switch) == Some(true) {
        draft.impossible(
            &switch,
            "is on: containerd 2.x ignores it, and no pod can start; set SystemdCgroup in the options of the handler",
        );
    }
    aufs(draft, sources);
    named(draft, "default_runtime", "default");
    named(draft, "untrusted_workload_runtime", "untrusted");
    let default = default_name(draft, sources);
    for name in draft.handlers() {
        handler(draft, &name, name == default);
    }
}

/// The layers of this snapshotter cannot be read by containerd 2.x.
fn aufs(draft: &mut Draft, sources: &Sources<'_>) {
    let key = draft.snapshotter();
    let effective = sources
        .effective
        .and_then(|document| get(document, &path(&["plugins", CRI, "containerd", "snapshotter"]))?.as_str());
    if draft.str(&key).or(effective) == Some("aufs") {
        draft.impossible(
            &key,
            "is \"aufs\", which containerd 2.x does not have; move the node to overlayfs first",
        );
    }
}

/// A table that stands for a handler becomes this handler.
fn named(draft: &mut Draft, table: &str, name: &str) {
    let from = draft.cri(&["containerd", table]);
    let kind = draft.cri(&["containerd", table, "runtime_type"]);
    // Without a type containerd 1.x ignores the table, which default files have.
    if draft.str(&kind).is_none_or(str::is_empty) {
        return;
    }
    let to = draft.cri(&["containerd", "runtimes", name]);
    draft.transfer(&from, &to);
    draft.note(&from, Became::Translated(shown(&to)));
    if name == "default" {
        let key = draft.cri(&["containerd", "default_runtime_name"]);
        draft.set(&key, name);
    }
}

fn default_name(draft: &Draft, sources: &Sources<'_>) -> String {
    let key = draft.cri(&["containerd", "default_runtime_name"]);
    let effective = || {
        let key = path(&["plugins", CRI, "containerd", "default_runtime_name"]);
        get(sources.effective?, &key)?.as_str()
    };
    let name = draft.str(&key).or_else(effective);
    name.unwrap_or("runc").to_owned()
}

fn handler(draft: &mut Draft, name: &str, default: bool) {
    let key = |draft: &Draft, rest: &[&str]| draft.cri(&[&["containerd", "runtimes", name], rest].concat());
    let kind = key(draft, &["runtime_type"]);
    match draft.str(&kind) {
        Some(LINUX) if default => {
            return draft.impossible(
                &kind,
                "is the runtime of containerd 1.1: containerd 2.x cannot adopt its pods; change it to io.containerd.runc.v2 \
                 and drain the node first",
            );
        }
        Some(LINUX | RUNC_FIRST) => {
            draft.set(&kind, RUNC);
            draft.note(&kind, Became::Translated(RUNC.to_owned()));
        }
        _ => {}
    }
    for (old, new) in [("runtime_root", "Root"), ("runtime_engine", "BinaryName")] {
        let from = key(draft, &[old]);
        let Some(value) = draft.str(&from).filter(|value| !value.is_empty()) else {
            continue;
        };
        let value = value.to_owned();
        let to = key(draft, &["options", new]);
        let comments = draft.remove(&from).map(|(_, comments)| comments);
        if draft.str(&to).is_none_or(str::is_empty) {
            draft.set(&to, value);
        }
        draft.comment(&to, &comments.unwrap_or_default());
        draft.note(&from, Became::Translated(shown(&to)));
    }
}

/// Gives every handler of runc the old shim, unless it names one itself.
pub(super) fn old_shim(draft: &mut Draft, sources: &Sources<'_>, shim: &str) {
    let mut names = draft.handlers();
    names.extend(sources.drafts().flat_map(Draft::handlers));
    let runtimes = |plugin| path(&["plugins", plugin, "containerd", "runtimes"]);
    let effective = |name: &str, key: &str| {
        let document = sources.effective?;
        let table = [CRI_RUNTIME, CRI]
            .into_iter()
            .find_map(|plugin| get(document, &runtimes(plugin)))?;
        table.get(name)?.get(key)?.as_str()
    };
    names.sort();
    names.dedup();
    for name in names {
        let key = |draft: &Draft, key| draft.cri(&["containerd", "runtimes", &name, key]);
        let main = draft
            .str(&key(draft, "runtime_type"))
            .filter(|kind| !kind.is_empty());
        let merged = sources
            .drafts()
            .filter_map(|draft| draft.str(&key(draft, "runtime_type")))
            .last();
        if merged.or(main).or_else(|| effective(&name, "runtime_type")) != Some(RUNC) {
            continue;
        }
        let path_key = key(draft, "runtime_path");
        let own = draft
            .str(&path_key)
            .filter(|path| !path.is_empty() && *path != shim)
            .is_some();
        let mut imported = sources.imported.iter().filter_map(|file| {
            let found = file.draft.str(&key(&file.draft, "runtime_path"))?;
            Some((&file.path, found.is_empty()))
        });
        match imported.next() {
            Some((path, true)) => draft.problems.push(Problem::ImportedShim {
                path: path.clone(),
                key: shown(&path_key),
            }),
            Some((_, false)) => draft.note(&path_key, Became::Kept(OWN_SHIM)),
            None if own => draft.note(&path_key, Became::Kept(OWN_SHIM)),
            None => draft.set(&path_key, shim),
        }
    }
}

pub(super) const OWN_SHIM: &str =
    "so this handler starts pods with its own shim program before and after the commit";
