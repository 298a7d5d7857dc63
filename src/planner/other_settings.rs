//! What becomes of the settings of a source that is not Docker: containerd's under CRI-O, CRI-O's under containerd, and both
//! under Docker, whose `daemon.json` is the user's and is told line by line.

use serde_json::{Value, json};

use crate::{
    edit::{
        containerd_toml::{CONFIG_PATH, Handler},
        flags,
        hosts_toml::DOCKER,
        registry_auth::Credential,
    },
    plan::{
        docker_runtimes,
        facts::Limits,
        kubelet_arguments, lists,
        paths::{DAEMON_JSON, DOCKER_CERTIFICATES, KUBELET_CREDENTIALS, RUNC_SHIM},
    },
    planner::{
        context::{Downloads, Takes, View},
        docker_limits, docker_proxies,
        docker_registries::{INSECURE, MIRRORS, mirror_with},
        docker_runtimes::handler_fate,
        docker_settings::{self, MAX_DOWNLOADS},
        releases::{self, UnprivilegedPorts},
        setting::{Certificates, Fate, Given, Left, Setting, Ulimit, What},
    },
};

/// What becomes of every setting of such a source but for those of registries that a target takes; nothing where Docker is left,
/// and where the runtime stays.
pub fn settings(view: &View<'_>) -> Vec<Setting> {
    let left = &view.left;
    let fates = left.iter().filter_map(|one| {
        let fate = match view.parts.1.takes {
            Some(takes) => taken(view, takes, one, left)?,
            None => under_docker(view, one)?,
        };
        Some(Setting::new(one.name.clone(), fate))
    });
    fates.collect()
}

/// What is given to a target that takes settings.
fn taken(view: &View<'_>, takes: Takes, one: &Left, all: &[Left]) -> Option<Fate> {
    let (target, unit) = (view.target.runtime.store(), &view.target.unit);
    Some(match &one.what {
        What::Proxies(proxies) => Fate::Carried(
            Given::Proxies(proxies.clone()),
            format!("they are written into a drop-in of {unit}").into(),
        ),
        What::Inherited(limits) => {
            if target_limits(view) == *limits {
                return None;
            }
            let how = format!("{unit} gets {}, which its pods inherit", docker_limits::nofile(*limits));
            Fate::Carried(Given::Inherited(*limits), how.into())
        }
        What::Ulimits(ulimits) => ulimits_taken(takes, unit, ulimits),
        What::Downloads(number) => match takes.downloads {
            Downloads::Fixed(fixed) => Fate::Approximated(
                None,
                format!("{target} downloads at most {fixed} layers of each image at the same time; {number} was set").into(),
            ),
            Downloads::Configured => {
                let how = format!("{target} downloads {number} layers of each image at the same time, too");
                Fate::Carried(Given::Downloads(*number), how.into())
            }
        },
        What::Selinux => Fate::Carried(
            Given::Selinux,
            format!("{} = true in {target}'s configuration", takes.selinux).into(),
        ),
        What::Unprivileged => match releases::unprivileged_ports(view.target.runtime, &view.target.version) {
            Some(UnprivilegedPorts::Later(first)) => Fate::NotCarried(
                format!(
                    "Under {target} {} no process may bind ports under 1024 and send pings without privileges: use {first} or later, or \
                     give such pods the sysctl net.ipv4.ip_unprivileged_port_start.",
                    view.target.version
                )
                .into(),
            ),
            _ => Fate::Carried(
                Given::Unprivileged,
                "processes without privileges may bind ports under 1024 and send pings, as before".into(),
            ),
        },
        What::Handler(handler) => fate_of_handler(view, takes, handler),
        What::DefaultHandler(name) => {
            let comes = |other: &Left| match &other.what {
                What::Handler(handler) => {
                    handler.name == *name && !matches!(fate_of_handler(view, takes, handler), Fate::NotCarried(_))
                }
                _ => false,
            };
            if (takes.has_runtime)(view, name) || all.iter().any(comes) {
                let how = format!("{} = {name:?} in {target}'s configuration", takes.default_runtime);
                Fate::Carried(Given::DefaultHandler(name.clone()), how.into())
            } else {
                Fate::NotCarried(
                    format!(
                        "Pods would run with another runtime than {name}. Give {target} a runtime of this name, and plan again; or \
                         leave such nodes out with a selector."
                    )
                    .into(),
                )
            }
        }
        // The target's own planner of registries gives them a fate.
        What::Mirrors { .. } | What::Moved { .. } | What::Insecure(_) | What::Certificates(_) => return None,
        What::Credentials(credentials) => (takes.credentials)(view, credentials),
        What::Near(how) => Fate::Approximated(None, how.clone().into()),
        What::Lost(remedy) => Fate::NotCarried(remedy.clone().into()),
    })
}

/// The registries of credentials, and nothing else of them.
pub fn hosts(credentials: &[Credential]) -> String {
    let hosts: Vec<String> = credentials.iter().map(|one| one.host.clone()).collect();
    lists::many(&hosts)
}

/// What a person does with credentials that cannot be given to a runtime.
pub fn credentials_for_pods(hosts: &str) -> String {
    format!(
        "Give pods the credentials for {hosts} as imagePullSecrets, or the kubelet in {KUBELET_CREDENTIALS} (in the form of Docker's \
         config.json, for root alone), which hands them to every runtime."
    )
}

/// Where a person copies certificates to, for Docker and for CRI-O, which read directories of the same form.
pub fn copied(of: &Certificates, directory: &str) -> String {
    let place = format!("{directory}/{}", of.host);
    let (ca, client) = (&of.tls.ca, &of.tls.client);
    let ca = (!ca.is_empty()).then(|| format!("{} to {place}/ca.crt", lists::many(ca)));
    let client = client
        .iter()
        .map(|(cert, key)| format!("{cert} to {place}/client.cert and {key} to {place}/client.key"));
    lists::many(&ca.into_iter().chain(client).collect::<Vec<_>>())
}

/// Limits of containers, for a setting of the target's or for its unit.
fn ulimits_taken(takes: Takes, unit: &str, ulimits: &[Ulimit]) -> Fate {
    let (mut given, mut lines, mut lost) = (Vec::new(), Vec::new(), Vec::new());
    for ulimit in ulimits {
        match docker_limits::taken(ulimit, takes) {
            Some(line) => {
                given.push(ulimit.clone());
                lines.push(line);
            }
            None => lost.push(ulimit.to_string()),
        }
    }
    let lines = lists::many(&lines);
    if lost.is_empty() {
        return Fate::Carried(
            Given::Ulimits(given),
            format!("{unit} gets {lines}, which its pods inherit").into(),
        );
    }
    let lost = lists::many(&lost);
    if given.is_empty() {
        return Fate::NotCarried(
            format!("As limits of {unit} they would stop it: {lost}. Set them in the images of the pods that need them.").into(),
        );
    }
    Fate::Approximated(
        Some(Given::Ulimits(given)),
        format!(
            "{unit} gets {lines}, which its pods inherit; {lost} would stop it, and pods have no such limit"
        )
        .into(),
    )
}

/// A runtime beside the usual one.
fn fate_of_handler(view: &View<'_>, takes: Takes, handler: &Handler) -> Fate {
    let target = view.target.runtime.store();
    if (takes.has_runtime)(view, &handler.name) {
        return Fate::Inherent(format!("{target}'s configuration has a runtime of this name already").into());
    }
    let mut configs = handler.options.iter().filter(|(key, _)| key == CONFIG_PATH);
    let config = configs.next().map(|(_, path)| path);
    match (takes.handler)(view, handler) {
        Ok(handler) => handler_fate(target, config, handler),
        Err(why) => Fate::NotCarried(why.into()),
    }
}

/// The limits that pods would inherit from the target's unit as it is.
fn target_limits(view: &View<'_>) -> Limits {
    let found = view.facts.installed().remove(&view.target.runtime);
    found.map_or_else(Limits::default, |found| found.service.limit_nofile)
}

/// What a person writes for Docker; nothing where Docker has it.
fn under_docker(view: &View<'_>, one: &Left) -> Option<Fate> {
    let docker = view.docker?;
    let command = kubelet_arguments::command(&docker.service);
    let flag = |key: &str| docker_settings::flag_of(&command, key);
    let has = |key: &str| view.daemon.contains_key(key) || flag(key).is_some();
    let lines = |value: Value| {
        // dockerd does not start with a key that it has a flag of.
        let keys = value.as_object().into_iter().flat_map(|object| object.keys());
        let flags: Vec<String> = keys.filter_map(|key| flag(key)).collect();
        let place = match flags.first() {
            Some(flag) => format!("the command of {}, as --{flag}", docker.service.name),
            None => DAEMON_JSON.to_owned(),
        };
        // Without the braces of the whole file.
        let text = value.to_string();
        let line = text.trim_start_matches('{').trim_end();
        let line = line.strip_suffix('}').unwrap_or(line);
        format!("Write {line} into {place}, restart Docker if it runs, and plan again.")
    };
    let left = |value: Value| Some(Fate::NotCarried(lines(value).into()));
    // What a list of daemon.json lacks; `None` if it lacks nothing.
    let missing = |key: &str, wanted: &[String]| {
        let flag = flag(key).unwrap_or_default();
        let known = docker_settings::listed(docker, view.daemon, key, &flag);
        let missing = wanted.iter().filter(|one| !known.contains(one));
        let missing: Vec<String> = missing.cloned().collect();
        (!missing.is_empty()).then_some(missing)
    };
    match &one.what {
        What::Proxies(proxies) => {
            let known = docker_proxies::proxies(docker, view.daemon);
            if proxies.iter().all(|proxy| known.contains(proxy)) {
                return None;
            }
            let mut keys = serde_json::Map::new();
            for (name, value) in proxies.iter().filter_map(|proxy| proxy.split_once('=')) {
                // A finding is read by many.
                let value = if value.contains('@') {
                    "(the same, with its password)"
                } else {
                    value
                };
                keys.insert(name.to_ascii_lowercase().replace('_', "-"), value.into());
            }
            left(json!({ "proxies": keys }))
        }
        What::Inherited(limits) => {
            let given = docker_limits::ulimits(docker, view.daemon);
            let starter = docker_limits::starter(docker, view.containerd);
            if given.iter().any(|ulimit| ulimit.is_nofile()) || starter.limit_nofile == *limits {
                return None;
            }
            let how = format!(
                "pods have {} now, and {} under Docker. {}",
                docker_limits::nofile(*limits),
                docker_limits::nofile(starter.limit_nofile),
                lines(json!({ "default-ulimits": { "nofile": docker_limits::in_json("nofile", *limits) } }))
            );
            Some(Fate::Approximated(None, how.into()))
        }
        What::Ulimits(ulimits) => {
            let given = docker_limits::ulimits(docker, view.daemon);
            let missing = ulimits.iter().filter(|ulimit| !given.contains(ulimit));
            let keys: serde_json::Map<String, Value> = missing
                .map(|ulimit| {
                    let value = docker_limits::in_json(&ulimit.name, ulimit.limits);
                    (ulimit.name.clone(), value)
                })
                .collect();
            if keys.is_empty() {
                return None;
            }
            left(json!({ "default-ulimits": keys }))
        }
        What::Downloads(number) => {
            if has(MAX_DOWNLOADS) {
                return None;
            }
            let how = format!(
                "Docker downloads 3 layers of all images together; {number} of each image were set. {}",
                lines(json!({ MAX_DOWNLOADS: number }))
            );
            Some(Fate::Approximated(None, how.into()))
        }
        What::Selinux => {
            let key = "selinux-enabled";
            let is_on =
                |word: &String| ["--selinux-enabled", "--selinux-enabled=true"].contains(&word.as_str());
            if view.daemon.get(key).and_then(Value::as_bool) == Some(true) || command.iter().any(is_on) {
                return None;
            }
            left(json!({ key: true }))
        }
        // Docker 20.10 and later always do so.
        What::Unprivileged => None,
        What::Handler(handler) => {
            let known = docker_runtimes::configured(&docker.service, view.daemon);
            if known.iter().any(|runtime| runtime.name == handler.name) {
                return None;
            }
            let runtime = match handler.program().filter(|_| handler.kind == RUNC_SHIM) {
                Some(program) => json!({ "path": program }),
                None => json!({ "runtimeType": handler.path.as_ref().unwrap_or(&handler.kind) }),
            };
            left(json!({ "runtimes": { handler.name.clone(): runtime } }))
        }
        What::DefaultHandler(name) => {
            let key = "default-runtime";
            let of_file = view.daemon.get(key).and_then(Value::as_str);
            if of_file.or_else(|| flags::value(&command, key)) == Some(name) {
                return None;
            }
            left(json!({ key: name }))
        }
        What::Mirrors { registry, urls } => {
            let (dockers, other): (Vec<_>, Vec<_>) = urls
                .iter()
                .map(|url| mirror_with(url).ok_or(url))
                .partition(Result::is_ok);
            if registry == DOCKER && other.is_empty() {
                let dockers: Vec<String> = dockers.into_iter().flatten().collect();
                return left(json!({ MIRRORS: missing(MIRRORS, &dockers)? }));
            }
            if registry == DOCKER {
                return Some(Fate::NotCarried(
                    format!(
                        "Docker asks a mirror with /v2 at the end of its URL, and not {}: give the mirror a host name of its own.",
                        lists::many(urls)
                    )
                    .into(),
                ));
            }
            Some(Fate::NotCarried(
                format!(
                    "Docker has mirrors of docker.io alone, and asks {registry} itself: let the images of pods name {}.",
                    lists::many(urls)
                )
                .into(),
            ))
        }
        What::Moved { registry, url } => Some(Fate::NotCarried(
            format!("Docker asks {registry} itself: let the images of pods name {url}, without its scheme and /v2, and accept this.").into(),
        )),
        What::Insecure(hosts) => left(json!({ INSECURE: missing(INSECURE, hosts)? })),
        What::Certificates(all) => {
            let has = |host: &str| {
                let mut there = view.facts.registry_directories.iter();
                there.any(|found| found.below(DOCKER_CERTIFICATES) == Some(host))
            };
            let missing = all.iter().filter(|one| !has(&one.host));
            let missing: Vec<String> = missing.map(|one| copied(one, DOCKER_CERTIFICATES)).collect();
            (!missing.is_empty()).then(|| Fate::NotCarried(format!("Copy {}.", lists::many(&missing)).into()))
        }
        // Docker pulls with what the kubelet sends along, and with nothing else.
        What::Credentials(credentials) => {
            Some(Fate::NotCarried(credentials_for_pods(&hosts(credentials)).into()))
        }
        What::Near(how) => Some(Fate::Approximated(None, how.clone().into())),
        What::Lost(remedy) => Some(Fate::NotCarried(remedy.clone().into())),
    }
}
