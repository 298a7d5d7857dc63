//! What containerd has set where it is left.

use semver::Version;

use crate::{
    edit::{
        containerd_toml::{self, Handler},
        hosts_toml::{DOCKER_REGISTRY, Tls},
    },
    plan::{
        docker_runtimes,
        facts::{Containerd, Limits},
        lists,
        paths::{NRI_PLUGINS, RUNC_SHIM},
        registry_certificates::{directories, host_of, of_containerd},
        version,
    },
    planner::{
        context::View,
        docker_proxies,
        docker_registries::{INSECURE, MIRRORS},
        other_settings,
        setting::{Certificates, Left, What},
    },
};

/// What containerd does by itself (`max_concurrent_downloads`).
const DOWNLOADS: u32 = 3;

/// Names that stand for all registries without settings of their own, in the form of 1.x and of a directory. CRI-O has nothing like them:
/// a prefix in registries.conf is a host, a part of one, or `*.` with a domain (containers-registries.conf(5)).
const OF_ALL: [&str; 2] = ["*", "_default"];

/// Its settings on which pods may depend.
pub(super) fn settings(view: &View<'_>) -> Vec<Left> {
    let Some(containerd) = view.containerd else {
        return Vec::new();
    };
    let text = containerd.configuration();
    let mut found = Vec::new();
    let proxies = docker_proxies::proxies_of(&containerd.service);
    if !proxies.is_empty() {
        found.push(Left::new("proxies", What::Proxies(proxies)));
    }
    if containerd.service.limit_nofile != Limits::default() {
        found.push(Left::new(
            "LimitNOFILE",
            What::Inherited(containerd.service.limit_nofile),
        ));
    }
    let carried = containerd_toml::carried_in(text);
    if let Some(downloads) = carried.max_downloads.filter(|number| *number != DOWNLOADS) {
        found.push(Left::new("max_concurrent_downloads", What::Downloads(downloads)));
    }
    if carried.selinux == Some(true) {
        found.push(Left::new("enable_selinux", What::Selinux));
    }
    // They are on from 2.0 on.
    let by_default = version::upstream(&view.source.version) >= Some(Version::new(2, 0, 0));
    if containerd_toml::unprivileged(text, by_default) {
        found.push(Left::new("enable_unprivileged_ports", What::Unprivileged));
    }
    handlers(text, &mut found);
    if let Some(name) = carried
        .default_runtime
        .filter(|name| !docker_runtimes::is_runc(name))
    {
        found.push(Left::new("default_runtime_name", What::DefaultHandler(name)));
    }
    registries(text, view, &mut found);
    let target = view.target.runtime.store();
    for name in containerd_toml::own_specifications(text) {
        let what = format!(
            "Containers of the runtime {name} are made from a specification of their own, which {target} does not read: find out what is \
             in it (limits, for example)."
        );
        found.push(Left::new(
            format!("runtimes.{name}.base_runtime_spec"),
            What::Lost(what),
        ));
    }
    others(text, containerd, target, &mut found);
    for (key, value) in containerd_toml::told(text) {
        let how = format!(
            "{key} = {value} in containerd's configuration. {target} continues with what it does by itself, or has in its own \
             configuration"
        );
        found.push(Left::new(key, What::Near(how)));
    }
    found
}

/// What stands beside the settings of the CRI.
fn others(text: &str, containerd: &Containerd, target: &str, found: &mut Vec<Left>) {
    let snapshotter = containerd_toml::snapshots(text).unwrap_or_default().snapshotter;
    if snapshotter != "overlayfs" {
        let how = format!("containerd keeps images with {snapshotter}, and {target} in a store of its own");
        found.push(Left::new("snapshotter", What::Near(how)));
    }
    let plugins = containerd_toml::own_plugins(text);
    if !plugins.is_empty() {
        let how = format!("{target} does not call {}", lists::many(&plugins));
        found.push(Left::new("proxy_plugins", What::Near(how)));
    }
    let plugins = &containerd.upgrade.nri_plugins;
    if !plugins.is_empty() && !containerd_toml::nri_is_off(text) {
        let how = format!(
            "containerd starts what is in {NRI_PLUGINS} ({}), which {target} does only as its own configuration says",
            lists::many(plugins)
        );
        found.push(Left::new("nri", What::Near(how)));
    }
    if containerd.effective.is_none() && !containerd.imported.is_empty() {
        let paths: Vec<String> = containerd
            .imported
            .iter()
            .map(|file| file.path.to_string())
            .collect();
        let how = format!(
            "`containerd config dump` fails, so what {} say was not looked at",
            lists::many(&paths)
        );
        found.push(Left::new("imports", What::Near(how)));
    }
}

/// Runtimes beside runc, and another program in runc's place.
fn handlers(text: &str, found: &mut Vec<Left>) {
    for handler in containerd_toml::handlers(text).unwrap_or_default() {
        let name = format!("runtimes.{}", handler.name);
        if docker_runtimes::is_runc(&handler.name) {
            let other =
                |program: &&str| !program.is_empty() && *program != "runc" && !program.ends_with("/runc");
            if let Some(program) = handler.program().filter(other) {
                let what = format!(
                    "Pods that name no runtime run with {program} in the place of runc: give it a name of its own and make that the \
                     default, and plan again."
                );
                found.push(Left::new(name, What::Lost(what)));
            }
            continue;
        }
        // Only what says something: the effective configuration has an empty text for each option of runc.
        let options = handler
            .options
            .iter()
            .filter(|(_, value)| !value.is_empty())
            .cloned();
        let kind = if handler.kind.is_empty() {
            RUNC_SHIM.to_owned()
        } else {
            handler.kind.clone()
        };
        let handler = Handler {
            kind,
            options: options.collect(),
            ..handler.clone()
        };
        found.push(Left::new(name, What::Handler(handler)));
    }
}

/// Registries in the form of 1.x, and in files of their own.
fn registries(text: &str, view: &View<'_>, found: &mut Vec<Left>) {
    let old = containerd_toml::old_registries(text);
    let mut asked: Vec<(String, Vec<String>)> = old.mirrors;
    let (mut insecure, mut secret) = (old.insecure, Vec::new());
    for (registry, directory) in directories(text, &view.facts.registry_directories) {
        let Some(said) = &directory.said else { continue };
        let mut urls = Vec::new();
        for address in &said.addresses {
            let host = match host_of(&address.url) {
                "" => registry.as_str(),
                host => host,
            };
            if address.skip_verify {
                insecure.push(host.to_owned());
            }
            urls.extend(Some(&address.url).filter(|url| !url.is_empty()).cloned());
        }
        urls.extend(said.server.clone());
        urls.dedup();
        if said.secrets {
            secret.push(registry.clone());
        }
        asked.push((registry, urls));
    }
    for (registry, endpoints) in asked {
        if OF_ALL.contains(&registry.as_str()) {
            if endpoints.is_empty() {
                continue;
            }
            let what = "It names mirrors for all registries, which no other runtime has: name each registry whose images pods use.";
            found.push(Left::new(MIRRORS, What::Lost(what.to_owned())));
            continue;
        }
        let own = |url: &str| [registry.as_str(), DOCKER_REGISTRY].contains(&host_of(url));
        if endpoints.iter().any(|url| own(url) && url.starts_with("http://")) {
            insecure.push(registry.clone());
        }
        let urls = endpoints.into_iter().filter(|url| !own(url));
        let (of_user, urls): (Vec<String>, Vec<String>) = urls.partition(|url| url.contains('@'));
        if !of_user.is_empty() {
            secret.push(registry.clone());
        }
        if !urls.is_empty() {
            found.push(Left::new(MIRRORS, What::Mirrors { registry, urls }));
        }
    }
    if !secret.is_empty() {
        let what = format!(
            "What is asked for images of {} gets a user or a header, which no other runtime sends: let pods or the kubelet have the \
             credentials.",
            lists::many(&secret)
        );
        found.push(Left::new("registry-credentials", What::Lost(what)));
    }
    let number = insecure.len();
    insecure.retain(|host| !OF_ALL.contains(&host.as_str()));
    if insecure.len() < number {
        let what = "The certificate of no registry is checked, which no other runtime can have: name each registry that needs it.";
        found.push(Left::new(INSECURE, What::Lost(what.to_owned())));
    }
    insecure.retain(|host| host != DOCKER_REGISTRY);
    insecure.sort_unstable();
    insecure.dedup();
    if !insecure.is_empty() {
        found.push(Left::new(INSECURE, What::Insecure(insecure)));
    }
    certificates("registry.configs.tls", old.certificates, found);
    certificates(
        "certs.d",
        of_containerd(text, &view.facts.registry_directories),
        found,
    );
    if !old.credentials.is_empty() {
        found.push(Left::new(
            "registry.configs.auth",
            What::Credentials(old.credentials),
        ));
    }
    if !old.other_credentials.is_empty() {
        let what = other_settings::credentials_for_pods(&lists::many(&old.other_credentials));
        found.push(Left::new("registry.configs.auth", What::Lost(what)));
    }
    if old.headers {
        let what = "containerd sends headers of its own to registries, which no other runtime does: find out who needs them.";
        found.push(Left::new("registry.headers", What::Lost(what.to_owned())));
    }
}

/// Certificates of registries.
fn certificates(name: &str, all: Vec<(String, Tls)>, found: &mut Vec<Left>) {
    let (of_all, all): (Vec<_>, Vec<_>) = all
        .into_iter()
        .partition(|(host, _)| OF_ALL.contains(&host.as_str()));
    if of_all.iter().any(|(_, tls)| !tls.is_empty()) {
        let what = "It has certificates for all registries, which no other runtime can have: give them to each registry whose images pods use.";
        found.push(Left::new(name, What::Lost(what.to_owned())));
    }
    let all: Vec<Certificates> = all
        .into_iter()
        .filter(|(_, tls)| !tls.ca.is_empty() || !tls.client.is_empty())
        .map(|(host, tls)| Certificates { host, tls })
        .collect();
    if !all.is_empty() {
        found.push(Left::new(name, What::Certificates(all)));
    }
}
