//! CNI: the configuration of the pod network, and the plugins that are installed.

use super::{
    kubelet::Flags,
    notes::{Notes, exists},
};
use crate::{
    host::files::Files,
    plan::{
        facts::{Cni, PluginDir},
        host_path::{self, HostPath},
    },
};

/// Where configurations are unless the kubelet says otherwise.
const CONFIGS: &str = "/etc/cni/net.d";
/// Where plugins may be: upstream's choice, Debian's, and Fedora's.
const PLUGINS: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];

/// Looks at the pod network. `of_runtimes` are directories with plugins that the runtimes name.
pub(super) fn inspect(files: &Files, flags: &Flags, of_runtimes: Vec<String>, notes: &Notes) -> Cni {
    let directory = flags
        .get("cni-conf-dir")
        .filter(|directory| !directory.is_empty());
    let directory = host_path::plain(directory.unwrap_or(CONFIGS));
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
    bin_dirs.extend(of_runtimes);
    bin_dirs.extend(PLUGINS.map(str::to_owned));
    let mut seen: Vec<PluginDir> = Vec::new();
    for directory in bin_dirs.iter().map(|directory| host_path::plain(directory)) {
        let new = !seen.iter().any(|found| found.path.as_str() == directory);
        if let Ok(path) = HostPath::new(&*directory)
            && new
            && exists(files, &directory)
        {
            seen.push(PluginDir {
                path,
                plugins: notes.list(files, &directory),
            });
        }
    }
    Cni {
        configs,
        bin_dirs: seen,
    }
}
