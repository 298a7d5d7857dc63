//! The directories in which runtimes look for the settings of registries.

use std::collections::BTreeSet;

use super::{notes::Notes, units};
use crate::{
    edit::{containerd_toml, hosts_toml},
    host::files::Files,
    plan::{
        digest::Digest,
        facts::{Containerd, MaybeFile, RegistryDirectory, TextFile},
        host_path::HostPath,
        paths::{
            CONTAINERS_CERTIFICATES, CRIO_REGISTRIES_DIRECTORY, OWN_AUTHORITIES, OWN_CERTIFICATES,
            REGISTRIES_CONF,
        },
        registry_certificates::of_containerd,
        runtime::Runtime,
    },
};

/// What a certificate begins with.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";

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

/// The certificates of authorities that containerd checks registries against, and those that CRI-O has from an earlier plan. What holds a
/// private key is passed over.
pub(super) fn authorities(
    files: &Files,
    containerd: Option<&Containerd>,
    directories: &[RegistryDirectory],
    notes: &Notes,
) -> Vec<MaybeFile> {
    let configuration = containerd.map(Containerd::configuration).unwrap_or_default();
    let of_old = containerd_toml::old_registries(configuration).certificates;
    let all = of_old
        .into_iter()
        .chain(of_containerd(configuration, directories));
    let mut paths: BTreeSet<String> = all.flat_map(|(_, tls)| tls.ca).collect();
    let ours = directories
        .iter()
        .filter(|found| found.files.iter().any(|name| name == OWN_AUTHORITIES));
    paths.extend(ours.map(|found| format!("{}/{OWN_AUTHORITIES}", found.path)));
    let paths = paths.iter().filter_map(|path| HostPath::new(path.as_str()).ok());
    let all = paths.filter_map(|path| notes.maybe(files, path.as_str()));
    let is_public = |text: &str| text.contains(CERTIFICATE) && !text.contains("PRIVATE KEY");
    all.filter(|found| found.file.as_ref().is_some_and(|file| is_public(&file.text)))
        .collect()
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
    use crate::plan::facts::{UnitFacts, UpgradeFacts};

    #[test]
    fn certificates_of_authorities_are_read_and_private_keys_are_not() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| HostPath::new(path).unwrap();
        let write = |path: &str, text: &str| {
            let file = root.path().join(&path[1..]);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let (old, below) = ("/etc/pki/old.crt", "/etc/containerd/certs.d/a.example/own.crt");
        let (lies, ours) = (
            "/etc/containerd/certs.d/b.example/ca.crt",
            "/etc/containers/certs.d/c.example/transship.crt",
        );
        for path in [old, below, lies, ours, "/etc/containers/certs.d/c.example/ca.crt"] {
            write(path, &format!("{CERTIFICATE}\n"));
        }
        write(
            "/etc/containerd/certs.d/b.example/both.crt",
            &format!("{CERTIFICATE}\n-----BEGIN PRIVATE KEY-----\n"),
        );
        let hosts = "[host.\"https://a.example\"]\nca = [\"own.crt\", \"/etc/pki/none.crt\"]\n";
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
        let notes = Notes::default();
        let found = authorities(&files, Some(&containerd), &inspect(&files), &notes);
        let found: BTreeSet<&str> = found.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(found, BTreeSet::from([old, below, lies, ours]));
        assert!(notes.0.take().is_empty());
    }
}
