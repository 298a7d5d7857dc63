//! Reads a host into [`Facts`]. Changes nothing but the node's own key; what cannot be read is listed in
//! [`Facts::unreadable`] and is never a failure. Everything that waits for somebody waits at the same time.
//!
//! - `notes`: the host, and what could not be read there.
//! - `units`: units as systemd describes them.
//! - `kubelet`, `docker`, `containerd`, `cri_dockerd`, `crio`: the programs. `programs`: where others are.
//! - `service`: what the upgrade of a containerd that serves the kubelet depends on.
//! - `tasks`: the living tasks of containerd, by their bundles.
//! - `cri`: what a CRI says of itself and holds.
//! - `network`, `disks`, `registries`, `prerequisites`, `system`: CNI, file systems, certificates, the kernel, the rest.
//! - `rivals`: who else acts on the runtimes.

mod containerd;
mod cri;
mod cri_dockerd;
mod crio;
mod disks;
mod docker;
mod kubelet;
mod network;
mod notes;
mod prerequisites;
mod programs;
mod registries;
mod rivals;
mod service;
mod system;
mod tasks;
mod units;

pub use kubelet::known_pods;
pub use notes::Host;
use std::collections::BTreeMap;

use notes::Notes;

use crate::{
    host::files::Files,
    plan::{
        digest::Digest,
        document::{DIGEST_KEY_FILE, STATE},
        facts::{Facts, MaybeFile, Store},
        host_path::HostPath,
        kubelet_arguments::DROP_IN,
        kubelet_settings::Settings,
        paths::{
            CONTAINERD_ENVIRONMENT, CRICTL, CRIO_CREDENTIALS, CRIO_ENVIRONMENT, CRIO_NETWORK,
            CRIO_REGISTRIES, CRIO_UNTIL_SWITCH, HOLD_DROP_IN,
        },
        runtime::Runtime,
        snapshots,
        step::KUBELET_UNIT,
    },
};

/// Looks at a host. The attempts of Transship itself are added by whoever knows journals.
pub async fn inspect(host: &Host) -> Facts {
    let (files, notes) = (&host.files, &Notes::default());
    let names: Vec<String> = [KUBELET_UNIT, containerd::UNIT]
        .into_iter()
        .chain(docker::UNITS)
        .map(str::to_owned)
        .chain(cri_dockerd::units())
        .chain(crio::UNITS.map(str::to_owned))
        .chain(rivals::units())
        .collect();
    let units = if host.live {
        units::Units::ask(files, &names, notes).await
    } else {
        notes.add("systemd was not asked: it is another host's".to_owned());
        units::Units::default()
    };
    let unit = units.named(KUBELET_UNIT);
    let flags = kubelet::Flags::of(files, &unit, notes);
    let (kubelet, mut docker, mut containerd, cri_dockerd, mut crio) = tokio::join!(
        kubelet::inspect(host, unit, &flags, notes),
        docker::inspect(files, &units, &flags, notes),
        containerd::inspect(host, &units, notes),
        cri_dockerd::inspect(host, &units, notes),
        crio::inspect(host, &units, notes),
    );
    let engine = docker.as_mut().and_then(|docker| docker.engine.as_mut());
    let engine = engine.map(|engine| &mut engine.store);
    let of_containerd = containerd
        .as_mut()
        .and_then(|containerd| containerd.store.as_mut());
    let of_crio = crio.as_mut().and_then(|crio| crio.store.as_mut());
    for store in engine.into_iter().chain(of_containerd).chain(of_crio) {
        follow_mounts(files, store);
    }
    let mut bin_dirs = containerd::cni_bin_dirs(containerd.as_ref());
    bin_dirs.extend(crio::cni_bin_dirs(crio.as_ref()));
    let cni = network::inspect(files, &flags, bin_dirs, notes);
    let snapshots = snapshots::snapshots(containerd.as_ref()).directory;
    let of_crio = crio::root(crio.as_ref());
    let data_root = docker::data_root(docker.as_ref());
    let beside = disks::beside(data_root);
    let pulled = crio::pull_directory(crio.as_ref());
    let mut stores = vec![data_root, &snapshots, &of_crio, &pulled];
    stores.extend(beside.iter().map(HostPath::as_str));
    let disks = disks::inspect(files, &stores, notes);
    let empty_stores = disks::empty(files, &stores);
    let prerequisites = prerequisites::inspect(files, notes);
    let system = system::System::of(files, &flags, notes);
    let layout = system::layout(files, kubelet.as_ref(), &system.os.id);
    let log_rules = docker::log_rules(files, docker.as_ref());
    let crio_programs = crio::called(files, containerd.as_ref(), crio.as_ref());
    let mut facts = Facts {
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
        crio,
        crio_programs,
        docker_group: system.docker_group,
        cni,
        prerequisites: Some(prerequisites),
        files: Vec::new(),
        disks,
        empty_stores,
        registry_directories: registries::inspect(files),
        registry_pems: BTreeMap::new(),
        registries_conf: registries::conf(files, notes),
        log_rules,
        rivals: rivals::inspect(files, &units),
        attempts: Vec::new(),
        unreadable: Vec::new(),
        digest_key: if host.live {
            digest_key(&Files::new("/"))
        } else {
            String::new()
        },
    };
    facts.registry_pems = registries::pems(files, facts.containerd.as_ref(), &facts.registry_directories);
    facts.files = may_be_written(files, &facts, notes);
    if serves_kubelet(&facts)
        && let Some(containerd) = &mut facts.containerd
    {
        service::inspect(host, containerd, notes).await;
    }
    facts.unreadable = notes.0.take();
    facts
}

/// Whether containerd's CRI is behind the kubelet's endpoint.
fn serves_kubelet(facts: &Facts) -> bool {
    let used = || {
        let settings = Settings::of(facts.kubelet.as_ref()?, &facts.endpoints()).ok()?;
        Some(facts.installed().get(&settings.runtime?)?.endpoint)
    };
    let containerd = facts.containerd.as_ref().map(|containerd| &containerd.endpoint);
    containerd.is_some() && containerd == used()
}

/// Files of other tools that name a runtime's socket, and files that a plan may write.
fn may_be_written(files: &Files, facts: &Facts, notes: &Notes) -> Vec<MaybeFile> {
    let installed = facts.installed();
    let absent = Runtime::ALL
        .into_iter()
        .filter(|runtime| !installed.contains_key(runtime));
    let of_absent = absent.flat_map(|runtime| runtime.profile().written);
    [
        CRICTL,
        HOLD_DROP_IN,
        DROP_IN,
        CONTAINERD_ENVIRONMENT,
        CRIO_CREDENTIALS,
        CRIO_ENVIRONMENT,
        CRIO_NETWORK,
        CRIO_REGISTRIES,
        CRIO_UNTIL_SWITCH,
    ]
    .iter()
    .chain(of_absent)
    .copied()
    .chain(crio::auth_file(facts.crio.as_ref()).as_deref())
    .filter_map(|path| notes.maybe(files, path))
    .collect()
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
            of_job: false,
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
        let rules = |data_root: &str| docker::rules_for(&files, &HostPath::new(data_root).unwrap());
        assert_eq!(rules("/data/docker"), [rule]);
        assert_eq!(rules("/srv/docker"), []);
    }

    #[test]
    fn containerd_serves_the_kubelet_whose_endpoint_is_its_own() {
        let of = |text: &str| serde_json::from_str::<Facts>(text).unwrap();
        let mut facts = of(include_str!(
            "../tests/hosts/debian12-kubeadm-1.30-containerd/facts.json"
        ));
        assert!(serves_kubelet(&facts));
        facts.kubelet = None;
        assert!(!serves_kubelet(&facts));
        for other in [
            include_str!("../tests/hosts/debian12-kubeadm-1.23-captured/facts.json"),
            include_str!("../tests/hosts/debian12-kubeadm-1.36-cri-dockerd/facts.json"),
        ] {
            let facts = of(other);
            assert!(facts.containerd.is_some() && !serves_kubelet(&facts));
        }
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
