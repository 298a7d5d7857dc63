//! cri-dockerd: a CRI in front of Docker Engine. Its containers and images are Docker's.

use std::{borrow::Cow, collections::BTreeSet};

use semver::Version;
use serde_json::{Map, Value};

use crate::{
    edit::{
        flags::{self, Change},
        unit_file,
    },
    plan::{
        codes::{
            containers::LOGGING_DRIVER,
            kubelet::{EXEC_FAILS, NO_NEW_PRIVILEGES_REFUSED, NO_NEW_PRIVILEGES_UNSUPPORTED},
            runtimes::{
                DOCKER_DRIVER_CHANGES, DOCKER_GROUP_MISSING, SOURCE_NOT_ANSWERING, TARGET_NOT_INSTALLED,
                TARGET_VERSION_UNFIT,
            },
        },
        effective::Effective,
        facts::{CriDockerd, Docker, Facts},
        finding::Finding,
        kubelet_arguments,
        kubelet_settings::{PULL_DEADLINE_FLAG, PodNetwork, Settings},
        lists,
        paths::{CRI_DOCKERD_DROP_IN, CRI_DOCKERD_SOCKET},
        runtime::Runtime,
        step::{Endpoint, Restart, Step},
        version,
    },
    planner::{
        context::{Planner, Source, SourcePart, Target, TargetPart, View},
        delivery::{self, Delivery},
        pod_environment, refusals,
        request::Request,
        runtimes::docker::{self, Driver},
        steps::{file, future_unit, maybe, opening, path, started},
    },
};

/// The planner of cri-dockerd.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::CriDockerd,
    source: Some(SourcePart {
        look: source,
        prepare: |_| Vec::new(),
        switch: |_| Ok(Vec::new()),
        settle: |view| Ok(docker::settle(view)),
        settings: |_| Vec::new(),
        layers: docker::layers,
        check: |_| Vec::new(),
    }),
    target: Some(TargetPart {
        look: target,
        prepare,
        switch: |_| Ok(Vec::new()),
        without_pods: |_| Ok(Vec::new()),
        configuration: |_| None,
        store: docker::store,
        takes: None,
        packaged: &[],
        check,
        upgrade: None,
    }),
};

const SERVICE: &str = "cri-docker.service";
const SOCKET_UNIT: &str = "cri-docker.socket";

fn source<'a>(facts: &'a Facts, _: &Settings) -> Result<Source<'a>, Finding> {
    let (docker, engine) = docker::answering(facts)?;
    let (shim, cri) = facts
        .cri_dockerd
        .as_ref()
        .and_then(|shim| shim.cri.as_ref().map(|cri| (shim, cri)))
        .ok_or_else(|| {
            SOURCE_NOT_ANSWERING.found(
                "cri-dockerd does not answer, although the kubelet uses it",
                "Look at `systemctl status cri-docker`; a source that does not work cannot be rolled back to.",
            )
        })?;
    let command = kubelet_arguments::command(&shim.service);
    let mut network = PodNetwork::of_flags(&command);
    // A value that is given and empty means no plugin: the pods are on Docker's own bridge.
    if flags::value(&command, "network-plugin").is_none() {
        default_plugin(&shim.version).clone_into(&mut network.plugin);
    }
    Ok(Source {
        runtime: Runtime::CriDockerd,
        version: shim.version.clone(),
        cri: endpoint(shim),
        images: engine_of(docker),
        store: &engine.store,
        network,
        sandbox_image: flags::value(&command, "pod-infra-container-image")
            .unwrap_or_else(|| default_sandbox_image(&shim.version))
            .to_owned(),
        pull_deadline: flags::value(&command, PULL_DEADLINE_FLAG)
            .filter(|value| !value.is_empty())
            .map(str::to_owned),
        cgroup_driver: Some(&engine.cgroup_driver),
        told_cgroup_driver: cri.cgroup_driver.as_deref(),
        unit: docker::SERVICE,
    })
}

/// The network plugin compiled in (`cmd/cri/options/options.go`).
fn default_plugin(version: &str) -> &'static str {
    match version::upstream(version) {
        Some(version) if version < Version::new(0, 2, 4) => "",
        Some(version) if version < Version::new(0, 2, 5) => "kubenet",
        _ => "cni",
    }
}

/// The first release with `--ipv6-dual-stack`, without which it reports one address of a pod.
const DUAL_STACK_SINCE: Version = Version::new(0, 2, 2);

/// The sandbox image compiled in (`cmd/cri/options/options.go`).
fn default_sandbox_image(version: &str) -> &'static str {
    match version::upstream(version) {
        Some(version) if version < Version::new(0, 3, 10) => "registry.k8s.io/pause:3.6",
        Some(version) if version < Version::new(0, 3, 20) => "registry.k8s.io/pause:3.9",
        _ => "registry.k8s.io/pause:3.10",
    }
}

fn target(facts: &Facts, request: &Request) -> Result<Target, Finding> {
    let docker = facts.docker.as_ref().ok_or_else(|| {
        TARGET_NOT_INSTALLED.found(
            "Docker Engine is not installed, and cri-dockerd stands on it",
            "Install Docker Engine and its units on the node.",
        )
    })?;
    let delivery = delivery::delivery(&request.target, facts)?;
    if facts.cri_dockerd.is_none() && delivery.is_none() {
        return Err(TARGET_NOT_INSTALLED.found(
            "cri-dockerd is not installed",
            "Install cri-dockerd with its cri-docker.service and cri-docker.socket on the node, where it may run next to the runtime in use; or name an archive in target.from.",
        ));
    }
    let shim = shim(facts, delivery.as_ref())?;
    Ok(Target {
        runtime: Runtime::CriDockerd,
        version: delivery
            .as_ref()
            .map_or_else(|| shim.version.clone(), |delivery| delivery.version.clone()),
        cri: endpoint(&shim),
        images: engine_of(docker),
        unit: docker::SERVICE.to_owned(),
        delivery,
        until_switch: None,
        pull_deadline: None,
    })
}

fn endpoint(shim: &CriDockerd) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriDockerd,
        socket: shim.endpoint.clone(),
    }
}

fn engine_of(docker: &Docker) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriDockerd,
        socket: docker.endpoint.clone(),
    }
}

/// cri-dockerd as it was found, or as its units will be.
fn shim<'a>(facts: &'a Facts, delivery: Option<&Delivery>) -> Result<Cow<'a, CriDockerd>, Finding> {
    if let Some(found) = &facts.cri_dockerd {
        return Ok(Cow::Borrowed(found));
    }
    let program = delivery.map_or("cri-dockerd", |delivery| delivery.program.as_str());
    Ok(Cow::Owned(CriDockerd {
        service: future_unit(SERVICE, &[program, "--container-runtime-endpoint", "fd://"]),
        socket: future_unit(SOCKET_UNIT, &[]),
        version: String::new(),
        endpoint: path(CRI_DOCKERD_SOCKET)?,
        cri: None,
        drop_in: maybe(facts, CRI_DOCKERD_DROP_IN)?,
    }))
}

/// cri-dockerd brought, Docker made ready, and cri-dockerd configured and started in front of it.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let Some(docker) = view.docker else {
        return Ok(Vec::new());
    };
    let shim = &*shim(view.facts, view.target.delivery.as_ref())?;
    let mut steps: Vec<Step> = view.target.delivered().into_iter().collect();
    steps.extend(docker::ready(view, docker)?);
    let mut files = Vec::new();
    if view.cri_dockerd.is_none()
        && let Some((command, _)) = view.target.command(&shim.service.exec_start)
    {
        let directory = "/etc/systemd/system";
        let service = service_text(&command);
        files.extend(file(
            &path(&format!("{directory}/{SERVICE}"))?,
            None,
            service,
            0o644,
        ));
        let socket = path(&format!("{directory}/{SOCKET_UNIT}"))?;
        files.extend(file(&socket, None, SOCKET_TEXT.to_owned(), 0o644));
    }
    let text = drop_in(view, docker, shim);
    let effective = Some(Effective::of_drop_in(&shim.drop_in.path, &text));
    files.extend(file(&shim.drop_in.path, shim.drop_in.file.as_ref(), text, 0o644));
    // One whose files are right but whose CRI does not answer was started before they were.
    let restart = if files.is_empty() && shim.cri.is_some() {
        Restart::Never
    } else {
        Restart::Forwards
    };
    if restart == Restart::Forwards {
        steps.push(opening(&shim.service));
    }
    steps.extend(files);
    steps.extend(started(
        &shim.service,
        &shim.socket,
        restart,
        &shim.endpoint,
        effective,
    ));
    Ok(steps)
}

/// The drop-in: its command with what the source did for the pods' network and sandboxes, and after Docker, without
/// which it ends at its start.
fn drop_in(view: &View<'_>, docker: &Docker, shim: &CriDockerd) -> String {
    let network = &view.source.network;
    let set = |name: &str, value: &str| Change::Set {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut changes = vec![
        set("docker-endpoint", &format!("unix://{}", docker.endpoint)),
        set("pod-infra-container-image", &view.carried.sandbox),
        set("network-plugin", &network.plugin),
        set("cni-conf-dir", &network.conf_dir),
        set("cni-bin-dir", &network.bin_dirs.join(",")),
        // Not that of a CRI-O before it, which takes those off the network, at its start, that stand in its own.
        set("cni-cache-dir", &view.settings.network.cache_dir),
    ];
    changes.extend(network.mtu.iter().map(|mtu| set("network-plugin-mtu", mtu)));
    changes.extend(network.hairpin_mode.iter().map(|mode| set("hairpin-mode", mode)));
    // dockershim and containerd report every address of a pod.
    if version::upstream(&view.target.version).is_some_and(|found| found >= DUAL_STACK_SINCE) {
        changes.push(set("ipv6-dual-stack", "true"));
    }
    let deadline = pod_environment::pull_deadline(view);
    changes.extend(deadline.iter().map(|deadline| set(PULL_DEADLINE_FLAG, deadline)));
    // A variable may hold one of these flags, so the words are those that it stands for.
    let command = kubelet_arguments::command(&shim.service);
    let words: Vec<String> = flags::change_words(&command, &changes)
        .iter()
        .map(|word| word.replace('$', "$$"))
        .collect();
    let command = view.target.command(&words).map(|(command, _)| command);
    let command = command.unwrap_or_else(|| {
        let words: Vec<String> = words.iter().map(|word| unit_file::word(word)).collect();
        words.join(" ")
    });
    format!(
        "# Written by Transship: cri-dockerd in front of Docker, with the settings of the runtime before it.\n[Unit]\nRequires={unit}\nAfter={unit}\n\n[Service]\nExecStart=\nExecStart={command}\n",
        unit = docker.service.name,
    )
}

/// The unit of upstream's packages, with this command.
fn service_text(command: &str) -> String {
    format!(
        "# Written by Transship after the unit of cri-dockerd's packages, which is not in its archive.
[Unit]
Description=CRI Interface for Docker Application Container Engine
Documentation=https://docs.mirantis.com
After=network-online.target firewalld.service docker.service
Wants=network-online.target
Requires={SOCKET_UNIT}

[Service]
Type=notify
ExecStart={command}
ExecReload=/bin/kill -s HUP $MAINPID
TimeoutSec=0
RestartSec=2
Restart=always
StartLimitBurst=3
StartLimitInterval=60s
LimitNOFILE=infinity
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
Delegate=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"
    )
}

/// The socket unit of upstream's packages.
const SOCKET_TEXT: &str =
    "# Written by Transship after the unit of cri-dockerd's packages, which is not in its archive.
[Unit]
Description=CRI Docker Socket for the API
PartOf=cri-docker.service

[Socket]
ListenStream=%t/cri-dockerd.sock
SocketMode=0660
SocketUser=root
SocketGroup=docker

[Install]
WantedBy=sockets.target
";

fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = no_new_privileges(view).into_iter().collect();
    findings.extend(exec_fails(view));
    if let (Some(docker), Some(shim)) = (view.docker, view.cri_dockerd) {
        let ours = Effective::of_drop_in(&shim.drop_in.path, &drop_in(view, docker, shim));
        findings.extend(refusals::shadowed(&ours, &shim.service));
    }
    if let Some(engine) = view.engine {
        findings.extend(unfit_engine(&view.target.version, &engine.version, view.daemon));
        if !matches!(&*engine.logging_driver, "json-file" | "") {
            findings.push(LOGGING_DRIVER.found(
                format!(
                    "Docker logs to {}, which cri-dockerd does not read",
                    engine.logging_driver
                ),
                "Set log-driver to json-file in daemon.json, or `kubectl logs` shows nothing.",
            ));
        }
    }
    if let Some(docker) = view.docker
        && let Driver::Changes(_) = docker::driver(view, docker)
    {
        findings.push(DOCKER_DRIVER_CHANGES.found(
            format!(
                "Docker's cgroup driver becomes the kubelet's, {}",
                view.cgroup_driver()
            ),
            "No container runs under Docker; it is restarted with the new driver.",
        ));
    }
    let listens = view
        .cri_dockerd
        .is_some_and(|shim| shim.socket.active == "active");
    if view.facts.docker_group == Some(false) && !listens {
        findings.push(DOCKER_GROUP_MISSING.found(
            "there is no group docker in /etc/group",
            "Make it (`groupadd --system docker`): the socket of cri-docker.socket belongs to it.",
        ));
    }
    findings
}

/// Docker's API: from 29 on it refuses clients below 1.44 (`min-api-version`), which cri-dockerd before 0.3.16 are;
/// 0.4.0 to 0.4.2 ask for 1.42, which came with Docker 23.
fn unfit_engine(found: &str, engine: &str, daemon: &Map<String, Value>) -> Option<Finding> {
    let (shim, docker) = (version::upstream(found)?, version::upstream(engine)?);
    let reason = if docker.major >= 29
        && shim < Version::new(0, 3, 16)
        && !daemon.contains_key("min-api-version")
    {
        "Docker 29 refuses its API version; use cri-dockerd 0.3.16 or later, or set min-api-version in daemon.json"
    } else if docker.major < 23 && (Version::new(0, 4, 0)..Version::new(0, 4, 3)).contains(&shim) {
        "it needs the API of Docker 23; use cri-dockerd 0.4.3, or 0.3"
    } else {
        return None;
    };
    Some(TARGET_VERSION_UNFIT.found(
        format!("cri-dockerd {found} cannot use Docker {engine}: {reason}"),
        "Install a version of cri-dockerd that fits.",
    ))
}

/// Minor version of the first kubelet with `ExtendWebSocketsToKubelet` on by default.
const WEBSOCKETS_SINCE: u64 = 36;

/// The kubelet's client of the streaming address.
fn exec_fails(view: &View<'_>) -> Option<Finding> {
    (view.settings.version.minor >= WEBSOCKETS_SINCE).then(|| {
        EXEC_FAILS.found(
            format!("kubelet {} with cri-dockerd {}", view.settings.version, view.target.version),
            "Switch the kubelet's feature gate ExtendWebSocketsToKubelet off, or set KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false where kubectl runs.",
        )
    })
}

/// `pkg/kubelet/lifecycle` of 1.23 wants the version of Docker's API from a runtime called docker, for a pod that has not
/// run yet.
fn no_new_privileges(view: &View<'_>) -> Option<Finding> {
    if view.settings.version.minor > 23 {
        return None;
    }
    let containers = view
        .engine
        .into_iter()
        .flat_map(|engine| &engine.store.containers);
    let pods: BTreeSet<String> = containers
        .filter(|container| container.running && container.no_new_privileges)
        .filter_map(|container| container.pod.as_ref())
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    let pods: Vec<String> = pods.into_iter().collect();
    let pair = format!(
        "kubelet {} with cri-dockerd {}",
        view.settings.version, view.target.version
    );
    Some(if pods.is_empty() {
        NO_NEW_PRIVILEGES_UNSUPPORTED.found(
            pair,
            "Such pods stay in `Cannot enforce NoNewPrivs`: move them to other nodes until the upgrade to 1.24, or move the node to containerd instead.",
        )
    } else {
        NO_NEW_PRIVILEGES_REFUSED.found(
            format!("{pair} starts no successors of {}", lists::some(&pods)),
            "Move the node to containerd instead, or keep nodes for such pods until the upgrade to 1.24 and accept it with `preflight.allow: [NoNewPrivilegesRefused]`.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_api_decides_what_fits() {
        let (plain, allowed) = (
            Map::new(),
            Map::from_iter([("min-api-version".to_owned(), "1.24".into())]),
        );
        let works = |shim, docker, daemon| unfit_engine(shim, docker, daemon).is_none();
        assert!(works("0.4.3", "20.10.24+dfsg1", &plain) && !works("0.4.1", "20.10.24", &plain));
        assert!(works("0.3.16", "29.1.0", &plain) && !works("0.3.15", "29.1.0", &plain));
        assert!(works("0.3.15", "29.1.0", &allowed));
    }
}
