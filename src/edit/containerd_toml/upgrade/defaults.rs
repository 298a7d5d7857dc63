//! Built-in defaults of the old program that the new program does not have: they are written out, as `config dump` of
//! the old program prints them. Distributions change some of them.

use toml_edit::Value;

use super::{
    super::{self as read, CRI, RUNC, UNPRIVILEGED, read::NRI},
    draft::{Draft, Path, get, list, path, shown},
    outcome::{Became, Problem},
    sources::{New, Sources},
};

/// Keys of images that 2.x loses in a file without a table `runtimes`.
const NEED_RUNTIMES: [&str; 3] = [
    "snapshotter",
    "discard_unpacked_layers",
    "disable_snapshot_annotations",
];

/// Writes out the defaults that every newer program may have changed.
pub(super) fn write_out(draft: &mut Draft, sources: &Sources<'_>, new: &New<'_>) {
    sandbox(draft, sources);
    plugin_directories(draft, sources, new);
    // Naming the table replaces the built-in handler in containerd 1.x, so the type is given.
    let kind = draft.cri(&["containerd", "runtimes", "runc", "runtime_type"]);
    if draft.str(&kind).is_none_or(str::is_empty) {
        draft.set(&kind, RUNC);
        draft.note(&kind, Became::WrittenOut(RUNC.to_owned()));
    }
}

/// Writes out the defaults that 2.0 changed.
pub(super) fn write_out_first(draft: &mut Draft, sources: &Sources<'_>) {
    for key in UNPRIVILEGED {
        let effective = get_bool(sources, &path(&["plugins", CRI, key]));
        switch(
            draft,
            sources,
            |draft| draft.cri(&[key]),
            effective.unwrap_or(false),
        );
    }
    // NRI starts every plugin in its directory. containerd 1.6 does not have it.
    let nri = path(&["plugins", NRI, "disable"]);
    let off = get_bool(sources, &nri).unwrap_or(true);
    switch(draft, sources, |_| nri.clone(), off);
    for file in sources.imported {
        let has_runtimes = !file.draft.handlers().is_empty();
        for key in NEED_RUNTIMES.iter().filter(|_| !has_runtimes) {
            let from = file.draft.cri(&["containerd", key]);
            let Some(mut value) = file.draft.get(&from).and_then(|item| item.as_value()).cloned() else {
                continue;
            };
            let to = draft.cri(&["containerd", key]);
            value.decor_mut().clear();
            let shown_value = value.to_string();
            draft.set(&to, value);
            draft.note(
                &to,
                Became::WrittenOut(format!("{shown_value}, as {} has it", file.path)),
            );
        }
    }
}

fn get_bool(sources: &Sources<'_>, path: &[String]) -> Option<bool> {
    get(sources.effective?, path)?.as_bool()
}

/// Whether the file or an imported file has a key.
fn given(draft: &Draft, sources: &Sources<'_>, key: impl Fn(&Draft) -> Path) -> bool {
    let mut drafts = sources.drafts().chain([draft]);
    drafts.any(|draft| draft.get(&key(draft)).is_some())
}

fn switch(draft: &mut Draft, sources: &Sources<'_>, key: impl Fn(&Draft) -> Path, value: bool) {
    if given(draft, sources, &key) {
        return;
    }
    let path = key(draft);
    draft.set(&path, value);
    draft.note(&path, Became::WrittenOut(value.to_string()));
}

fn sandbox(draft: &mut Draft, sources: &Sources<'_>) {
    let key = |draft: &Draft| match draft.version {
        1 | 2 => draft.cri(&["sandbox_image"]),
        _ => draft.images(&["pinned_images", "sandbox"]),
    };
    if given(draft, sources, key) {
        return;
    }
    let path = key(draft);
    match sources.text.and_then(read::sandbox_image) {
        Some(image) => {
            draft.set(&path, image.as_str());
            draft.note(&path, Became::WrittenOut(image));
        }
        None => draft.problems.push(Problem::DefaultUnknown(shown(&path))),
    }
}

fn plugin_directories(draft: &mut Draft, sources: &Sources<'_>, new: &New<'_>) {
    let single = |draft: &Draft| draft.cri(&["cni", "bin_dir"]);
    let several = |draft: &Draft| draft.cri(&["cni", "bin_dirs"]);
    if draft.version > 2 && new.from_2_1 {
        renamed(draft, &single(draft), &several(draft));
    }
    if given(draft, sources, single) || given(draft, sources, several) {
        return;
    }
    let found = sources.text.map(read::cni).unwrap_or_default().bin_dirs;
    let as_list = found.len() > 1 || (draft.version > 2 && new.from_2_1);
    let path = if as_list { several(draft) } else { single(draft) };
    let Some(first) = found.first() else {
        return draft.problems.push(Problem::DefaultUnknown(shown(&path)));
    };
    let value = if as_list {
        Value::Array(found.iter().map(String::as_str).collect())
    } else {
        first.as_str().into()
    };
    draft.set(&path, value);
    draft.note(&path, Became::WrittenOut(found.join(", ")));
}

/// A file of version 3 that was made for containerd 2.0 has a key that newer releases drop.
fn renamed(draft: &mut Draft, single: &[String], several: &[String]) {
    let Some(value) = draft.str(single).map(str::to_owned) else {
        return;
    };
    let comments = draft.remove(single).map(|(_, comments)| comments);
    if !value.is_empty() && draft.get(several).is_none() {
        draft.set(several, list(&value));
    }
    draft.comment(several, &comments.unwrap_or_default());
    draft.note(single, Became::Translated(shown(several)));
}
