//! Hosts as fixtures, one directory each with the facts that were found there.

use std::{collections::BTreeSet, fs, path::Path};

use transship::{
    api::request::{
        ArchiveOrigin, CgroupDriverChoice, Drain, Images, Origin, PackageOrigin, Preflight, Rollback,
        Runtime, Source, Target,
    },
    plan::{
        facts::{Crio, Facts, Pem, RegistryDirectory},
        host_path::HostPath,
    },
    planner::request::Request,
};

/// Every host, in the order of their names.
pub(crate) fn all() -> Vec<(String, Facts)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hosts");
    let mut hosts: Vec<(String, Facts)> = fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| {
            let text = fs::read_to_string(entry.path().join("facts.json")).unwrap();
            let name = entry.file_name().into_string().unwrap();
            let facts = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, facts)
        })
        .collect();
    hosts.sort_by(|(a, _), (b, _)| a.cmp(b));
    hosts
}

/// Every pair of different runtimes that can be planned.
pub(crate) fn pairs() -> BTreeSet<(Runtime, Runtime)> {
    let to = |source: Runtime| Runtime::targets().map(move |target| (source, target));
    let pairs = Runtime::sources().flat_map(to);
    pairs.filter(|(source, target)| source != target).collect()
}

/// One host.
pub(crate) fn named(name: &str) -> Facts {
    all()
        .into_iter()
        .find(|(found, _)| found == name)
        .unwrap_or_else(|| panic!("no host {name}"))
        .1
}

/// What can be asked for on every host, with a name: containerd everywhere, cri-dockerd where it is installed, CRI-O on one host
/// of each runtime.
pub(crate) fn cases() -> Vec<(String, Facts, Request)> {
    let mut cases = Vec::new();
    for (name, facts) in all() {
        if facts.cri_dockerd.is_some() {
            let asked = format!("{name}-to-cri-dockerd");
            cases.push((asked, facts.clone(), to(Runtime::CriDockerd)));
        }
        if let Some((facts, request)) = to_cri_o(&name, facts.clone()) {
            cases.push((format!("{name}-to-cri-o"), facts, request));
        }
        cases.push((name, facts, request()));
    }
    cases
}

/// Hosts whose containerd is too old, or is upgraded, and to which an archive brings another one.
pub(crate) fn brought() -> impl Iterator<Item = (String, Facts, Request)> {
    let hosts = [
        "debian11-kubespray-2.19-dockershim",
        "ubuntu2204-kubespray-2.24-control-plane-containerd",
    ];
    hosts.into_iter().map(|name| {
        let request = from_archive(Runtime::Containerd);
        (format!("{name}-from-archive"), named(name), request)
    })
}

/// A newer containerd in the place of the one that serves.
pub(crate) fn upgrade() -> (Facts, Request) {
    let facts = named("debian12-kubeadm-1.30-containerd");
    (facts, from_archive(Runtime::Containerd))
}

/// The way to CRI-O, on the hosts of which a test takes it: from its bundle, in the release of the kubelet where there is one; and
/// as a package has installed it, with the unit that removes its images.
fn to_cri_o(name: &str, mut facts: Facts) -> Option<(Facts, Request)> {
    let mut request = from_archive(Runtime::CriO);
    match name {
        "debian12-kubeadm-1.23-dockershim" => {
            if let Origin::Archive(archive) = &mut request.target.from {
                archive.url = archive.url.replace("1.34.0", "1.23.5");
            }
        }
        "debian12-kubeadm-1.36-control-plane-containerd-2.4" => with_private_registry(&mut facts),
        "debian12-kubeadm-1.36-cri-dockerd" => {
            facts.crio = Some(installed_cri_o());
            request.target.from = Origin::default();
        }
        _ => return None,
    }
    ready_for_cri_o(&mut facts);
    Some((facts, request))
}

/// A registry with a private authority, to which clients show a certificate.
fn with_private_registry(facts: &mut Facts) {
    let containerd = facts.containerd.as_mut().unwrap();
    let read = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";
    containerd.effective.as_mut().unwrap().push_str(read);
    let directory = path("/etc/containerd/certs.d/registry.example.org:5000");
    for (name, key) in [("ca.crt", false), ("client.cert", false), ("client.key", true)] {
        let pem = Pem {
            certificate: !key,
            key,
        };
        facts.registry_pems.insert(directory.join(name).unwrap(), pem);
    }
    facts.registry_directories.push(RegistryDirectory {
        path: directory,
        files: ["ca.crt", "client.cert", "client.key"]
            .map(str::to_owned)
            .to_vec(),
        hosts: None,
        said: None,
        links: Default::default(),
    });
}

/// What a newer inspector finds there: nft, and the file system of CRI-O's store.
pub(crate) fn ready_for_cri_o(facts: &mut Facts) {
    facts.crio_programs = [("nft".to_owned(), path("/usr/sbin/nft"))].into();
    let mut disk = facts.disks[0].clone();
    disk.path = path("/var/lib/containers/storage");
    facts.disks.push(disk);
}

/// CRI-O beside another runtime, as its package leaves it, but for `crio-wipe.service`, which somebody has enabled.
pub(crate) fn installed_cri_o() -> Crio {
    let mut crio = named("debian12-kubeadm-1.36-cri-o").crio.unwrap();
    (crio.cri, crio.store) = (None, None);
    crio.service.active = "inactive".to_owned();
    crio.service.boot = "disabled".to_owned();
    crio.service.main_pid = 0;
    crio.wipe.name = "crio-wipe.service".to_owned();
    crio.wipe.load = "loaded".to_owned();
    crio.wipe.active = "inactive".to_owned();
    crio.wipe.boot = "enabled".to_owned();
    crio
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// The request that most users make: containerd, as it is installed.
pub(crate) fn request() -> Request {
    to(Runtime::Containerd)
}

/// A request for a runtime that comes in an archive.
pub(crate) fn from_archive(runtime: Runtime) -> Request {
    let name = match runtime {
        Runtime::Containerd => "containerd-2.4.2-linux-amd64.tar.gz",
        Runtime::CriO => "cri-o.amd64.v1.34.0.tar.gz",
        _ => "cri-dockerd-0.4.3.amd64.tgz",
    };
    let mut request = to(runtime);
    request.target.from = Origin::Archive(ArchiveOrigin {
        url: format!("https://downloads.example.org/{name}"),
        sha256: "0123456789abcdef".repeat(4),
    });
    request
}

/// A request for a runtime that comes as a package.
pub(crate) fn from_package(runtime: Runtime) -> Request {
    let (name, version) = match runtime {
        Runtime::Containerd => ("containerd.io", "2.4.2"),
        Runtime::CriO => ("cri-o", "1.34.0"),
        _ => ("cri-dockerd", "0.4.3"),
    };
    let mut request = to(runtime);
    request.target.version = Some(version.to_owned());
    request.target.from = Origin::Package(PackageOrigin {
        name: name.to_owned(),
    });
    request
}

/// A request for a runtime as it is installed.
pub(crate) fn to(runtime: Runtime) -> Request {
    Request {
        migration: "00000000-0000-4000-8000-000000000001".into(),
        migration_name: None,
        target: Target {
            runtime,
            version: None,
            from: Origin::default(),
            sandbox_image: None,
            cgroup_driver: CgroupDriverChoice::Auto,
            keep_log_limits: false,
        },
        source: Source::default(),
        drain: Drain::default(),
        images: Images::default(),
        // One of the hosts has a setting of Docker's that nobody knows.
        preflight: Preflight {
            allow: vec!["DockerSettingNotCarried/some-vendor-key".to_owned()],
        },
        rollback: Rollback::default(),
        approved_plans: Vec::new(),
        cluster: None,
    }
}
