//! Docker's settings of registries under containerd: mirrors of Docker Hub, registries without a valid certificate, and
//! certificates.
//!
//! containerd reads `hosts.toml` from a directory per registry below `config_path` (1.5 and later). A list of directories,
//! Docker's own among them, would do for 1.x; the transfer service, with which 2.1 and later pull, takes the list for one
//! name and reads nothing (containerd/containerd#12808). So each registry gets a file in one directory. The files name
//! Docker's certificates where they are, so a certificate that is renewed there counts.

pub mod insecure;

use std::collections::{BTreeMap, BTreeSet};

use insecure::{HUB, Insecure};

use crate::{
    edit::{
        containerd_toml,
        hosts_toml::{self, DOCKER, DOCKER_REGISTRY, Endpoint, Tls, is_named_host},
    },
    plan::{
        digest::Digest,
        facts::{Containerd, Facts, RegistryDirectory},
        lists,
        paths::{CONTAINERD_CERTIFICATES, DOCKER_CERTIFICATES, OWN_CERTIFICATES},
        registry_certificates::{all_of_containerd, in_directory},
    },
    planner::{
        context::View,
        docker_settings,
        setting::{Fate, Given, Left, Registries, RegistryFile, Setting, What},
    },
};

/// Its mirrors of Docker Hub.
pub const MIRRORS: &str = "registry-mirrors";
/// Its registries without a check of the certificate.
pub const INSECURE: &str = "insecure-registries";
/// Registries whose images are in another one, by the file of CRI-O's that says so.
pub const MOVED: &str = "registries.conf";
/// What Docker's directory is called in a finding.
pub const CERTIFICATES: &str = "certs.d";

/// What a source says of registries.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// URLs of mirrors, with the paths of their APIs as [`api`](hosts_toml::api) has them, by the name of the registry in the names of
    /// images: Docker has those of Docker Hub alone.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// URLs of registries that have the images of others, by the names of those, which `mirrors` have, too.
    pub moved: BTreeMap<String, String>,
    /// Registries whose certificate is not checked.
    pub insecure: Insecure,
}

/// What the source says of registries, where it is left.
pub fn asked(view: &View<'_>) -> Option<Asked> {
    view.takes()?;
    let Some((docker, _)) = view.docker_left() else {
        return Some(asked_of_other(&view.left));
    };
    let listed = |key, flag| docker_settings::listed(docker, view.daemon, key, flag);
    let mirrors = listed(MIRRORS, "registry-mirror");
    let mirrors: Vec<String> = mirrors.iter().map(|url| api_of(url)).collect();
    let mirrors = (!mirrors.is_empty()).then(|| (DOCKER.to_owned(), mirrors));
    Some(Asked {
        mirrors: mirrors.into_iter().collect(),
        moved: BTreeMap::new(),
        insecure: Insecure::read(&listed(INSECURE, "insecure-registry")),
    })
}

/// The same of a source that is not Docker.
fn asked_of_other(left: &[Left]) -> Asked {
    let (mut mirrors, mut insecure) = (BTreeMap::<String, Vec<String>>::new(), Vec::new());
    let mut moved = BTreeMap::new();
    for one in left {
        match &one.what {
            What::Mirrors { registry, urls } => {
                let of_registry = mirrors.entry(registry.clone()).or_default();
                of_registry.extend_from_slice(urls);
            }
            What::Moved { registry, url } => {
                mirrors.entry(registry.clone()).or_default();
                moved.insert(registry.clone(), url.clone());
            }
            What::Insecure(hosts) => insecure.extend_from_slice(hosts),
            What::Proxies(_)
            | What::Inherited(_)
            | What::Ulimits(_)
            | What::Downloads(_)
            | What::Selinux
            | What::Unprivileged
            | What::Handler(_)
            | What::DefaultHandler(_)
            | What::Certificates(_)
            | What::Credentials(_)
            | What::Near(_)
            | What::Lost(_) => {}
        }
    }
    Asked {
        mirrors,
        moved,
        insecure: Insecure::read(&insecure),
    }
}

/// What becomes of them under containerd; nothing where Docker is not left.
pub fn registries(view: &View<'_>) -> Registries {
    let mut found = Registries::default();
    let Some(Asked {
        mirrors,
        moved,
        insecure,
    }) = asked(view)
    else {
        return found;
    };
    let directories = of_docker(view);
    if let Some(why) = obstacle(view) {
        let set = [
            (MIRRORS, mirrors.len() > moved.len()),
            (MOVED, !moved.is_empty()),
            (INSECURE, !insecure.is_empty()),
        ];
        for (name, _) in set.into_iter().filter(|(_, is_set)| *is_set) {
            found
                .settings
                .push(Setting::new(name, Fate::NotCarried(why.clone().into())));
        }
        let left = directories.iter().filter(|found| !containerd_has(view, found));
        found.left = left.map(|found| found.path.to_string()).collect();
        return found;
    }
    let writer = Writer {
        view,
        insecure: &insecure,
        directory: directory(view.facts, configuration(view)),
    };
    for (registry, urls) in &mirrors {
        writer.mirrors(registry, urls, moved.get(registry), &mut found);
    }
    writer.insecure(&mirrors, &mut found);
    writer.certificates(&directories, &mut found);
    found
}

/// Whether a configuration names this directory of registries.
fn reads(configuration: &str, directory: &str) -> bool {
    let mut read = containerd_toml::registry_directories(configuration).into_iter();
    read.any(|path| path.trim_end_matches('/') == directory)
}

/// Where containerd's settings of registries are written: where it reads them already, else in the usual directory, unless
/// files lie there that nothing has read so far and that must not come into effect with ours.
pub fn directory(facts: &Facts, configuration: &str) -> &'static str {
    let reads = |directory| reads(configuration, directory);
    let mut present = facts.registry_directories.iter();
    let is_used = present.any(|registry| registry.below(CONTAINERD_CERTIFICATES).is_some());
    if reads(OWN_CERTIFICATES) || (is_used && !reads(CONTAINERD_CERTIFICATES)) {
        OWN_CERTIFICATES
    } else {
        CONTAINERD_CERTIFICATES
    }
}

/// Its configuration, best the effective one.
fn configuration<'a>(view: &'a View<'_>) -> &'a str {
    view.containerd.map(Containerd::configuration).unwrap_or_default()
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
    let read = containerd_toml::registry_directories(text).into_iter();
    let ours = [CONTAINERD_CERTIFICATES, OWN_CERTIFICATES, DOCKER_CERTIFICATES];
    let other = read.filter(|path| !ours.contains(&path.trim_end_matches('/')));
    let imported = view.containerd.iter().flat_map(|containerd| &containerd.imported);
    let imported = imported.flat_map(|file| containerd_toml::registry_directories(&file.text));
    let mut in_docker = view.facts.registry_directories.iter();
    let with_hosts = reads(text, DOCKER_CERTIFICATES)
        && in_docker.any(|found| found.below(DOCKER_CERTIFICATES).is_some() && found.hosts.is_some());
    let other = other
        .chain(imported)
        .chain(with_hosts.then(|| DOCKER_CERTIFICATES.to_owned()))
        .next()?;
    Some(format!(
        "containerd reads its registries from {other}, which Transship does not change: write a hosts.toml there."
    ))
}

/// The registry of a directory of certificates that the source reads: Docker's, and CRI-O's own.
fn read_by_source<'a>(view: &View<'_>, found: &'a RegistryDirectory) -> Option<&'a str> {
    let more = view.source.runtime.profile().more_certificates;
    found.below(DOCKER_CERTIFICATES).or_else(|| found.below(more?))
}

/// The source's directories with certificates, but for Docker Hub.
pub fn of_docker<'a>(view: &View<'a>) -> Vec<&'a RegistryDirectory> {
    let all = view.facts.registry_directories.iter();
    let has_some = |found: &&RegistryDirectory| {
        let host = read_by_source(view, found);
        host.is_some_and(|host| !HUB.contains(&host)) && !in_directory(found).is_empty()
    };
    all.filter(has_some).collect()
}

/// Whether containerd has all certificates in a directory anyway: it names them, or they are links to its own, as an earlier plan has
/// made them.
fn containerd_has(view: &View<'_>, found: &RegistryDirectory) -> bool {
    let all = all_of_containerd(configuration(view), &view.facts.registry_directories);
    let clients = all.iter().flat_map(|(_, tls)| &tls.client);
    let mut paths: Vec<&String> = clients.flat_map(|(cert, key)| [cert, key]).collect();
    paths.extend(all.iter().flat_map(|(_, tls)| &tls.ca));
    let tls = in_directory(found);
    let clients = tls.client.iter().flat_map(|(cert, key)| [cert, key]);
    let mut files = tls.ca.iter().chain(clients);
    files.all(|file| {
        let mut links = found.links.iter();
        let link = links.find(|(name, _)| file.rsplit('/').next() == Some(name));
        paths.contains(&link.map_or(file, |(_, to)| to))
    })
}

/// Hosts of the node's images that are addresses in an insecure network, and that are not listed themselves.
pub fn in_networks<'a>(view: &'a View<'_>, insecure: &'a Insecure) -> impl Iterator<Item = &'a str> {
    let images = view.source.store.images.iter();
    let names = images.flat_map(|image| image.names.iter().chain(&image.digests));
    let hosts = names.filter_map(|name| Some(name.split_once('/')?.0));
    hosts.filter(|host| insecure.has(host) && !insecure.lists(host))
}

fn paths(files: &[RegistryFile]) -> String {
    let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
    lists::some(&paths)
}

/// Writes the files of a node.
struct Writer<'a> {
    view: &'a View<'a>,
    insecure: &'a Insecure,
    /// The directory of all of them.
    directory: &'static str,
}

impl Writer<'_> {
    /// Mirrors are asked before the registry itself: Docker's for images of Docker Hub alone. One that is `moved` is not asked itself.
    fn mirrors(&self, registry: &str, mirrors: &[String], moved: Option<&String>, found: &mut Registries) {
        let name = if mirrors.is_empty() { MOVED } else { MIRRORS };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for mirror in mirrors {
            match mirror_of(mirror) {
                Some(endpoint) if endpoints.contains(&endpoint) => {}
                Some(endpoint) => endpoints.push(endpoint),
                None => {
                    let what = "One of them is not a URL that containerd can read in a hosts.toml: it has a user, a query or \
                                an address of IPv6. Give the mirror a name.";
                    let not_carried = Setting::new(MIRRORS, Fate::NotCarried(what.into()));
                    if !found.settings.contains(&not_carried) {
                        found.settings.push(not_carried);
                    }
                }
            }
        }
        let server = match moved {
            Some(url) => mirror_of(url),
            None if registry == DOCKER => Some(Endpoint::new("https", DOCKER_REGISTRY)),
            None => Some(Endpoint::new("https", registry)),
        };
        if endpoints.is_empty() && moved.is_none() {
            return;
        }
        let Some(server) = server.filter(|server| is_named_host(&server.host) && is_named_host(registry))
        else {
            let what =
                format!("{registry} is not a host that containerd can read in a hosts.toml: give it a name.");
            found
                .settings
                .push(Setting::new(name, Fate::NotCarried(what.into())));
            return;
        };
        let mut urls: Vec<String> = endpoints.iter().map(Endpoint::url).collect();
        if moved.is_some() {
            urls.push(format!("{} in the place of {registry}", server.url()));
        }
        let itself = if moved.is_some() {
            server.host.as_str()
        } else {
            registry
        };
        if self.insecure.lists(itself) {
            let both = ["https", "http"].map(|scheme| Endpoint {
                path: server.path.clone(),
                ..Endpoint::new(scheme, itself)
            });
            endpoints.extend(both);
        } else if moved.is_some() {
            // What the connection needs stands in its table.
            endpoints.push(server.clone());
        }
        let urls = lists::some(&urls);
        let text = self.text(name, &server, &endpoints);
        found.settings.push(match self.file(registry, text) {
            Ok(file) => {
                let how = format!("{} names {urls}", file.path);
                Setting::new(name, Fate::Carried(self.given(vec![file]), how.into()))
            }
            Err(there) if self.has_hosts(&there) => {
                let how =
                    format!("{there}/hosts.toml exists already, and stays as it is: it must name {urls}");
                Setting::new(name, Fate::Approximated(None, how.into()))
            }
            Err(there) => {
                let what = format!("{there} exists already: let its hosts.toml name {urls}.");
                Setting::new(name, Fate::NotCarried(what.into()))
            }
        });
    }

    /// Docker asks them over TLS without a check of the certificate, then over plain HTTP.
    fn insecure(&self, mirrors: &BTreeMap<String, Vec<String>>, found: &mut Registries) {
        // One file says both.
        let hosts = self.insecure.hosts().filter(|host| !mirrors.contains_key(*host));
        let (hosts, wrong): (BTreeSet<&str>, BTreeSet<&str>) = hosts.partition(|host| is_named_host(host));
        let (written, there) = self.try_both(&hosts);
        if !written.is_empty() {
            let how = format!(
                "TLS without a check of the certificate is tried, then plain HTTP, by {}",
                paths(&written)
            );
            let carried = Fate::Carried(self.given(written), how.into());
            found.settings.push(Setting::new(INSECURE, carried));
        }
        let mut not_carried = Vec::new();
        let (has_hosts, there): (Vec<String>, Vec<String>) =
            there.into_iter().partition(|directory| self.has_hosts(directory));
        if !has_hosts.is_empty() {
            let how = format!(
                "a hosts.toml in {} exists already, and stays as it is: it must set skip_verify, or name plain HTTP",
                lists::some(&has_hosts)
            );
            found
                .settings
                .push(Setting::new(INSECURE, Fate::Approximated(None, how.into())));
        }
        if !there.is_empty() {
            not_carried.push(format!(
                "{} exist already: let their hosts.toml set skip_verify.",
                lists::some(&there)
            ));
        }
        if !wrong.is_empty() {
            not_carried.push("One of them is not a host that containerd can read in a hosts.toml, as an address of IPv6: give it a name.".to_owned());
        }
        let networks: Vec<String> = self.insecure.networks().map(str::to_owned).collect();
        if !networks.is_empty() {
            let names = lists::some(&networks);
            let seen = in_networks(self.view, self.insecure)
                .filter(|host| is_named_host(host))
                .collect();
            let (written, there) = self.try_both(&seen);
            if !there.is_empty() {
                not_carried.push(format!(
                    "containerd has no networks: write a hosts.toml with skip_verify for each registry in {names}."
                ));
            } else if written.is_empty() {
                let how = format!(
                    "containerd has no networks; no image of this node is named by an address in {names}. Write a hosts.toml with \
                     skip_verify for a registry there that pods come to use"
                );
                let nothing = Fate::Approximated(None, how.into());
                found.settings.push(Setting::new(INSECURE, nothing));
            } else {
                let how = format!(
                    "containerd has no networks; of {names} it gets what images of this node name by address: {}",
                    paths(&written)
                );
                let some = Fate::Approximated(Some(self.given(written)), how.into());
                found.settings.push(Setting::new(INSECURE, some));
            }
        }
        let more = not_carried
            .into_iter()
            .map(|what| Setting::new(INSECURE, Fate::NotCarried(what.into())));
        found.settings.extend(more);
    }

    /// Gives each host a file that tries TLS and plain HTTP; returns the files, and the directories that are in the way.
    fn try_both(&self, hosts: &BTreeSet<&str>) -> (Vec<RegistryFile>, Vec<String>) {
        let (mut written, mut there) = (Vec::new(), Vec::new());
        for host in hosts {
            let endpoints = ["https", "http"].map(|scheme| Endpoint::new(scheme, host));
            match self.file(host, self.text(INSECURE, &endpoints[0], &endpoints)) {
                Ok(file) => written.push(file),
                Err(directory) => there.push(directory),
            }
        }
        (written, there)
    }

    /// Every other directory of Docker's becomes a file that names what is in it.
    fn certificates(&self, directories: &[&RegistryDirectory], found: &mut Registries) {
        let (mut written, mut seen) = (Vec::new(), BTreeSet::new());
        for directory in directories {
            let host = read_by_source(self.view, directory).unwrap_or_default();
            // Of two directories for one registry the file names the first one.
            if !seen.insert(host) {
                continue;
            }
            // Docker reads no certificates for a registry whose own it does not check.
            if self.insecure.has(host) {
                continue;
            }
            let file = is_named_host(host).then(|| {
                self.file(
                    host,
                    self.text(
                        CERTIFICATES,
                        &Endpoint::new("https", host),
                        &[Endpoint::new("https", host)],
                    ),
                )
            });
            match file {
                Some(Ok(file)) => written.push(file),
                Some(Err(_)) if containerd_has(self.view, directory) => {}
                Some(Err(_)) | None => found.left.push(directory.path.to_string()),
            }
        }
        if !written.is_empty() {
            let how = format!("{} name what is in {DOCKER_CERTIFICATES}", paths(&written));
            let carried = Fate::Carried(self.given(written), how.into());
            found.settings.push(Setting::new(CERTIFICATES, carried));
        }
    }

    /// Whether somebody has written a `hosts.toml` in a directory.
    fn has_hosts(&self, directory: &str) -> bool {
        let mut all = self.view.facts.registry_directories.iter();
        all.any(|found| found.path.as_str() == directory && found.hosts.is_some())
    }

    /// What containerd is given with these files.
    fn given(&self, files: Vec<RegistryFile>) -> Given {
        Given::Registries {
            directory: self.directory,
            files,
        }
    }

    /// The text of a file.
    fn text(&self, setting: &str, server: &Endpoint, endpoints: &[Endpoint]) -> String {
        let mut text = format!(
            "# Written by Transship: {setting} of {}.\n",
            self.view.source.runtime.store()
        );
        text.push_str(&hosts_toml::server(server));
        for endpoint in endpoints {
            text.push('\n');
            text.push_str(&hosts_toml::host(endpoint, Some(&self.tls(&endpoint.host))));
        }
        text
    }

    /// The file of a registry, or its directory that somebody else has made. containerd looks for `HOST_PORT_` before
    /// `HOST:PORT`.
    fn file(&self, host: &str, text: String) -> Result<RegistryFile, String> {
        let other = host
            .rsplit_once(':')
            .map(|(name, port)| format!("{name}_{port}_"));
        let find = |name: &str| {
            let mut all = self.view.facts.registry_directories.iter();
            all.find(|found| found.below(self.directory) == Some(name))
        };
        if let Some(found) = other.and_then(|name| find(&name)) {
            return Err(found.path.to_string());
        }
        let there = find(host);
        let same = |found: &RegistryDirectory| found.hosts == Some(Digest::of(&text));
        match there {
            Some(found) if !same(found) => Err(found.path.to_string()),
            _ => Ok(RegistryFile {
                path: format!("{}/{host}/hosts.toml", self.directory),
                is_there: there.is_some(),
                text,
            }),
        }
    }

    /// What a connection to a host needs.
    fn tls(&self, host: &str) -> Tls {
        if self.insecure.has(host) {
            return Tls {
                skip_verify: true,
                ..Tls::default()
            };
        }
        let all = of_docker(self.view);
        let directory = all
            .iter()
            .find(|found| read_by_source(self.view, found) == Some(host));
        directory.map(|found| in_directory(found)).unwrap_or_default()
    }
}

/// Where the API of a mirror of Docker's is: its path stands before `/v2` (25.0 and later, `registry/config.go`).
fn api_of(mirror: &str) -> String {
    let mirror = mirror.trim_end_matches('/');
    let (_, rest) = mirror.split_once("://").unwrap_or_default();
    if rest.contains('/') {
        format!("{mirror}/v2")
    } else {
        mirror.to_owned()
    }
}

/// The mirror of Docker's whose API is there; `None` if Docker can have none.
pub fn mirror_with(api: &str) -> Option<String> {
    let (_, rest) = api.split_once("://")?;
    match api.strip_suffix("/v2") {
        Some(mirror) => Some(mirror.to_owned()),
        None => (!rest.contains('/')).then(|| api.to_owned()),
    }
}

/// A mirror by the URL of its API, without a user and a query.
fn mirror_of(url: &str) -> Option<Endpoint> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = path.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    let reads =
        ["http", "https"].contains(&scheme.as_str()) && is_named_host(host) && path.chars().all(plain);
    reads.then(|| Endpoint {
        path: path.to_owned(),
        ..Endpoint::new(&scheme, host)
    })
}
