//! The kubelet: its unit, the flags of the running process, and the files that these name.

use std::{collections::BTreeSet, io};

use serde::Deserialize;

use super::{
    notes::{Host, Notes},
    rivals,
};
use crate::{
    edit::{flags, parse, unit_file, yaml},
    host::files::Files,
    plan::{
        facts::{INSTANCE_CONFIG, Kubelet, KubeletPod, TextFile, UnitFacts},
        host_path::{self, HostPath},
        kubelet_arguments,
        runtime::starts_containers,
    },
    runtime::kubelet::command_line,
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
        flags::value(
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
        pods: pods(files, flags.get("root-dir").unwrap_or(ROOT), notes),
        config,
        docker_users: docker_users(files, &unit, notes),
        own_unit: (unit.own_file()).and_then(|path| notes.text(files, path.as_str())),
        unit,
    })
}

/// What systemd runs beside the program of a unit when it starts it.
const BESIDE: [&str; 3] = ["ExecCondition", "ExecStartPre", "ExecStartPost"];

/// Commands that systemd runs before and after the kubelet's own, and that use Docker themselves or in a script.
fn docker_users(files: &Files, unit: &UnitFacts, notes: &Notes) -> Vec<String> {
    let fragment = unit.fragment.as_ref();
    let fragment = fragment.and_then(|path| notes.text(files, path.as_str()));
    let mut commands: Vec<(&str, String)> = Vec::new();
    for file in fragment.iter().chain(&unit.drop_ins) {
        for (key, value) in unit_file::settings(&file.text) {
            let Some(key) = BESIDE.into_iter().find(|beside| *beside == key) else {
                continue;
            };
            if value.is_empty() {
                commands.retain(|(other, _)| *other != key);
            } else {
                commands.push((key, value));
            }
        }
    }
    let used = commands.into_iter().filter_map(|(key, value)| {
        let words = unit_file::words(&value);
        let program = words.first()?;
        let is_docker = program.rsplit('/').next() == Some("docker");
        let in_script = || {
            words
                .iter()
                .any(|word| rivals::text(files, word).is_some_and(|text| uses_docker(&text)))
        };
        // A client that may fail does not keep the kubelet from starting; a script that waits does.
        let may_fail = is_docker && value.starts_with('-');
        let uses = words.iter().any(|word| uses_docker(word)) || in_script();
        (uses && !may_fail).then(|| format!("{key}={program}"))
    });
    used.collect()
}

/// Whether a command or a script has Docker's client, its socket or its units in it.
fn uses_docker(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let separates = |c: char| c.is_whitespace() || "\"'`;&|()$={}".contains(c);
    lines.any(|line| {
        let mut words = line.split(separates);
        words.any(|word| {
            matches!(word, "docker" | "docker.service" | "docker.socket")
                || word.ends_with("bin/docker")
                || word.ends_with("/docker.sock")
        })
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

/// The kubelet's directory, where `--root-dir` names no other.
const ROOT: &str = "/var/lib/kubelet";
/// Directories `NAMESPACE_NAME_UID` with the logs of pods.
const POD_LOGS: &str = "/var/log/pods";

fn directory_of_pods(root: &str) -> String {
    format!("{}/pods", host_path::plain(root))
}

/// The pods that the kubelet has directories of. It makes `containers/NAME` below it before it creates the container
/// (`GenerateRunContainerOptions`,
/// `pkg/kubelet/kubelet_pods.go`), and keeps it for as long as the pod.
fn pods(files: &Files, root: &str, notes: &Notes) -> Vec<KubeletPod> {
    let pods = directory_of_pods(root);
    let logs = notes.list(files, POD_LOGS);
    let named = |uid: &str| {
        let mut names = logs
            .iter()
            .filter_map(|log| log.strip_suffix(uid)?.strip_suffix('_'));
        Some(names.next()?.replacen('_', "/", 1))
    };
    let found = notes.list(files, &pods).into_iter().map(|uid| KubeletPod {
        name: named(&uid),
        containers: notes.list(files, &format!("{pods}/{uid}/containers")),
        uid,
    });
    found.collect()
}

/// The UIDs of the pods that this kubelet has directories of now. It removes that of a pod that is gone, once its sources have told it
/// all of their pods (`HandlePodCleanups`, `cleanupOrphanedPodDirs`).
///
/// # Errors
/// When they cannot be listed.
pub fn known_pods(files: &Files, kubelet: &Kubelet) -> io::Result<BTreeSet<String>> {
    let declared = kubelet_arguments::command(&kubelet.unit);
    let words = if kubelet.command_line.is_empty() {
        &declared
    } else {
        &kubelet.command_line
    };
    let root = flags::value(words, "root-dir").unwrap_or(ROOT);
    let pods = HostPath::new(directory_of_pods(root)).map_err(io::Error::other)?;
    Ok(files.list(&pods)?.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pods_of_a_kubelet_are_its_directories() {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "data/kubelet/pods/a-1/containers/proxy",
            "data/kubelet/pods/b-2",
            "var/log/pods/kube-system_kube-proxy-x_a-1/proxy",
        ] {
            std::fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let notes = Notes::default();
        let found = pods(&Files::new(root.path()), "/data/kubelet/", &notes);
        let found: Vec<_> = found
            .iter()
            .map(|pod| (&*pod.uid, pod.name.as_deref(), pod.containers.join(",")))
            .collect();
        assert_eq!(
            found,
            [
                ("a-1", Some("kube-system/kube-proxy-x"), "proxy".to_owned()),
                ("b-2", None, String::new())
            ]
        );
        assert_eq!(pods(&Files::new(root.path()), ROOT, &notes), []);
        assert!(notes.0.take().is_empty());
    }

    /// Units of Gardener and others fetched the kubelet itself out of an image.
    #[test]
    fn commands_beside_the_kubelet_that_use_docker_are_found() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = |text: &str| HostPath::new(text).unwrap();
        let at = path("/etc/systemd/system/kubelet.service");
        let unit = "[Service]\nExecStartPre=/bin/docker run --rm -v /opt/bin:/opt/bin img \\\n  cp /kubelet /opt/bin\n\
            ExecStartPre=-/usr/bin/docker rm -f kubelet\nExecStartPre=/bin/mkdir -p /etc/docker /var/lib/docker\n\
            ExecStartPre=/bin/sh -c 'until docker info; do sleep 1; done'\n\
            ExecStartPost=-/opt/bin/wait.sh --for 60\nExecCondition=/usr/bin/true\nExecStart=/usr/bin/kubelet --docker=x\n";
        let script = "#!/bin/sh\n# not docker\ncurl --unix-socket /var/run/docker.sock http://d/info\n";
        files.write(&at, unit.as_bytes(), 0o644).unwrap();
        files
            .write(&path("/opt/bin/wait.sh"), script.as_bytes(), 0o755)
            .unwrap();
        let mut unit = UnitFacts {
            fragment: Some(at),
            ..UnitFacts::default()
        };
        let notes = Notes::default();
        assert_eq!(
            docker_users(&files, &unit, &notes),
            [
                "ExecStartPre=/bin/docker",
                "ExecStartPre=/bin/sh",
                "ExecStartPost=/opt/bin/wait.sh"
            ]
        );
        // An empty value takes back what was read before.
        let drop_in = path("/etc/systemd/system/kubelet.service.d/10.conf");
        files
            .write(
                &drop_in,
                b"[Service]\nExecStartPre=\nExecStartPost=\nExecStartPre=/bin/true\n",
                0o644,
            )
            .unwrap();
        unit.drop_ins.extend(notes.text(&files, drop_in.as_str()));
        assert_eq!(docker_users(&files, &unit, &notes), [""; 0]);
        assert!(notes.0.take().is_empty());
    }
}
