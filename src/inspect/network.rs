//! CNI: the configuration of the pod network, and the plugins that are installed.

use super::{Notes, containerd::text, exists, kubelet::Flags};
use crate::{
    host::files::Files,
    plan::{
        facts::{Cni, Containerd},
        host_path::HostPath,
    },
};

/// Where configurations are unless the kubelet says otherwise.
const CONFIGS: &str = "/etc/cni/net.d";
/// Where plugins may be: upstream's choice, Debian's, and Fedora's.
const PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Looks at the pod network.
pub(super) fn inspect(files: &Files, flags: &Flags, containerd: Option<&Containerd>, notes: &Notes) -> Cni {
    let directory = flags
        .get("cni-conf-dir")
        .unwrap_or(CONFIGS)
        .trim_end_matches('/')
        .to_owned();
    let configs = notes
        .list(files, &directory)
        .into_iter()
        .filter(|name| {
            [".conf", ".conflist", ".json"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .filter_map(|name| notes.text(files, &format!("{directory}/{name}")))
        .collect();
    let mut bin_dirs: Vec<String> = flags
        .get("cni-bin-dir")
        .iter()
        .flat_map(|dirs| dirs.split(','))
        .map(str::to_owned)
        .collect();
    bin_dirs.extend(containerd.and_then(|containerd| bin_dir(containerd.effective.as_deref()?)));
    bin_dirs.extend(PLUGINS.map(str::to_owned));
    let mut seen = Vec::new();
    for directory in bin_dirs.iter().map(|directory| directory.trim_end_matches('/')) {
        let new = !seen
            .iter()
            .any(|(path, _): &(HostPath, _)| path.as_str() == directory);
        if let Ok(path) = HostPath::new(directory)
            && new
            && exists(files, directory)
        {
            seen.push((path, notes.list(files, directory)));
        }
    }
    Cni {
        configs,
        bin_dirs: seen,
    }
}

/// The directory of plugins in containerd's effective configuration, in the names of 1.x.
fn bin_dir(effective: &str) -> Option<String> {
    let document: toml_edit::DocumentMut = effective.parse().ok()?;
    text(
        document.as_item(),
        &["plugins", "io.containerd.grpc.v1.cri", "cni", "bin_dir"],
    )
    .map(str::to_owned)
}
