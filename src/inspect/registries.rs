//! The directories in which runtimes look for the certificates of registries.

use crate::{
    host::files::Files,
    plan::{
        findings::registries::{CONTAINERD, DOCKER},
        host_path::HostPath,
    },
};

/// One path per registry. A directory that cannot be listed is passed over: it concerns pulls alone.
pub(super) fn inspect(files: &Files) -> Vec<HostPath> {
    let names = |directory: &str| -> Vec<HostPath> {
        let path = HostPath::new(directory).ok();
        let names = path.and_then(|path| files.list(&path).ok()).unwrap_or_default();
        names
            .into_iter()
            .filter_map(|name| HostPath::new(format!("{directory}/{name}")).ok())
            .collect()
    };
    [DOCKER, CONTAINERD].into_iter().flat_map(names).collect()
}
