//! Certificates of registries, as Docker and containerd have them in directories.

use super::facts::RegistryDirectory;
use crate::edit::{
    containerd_toml,
    hosts_toml::{self, DOCKER, DOCKER_REGISTRY, Tls},
};

/// The certificates in a directory of Docker's, or of containerd's without a `hosts.toml`.
pub fn in_directory(found: &RegistryDirectory) -> Tls {
    let at = |name: &str| format!("{}/{name}", found.path);
    let files = &found.files;
    let client = files.iter().filter_map(|name| {
        let key = format!("{}.key", name.strip_suffix(".cert")?);
        files.contains(&key).then(|| (at(name), at(&key)))
    });
    Tls {
        skip_verify: false,
        ca: files
            .iter()
            .filter(|name| name.ends_with(".crt"))
            .map(|name| at(name))
            .collect(),
        client: client.collect(),
    }
}

/// Certificates in the directories that containerd reads: what a `hosts.toml` names, or what lies there as Docker has it
/// (`hosts.go` in `core/remotes/docker/config`).
pub fn of_containerd(configuration: &str, all: &[RegistryDirectory]) -> Vec<(String, Tls)> {
    let mut found = Vec::new();
    for (registry, directory) in directories(configuration, all) {
        let itself = if registry == DOCKER {
            DOCKER_REGISTRY.to_owned()
        } else {
            registry
        };
        let Some(said) = &directory.said else {
            found.push((itself, in_directory(directory)));
            continue;
        };
        let absolute = |path: &String| hosts_toml::absolute(path, directory.path.as_str());
        for address in said.addresses.iter().filter(|address| address.has_certificates()) {
            let client = address.client.iter();
            let named = Tls {
                skip_verify: false,
                ca: address.ca.iter().map(absolute).collect(),
                client: client
                    .map(|(cert, key)| (absolute(cert), absolute(key)))
                    .collect(),
            };
            let host = match host_of(&address.url) {
                "" => itself.clone(),
                host => host.to_owned(),
            };
            found.push((host, named));
        }
    }
    found
}

/// All of them that containerd is given: in the form of 1.x, and in directories.
pub fn all_of_containerd(configuration: &str, all: &[RegistryDirectory]) -> Vec<(String, Tls)> {
    let mut found = containerd_toml::old_registries(configuration).certificates;
    found.extend(of_containerd(configuration, all));
    found
}

/// The directories that containerd reads, one for each registry, whose port may be written as `HOST_PORT_`.
pub fn directories<'a>(
    configuration: &str,
    all: &'a [RegistryDirectory],
) -> Vec<(String, &'a RegistryDirectory)> {
    let read = containerd_toml::registry_directories(configuration);
    let of = |found: &'a RegistryDirectory| {
        let mut hosts = read
            .iter()
            .filter_map(|directory| found.below(directory.trim_end_matches('/')));
        let host = hosts.next()?;
        let name = host.strip_suffix('_').and_then(|name| name.rsplit_once('_'));
        let host = name.map_or_else(|| host.to_owned(), |(name, port)| format!("{name}:{port}"));
        Some((host, found))
    };
    all.iter().filter_map(of).collect()
}

/// The host of a URL, with its port.
pub fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}
