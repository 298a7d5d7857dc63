//! Certificates of registries under CRI-O. It reads `/etc/containers/certs.d/HOST`, and `/etc/docker/certs.d/HOST` only where there is
//! no such directory (`dockerCertDir` of `docker/docker_client.go` in containers/image): in each of them all `*.crt` for authorities,
//! and all `*.cert` with a `*.key` of the same name for clients. It opens them by name, so symbolic links serve
//! (`SetupCertificates` of `pkg/tlsclientconfig`).
//!
//! CRI-O is given links to the files of containerd: no key comes into a plan, and a certificate that is renewed counts. On hosts with
//! SELinux CRI-O runs as `container_runtime_t`, as containerd does, and reads what that reads (container-selinux).

use std::collections::BTreeMap;

use crate::{
    edit::hosts_toml::{DOCKER, DOCKER_REGISTRY, Tls, is_named_host},
    plan::{
        facts::RegistryDirectory,
        host_path::HostPath,
        lists,
        paths::{CONTAINERS_CERTIFICATES, DOCKER_CERTIFICATES, OWN_LINKS},
    },
    planner::{
        context::View,
        docker_registries,
        other_settings::copied,
        setting::{Certificates, Fate, FileLink, Given, Registries, Setting, What},
    },
};

/// What becomes of them.
pub(super) fn certificates(view: &View<'_>, found: &mut Registries) {
    let all = view.left.iter().filter_map(|left| match &left.what {
        What::Certificates(all) => Some((&left.name, all)),
        _ => None,
    });
    let mut writer = Writer {
        view,
        hosts: BTreeMap::new(),
    };
    for (name, all) in all {
        let (mut links, mut read, mut other) = (Vec::new(), Vec::new(), Vec::new());
        for one in all {
            let host = directory_of(&one.host);
            if is_read(view, host, &one.tls) {
                read.push(one.host.clone());
                continue;
            }
            let missing = writer.links(host, &one.tls, &mut links);
            if !missing.is_empty() {
                let missing = Certificates {
                    host: host.to_owned(),
                    tls: missing,
                };
                other.push(copied(&missing, CONTAINERS_CERTIFICATES));
            }
        }
        let mut add = |fate| found.settings.push(Setting::new(name, fate));
        if !other.is_empty() {
            let what = format!(
                "A file with it is not there, or cannot be read, or something else is in the place of the link. Copy {}, and accept this.",
                lists::many(&other)
            );
            add(Fate::NotCarried(what.into()));
        }
        if !links.is_empty() {
            let paths: Vec<String> = links.iter().map(|link| link.path.clone()).collect();
            let how = format!("{} are links to containerd's files", lists::some(&paths));
            add(Fate::Carried(Given::Links(links), how.into()));
        }
        if !read.is_empty() {
            let how = format!("CRI-O reads those of {} where they lie", lists::some(&read));
            add(Fate::Inherent(how.into()));
        }
    }
    of_docker(view, found);
}

/// Docker's directories: CRI-O reads them, too.
fn of_docker(view: &View<'_>, found: &mut Registries) {
    if view.docker_left().is_none() {
        return;
    }
    let directories = docker_registries::of_docker(view);
    let hosts = directories
        .iter()
        .filter_map(|found| found.below(DOCKER_CERTIFICATES));
    let (hidden, read): (Vec<String>, Vec<String>) = hosts
        .map(str::to_owned)
        .partition(|host| directory(view, host).is_some());
    if !hidden.is_empty() {
        let what = format!(
            "CRI-O reads {CONTAINERS_CERTIFICATES}/<host:port> alone where there is such a directory: copy what is in \
             {DOCKER_CERTIFICATES} for {} to it, and accept this.",
            lists::many(&hidden)
        );
        let left = Setting::new(docker_registries::CERTIFICATES, Fate::NotCarried(what.into()));
        found.settings.push(left);
    }
    if !read.is_empty() {
        let how = format!(
            "CRI-O reads {DOCKER_CERTIFICATES} as Docker does, for {}",
            lists::some(&read)
        );
        let stays = Setting::new(docker_registries::CERTIFICATES, Fate::Inherent(how.into()));
        found.settings.push(stays);
    }
}

/// The name of a registry's directory: CRI-O looks for that of Docker Hub by its name in the names of images (`newDockerClient`).
fn directory_of(host: &str) -> &str {
    if host == DOCKER_REGISTRY { DOCKER } else { host }
}

/// The directory of a registry that CRI-O reads before Docker's, if there is one.
fn directory<'a>(view: &View<'a>, host: &str) -> Option<&'a RegistryDirectory> {
    let mut all = view.facts.registry_directories.iter();
    all.find(|found| found.below(CONTAINERS_CERTIFICATES) == Some(host))
}

/// Whether CRI-O reads all of it where it lies.
fn is_read(view: &View<'_>, host: &str, tls: &Tls) -> bool {
    let place = match directory(view, host) {
        Some(_) => CONTAINERS_CERTIFICATES,
        None => DOCKER_CERTIFICATES,
    };
    let inside = |path: &str, end: &str| {
        let name = path.strip_prefix(place).and_then(|path| path.strip_prefix('/'));
        let name = name.and_then(|path| path.strip_prefix(host)?.strip_prefix('/'));
        name.and_then(|name| name.strip_suffix(end)).map(str::to_owned)
    };
    let is_pair = |(cert, key): &(String, String)| {
        let cert = inside(cert, ".cert");
        cert.is_some() && cert == inside(key, ".key")
    };
    tls.ca.iter().all(|path| inside(path, ".crt").is_some()) && tls.client.iter().all(is_pair)
}

/// Makes the links of a node.
struct Writer<'a> {
    view: &'a View<'a>,
    /// What each host has got.
    hosts: BTreeMap<String, Tls>,
}

impl Writer<'_> {
    /// Adds the links for a host; returns what cannot be linked.
    fn links(&mut self, host: &str, tls: &Tls, links: &mut Vec<FileLink>) -> Tls {
        let mut missing = Tls::default();
        for file in &tls.ca {
            let has = self.hosts.get(host).map_or(&[][..], |tls| &tls.ca);
            if has.contains(file) {
                continue;
            }
            match self.link(host, &name(has.len(), "crt"), file) {
                Some(link) if self.holds(file, false) => {
                    links.push(link);
                    self.hosts
                        .entry(host.to_owned())
                        .or_default()
                        .ca
                        .push(file.clone());
                }
                _ => missing.ca.push(file.clone()),
            }
        }
        for pair in &tls.client {
            let (cert, key) = pair;
            let has = self.hosts.get(host).map_or(&[][..], |tls| &tls.client);
            if has.contains(pair) {
                continue;
            }
            let number = has.len();
            let both =
                self.link(host, &name(number, "cert"), cert)
                    .zip(self.link(host, &name(number, "key"), key));
            match both {
                // One without the other keeps CRI-O from pulling anything there.
                Some((cert_link, key_link)) if self.holds(cert, false) && self.holds(key, true) => {
                    links.extend([cert_link, key_link]);
                    self.hosts
                        .entry(host.to_owned())
                        .or_default()
                        .client
                        .push(pair.clone());
                }
                _ => missing.client.push(pair.clone()),
            }
        }
        missing
    }

    /// Whether a file has a certificate, or a key.
    fn holds(&self, file: &str, key: bool) -> bool {
        let found = HostPath::new(file).ok();
        let found = found.and_then(|path| self.view.facts.registry_pems.get(&path));
        found.is_some_and(|pem| if key { pem.key } else { pem.certificate })
    }

    /// The link, if it can be there.
    fn link(&self, host: &str, name: &str, file: &str) -> Option<FileLink> {
        let there = directory(self.view, host);
        let planned_from = there.and_then(|found| found.links.get(name).cloned());
        let is_other = planned_from.is_none()
            && there.is_some_and(|found| found.files.iter().any(|other| other == name));
        (is_named_host(host) && !is_other).then(|| FileLink {
            path: format!("{CONTAINERS_CERTIFICATES}/{host}/{name}"),
            to: file.to_owned(),
            planned_from,
        })
    }
}

/// The name of the link with this number.
fn name(number: usize, end: &str) -> String {
    match number {
        0 => format!("{OWN_LINKS}.{end}"),
        more => format!("{OWN_LINKS}-{}.{end}", more + 1),
    }
}
