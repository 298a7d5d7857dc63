//! The directories in which runtimes look for the certificates of registries.

use crate::{
    host::files::Files,
    plan::{
        host_path::HostPath,
        paths::{CONTAINERD_CERTIFICATES, DOCKER_CERTIFICATES},
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
    [DOCKER_CERTIFICATES, CONTAINERD_CERTIFICATES]
        .into_iter()
        .flat_map(names)
        .collect()
}
