//! Keys of the main file that an imported file hides. containerd 1.x takes the whole table of a plugin from the last
//! file that has one; 2.x merges the tables, so the hidden keys would come back.

use std::collections::BTreeMap;

use toml_edit::{DocumentMut, Item};

use super::{
    draft::{Draft, Path, canonical, get, shown},
    outcome::{Became, Problem},
    sources::Sources,
};
use crate::edit::containerd_toml::plain;

/// Gives hidden keys the value that the old program has, and removes those that it does not have.
pub(super) fn write_out(draft: &mut Draft, sources: &Sources<'_>) {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for imported in sources.imported {
        let plugins = imported.draft.names(&["plugins".to_owned()]);
        for plugin in plugins.iter().map(|plugin| plugin_of(plugin)) {
            if let Some(first) = owners.insert(plugin.clone(), &imported.path) {
                draft.problems.push(Problem::ImportsOverlap {
                    first: first.to_owned(),
                    second: imported.path.clone(),
                    plugin,
                });
            }
        }
    }
    for (path, value) in draft.leaves() {
        let [plugins, plugin, _, ..] = &path[..] else {
            continue;
        };
        if plugins != "plugins" || !owners.contains_key(&plugin_of(plugin)) {
            continue;
        }
        let Some(effective) = sources.effective else {
            draft.problems.push(Problem::DefaultUnknown(shown(&path)));
            continue;
        };
        hidden(draft, effective, &path, &value);
    }
}

fn hidden(draft: &mut Draft, effective: &DocumentMut, path: &Path, value: &str) {
    match get(effective, &canonical(path)).and_then(Item::as_value) {
        Some(old) if plain(old) == value => {}
        Some(old) => {
            let mut old = old.clone();
            old.decor_mut().clear();
            draft.set(path, old);
            draft.note(
                path,
                Became::WrittenOut("what an imported file made of it".to_owned()),
            );
        }
        None => {
            draft.remove(path);
            // An empty table may mean something: a mirror without an endpoint, a handler without a type.
            let mut table = &path[..path.len() - 1];
            while table.len() > 2 && draft.get(table).is_some() && draft.names(table).is_empty() {
                draft.remove(table);
                table = &table[..table.len() - 1];
            }
            draft.note(
                path,
                Became::Dropped("an imported file hid it from containerd 1.x"),
            );
        }
    }
}

fn plugin_of(plugin: &str) -> String {
    canonical(&["plugins".to_owned(), plugin.to_owned()]).swap_remove(1)
}
