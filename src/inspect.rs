//! Reads a host into [`Facts`]. Changes nothing but the node's own key; what cannot be read is listed in [`Facts::unreadable`] and is never
//! a failure. Everything that waits for somebody waits at the same time.
//!
//! - `units`: units as systemd describes them.
//! - `kubelet`, `docker`, `containerd`, `cri_dockerd`: the programs.
//! - `cri`: what a CRI says of itself and holds.
//! - `network`, `disks`, `registries`, `prerequisites`, `system`: CNI, file systems, certificates, the kernel, the rest.
//! - `rivals`: who else acts on the runtimes.

mod containerd;
mod cri;
mod cri_dockerd;
mod disks;
mod docker;
mod kubelet;
mod network;
mod prerequisites;
mod registries;
mod rivals;
mod system;
mod units;

use std::{cell::RefCell, time::Duration};

use crate::{
    host::{
        command::{self, CommandError},
        files::Files,
    },
    plan::{
        digest::Digest,
        document::{DIGEST_KEY_FILE, STATE},
        facts::{Facts, MaybeFile, Store, TextFile},
        host_path::HostPath,
        kubelet_arguments::DROP_IN,
        paths::{
            CONTAINERD_CONFIG, CONTAINERD_DROP_IN, CONTAINERD_ENVIRONMENT, CRI_DOCKERD_DROP_IN, CRICTL,
            HOLD_DROP_IN,
        },
    },
};

/// How long a program may take to tell its version or its configuration.
const PROGRAM: Duration = Duration::from_secs(10);

/// The host to look at.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its files.
    pub files: Files,
    /// Whether it is the one that this process runs on: only its systemd can be asked, and its programs started.
    pub live: bool,
}

/// Looks at a host. The attempts of Transship itself are added by whoever knows journals.
pub async fn inspect(host: &Host) -> Facts {
    let (files, notes) = (&host.files, &Notes::default());
    let names: Vec<String> = [
        "kubelet.service",
        "docker.service",
        "docker.socket",
        "containerd.service",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(cri_dockerd::units())
    .chain(rivals::units())
    .collect();
    let mut units = if host.live {
        units::Units::ask(files, &names, notes).await
    } else {
        notes.add("systemd was not asked: it is another host's".to_owned());
        units::Units::default()
    };
    let unit = units.take("kubelet.service");
    let flags = kubelet::Flags::of(files, &unit, notes);
    let (docker_service, docker_socket) = (units.take("docker.service"), units.take("docker.socket"));
    let containerd_service = units.take("containerd.service");
    let snap = units.take(rivals::SNAP);
    let (kubelet, mut docker, mut containerd, cri_dockerd) = tokio::join!(
        kubelet::inspect(host, unit, &flags, notes),
        docker::inspect(files, [docker_service, docker_socket, snap], &flags, notes),
        containerd::inspect(host, containerd_service, notes),
        cri_dockerd::inspect(host, &mut units, notes),
    );
    let engine = docker.as_mut().and_then(|docker| docker.engine.as_mut());
    let engine = engine.map(|engine| &mut engine.store);
    let cri = containerd
        .as_mut()
        .and_then(|containerd| containerd.store.as_mut());
    for store in engine.into_iter().chain(cri) {
        follow_mounts(files, store);
    }
    let cni = network::inspect(files, &flags, containerd.as_ref(), notes);
    let disks = disks::inspect(files, docker.as_ref(), containerd.as_ref(), notes);
    let prerequisites = prerequisites::inspect(files, notes);
    let mut paths = vec![CRICTL, HOLD_DROP_IN, DROP_IN, CONTAINERD_ENVIRONMENT];
    if containerd.is_none() {
        paths.extend([CONTAINERD_CONFIG, CONTAINERD_DROP_IN]);
    }
    if cri_dockerd.is_none() {
        paths.push(CRI_DOCKERD_DROP_IN);
    }
    let system = system::System::of(files, &flags, notes);
    let layout = system::layout(files, kubelet.as_ref(), &system.os.id);
    let maybe_files = paths.iter().filter_map(|path| notes.maybe(files, path)).collect();
    let log_rules = disks::log_rules(files, docker.as_ref());
    Facts {
        node: system.node,
        machine_id: system.machine_id,
        os: system.os,
        kernel: system.kernel,
        arch: system.arch,
        cgroup_version: system.cgroup_version,
        systemd_version: units.version,
        layout,
        kubelet,
        docker,
        containerd,
        cri_dockerd,
        docker_group: system.docker_group,
        cni,
        prerequisites: Some(prerequisites),
        files: maybe_files,
        disks,
        registry_directories: registries::inspect(files),
        log_rules,
        rivals: rivals::inspect(files, &mut units),
        attempts: Vec::new(),
        unreadable: notes.0.take(),
        digest_key: if host.live {
            digest_key(&Files::new("/"))
        } else {
            String::new()
        },
    }
}

/// Adds where mounted paths really are: a pod may mount `/var/lib/docker`, which is a link to the data root.
fn follow_mounts(files: &Files, store: &mut Store) {
    for container in &mut store.containers {
        let real = container.mounts.iter().filter_map(|mount| {
            let real = files.resolved(&HostPath::new(mount.as_str()).ok()?).ok()?;
            Some(real.to_string())
        });
        let real: Vec<String> = real.filter(|real| !container.mounts.contains(real)).collect();
        container.mounts.extend(real);
    }
}

/// The key of this node, which is made if there is none. Where it cannot be kept it is another one each time: the
/// digests of plans then cannot be compared, but tell nothing either.
fn digest_key(files: &Files) -> String {
    let kept = || {
        let (state, file) = (HostPath::new(STATE).ok()?, HostPath::new(DIGEST_KEY_FILE).ok()?);
        let known = files.read_text(&file).ok()?;
        if let Some(key) = known.filter(|key| Digest::from_hex(key).is_some()) {
            return Some(key);
        }
        let key = random()?;
        // Somebody may look who is not root.
        let _ = files
            .make_private(&state)
            .and_then(|()| files.write(&file, key.as_bytes(), 0o600));
        Some(key)
    };
    kept().or_else(random).unwrap_or_default()
}

/// 256 bits in hex.
fn random() -> Option<String> {
    let device = HostPath::new("/dev/urandom").ok()?;
    let bytes = Files::new("/").read_at_most(&device, 32).ok()??;
    Some(
        Digest::of(bytes)
            .as_str()
            .trim_start_matches("sha256:")
            .to_owned(),
    )
}

/// What could not be read, in sentences, each once.
#[derive(Debug, Default)]
struct Notes(RefCell<Vec<String>>);

impl Notes {
    fn add(&self, note: String) {
        let mut notes = self.0.borrow_mut();
        if !notes.contains(&note) {
            notes.push(note);
        }
    }

    /// The value, or a note.
    fn keep<T, E: std::fmt::Display>(&self, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(error.to_string())).ok()
    }

    /// A file with its text, when it is there.
    fn text(&self, files: &Files, path: &str) -> Option<TextFile> {
        let path = self.keep(HostPath::new(path))?;
        let text = self.keep(files.read_text(&path))??;
        let mode = self.keep(files.attributes(&path))??.mode;
        Some(TextFile {
            digest: Digest::of(&text),
            path,
            text,
            mode,
        })
    }

    /// A path, with the file there if there is one.
    fn maybe(&self, files: &Files, path: &str) -> Option<MaybeFile> {
        let file = self.text(files, path);
        Some(MaybeFile {
            path: self.keep(HostPath::new(path))?,
            file,
        })
    }

    /// The names in a directory.
    fn list(&self, files: &Files, directory: &str) -> Vec<String> {
        let path = self.keep(HostPath::new(directory));
        path.and_then(|path| self.keep(files.list(&path)))
            .unwrap_or_default()
    }

    /// What a program prints.
    async fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let mut command = command::command(program);
        command.args(arguments);
        let output: Result<_, CommandError> = command::run(command, b"", PROGRAM).await;
        let output = self.keep(output)?;
        if !output.status.success() {
            let words = output.stderr.trim();
            self.add(format!(
                "{program} {} ended with {}: {words}",
                arguments.join(" "),
                output.status
            ));
            return None;
        }
        Some(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Whether there is something at a path; what cannot be looked at is not there.
fn exists(files: &Files, path: &str) -> bool {
    HostPath::new(path).is_ok_and(|path| files.exists(&path).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::plan::facts::Container;

    /// The data root on another disk, behind a relative link; Docker reports where it really is.
    #[test]
    fn mounts_through_a_link_are_found_at_both_places() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let log = HostPath::new("/data/docker/containers/x/x-json.log").unwrap();
        files.write(&log, b"", 0o644).unwrap();
        std::fs::create_dir_all(root.path().join("var/lib")).unwrap();
        std::os::unix::fs::symlink("../../data/docker", root.path().join("var/lib/docker")).unwrap();
        let container = Container {
            id: "x".into(),
            name: "agent".into(),
            image_id: String::new(),
            running: true,
            pod: None,
            mounts: vec!["/var/lib/docker/containers".into(), "/etc".into()],
            no_new_privileges: false,
        };
        let mut store = Store {
            containers: vec![container],
            images: Vec::new(),
        };
        follow_mounts(&files, &mut store);
        assert_eq!(
            store.containers[0].mounts,
            ["/var/lib/docker/containers", "/etc", "/data/docker/containers"]
        );
        let rule = HostPath::new("/etc/logrotate.d/docker").unwrap();
        files
            .write(&rule, b"/var/lib/docker/containers/*/*.log {\n}\n", 0o644)
            .unwrap();
        let rules = |data_root: &str| disks::rules_for(&files, &HostPath::new(data_root).unwrap());
        assert_eq!(rules("/data/docker"), [rule]);
        assert_eq!(rules("/srv/docker"), []);
    }

    #[test]
    fn a_node_has_one_key_which_root_alone_can_read() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        // As the kubelet makes it for a pod that mounts it.
        files.create_dir_all(&HostPath::new(STATE).unwrap()).unwrap();
        let key = digest_key(&files);
        assert!(Digest::from_hex(&key).is_some(), "{key}");
        assert_eq!(digest_key(&files), key);
        let mode = |path: &str| {
            let found = std::fs::metadata(root.path().join(path.trim_start_matches('/'))).unwrap();
            found.permissions().mode() & 0o777
        };
        assert_eq!((mode(STATE), mode(DIGEST_KEY_FILE)), (0o700, 0o600));
        let other = tempfile::tempdir().unwrap();
        assert_ne!(digest_key(&Files::new(other.path())), key);
    }
}
