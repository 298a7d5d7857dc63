//! The plan from dockershim to containerd, in the order that matters (design, section 5). Read backwards it is a
//! valid procedure too: the files of a unit stand between two steps for it, and the critical section opens with
//! the look at the source that closes it on the way back.

use super::{
    digest::Digest,
    docker_settings,
    document::{FORMAT, Plan, PlannedStep, Section},
    facts::{Docker, TextFile, UnitFacts},
    finding::Finding,
    findings::{
        View,
        configuration::{self, CONTAINERD_CONFIG_BROKEN, CRICTL_CONFIG_BROKEN, KUBELET_CONFIG_BROKEN},
        network,
    },
    host_path::HostPath,
    kubelet_arguments,
    step::{
        AwaitStep, Boot, Contents, Endpoint, FileStep, HOLD_FILE, ImagesStep, KubeletStep, KubeletWant,
        Rehearsal, Restart, Side, Step, StopPods, UnitStep,
    },
    version,
};
use crate::{
    api::request::Runtime,
    edit::{
        containerd_toml,
        flags::Change,
        yaml::{self, YamlError},
    },
};

/// The drop-in that keeps the kubelet from starting while [`HOLD_FILE`] exists.
pub const HOLD_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/90-transship-hold.conf";
/// crictl's configuration.
pub const CRICTL: &str = "/etc/crictl.yaml";

/// Fields of the kubelet's configuration (1.27 and later) that name a runtime where they are set.
const ENDPOINT_FIELDS: [&str; 2] = ["containerRuntimeEndpoint", "imageServiceEndpoint"];

/// Longest grace period of a pod. The node has been drained: what is left are DaemonSets' pods, and the node must
/// be back before the controller manager calls it lost (40 s).
const GRACE_LIMIT_SECS: u32 = 20;
const CONTAINERD_WITHIN_SECS: u32 = 60;
const KUBELET_WITHIN_SECS: u32 = 120;

/// Flags that mean nothing, or are fatal, without dockershim.
const DOCKERSHIM_FLAGS: [&str; 19] = [
    "network-plugin",
    "network-plugin-mtu",
    "cni-conf-dir",
    "cni-bin-dir",
    "cni-cache-dir",
    "docker-endpoint",
    "image-pull-progress-deadline",
    "experimental-dockershim-root-directory",
    "redirect-container-streaming",
    "non-masquerade-cidr",
    "docker",
    "docker-root",
    "docker-env-metadata-whitelist",
    "docker-only",
    "docker-tls",
    "docker-tls-ca",
    "docker-tls-cert",
    "docker-tls-key",
    // Without it the kubelet asks the runtime's endpoint for images too.
    "image-service-endpoint",
];

/// The plan, or why a file cannot be edited.
pub fn plan(view: &View<'_>) -> Result<Plan, Finding> {
    let steps = [
        (Section::Prepare, prepare(view)?),
        (Section::Switch, switch(view)?),
        (Section::Settle, settle(view)?),
    ];
    let within = view.request.rollback.confirm_within.get().as_secs();
    Ok(Plan {
        format: FORMAT,
        migration: view.request.migration.clone(),
        node: view.facts.node.clone(),
        machine_id: view.facts.machine_id.clone(),
        source: (Runtime::Dockershim, view.engine.version.clone()),
        target: (Runtime::Containerd, view.containerd.version.clone()),
        confirm_within_secs: u32::try_from(within).unwrap_or(u32::MAX),
        rollback_automatic: view.request.rollback.automatic,
        findings: Vec::new(),
        steps: steps
            .into_iter()
            .flat_map(|(section, steps)| steps.into_iter().map(move |does| PlannedStep { section, does }))
            .collect(),
    })
}

fn source(view: &View<'_>) -> Endpoint {
    Endpoint {
        runtime: Runtime::Dockershim,
        socket: view.docker.endpoint.clone(),
    }
}

fn target(view: &View<'_>) -> Endpoint {
    Endpoint {
        runtime: Runtime::Containerd,
        socket: view.containerd.endpoint.clone(),
    }
}

fn target_url(view: &View<'_>) -> String {
    format!("unix://{}", view.containerd.endpoint)
}

/// While the node serves: containerd configured and started beside Docker, the images, the rehearsal.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let containerd = view.containerd;
    let unit = &containerd.service;
    let mut files = Vec::new();
    let config = containerd_config(view)?;
    files.extend(file(
        &containerd.config.path,
        containerd.config.file.as_ref(),
        config,
        0o644,
    ));
    if let Some(text) = docker_settings::drop_in(view.docker, view.daemon, containerd) {
        // A proxy's password is for root alone.
        let mode = if text.contains('@') { 0o600 } else { 0o644 };
        files.extend(file(
            &containerd.drop_in.path,
            containerd.drop_in.file.as_ref(),
            text,
            mode,
        ));
    }
    // One whose files are right but whose CRI does not answer was started before they were.
    let restart = !files.is_empty() || containerd.cri.is_none();
    let mut steps = Vec::new();
    if restart {
        steps.push(Step::Unit(UnitStep {
            unit: unit.name.clone(),
            active: None,
            boot: None,
            restart: Restart::Backwards,
            socket: None,
        }));
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
    }));
    steps.push(await_target(view, None, CONTAINERD_WITHIN_SECS));
    steps.extend(images(view));
    steps.push(Step::Rehearse(Rehearsal {
        cri: target(view),
        cgroup_parent: match &*view.settings.cgroup_driver {
            "systemd" => "transship.slice".to_owned(),
            _ => "/transship".to_owned(),
        },
        pod_network: network::rehearse_in_pod_network(view),
    }));
    Ok(steps)
}

/// The critical section, with the last look at the images before it.
fn switch(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let facts = view.facts;
    let hold = path(HOLD_DROP_IN)?;
    let mut steps: Vec<Step> = file(&hold, facts.text_at(&hold), hold_text(), 0o644)
        .into_iter()
        .collect();
    // What came into use since they were prepared; what is there already is left.
    steps.extend(images(view));
    steps.push(Step::Await(AwaitStep {
        side: Side::Source,
        runtime: source(view),
        kubelet: Some(KubeletWant {
            endpoint_flag: view.settings.endpoint_flag.clone(),
        }),
        within_secs: KUBELET_WITHIN_SECS,
    }));
    steps.push(Step::Kubelet(KubeletStep { run: false }));
    steps.push(Step::StopPods(StopPods {
        source: source(view),
        target: target(view),
        grace_limit_secs: GRACE_LIMIT_SECS,
        cni_bin_dirs: view
            .settings
            .cni_bin_dirs
            .iter()
            .map(|dir| path(dir))
            .collect::<Result<_, _>>()?,
        cni_cache_dir: path(&view.settings.cni_cache_dir)?,
    }));
    steps.extend(kubelet_files(view)?);
    steps.push(Step::Kubelet(KubeletStep { run: true }));
    steps.push(await_target(
        view,
        Some(KubeletWant {
            endpoint_flag: Some(target_url(view)),
        }),
        KUBELET_WITHIN_SECS,
    ));
    Ok(steps)
}

/// After the critical section: Docker's units, unless it stays, and the hold.
fn settle(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let mut steps = Vec::new();
    if !view.request.target.keep_source {
        steps.extend(docker_ended(view.docker));
    }
    steps.push(Step::File(FileStep {
        path: path(HOLD_DROP_IN)?,
        planned_from: Some(Digest::of(hold_text())),
        want: None,
    }));
    Ok(steps)
}

fn hold_text() -> String {
    format!(
        "# Written by Transship for the time of a switch: only Transship starts the kubelet.\n[Unit]\nConditionPathExists=!{HOLD_FILE}\n"
    )
}

fn await_target(view: &View<'_>, kubelet: Option<KubeletWant>, within_secs: u32) -> Step {
    Step::Await(AwaitStep {
        side: Side::Target,
        runtime: target(view),
        kubelet,
        within_secs,
    })
}

fn images(view: &View<'_>) -> Option<Step> {
    let names = view.cargo.names.clone();
    (!names.is_empty()).then(|| {
        Step::Images(ImagesStep {
            from: source(view),
            to: target(view),
            names,
        })
    })
}

/// Docker stopped, and kept from being started by anybody. Its socket would start it again, so both are; and systemd
/// starts no socket whose service is masked, so the service is masked last and, on the way back, unmasked first.
fn docker_ended(docker: &Docker) -> Vec<Step> {
    let (service, socket) = (&docker.service, &docker.socket);
    let step = |unit: &UnitFacts, active, boot| {
        Step::Unit(UnitStep {
            unit: unit.name.clone(),
            active,
            boot: Some(boot),
            restart: Restart::Never,
            socket: Some(docker.endpoint.clone()),
        })
    };
    let exists = |unit: &UnitFacts| unit.load != "not-found" && !unit.load.is_empty();
    let mut steps = Vec::new();
    if exists(service) {
        steps.push(step(service, Some(false), Boot::Disabled));
    }
    if exists(socket) {
        steps.push(step(socket, Some(false), never(socket)));
    }
    if exists(service) && never(service) == Boot::Masked {
        steps.push(step(service, None, Boot::Masked));
    }
    steps
}

/// Masked, or, where the unit's file lies where the mask would, disabled.
fn never(unit: &UnitFacts) -> Boot {
    let own = unit
        .fragment
        .as_ref()
        .is_some_and(|path| path.as_str().starts_with("/etc/systemd/system/"));
    if own { Boot::Disabled } else { Boot::Masked }
}

/// containerd's configuration as it must be.
fn containerd_config(view: &View<'_>) -> Result<String, Finding> {
    let containerd = view.containerd;
    let has_bin_dirs = |version: semver::Version| version >= semver::Version::new(2, 1, 0);
    let wanted = containerd_toml::Wanted {
        systemd_cgroup: view.settings.cgroup_driver == "systemd",
        sandbox_image: view.cargo.sandbox.clone(),
        // Always written: Debian's containerd looks in /usr/lib/cni by itself. Where no directory has all plugins
        // there is a finding.
        cni_bin_dir: network::bin_dir(view).unwrap_or_default(),
        cni_conf_dir: view.settings.cni_conf_dir.clone(),
        bin_dirs: version::upstream(&containerd.version).is_some_and(has_bin_dirs),
    };
    let old = containerd.config.file.as_ref().map(|file| file.text.as_str());
    containerd_toml::edit(old, &wanted).map_err(|error| {
        CONTAINERD_CONFIG_BROKEN.found(
            format!("{}: {error}", containerd.config.path),
            "Correct the file, and plan again.",
        )
    })
}

/// Every place that says which runtime is used: the kubelet's flags, its configuration where that names an
/// endpoint, and crictl's.
fn kubelet_files(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let facts = view.facts;
    let mut steps = Vec::new();
    let edits = kubelet_arguments::change(&view.kubelet.unit, &changes(view))
        .map_err(|error| configuration::arguments(&error))?;
    for edit in edits {
        steps.extend(file(&edit.path, facts.text_at(&edit.path), edit.text, 0o644));
    }
    let configs = view
        .kubelet
        .config
        .iter()
        .chain(&view.kubelet.config_drop_ins)
        .chain(&view.kubelet.instance_config);
    for old in configs {
        let text = ENDPOINT_FIELDS
            .into_iter()
            .try_fold(old.text.clone(), |text, key| {
                let named = yaml::get(&text, key)?.is_some_and(|endpoint| !endpoint.is_empty());
                if named {
                    yaml::set(&text, key, &target_url(view))
                } else {
                    Ok(text)
                }
            });
        let text = text.map_err(|error: YamlError| {
            KUBELET_CONFIG_BROKEN.found(
                format!("{}: {error}", old.path),
                "Edit it by hand, and plan again.",
            )
        })?;
        steps.extend(file(&old.path, Some(old), text, old.mode));
    }
    let crictl = path(CRICTL)?;
    let old = facts.text_at(&crictl);
    let text = ["runtime-endpoint", "image-endpoint"].into_iter().try_fold(
        old.map_or(String::new(), |file| file.text.clone()),
        |text, key| yaml::set(&text, key, &target_url(view)),
    );
    let text = text.map_err(|error| {
        CRICTL_CONFIG_BROKEN.found(
            format!("{CRICTL}: {error}"),
            "Correct or remove it, and plan again.",
        )
    })?;
    steps.extend(file(&crictl, old, text, 0o644));
    Ok(steps)
}

/// The kubelet's flags under containerd. `--container-runtime` is needed up to 1.23, where its default is docker;
/// the sandbox image is named so that the kubelet's image garbage collection spares it.
fn changes(view: &View<'_>) -> Vec<Change> {
    let set = |name: &str, value: &str| Change::Set {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let removed = DOCKERSHIM_FLAGS.into_iter().map(|name| Change::Remove {
        name: name.to_owned(),
    });
    let mut changes: Vec<Change> = removed.collect();
    changes.extend([
        set("container-runtime", "remote"),
        set("container-runtime-endpoint", &target_url(view)),
        set("pod-infra-container-image", &view.cargo.sandbox),
    ]);
    if let Some(cgroup) = view
        .settings
        .runtime_cgroups
        .as_ref()
        .filter(|cgroup| cgroup.ends_with("docker.service"))
    {
        changes.push(set(
            "runtime-cgroups",
            &cgroup.replace("docker.service", "containerd.service"),
        ));
    }
    changes
}

/// A step for a file whose text changes; a file that is as it must be needs none.
fn file(path: &HostPath, old: Option<&TextFile>, text: String, mode: u32) -> Option<Step> {
    if old.is_some_and(|old| old.text == text) {
        return None;
    }
    Some(Step::File(FileStep {
        path: path.clone(),
        planned_from: old.map(|old| old.digest.clone()),
        want: Some(Contents { text, mode }),
    }))
}

fn path(text: &str) -> Result<HostPath, Finding> {
    HostPath::new(text).map_err(|error| {
        configuration::FLAGS_NOT_EDITABLE.found(
            error.to_string(),
            "Name the directory by its plain, absolute path.",
        )
    })
}
