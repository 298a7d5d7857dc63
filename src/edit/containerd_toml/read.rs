//! What a configuration says, in the names of each of its versions.

use toml_edit::{Item, Value};

use super::{
    BINARY, CRI, CRI_IMAGES, CRI_RUNTIME, Carried, ContainerdTomlError, Handler, PULL_PROGRESS_TIMEOUT, RUNC,
    SYSTEMD, SYSTEMD_CGROUP,
    carried::{MAX_DOWNLOADS, SELINUX},
    is_cri, parse, strings,
};

const SERVER_GRPC: &str = "io.containerd.server.v1.grpc";
pub(super) const NRI: &str = "io.containerd.nri.v1.nri";
const OVERLAYFS: &str = "io.containerd.snapshotter.v1.overlayfs";

/// Whether the file keeps containerd from serving the CRI.
pub fn disables_cri(text: &str) -> Result<bool, ContainerdTomlError> {
    let document = parse(text)?;
    Ok(strings(&document, "disabled_plugins")?
        .iter()
        .any(|name| is_cri(name)))
}

/// Paths and patterns of `imports`.
pub fn imports(text: &str) -> Result<Vec<String>, ContainerdTomlError> {
    strings(&parse(text)?, "imports")
}

/// The sandbox (pause) image that a configuration, best the effective one, names.
pub fn sandbox_image(text: &str) -> Option<String> {
    let document = parse(text).ok()?;
    let plugins = document.get("plugins")?;
    let third = || plugins.get(CRI_IMAGES)?.get("pinned_images")?.get("sandbox");
    let second = || plugins.get(CRI)?.get("sandbox_image");
    third().or_else(second)?.as_str().map(str::to_owned)
}

/// How long a pull may make no progress, as a configuration, best the effective one, says (1.7 and later).
pub fn pull_progress_timeout(text: &str) -> Option<String> {
    let document = parse(text).ok()?;
    let plugins = document.get("plugins")?;
    let found = [CRI_IMAGES, CRI]
        .into_iter()
        .find_map(|plugin| plugins.get(plugin)?.get(PULL_PROGRESS_TIMEOUT))?;
    found.as_str().map(str::to_owned)
}

/// Directories with the settings of registries (`config_path`), as a configuration, best the effective one, says.
pub fn registry_directories(text: &str) -> Vec<String> {
    let Ok(document) = parse(text) else {
        return Vec::new();
    };
    let path = |plugin| {
        document
            .get("plugins")?
            .get(plugin)?
            .get("registry")?
            .get("config_path")?
            .as_str()
    };
    let found = [CRI_IMAGES, CRI].into_iter().find_map(path).unwrap_or_default();
    found
        .split(':')
        .filter(|path| !path.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a configuration, best the effective one, has of the settings that come along from another runtime.
pub fn carried_in(text: &str) -> Carried {
    let Ok(document) = parse(text) else {
        return Carried::default();
    };
    let of = |plugins: [&str; 2], path: &[&str]| -> Option<&Item> {
        plugins.iter().find_map(|plugin| {
            let plugin = document.get("plugins")?.get(plugin)?;
            path.iter().try_fold(plugin, |item, key| item.get(key))
        })
    };
    let directories = registry_directories(text);
    let downloads = of([CRI_IMAGES, CRI], &[MAX_DOWNLOADS]).and_then(Item::as_integer);
    let default = of([CRI_RUNTIME, CRI], &["containerd", "default_runtime_name"]);
    Carried {
        root: document.get("root").and_then(Item::as_str).map(str::to_owned),
        registries: (!directories.is_empty()).then(|| directories.join(":")),
        max_downloads: downloads.and_then(|number| number.try_into().ok()),
        selinux: of([CRI_RUNTIME, CRI], &[SELINUX]).and_then(Item::as_bool),
        default_runtime: default.and_then(Item::as_str).map(str::to_owned),
        auth_file: None,
    }
}

/// The runtimes of a configuration, with the options that are texts; `None` where it says nothing of runtimes.
pub fn handlers(text: &str) -> Option<Vec<Handler>> {
    let document = parse(text).ok()?;
    let plugins = document.get("plugins")?;
    let of = |plugin: &str| {
        plugins
            .get(plugin)?
            .get("containerd")?
            .get("runtimes")?
            .as_table_like()
    };
    let runtimes = of(CRI_RUNTIME).or_else(|| of(CRI))?;
    let handler = |(name, runtime): (&str, &Item)| {
        let options = runtime.get("options").and_then(Item::as_table_like);
        let options = options.into_iter().flat_map(|options| options.iter());
        let texts = options.filter_map(|(key, value)| Some((option_name(key), value.as_str()?.to_owned())));
        Handler {
            name: name.to_owned(),
            kind: runtime
                .get("runtime_type")
                .and_then(Item::as_str)
                .unwrap_or_default()
                .to_owned(),
            options: texts.collect(),
            path: (runtime.get("runtime_path").and_then(Item::as_str))
                .filter(|path| !path.is_empty())
                .map(str::to_owned),
            without_host_devices: (runtime.get("privileged_without_host_devices"))
                .and_then(Item::as_bool)
                .unwrap_or_default(),
        }
    };
    Some(runtimes.iter().map(handler).collect())
}

/// The name of an option in the spelling of runc's shim. containerd reads the options of a runtime by its readers of TOML
/// (`pelletier/go-toml`), to which `binaryName` and `systemdCgroup`, as Kubespray's variables have them, are the same keys.
fn option_name(key: &str) -> String {
    let found = [BINARY, SYSTEMD]
        .into_iter()
        .find(|name| key.eq_ignore_ascii_case(name));
    found.unwrap_or(key).to_owned()
}

/// Whether a configuration has a runtime of this name.
pub fn has_runtime(text: &str, name: &str) -> bool {
    let Ok(document) = parse(text) else { return false };
    [CRI_RUNTIME, CRI].iter().any(|plugin| {
        let runtime = || {
            let plugin = document.get("plugins")?.get(plugin)?;
            plugin.get("containerd")?.get("runtimes")?.get(name)
        };
        runtime().is_some()
    })
}

/// Whether the file has settings of registries in the form of 1.x, next to which the CRI does not load with a
/// `config_path`: `mirrors`, and `tls` below `configs`.
pub fn has_old_registries(text: &str) -> bool {
    let Ok(document) = parse(text) else {
        return false;
    };
    let registry = |plugin| document.get("plugins")?.get(plugin)?.get("registry");
    [CRI_IMAGES, CRI]
        .into_iter()
        .filter_map(registry)
        .any(|registry| {
            let table = |name| registry.get(name).and_then(Item::as_table_like);
            let tls = |(_, host): (&str, &Item)| host.get("tls").is_some();
            table("mirrors").is_some_and(|mirrors| !mirrors.is_empty())
                || table("configs").is_some_and(|configs| configs.iter().any(tls))
        })
}

/// Whether the file has the key with which the CRI plugin of containerd 1.x does not load for runc: it is for the
/// runtime of containerd 1.1 alone, and `SystemdCgroup` of the runtime's options replaces it.
pub fn misuses_systemd_cgroup(text: &str) -> bool {
    let read = || {
        let document = parse(text).ok()?;
        document.get("plugins")?.get(CRI)?.get(SYSTEMD_CGROUP)?.as_bool()
    };
    read().unwrap_or_default()
}

/// The socket that a configuration, best the effective one, names: under `[grpc]`, and from 2.3 on under the plugin
/// that serves it.
pub fn socket(text: &str) -> Option<String> {
    let document = parse(text).ok()?;
    let plugin = || document.get("plugins")?.get(SERVER_GRPC)?.get("address");
    let grpc = || document.get("grpc")?.get("address");
    let texts = [plugin(), grpc()].into_iter().flatten().filter_map(Item::as_str);
    texts.into_iter().find(|text| !text.is_empty()).map(str::to_owned)
}

/// The directory of what containerd has until the next boot, as a configuration, best the effective one, says.
pub fn state(text: &str) -> Option<String> {
    let document = parse(text).ok()?;
    let found = document.get("state")?.as_str()?;
    (!found.is_empty()).then(|| found.to_owned())
}

/// Whether a configuration switches NRI off.
pub fn nri_is_off(text: &str) -> bool {
    let read = || {
        let document = parse(text).ok()?;
        document.get("plugins")?.get(NRI)?.get("disable")?.as_bool()
    };
    read().unwrap_or(false)
}

/// The default runtime of an effective configuration, and whether runc puts its containers into systemd's slices; `None`
/// if it is not one of runc's, or the text does not have it.
pub fn default_runtime(text: &str) -> Option<(String, bool)> {
    let document = parse(text).ok()?;
    let plugins = document.get("plugins")?;
    let of = |plugin: &str| plugins.get(plugin)?.get("containerd");
    let table = of(CRI_RUNTIME).or_else(|| of(CRI))?;
    let name = table.get("default_runtime_name")?.as_str()?;
    let runtime = table.get("runtimes")?.get(name)?;
    // An imported file that has only the options of a runtime replaces the whole plugin's table before 2.0, and leaves no
    // type.
    if !["", RUNC].contains(&runtime.get("runtime_type")?.as_str()?) {
        return None;
    }
    let options = runtime.get("options").and_then(Item::as_table_like);
    let option = options.and_then(|options| {
        let folded = || options.iter().find(|(key, _)| key.eq_ignore_ascii_case(SYSTEMD));
        options.get(SYSTEMD).or_else(|| Some(folded()?.1))
    });
    Some((name.to_owned(), option.and_then(Item::as_bool).unwrap_or(false)))
}

/// Where containerd looks for the pod network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cni {
    /// Directories with the plugins.
    pub bin_dirs: Vec<String>,
    /// Directory with the configuration.
    pub conf_dir: Option<String>,
}

/// Where a configuration, best the effective one, says that the pod network is; nothing in a text that is no TOML.
pub fn cni(text: &str) -> Cni {
    let Ok(document) = parse(text) else {
        return Cni::default();
    };
    let tables = [CRI_RUNTIME, CRI].map(|plugin| document.get("plugins")?.get(plugin)?.get("cni"));
    let Some(table) = tables.into_iter().flatten().next() else {
        return Cni::default();
    };
    let text = |key: &str| {
        let found = table.get(key).and_then(Item::as_str);
        found.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let list = table
        .get("bin_dirs")
        .and_then(Item::as_array)
        .into_iter()
        .flatten();
    let mut bin_dirs: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
    if bin_dirs.is_empty() {
        bin_dirs.extend(text("bin_dir"));
    }
    Cni {
        bin_dirs,
        conf_dir: text("conf_dir"),
    }
}

/// Where the snapshots of containers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshots {
    /// The snapshotter that the CRI uses.
    pub snapshotter: String,
    /// The directory of `overlayfs`, or of all stores.
    pub directory: String,
}

impl Default for Snapshots {
    /// What containerd does by itself.
    fn default() -> Self {
        Self {
            snapshotter: "overlayfs".to_owned(),
            directory: "/var/lib/containerd".to_owned(),
        }
    }
}

/// Where a configuration, best the effective one, says that the snapshots of containers are kept.
pub fn snapshots(text: &str) -> Result<Snapshots, ContainerdTomlError> {
    let document = parse(text)?;
    let plugin = |path: &[&str]| {
        let plugins = document.get("plugins")?;
        let found = path.iter().try_fold(plugins, |item, key| item.get(key))?;
        found.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let root = document.get("root").and_then(Item::as_str).map(str::to_owned);
    let default = Snapshots::default();
    Ok(Snapshots {
        snapshotter: plugin(&[CRI, "containerd", "snapshotter"])
            .or_else(|| plugin(&[CRI_IMAGES, "snapshotter"]))
            .unwrap_or(default.snapshotter),
        directory: plugin(&[OVERLAYFS, "root_path"])
            .or(root)
            .unwrap_or(default.directory),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::tests::NEW, *};

    #[test]
    fn the_snapshotter_is_where_each_version_has_it() {
        let of = |text: &str| {
            let found = snapshots(text).unwrap();
            (found.snapshotter, found.directory)
        };
        let both = |snapshotter: &str, directory: &str| (snapshotter.to_owned(), directory.to_owned());
        assert_eq!(of(""), both("overlayfs", "/var/lib/containerd"));
        let old = "root = '/data'\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter = 'native'\n\
            [plugins.'io.containerd.snapshotter.v1.overlayfs']\nroot_path = ''\n";
        assert_eq!(of(old), both("native", "/data"));
        let new = "[plugins.'io.containerd.cri.v1.images']\nsnapshotter = 'overlayfs'\n\
            [plugins.'io.containerd.snapshotter.v1.overlayfs']\nroot_path = '/fast'\n";
        assert_eq!(of(new), both("overlayfs", "/fast"));
    }

    #[test]
    fn the_socket_is_where_each_version_has_it() {
        let third = "version = 3\n[grpc]\naddress = '/a.sock'\n";
        let fourth = "version = 4\n[plugins.'io.containerd.server.v1.grpc']\naddress = '/b.sock'\n";
        assert_eq!(socket(third).as_deref(), Some("/a.sock"));
        assert_eq!(socket(fourth).as_deref(), Some("/b.sock"));
        assert_eq!(socket("version = 3\n[grpc]\naddress = ''\n"), None);
    }

    #[test]
    fn nri_is_off_where_it_is_disabled() {
        let of = |value: &str| nri_is_off(&format!("[plugins.'{NRI}']\ndisable = {value}\n"));
        assert!(of("true") && !of("false") && !nri_is_off("") && !nri_is_off("["));
    }

    #[test]
    fn the_state_directory_is_a_text_that_is_not_empty() {
        assert_eq!(state("state = '/data/run'\n").as_deref(), Some("/data/run"));
        assert_eq!(
            (state("state = ''\n"), state("version = 2\n"), state("[")),
            (None, None, None)
        );
    }

    #[test]
    fn the_default_runtime_is_read_in_all_names() {
        for plugin in [CRI, CRI_RUNTIME] {
            let table = format!("plugins.'{plugin}'.containerd");
            let of_type = |kind: &str, options: &str| {
                default_runtime(&format!(
                    "version = 3\n[{table}]\ndefault_runtime_name = 'x'\n[{table}.runtimes.x]\nruntime_type = '{kind}'\n[{table}.runtimes.x.options]\n{options}\n"
                ))
            };
            let x = |systemd| Some(("x".to_owned(), systemd));
            assert_eq!(of_type(RUNC, "SystemdCgroup = true"), x(true));
            // Kubespray's spelling.
            assert_eq!(of_type(RUNC, "systemdCgroup = true"), x(true));
            assert_eq!(of_type(RUNC, ""), x(false));
            // What `config dump` of 1.6 prints where a file of `imports` has only the options.
            assert_eq!(of_type("", "SystemdCgroup = false"), x(false));
            assert_eq!(of_type("io.containerd.kata.v2", ""), None);
        }
        assert_eq!(default_runtime("version = 2\n"), None);
    }

    #[test]
    fn the_pod_network_and_the_sandbox_are_read_in_all_names() {
        let read = |text| {
            let found = cni(text);
            (found.bin_dirs.join(","), found.conf_dir)
        };
        assert_eq!(read(NEW), ("/opt/cni/bin".into(), Some("/etc/cni/net.d".into())));
        let third = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dirs = ['/a', '/b']\nbin_dir = ''\n";
        assert_eq!(read(third), ("/a,/b".into(), None));
        assert_eq!(read("["), (String::new(), None));
        assert_eq!(sandbox_image(NEW).as_deref(), Some("registry.k8s.io/pause:3.6"));
        let third = "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'a'\n";
        assert_eq!(sandbox_image(third).as_deref(), Some("a"));
    }
}
