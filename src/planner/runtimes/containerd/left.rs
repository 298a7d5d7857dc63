//! What containerd has set where it is left.

use semver::Version;

use crate::{
    edit::{
        containerd_toml::{self, Handler},
        hosts_toml::DOCKER_REGISTRY,
    },
    plan::{
        configuration::BINARY,
        docker_runtimes,
        facts::{Containerd, Limits},
        paths::RUNC_SHIM,
        version,
    },
    planner::{
        context::View,
        docker_proxies,
        setting::{Left, What},
    },
};

/// What containerd does by itself (`max_concurrent_downloads`).
const DOWNLOADS: u32 = 3;

/// Its settings on which pods may depend.
pub(super) fn settings(view: &View<'_>) -> Vec<Left> {
    let Some(containerd) = view.containerd else {
        return Vec::new();
    };
    let file = containerd.config.file.as_ref().map(|file| file.text.as_str());
    let text = containerd.effective.as_deref().or(file).unwrap_or_default();
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
    registries(text, containerd, &mut found);
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
    for (key, value) in containerd_toml::told(text) {
        let how = format!(
            "{key} = {value} in containerd's configuration. {target} continues with what it does by itself, or has in its own \
             configuration"
        );
        found.push(Left::new(key, What::Near(how)));
    }
    found
}

/// Runtimes beside runc, and another program in runc's place.
fn handlers(text: &str, found: &mut Vec<Left>) {
    for handler in containerd_toml::handlers(text).unwrap_or_default() {
        let name = format!("runtimes.{}", handler.name);
        let program = handler.options.iter().find(|(key, _)| key == BINARY);
        if docker_runtimes::is_runc(&handler.name) {
            let other = program.filter(|(_, program)| !program.is_empty() && !program.ends_with("/runc"));
            if let Some((_, program)) = other.filter(|(_, program)| program != "runc") {
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
            name: handler.name.clone(),
        };
        found.push(Left::new(name, What::Handler(handler)));
    }
}

/// Registries in the form of 1.x. Directories with files of their own are a finding of theirs.
fn registries(text: &str, containerd: &Containerd, found: &mut Vec<Left>) {
    let old = containerd_toml::old_registries(text);
    let mut insecure = old.insecure;
    for (registry, endpoints) in old.mirrors {
        if registry == "*" {
            let what = "It names mirrors for all registries (`*`), which no other runtime has: name each registry whose images pods use.";
            found.push(Left::new("registry-mirrors", What::Lost(what.to_owned())));
            continue;
        }
        let own = |url: &str| {
            let host = url
                .split_once("://")
                .map_or(url, |(_, host)| host)
                .trim_end_matches('/');
            host == registry || host == DOCKER_REGISTRY
        };
        if endpoints.iter().any(|url| own(url) && url.starts_with("http://")) {
            insecure.push(registry.clone());
        }
        let urls = endpoints.into_iter().filter(|url| !own(url));
        let (secret, urls): (Vec<String>, Vec<String>) = urls.partition(|url| url.contains('@'));
        if !secret.is_empty() {
            let what = format!(
                "A mirror of {registry} has a user in its URL, which no other runtime takes: let pods or the kubelet have the \
                 credentials, and name the mirror without them."
            );
            found.push(Left::new("registry-mirrors", What::Lost(what)));
        }
        if !urls.is_empty() {
            found.push(Left::new("registry-mirrors", What::Mirrors { registry, urls }));
        }
    }
    insecure.sort_unstable();
    insecure.dedup();
    if !insecure.is_empty() {
        found.push(Left::new("insecure-registries", What::Insecure(insecure)));
    }
    let hosts = |hosts: &[String]| crate::plan::lists::many(hosts);
    if !old.certificates.is_empty() {
        let what = format!(
            "Copy what {} names for {} to /etc/docker/certs.d/<host:port> (ca.crt, client.cert, client.key) before the switch.",
            containerd.config.path,
            hosts(&old.certificates)
        );
        found.push(Left::new("registry.configs.tls", What::Lost(what)));
    }
    if !old.credentials.is_empty() {
        let what = format!(
            "containerd has credentials for {}. Give them to pods as imagePullSecrets, or to the kubelet in \
             /var/lib/kubelet/config.json.",
            hosts(&old.credentials)
        );
        found.push(Left::new("registry.configs.auth", What::Lost(what)));
    }
    if old.headers {
        let what = "containerd sends headers of its own to registries, which no other runtime does: find out who needs them.";
        found.push(Left::new("registry.headers", What::Lost(what.to_owned())));
    }
}
