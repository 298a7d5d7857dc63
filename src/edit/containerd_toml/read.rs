//! What a configuration says, in the names of each of its versions.

use toml_edit::{Item, Value};

use super::{CRI, CRI_IMAGES, CRI_RUNTIME, ContainerdTomlError, is_cri, parse, strings};

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
