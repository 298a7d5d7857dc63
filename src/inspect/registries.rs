//! The directories in which runtimes look for the settings of registries.

use std::collections::BTreeMap;

use super::{notes::Notes, units};
use crate::{
    edit::hosts_toml,
    host::files::Files,
    plan::{
        digest::Digest,
        facts::{Containerd, Pem, RegistryDirectory, TextFile},
        host_path::HostPath,
        paths::{
            CONTAINERS_CERTIFICATES, CRIO_REGISTRIES_DIRECTORY, OWN_CERTIFICATES, OWN_LINKS, REGISTRIES_CONF,
        },
        registry_certificates::all_of_containerd,
        runtime::Runtime,
    },
};

/// What a certificate begins with.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
/// What the first line of a private key ends with, whatever its kind.
const KEY: &str = "PRIVATE KEY-----";
/// Bundles of authorities have a few hundred kB.
const MAX_PEM_BYTES: u64 = 4 << 20;

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
                links: links(files, &path),
                path,
            }
        })
        .collect()
}

/// Where the links lead that Transship has made in a directory.
fn links(files: &Files, directory: &HostPath) -> BTreeMap<String, String> {
    let names = files.list(directory).unwrap_or_default().into_iter();
    let ours = names.filter(|name| name.starts_with(OWN_LINKS));
    ours.filter_map(|name| {
        let to = files.read_link(&directory.join(&name).ok()?).ok()??;
        Some((name, to))
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

/// What the files have that containerd names for certificates of registries. One that cannot be read is passed over.
pub(super) fn pems(
    files: &Files,
    containerd: Option<&Containerd>,
    directories: &[RegistryDirectory],
) -> BTreeMap<HostPath, Pem> {
    let configuration = containerd.map(Containerd::configuration).unwrap_or_default();
    let all = all_of_containerd(configuration, directories).into_iter();
    let paths = all.flat_map(|(_, tls)| {
        let clients = tls.client.into_iter().flat_map(<[String; 2]>::from);
        tls.ca.into_iter().chain(clients)
    });
    let look = |path: String| {
        let path = HostPath::new(path).ok()?;
        let bytes = files.read_at_most(&path, MAX_PEM_BYTES).ok()??;
        let text = String::from_utf8_lossy(&bytes);
        let found = Pem {
            certificate: text.contains(CERTIFICATE),
            key: text.contains(KEY),
        };
        Some((path, found))
    };
    paths.filter_map(look).collect()
}

/// Docker passes over a file without a certificate; containerd pulls nothing from a registry with one.
fn has_certificate(files: &Files, directory: &HostPath, name: &str) -> bool {
    let text = directory
        .join(name)
        .ok()
        .and_then(|path| files.read_text(&path).ok()?);
    text.is_some_and(|text| text.contains(CERTIFICATE))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::plan::facts::{MaybeFile, UnitFacts, UpgradeFacts};

    #[test]
    fn files_with_certificates_are_looked_at_and_nothing_of_them_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| HostPath::new(path).unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(&path[1..]);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let key = "-----BEGIN RSA PRIVATE KEY-----\n";
        write("/etc/pki/old.crt", CERTIFICATE);
        write("/etc/containerd/certs.d/a.example/own.crt", CERTIFICATE);
        write("/etc/containerd/certs.d/b.example/ca.crt", CERTIFICATE);
        write("/etc/containerd/certs.d/b.example/client.cert", CERTIFICATE);
        write("/etc/containerd/certs.d/b.example/client.key", key);
        write(
            "/etc/containerd/certs.d/both.pem",
            &format!("{CERTIFICATE}\n{key}"),
        );
        write("/etc/containers/certs.d/c.example/ca.crt", CERTIFICATE);
        let hosts = "[host.\"https://a.example\"]\nca = [\"own.crt\", \"/etc/pki/none.crt\"]\nclient = \"../both.pem\"\n";
        write("/etc/containerd/certs.d/a.example/hosts.toml", hosts);
        let text = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n\
                    [plugins.'io.containerd.grpc.v1.cri'.registry.configs.'o.example'.tls]\nca_file = '/etc/pki/old.crt'\n";
        let containerd = Containerd {
            service: UnitFacts::default(),
            version: String::new(),
            config: MaybeFile {
                path: at("/etc/containerd/config.toml"),
                file: None,
            },
            effective: Some(text.to_owned()),
            endpoint: at("/run/containerd/containerd.sock"),
            cri: None,
            cri_problem: None,
            store: None,
            drop_in: MaybeFile {
                path: at("/etc/systemd/system/containerd.service.d/zz-transship.conf"),
                file: None,
            },
            imported: Vec::new(),
            upgrade: UpgradeFacts::default(),
        };
        let files = Files::new(root.path());
        let ours = at("/etc/containers/certs.d/c.example/transship.key");
        files.put_link(&ours, "/etc/pki/none.key").unwrap();
        let directories = inspect(&files);
        let found = pems(&files, Some(&containerd), &directories);
        let pem = |certificate, key| Pem { certificate, key };
        let wanted = [
            ("/etc/pki/old.crt", pem(true, false)),
            ("/etc/containerd/certs.d/a.example/own.crt", pem(true, false)),
            ("/etc/containerd/certs.d/b.example/ca.crt", pem(true, false)),
            ("/etc/containerd/certs.d/b.example/client.cert", pem(true, false)),
            ("/etc/containerd/certs.d/b.example/client.key", pem(false, true)),
            ("/etc/containerd/certs.d/both.pem", pem(true, true)),
        ];
        assert_eq!(found, wanted.map(|(path, pem)| (at(path), pem)).into());
        let mut links = directories.iter().flat_map(|found| &found.links);
        let (name, to) = links.next().unwrap();
        assert_eq!(
            (name.as_str(), to.as_str()),
            ("transship.key", "/etc/pki/none.key")
        );
        assert_eq!(links.next(), None);
    }
}
