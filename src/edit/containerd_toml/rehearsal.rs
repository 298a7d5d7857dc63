//! The configuration of a containerd that is tried next to the one that serves: the same file with places of its own, so that
//! nothing of the other one is touched.
//!
//! Not changed: the directories of the pod network, because the sandbox is to be in it, and `/run/containerd/s`, where sockets
//! of shims are named after the address.

use toml_edit::{DocumentMut, Item, Value, value};

use super::{CRI, CRI_IMAGES, ContainerdTomlError, RUNC, parse, put};

/// Where a containerd that is only tried lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Its images and metadata.
    pub root: String,
    /// What is gone after a boot.
    pub state: String,
    /// Its socket.
    pub socket: String,
    /// The image of its sandboxes.
    pub sandbox_image: String,
}

const OVERLAYFS: &str = "overlayfs";
const GRPC: &str = "io.containerd.server.v1.grpc";
const TTRPC: &str = "io.containerd.server.v1.ttrpc";
/// Plugins whose data must not be used by two daemons, wherever they lie.
const SNAPSHOTTERS: [&str; 6] = ["overlayfs", "devmapper", "zfs", "btrfs", "native", "blockfile"];

/// The file with `places` in place of its own, and without all that two daemons cannot have at the same time: ports, the
/// socket of NRI and its plugins, further snapshotters. Files that it imports are left out.
///
/// # Errors
/// When it is not a configuration of containerd.
pub fn beside(text: &str, places: &Places) -> Result<String, ContainerdTomlError> {
    let mut document = parse(text)?;
    let version = match document.get("version").map(|version| version.as_integer()) {
        Some(Some(version @ 2..=4)) => version,
        Some(Some(0 | 1)) | None if document.contains_key("plugins") => {
            return Err(ContainerdTomlError::VersionOne);
        }
        Some(Some(0 | 1)) | None => 2,
        Some(Some(other)) => return Err(ContainerdTomlError::UnknownVersion(other)),
        Some(None) => {
            return Err(ContainerdTomlError::WrongType {
                path: "version".into(),
                wanted: "number",
            });
        }
    };
    if version == 2 {
        document["version"] = value(2);
    }
    for table in ["imports", "proxy_plugins", "metrics", "debug", "grpc", "ttrpc"] {
        document.remove(table);
    }
    remove_plugins(&mut document);
    let own = |directory: &str| format!("{}/{directory}", places.root);
    let mut set = |path: &[&str], new: Value| put(&mut document, path, new);
    set(&["root"], places.root.as_str().into())?;
    set(&["state"], places.state.as_str().into())?;
    // Version 4 has its servers among the plugins.
    if version < 4 {
        set(&["grpc", "address"], places.socket.as_str().into())?;
    } else {
        set(&["plugins", GRPC, "address"], places.socket.as_str().into())?;
        set(
            &["plugins", TTRPC, "address"],
            format!("{}.ttrpc", places.socket).into(),
        )?;
    }
    // Without it containerd makes /opt/containerd, and puts its programs first in its PATH.
    set(
        &["plugins", "io.containerd.internal.v1.opt", "path"],
        own("opt").into(),
    )?;
    // Else it takes the socket of the daemon that serves, and starts its plugins.
    set(&["plugins", "io.containerd.nri.v1.nri", "disable"], true.into())?;
    set(&["plugins", CRI, "stream_server_port"], "0".into())?;
    if version == 2 {
        set(
            &["plugins", CRI, "sandbox_image"],
            places.sandbox_image.as_str().into(),
        )?;
        set(&["plugins", CRI, "containerd", "snapshotter"], OVERLAYFS.into())?;
        // Without a table of runtimes in the same file containerd 2 drops the snapshotter.
        if document["plugins"][CRI]["containerd"].get("runtimes").is_none() {
            let table = ["plugins", CRI, "containerd", "runtimes", "runc", "runtime_type"];
            put(&mut document, &table, RUNC.into())?;
        }
    } else {
        let image = ["plugins", CRI_IMAGES, "pinned_images", "sandbox"];
        set(&image, places.sandbox_image.as_str().into())?;
        set(&["plugins", CRI_IMAGES, "snapshotter"], OVERLAYFS.into())?;
    }
    Ok(document.to_string())
}

/// Takes away the tables of snapshotters, and the servers of version 4, which name places of the daemon that serves.
fn remove_plugins(document: &mut DocumentMut) {
    let Some(plugins) = document.get_mut("plugins").and_then(Item::as_table_like_mut) else {
        return;
    };
    for name in SNAPSHOTTERS {
        plugins.remove(&format!("io.containerd.snapshotter.v1.{name}"));
    }
    let servers: Vec<String> = plugins
        .iter()
        .map(|(name, _)| name.to_owned())
        .filter(|name| name.starts_with("io.containerd.server.v1."))
        .collect();
    for server in servers {
        plugins.remove(&server);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places {
            root: "/var/lib/transship-rehearsal".into(),
            state: "/run/transship-rehearsal".into(),
            socket: "/run/transship-rehearsal/containerd.sock".into(),
            sandbox_image: "transship.dev/rehearsal:1".into(),
        }
    }

    #[test]
    fn nothing_of_the_daemon_that_serves_is_left() {
        let text = r#"version = 2
root = "/data/containerd" # the large disk
imports = ["/etc/containerd/conf.d/*.toml"]

[grpc]
address = "/run/containerd/containerd.sock"
tcp_address = "0.0.0.0:1234"

[metrics]
address = "127.0.0.1:1338"

[proxy_plugins.stargz]
type = "snapshot"
address = "/run/stargz.sock"

[plugins."io.containerd.snapshotter.v1.devmapper"]
root_path = "/data/devmapper"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"
stream_server_port = "10010"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "stargz"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "/opt/transship/shim/containerd-shim-runc-v1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
"#;
        let wanted = r#"version = 2
root = "/var/lib/transship-rehearsal" # the large disk
state = "/run/transship-rehearsal"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "transship.dev/rehearsal:1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "/opt/transship/shim/containerd-shim-runc-v1"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"

[plugins."io.containerd.internal.v1.opt"]
path = "/var/lib/transship-rehearsal/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true

[grpc]
address = "/run/transship-rehearsal/containerd.sock"
"#;
        assert_eq!(beside(text, &places()).unwrap(), wanted);
    }

    #[test]
    fn the_socket_stands_where_the_version_of_the_file_has_it() {
        let socket = |text: &str| {
            let text = beside(text, &places()).unwrap();
            super::super::socket(&text).unwrap()
        };
        for text in [
            "",
            "version = 1\n",
            "version = 2\n",
            "version = 3\n",
            "version = 4\n",
        ] {
            assert_eq!(socket(text), places().socket, "{text}");
        }
    }

    #[test]
    fn a_file_without_a_version_gets_one_with_which_its_plugins_are_known() {
        let text = beside("# empty\n", &places()).unwrap();
        assert!(
            text.contains("\nversion = 2\n") || text.starts_with("version = 2\n"),
            "{text}"
        );
    }

    #[test]
    fn plugins_by_their_names_of_version_1_are_refused() {
        let refused = beside("[plugins.cri]\nsandbox_image = \"a\"\n", &places());
        assert_eq!(refused, Err(ContainerdTomlError::VersionOne));
    }
}
