//! Settings of registries under CRI-O: mirrors and registries without a valid certificate, in a file for `registries.conf.d`
//! (containers-registries.conf(5)), and certificates.

use std::collections::BTreeSet;

use toml_edit::Value;

use super::certificates;
use crate::{
    edit::hosts_toml::is_named_host,
    plan::{
        lists,
        paths::{CRIO_REGISTRIES, CRIO_REGISTRIES_DIRECTORY},
    },
    planner::{
        context::View,
        docker_registries::{Asked, INSECURE, MIRRORS, asked, in_networks, insecure::Insecure},
        setting::{Fate, Given, Registries, RegistryFile, Setting},
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
    // No source but CRI-O itself says of a registry that its images are in another one.
    let Some(asked) = asked(view) else {
        return found;
    };
    let (mirrors, insecure) = (&asked.mirrors, &asked.insecure);
    let source = view.source.runtime.store();
    let mut text = format!("# Written by Transship: the registries of {source}'s configuration.\n");
    let mut fates = Vec::new();
    let (mut named, mut is_other) = (Vec::new(), false);
    for (registry, urls) in mirrors {
        let (carried, other): (Vec<_>, Vec<_>) = urls
            .iter()
            .partition(|mirror| mirror_of(mirror, insecure).is_some());
        is_other |= !other.is_empty();
        if carried.is_empty() || !is_named_host(registry) {
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
        for mirror in carried.iter().filter_map(|mirror| mirror_of(mirror, insecure)) {
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
    insecure_registries(view, &asked, &mut text, &mut fates, &mut found);
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
    certificates::certificates(view, &mut found);
    found
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
    let (hosts, wrong): (BTreeSet<&str>, BTreeSet<&str>) = hosts.partition(|host| is_named_host(host));
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
        .filter(|host| is_named_host(host))
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
        && is_named_host(host)
        && (below.is_empty() || below.starts_with('/'))
        && below.chars().all(plain);
    reads.then(|| Location {
        location: format!("{host}{below}"),
        insecure: scheme == "http" || insecure.has(host),
    })
}
