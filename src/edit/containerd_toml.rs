//! containerd's `config.toml`: the CRI switched on, the settings that a kubelet depends on, and what pods had under
//! Docker.
//!
//! A file of version 2 keeps its version (containerd 2.x reads it too), one of version 3 or 4 gets the names that
//! belong there. A file without a version is read by containerd as version 1, with other names for the plugins;
//! it becomes version 2 where it configures no plugin, as the one that Docker's `containerd.io` package ships.

mod read;
pub mod rehearsal;
pub mod upgrade;

use std::collections::BTreeMap;

pub use read::{
    Cni, Snapshots, cni, default_runtime, disables_cri, has_old_registries, imports, misuses_systemd_cgroup,
    nri_is_off, pull_progress_timeout, registry_directories, sandbox_image, snapshots, socket, state,
};
use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value, value};

use super::parse::ParseError;

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
    /// Directory with the settings of registries (`config_path`, 1.5 and later); `None` leaves what the file has.
    pub registries: Option<String>,
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
    if let Some(timeout) = &wanted.pull_progress_timeout {
        let plugin = if version == 2 { CRI } else { CRI_IMAGES };
        set(
            &["plugins", plugin, PULL_PROGRESS_TIMEOUT],
            timeout.as_str().into(),
        )?;
    }
    if let Some(directory) = &wanted.registries {
        let plugin = if version == 2 { CRI } else { CRI_IMAGES };
        set(
            &["plugins", plugin, "registry", "config_path"],
            directory.as_str().into(),
        )?;
    }
    // With it the CRI plugin loads for no runtime but that of containerd 1.1; SystemdCgroup replaces it.
    if before
        .get(&format!("plugins.{CRI}.{SYSTEMD_CGROUP}"))
        .map(String::as_str)
        == Some("true")
    {
        set(&["plugins", CRI, SYSTEMD_CGROUP], false.into())?;
    }
    for name in runc_runtimes(&before, runtime) {
        let table = ["plugins", runtime, "containerd", "runtimes", &name];
        // Naming the table replaces containerd's built-in entry, so the type is given again.
        if !before.contains_key(&format!("{}.runtime_type", table.join("."))) {
            set(&[&table[..], &["runtime_type"]].concat(), RUNC.into())?;
        }
        set(
            &[&table[..], &["options", "SystemdCgroup"]].concat(),
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
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            systemd_cgroup: true,
            sandbox_image: "registry.k8s.io/pause:3.6".into(),
            cni_bin_dir: "/opt/cni/bin".into(),
            cni_conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: false,
            newest_version: 3,
            unprivileged: false,
            unprivileged_by_default: false,
            pull_progress_timeout: None,
            registries: None,
        }
    }

    pub(super) const NEW: &str = r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
"#;

    #[test]
    fn no_file_becomes_a_small_one() {
        assert_eq!(edit(None, &wanted()).unwrap(), NEW);
        assert_eq!(edit(Some(NEW), &wanted()).unwrap(), NEW, "idempotent");
    }

    #[test]
    fn the_file_of_containerd_io_becomes_version_2() {
        let shipped =
            "#   Copyright\n\n# comment\ndisabled_plugins = [\"cri\"]\n\n#root = \"/var/lib/containerd\"\n";
        let edited = edit(Some(shipped), &wanted()).unwrap();
        assert!(
            edited.starts_with("#   Copyright\n\n# comment\nversion = 2\ndisabled_plugins = []\n"),
            "{edited}"
        );
        assert!(edited.contains("#root = \"/var/lib/containerd\"\n"), "{edited}");
        assert!(disables_cri(shipped).unwrap() && !disables_cri(&edited).unwrap());
        assert_eq!(edit(Some(&edited), &wanted()).unwrap(), edited, "idempotent");
    }

    #[test]
    fn a_file_of_version_2_keeps_what_is_not_concerned() {
        let text = "version = 2 # the version\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\n[plugins]\n  # our CRI\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"old\" # pause\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\n      runtime_type = \"io.containerd.kata.v2\"\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.fast]\n      runtime_type = \"io.containerd.runc.v2\"\n";
        let edited = edit(Some(text), &wanted()).unwrap();
        assert!(edited.contains("version = 2 # the version"));
        assert!(
            edited.contains("disabled_plugins = [ \"io.containerd.internal.v1.opt\"]"),
            "{edited}"
        );
        assert!(
            edited.contains("sandbox_image = \"registry.k8s.io/pause:3.6\" # pause\n"),
            "{edited}"
        );
        assert!(edited.contains("  # our CRI\n"));
        assert!(
            edited.contains("runtimes.fast.options]\nSystemdCgroup = true"),
            "{edited}"
        );
        assert!(!edited.contains("runtimes.kata.options"), "{edited}");
    }

    #[test]
    fn a_file_of_version_3_gets_its_own_names() {
        let wanted = Wanted {
            bin_dirs: true,
            ..wanted()
        };
        let edited = edit(Some("version = 3\n"), &wanted).unwrap();
        assert!(
            edited.contains("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = "),
            "{edited}"
        );
        assert!(edited.contains("bin_dirs = [\"/opt/cni/bin\"]"), "{edited}");
        let old = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = '/x'\n";
        let edited = edit(Some(old), &wanted).unwrap();
        assert!(
            edited.contains("bin_dir = \"/opt/cni/bin\"") && !edited.contains("bin_dirs"),
            "{edited}"
        );
    }

    #[test]
    fn pods_may_bind_low_ports_where_the_file_does_not_say_so() {
        let cri = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_unprivileged_ports = false\n";
        let runtime =
            "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_unprivileged_ports = false\n";
        for (text, by_default, ports, pings) in [
            ("", false, true, true),
            ("version = 2\n", false, true, true),
            ("version = 2\n", true, false, false),
            (cri, false, true, true),
            // Only what says otherwise is changed.
            (cri, true, true, false),
            (runtime, true, true, false),
        ] {
            let wanted = Wanted {
                unprivileged: true,
                unprivileged_by_default: by_default,
                ..wanted()
            };
            let edited = edit(Some(text), &wanted).unwrap();
            let has = |key: &str| edited.contains(&format!("{key} = true\n"));
            let found = (has("enable_unprivileged_ports"), has("enable_unprivileged_icmp"));
            assert_eq!(found, (ports, pings), "{edited}");
            assert!(!edited.contains("enable_unprivileged_ports = false"), "{edited}");
            assert_eq!(edit(Some(&edited), &wanted).unwrap(), edited, "idempotent");
        }
    }

    #[test]
    fn a_pull_without_progress_is_given_its_time() {
        let wanted = Wanted {
            pull_progress_timeout: Some("30m0s".into()),
            ..wanted()
        };
        let key = "image_pull_progress_timeout = \"30m0s\"\n";
        let second = edit(None, &wanted).unwrap();
        let third = edit(Some("version = 3\n"), &wanted).unwrap();
        assert!(second.contains(key) && third.contains(key), "{second}{third}");
        let (_, images) = third
            .split_once("[plugins.\"io.containerd.cri.v1.images\"]\n")
            .unwrap();
        assert!(images.starts_with(key), "{third}");
        assert_eq!(pull_progress_timeout(&second).as_deref(), Some("30m0s"));
        assert_eq!(pull_progress_timeout(&third).as_deref(), Some("30m0s"));
    }

    /// What `sed s/systemd_cgroup = false/systemd_cgroup = true/` makes of a default configuration.
    #[test]
    fn the_key_with_which_the_cri_does_not_load_is_switched_off() {
        let text = format!("version = 2\n[plugins.'{CRI}']\nsystemd_cgroup = true # yes\n");
        let edited = edit(Some(&text), &wanted()).unwrap();
        assert!(edited.contains("systemd_cgroup = false # yes\n"), "{edited}");
        assert!(misuses_systemd_cgroup(&text) && !misuses_systemd_cgroup(&edited));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        let error = |text| edit(Some(text), &wanted()).unwrap_err();
        assert!(matches!(
            error("a = 1\nb = [\n"),
            ContainerdTomlError::Syntax(ParseError { line: 2 | 3, .. })
        ));
        assert_eq!(
            error("[plugins.cri]\nsandbox_image = 'x'\n"),
            ContainerdTomlError::VersionOne
        );
        assert_eq!(error("version = 9\n"), ContainerdTomlError::UnknownVersion(9));
        assert_eq!(
            error("version = 4\n"),
            ContainerdTomlError::TooNew { found: 4, newest: 3 }
        );
        assert!(matches!(
            error("version = 2\ndisabled_plugins = ['aufs']\n"),
            ContainerdTomlError::ShortName { .. }
        ));
        assert!(matches!(
            error("version = 2\nplugins = 3\n"),
            ContainerdTomlError::WrongType { .. }
        ));
    }

    fn lines() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("# a comment".to_owned()),
            Just(String::new()),
            "root = '/[a-z]{1,6}'",
            "oom_score = [0-9]{1,3} # why",
            "disabled_plugins = \\[('cri', )?'io\\.x\\.v1\\.[a-z]{1,4}'\\]",
        ]
    }

    proptest! {
        #[test]
        fn changes_only_its_own_keys(
            head in prop::collection::vec(lines(), 0..5),
            tail in prop::sample::select(vec![
                "", "[grpc]\naddress = '/x' # socket\n", "[debug]\n# level\nlevel = 'info'\n[metrics]\naddress = ''\n",
            ]),
            versioned in any::<bool>(), systemd_cgroup in any::<bool>(),
        ) {
            let version = if versioned { "version = 2\n" } else { "" };
            let text = format!("{version}{}\n{tail}", head.join("\n"));
            let wanted = Wanted { systemd_cgroup, ..wanted() };
            // Two lines with the same key are no TOML.
            let Ok(edited) = edit(Some(&text), &wanted) else { return Ok(()) };
            prop_assert_eq!(&edit(Some(&edited), &wanted).unwrap(), &edited, "idempotent");
            prop_assert!(!disables_cri(&edited).unwrap());
            for comment in text.lines().filter_map(|line| line.find('#').map(|at| &line[at..])) {
                prop_assert!(edited.contains(comment), "{} lost in {}", comment, edited);
            }
            for key in ["root", "oom_score", "grpc.address", "debug.level", "metrics.address"] {
                let find = |text: &str| leaves(&parse(text).unwrap()).get(key).cloned();
                prop_assert_eq!(find(&edited), find(&text));
            }
        }
    }
}
