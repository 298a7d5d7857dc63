//! Docker's settings of registries under containerd: mirrors of Docker Hub, registries without a valid certificate, and
//! certificates.
//!
//! containerd reads `hosts.toml` from a directory per registry below the directories of `config_path`; where a registry has
//! no directory in the first, it looks in the next. A directory without that file is read as Docker's: `*.crt`, and
//! `*.cert` with `*.key` (`remotes/docker/config/hosts.go`; `config_path` came with 1.5, and from 2.2 on these two
//! directories are its default). So Docker's own directory is read as it is, and whoever renews a certificate there goes
//! on doing so.

use core::net::{IpAddr, SocketAddr};
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    edit::{
        containerd_toml, flags,
        hosts_toml::{self, DOCKER, DOCKER_REGISTRY, Endpoint, Tls, is_host},
    },
    plan::{
        digest::Digest,
        facts::{Docker, RegistryDirectory},
        finding::Finding,
        kubelet_arguments, lists,
        paths::{CONTAINERD_CERTIFICATES, DOCKER_CERTIFICATES},
        step::{Contents, FileStep, Step},
    },
    planner::{
        context::View,
        docker_settings::{Fate, Setting},
        steps::path,
    },
};

const MIRRORS: &str = "registry-mirrors";
const INSECURE: &str = "insecure-registries";
/// What Docker's directory is called in a finding.
const CERTIFICATES: &str = "certs.d";
/// The directory of every registry that has none of its own.
const DEFAULT: &str = "_default";
/// Everybody may read it, as the files that containerd's manual writes.
const MODE: u32 = 0o644;

/// What becomes of Docker's settings of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// containerd's `config_path`; `None` leaves it as it is.
    pub config_path: Option<String>,
    /// The files that carry settings.
    files: Vec<HostsFile>,
    /// What becomes of each setting.
    pub settings: Vec<Setting>,
}

/// A `hosts.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HostsFile {
    path: String,
    text: String,
    /// What lies there already.
    old: Option<Digest>,
}

impl Registries {
    /// The steps that write the files that are not there yet.
    ///
    /// # Errors
    /// A path that is not a plain one.
    pub fn steps(&self) -> Result<Vec<Step>, Finding> {
        let missing = |file: &&HostsFile| file.old.as_ref() != Some(&Digest::of(&file.text));
        let step = |file: &HostsFile| {
            Ok(Step::File(FileStep {
                path: path(&file.path)?,
                planned_from: file.old.clone(),
                want: Some(Contents {
                    mode: MODE,
                    text: file.text.clone(),
                }),
            }))
        };
        self.files.iter().filter(missing).map(step).collect()
    }
}

/// What becomes of them; nothing where Docker is not left for a runtime whose configuration names the directories.
pub fn registries(view: &View<'_>) -> Registries {
    let mut found = Registries::default();
    let is_named = view.target.runtime.profile().certificates_are_named;
    let Some((docker, _)) = view.docker_left().filter(|_| is_named) else {
        return found;
    };
    let mirrors = given(docker, view.daemon, MIRRORS, "registry-mirror");
    let insecure = given(docker, view.daemon, INSECURE, "insecure-registry");
    let directories = of_docker(view);
    if mirrors.is_empty() && insecure.is_empty() && directories.is_empty() {
        return found;
    }
    if let Some(why) = obstacle(view) {
        let set = [(MIRRORS, &mirrors), (INSECURE, &insecure)]
            .into_iter()
            .filter(|(_, given)| !given.is_empty());
        let settings = set.map(|(name, _)| setting(name, Fate::NotCarried(why.clone().into())));
        found.settings.extend(settings);
        return found;
    }
    let writer = Writer {
        view,
        insecure: &insecure,
    };
    writer.mirrors(&mirrors, &mut found);
    writer.insecure(&mut found);
    let all = has_default(view);
    if !directories.is_empty() && !all {
        let how = format!("config_path of containerd's CRI names {DOCKER_CERTIFICATES}, too");
        found
            .settings
            .push(setting(CERTIFICATES, Fate::Carried(how.into())));
    }
    let wanted = if all {
        CONTAINERD_CERTIFICATES.to_owned()
    } else {
        format!("{CONTAINERD_CERTIFICATES}:{DOCKER_CERTIFICATES}")
    };
    let carried = |setting: &Setting| !matches!(setting.fate, Fate::NotCarried(_));
    found.config_path = (found.settings.iter().any(carried)).then_some(wanted);
    found
}

/// The directories that containerd reads as it is configured now.
pub fn directories_read(view: &View<'_>) -> Vec<String> {
    containerd_toml::registry_directories(configuration(view))
}

/// Its configuration, best the effective one.
fn configuration<'a>(view: &'a View<'_>) -> &'a str {
    let containerd = view.containerd;
    let effective = containerd.and_then(|containerd| containerd.effective.as_deref());
    let written = containerd.and_then(|containerd| containerd.config.file.as_ref());
    effective
        .or(written.map(|file| file.text.as_str()))
        .unwrap_or_default()
}

/// Why `config_path` cannot be set, with what to do.
fn obstacle(view: &View<'_>) -> Option<String> {
    let text = configuration(view);
    if containerd_toml::has_old_registries(text) {
        return Some(
            "containerd's configuration has registry.mirrors or registry.configs.*.tls, and its CRI does not load with them \
             next to config_path: move them to files below /etc/containerd/certs.d, set config_path, and plan again."
                .to_owned(),
        );
    }
    // What is named stays readable, whatever is added.
    let known = [CONTAINERD_CERTIFICATES, DOCKER_CERTIFICATES];
    let read = directories_read(view);
    let other = read
        .iter()
        .find(|path| !known.contains(&path.trim_end_matches('/')))?;
    Some(format!(
        "containerd reads its registries from {other}, which Transship does not change: write a hosts.toml there."
    ))
}

/// The values of a list of Docker's, from `daemon.json` and from its flag.
fn given(docker: &Docker, daemon: &Map<String, Value>, key: &str, flag: &str) -> Vec<String> {
    let listed = daemon.get(key).and_then(Value::as_array);
    let in_file = listed.into_iter().flatten().filter_map(Value::as_str);
    let command = kubelet_arguments::command(&docker.service);
    let mut found: Vec<String> = in_file
        .chain(flags::values(&command, flag))
        .map(str::to_owned)
        .collect();
    let mut seen = BTreeSet::new();
    found.retain(|value| seen.insert(value.clone()));
    found
}

/// Docker's directories that are not empty.
fn of_docker<'a>(view: &View<'a>) -> Vec<&'a RegistryDirectory> {
    let all = view.facts.registry_directories.iter();
    all.filter(|found| found.below(DOCKER_CERTIFICATES).is_some() && !found.files.is_empty())
        .collect()
}

/// Whether a directory for every registry stands before Docker's.
fn has_default(view: &View<'_>) -> bool {
    let mut all = view.facts.registry_directories.iter();
    all.any(|found| found.below(CONTAINERD_CERTIFICATES) == Some(DEFAULT))
}

fn setting(name: &str, fate: Fate) -> Setting {
    Setting {
        name: name.to_owned(),
        fate,
    }
}

/// Writes the files of a node.
struct Writer<'a> {
    view: &'a View<'a>,
    insecure: &'a [String],
}

impl Writer<'_> {
    /// Mirrors are asked for images of Docker Hub alone, before it.
    fn mirrors(&self, mirrors: &[String], found: &mut Registries) {
        let endpoints: Vec<Endpoint> = mirrors.iter().filter_map(|mirror| mirror_of(mirror)).collect();
        // Docker does not start with such a mirror.
        if endpoints.len() < mirrors.len() {
            let what =
                "One of them is not the URL of a mirror: it has a path, a password or no scheme. Correct it.";
            found
                .settings
                .push(setting(MIRRORS, Fate::NotCarried(what.into())));
        }
        if endpoints.is_empty() {
            return;
        }
        let urls: Vec<String> = endpoints.iter().map(Endpoint::url).collect();
        let urls = lists::some(&urls);
        let text = self.text(MIRRORS, DOCKER_REGISTRY, &endpoints);
        found.settings.push(match self.file(DOCKER, text) {
            Ok(file) => {
                let how = format!("{} names {urls}", file.path);
                found.files.push(file);
                setting(MIRRORS, Fate::Carried(how.into()))
            }
            Err(there) => {
                let what = format!("{there} exists already: let its hosts.toml name {urls}.");
                setting(MIRRORS, Fate::NotCarried(what.into()))
            }
        });
    }

    /// Docker asks them over TLS without a check of the certificate, then over plain HTTP.
    fn insecure(&self, found: &mut Registries) {
        let (networks, hosts): (Vec<&String>, Vec<&String>) = self
            .insecure
            .iter()
            .partition(|value| Network::read(value).is_some());
        let hosts: BTreeSet<String> = hosts.into_iter().cloned().collect();
        let (hosts, wrong): (BTreeSet<String>, BTreeSet<String>) =
            hosts.into_iter().partition(|host| is_host(host));
        let (written, there) = self.try_both(&hosts, found);
        if !written.is_empty() {
            let how = format!(
                "TLS without a check of the certificate is tried, then plain HTTP, by {}",
                lists::some(&written)
            );
            found.settings.push(setting(INSECURE, Fate::Carried(how.into())));
        }
        let mut not_carried = Vec::new();
        if !there.is_empty() {
            not_carried.push(format!(
                "{} exist already: let their hosts.toml set skip_verify.",
                lists::some(&there)
            ));
        }
        if !wrong.is_empty() {
            not_carried.push("One of them is not the host of a registry: correct it.".to_owned());
        }
        if !networks.is_empty() {
            let names = networks.into_iter().cloned().collect::<Vec<_>>();
            let names = lists::some(&names);
            let seen = self.in_networks().filter(|host| !hosts.contains(host)).collect();
            let (written, there) = self.try_both(&seen, found);
            if written.is_empty() || !there.is_empty() {
                not_carried.push(format!(
                    "containerd has no networks: write a hosts.toml with skip_verify for each registry in {names}."
                ));
            } else {
                let how = format!(
                    "containerd has no networks; of {names} it gets the registries of this node's images: {}",
                    lists::some(&written)
                );
                found
                    .settings
                    .push(setting(INSECURE, Fate::Approximated(how.into())));
            }
        }
        let more = not_carried
            .into_iter()
            .map(|what| setting(INSECURE, Fate::NotCarried(what.into())));
        found.settings.extend(more);
    }

    /// Gives each host a file that tries TLS and plain HTTP; returns the files, and the directories that are in the way.
    fn try_both(&self, hosts: &BTreeSet<String>, found: &mut Registries) -> (Vec<String>, Vec<String>) {
        let (mut written, mut there) = (Vec::new(), Vec::new());
        for host in hosts {
            let endpoints = ["https", "http"].map(|scheme| Endpoint::new(scheme, host));
            match self.file(host, self.text(INSECURE, host, &endpoints)) {
                Ok(file) => {
                    written.push(file.path.clone());
                    // Docker Hub may have mirrors, too.
                    if found.files.iter().all(|other| other.path != file.path) {
                        found.files.push(file);
                    }
                }
                Err(directory) => there.push(directory),
            }
        }
        (written, there)
    }

    /// Hosts of the node's images that are addresses in an insecure network.
    fn in_networks(&self) -> impl Iterator<Item = String> {
        let networks: Vec<Network> = self
            .insecure
            .iter()
            .filter_map(|value| Network::read(value))
            .collect();
        let images = self.view.source.store.images.iter();
        let names = images.flat_map(|image| image.names.iter().chain(&image.digests));
        let hosts = names.filter_map(|name| Some(name.split_once('/')?.0.to_owned()));
        hosts.filter(move |host| {
            let address = address(host);
            address.is_some_and(|address| networks.iter().any(|network| network.has(address)))
        })
    }

    /// The text of a file.
    fn text(&self, setting: &str, server: &str, endpoints: &[Endpoint]) -> String {
        let mut text = format!("# Written by Transship: {setting} of Docker.\n");
        text.push_str(&hosts_toml::server(&Endpoint::new("https", server)));
        for endpoint in endpoints {
            text.push('\n');
            text.push_str(&hosts_toml::host(endpoint, Some(&self.tls(&endpoint.host))));
        }
        text
    }

    /// The file of a registry, or its directory that somebody else has made.
    fn file(&self, host: &str, text: String) -> Result<HostsFile, String> {
        let mut all = self.view.facts.registry_directories.iter();
        let there = all.find(|found| found.below(CONTAINERD_CERTIFICATES) == Some(host));
        let same = |found: &RegistryDirectory| found.hosts == Some(Digest::of(&text));
        match there {
            Some(found) if !same(found) => Err(found.path.to_string()),
            _ => Ok(HostsFile {
                path: format!("{CONTAINERD_CERTIFICATES}/{host}/hosts.toml"),
                old: there.and_then(|found| found.hosts.clone()),
                text,
            }),
        }
    }

    /// What Docker's directory has for a registry, and whether its certificate is not checked.
    fn tls(&self, host: &str) -> Tls {
        let all = of_docker(self.view);
        let directory = all
            .iter()
            .find(|found| found.below(DOCKER_CERTIFICATES) == Some(host));
        let files = directory.map_or(&[][..], |found| &found.files);
        let at = |name: &str| format!("{DOCKER_CERTIFICATES}/{host}/{name}");
        let client = files.iter().filter_map(|name| {
            let key = format!("{}.key", name.strip_suffix(".cert")?);
            files.contains(&key).then(|| (at(name), at(&key)))
        });
        let in_network = |value: &String| {
            let network = Network::read(value).zip(address(host));
            network.is_some_and(|(network, address)| network.has(address))
        };
        Tls {
            skip_verify: self
                .insecure
                .iter()
                .any(|value| value == host || in_network(value)),
            ca: files
                .iter()
                .filter(|name| name.ends_with(".crt"))
                .map(|name| at(name))
                .collect(),
            client: client.collect(),
        }
    }
}

/// A mirror as Docker takes one: a URL without a path, a user or a query (`registry/config.go`).
fn mirror_of(url: &str) -> Option<Endpoint> {
    let (scheme, rest) = url.split_once("://")?;
    let host = rest.strip_suffix('/').unwrap_or(rest);
    (["http", "https"].contains(&scheme) && is_host(host)).then(|| Endpoint::new(scheme, host))
}

/// The address of a host that is one, with or without a port.
fn address(host: &str) -> Option<IpAddr> {
    let port = host.parse::<SocketAddr>().map(|both| both.ip());
    port.or_else(|_| host.trim_matches(['[', ']']).parse()).ok()
}

/// A network in CIDR notation.
#[derive(Clone, Copy, Debug)]
struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    fn read(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let network = Self {
            address: address.parse().ok()?,
            bits: bits.parse().ok()?,
        };
        let most = if network.address.is_ipv4() { 32 } else { 128 };
        (network.bits <= most).then_some(network)
    }

    fn has(self, other: IpAddr) -> bool {
        let differs = match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => u128::from(one.to_bits() ^ other.to_bits()) << 96,
            (IpAddr::V6(one), IpAddr::V6(other)) => one.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differs.leading_zeros() >= self.bits
    }
}
