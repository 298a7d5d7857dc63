//! What the running kubelet does: its settings in effect, from the command line, the configuration file and its
//! drop-ins. Low to high: compiled defaults, file of `--config`, files of `--config-dir`, flags.

use semver::Version;
use serde_json::Value;

use super::{
    facts::Kubelet,
    host_path::{self, HostPath},
    kubelet_arguments::{self, ArgumentsError},
    quantity, version,
};
use crate::{
    edit::{
        flags,
        yaml::{self, YamlError},
    },
    plan::runtime::Runtime,
};

/// The kubelet's settings in effect, as far as they concern a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its version.
    pub version: Version,
    /// The runtime behind its endpoint; absent when the endpoint is none that is known.
    pub runtime: Option<Runtime>,
    /// The CRI endpoint in effect, with its scheme.
    pub endpoint: String,
    /// The endpoint that its flags, else its configuration name, see [`named_endpoint`].
    pub named_endpoint: Option<String>,
    /// `systemd` or `cgroupfs`, as it is configured; from 1.31 on a runtime that answers `RuntimeConfig` wins.
    pub cgroup_driver: String,
    /// `--pod-infra-container-image`, or the one compiled in.
    pub sandbox_image: String,
    /// How its dockershim is connected to the pod network.
    pub network: PodNetwork,
    /// `--runtime-cgroups`.
    pub runtime_cgroups: Option<String>,
    /// How much of a container's log it keeps under a runtime with a CRI of its own.
    pub logs: LogLimits,
    /// Whether somebody has set one of these limits.
    pub logs_are_set: bool,
    /// How long a pull of its dockershim may make no progress (`--image-pull-progress-deadline`), if it is set.
    pub pull_deadline: Option<String>,
}

/// How much of a container's log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// Size of one file in bytes.
    pub file_bytes: u64,
    /// Number of files.
    pub files: u64,
}

/// How a runtime is connected to the pod network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodNetwork {
    /// `cni`, or `kubenet` or nothing under dockershim.
    pub plugin: String,
    /// Directory with the CNI configuration.
    pub conf_dir: String,
    /// Directories with the CNI plugins.
    pub bin_dirs: Vec<String>,
    /// libcni's cache.
    pub cache_dir: String,
    /// MTU that is given to the network (`--network-plugin-mtu`), where it is.
    pub mtu: Option<String>,
    /// How hairpin packets are let through (`--hairpin-mode`), where it is said.
    pub hairpin_mode: Option<String>,
}

impl PodNetwork {
    /// What these flags of a kubelet with dockershim, or of cri-dockerd, say: they have the same names. Directories
    /// may end with a slash.
    pub fn of_flags(words: &[String]) -> Self {
        let flag = |name: &str| {
            flags::value(words, name)
                .map(str::to_owned)
                .filter(|value| !value.is_empty())
        };
        let directory = |name, usual: &str| host_path::plain(&flag(name).unwrap_or_else(|| usual.to_owned()));
        Self {
            plugin: flag("network-plugin").unwrap_or_default(),
            conf_dir: directory("cni-conf-dir", "/etc/cni/net.d"),
            bin_dirs: flag("cni-bin-dir")
                .unwrap_or_else(|| "/opt/cni/bin".to_owned())
                .split(',')
                .map(|dir| host_path::plain(dir.trim()))
                .filter(|dir| !dir.is_empty())
                .collect(),
            cache_dir: directory("cni-cache-dir", "/var/lib/cni/cache"),
            mtu: flag("network-plugin-mtu").filter(|mtu| mtu != "0"),
            hairpin_mode: flag("hairpin-mode"),
        }
    }
}

/// Settings that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The version is no version.
    #[error("the kubelet's version {0:?} is not understood")]
    Version(String),
    /// The command line cannot be composed.
    #[error(transparent)]
    Arguments(#[from] ArgumentsError),
    /// A configuration file cannot be read.
    #[error("{path}: {error}")]
    Config {
        /// The file.
        path: String,
        /// Why.
        error: YamlError,
    },
}

impl Settings {
    /// The settings of `kubelet`: from its process, or, when none runs, from what systemd would start. The runtime
    /// behind its endpoint is the one of `runtimes` that was found there, else the one whose usual place that is.
    pub fn of(kubelet: &Kubelet, runtimes: &[(Runtime, &HostPath)]) -> Result<Self, SettingsError> {
        let version = version::upstream(&kubelet.version)
            .ok_or_else(|| SettingsError::Version(kubelet.version.clone()))?;
        let words = match &kubelet.command_line[..] {
            [] => kubelet_arguments::compose(&kubelet.unit)?,
            running => running.to_vec(),
        };
        let config = config(kubelet)?;
        let named_endpoint = named_endpoint(&words, &config);
        let flag = |name: &str| {
            flags::value(&words, name)
                .map(str::to_owned)
                .filter(|value| !value.is_empty())
        };
        let field = |name: &str| config.get(name).and_then(Value::as_str).map(str::to_owned);
        let own = Runtime::in_kubelet(version.minor)
            .filter(|_| flag("container-runtime").is_none_or(|kind| kind == "docker"));
        let endpoint = flag(ENDPOINT_FLAG)
            .or_else(|| field(ENDPOINT_FIELD).filter(|name| version.minor >= 27 && !name.is_empty()))
            .unwrap_or_else(|| default_endpoint(&version).to_owned());
        let mut network = PodNetwork::of_flags(&words);
        network.hairpin_mode = network.hairpin_mode.or_else(|| field("hairpinMode"));
        Ok(Self {
            runtime: own.or_else(|| runtime_at(&endpoint, runtimes)),
            endpoint,
            named_endpoint,
            cgroup_driver: flag("cgroup-driver")
                .or_else(|| field("cgroupDriver"))
                .unwrap_or_else(|| "cgroupfs".to_owned()),
            sandbox_image: flag("pod-infra-container-image")
                .unwrap_or_else(|| default_sandbox_image(&version).to_owned()),
            network,
            runtime_cgroups: flag("runtime-cgroups"),
            pull_deadline: flag(PULL_DEADLINE_FLAG),
            logs_are_set: [LOG_SIZE, LOG_FILES].iter().any(|(name, of_flag)| {
                flag(of_flag).is_some() || config.get(name).is_some_and(|value| !value.is_null())
            }),
            logs: LogLimits {
                file_bytes: flag(LOG_SIZE.1)
                    .or_else(|| field(LOG_SIZE.0))
                    .and_then(|size| quantity::bytes(&size))
                    .unwrap_or(DEFAULT_LOGS.file_bytes),
                files: flag(LOG_FILES.1)
                    .and_then(|files| files.parse().ok())
                    .or_else(|| config.get(LOG_FILES.0).and_then(Value::as_u64))
                    .unwrap_or(DEFAULT_LOGS.files),
            },
            version,
        })
    }
}

/// The flag of a kubelet with dockershim, and of cri-dockerd, for a pull that makes no progress.
pub const PULL_DEADLINE_FLAG: &str = "image-pull-progress-deadline";
/// The field for the size of a log, and the flag of the same meaning, which wins over it.
pub const LOG_SIZE: (&str, &str) = ("containerLogMaxSize", "container-log-max-size");
/// The same for the number of files.
pub const LOG_FILES: (&str, &str) = ("containerLogMaxFiles", "container-log-max-files");
/// What the kubelet keeps unless told otherwise (`pkg/kubelet/apis/config/v1beta1/defaults.go`).
const DEFAULT_LOGS: LogLimits = LogLimits {
    file_bytes: 10 << 20,
    files: 5,
};
/// The flag and the field (1.27 and later) that name the endpoint.
pub const ENDPOINT_FLAG: &str = "container-runtime-endpoint";
/// See [`ENDPOINT_FLAG`].
pub const ENDPOINT_FIELD: &str = "containerRuntimeEndpoint";

/// The endpoint that a kubelet with this command line and this merged configuration names, as written: its last
/// flag, else its configuration; absent where nothing names one (dockershim, or the default of 1.27 and later).
pub fn named_endpoint(words: &[String], config: &Value) -> Option<String> {
    let flag = flags::value(words, ENDPOINT_FLAG);
    let field = || config.get(ENDPOINT_FIELD).and_then(Value::as_str);
    flag.filter(|flag| !flag.is_empty())
        .or_else(|| field().filter(|field| !field.is_empty()))
        .map(str::to_owned)
}

/// The file of `--config` with the drop-ins merged over it, as JSON merge patches.
fn config(kubelet: &Kubelet) -> Result<Value, SettingsError> {
    let files = kubelet.config.iter().chain(&kubelet.config_drop_ins);
    let texts = files.map(|file| (file.path.as_str(), file.text.as_str()));
    merged_config(texts)
}

/// Configuration files of a kubelet, each with its path, the later ones merged over the earlier ones as JSON merge
/// patches.
pub fn merged_config<'a>(files: impl Iterator<Item = (&'a str, &'a str)>) -> Result<Value, SettingsError> {
    let mut merged = Value::Null;
    for (path, text) in files {
        let patch = yaml::parse(text).map_err(|error| SettingsError::Config {
            path: path.to_owned(),
            error,
        })?;
        merge(&mut merged, patch);
    }
    Ok(merged)
}

fn merge(base: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *base = patch;
        return;
    };
    if !base.is_object() {
        *base = Value::Object(serde_json::Map::new());
    }
    if let Value::Object(base) = base {
        for (key, value) in patch {
            if value.is_null() {
                base.remove(&key);
            } else {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
    }
}

/// Which runtime serves a socket: one that was found there, or the one that is known for it; `/var/run` is `/run`.
fn runtime_at(endpoint: &str, runtimes: &[(Runtime, &HostPath)]) -> Option<Runtime> {
    let wanted = host_path::socket(endpoint);
    let found = runtimes
        .iter()
        .find(|(_, path)| host_path::socket(path.as_str()) == wanted);
    found
        .map(|(runtime, _)| *runtime)
        .or_else(|| Runtime::at(&wanted))
}

/// The endpoint when nothing is set (`pkg/kubelet/apis/config/v1beta1/defaults.go`, `cmd/kubelet/app/options`).
fn default_endpoint(version: &Version) -> &'static str {
    match version.minor {
        ..=23 => "unix:///var/run/dockershim.sock",
        24..=26 => "",
        _ => "unix:///run/containerd/containerd.sock",
    }
}

/// The sandbox image compiled in (`cmd/kubelet/app/options/container_runtime.go`).
fn default_sandbox_image(version: &Version) -> &'static str {
    match version.minor {
        ..=20 => "k8s.gcr.io/pause:3.2",
        21 => "k8s.gcr.io/pause:3.4.1",
        22 => "k8s.gcr.io/pause:3.5",
        23 => "k8s.gcr.io/pause:3.6",
        24 => "registry.k8s.io/pause:3.7",
        25 => "registry.k8s.io/pause:3.8",
        26..=30 => "registry.k8s.io/pause:3.9",
        _ => "registry.k8s.io/pause:3.10",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::{TextFile, UnitFacts};

    fn kubelet(version: &str, words: &[&str], config: &str, drop_in: &str) -> Kubelet {
        let file = |text: &str| TextFile::example("/var/lib/kubelet/config.yaml", text);
        Kubelet {
            unit: UnitFacts::default(),
            own_unit: None,
            command_line: std::iter::once(&"/usr/bin/kubelet")
                .chain(words)
                .map(|word| (*word).into())
                .collect(),
            version: version.into(),
            config: Some(file(config)),
            config_drop_ins: vec![file(drop_in)],
            instance_config: None,
            kubeconfig: None,
            docker_users: Vec::new(),
            static_pod_images: Vec::new(),
            pods: Vec::new(),
        }
    }

    #[test]
    fn the_endpoint_in_effect_decides_not_a_binary() {
        let runtime = |version, words: &[&str], config| {
            Settings::of(&kubelet(version, words, config, ""), &[])
                .unwrap()
                .runtime
        };
        let crio = "containerRuntimeEndpoint: unix:///var/run/crio/crio.sock\n";
        let remote = [
            "--container-runtime=remote",
            "--container-runtime-endpoint=/var/run/containerd/containerd.sock",
        ];
        assert_eq!(runtime("1.23.17", &[], crio), Some(Runtime::Dockershim));
        assert_eq!(
            runtime("1.23.17", &["--container-runtime-endpoint=unix:///x"], ""),
            Some(Runtime::Dockershim)
        );
        assert_eq!(runtime("1.23.17", &remote, ""), Some(Runtime::Containerd));
        assert_eq!(runtime("1.26.0", &[], crio), None, "the field exists from 1.27");
        assert_eq!(runtime("1.30.0", &[], crio), Some(Runtime::CriO));
        assert_eq!(runtime("1.30.0", &[], ""), Some(Runtime::Containerd));
        assert_eq!(
            runtime("1.30.0", &remote, crio),
            Some(Runtime::Containerd),
            "flags win"
        );
    }

    #[test]
    fn a_runtime_is_known_where_it_was_found() {
        let path = HostPath::new("/var/run/k8s/containerd.sock").unwrap();
        let found = [(Runtime::Containerd, &path)];
        let runtime = |endpoint, found: &[_]| {
            let config = format!("containerRuntimeEndpoint: {endpoint}\n");
            Settings::of(&kubelet("1.30.0", &[], &config, ""), found)
                .unwrap()
                .runtime
        };
        assert_eq!(
            runtime("unix:///run/k8s/containerd.sock", &found),
            Some(Runtime::Containerd)
        );
        assert_eq!(runtime("unix:///run/k8s/containerd.sock", &[]), None);
        assert_eq!(
            runtime("/run/cri-dockerd.sock", &found),
            Some(Runtime::CriDockerd)
        );
    }

    #[test]
    fn the_named_endpoint_is_the_flag_else_the_configuration() {
        let named = |words: &[&str], config| {
            Settings::of(&kubelet("1.36.3", words, config, ""), &[])
                .unwrap()
                .named_endpoint
        };
        let config = "containerRuntimeEndpoint: unix:///a\n";
        assert_eq!(named(&[], ""), None);
        assert_eq!(named(&[], "containerRuntimeEndpoint: \"\"\n"), None);
        assert_eq!(named(&[], config).as_deref(), Some("unix:///a"));
        let flag = ["--container-runtime-endpoint=unix:///b"];
        assert_eq!(named(&flag, config).as_deref(), Some("unix:///b"));
    }

    #[test]
    fn drop_ins_and_flags_win_over_the_file() {
        let driver = |words: &[&str], config, drop_in| {
            Settings::of(&kubelet("1.30.0", words, config, drop_in), &[])
                .unwrap()
                .cgroup_driver
        };
        assert_eq!(driver(&[], "", ""), "cgroupfs");
        assert_eq!(driver(&[], "cgroupDriver: systemd\n", ""), "systemd");
        assert_eq!(
            driver(&[], "cgroupDriver: systemd\n", "cgroupDriver: null\n"),
            "cgroupfs"
        );
        assert_eq!(
            driver(&["--cgroup-driver", "systemd"], "cgroupDriver: cgroupfs\n", ""),
            "systemd"
        );
    }
}
