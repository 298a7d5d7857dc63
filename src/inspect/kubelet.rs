//! The kubelet: its unit, the flags of the running process, and the files that these name.

use serde::Deserialize;

use super::{Host, Notes};
use crate::{
    edit::{parse, yaml},
    host::files::Files,
    plan::{
        facts::{INSTANCE_CONFIG, Kubelet, TextFile, UnitFacts},
        findings::kubelet::starts_containers,
        host_path::{self, HostPath},
        kubelet_arguments,
    },
    runtime::kubelet::{command_line, flag},
};

/// The arguments of the running kubelet; of its unit, when it does not run.
#[derive(Debug)]
pub(super) struct Flags {
    /// The process's arguments; empty when it does not run.
    pub(super) running: Vec<String>,
    declared: Vec<String>,
}

impl Flags {
    pub(super) fn of(files: &Files, unit: &UnitFacts, notes: &Notes) -> Self {
        let running = match unit.main_pid {
            0 => Vec::new(),
            pid => notes.keep(command_line(files, pid)).unwrap_or_default(),
        };
        Self {
            running,
            declared: kubelet_arguments::command(unit),
        }
    }

    /// The value of a flag.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        flag(
            if self.running.is_empty() {
                &self.declared
            } else {
                &self.running
            },
            name,
        )
    }

    /// The value of a flag that is a path; one that is relative or holds a variable is none.
    fn path(&self, name: &str) -> Option<HostPath> {
        HostPath::new(host_path::plain(self.get(name)?)).ok()
    }
}

/// Looks at the kubelet; nothing when none runs and there is no unit.
pub(super) async fn inspect(host: &Host, unit: UnitFacts, flags: &Flags, notes: &Notes) -> Option<Kubelet> {
    if unit.load == "not-found" {
        return None;
    }
    let files = &host.files;
    let program = flags.running.first().or(unit.exec_start.first());
    // A container's client would report its own version.
    let program = program.filter(|program| !starts_containers(program));
    let version = match program {
        Some(program) if host.live => notes.output(program, &["--version"]).await.unwrap_or_default(),
        _ => String::new(),
    };
    // `Kubernetes v1.23.17`
    let version = version
        .trim()
        .rsplit(' ')
        .next()
        .unwrap_or_default()
        .trim_start_matches('v')
        .to_owned();
    let config = flags
        .path("config")
        .and_then(|path| notes.text(files, path.as_str()));
    let manifests = flags
        .get("pod-manifest-path")
        .map(str::to_owned)
        .or_else(|| config.as_ref().and_then(|config| static_pod_path(&config.text)));
    Some(Kubelet {
        command_line: flags.running.clone(),
        version,
        config_drop_ins: flags
            .path("config-dir")
            .map(|path| drop_ins(files, &path, notes))
            .unwrap_or_default(),
        instance_config: notes.text(files, INSTANCE_CONFIG),
        kubeconfig: flags.path("kubeconfig"),
        static_pod_images: manifests
            .map(|path| static_pod_images(files, &path, notes))
            .unwrap_or_default(),
        config,
        unit,
    })
}

fn drop_ins(files: &Files, directory: &HostPath, notes: &Notes) -> Vec<TextFile> {
    let names = notes
        .list(files, directory.as_str())
        .into_iter()
        .filter(|name| name.ends_with(".conf"));
    names
        .filter_map(|name| notes.text(files, &format!("{directory}/{name}")))
        .collect()
}

fn static_pod_path(config: &str) -> Option<String> {
    // A configuration that is not YAML is the planner's to report.
    yaml::get(config, "staticPodPath")
        .ok()?
        .filter(|path| !path.is_empty())
}

/// What of a pod names images.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Manifest {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    init_containers: Vec<Container>,
    containers: Vec<Container>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    image: String,
}

/// The images that static pods name. `path` is a directory, or one manifest; the kubelet skips hidden files.
fn static_pod_images(files: &Files, path: &str, notes: &Notes) -> Vec<String> {
    let mut images = Vec::new();
    let path = host_path::plain(path);
    for name in notes
        .list(files, &path)
        .iter()
        .filter(|name| !name.starts_with('.'))
    {
        let Some(file) = notes.text(files, &format!("{path}/{name}")) else {
            continue;
        };
        match parse::lenient_yaml::<Manifest>(&file.text) {
            Ok(manifest) => {
                let Spec {
                    init_containers,
                    containers,
                } = manifest.unwrap_or_default().spec;
                let all = init_containers.into_iter().chain(containers);
                images.extend(all.map(|one| one.image));
            }
            Err(error) => notes.add(format!("static pod {}: {error}", file.path)),
        }
    }
    images.retain(|image| !image.is_empty());
    images.sort();
    images.dedup();
    images
}
