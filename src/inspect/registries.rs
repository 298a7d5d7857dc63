//! The directories in which runtimes look for the settings of registries.

use super::{notes::Notes, units};
use crate::{
    edit::hosts_toml,
    host::files::Files,
    plan::{
        digest::Digest,
        facts::{RegistryDirectory, TextFile},
        host_path::HostPath,
        paths::{CONTAINERS_CERTIFICATES, CRIO_REGISTRIES_DIRECTORY, OWN_CERTIFICATES, REGISTRIES_CONF},
        runtime::Runtime,
    },
};

/// One per registry. What cannot be listed or read is passed over: it concerns pulls alone.
pub(super) fn inspect(files: &Files) -> Vec<RegistryDirectory> {
    let names = |directory: &str| {
        let path = HostPath::new(directory).ok();
        path.and_then(|path| files.list(&path).ok()).unwrap_or_default()
    };
    let below = |directory: &'static str| {
        let paths = names(directory)
            .into_iter()
            .map(move |name| format!("{directory}/{name}"));
        paths.filter_map(|path| HostPath::new(path).ok())
    };
    let mut directories = Vec::new();
    for runtime in Runtime::sources().chain(Runtime::targets()) {
        let directory = runtime.profile().certificates;
        if !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
        .into_iter()
        .chain([OWN_CERTIFICATES, CONTAINERS_CERTIFICATES])
        .flat_map(below)
        .map(|path| {
            let hosts = HostPath::new(format!("{path}/hosts.toml")).ok();
            let hosts = hosts.and_then(|hosts| files.read(&hosts).ok()?);
            let mut names = names(path.as_str());
            names.retain(|name| !name.ends_with(".crt") || has_certificate(files, &path, name));
            names.sort_unstable();
            RegistryDirectory {
                files: names,
                said: hosts
                    .as_deref()
                    .and_then(|text| hosts_toml::read(&String::from_utf8_lossy(text))),
                hosts: hosts.map(Digest::of),
                path,
            }
        })
        .collect()
}

/// The settings of all tools of containers/image: the file, and those of its directory in the order of their names
/// (containers-registries.conf.d(5)).
pub(super) fn conf(files: &Files, notes: &Notes) -> Vec<TextFile> {
    let pattern = format!("{CRIO_REGISTRIES_DIRECTORY}/*.conf");
    let paths = [REGISTRIES_CONF, pattern.as_str()].into_iter();
    let paths = paths.filter_map(|path| notes.keep(HostPath::new(path)));
    let all = paths.flat_map(|path| units::matching(files, &path, notes));
    all.filter_map(|path| notes.text(files, &path)).collect()
}

/// Docker passes over a file without a certificate; containerd pulls nothing from a registry with one.
fn has_certificate(files: &Files, directory: &HostPath, name: &str) -> bool {
    let text = directory
        .join(name)
        .ok()
        .and_then(|path| files.read_text(&path).ok()?);
    text.is_some_and(|text| text.contains("-----BEGIN CERTIFICATE-----"))
}
