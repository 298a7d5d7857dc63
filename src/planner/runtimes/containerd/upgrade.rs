//! A newer containerd in the place of an older one.

use crate::{
    edit::{
        containerd_toml::{
            rehearsal::{self, Places},
            upgrade::RegistryFile,
        },
        unit_file,
    },
    plan::{
        codes::runtimes::SHIM_UNKNOWN,
        digest::Digest,
        effective::Effective,
        facts::Containerd,
        finding::Finding,
        host_path::HostPath,
        paths::{ARCHIVES, REHEARSAL_ROOT, REHEARSAL_STATE},
        step::{
            Contents, DaemonRehearsal, Endpoint, FileStep, InstallStep, ProgramCopy, Proof, Rehearsal,
            ShimsStep, Step,
        },
        version,
    },
    planner::{
        context::{InPlace, View},
        docker_binding, pod_network, refusals,
        steps::{path, sandbox, starts_program},
        upgraded_configuration::{self, since},
    },
};

/// The image of the sandbox under a program that is only tried.
const REHEARSAL_IMAGE: &str = "transship.dev/rehearsal:1";
/// Namespace of the kubelet's containers.
const NAMESPACE: &str = "k8s.io";
/// How long a pod may take to end on the way back after the commit, in seconds.
const GRACE_LIMIT_SECS: u32 = 120;

/// What it takes.
///
/// # Errors
/// The finding that says why it cannot be done.
pub(super) fn in_place(view: &View<'_>) -> Result<InPlace, Finding> {
    let containerd = view
        .containerd
        .ok_or_else(|| refusals::pair(view.source.runtime, view.target.runtime))?;
    let drop_in = drop_in(view, containerd);
    let effective = drop_in
        .want
        .as_ref()
        .map(|want| Effective::of_drop_in(&drop_in.path, &want.text));
    // Both read the same file, and their shims are alike.
    if !upgraded_configuration::is_translated(view) {
        let text = containerd.config.file.as_ref().map_or("", |file| &file.text);
        let mut beside = loosened(view, containerd);
        beside.extend(rehearsed(view, containerd, text)?);
        return Ok(InPlace {
            beside,
            files: vec![drop_in],
            effective,
            ..InPlace::default()
        });
    }
    let shim = shim(view, containerd)?;
    let copy = copy(view)?;
    let translation =
        upgraded_configuration::translation(view, containerd, copy.as_str()).map_err(|problems| {
            // The check has found all of them.
            let refused = upgraded_configuration::refused(containerd, &problems)
                .into_iter()
                .next();
            refused.unwrap_or_else(|| refusals::pair(view.source.runtime, view.target.runtime))
        })?;
    let mut beside = loosened(view, containerd);
    beside.push(Step::Install(InstallStep::Program(ProgramCopy {
        program: shim,
        copy,
    })));
    for file in &translation.registries {
        beside.extend(registry(view, file)?);
    }
    beside.extend(rehearsed(view, containerd, &translation.soak)?);
    let config = &containerd.config;
    let mode = config.file.as_ref().map_or(0o644, |file| file.mode);
    let text = |text: &str| Contents {
        text: text.to_owned(),
        mode,
    };
    let soak = FileStep {
        path: config.path.clone(),
        planned_from: config.file.as_ref().map(|file| file.digest.clone()),
        want: Some(text(&translation.soak)),
    };
    let settled = FileStep {
        path: config.path.clone(),
        planned_from: Some(Digest::of(&translation.soak)),
        want: Some(text(&translation.settled)),
    };
    Ok(InPlace {
        beside,
        files: vec![soak, drop_in],
        effective,
        settled: (translation.settled != translation.soak).then_some(settled),
        shims: upgraded_configuration::from_first(view).then(|| ShimsStep {
            cri: view.target.cri.clone(),
            grace_limit_secs: GRACE_LIMIT_SECS,
        }),
    })
}

/// A Docker that runs beside it only wants its unit before that is restarted; where it cannot be loosened there is a finding.
fn loosened(view: &View<'_>, containerd: &Containerd) -> Vec<Step> {
    let docker = view.docker.filter(|docker| docker.service.active == "active");
    docker
        .and_then(|docker| docker_binding::loosened(docker, &containerd.service.name))
        .unwrap_or_default()
}

/// The new program tried with this configuration, next to the one that serves. `None` for a file with the plugins' names of
/// version 1, in which no other places can be named.
fn rehearsed(view: &View<'_>, containerd: &Containerd, text: &str) -> Result<Option<Step>, Finding> {
    let delivery = view.target.delivery.as_ref();
    let Some((delivery, (_, search_path))) =
        delivery.zip(view.target.command(&containerd.service.exec_start))
    else {
        return Ok(None);
    };
    let socket = format!("{REHEARSAL_STATE}/containerd.sock");
    let places = Places {
        root: REHEARSAL_ROOT.to_owned(),
        state: REHEARSAL_STATE.to_owned(),
        socket: socket.clone(),
        sandbox_image: REHEARSAL_IMAGE.to_owned(),
    };
    let Ok(configuration) = rehearsal::beside(text, &places) else {
        return Ok(None);
    };
    let pod_network = pod_network::rehearse_in_pod_network(view);
    Ok(Some(Step::RehearseDaemon(DaemonRehearsal {
        program: delivery.program.clone(),
        search_path,
        ctr: path(&format!("{}/ctr", delivery.bin_dir))?,
        configuration,
        version: view.target.version.clone(),
        sandbox_image: REHEARSAL_IMAGE.to_owned(),
        sandbox: Rehearsal {
            cri: Endpoint {
                runtime: view.target.runtime,
                socket: path(&socket)?,
            },
            ..sandbox(view, pod_network, Proof::Own)
        },
    })))
}

/// The program of the shims that run. Under 2.x pods may still run on the copy of a shim of 1.x that an earlier upgrade made.
fn shim(view: &View<'_>, containerd: &Containerd) -> Result<HostPath, Finding> {
    let is_of_version = |shim: &str| !since(&view.source.version, 2, 0) || !shim.ends_with("-v1");
    let mut tasks = containerd.upgrade.tasks.iter();
    let found = tasks.find(|task| {
        task.namespace == NAMESPACE && task.shim_present && !task.shim.is_empty() && is_of_version(&task.shim)
    });
    let shim = found.ok_or_else(|| {
        SHIM_UNKNOWN.found(
            "no container of this node names the program of its shim",
            "Plan again while pods run on this node; without one it can be drained, and containerd replaced by hand.",
        )
    })?;
    path(&shim.shim)
}

/// Where the shim is kept. containerd 2.3 and later start a program with this name as shims of 1.x must be started
/// (`shim-runc-v1` in its name); shims of 1.6 fail otherwise.
fn copy(view: &View<'_>) -> Result<HostPath, Finding> {
    let found = &view.source.version;
    let number = version::upstream(found).map_or_else(|| found.clone(), |version| version.to_string());
    let name = if since(found, 2, 0) { "v2" } else { "v1" };
    path(&format!(
        "{ARCHIVES}/containerd-{number}-shim/containerd-shim-runc-{name}"
    ))
}

/// Settings of a registry.
fn registry(view: &View<'_>, file: &RegistryFile) -> Result<Option<Step>, Finding> {
    let path = path(&file.path)?;
    let old = view.facts.text_at(&path);
    if old.is_some_and(|old| old.text == file.text) {
        return Ok(None);
    }
    Ok(Some(Step::File(FileStep {
        planned_from: old.map(|old| old.digest.clone()),
        path,
        want: Some(Contents {
            text: file.text.clone(),
            mode: file.mode,
        }),
    })))
}

/// The drop-in with the new program. What else an earlier plan wrote stays.
fn drop_in(view: &View<'_>, containerd: &Containerd) -> FileStep {
    let unit = &containerd.service;
    let old = containerd.drop_in.file.as_ref();
    let mut lines = Vec::new();
    if let Some((command, search_path)) = view.target.command(&unit.exec_start) {
        let set = unit.environment.iter().find_map(|one| one.strip_prefix("PATH="));
        let search_path = match (set, &view.target.delivery) {
            (Some(set), Some(delivery)) => {
                unit_file::environment(&format!("PATH={}:{set}", delivery.bin_dir))
            }
            _ => search_path,
        };
        lines.extend([
            search_path,
            "ExecStart=".to_owned(),
            format!("ExecStart={command}"),
        ]);
    }
    let replaced =
        |line: &&str| starts_program(line) || line.starts_with(['#', '[']) || line.trim().is_empty();
    let text = old.map_or("", |file| file.text.as_str());
    lines.extend(text.lines().filter(|line| !replaced(line)).map(str::to_owned));
    FileStep {
        path: containerd.drop_in.path.clone(),
        planned_from: old.map(|file| file.digest.clone()),
        want: Some(Contents {
            text: format!(
                "# Written by Transship: the program of an archive.\n[Service]\n{}\n",
                lines.join("\n")
            ),
            mode: 0o644,
        }),
    }
}
