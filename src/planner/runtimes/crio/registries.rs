//! Settings of registries under CRI-O: mirrors and registries without a valid certificate, in a file for `registries.conf.d`
//! (containers-registries.conf(5)). CRI-O finds certificates where Docker does, in `/etc/docker/certs.d`, and in
//! `/etc/containers/certs.d`, where it gets those of the authorities that containerd has (containers-certs.d(5)).

use std::collections::BTreeSet;

use toml_edit::Value;

use crate::{
    edit::hosts_toml::is_host,
    plan::{
        lists,
        paths::{CONTAINERS_CERTIFICATES, CRIO_REGISTRIES, CRIO_REGISTRIES_DIRECTORY, OWN_AUTHORITIES},
    },
    planner::{
        context::View,
        docker_registries::{Asked, INSECURE, MIRRORS, asked, in_networks, insecure::Insecure},
        other_settings,
        setting::{Authorities, Fate, Given, Registries, RegistryFile, Setting, What},
        steps,
    },
};

/// A mirror, or a registry.
struct Location {
    location: String,
    insecure: bool,
}

/// What becomes of them.
pub(super) fn registries(view: &View<'_>) -> Registries {
    let mut found = Registries::default();
    let Some(Asked { mirrors, insecure }) = asked(view) else {
        return found;
    };
    let source = view.source.runtime.store();
    let mut text = format!("# Written by Transship: the registries of {source}'s configuration.\n");
    let mut fates = Vec::new();
    let (mut named, mut is_other) = (Vec::new(), false);
    for (registry, urls) in &mirrors {
        let (carried, other): (Vec<_>, Vec<_>) = urls
            .iter()
            .partition(|mirror| mirror_of(mirror, &insecure).is_some());
        is_other |= !other.is_empty();
        if carried.is_empty() || !can_be_written(registry) {
            is_other |= !carried.is_empty();
            continue;
        }
        let itself = Location {
            location: registry.clone(),
            insecure: insecure.lists(registry),
        };
        text.push_str(&entry("[[registry]]", &itself));
        // One that is asked over TLS and without it is named once.
        let mut seen = BTreeSet::new();
        for mirror in carried.iter().filter_map(|mirror| mirror_of(mirror, &insecure)) {
            let table = entry("[[registry.mirror]]", &mirror);
            if seen.insert(mirror.location) {
                text.push_str(&table);
            }
        }
        named.extend(carried.iter().map(ToString::to_string));
    }
    if !named.is_empty() {
        fates.push((
            MIRRORS,
            format!("{CRIO_REGISTRIES} names {}", lists::some(&named)),
            true,
        ));
    }
    if is_other {
        let what = "One of them is not a URL that CRI-O can take for a mirror: it has a path before /v2, a user or a query, or an address of \
                    IPv6. Give the mirror a host name of its own.";
        found
            .settings
            .push(Setting::new(MIRRORS, Fate::NotCarried(what.into())));
    }
    insecure_registries(
        view,
        &Asked { mirrors, insecure },
        &mut text,
        &mut fates,
        &mut found,
    );
    let path = steps::path(CRIO_REGISTRIES);
    let is_there = path.is_ok_and(|path| view.facts.text_at(&path).is_some_and(|file| file.text == text));
    // One file for all of them.
    let given = Given::Registries {
        directory: CRIO_REGISTRIES_DIRECTORY,
        files: vec![RegistryFile {
            path: CRIO_REGISTRIES.to_owned(),
            text,
            is_there,
        }],
    };
    found.settings.extend(fates.into_iter().map(|(name, how, whole)| {
        let fate = if whole {
            Fate::Carried(given.clone(), how.into())
        } else {
            Fate::Approximated(Some(given.clone()), how.into())
        };
        Setting::new(name, fate)
    }));
    authorities(view, &mut found);
    found
}

/// Certificates of authorities, in a file for each host, beside what a person has put there.
fn authorities(view: &View<'_>, found: &mut Registries) {
    let all = view.left.iter().filter_map(|left| match &left.what {
        What::Authorities(all) => Some((&left.name, all)),
        _ => None,
    });
    for (name, all) in all {
        let (mut files, mut other) = (Vec::new(), Vec::new());
        for one in all {
            match authorities_file(view, one) {
                Some(file) => files.push(file),
                None => other.push(other_settings::copied(one)),
            }
        }
        if !other.is_empty() {
            let what = format!(
                "Nothing but certificates is copied by a plan. Copy {}.",
                lists::many(&other)
            );
            found
                .settings
                .push(Setting::new(name, Fate::NotCarried(what.into())));
        }
        if !files.is_empty() {
            let paths: Vec<String> = files.iter().map(|file| file.path.clone()).collect();
            let how = format!(
                "{} have a copy, which has to be renewed with them",
                lists::some(&paths)
            );
            let given = Given::Registries {
                directory: CONTAINERS_CERTIFICATES,
                files,
            };
            found
                .settings
                .push(Setting::new(name, Fate::Carried(given, how.into())));
        }
    }
}

/// The file with them, if all of them are known.
fn authorities_file(view: &View<'_>, of: &Authorities) -> Option<RegistryFile> {
    let text_at = |path: &str| Some(view.facts.text_at(&steps::path(path).ok()?)?.text.clone());
    let path = format!("{CONTAINERS_CERTIFICATES}/{}/{OWN_AUTHORITIES}", of.host);
    let texts: Option<Vec<String>> = of.files.iter().map(|path| text_at(path)).collect();
    let text = texts?.join("\n");
    can_be_written(&of.host).then(|| RegistryFile {
        is_there: text_at(&path).as_ref() == Some(&text),
        path,
        text,
    })
}

/// CRI-O asks them over TLS without a check of the certificate, then over plain HTTP, as Docker does.
fn insecure_registries(
    view: &View<'_>,
    asked: &Asked,
    text: &mut String,
    fates: &mut Vec<(&'static str, String, bool)>,
    found: &mut Registries,
) {
    let insecure = &asked.insecure;
    // Mirrors stand in one table with it.
    let hosts = insecure.hosts().filter(|host| !asked.mirrors.contains_key(*host));
    let (hosts, wrong): (BTreeSet<&str>, BTreeSet<&str>) = hosts.partition(|host| can_be_written(host));
    let write = |text: &mut String, hosts: &BTreeSet<&str>| {
        for host in hosts {
            let location = Location {
                location: (*host).to_owned(),
                insecure: true,
            };
            text.push_str(&entry("[[registry]]", &location));
        }
        lists::some(&hosts.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    if !hosts.is_empty() {
        let names = write(text, &hosts);
        fates.push((
            INSECURE,
            format!("{CRIO_REGISTRIES} lets TLS without a check of the certificate, then plain HTTP, be tried for {names}"),
            true,
        ));
    }
    if !wrong.is_empty() {
        let what =
            "One of them is not a host that can be written there, as an address of IPv6: give it a name.";
        found
            .settings
            .push(Setting::new(INSECURE, Fate::NotCarried(what.into())));
    }
    let networks: Vec<String> = insecure.networks().map(str::to_owned).collect();
    if networks.is_empty() {
        return;
    }
    let names = lists::some(&networks);
    let seen: BTreeSet<&str> = in_networks(view, insecure)
        .filter(|host| can_be_written(host))
        .collect();
    if seen.is_empty() {
        let how = format!(
            "CRI-O has no networks; no image of this node is named by an address in {names}. Write `insecure = true` for a \
             registry there that pods come to use"
        );
        found
            .settings
            .push(Setting::new(INSECURE, Fate::Approximated(None, how.into())));
    } else {
        let hosts = write(text, &seen);
        let how = format!(
            "CRI-O has no networks; of {names} it gets what images of this node name by address: {hosts}"
        );
        fates.push((INSECURE, how, false));
    }
}

/// Whether a host can stand there.
fn can_be_written(host: &str) -> bool {
    is_host(host) && !host.contains('[')
}

fn entry(table: &str, location: &Location) -> String {
    let mut text = format!("\n{table}\nlocation = {}\n", Value::from(&location.location));
    if location.insecure {
        text.push_str("insecure = true\n");
    }
    text
}

/// A mirror by the URL of its API, if it can be written: CRI-O puts what stands behind a host between `/v2` and the name of the image
/// (`PullSourcesFromReference` of `pkg/sysregistriesv2` in containers/image). A path before `/v2` has no counterpart, as a mirror
/// of Docker's has one.
fn mirror_of(url: &str, insecure: &Insecure) -> Option<Location> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.trim_end_matches('/');
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let below = if path.is_empty() {
        ""
    } else {
        path.strip_prefix("/v2")?
    };
    let scheme = scheme.to_ascii_lowercase();
    // It becomes a part of the name of an image.
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._/".contains(c);
    let reads = ["http", "https"].contains(&scheme.as_str())
        && can_be_written(host)
        && (below.is_empty() || below.starts_with('/'))
        && below.chars().all(plain);
    reads.then(|| Location {
        location: format!("{host}{below}"),
        insecure: scheme == "http" || insecure.has(host),
    })
}
