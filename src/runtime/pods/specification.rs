//! What a runtime keeps of each container and sandbox until the next boot: its OCI runtime specification (`config.json`), in a
//! directory named by its id. Pods can be made out of these without the runtime.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;

use super::{Container, Pod, Wave};
use crate::{edit::parse, host::files::Files, plan::host_path::HostPath};

/// The part of a specification that counts.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Specification {
    annotations: BTreeMap<String, Value>,
    linux: Linux,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Linux {
    namespaces: Vec<Namespace>,
}

/// A namespace of a container.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Namespace {
    /// `network`, `ipc`, …
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The file that holds it; absent for one of the container alone.
    pub(super) path: Option<String>,
}

impl Specification {
    /// The specification in a file; nothing where there is none, or it cannot be read.
    pub(super) fn read(files: &Files, path: &HostPath) -> Option<Self> {
        let text = files.read_text(path).ok()??;
        parse::json(text).ok()
    }

    /// An annotation that is a text.
    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name)?.as_str()
    }

    /// Its namespaces.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        self.linux.namespaces.iter()
    }
}

/// Directories with what a runtime keeps: the `usual` one, and those that are known by this `part` of the path of a mount in them.
pub(super) fn directories(files: &Files, usual: &str, part: &str) -> BTreeSet<HostPath> {
    let mounts = HostPath::new("/proc/self/mountinfo").map(|path| files.read_text(&path));
    let mounts = mounts.ok().and_then(Result::ok).flatten().unwrap_or_default();
    let seen = mounts.lines().filter_map(|line| {
        let at = line.split(' ').nth(4)?;
        let (root, _) = at.split_once(part)?;
        Some(format!("{root}{}", part.trim_end_matches('/')))
    });
    [usual.to_owned()]
        .into_iter()
        .chain(seen)
        .filter_map(|path| HostPath::new(path).ok())
        .collect()
}

/// A container or a sandbox, as a runtime's specification of it says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// The id of its sandbox; its own for a sandbox.
    pub(super) sandbox: &'a str,
    /// Namespace of its pod.
    pub(super) namespace: &'a str,
    /// Name of its pod.
    pub(super) name: &'a str,
    /// It is in the host's network.
    pub(super) host_network: bool,
    /// Seconds between the stop signal and SIGKILL.
    pub(super) grace_secs: u32,
}

/// The pods of these, by their sandboxes. `running` are the processes of those that have some.
pub(super) fn pods<'a>(
    kept: impl Iterator<Item = Kept<'a>>,
    running: &BTreeMap<String, Vec<u32>>,
) -> BTreeMap<String, Pod> {
    let mut pods = BTreeMap::<String, Pod>::new();
    for one in kept {
        let pod = pods.entry(one.sandbox.to_owned()).or_insert_with(|| Pod {
            sandbox: one.sandbox.to_owned(),
            name: String::new(),
            wave: Wave::Ordinary,
            host_ports: false,
            containers: Vec::new(),
        });
        let is_sandbox = one.id == one.sandbox;
        if !is_sandbox {
            pod.containers.push(Container {
                id: one.id.to_owned(),
                running: running.contains_key(one.id),
                frozen: false,
                log_link: None,
                grace_secs: one.grace_secs,
            });
        }
        if pod.name.is_empty() || is_sandbox {
            pod.name = format!("{}/{}", one.namespace, one.name);
            pod.wave = Wave::of(one.host_network, one.namespace, one.name);
        }
    }
    pods
}
