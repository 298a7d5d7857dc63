//! Docker Engine: its units and configuration, and what the running engine says of itself.

use std::collections::BTreeMap;

use bollard::models::{ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, ImageSummary};

use super::{
    kubelet::Flags,
    notes::{Notes, exists},
    programs,
    units::Units,
};
use crate::{
    edit::{containerd_toml::CONFIG_PATH, daemon_json},
    host::files::Files,
    plan::{
        docker_runtimes::{self, DockerRuntime},
        facts::{Container, Docker, Engine, Image, JOB_LABELS, PodRef, SANDBOX, Store, TextFile, UnitFacts},
        host_path::{self, HostPath},
        paths::{DAEMON_JSON, DOCKER_DATA_ROOT, DOCKER_SOCKET, DOCKER_UNITS},
    },
    runtime::{RuntimeError, docker, reference},
};

/// Its units, and that of the snap.
pub(super) const UNITS: [&str; 3] = [DOCKER_UNITS[0], DOCKER_UNITS[1], "snap.docker.dockerd.service"];
/// Where logrotate(8) has its rules.
const LOG_RULES: &str = "/etc/logrotate.d";

/// Looks at Docker Engine; nothing when it is not installed.
pub(super) async fn inspect(files: &Files, units: &Units, flags: &Flags, notes: &Notes) -> Option<Docker> {
    let [service, socket, snap] = UNITS.map(|name| units.named(name));
    let endpoint = flags.get("docker-endpoint").unwrap_or(DOCKER_SOCKET);
    let endpoint = notes.keep(HostPath::new(socket_path(endpoint)))?;
    if service.load == "not-found" && !exists(files, endpoint.as_str()) {
        return None;
    }
    // Connecting to the socket of a stopped engine would start it.
    let runs = service.active == "active" || service.load == "not-found";
    let engine = match notes.keep(files.real(&endpoint)) {
        Some(socket) if runs => notes.keep(engine(&socket).await),
        _ => None,
    };
    let started = service.active_since_micros;
    let other_unit = (service.load == "not-found" && snap.active == "active").then_some(snap.name);
    let daemon_json = notes.text(files, DAEMON_JSON);
    Some(Docker {
        own_unit: (service.own_file()).and_then(|path| notes.text(files, path.as_str())),
        runtime_programs: runtime_programs(files, &service, daemon_json.as_ref(), engine.as_ref()),
        daemon_json_unread: started != 0 && engine.is_some() && is_newer(files, DAEMON_JSON, started),
        other_unit,
        service,
        socket,
        endpoint,
        daemon_json,
        engine,
    })
}

/// Where the programs are that Docker's runtimes beside runc need. A `daemon.json` that cannot be read has a finding of its
/// own.
fn runtime_programs(
    files: &Files,
    service: &UnitFacts,
    daemon_json: Option<&TextFile>,
    engine: Option<&Engine>,
) -> BTreeMap<String, HostPath> {
    let daemon = daemon_json.and_then(|file| daemon_json::parse(&file.text).ok());
    let mut runtimes = docker_runtimes::configured(service, &daemon.unwrap_or_default());
    runtimes.extend(engine.map(|engine| DockerRuntime::of_shim(&engine.default_runtime)));
    let configs = |runtime: &DockerRuntime| {
        runtime
            .options
            .get(CONFIG_PATH)
            .filter(|path| path.starts_with('/'))
            .cloned()
    };
    let programs = runtimes.iter().flat_map(|runtime| {
        let called = runtime.needs().into_iter().chain(runtime.runsc());
        called.chain(configs(runtime))
    });
    programs
        .filter_map(|program| Some((program.clone(), programs::find(files, &program)?)))
        .collect()
}

/// The path of an endpoint as it is written, without its scheme.
fn socket_path(endpoint: &str) -> String {
    host_path::plain(endpoint.strip_prefix("unix:").unwrap_or(endpoint))
}

/// Whether a file was written after a moment, in microseconds since 1970.
fn is_newer(files: &Files, path: &str, moment: u64) -> bool {
    let written = || {
        let written = files.modified(&HostPath::new(path).ok()?).ok()??;
        let since = written.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_micros()).ok()
    };
    written().is_some_and(|written| written > moment)
}

async fn engine(socket: &std::path::Path) -> Result<Engine, RuntimeError> {
    let engine = docker::Engine::connect(socket).await?;
    let (info, containers, images) =
        tokio::try_join!(engine.info(), engine.containers(&[]), engine.images())?;
    let mut containers: Vec<Container> = containers.into_iter().map(container).collect();
    for container in &mut containers {
        // The list does not say it. All sandboxes have it.
        let of_pod = container.pod.as_ref().is_some_and(|pod| pod.container != SANDBOX);
        if container.running && of_pod {
            let found = engine.container(&container.id).await?;
            container.no_new_privileges = found.is_some_and(no_new_privileges);
        }
    }
    let data_root = info
        .docker_root_dir
        .unwrap_or_else(|| DOCKER_DATA_ROOT.to_owned());
    Ok(Engine {
        version: engine.version().to_owned(),
        cgroup_driver: info
            .cgroup_driver
            .map(|driver| driver.to_string())
            .unwrap_or_default(),
        storage_driver: info.driver.unwrap_or_default(),
        data_root: HostPath::new(host_path::plain(&data_root))
            .map_err(|error| RuntimeError::because("Docker's data root", error))?,
        user_namespaces: info
            .security_options
            .unwrap_or_default()
            .iter()
            .any(|option| option.contains("name=userns")),
        live_restore: info.live_restore_enabled.unwrap_or_default(),
        default_runtime: info.default_runtime.unwrap_or_default(),
        logging_driver: info.logging_driver.unwrap_or_default(),
        store: Store {
            containers,
            images: images
                .into_iter()
                .map(image)
                .filter(|image| !image.names.is_empty() || !image.digests.is_empty())
                .collect(),
        },
    })
}

fn container(summary: ContainerSummary) -> Container {
    let mut labels = summary.labels.unwrap_or_default();
    let of_job = JOB_LABELS.iter().any(|label| labels.contains_key(*label));
    let mut label = |name: &str| labels.remove(name);
    let pod = label("io.kubernetes.pod.uid").map(|uid| PodRef {
        uid,
        namespace: label("io.kubernetes.pod.namespace").unwrap_or_default(),
        name: label("io.kubernetes.pod.name").unwrap_or_default(),
        // A sandbox has no container's name in its labels.
        container: label("io.kubernetes.container.name").unwrap_or_else(|| SANDBOX.to_owned()),
    });
    let name = summary
        .names
        .unwrap_or_default()
        .into_iter()
        .next()
        .unwrap_or_default();
    let mounts = summary.mounts.unwrap_or_default().into_iter();
    Container {
        id: summary.id.unwrap_or_default(),
        name: name.trim_start_matches('/').to_owned(),
        image_id: summary.image_id.unwrap_or_default(),
        running: matches!(
            summary.state,
            Some(
                ContainerSummaryStateEnum::RUNNING
                    | ContainerSummaryStateEnum::PAUSED
                    | ContainerSummaryStateEnum::RESTARTING
            )
        ),
        pod,
        mounts: mounts
            .filter_map(|mount| mount.source)
            .filter(|path| !path.is_empty())
            .collect(),
        no_new_privileges: false,
        of_job,
    }
}

/// Whether dockershim or cri-dockerd made it for `allowPrivilegeEscalation: false`.
fn no_new_privileges(container: ContainerInspectResponse) -> bool {
    let host = container.host_config.unwrap_or_default();
    let mut options = host.security_opt.into_iter().flatten();
    options.any(|option| option == "no-new-privileges")
}

fn image(summary: ImageSummary) -> Image {
    Image {
        id: summary.id,
        names: reference::named(&summary.repo_tags).collect(),
        digests: reference::named(&summary.repo_digests).collect(),
        size: u64::try_from(summary.size).unwrap_or_default(),
    }
}

/// Where its images and containers are, or will be.
pub(super) fn data_root(docker: Option<&Docker>) -> &str {
    let engine = docker.and_then(|docker| docker.engine.as_ref());
    engine.map_or(DOCKER_DATA_ROOT, |engine| engine.data_root.as_str())
}

/// Rules of logrotate for the logs under Docker's data root.
pub(super) fn log_rules(files: &Files, docker: Option<&Docker>) -> Vec<HostPath> {
    let engine = docker.and_then(|docker| docker.engine.as_ref());
    engine.map_or_else(Vec::new, |engine| rules_for(files, &engine.data_root))
}

/// The same for a data root, and for the usual place if that is a link to it.
pub(super) fn rules_for(files: &Files, data_root: &HostPath) -> Vec<HostPath> {
    let linked = HostPath::new(DOCKER_DATA_ROOT)
        .ok()
        .filter(|usual| files.resolved(usual).is_ok_and(|real| real == *data_root));
    let roots = [Some(data_root.clone()), linked];
    let logs: Vec<String> = roots
        .into_iter()
        .flatten()
        .map(|root| format!("{root}/containers/"))
        .collect();
    let directory = HostPath::new(LOG_RULES).ok();
    let names = directory.and_then(|directory| files.list(&directory).ok());
    names
        .unwrap_or_default()
        .into_iter()
        .filter_map(|name| HostPath::new(format!("{LOG_RULES}/{name}")).ok())
        .filter(|path| matches!(files.read_text(path), Ok(Some(text)) if logs.iter().any(|logs| text.contains(logs))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_gains_no_privileges_says_so_among_its_security_options() {
        for (options, wanted) in [
            (r#"["seccomp=unconfined", "no-new-privileges"]"#, true),
            (r#"["seccomp=unconfined"]"#, false),
            ("null", false),
        ] {
            let found = format!(r#"{{ "HostConfig": {{ "SecurityOpt": {options} }} }}"#);
            let found = serde_json::from_str(&found).unwrap();
            assert_eq!(no_new_privileges(found), wanted, "{options}");
        }
    }

    #[test]
    fn containers_of_pods_are_told_from_others() {
        let mut listed: Vec<ContainerSummary> = serde_json::from_str(include_str!(
            "../../tests/host/runtimes/docker-20.10-containers.json"
        ))
        .unwrap();
        let mut plain = listed[0].clone();
        plain.labels = None;
        plain.state = Some(ContainerSummaryStateEnum::EXITED);
        listed.push(plain);
        let seen: Vec<(Option<(String, String)>, bool)> = listed
            .into_iter()
            .map(container)
            .map(|one| (one.pod.map(|pod| (pod.name, pod.container)), one.running))
            .collect();
        let of = |pod: &str, container: &str| (Some((pod.to_owned(), container.to_owned())), true);
        assert_eq!(
            seen,
            [
                of("host-port-r6c4k", "server"),
                of("host-port-r6c4k", "POD"),
                of("kube-proxy-wrrlc", "kube-proxy"),
                of("kube-proxy-wrrlc", "POD"),
                (None, false),
            ]
        );
    }
}
