//! Docker's settings, from `daemon.json`, the daemon's command line and its unit, and what becomes of each under
//! the target.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    edit::flags,
    plan::{facts::Docker, kubelet_arguments, lists, paths::DAEMON_JSON},
    planner::{
        context::{Downloads, View},
        data_root, docker_logs, docker_proxies, docker_runtimes,
        setting::{Fate, Given, Setting},
    },
};

/// How many layers are downloaded at the same time.
pub const MAX_DOWNLOADS: &str = "max-concurrent-downloads";

/// All proxies.
const PROXIES: &str = "proxies";

/// Every setting of Docker that is set but for those of registries, and what becomes of it where Docker is left.
pub fn settings(view: &View<'_>) -> Vec<Setting> {
    let Some(((docker, engine), takes)) = view.docker_left().zip(view.takes()) else {
        return Vec::new();
    };
    let (daemon, target) = (view.daemon, view.target.runtime.store());
    let mut names: Vec<String> = daemon
        .iter()
        .filter(|(_, value)| is_set(value))
        .map(|(key, _)| key.clone())
        .collect();
    let command = kubelet_arguments::command(&docker.service);
    for flag in command.iter().skip(1).filter_map(|word| word.strip_prefix("--")) {
        let (name, value) = flag.split_once('=').unwrap_or((flag, "true"));
        // As Go reads a boolean; 0 is a number of downloads, too.
        let is_off = ["", "false", "f", "0"].contains(&&*value.to_ascii_lowercase());
        if !is_off || (name == MAX_DOWNLOADS && value == "0") {
            names.push(key_of_flag(name).to_owned());
        }
    }
    let proxies = docker_proxies::proxies(docker, daemon);
    names.retain(|name| name != PROXIES);
    if !proxies.is_empty() {
        names.push(PROXIES.to_owned());
    }
    names.sort_unstable();
    names.dedup();
    let labels = names.iter().any(|name| name == "selinux-enabled");
    let fate_of = |name: &str| match name {
        MAX_DOWNLOADS => fate_of_downloads(docker, daemon, takes.downloads, target),
        "data-root" | "graph" => data_root::fate(view, engine, takes, labels),
        "default-cgroupns-mode" => fate_of_cgroup_namespace(view, docker),
        PROXIES => Fate::Carried(
            Given::Proxies(proxies.clone()),
            format!("they are written into a drop-in of {}", view.target.unit).into(),
        ),
        "selinux-enabled" => Fate::Carried(
            Given::Selinux,
            format!("{} = true in {target}'s configuration", takes.selinux).into(),
        ),
        "storage-opts" => fate_of_storage(docker, daemon, target),
        "config-file" => fate_of_configuration(docker),
        "seccomp-profile" if daemon.get(name).and_then(Value::as_str) == Some("builtin") => Fate::SourcesOwn,
        other => fate(other, target),
    };
    let mut settings: Vec<Setting> = names
        .into_iter()
        .map(|name| Setting {
            fate: fate_of(&name),
            name,
        })
        .collect();
    settings.extend(docker_runtimes::settings(view, docker, engine));
    settings.extend(docker_logs::setting(view));
    settings
}

/// The values of a list of Docker's, from `daemon.json` and from its flag.
pub fn listed(docker: &Docker, daemon: &Map<String, Value>, key: &str, flag: &str) -> Vec<String> {
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

/// What becomes of the number of layers that Docker downloads at the same time, all pulls together; 0 is all of them. dockerd
/// refuses to start with the flag and the key. A 0 of the file is no number to Docker, which merges the file over its
/// defaults (`daemon/config/config.go`).
fn fate_of_downloads(
    docker: &Docker,
    daemon: &Map<String, Value>,
    downloads: Downloads,
    target: &str,
) -> Fate {
    let (command, of_file) = (
        kubelet_arguments::command(&docker.service),
        daemon.get(MAX_DOWNLOADS),
    );
    let of_flag = || flags::value(&command, MAX_DOWNLOADS)?.parse::<u32>().ok();
    let number = match of_file {
        Some(value) => match value.as_u64() {
            Some(0) => return Fate::SourcesOwn,
            number => number.and_then(|number| number.try_into().ok()),
        },
        None => of_flag(),
    };
    if let Downloads::Fixed(downloads) = downloads {
        let number = number.map_or_else(|| "another number".to_owned(), |number| number.to_string());
        return Fate::Approximated(
            None,
            format!("{target} downloads at most {downloads} layers of each image at the same time; for Docker {number} was set").into(),
        );
    }
    match number {
        Some(0) => Fate::Carried(
            Given::Downloads(0),
            "containerd downloads all layers of an image at the same time, too (max_concurrent_downloads = 0)".into(),
        ),
        Some(downloads) => Fate::Approximated(
            Some(Given::Downloads(downloads)),
            format!(
                "containerd downloads at most {downloads} layers of each image at the same time (max_concurrent_downloads); \
                 Docker counts the layers of all images together. With another number than 3, containerd 2.1 and later pull \
                 without their transfer service"
            )
            .into(),
        ),
        None => Fate::NotCarried("It is not a number. containerd downloads three layers of an image at the same time.".into()),
    }
}

/// Which namespace of cgroups containers have: on cgroup v1 that of the host by default, on v2 one of their own, under both
/// runtimes (`daemon/config/config_linux.go` of Docker, `pkg/cri` of containerd).
fn fate_of_cgroup_namespace(view: &View<'_>, docker: &Docker) -> Fate {
    const KEY: &str = "default-cgroupns-mode";
    let target = view.target.runtime.store();
    let command = kubelet_arguments::command(&docker.service);
    let of_file = view.daemon.get(KEY).and_then(Value::as_str);
    let mode = of_file
        .or_else(|| flags::value(&command, KEY))
        .unwrap_or_default();
    let usual = if view.facts.cgroup_version == 2 {
        "private"
    } else {
        "host"
    };
    if mode == usual {
        Fate::Inherent(format!("{target} gives containers the same namespace of cgroups ({usual})").into())
    } else {
        Fate::NotCarried(
            format!("{target} gives containers the other namespace of cgroups ({usual}).").into(),
        )
    }
}

/// Which file Docker reads.
fn fate_of_configuration(docker: &Docker) -> Fate {
    let command = kubelet_arguments::command(&docker.service);
    match flags::value(&command, "config-file") {
        Some(path) if path != DAEMON_JSON => Fate::NotCarried(
            format!("Docker reads {path}, and Transship reads {DAEMON_JSON} alone: move its settings there, and plan again.").into(),
        ),
        _ => Fate::SourcesOwn,
    }
}

/// Options of storage drivers that limit the size of a container.
const LIMITS: [&str; 4] = ["size", "overlay2.size", "btrfs.size", "dm.basesize"];

/// Options of the storage driver: only limits of a container's size mean something to pods.
fn fate_of_storage(docker: &Docker, daemon: &Map<String, Value>, target: &str) -> Fate {
    let is_limit = |option: &String| LIMITS.contains(&option.split('=').next().unwrap_or_default());
    let mut limits = listed(docker, daemon, "storage-opts", "storage-opt");
    limits.retain(is_limit);
    if limits.is_empty() {
        return Fate::SourcesOwn;
    }
    let limits = lists::some(&limits);
    Fate::NotCarried(
        format!("{target} has no limit like {limits}: limit the ephemeral storage of pods instead.").into(),
    )
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

/// The flag of dockerd's `command` that sets what a key of `daemon.json` does, if there is one.
pub fn flag_of(command: &[String], key: &str) -> Option<String> {
    let words = command.iter().skip(1).filter_map(|word| word.strip_prefix("--"));
    let mut names = words.map(|word| word.split('=').next().unwrap_or_default());
    names.find(|name| key_of_flag(name) == key).map(str::to_owned)
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
        "default-address-pool" => "default-address-pools",
        "default-network-opt" => "default-network-opts",
        "authorization-plugin" => "authorization-plugins",
        "cdi-spec-dir" => "cdi-spec-dirs",
        "cluster-store-opt" => "cluster-store-opts",
        "dns-opt" => "dns-opts",
        "feature" => "features",
        "host" => "hosts",
        "label" => "labels",
        "node-generic-resource" => "node-generic-resources",
        "http-proxy" | "https-proxy" | "no-proxy" => PROXIES,
        other => other,
    }
}

fn fate(name: &str, target: &str) -> Fate {
    match name {
        "exec-opts" => Fate::Inherent(format!("{target} gets the cgroup driver that the kubelet uses").into()),
        "live-restore" => Fate::Inherent(format!("containers outlive a restart of {target} anyway").into()),
        // Planners of their own carry them.
        "registry-mirrors" | "insecure-registries" | "runtimes" | "default-runtime" => Fate::SourcesOwn,
        "userns-remap" => Fate::NotCarried(
            format!("Pods run without a remapped root under {target}; use user namespaces of pods.").into(),
        ),
        // It is the profile of pods that ask for RuntimeDefault; all others had none.
        "seccomp-profile" => Fate::NotCarried(
            format!(
                "Pods with the seccomp profile RuntimeDefault get {target}'s own: name this one as Localhost in pods that need it."
            )
            .into(),
        ),
        "init" => Fate::NotCarried(
            "Nothing collects the ended children that a container's program forgets: give such images an init program, or their \
             pods shareProcessNamespace."
                .into(),
        ),
        "no-new-privileges" => Fate::NotCarried(
            "Containers may gain privileges where their pods do not say otherwise: set allowPrivilegeEscalation to false."
                .into(),
        ),
        "authorization-plugins" => Fate::NotCarried(
            format!("Nobody judges what the kubelet asks of {target}: let the API server's admission judge pods.").into(),
        ),
        // Findings of their own look at what is in effect.
        "log-driver" | "log-opts" | "storage-driver" | "default-ulimits" => Fate::SourcesOwn,
        // dockershim and cri-dockerd give every pod 64 MiB, a parent of its cgroup and a namespace for IPC, whatever the
        // default is.
        "default-shm-size" | "cgroup-parent" | "default-ipc-mode" => Fate::SourcesOwn,
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
        | "network-control-plane-mtu"
        | "cdi-spec-dirs"
        | "cluster-advertise"
        | "cluster-store"
        | "cluster-store-opts"
        | "disable-legacy-registry"
        | "init-path"
        | "ip-forward-no-drop"
        | "default-network-opts"
        | "firewall-backend"
        | "host-gateway-ip"
        | "host-gateway-ips"
        | "log-format"
        | "nri-opts"
        | "bip6"
        | "allow-direct-routing"
        | "validate" => Fate::SourcesOwn,
        _ => Fate::NotCarried(
            "Transship has no translation for this setting; find out whether pods depend on it.".into(),
        ),
    }
}
