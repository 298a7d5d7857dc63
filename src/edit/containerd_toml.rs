//! containerd's `config.toml`: the CRI switched on, the settings that a kubelet depends on, and what pods had under
//! Docker.
//!
//! A file of version 2 keeps its version (containerd 2.x reads it too), one of version 3 or 4 gets the names that
//! belong there. A file without a version is read by containerd as version 1, with other names for the plugins;
//! it becomes version 2 where it configures no plugin, as the one that Docker's `containerd.io` package ships.

mod carried;
mod left;
mod read;
pub mod rehearsal;
pub mod upgrade;

use std::collections::BTreeMap;

pub use carried::{BINARY, CONFIG_PATH, Carried, Handler};
use carried::{MAX_DOWNLOADS, SELINUX};
pub use left::{OldRegistries, old_registries, own_plugins, own_specifications, told, unprivileged};
pub use read::{
    Cni, Snapshots, carried_in, cni, default_runtime, disables_cri, handlers, has_old_registries,
    has_runtime, imports, misuses_systemd_cgroup, nri_is_off, pull_progress_timeout, registry_directories,
    sandbox_image, snapshots, socket, state,
};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use super::{parse::ParseError, registry_auth::Credential};

/// What the file shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// runc puts containers into systemd's slices; otherwise it makes cgroups itself.
    pub systemd_cgroup: bool,
    /// The sandbox (pause) image.
    pub sandbox_image: String,
    /// Directory with the CNI plugins.
    pub cni_bin_dir: String,
    /// Directory with the CNI configuration.
    pub cni_conf_dir: String,
    /// containerd has `cni.bin_dirs` (2.1 and later), where a file of version 3 has neither key.
    pub bin_dirs: bool,
    /// The newest version of the file that containerd reads: 2, from 2.0 on 3, from 2.3 on 4.
    pub newest_version: i64,
    /// Processes without privileges may bind ports under 1024 and send pings, as under Docker. Otherwise the file
    /// decides as before.
    pub unprivileged: bool,
    /// containerd allows both unless the file says otherwise (2.0 and later).
    pub unprivileged_by_default: bool,
    /// How long a pull may make no progress (`5m0s`); `None` leaves what the file has.
    pub pull_progress_timeout: Option<String>,
    /// What comes along from the runtime that is left; the rest stays as the file has it.
    pub carried: Carried,
    /// Users of registries; one of a registry for which the file has one stays as it is.
    pub credentials: Vec<Credential>,
    /// Runtimes beside runc; one that the file has stays as it is.
    pub handlers: Vec<Handler>,
}

/// A file that cannot be edited safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContainerdTomlError {
    /// Not TOML.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// The old form of plugin names, whose translation is containerd's business.
    #[error(
        "the file has no `version = 2` and configures plugins by their names of version 1, which are not translated"
    )]
    VersionOne,
    /// A version that came after this program.
    #[error("version {0} of the file is not known")]
    UnknownVersion(i64),
    /// A version that came after the containerd that will read it.
    #[error("version {found} of the file is newer than what this containerd reads ({newest})")]
    TooNew {
        /// The file's version.
        found: i64,
        /// The newest one that is read.
        newest: i64,
    },
    /// A name in `disabled_plugins` or `required_plugins` that stops containerd in a file of version 2.
    #[error("{list} names {plugin:?}, which is not a plugin of version 2; write its full name")]
    ShortName {
        /// `disabled_plugins` or `required_plugins`.
        list: &'static str,
        /// The name.
        plugin: String,
    },
    /// A key with another type than containerd gives it.
    #[error("{path} is not a {wanted}")]
    WrongType {
        /// The key.
        path: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The edited text does not read as it should.
    #[error("after the edit {path} would differ too; edit the file by hand")]
    NotAsMeant {
        /// The key that changed although nobody asked.
        path: String,
    },
}

const CRI: &str = "io.containerd.grpc.v1.cri";
const CRI_IMAGES: &str = "io.containerd.cri.v1.images";
const CRI_RUNTIME: &str = "io.containerd.cri.v1.runtime";
const RUNC: &str = "io.containerd.runc.v2";
const UNPRIVILEGED: [&str; 2] = ["enable_unprivileged_ports", "enable_unprivileged_icmp"];
const PULL_PROGRESS_TIMEOUT: &str = "image_pull_progress_timeout";
const SYSTEMD_CGROUP: &str = "systemd_cgroup";
/// The option of runc's shim with which containers get scopes of systemd.
const SYSTEMD: &str = "SystemdCgroup";

/// The file as it must be; `None` for the text stands for a file that does not exist.
pub fn edit(text: Option<&str>, wanted: &Wanted) -> Result<String, ContainerdTomlError> {
    let text = text.unwrap_or_default();
    let mut document = parse(text)?;
    let before = leaves(&document);
    let version = version(&mut document)?;
    if version > wanted.newest_version {
        return Err(ContainerdTomlError::TooNew {
            found: version,
            newest: wanted.newest_version,
        });
    }
    enable_cri(&mut document)?;

    let mut allowed = vec!["version".to_owned(), "disabled_plugins".to_owned()];
    let mut set = |path: &[&str], new: Value| {
        allowed.push(path.join("."));
        put(&mut document, path, new)
    };
    let runtime = if version == 2 { CRI } else { CRI_RUNTIME };
    if version == 2 {
        set(
            &["plugins", CRI, "sandbox_image"],
            wanted.sandbox_image.as_str().into(),
        )?;
    } else {
        set(
            &["plugins", CRI_IMAGES, "pinned_images", "sandbox"],
            wanted.sandbox_image.as_str().into(),
        )?;
    }
    let list = before
        .keys()
        .any(|path| path.starts_with(&format!("plugins.{runtime}.cni.bin_dirs")));
    let single = before.contains_key(&format!("plugins.{runtime}.cni.bin_dir"));
    if version != 2 && (list || (wanted.bin_dirs && !single)) {
        set(
            &["plugins", runtime, "cni", "bin_dirs"],
            Array::from_iter([wanted.cni_bin_dir.as_str()]).into(),
        )?;
    } else {
        set(
            &["plugins", runtime, "cni", "bin_dir"],
            wanted.cni_bin_dir.as_str().into(),
        )?;
    }
    set(
        &["plugins", runtime, "cni", "conf_dir"],
        wanted.cni_conf_dir.as_str().into(),
    )?;
    if wanted.unprivileged {
        for key in UNPRIVILEGED {
            let has = before
                .get(&format!("plugins.{runtime}.{key}"))
                .map(String::as_str);
            if has.map_or(!wanted.unprivileged_by_default, |has| has != "true") {
                set(&["plugins", runtime, key], true.into())?;
            }
        }
    }
    let images = if version == 2 { CRI } else { CRI_IMAGES };
    if let Some(timeout) = &wanted.pull_progress_timeout {
        set(
            &["plugins", images, PULL_PROGRESS_TIMEOUT],
            timeout.as_str().into(),
        )?;
    }
    let carried = &wanted.carried;
    if let Some(root) = &carried.root {
        set(&["root"], root.as_str().into())?;
    }
    if let Some(downloads) = carried.max_downloads {
        set(&["plugins", images, MAX_DOWNLOADS], i64::from(downloads).into())?;
    }
    if let Some(directory) = &carried.registries {
        set(
            &["plugins", images, "registry", "config_path"],
            directory.as_str().into(),
        )?;
    }
    if let Some(selinux) = carried.selinux {
        set(&["plugins", runtime, SELINUX], selinux.into())?;
    }
    if let Some(name) = &carried.default_runtime {
        set(
            &["plugins", runtime, "containerd", "default_runtime_name"],
            name.as_str().into(),
        )?;
    }
    for one in &wanted.credentials {
        let table = ["plugins", images, "registry", "configs", &one.host, "auth"];
        let start = format!("{}.", table.join("."));
        if before.keys().any(|path| path.starts_with(&start)) {
            continue;
        }
        for (key, text) in [
            ("username", &one.user),
            ("password", &one.password),
            ("identitytoken", &one.token),
        ] {
            if !text.is_empty() {
                set(&[&table[..], &[key]].concat(), text.as_str().into())?;
            }
        }
    }
    let mut runc_runtimes = runc_runtimes(&before, runtime);
    for handler in &wanted.handlers {
        let Handler {
            name, kind, options, ..
        } = handler;
        let table = ["plugins", runtime, "containerd", "runtimes", name];
        if before.contains_key(&format!("{}.runtime_type", table.join("."))) {
            continue;
        }
        set(&[&table[..], &["runtime_type"]].concat(), kind.as_str().into())?;
        if let Some(path) = &handler.path {
            set(&[&table[..], &["runtime_path"]].concat(), path.as_str().into())?;
        }
        if handler.without_host_devices {
            let key = "privileged_without_host_devices";
            set(&[&table[..], &[key]].concat(), true.into())?;
        }
        for (key, text) in options {
            set(&[&table[..], &["options", key]].concat(), text.as_str().into())?;
        }
        if kind == RUNC {
            runc_runtimes.push(name.clone());
        }
    }
    // With it the CRI plugin loads for no runtime but that of containerd 1.1; SystemdCgroup replaces it.
    if before
        .get(&format!("plugins.{CRI}.{SYSTEMD_CGROUP}"))
        .map(String::as_str)
        == Some("true")
    {
        set(&["plugins", CRI, SYSTEMD_CGROUP], false.into())?;
    }
    for name in &runc_runtimes {
        let table = ["plugins", runtime, "containerd", "runtimes", name];
        // Naming the table replaces containerd's built-in entry, so the type is given again.
        if !before.contains_key(&format!("{}.runtime_type", table.join("."))) {
            set(&[&table[..], &["runtime_type"]].concat(), RUNC.into())?;
        }
        let option = spelled(&before, &table, SYSTEMD);
        set(
            &[&table[..], &["options", option]].concat(),
            wanted.systemd_cgroup.into(),
        )?;
    }

    let edited = document.to_string();
    let after = leaves(&parse(&edited)?);
    let differs = before.keys().chain(after.keys()).find(|path| {
        before.get(*path) != after.get(*path)
            && !allowed
                .iter()
                .any(|key| *path == key || path.starts_with(&format!("{key}[")))
    });
    match differs {
        Some(path) => Err(ContainerdTomlError::NotAsMeant { path: path.clone() }),
        None => Ok(edited),
    }
}

/// An option of a runtime as the file spells it, which has it in another case (`systemdCgroup`): a second key beside it would
/// be the same one to containerd.
fn spelled<'a>(before: &'a BTreeMap<String, String>, runtime: &[&str], option: &'a str) -> &'a str {
    let options = format!("{}.options.", runtime.join("."));
    let mut keys = before.keys().filter_map(|path| path.strip_prefix(&options));
    keys.find(|key| key.eq_ignore_ascii_case(option))
        .unwrap_or(option)
}

fn parse(text: &str) -> Result<DocumentMut, ContainerdTomlError> {
    Ok(super::parse::toml(text)?)
}

/// The version of the file, which becomes 2 where there is none and no plugin is configured.
fn version(document: &mut DocumentMut) -> Result<i64, ContainerdTomlError> {
    let wrong = ContainerdTomlError::WrongType {
        path: "version".into(),
        wanted: "number",
    };
    let given = document
        .get("version")
        .map(|item| item.as_integer().ok_or(wrong))
        .transpose()?;
    match given {
        Some(version @ 2..=4) => Ok(version),
        Some(0 | 1) | None => {
            if document.contains_key("plugins") {
                return Err(ContainerdTomlError::VersionOne);
            }
            if given.is_some() {
                document["version"] = value(2);
                return Ok(2);
            }
            // In front of all tables, after the comment at the head of the file.
            let mut rest = std::mem::take(document.as_table_mut());
            document.insert("version", value(2));
            let keys: Vec<String> = rest.iter().map(|(key, _)| key.to_owned()).collect();
            for (index, name) in keys.iter().enumerate() {
                let Some((mut key, item)) = rest.remove_entry(name) else {
                    continue;
                };
                let head = key
                    .leaf_decor()
                    .prefix()
                    .and_then(|prefix| prefix.as_str())
                    .unwrap_or_default()
                    .to_owned();
                if index == 0
                    && item.is_value()
                    && let Some(mut version) = document.key_mut("version")
                {
                    version.leaf_decor_mut().set_prefix(head);
                    key.leaf_decor_mut().set_prefix("");
                }
                document.insert_formatted(&key, item);
            }
            Ok(2)
        }
        Some(other) => Err(ContainerdTomlError::UnknownVersion(other)),
    }
}

fn is_cri(plugin: &str) -> bool {
    [CRI, CRI_IMAGES, CRI_RUNTIME, "cri"].contains(&plugin)
}

/// Takes the CRI out of `disabled_plugins`; any other name must be one that version 2 knows.
fn enable_cri(document: &mut DocumentMut) -> Result<(), ContainerdTomlError> {
    for list in ["disabled_plugins", "required_plugins"] {
        let short = strings(document, list)?
            .into_iter()
            .find(|name| !name.contains('.') && !is_cri(name));
        if let Some(plugin) = short {
            return Err(ContainerdTomlError::ShortName { list, plugin });
        }
    }
    if strings(document, "required_plugins")?
        .iter()
        .any(|name| name == "cri")
    {
        return Err(ContainerdTomlError::ShortName {
            list: "required_plugins",
            plugin: "cri".into(),
        });
    }
    if let Some(list) = document.get_mut("disabled_plugins").and_then(Item::as_array_mut) {
        list.retain(|name| !name.as_str().is_some_and(is_cri));
    }
    Ok(())
}

fn strings(document: &DocumentMut, key: &'static str) -> Result<Vec<String>, ContainerdTomlError> {
    let wrong = || ContainerdTomlError::WrongType {
        path: key.into(),
        wanted: "list of texts",
    };
    let Some(item) = document.get(key) else {
        return Ok(Vec::new());
    };
    let list = item.as_array().ok_or_else(wrong)?;
    list.iter()
        .map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong))
        .collect()
}

/// Runtimes that go through runc's shim: those that the file names, and `runc` itself.
fn runc_runtimes(leaves: &BTreeMap<String, String>, plugin: &str) -> Vec<String> {
    let prefix = format!("plugins.{plugin}.containerd.runtimes.");
    let mut names = vec!["runc".to_owned()];
    for (path, text) in leaves {
        if let Some(name) = path
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".runtime_type"))
            && text.trim_matches(['"', '\'']) == RUNC
            && !names.iter().any(|known| known == name)
        {
            names.push(name.to_owned());
        }
    }
    names
}

/// Sets one key and keeps the comments around its value.
fn put(document: &mut DocumentMut, path: &[&str], mut new: Value) -> Result<(), ContainerdTomlError> {
    let wrong = |end: usize| ContainerdTomlError::WrongType {
        path: path[..=end].join("."),
        wanted: "table",
    };
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for (index, name) in path[..path.len() - 1].iter().enumerate() {
        if !table.contains_key(name) {
            let mut new = Table::new();
            // Only a table with keys of its own gets a header.
            new.set_implicit(true);
            table.insert(name, Item::Table(new));
        }
        table = table
            .get_mut(name)
            .and_then(Item::as_table_like_mut)
            .ok_or_else(|| wrong(index))?;
    }
    let name = path[path.len() - 1];
    match table.get_mut(name) {
        None => {
            table.insert(name, Item::Value(new));
        }
        Some(Item::Value(old)) if plain(old) == plain(&new) => {}
        Some(Item::Value(old)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        Some(_) => {
            return Err(ContainerdTomlError::WrongType {
                path: path.join("."),
                wanted: "single value",
            });
        }
    }
    Ok(())
}

/// A value without the comments and blanks around it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.value()),
        Value::Array(list) => list.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.clone().decorated("", "").to_string(),
    }
}

/// Every value by its path.
fn leaves(document: &DocumentMut) -> BTreeMap<String, String> {
    fn walk(item: &Item, path: &str, found: &mut BTreeMap<String, String>) {
        let below = |name: &str| {
            if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            }
        };
        if let Some(table) = item.as_table_like() {
            table
                .iter()
                .for_each(|(name, item)| walk(item, &below(name), found));
        } else if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                table
                    .iter()
                    .for_each(|(name, item)| walk(item, &format!("{path}[{index}].{name}"), found));
            }
        } else if let Some(value) = item.as_value() {
            found.insert(path.to_owned(), plain(value));
        }
    }
    let mut found = BTreeMap::new();
    walk(document.as_item(), "", &mut found);
    found
}

#[cfg(test)]
mod tests;
