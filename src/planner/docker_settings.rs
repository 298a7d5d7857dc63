//! Docker's settings, from `daemon.json`, the daemon's command line and its unit, and what becomes of each under
//! containerd.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::{
    edit::{env_file, flags, unit_file},
    plan::{
        environment,
        facts::{Docker, UnitFacts},
        kubelet_arguments,
    },
};

/// A setting that is set, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key in `daemon.json`, or what it is.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What becomes of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It means the same afterwards; how.
    Carried(Cow<'static, str>),
    /// It has a counterpart that is not quite the same; how.
    Approximated(Cow<'static, str>),
    /// It stays behind; what to do.
    NotCarried(Cow<'static, str>),
    /// It concerns Docker itself, or its own network, which pods do not use.
    DockersOwn,
}

/// How many layers are downloaded at the same time.
const MAX_DOWNLOADS: &str = "max-concurrent-downloads";

/// Variables that carry a proxy, in the spellings that Go programs read.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Every setting of Docker that is set, in the order of their names.
pub fn settings(docker: &Docker, daemon: &Map<String, Value>) -> Vec<Setting> {
    let mut names: Vec<String> = daemon
        .iter()
        .filter(|(_, value)| is_set(value))
        .map(|(key, _)| key.clone())
        .collect();
    let command = kubelet_arguments::command(&docker.service);
    for word in command.iter().skip(1) {
        if let Some(flag) = word.strip_prefix("--") {
            names.push(key_of_flag(flag.split('=').next().unwrap_or(flag)).to_owned());
        }
    }
    if !proxies(docker, daemon).is_empty() {
        names.push("proxies".to_owned());
    }
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .map(|name| Setting {
            fate: match name.as_str() {
                MAX_DOWNLOADS => fate_of_downloads(max_downloads(docker, daemon)),
                other => fate(other),
            },
            name,
        })
        .collect()
}

/// How many layers Docker downloads at the same time, all pulls together, if that is set; 0 is all of them. dockerd refuses to start
/// with the flag and the key.
pub(super) fn max_downloads(docker: &Docker, daemon: &Map<String, Value>) -> Option<u32> {
    let command = kubelet_arguments::command(&docker.service);
    let of_file = daemon.get(MAX_DOWNLOADS).and_then(Value::as_u64);
    let of_flag = || flags::value(&command, MAX_DOWNLOADS)?.parse().ok();
    of_file.or_else(of_flag).and_then(|number| number.try_into().ok())
}

fn fate_of_downloads(downloads: Option<u32>) -> Fate {
    match downloads {
        Some(0) => Fate::Carried("containerd downloads all layers of an image at the same time, too".into()),
        Some(downloads) => Fate::Approximated(
            format!(
                "containerd downloads at most {downloads} layers of each image at the same time (max_concurrent_downloads); \
                 Docker counts the layers of all images together"
            )
            .into(),
        ),
        None => Fate::NotCarried("It is not a number. containerd downloads three layers of an image at the same time.".into()),
    }
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

/// The key in `daemon.json` of a flag; lists have a singular flag.
fn key_of_flag(flag: &str) -> &str {
    match flag {
        "registry-mirror" => "registry-mirrors",
        "insecure-registry" => "insecure-registries",
        "exec-opt" => "exec-opts",
        "log-opt" => "log-opts",
        "storage-opt" => "storage-opts",
        "add-runtime" => "runtimes",
        "default-ulimit" => "default-ulimits",
        "host" => "hosts",
        "http-proxy" | "https-proxy" | "no-proxy" => "proxies",
        other => other,
    }
}

fn fate(name: &str) -> Fate {
    match name {
        "exec-opts" => Fate::Carried("containerd gets the cgroup driver that the kubelet uses".into()),
        "proxies" => Fate::Carried("they are written into a drop-in of containerd.service".into()),
        "live-restore" => Fate::Carried("containers outlive a restart of containerd anyway".into()),
        "selinux-enabled" => Fate::NotCarried(
            "Set `enable_selinux = true` in containerd's CRI plugin if pods depend on it.".into(),
        ),
        // A planner of its own carries them.
        "registry-mirrors" | "insecure-registries" => Fate::DockersOwn,
        "data-root" | "graph" => Fate::NotCarried(
            "containerd stores images in its own `root`; set it in config.toml if /var/lib is small.".into(),
        ),
        "userns-remap" => Fate::NotCarried(
            "Pods run without a remapped root under containerd; use user namespaces of pods.".into(),
        ),
        "seccomp-profile" => {
            Fate::NotCarried("Name the profile in the pods (securityContext.seccompProfile).".into())
        }
        "runtimes" => Fate::NotCarried(
            "Configure each runtime in containerd's CRI plugin with a RuntimeClass; runc needs nothing."
                .into(),
        ),
        "storage-opts" => Fate::NotCarried("Limit the pods' ephemeral storage instead.".into()),
        "init"
        | "no-new-privileges"
        | "default-ipc-mode"
        | "default-cgroupns-mode"
        | "cgroup-parent"
        | "authorization-plugins" => {
            Fate::NotCarried("It has no counterpart; pods say such things in their own specification.".into())
        }
        // Findings of their own look at what is in effect.
        "log-driver" | "log-opts" | "storage-driver" | "default-runtime" | "default-ulimits" => {
            Fate::DockersOwn
        }
        // dockershim and cri-dockerd give every pod 64 MiB, whatever the default is.
        "default-shm-size" => Fate::DockersOwn,
        "bip"
        | "bridge"
        | "fixed-cidr"
        | "fixed-cidr-v6"
        | "ipv6"
        | "ip6tables"
        | "default-address-pools"
        | "mtu"
        | "icc"
        | "ip"
        | "ip-forward"
        | "ip-masq"
        | "iptables"
        | "userland-proxy"
        | "userland-proxy-path"
        | "default-gateway"
        | "default-gateway-v6"
        | "dns"
        | "dns-opts"
        | "dns-search"
        | "hosts"
        | "pidfile"
        | "exec-root"
        | "debug"
        | "log-level"
        | "raw-logs"
        | "metrics-addr"
        | "experimental"
        | "features"
        | "group"
        | "labels"
        | "containerd"
        | "config-file"
        | "containerd-namespace"
        | "containerd-plugins-namespace"
        | "shutdown-timeout"
        | "tls"
        | "tlsverify"
        | "tlscacert"
        | "tlscert"
        | "tlskey"
        | "api-cors-header"
        | "min-api-version"
        | "max-concurrent-uploads"
        | "max-download-attempts"
        | "oom-score-adjust"
        | "builder"
        | "swarm-default-advertise-addr"
        | "cri-containerd"
        | "node-generic-resources"
        | "allow-nondistributable-artifacts"
        | "network-control-plane-mtu" => Fate::DockersOwn,
        _ => Fate::NotCarried(
            "Transship has no translation for this setting; find out whether pods depend on it.".into(),
        ),
    }
}

/// Docker's proxies as `NAME=value`: those of `daemon.json` (23.0 and later) win over the unit's environment.
pub(super) fn proxies(docker: &Docker, daemon: &Map<String, Value>) -> Vec<String> {
    let mut found = proxies_in(&docker.service);
    let given = daemon.get("proxies").and_then(Value::as_object);
    for (key, name) in [
        ("http-proxy", "HTTP_PROXY"),
        ("https-proxy", "HTTPS_PROXY"),
        ("no-proxy", "NO_PROXY"),
    ] {
        if let Some(value) = given.and_then(|proxies| proxies.get(key)).and_then(Value::as_str) {
            found.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            found.push((name, value.to_owned()));
        }
    }
    found
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The proxies of a unit's environment as `NAME=value`.
pub(super) fn proxies_of(unit: &UnitFacts) -> Vec<String> {
    proxies_in(unit)
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn proxies_in(unit: &UnitFacts) -> Vec<(&'static str, String)> {
    let value = |name| variable(unit, name).filter(|value| !value.is_empty());
    PROXIES
        .into_iter()
        .filter_map(|name| Some((name, value(name)?)))
        .collect()
}

/// A variable of a unit's environment. A file that cannot be read has a finding of its own.
fn variable(unit: &UnitFacts, name: &str) -> Option<String> {
    environment::values(unit, name).find_map(|(_, value)| value.ok())
}

/// What gives a unit Docker's proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForUnit {
    /// Lines of the section `[Service]` of a drop-in.
    pub lines: Vec<String>,
    /// Text of the environment file with the proxies, if one of them holds credentials: systemd shows the
    /// `Environment=` of a unit to everybody on D-Bus, whatever the mode of the drop-in.
    pub environment: Option<String>,
}

/// What gives containerd's unit Docker's proxies; nothing when it has them already. In a drop-in that is written whole, everything is said again. `environment_file` is where the
/// environment file will be.
pub fn for_unit(
    docker: &Docker,
    daemon: &Map<String, Value>,
    unit: &UnitFacts,
    whole: bool,
    environment_file: &str,
) -> ForUnit {
    let missing = |assignment: &&String| {
        let (name, value) = assignment.split_once('=').unwrap_or_default();
        whole || variable(unit, name).as_deref() != Some(value)
    };
    let proxies = proxies(docker, daemon);
    let missing: Vec<&String> = proxies.iter().filter(missing).collect();
    let (mut lines, mut environment) = (Vec::new(), None);
    if missing.iter().any(|proxy| proxy.contains('@')) {
        let pairs = proxies.iter().filter_map(|proxy| proxy.split_once('='));
        let head = "# Written by Transship: the proxies of docker.service, for root alone.\n".to_owned();
        environment = pairs
            .map(Ok)
            .try_fold(head, |text, pair| {
                let (name, value) = pair?;
                env_file::set(&text, name, value)
            })
            .ok();
    }
    if environment.is_some() {
        lines.push(format!("EnvironmentFile={environment_file}"));
    } else {
        let plain = missing.iter().filter(|proxy| !proxy.contains('@'));
        lines.extend(plain.map(|proxy| unit_file::environment(proxy)));
    }
    ForUnit { lines, environment }
}
