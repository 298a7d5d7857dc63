//! The runtimes that Docker is set up with, other than its own runc: `runtimes` of `daemon.json` and `--add-runtime`.
//!
//! A runtime is a program with runc's command line, or, from 23.0 on, a shim of containerd by its type (`runtimeType`;
//! `daemon/runtime_unix.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{facts::UnitFacts, kubelet_arguments, paths::RUNC_SHIM};
use crate::edit::flags;

/// A runtime of Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DockerRuntime {
    /// Its name: the handler of a `RuntimeClass` under cri-dockerd.
    pub name: String,
    /// Its program as it is written: a path, or a name in `PATH`. Empty where a shim is named.
    pub program: String,
    /// What the program gets in front of its arguments.
    pub arguments: Vec<String>,
    /// The type of its shim (`io.containerd.kata.v2`).
    pub shim: Option<String>,
    /// Options of the shim that are texts.
    pub options: BTreeMap<String, String>,
    /// Whether the shim has options that are not texts.
    pub has_other_options: bool,
}

/// gVisor's program, which has runc's command line.
pub const RUNSC: &str = "runsc";
/// The type of its shim, which starts that program (`shim/v1` of gVisor).
pub const RUNSC_SHIM: &str = "io.containerd.runsc.v1";

/// The type of the shim for programs that containerd cannot start in runc's place.
const SHIMS: [(&str, &str); 2] = [(RUNSC, RUNSC_SHIM), ("kata-runtime", "io.containerd.kata.v2")];

/// The type of the shim that containerd needs for a program, if it is another one than runc's.
pub fn own_shim(program: &str) -> Option<&'static str> {
    let name = program.rsplit('/').next().unwrap_or_default();
    let known = SHIMS.iter().find(|(program, _)| *program == name);
    known.map(|(_, shim)| *shim)
}

impl DockerRuntime {
    /// A runtime that is named by the type of its shim alone, as `default-runtime` may be.
    pub fn of_shim(kind: &str) -> Self {
        Self {
            name: kind.to_owned(),
            shim: Some(kind.to_owned()),
            ..Self::default()
        }
    }

    /// The type of the shim that containerd needs for it.
    pub fn kind(&self) -> &str {
        let known = || own_shim(&self.program).unwrap_or(RUNC_SHIM);
        self.shim.as_deref().unwrap_or_else(known)
    }

    /// The program that a runtime of gVisor's is for those who call it themselves.
    pub fn runsc(&self) -> Option<String> {
        let named = Some(&self.program).filter(|program| !program.is_empty());
        (self.kind() == RUNSC_SHIM).then(|| named.cloned().unwrap_or_else(|| RUNSC.to_owned()))
    }

    /// What must be on the node under containerd: the shim, or the program in runc's place; `None` for runc itself, and for
    /// a shim that is named by its path, which has no type.
    pub fn needs(&self) -> Option<String> {
        match (self.kind(), self.options.get("BinaryName")) {
            (RUNC_SHIM, Some(program)) => Some(program.clone()),
            (RUNC_SHIM, None) => Some(self.program.clone()).filter(|program| !program.is_empty()),
            (kind, _) => (!kind.starts_with('/')).then(|| shim_program(kind)),
        }
    }
}

/// The type of a shim by its program (`/opt/kata/bin/containerd-shim-kata-v2`).
pub fn shim_type(program: &str) -> Option<String> {
    let name = program.rsplit('/').next()?.strip_prefix("containerd-shim-")?;
    let (name, version) = name.rsplit_once('-')?;
    Some(format!("io.containerd.{name}.{version}"))
}

/// The program of a type of shim (`runtime/v2/shim/util.go` of containerd).
pub fn shim_program(kind: &str) -> String {
    let mut parts = kind.rsplit('.');
    let version = parts.next().unwrap_or_default();
    format!("containerd-shim-{}-{version}", parts.next().unwrap_or_default())
}

/// Whether a default runtime is Docker's own runc, which Red Hat's Docker 1.13 calls `docker-runc`.
pub fn is_runc(name: &str) -> bool {
    matches!(
        name,
        "" | "runc"
            | "docker-runc"
            | "io.containerd.runc.v2"
            | "io.containerd.runc.v1"
            | "io.containerd.runtime.v1.linux"
    )
}

/// The runtimes beside runc, in the order of their names.
pub fn configured(service: &UnitFacts, daemon: &Map<String, Value>) -> Vec<DockerRuntime> {
    let mut found = BTreeMap::new();
    for (name, value) in daemon
        .get("runtimes")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        found.insert(name.clone(), in_file(name, value));
    }
    let command = kubelet_arguments::command(service);
    for flag in flags::values(&command, "add-runtime") {
        if let Some((name, program)) = flag.split_once('=') {
            let runtime = DockerRuntime {
                name: name.to_owned(),
                program: program.to_owned(),
                ..DockerRuntime::default()
            };
            found.insert(name.to_owned(), runtime);
        }
    }
    found
        .into_values()
        .filter(|runtime| !is_runc(&runtime.name))
        .collect()
}

fn in_file(name: &str, value: &Value) -> DockerRuntime {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let arguments = value.get("runtimeArgs").and_then(Value::as_array);
    let options = value.get("options").and_then(Value::as_object);
    // containerd's planner gives runc the cgroup driver of the kubelet.
    let options = options
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key != "SystemdCgroup");
    let all = options.clone().count();
    let texts = options;
    let texts = texts.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    let options_of_text: BTreeMap<String, String> = texts.collect();
    DockerRuntime {
        name: name.to_owned(),
        program: text("path").unwrap_or_default().to_owned(),
        arguments: (arguments.into_iter().flatten())
            .filter_map(|argument| argument.as_str().map(str::to_owned))
            .collect(),
        shim: text("runtimeType")
            .filter(|kind| !kind.is_empty())
            .map(str::to_owned),
        has_other_options: all > options_of_text.len(),
        options: options_of_text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runtimes_are_read_from_the_file_and_from_flags() {
        let service = UnitFacts {
            exec_start: [
                "/usr/bin/dockerd",
                "--add-runtime",
                "old=/opt/old",
                "--add-runtime=runsc=runsc",
            ]
            .map(str::to_owned)
            .into(),
            ..UnitFacts::default()
        };
        let daemon = serde_json::json!({ "runtimes": {
            "runc": { "path": "runc" },
            "nvidia": { "path": "nvidia-container-runtime", "runtimeArgs": ["--debug"] },
            "kata": { "runtimeType": "io.containerd.kata.v2", "options": { "ConfigPath": "/etc/kata.toml" } },
            "crun": { "runtimeType": "io.containerd.runc.v2", "options": { "BinaryName": "/usr/bin/crun", "NoPivotRoot": true, "SystemdCgroup": true } },
        } });
        let found = configured(&service, daemon.as_object().unwrap());
        let seen: Vec<(&str, &str, String)> = found
            .iter()
            .map(|runtime| (runtime.name.as_str(), runtime.kind(), runtime.needs().unwrap()))
            .collect();
        let of = |name, kind, needs: &str| (name, kind, needs.to_owned());
        assert_eq!(
            seen,
            [
                of("crun", RUNC_SHIM, "/usr/bin/crun"),
                of("kata", "io.containerd.kata.v2", "containerd-shim-kata-v2"),
                of("nvidia", RUNC_SHIM, "nvidia-container-runtime"),
                of("old", RUNC_SHIM, "/opt/old"),
                of("runsc", "io.containerd.runsc.v1", "containerd-shim-runsc-v1"),
            ]
        );
        assert_eq!(found[2].arguments, ["--debug"]);
        assert_eq!(found.iter().filter(|one| one.has_other_options).count(), 1);
        assert_eq!(
            shim_type("/opt/kata/bin/containerd-shim-kata-v2").as_deref(),
            Some("io.containerd.kata.v2")
        );
        assert_eq!(shim_type("/usr/bin/crun"), None);
        let alone = DockerRuntime::of_shim("io.containerd.kata.v2");
        assert_eq!(alone.needs().as_deref(), Some("containerd-shim-kata-v2"));
        for nothing in ["io.containerd.runc.v2", "/opt/kata/bin/containerd-shim-kata-v2"] {
            assert_eq!(DockerRuntime::of_shim(nothing).needs(), None);
        }
    }
}
