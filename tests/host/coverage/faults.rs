//! Faults of a host or of a request, each on a host of every pair, whose finding must be there with the fault and not without it.

use std::{collections::BTreeSet, fs};

use transship::{
    api::request::{CgroupDriverChoice, DrainMode, Origin, Runtime},
    plan::{
        cluster::BlockedPod,
        digest::Digest,
        facts::{Container, Facts, OpenAttempt, Prerequisites, RegistryDirectory, TextFile, UnitFacts},
        finding::Finding,
        host_path::HostPath,
        paths::{ARCHIVES, CONTAINERD_CERTIFICATES},
    },
    planner::{plan, request::Request},
};

use super::{Pair, Row, plans::planned, repository};
use crate::fixtures;

/// What is asked for on a host.
#[derive(Clone)]
struct Asked {
    facts: Facts,
    request: Request,
    pair: Pair,
}

/// A fault with the findings of which there must be one.
type Fault = (&'static str, &'static [&'static str], fn(&mut Asked));

const FAULTS: &[Fault] = &[
    (
        "the source does not answer",
        &["SourceNotAnswering"],
        source_is_silent,
    ),
    ("the target is not installed", &["TargetNotInstalled"], |asked| {
        asked.request.target.from = fixtures::request().target.from;
        match asked.pair.1 {
            Runtime::CriDockerd => asked.facts.cri_dockerd = None,
            Runtime::CriO => asked.facts.crio = None,
            _ => asked.facts.containerd = None,
        }
    }),
    ("its unit is masked", &["TargetMasked"], |asked| {
        unit(asked).load = "masked".to_owned()
    }),
    (
        "its release does not fit the kubelet",
        &["TargetVersionUnfit", "TargetVersionUnsupported"],
        old_target,
    ),
    (
        "its version is not the one that is asked for",
        &["TargetVersionMismatch", "ArchiveVersionMismatch"],
        |asked| {
            asked.request.target.version = Some("0.0.1".to_owned());
        },
    ),
    (
        "another cgroup driver is asked for",
        &["CgroupDriverMismatch"],
        |asked| {
            asked.request.target.cgroup_driver = CgroupDriverChoice::Cgroupfs;
        },
    ),
    (
        "the sandbox image is missing",
        &["SandboxImageMissing"],
        |asked| {
            asked.request.target.sandbox_image = Some("registry.k8s.io/pause:0".to_owned());
        },
    ),
    (
        "an image of pods that stay is missing",
        &["RequiredImageMissing"],
        |asked| {
            let pods = &mut asked.request.cluster.get_or_insert_default().pods;
            pods.images.push("transship:0.1.0".to_owned());
        },
    ),
    ("a pod would be lost in the drain", &["PodsBlockDrain"], |asked| {
        let pods = &mut asked.request.cluster.get_or_insert_default().pods;
        pods.blocked.push(BlockedPod {
            name: "lab/alone".to_owned(),
            reason: "nothing manages it".to_owned(),
        });
    }),
    ("pods are to run on", &["LiveNotSupported"], |asked| {
        asked.request.drain.mode = DrainMode::Live
    }),
    ("the disk is full", &["DiskSpace"], |asked| {
        // Captured before it was looked at.
        let mut disk = asked.facts.disks[0].clone();
        disk.path = HostPath::new(ARCHIVES).unwrap();
        asked.facts.disks.push(disk);
        asked.facts.disks.iter_mut().for_each(|disk| disk.free = 1 << 20);
    }),
    (
        "the kubelet's configuration is broken",
        &["KubeletConfigBroken"],
        |asked| {
            let kubelet = asked.facts.kubelet.as_mut().unwrap();
            change(kubelet.config.as_mut().unwrap(), "a: [\n");
        },
    ),
    (
        "crictl's configuration is broken",
        &["CrictlConfigBroken"],
        |asked| {
            let mut file = asked.facts.kubelet.as_ref().unwrap().config.clone().unwrap();
            file.path = asked.facts.files[0].path.clone();
            change(&mut file, "- a\n");
            asked.facts.files[0].file = Some(file);
        },
    ),
    (
        "there is no configuration of CNI",
        &["CniConfigMissing"],
        |asked| asked.facts.cni.configs.clear(),
    ),
    ("a plugin of CNI is missing", &["CniPluginMissing"], |asked| {
        for dir in &mut asked.facts.cni.bin_dirs {
            dir.plugins.retain(|name| name != "bridge");
        }
    }),
    ("the kernel does not forward", &["IpForwardOff"], |asked| {
        asked.facts.prerequisites = Some(Prerequisites {
            overlay: true,
            ip_forward: false,
            bridge_nf_call_iptables: Some(true),
            swap: false,
            at_boot: BTreeSet::new(),
        });
    }),
    (
        "a pod mounts the runtime's socket",
        &["DockerSocketMounted", "CriSocketMounted"],
        mounts_socket,
    ),
    (
        "containers that are not Kubernetes'",
        &["ForeignContainers"],
        |asked| {
            let container = Container {
                id: "f".repeat(64),
                name: "registry".to_owned(),
                image_id: String::new(),
                running: true,
                pod: None,
                mounts: Vec::new(),
                no_new_privileges: false,
                of_job: false,
            };
            store(asked).push(container);
        },
    ),
    (
        "something else manages the node's files",
        &["FilesManaged"],
        |asked| {
            asked.facts.rivals.agents.push("puppet.service".to_owned());
        },
    ),
    ("the node is Kubespray's", &["KubesprayWouldUndo"], |asked| {
        let kubelet = asked.facts.kubelet.as_mut().unwrap();
        let mut variables = kubelet.config.clone().unwrap();
        variables.path = path("/etc/kubernetes/kubelet.env");
        change(&mut variables, "A=b\n");
        kubelet.unit.environment_files.push(variables);
        kubelet.config.as_mut().unwrap().path = path("/etc/kubernetes/kubelet-config.yaml");
    }),
    ("an earlier attempt is open", &["EarlierAttempt"], |asked| {
        asked.facts.attempts.push(OpenAttempt {
            name: "other".to_owned(),
            dir: path("/var/lib/transship/other"),
            state: "waiting for the commit".to_owned(),
        });
    }),
    ("a file could not be read", &["Unreadable"], |asked| {
        asked
            .facts
            .unreadable
            .push("/etc/x: permission denied".to_owned());
    }),
    (
        "the archive is one for other machines",
        &["ArchiveArchitecture"],
        |asked| {
            asked.request = fixtures::from_archive(asked.pair.1);
            if let Origin::Archive(archive) = &mut asked.request.target.from {
                archive.url = archive.url.replace("amd64", "arm64");
            }
        },
    ),
    (
        "the API server does not confine nodes",
        &["NodeRestrictionAbsent"],
        |asked| {
            asked.request.cluster.get_or_insert_default().is_unrestricted = true;
        },
    ),
    (
        "a registry has certificates that the target does not read",
        &["RegistryCertificates", "SettingNotCarried"],
        |asked| {
            let containerd = asked.facts.containerd.as_mut();
            if asked.pair.0 == Runtime::Containerd
                && let Some(effective) = containerd.and_then(|containerd| containerd.effective.as_mut())
                && !effective.contains(CONTAINERD_CERTIFICATES)
            {
                let plugin = "io.containerd.cri.v1.images";
                effective.push_str(&format!(
                    "[plugins.'{plugin}'.registry]\nconfig_path = '{CONTAINERD_CERTIFICATES}'\n"
                ));
            }
            asked.facts.registry_directories.push(RegistryDirectory {
                path: path(&format!("{}/r.example", asked.pair.0.profile().certificates)),
                files: ["client.cert", "client.key"].map(str::to_owned).to_vec(),
                hosts: None,
                said: None,
                links: Default::default(),
            });
        },
    ),
    (
        "logs of pods shrink, grow or move",
        &["LogsShrink", "LogsGrow", "LogsMove"],
        |asked| {
            if let Some(file) = asked
                .facts
                .docker
                .as_mut()
                .and_then(|docker| docker.daemon_json.as_mut())
            {
                change(
                    file,
                    "{\"exec-opts\": [\"native.cgroupdriver=systemd\"], \"log-opts\": {\"max-size\": \"7m\", \"max-file\": \"9\"}}",
                );
            }
        },
    ),
    ("CRI-O is not ready to serve", &["NftMissing"], |asked| {
        asked.facts.crio_programs.remove("nft");
    }),
    (
        "a container's process is outside of its cgroup",
        &["ProcessesOutsideCgroup"],
        |asked| {
            let containerd = asked.facts.containerd.as_mut();
            let tasks = containerd.map(|containerd| &mut containerd.upgrade.tasks);
            if let Some(task) = tasks.and_then(|tasks| tasks.first_mut()) {
                task.lost_pids = true;
            }
        },
    ),
    (
        "a setting of Docker's that cannot come along",
        &["DockerSettingNotCarried"],
        |asked| {
            let docker = asked.facts.docker.as_mut();
            if let Some(file) = docker.and_then(|docker| docker.daemon_json.as_mut()) {
                change(
                    file,
                    "{\"exec-opts\": [\"native.cgroupdriver=systemd\"], \"userns-remap\": \"default\"}",
                );
            }
        },
    ),
];

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

fn change(file: &mut TextFile, text: &str) {
    file.text = text.to_owned();
    file.digest = Digest::of(text);
}

fn source_is_silent(asked: &mut Asked) {
    let facts = &mut asked.facts;
    match asked.pair.0 {
        Runtime::Containerd => facts.containerd.as_mut().unwrap().cri = None,
        Runtime::CriO => facts.crio.as_mut().unwrap().cri = None,
        _ => facts.docker.as_mut().unwrap().engine = None,
    }
}

/// The unit of the target.
fn unit(asked: &mut Asked) -> &mut UnitFacts {
    let facts = &mut asked.facts;
    match asked.pair.1 {
        Runtime::CriDockerd => &mut facts.cri_dockerd.as_mut().unwrap().service,
        Runtime::CriO => &mut facts.crio.as_mut().unwrap().service,
        _ => &mut facts.containerd.as_mut().unwrap().service,
    }
}

/// A release of the target that no kubelet of today goes with.
fn old_target(asked: &mut Asked) {
    let facts = &mut asked.facts;
    match asked.pair.1 {
        Runtime::CriDockerd => facts.cri_dockerd.as_mut().unwrap().version = "0.2.5".to_owned(),
        Runtime::CriO => facts.crio.as_mut().unwrap().version = "1.20.0".to_owned(),
        _ => facts.containerd.as_mut().unwrap().version = "1.4.13".to_owned(),
    }
}

/// The containers of the source.
fn store(asked: &mut Asked) -> &mut Vec<Container> {
    let facts = &mut asked.facts;
    let store = match asked.pair.0 {
        Runtime::Containerd => facts.containerd.as_mut().unwrap().store.as_mut().unwrap(),
        Runtime::CriO => facts.crio.as_mut().unwrap().store.as_mut().unwrap(),
        _ => &mut facts.docker.as_mut().unwrap().engine.as_mut().unwrap().store,
    };
    &mut store.containers
}

/// The first pod of the source mounts its CRI socket.
fn mounts_socket(asked: &mut Asked) {
    let socket = asked.pair.0.profile().socket.to_owned();
    let mut containers = store(asked).iter_mut();
    let container = containers.find(|container| container.pod.is_some()).unwrap();
    container.mounts.push(socket);
}

/// The hosts of a pair, with the target installed as a package leaves it.
fn hosts() -> Vec<Asked> {
    let mut hosts = Vec::new();
    for one in planned() {
        let pair = one.pair();
        let (mut facts, mut request) = (one.facts, one.request);
        if pair.0 != pair.1 {
            request.target.from = Origin::default();
        }
        if pair.1 == Runtime::CriO && facts.crio.is_none() {
            facts.crio = Some(fixtures::installed_cri_o());
        }
        hosts.push(Asked { facts, request, pair });
    }
    hosts
}

fn findings(facts: &Facts, request: &Request) -> Vec<Finding> {
    plan(facts, request).findings
}

/// The file of `src/plan/codes/` that a code is in.
fn family(code: &str) -> String {
    families()
        .into_iter()
        .find(|(_, text)| text.contains(&format!("\"{code}\"")))
        .unwrap_or_else(|| panic!("no code {code}"))
        .0
}

/// All files of codes, with their texts.
fn families() -> Vec<(String, String)> {
    let files = fs::read_dir(repository("src/plan/codes")).unwrap();
    let mut families: Vec<(String, String)> = files
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    families.sort();
    families
}

pub(super) fn rows() -> Vec<Row> {
    let hosts = hosts();
    let before: Vec<Vec<Finding>> = hosts
        .iter()
        .map(|asked| findings(&asked.facts, &asked.request))
        .collect();
    let mut rows = Vec::new();
    for (what, codes, spoil) in FAULTS {
        let mut found = BTreeSet::new();
        for (asked, before) in hosts.iter().zip(&before) {
            if found.contains(&asked.pair) {
                continue;
            }
            let mut spoilt = asked.clone();
            spoil(&mut spoilt);
            let after = findings(&spoilt.facts, &spoilt.request);
            let is_new = |finding: &&Finding| codes.contains(&&*finding.code) && !before.contains(finding);
            if after.iter().any(|finding| is_new(&finding)) {
                found.insert(asked.pair);
            }
        }
        rows.push(Row::of(&format!("`{}`: {what}", family(codes[0])), found));
    }
    rows.sort_by(|a, b| a.what.cmp(&b.what));
    for (name, _) in families() {
        assert!(
            rows.iter().any(|row| row.what.starts_with(&format!("`{name}`"))),
            "no fault of src/plan/codes/{name}.rs is among them"
        );
    }
    rows
}
