//! containerd with its own CRI plugin.

mod condition;
mod left;
mod store;
mod upgrade;

use std::borrow::Cow;

use semver::Version;

use crate::{
    edit::{
        containerd_toml::{self, BINARY, Carried, ContainerdTomlError, Handler},
        hosts_toml,
        registry_auth::{self, Credential},
    },
    plan::{
        codes::{
            configuration::CONTAINERD_CONFIG_BROKEN,
            runtimes::{CRI_DISABLED, SOURCE_NOT_ANSWERING, TARGET_NOT_INSTALLED},
        },
        configuration::{ConfigurationWant, Form},
        digest::Digest,
        docker_runtimes,
        effective::Effective,
        facts::{Containerd, Facts, UpgradeFacts},
        finding::Finding,
        host_path,
        kubelet_settings::{PodNetwork, Settings},
        paths::{
            CONTAINERD_CONFIG, CONTAINERD_DROP_IN, CONTAINERD_ENVIRONMENT, CONTAINERD_SOCKET,
            PROGRAM_DIRECTORIES, RUNC_SHIM,
        },
        runtime::Runtime,
        step::{Boot, Contents, Endpoint, FileStep, Restart, Step, UnitStep},
        version,
    },
    planner::{
        context::{Downloads, Planner, Source, SourcePart, Takes, Target, TargetPart, View},
        delivery::{self, Delivery},
        docker_binding, docker_registries, other_settings, pod_environment, pod_network, refusals,
        request::Request,
        setting::{Fate, Given, Translation},
        steps::{RUNTIME_WITHIN_SECS, await_target, file, future_unit, maybe, opening, path},
        unit_drop_in::{self, DropIn},
    },
};

/// The planner of containerd.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::Containerd,
    source: Some(SourcePart {
        look: source,
        prepare: |_| Vec::new(),
        switch: |_| Ok(Vec::new()),
        // Docker's engine runs on containerd, and its CRI harms nobody.
        settle: |_| Ok(Vec::new()),
        settings: left::settings,
        layers: store::layers,
        check: |_| Vec::new(),
    }),
    target: Some(TargetPart {
        look: target,
        prepare,
        switch,
        without_pods: |_| Ok(Vec::new()),
        configuration,
        store: store::store,
        takes: Some(Takes {
            selinux: "enable_selinux",
            downloads: Downloads::Configured,
            default_runtime: "default_runtime_name",
            store_is_settled: store::is_settled,
            ulimits: None,
            handler,
            calls_runsc: false,
            has_runtime,
            registries: docker_registries::registries,
            credentials,
        }),
        packaged: &[],
        check,
        upgrade: Some(upgrade::in_place),
    }),
};

const SERVICE: &str = "containerd.service";
/// Where its unit is written where there is none.
const UNIT: &str = "/etc/systemd/system/containerd.service";

/// Upstream's unit, with this command.
fn unit_text(command: &str, search_path: &str) -> String {
    format!(
        "# Written by Transship after containerd's own unit, which is not in its archive.
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service

[Service]
{search_path}
ExecStartPre=-/sbin/modprobe overlay
ExecStart={command}
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
"
    )
}

fn source<'a>(facts: &'a Facts, settings: &Settings) -> Result<Source<'a>, Finding> {
    let answering = facts.containerd.as_ref().and_then(|containerd| {
        let (cri, store) = (containerd.cri.as_ref()?, containerd.store.as_ref()?);
        Some((containerd, cri, store))
    });
    let (containerd, cri, store) = answering.ok_or_else(|| {
        SOURCE_NOT_ANSWERING.found(
            "containerd's CRI does not answer, although the kubelet uses it",
            "Look at `systemctl status containerd`; a source that does not work cannot be rolled back to.",
        )
    })?;
    let cni = containerd.effective.as_deref().map(containerd_toml::cni);
    let mut cni = cni.unwrap_or_default();
    cni.conf_dir = cni.conf_dir.map(|dir| host_path::plain(&dir));
    cni.bin_dirs
        .iter_mut()
        .for_each(|dir| *dir = host_path::plain(dir));
    Ok(Source {
        runtime: Runtime::Containerd,
        version: cri.version.trim_start_matches('v').to_owned(),
        cri: endpoint(containerd),
        images: endpoint(containerd),
        store,
        network: PodNetwork {
            plugin: "cni".to_owned(),
            conf_dir: cni.conf_dir.unwrap_or_else(|| settings.network.conf_dir.clone()),
            bin_dirs: if cni.bin_dirs.is_empty() {
                settings.network.bin_dirs.clone()
            } else {
                cni.bin_dirs
            },
            ..settings.network.clone()
        },
        sandbox_image: containerd
            .effective
            .as_deref()
            .and_then(containerd_toml::sandbox_image)
            .unwrap_or_else(|| settings.sandbox_image.clone()),
        pull_deadline: containerd
            .effective
            .as_deref()
            .and_then(containerd_toml::pull_progress_timeout),
        cgroup_driver: cri.cgroup_driver.as_deref(),
        told_cgroup_driver: cri.cgroup_driver.as_deref(),
        unit: SERVICE,
    })
}

/// A further runtime: a shim where programs are looked for is found by its type.
fn handler(view: &View<'_>, handler: &Handler) -> Result<Handler, String> {
    let mut handler = handler.clone();
    // A program that its own shim has to start, as CRI-O has it.
    if handler.kind == RUNC_SHIM
        && let Some(kind) = handler.program().and_then(docker_runtimes::own_shim)
    {
        let shim = docker_runtimes::shim_program(kind);
        let Some(path) = view.facts.crio_programs.get(&shim) else {
            return Err(format!(
                "containerd needs {shim} for it, which is not where programs are looked for: install it there, and plan again."
            ));
        };
        handler.path = Some(path.to_string());
        kind.clone_into(&mut handler.kind);
        handler.options.retain(|(key, _)| key != BINARY);
    }
    let is_found = |path: &String| {
        let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
        PROGRAM_DIRECTORIES.contains(&directory)
    };
    handler.path = handler.path.filter(|path| !is_found(path));
    match &handler.path {
        Some(path) if version::upstream(&view.target.version) < Some(Version::new(1, 6, 0)) => Err(format!(
            "containerd before 1.6 takes a shim by its type alone: put {path} where programs are looked for, and plan again."
        )),
        _ => Ok(handler),
    }
}

/// Whether it has a runtime of this name.
fn has_runtime(view: &View<'_>, name: &str) -> bool {
    let texts = view.containerd.into_iter().flat_map(|containerd| {
        let written = containerd.config.file.as_ref().map(|file| file.text.as_str());
        [containerd.effective.as_deref(), written]
    });
    texts
        .flatten()
        .any(|text| containerd_toml::has_runtime(text, name))
}

fn target(facts: &Facts, request: &Request) -> Result<Target, Finding> {
    let delivery = delivery::delivery(&request.target, facts)?;
    if facts.containerd.is_none() && delivery.is_none() {
        return Err(TARGET_NOT_INSTALLED.found(
            "containerd is not installed",
            "Install containerd and its containerd.service on the node; it may run at the same time as Docker.",
        ));
    }
    let containerd = containerd(facts)?;
    let effective = containerd.effective.as_deref();
    Ok(Target {
        runtime: Runtime::Containerd,
        version: delivery
            .as_ref()
            .map_or_else(|| containerd.version.clone(), |delivery| delivery.version.clone()),
        cri: endpoint(&containerd),
        images: endpoint(&containerd),
        unit: SERVICE.to_owned(),
        until_switch: until_switch(facts, delivery.as_ref()),
        pull_deadline: effective.and_then(containerd_toml::pull_progress_timeout),
        delivery,
    })
}

/// The version that serves until the switch, if Docker's containers run on it.
fn until_switch(facts: &Facts, delivery: Option<&Delivery>) -> Option<String> {
    let docker = facts.docker.as_ref()?;
    let running = facts.containerd.as_ref()?;
    let both_run = [&docker.service, &running.service].map(|unit| unit.active == "active") == [true; 2];
    let brought = delivery.is_some_and(|delivery| !delivery.has_unit);
    (both_run && brought).then(|| running.version.clone())
}

/// containerd as it was found, or as the plan is going to write its unit.
fn containerd(facts: &Facts) -> Result<Cow<'_, Containerd>, Finding> {
    if let Some(found) = &facts.containerd {
        return Ok(Cow::Borrowed(found));
    }
    Ok(Cow::Owned(Containerd {
        service: future_unit(SERVICE, &["containerd"]),
        version: String::new(),
        config: maybe(facts, CONTAINERD_CONFIG)?,
        effective: None,
        endpoint: path(CONTAINERD_SOCKET)?,
        cri: None,
        cri_problem: None,
        store: None,
        drop_in: maybe(facts, CONTAINERD_DROP_IN)?,
        imported: Vec::new(),
        upgrade: UpgradeFacts::default(),
    }))
}

fn endpoint(containerd: &Containerd) -> Endpoint {
    Endpoint {
        runtime: Runtime::Containerd,
        socket: containerd.endpoint.clone(),
    }
}

/// The other program, where it cannot start beside the source. Before any pod ends its CRI must answer: until then
/// Docker runs on, and the way back is one more restart of containerd, which all containers outlive that the older one
/// has started.
fn switch(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let (Some(docker), Some(containerd)) = (
        view.docker,
        view.containerd.filter(|_| view.replaces_docker_containerd()),
    ) else {
        return Ok(Vec::new());
    };
    let unit = |name: &str, active, restart| {
        Step::Unit(UnitStep {
            unit: name.to_owned(),
            active,
            boot: None,
            restart,
            socket: None,
            effective: None,
        })
    };
    let prepared = drop_in(view, containerd, Program::Present);
    let old = containerd.drop_in.file.as_ref().map(|file| file.digest.clone());
    let text = drop_in(view, containerd, Program::Brought)
        .map(|drop_in| drop_in.text)
        .unwrap_or_default();
    let containerd_unit = &containerd.service.name;
    // While Docker is away nobody may start it again through its socket.
    let socket = Some(&docker.socket).filter(|socket| socket.active == "active");
    let socket = |restart| socket.map(|socket| unit(&socket.name, None, restart));
    let docker = &docker.service.name;
    // cri-dockerd may have been stopped with Docker.
    let shim = view
        .cri_dockerd
        .filter(|_| view.source.runtime == Runtime::CriDockerd);
    let mut steps: Vec<Step> = shim
        .map(|shim| unit(&shim.service.name, None, Restart::StartedBackwards))
        .into_iter()
        .collect();
    steps.push(unit(docker, None, Restart::StartedBackwards));
    steps.extend(socket(Restart::StartedBackwards));
    steps.extend([
        unit(containerd_unit, None, Restart::Backwards),
        Step::File(FileStep {
            path: containerd.drop_in.path.clone(),
            planned_from: prepared.map(|drop_in| Digest::of(drop_in.text)).or(old),
            want: Some(Contents {
                mode: 0o644,
                text: text.clone(),
            }),
        }),
        Step::Unit(UnitStep {
            unit: containerd_unit.clone(),
            active: Some(true),
            boot: None,
            restart: Restart::Forwards,
            socket: None,
            effective: Some(Effective::of_drop_in(&containerd.drop_in.path, &text)),
        }),
        await_target(view, None, RUNTIME_WITHIN_SECS),
        unit(docker, None, Restart::StoppedBackwards),
    ]);
    steps.extend(socket(Restart::StoppedBackwards));
    Ok(steps)
}

/// containerd brought, configured, and started beside the source.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let containerd = &*containerd(view.facts)?;
    let unit = &containerd.service;
    let config = file(
        &containerd.config.path,
        containerd.config.file.as_ref(),
        config(view, containerd)?,
        if view.translation.credentials().is_empty() {
            0o644
        } else {
            registry_auth::MODE
        },
    );
    let mut steps = Vec::new();
    let mut files = Vec::new();
    for registry in view.translation.registry_files().filter(|file| !file.is_there) {
        files.extend(file(
            &path(&registry.path)?,
            None,
            registry.text.clone(),
            hosts_toml::MODE,
        ));
    }
    // A package may have a configuration of its own; where there is a file already, package managers keep it.
    if view.target.is_packaged() && view.containerd.is_none() {
        steps.extend(config);
    } else {
        files.extend(config);
    }
    steps.extend(view.target.delivered());
    if view.containerd.is_none()
        && let Some((command, search_path)) = view.target.command(&["containerd".to_owned()])
    {
        files.extend(file(&path(UNIT)?, None, unit_text(&command, &search_path), 0o644));
    }
    let program = if view.replaces_docker_containerd() {
        Program::Present
    } else {
        Program::Brought
    };
    let mut effective = None;
    if let Some(drop_in) = drop_in(view, containerd, program) {
        effective = Some(drop_in.effective());
        files.extend(drop_in.files(view.facts)?);
    }
    // A containerd whose files are right but whose CRI does not answer was started before they were; and its program may
    // have been replaced since.
    let started_before = containerd.cri.as_ref().is_none_or(|cri| {
        let versions = version::upstream(&cri.version).zip(version::upstream(&containerd.version));
        versions.is_some_and(|(runs, installed)| runs != installed)
    });
    let restart = !files.is_empty() || started_before;
    if restart {
        let docker = view.docker_left();
        // Where it cannot be loosened there is a finding.
        steps.extend(
            docker
                .and_then(|(docker, _)| docker_binding::loosened(docker, &unit.name))
                .into_iter()
                .flatten(),
        );
        steps.push(opening(unit));
    }
    steps.extend(files);
    steps.push(Step::Unit(UnitStep {
        unit: unit.name.clone(),
        active: Some(true),
        boot: Some(Boot::Enabled),
        restart: if restart {
            Restart::Forwards
        } else {
            Restart::Never
        },
        socket: None,
        effective,
    }));
    Ok(steps)
}

/// Which program a drop-in starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// The one that is there.
    Present,
    /// The one that the plan brings, where it brings one.
    Brought,
}

/// The drop-in for its unit, if it needs one.
fn drop_in<'a>(view: &View<'_>, containerd: &'a Containerd, program: Program) -> Option<DropIn<'a>> {
    let brought = view.target.command(&containerd.service.exec_start);
    let unit = unit_drop_in::Unit {
        unit: &containerd.service,
        is_there: view.containerd.is_some(),
        drop_in: &containerd.drop_in,
        environment: CONTAINERD_ENVIRONMENT,
    };
    unit_drop_in::drop_in(view, unit, brought.filter(|_| program == Program::Brought))
}

/// What the effective configuration must have before a pod stops, as the program reads it under which pods will run: a
/// program that the plan brings prints it before it is started, too.
fn configuration(view: &View<'_>) -> Option<ConfigurationWant> {
    let containerd = containerd(view.facts).ok()?;
    let delivery = view.target.delivery.as_ref();
    let program = match delivery.filter(|delivery| !delivery.has_unit) {
        Some(delivery) => delivery.program.as_str(),
        // systemd would replace a variable.
        None => containerd
            .service
            .exec_start
            .first()
            .filter(|program| !program.contains('$'))?,
    };
    let path = containerd.config.path.as_str();
    Some(ConfigurationWant {
        command: [program, "--config", path, "config", "dump"]
            .map(str::to_owned)
            .to_vec(),
        form: Form::Containerd,
        systemd_cgroup: view.cgroup_driver() == "systemd",
        sandbox_image: view.carried.sandbox.clone(),
        carried: carried(&view.translation),
        handlers: view.translation.handlers().cloned().collect(),
    })
}

/// What becomes of credentials. containerd 2.x still reads them, and says that a later release will not (`RELEASES.md`).
fn credentials(view: &View<'_>, credentials: &[Credential]) -> Fate {
    let file = view
        .containerd
        .and_then(|containerd| containerd.config.file.as_ref());
    let has = file.map(|file| containerd_toml::old_registries(&file.text).credentials);
    let is_new = |one: &&Credential| has.iter().flatten().all(|known| known.host != one.host);
    let new: Vec<Credential> = credentials.iter().filter(is_new).cloned().collect();
    if new.is_empty() {
        return Fate::Inherent("containerd's configuration has some for each of these registries".into());
    }
    let how = format!(
        "registry.configs.*.auth in containerd's configuration, which root alone can read then, has those for {}. With them containerd \
         2.1 and later pull without their transfer service",
        other_settings::hosts(&new)
    );
    Fate::Carried(Given::Credentials(new), how.into())
}

/// What the configuration must have for the source's settings.
fn carried(translation: &Translation) -> Carried {
    Carried {
        root: translation.root().map(str::to_owned),
        registries: translation.registries().map(str::to_owned),
        max_downloads: translation.downloads(),
        selinux: translation.selinux().then_some(true),
        default_runtime: translation.default_handler().map(str::to_owned),
        auth_file: None,
    }
}

/// Its configuration as it must be; a newer containerd reads what is written for an older one.
fn config(view: &View<'_>, containerd: &Containerd) -> Result<String, Finding> {
    let version = if view.replaces_docker_containerd() {
        version::upstream(&containerd.version)
    } else {
        version::upstream(&view.target.version)
    };
    let since = |major, minor| version >= Some(Version::new(major, minor, 0));
    let wanted = containerd_toml::Wanted {
        systemd_cgroup: view.cgroup_driver() == "systemd",
        sandbox_image: view.carried.sandbox.clone(),
        // Always written: Debian's containerd looks in /usr/lib/cni by itself. Where no directory has all plugins
        // there is a finding.
        cni_bin_dir: pod_network::bin_dir(view).unwrap_or_default(),
        cni_conf_dir: view.source.network.conf_dir.clone(),
        bin_dirs: since(2, 1),
        newest_version: if since(2, 3) {
            4
        } else if since(2, 0) {
            3
        } else {
            2
        },
        unprivileged: since(1, 6) && pod_environment::unprivileged(view),
        unprivileged_by_default: since(2, 0),
        pull_progress_timeout: pod_environment::pull_deadline(view).filter(|_| since(1, 7)),
        handlers: view.translation.handlers().cloned().collect(),
        carried: carried(&view.translation),
        credentials: view.translation.credentials().to_vec(),
    };
    let old = containerd.config.file.as_ref().map(|file| file.text.as_str());
    containerd_toml::edit(old, &wanted).map_err(|error| {
        let path = &containerd.config.path;
        // The command came with 2.0.
        let remedy = match error {
            ContainerdTomlError::VersionOne if since(2, 0) => {
                format!("Write a new file (`containerd config migrate > new.toml`), look at the result, put it at {path}, and plan again.")
            }
            ContainerdTomlError::VersionOne => format!(
                "Move it aside (`mv {path} {path}.v1`) and plan again: the plan writes a small file of version 2. Then add \
                 what you still need of the old one. Docker does not read the file."
            ),
            _ => "Correct the file, and plan again.".to_owned(),
        };
        CONTAINERD_CONFIG_BROKEN.found(format!("{path}: {error}"), remedy)
    })
}

fn check(view: &View<'_>) -> Vec<Finding> {
    let Some(containerd) = view.containerd else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    findings.extend(refusals::not_loaded(&containerd.service));
    if let Some(ours) = drop_in(view, containerd, Program::Brought) {
        findings.extend(refusals::shadowed(&ours.effective(), &containerd.service));
    }
    let text = containerd
        .config
        .file
        .as_ref()
        .map_or("", |file| file.text.as_str());
    if containerd_toml::disables_cri(text).unwrap_or(false) {
        findings.push(CRI_DISABLED.found(
            format!("{} disables the CRI plugin", containerd.config.path),
            "The plan switches it on; Docker does not need it to be off.",
        ));
    } else if containerd.service.active == "active"
        && containerd.cri.is_none()
        && !view.replaces_docker_containerd()
    {
        findings.push(condition::cri_not_answering(containerd, text));
    }
    findings.extend(condition::in_usr(containerd));
    findings.extend(condition::files(view, containerd));
    findings
}
