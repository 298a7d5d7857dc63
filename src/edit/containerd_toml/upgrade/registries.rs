//! `registry.mirrors` and `registry.configs.*.tls` as files below `certs.d`. containerd 2.x drops the second without
//! an error, and pulls fail.
//!
//! containerd 1.x tries the endpoints of `mirrors."HOST"`, else those of `mirrors."*"`, then the registry itself unless
//! it is listed. It looks `tls` up by the host of the endpoint. A path in an endpoint is used as it is.

use toml_edit::Item;

use super::{
    super::{
        self as read,
        super::hosts_toml::{self, DOCKER, DOCKER_REGISTRY, Endpoint, MODE, Tls, is_host},
    },
    draft::{Draft, Path, shown},
    outcome::{Became, Problem, RegistryFile},
    sources::{New, Sources},
};

/// Stands for every registry, in `mirrors`.
const ANY: &str = "*";

fn registry(draft: &Draft, rest: &[&str]) -> Path {
    draft.cri(&[&["registry"], rest].concat())
}

/// Notes what containerd 2.x drops of an imported file.
pub(super) fn lost(draft: &mut Draft, directory: &str) {
    for host in with_tls(draft) {
        let path = registry(draft, &["configs", &host, "tls"]);
        draft.note(&path, Became::Translated(directory.to_owned()));
    }
}

/// Translates the registries; returns the files below the directory of [`New::registries`].
pub(super) fn translate(draft: &mut Draft, sources: &Sources<'_>, new: &New<'_>) -> Vec<RegistryFile> {
    let directory = new.registries;
    auths(draft);
    let table = registry(draft, &["mirrors"]);
    let mirrors = draft.names(&table);
    let tls = with_tls(draft);
    let from_file = |draft: &Draft| {
        let path = draft.str(&registry(draft, &["config_path"]));
        path.is_some_and(|path| !path.is_empty())
    };
    let directories = from_file(draft)
        || sources.drafts().any(from_file)
        || sources
            .text
            .is_some_and(|text| !read::registry_directories(text).is_empty());
    let mut imported = (sources.imported.iter())
        .filter(|file| !file.draft.names(&registry(&file.draft, &["mirrors"])).is_empty());
    if directories {
        let elsewhere = imported.next();
        if !mirrors.is_empty() || elsewhere.is_some() {
            draft.impossible(
                &table,
                "stands next to config_path: the CRI does not load; move the mirrors to files below config_path",
            );
        }
        if !tls.is_empty() {
            draft.impossible(
                &registry(draft, &["configs"]),
                "has tls next to config_path: containerd 2.x drops it; move it to files below config_path",
            );
        }
        let is_list = |draft: &Draft| {
            let path = draft.str(&registry(draft, &["config_path"]));
            path.is_some_and(|path| path.contains(':'))
        };
        let is_list = is_list(draft) || sources.drafts().any(is_list);
        if new.from_2_1 && is_list && !forces_own_pull(draft) {
            let path = registry(draft, &["config_path"]);
            draft.impossible(
                &path,
                "is a list: the service that containerd 2.1 and later pull with takes it for one name and reads nothing \
                 (containerd/containerd#12808); move the registries into one directory and name that",
            );
        }
        return Vec::new();
    }
    if mirrors.is_empty() && tls.is_empty() {
        return Vec::new();
    }
    if let Some(file) = imported.next() {
        let key = shown(&registry(&file.draft, &["mirrors"]));
        let path = file.path.clone();
        draft.problems.push(Problem::ImportedKey { path, key });
    }
    let files = files(draft, &mirrors, &tls, directory);
    remove(draft, &mirrors, &tls, directory);
    files
}

/// Whether containerd 2.x pulls without its transfer service: it has nothing for these tables.
fn forces_own_pull(draft: &Draft) -> bool {
    let has_some = |table: &&str| !draft.names(&registry(draft, &[table])).is_empty();
    ["configs", "auths"].iter().any(has_some)
}

/// Hosts whose `tls` says something.
fn with_tls(draft: &Draft) -> Vec<String> {
    let hosts = draft.names(&registry(draft, &["configs"]));
    let says = |host: &String| {
        let path = registry(draft, &["configs", host, "tls"]);
        is_host(host) && draft.get(&path).and_then(Item::as_table_like).is_some()
    };
    hosts.into_iter().filter(says).collect()
}

/// `auths` by URL become credentials by host, which need no file.
fn auths(draft: &mut Draft) {
    let table = registry(draft, &["auths"]);
    for url in draft.names(&table) {
        let Some(endpoint) = endpoint(&url).filter(|_| url.contains("://")) else {
            continue;
        };
        let from = registry(draft, &["auths", &url]);
        let to = registry(draft, &["configs", &endpoint.host, "auth"]);
        draft.transfer(&from, &to);
        // The URL may have a password.
        let from = registry(
            draft,
            &["auths", &format!("{}://{}", endpoint.scheme, endpoint.host)],
        );
        draft.note(&from, Became::Translated(shown(&to)));
    }
}

fn files(draft: &mut Draft, mirrors: &[String], tls: &[String], directory: &str) -> Vec<RegistryFile> {
    let mut hosts = mirrors.to_vec();
    for host in tls {
        // The registry of docker.io has another name than its images.
        let host = if host == DOCKER_REGISTRY && !hosts.iter().any(|known| known == DOCKER) {
            hosts.push(DOCKER.to_owned());
            host
        } else {
            host
        };
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    let everywhere = endpoints(draft, ANY);
    let mut files = Vec::new();
    for host in hosts {
        if host != ANY && !is_host(&host) {
            let path = registry(draft, &["mirrors"]);
            draft.note(
                &path,
                Became::Dropped("a name in it is not the host of a registry"),
            );
            continue;
        }
        let endpoints = if mirrors.contains(&host) {
            endpoints(draft, &host)
        } else {
            everywhere.clone()
        };
        let name = if host == ANY { "_default" } else { &host };
        files.push(RegistryFile {
            path: format!("{directory}/{name}/hosts.toml"),
            text: text(draft, &host, endpoints),
            mode: MODE,
        });
    }
    files
}

fn text(draft: &mut Draft, host: &str, mut endpoints: Vec<Endpoint>) -> String {
    let mut text = String::new();
    if host != ANY {
        let listed = endpoints.iter().find(|endpoint| endpoint.host == host);
        let own = if host == DOCKER { DOCKER_REGISTRY } else { host };
        let server = match listed {
            Some(listed) => Endpoint::new(&listed.scheme, &listed.host),
            None => Endpoint::new(default_scheme(own), own),
        };
        text.push_str(&hosts_toml::server(&server));
        if listed.is_none() && tls(draft, own).is_some() && !endpoints.contains(&server) {
            endpoints.push(server);
        }
    }
    let mut written: Vec<Endpoint> = Vec::new();
    for endpoint in endpoints {
        if written.contains(&endpoint) {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&hosts_toml::host(&endpoint, tls(draft, &endpoint.host).as_ref()));
        written.push(endpoint);
    }
    text
}

fn remove(draft: &mut Draft, mirrors: &[String], tls: &[String], directory: &str) {
    let mut comments = Vec::new();
    let file = |host: &str| format!("{directory}/{host}/hosts.toml");
    for host in mirrors {
        let path = registry(draft, &["mirrors", host]);
        if host == ANY {
            draft.note(&path, Became::Translated(file("_default")));
        } else if is_host(host) {
            draft.note(&path, Became::Translated(file(host)));
        }
    }
    let table = registry(draft, &["mirrors"]);
    comments.extend(
        draft
            .remove(&table)
            .map(|(_, comments)| comments)
            .unwrap_or_default(),
    );
    for host in tls {
        let path = registry(draft, &["configs", host, "tls"]);
        comments.extend(
            draft
                .remove(&path)
                .map(|(_, comments)| comments)
                .unwrap_or_default(),
        );
        draft.note(&path, Became::Translated(file(host)));
    }
    let path = registry(draft, &["config_path"]);
    draft.set(&path, directory);
    draft.comment(&path, &comments);
    draft.note(&path, Became::WrittenOut(directory.to_owned()));
}

/// The endpoints of a mirror, each once.
fn endpoints(draft: &mut Draft, host: &str) -> Vec<Endpoint> {
    let table = registry(draft, &["mirrors", host]);
    if draft.names(&table).iter().any(|key| key != "endpoint") {
        draft.impossible(&table, "has a key that containerd does not have");
    }
    let path = registry(draft, &["mirrors", host, "endpoint"]);
    let Some(list) = draft.get(&path) else {
        return Vec::new();
    };
    let texts = list.as_array().into_iter().flatten();
    let found: Option<Vec<Endpoint>> = texts.map(|text| endpoint(text.as_str()?)).collect();
    found.filter(|_| list.is_array()).unwrap_or_else(|| {
        draft.impossible(&path, "is not a list of URLs");
        Vec::new()
    })
}

/// An endpoint as containerd 1.x reads it. Users and passwords in it are not used, and are left out.
fn endpoint(url: &str) -> Option<Endpoint> {
    let (scheme, rest) = url
        .split_once("://")
        .map_or((None, url), |(scheme, rest)| (Some(scheme), rest));
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let scheme = scheme.unwrap_or(default_scheme(host)).to_ascii_lowercase();
    let plain = |c: char| c.is_ascii_graphic() && !"\"\\".contains(c);
    (["http", "https"].contains(&scheme.as_str()) && is_host(host) && path.chars().all(plain)).then(|| {
        Endpoint {
            scheme,
            host: host.to_owned(),
            path: path.to_owned(),
        }
    })
}

/// A registry on this node is plain.
fn default_scheme(host: &str) -> &'static str {
    let name = host.strip_prefix('[').map_or_else(
        || host.split(':').next().unwrap_or_default(),
        |rest| rest.split(']').next().unwrap_or_default(),
    );
    if name == "localhost" || name == "::1" || name.starts_with("127.") {
        "http"
    } else {
        "https"
    }
}

fn tls(draft: &mut Draft, host: &str) -> Option<Tls> {
    let path = registry(draft, &["configs", host, "tls"]);
    let table = draft.get(&path)?.as_table_like()?;
    let text = |key: &str| {
        let found = table.get(key).and_then(Item::as_str).unwrap_or_default();
        // containerd's working directory is the root.
        if found.is_empty() || found.starts_with('/') {
            found.to_owned()
        } else {
            format!("/{found}")
        }
    };
    let skip_verify = table.get("insecure_skip_verify").and_then(Item::as_bool);
    let (ca, cert, key) = (text("ca_file"), text("cert_file"), text("key_file"));
    if cert.is_empty() != key.is_empty() {
        draft.impossible(&path, "needs both cert_file and key_file");
    }
    let tls = Tls {
        skip_verify: skip_verify.unwrap_or(false),
        ca: Some(ca).into_iter().filter(|ca| !ca.is_empty()).collect(),
        client: Some((cert, key))
            .into_iter()
            .filter(|(cert, _)| !cert.is_empty())
            .collect(),
    };
    (!tls.is_empty()).then_some(tls)
}
