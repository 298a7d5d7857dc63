//! The parts of a request that a `RuntimeMigration` and each of its `NodeMigration`s have in common.

use regex_lite::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    codes,
    finding::{Code, SUBJECT},
    host_path::HostPath,
    runtime::Runtime,
};

/// The runtime to move to, and how it is set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// The runtime to move to. This version moves nodes to `containerd`, `cri-dockerd` and `cri-o`.
    pub runtime: Runtime,
    /// The version that must be found: a version (`1.6.20`) or a semver range (`>=1.6, <2`). Any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Where the runtime comes from.
    #[serde(default)]
    pub from: Origin,
    /// The sandbox (pause) image under the target. When absent, the one that the kubelet uses now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_image: Option<String>,
    /// The cgroup driver of the target.
    #[serde(default)]
    pub cgroup_driver: CgroupDriverChoice,
    /// The kubelet keeps as much of each container's log as Docker does (`max-size` and `max-file` of its `log-opts`), by
    /// `containerLogMaxSize` and `containerLogMaxFiles`, unless it has limits of its own. Without it, the kubelet's limits stay.
    #[serde(default)]
    pub keep_log_limits: bool,
}

/// The runtime to leave, and what happens to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Source {
    /// Keep Docker running for containers that are not Kubernetes'. Without it, Docker is stopped, disabled and masked.
    pub keep: bool,
}

/// Where the target runtime's files come from; exactly one member is set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Origin {
    /// Use the runtime that is already installed on the node.
    Preinstalled(Preinstalled),
    /// Install a package of the node's distribution, from the repositories that the node is set up with: by apt on
    /// Debian and Ubuntu, by dnf on Fedora, RHEL 8 and later and what is built from them, and Amazon Linux 2023. RPM
    /// packages need a signature by a key that the node has imported already (`rpm --import`).
    Package(PackageOrigin),
    /// Unpack an archive as its project releases it, next to what is installed.
    Archive(ArchiveOrigin),
}

impl Default for Origin {
    fn default() -> Self {
        Self::Preinstalled(Preinstalled {})
    }
}

/// The target runtime is already installed on the node. It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Preinstalled {}

/// A package of the node's distribution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PackageOrigin {
    /// Its name (`containerd.io`, `containerd`). `target.version` must be a whole version then, without what the
    /// distribution adds to it. The transaction is refused if it would remove, replace or upgrade anything.
    #[schemars(length(max = 128), regex(pattern = PACKAGE))]
    pub name: String,
}

/// An archive in the layout that its project releases: `containerd-2.4.2-linux-amd64.tar.gz` with
/// `bin/containerd`, `cri-dockerd-0.4.3.amd64.tgz` with `cri-dockerd/cri-dockerd`. Its version is
/// `target.version` where that is a whole one, else it is read from the file's name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArchiveOrigin {
    /// Where the node fetches it: an `https://` URL, or `file://` with an absolute path on every node.
    #[schemars(length(max = 2048), regex(pattern = URL))]
    pub url: String,
    /// SHA-256 of the archive, 64 hex digits. Nothing of an archive with another digest is unpacked.
    #[schemars(regex(pattern = SHA256))]
    pub sha256: String,
}

/// What the API server accepts as the name of a package.
const PACKAGE: &str = "^[A-Za-z0-9][A-Za-z0-9+._-]*$";
/// What the API server accepts as the URL of an archive.
const URL: &str = "^(https://[^/\\s]+/\\S+|file:///\\S+)$";
/// What the API server accepts as a SHA-256.
const SHA256: &str = "^[0-9A-Fa-f]{64}$";

/// Whether a text is what the API server accepts by this pattern.
fn matches(pattern: &str, text: &str) -> bool {
    Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

impl PackageOrigin {
    /// Whether the name is one that a package can have.
    pub fn is_valid(&self) -> bool {
        self.name.len() <= 128 && matches(PACKAGE, &self.name)
    }
}

impl ArchiveOrigin {
    /// Whether the URL is one that can be fetched.
    pub fn has_valid_url(&self) -> bool {
        let path = self.url.strip_prefix("file://");
        let is_path = path.is_none_or(|path| HostPath::new(path).is_ok());
        self.url.len() <= 2048 && matches(URL, &self.url) && is_path
    }

    /// The last part of the URL's path: the name that upstream gave to the file.
    pub fn file_name(&self) -> &str {
        let path = self.url.split(['?', '#']).next().unwrap_or_default();
        path.rsplit('/').next().unwrap_or_default()
    }
}

/// Which cgroup driver the target runtime uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CgroupDriverChoice {
    /// What the kubelet uses now.
    #[default]
    Auto,
    /// `systemd`, whatever the kubelet uses; a mismatch is a blocking finding.
    Systemd,
    /// `cgroupfs`, whatever the kubelet uses; a mismatch is a blocking finding.
    Cgroupfs,
}

/// How the pods of a node are moved away before the switch; the fields have the meaning of `kubectl drain`'s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Drain {
    /// How pods leave the node.
    pub mode: DrainMode,
    /// How long to keep trying before the node is uncordoned and the migration says `DrainTimedOut` (`15m`); at least
    /// `1s`.
    #[schemars(with = "String", regex(pattern = DURATION), length(max = 32))]
    pub timeout: GoDuration,
    /// Grace period of the pods that are evicted, in seconds. It replaces `terminationGracePeriodSeconds`; -1 keeps the
    /// pod's own value. It does not change the grace period of pods that stay on the node.
    #[schemars(range(min = -1, max = 2_592_000))]
    pub grace_period: i64,
    /// The longest grace period of a pod that stays on the node with `InPlace` (`10m`). A pod whose own
    /// `terminationGracePeriodSeconds` is shorter keeps its own.
    #[schemars(with = "String", regex(pattern = DURATION), length(max = 32))]
    pub grace_period_limit: GoDuration,
    /// Evict pods with emptyDir volumes, whose data is lost.
    pub delete_empty_dir_data: bool,
    /// Evict pods that no controller will start again.
    pub force: bool,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            mode: DrainMode::Auto,
            timeout: GoDuration::from_secs(15 * 60),
            grace_period: -1,
            grace_period_limit: GoDuration::from_secs(10 * 60),
            delete_empty_dir_data: false,
            force: false,
        }
    }
}

/// How pods leave a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DrainMode {
    /// `Live` where a runtime is upgraded in place, else `Evict`.
    #[default]
    Auto,
    /// Through the Eviction API, which honours PodDisruptionBudgets.
    Evict,
    /// They do not: they end with the source and start again on the same node under the target, their volumes as
    /// they were. Nothing is evicted, so no PodDisruptionBudget is asked, and no preStop hook is run. Chosen without being
    /// asked for where there is no other node to go to. Where a runtime is upgraded in place, it is `Live`: no pod has to stop.
    InPlace,
    /// They do not, and they are not stopped: the node is cordoned for a moment, and its runtime is replaced by another
    /// version below its containers. Only where source and target are the same runtime.
    Live,
}

impl DrainMode {
    /// What it means for a node whose runtime is upgraded in place, or replaced by another one.
    #[must_use]
    pub const fn of(self, upgrades: bool) -> Self {
        match self {
            Self::Auto | Self::InPlace if upgrades => Self::Live,
            Self::Auto => Self::Evict,
            asked => asked,
        }
    }
}

/// What happens to images in the source's store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Images {
    /// Which images are carried into the target's store. Those without which the node could not come back
    /// (agent, sandbox, static pods, DaemonSets) are always carried.
    pub transfer: Transfer,
}

/// Which images are carried into the target's store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Transfer {
    /// Those that a pod's container on the node uses.
    #[default]
    InUse,
    /// Every image that has a name.
    All,
    /// Only those without which the node could not come back.
    None,
}

/// Which findings the user accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Preflight {
    /// Codes of blocking findings that do not block (`DockerSocketMounted`). Of a code that stands for many things one can be
    /// named (`DockerSettingNotCarried/userns-remap`).
    #[schemars(schema_with = "acceptable_codes")]
    pub allow: Vec<String>,
}

fn acceptable_codes(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let entry = |code: Code| match code.has_subjects {
        true => format!("{}(/{SUBJECT})?", code.name),
        false => code.name.to_owned(),
    };
    let entries: Vec<String> = codes::acceptable_codes().map(entry).collect();
    let pattern = format!("^({})$", entries.join("|"));
    schemars::json_schema!({
        "type": "array",
        "maxItems": 48,
        "items": { "type": "string", "maxLength": 72, "pattern": pattern },
    })
}

/// Most digests in `approvedPlans`. Every NodeMigration has all of them and must stay under 256 KiB.
const APPROVED_PLANS: usize = 800;

/// The schema of `approvedPlans`.
pub(crate) fn approved_plans(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": APPROVED_PLANS,
        "items": { "type": "string", "maxLength": 71, "pattern": "^sha256:[0-9a-f]{64}$" },
    })
}

/// When and how a node rolls back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rollback {
    /// Roll back when a step fails. When false, a failed node stays as it is for a person to look at; the
    /// dead-man timer works either way.
    pub automatic: bool,
    /// How long after the kubelet's start under the target a switch must be confirmed (`5m`); at least `30s`.
    #[schemars(with = "String", regex(pattern = DURATION), length(max = 32))]
    pub confirm_within: GoDuration,
    /// How long a confirmed upgrade in place stays uncommitted (`24h`). Meanwhile new pods start on the old shim, and
    /// `transship node rollback` on the node loses no pod. The node counts as done, its agent leaves, and the node commits by
    /// itself. Only time in which the node runs counts. `0s` commits at once. Refused where the pods move to another runtime.
    #[schemars(with = "String", regex(pattern = DURATION), length(max = 32))]
    pub soak: GoDuration,
}

impl Default for Rollback {
    fn default() -> Self {
        Self {
            automatic: true,
            confirm_within: GoDuration::from_secs(5 * 60),
            soak: GoDuration::from_secs(0),
        }
    }
}

/// What the API server accepts as a [`GoDuration`]; a text that passes can always be parsed.
const DURATION: &str = "^([0-9]{1,6}[hms]){1,3}$";

/// A duration written as Go does (`1h30m`, `90s`), in steps of a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(std::time::Duration);

impl GoDuration {
    /// A duration of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(std::time::Duration::from_secs(seconds))
    }

    /// The duration as the standard library's type.
    pub const fn get(self) -> std::time::Duration {
        self.0
    }

    /// Whether a pod that has `grace_secs` seconds to stop may need longer.
    pub fn is_shorter_than(self, grace_secs: i64) -> bool {
        u64::try_from(grace_secs).is_ok_and(|grace| grace > self.0.as_secs())
    }
}

/// A text that is no duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration such as 90s, 5m or 1h30m")]
pub struct NotADuration(String);

impl std::str::FromStr for GoDuration {
    type Err = NotADuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotADuration(text.to_owned());
        let (mut rest, mut seconds) = (text, 0u64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            let factor = match rest.as_bytes()[digits] {
                b'h' => 3600,
                b'm' => 60,
                b's' => 1,
                _ => return Err(wrong()),
            };
            seconds = number
                .checked_mul(factor)
                .and_then(|n| seconds.checked_add(n))
                .ok_or_else(wrong)?;
            rest = &rest[digits + 1..];
        }
        if text.is_empty() {
            Err(wrong())
        } else {
            Ok(Self::from_secs(seconds))
        }
    }
}

impl std::fmt::Display for GoDuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let total = self.0.as_secs();
        let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if seconds > 0 || total == 0 {
            write!(f, "{seconds}s")?;
        }
        Ok(())
    }
}

impl Serialize for GoDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}
