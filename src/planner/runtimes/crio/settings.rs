//! What CRI-O's configuration must say.

use semver::Version;

use super::{credentials, found::crio};
use crate::{
    edit::{
        containerd_toml::{BINARY, CONFIG_PATH, Carried, Handler},
        crio_conf::{self, Printed},
    },
    plan::{
        configuration::{ConfigurationWant, Form, handler_of},
        docker_runtimes,
        facts::Crio,
        finding::Finding,
        host_path::HostPath,
        kubelet_arguments,
        paths::{CONTAINERS_POLICY, CRIO_POLICY, RUNC_SHIM},
        runtime::Runtime,
        step::Step,
        version,
    },
    planner::{
        context::View,
        docker_limits, pod_environment, pod_network, releases,
        steps::{file, path},
    },
};

/// The first release without a limit of its own on the number of processes of a container.
const NO_PIDS_LIMIT_SINCE: Version = Version::new(1, 26, 0);
/// The capabilities that Docker and containerd give to containers that ask for none (`oci/caps/defaults.go`, `oci/spec.go`). CRI-O's
/// own are nine of them.
pub(super) const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// The policy of CRI-O's own packages: every image may be pulled.
const POLICY: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

/// Whether CRI-O, which the plan brings as an archive, has no policy of signatures: it would not pull any image.
pub(super) fn lacks_policy(view: &View<'_>) -> bool {
    let is_there = |found: &str| path(found).is_ok_and(|path| view.facts.text_at(&path).is_some());
    view.facts.crio.is_none() && view.target.is_unpacked() && !is_there(CONTAINERS_POLICY)
}

/// The file with a policy, where there is none.
pub(super) fn policy(view: &View<'_>) -> Result<Option<Step>, Finding> {
    if !lacks_policy(view) {
        return Ok(None);
    }
    let path = path(CRIO_POLICY)?;
    // One that is there is somebody's choice.
    Ok(match view.facts.text_at(&path) {
        Some(_) => None,
        None => file(&path, None, POLICY.to_owned(), 0o644),
    })
}

/// What its configuration must say.
pub(super) fn wanted(view: &View<'_>, crio: &Crio) -> crio_conf::Wanted {
    let printed = &view.crio_conf;
    let version = version::upstream(&view.target.version);
    let translation = &view.translation;
    let mut default_sysctls = Vec::new();
    if pod_environment::unprivileged(view) {
        default_sysctls = printed.default_sysctls();
        for (name, value) in pod_environment::UNPRIVILEGED_SYSCTLS {
            default_sysctls.retain(|setting| setting.split('=').next() != Some(name));
            default_sysctls.push(format!("{name}={value}"));
        }
    }
    let mut default_ulimits = docker_limits::entries(view);
    if !default_ulimits.is_empty() {
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        let ours: Vec<String> = default_ulimits.iter().map(|entry| name(entry)).collect();
        let mut theirs = printed.default_ulimits();
        theirs.retain(|entry| !ours.contains(&name(entry)));
        default_ulimits.splice(0..0, theirs);
    }
    let usual = oci_runtime(view, printed);
    // What an earlier plan wrote is a part of what is printed, and stays.
    let earlier = Printed::read(crio.config.file.as_ref().map_or("", |file| &file.text));
    let default_runtime = translation
        .default_handler()
        .or(usual.as_ref().map(|runtime| runtime.name.as_str()))
        .map(str::to_owned)
        .or_else(|| earlier.default_runtime());
    let mut runtimes: Vec<crio_conf::Runtime> = usual
        .into_iter()
        .chain(translation.handlers().map(runtime_of))
        .collect();
    for runtime in earlier.runtimes() {
        if runtimes.iter().all(|other| other.name != runtime.name) {
            runtimes.push(runtime);
        }
    }
    let signature_policy = lacks_policy(view).then(|| CRIO_POLICY.to_owned());
    crio_conf::Wanted {
        root: translation.root().map(str::to_owned).or_else(|| earlier.root()),
        pause_image: view.carried.sandbox.clone(),
        cgroup_manager: view.cgroup_driver().to_owned(),
        network_dir: view.source.network.conf_dir.clone(),
        // Where no directory has all plugins there is a finding.
        plugin_dirs: pod_network::bin_dir(view).into_iter().collect(),
        default_capabilities: CAPABILITIES.to_vec(),
        default_sysctls,
        default_ulimits,
        signature_policy: signature_policy.or_else(|| earlier.signature_policy()),
        global_auth_file: credentials::auth_file(view, &earlier),
        default_runtime,
        runtimes,
        selinux: translation.selinux(),
        pull_progress_timeout: pod_environment::pull_deadline(view)
            .filter(|_| releases::lacks_pull_deadline(Runtime::CriO, &view.target.version).is_none()),
        no_pids_limit: version.is_some_and(|version| version < NO_PIDS_LIMIT_SINCE),
    }
}

/// What the effective configuration must have before a pod stops.
pub(super) fn configuration(view: &View<'_>) -> Option<ConfigurationWant> {
    let crio = crio(view.facts).ok()?;
    let mut command = kubelet_arguments::command(&crio.service);
    if let Some(delivery) = view
        .target
        .delivery
        .as_ref()
        .filter(|delivery| !delivery.has_unit)
    {
        *command.first_mut()? = delivery.program.to_string();
    }
    // systemd would replace a variable.
    if command.first()?.contains('$') {
        return None;
    }
    command.push("config".to_owned());
    let wanted = wanted(view, &crio);
    Some(ConfigurationWant {
        command,
        form: Form::Crio,
        systemd_cgroup: wanted.cgroup_manager == "systemd",
        sandbox_image: wanted.pause_image,
        carried: Carried {
            selinux: wanted.selinux.then_some(true),
            root: wanted.root,
            default_runtime: wanted.default_runtime,
            auth_file: wanted.global_auth_file,
            ..Carried::default()
        },
        handlers: wanted.runtimes.iter().map(handler_of).collect(),
    })
}

/// runc, where CRI-O is installed and the runtime that it would use is not on the node.
fn oci_runtime(view: &View<'_>, printed: &Printed) -> Option<crio_conf::Runtime> {
    let programs = &view.facts.crio_programs;
    let name = printed.default_runtime().unwrap_or_else(|| "crun".to_owned());
    let is_there = printed.runtime_path(&name).is_some() || programs.contains_key(&name);
    let runc = programs
        .get("runc")
        .filter(|_| !view.target.is_unpacked() && !is_there)?;
    Some(crio_conf::Runtime {
        name: "runc".to_owned(),
        path: runc.to_string(),
        root: "/run/runc".to_owned(),
        ..crio_conf::Runtime::default()
    })
}

/// A further runtime as CRI-O can have it: a program, or a shim of the second version (`ValidateRuntimeVMBinaryPattern` of
/// `pkg/config/config.go`). CRI-O ends where the program or the configuration of one is not there.
pub(super) fn handler(view: &View<'_>, handler: &Handler) -> Result<Handler, String> {
    let by_hand = || format!("give it a runtime of the name {}, and plan again", handler.name);
    if handler.kind == RUNC_SHIM {
        return match handler.program() {
            Some(_) => Ok(handler.clone()),
            None => Err(format!("CRI-O needs a program for it: {}.", by_hand())),
        };
    }
    if handler.kind == docker_runtimes::RUNSC_SHIM {
        return runsc(view, handler);
    }
    let program = docker_runtimes::shim_program(&handler.kind);
    if !program.ends_with("-v2") {
        return Err(format!(
            "CRI-O calls no shim of the type {}, only programs with runc's command line and shims of version 2: {}.",
            handler.kind,
            by_hand()
        ));
    }
    let programs = &view.facts.crio_programs;
    let of_docker = view
        .docker
        .iter()
        .flat_map(|docker| docker.runtime_programs.values());
    let found: Vec<&str> = programs.values().chain(of_docker).map(HostPath::as_str).collect();
    let is_there = |path: &String| found.contains(&path.as_str());
    let named = handler.path.clone();
    let path = named.or_else(|| programs.get(&program).map(ToString::to_string));
    let Some(path) = path.filter(|path| path.ends_with(&format!("/{program}")) && is_there(path)) else {
        return Err(format!(
            "CRI-O needs {program} for it, which is not where programs are looked for: install it there, and plan again."
        ));
    };
    let mut options = handler.options.iter().filter(|(key, _)| key != "TypeUrl");
    if options.clone().any(|(key, _)| key != CONFIG_PATH) {
        return Err(format!(
            "Its shim has options that CRI-O cannot give to it: {}.",
            by_hand()
        ));
    }
    let config = options.next().map(|(_, path)| path);
    if let Some(config) = config.filter(|config| !is_there(config)) {
        return Err(format!(
            "CRI-O ends where {config} is not there, which it names: correct that, and plan again."
        ));
    }
    Ok(Handler {
        path: Some(path),
        ..handler.clone()
    })
}

/// gVisor as CRI-O has it: its program has runc's command line, and its shim is containerd's alone.
fn runsc(view: &View<'_>, handler: &Handler) -> Result<Handler, String> {
    let of_docker = view.docker.iter().flat_map(|docker| &docker.runtime_programs);
    let mut all = view.facts.crio_programs.iter().chain(of_docker);
    let is_it = |path: &HostPath| path.as_str().rsplit('/').next() == Some(docker_runtimes::RUNSC);
    let Some((_, program)) = all.find(|(_, path)| is_it(path)) else {
        return Err(
            "CRI-O needs runsc for it, which is not where programs are looked for: install it there, and plan again.".to_owned(),
        );
    };
    let is_known = |key: &str| [CONFIG_PATH, "TypeUrl"].contains(&key);
    if handler.options.iter().any(|(key, _)| !is_known(key)) {
        return Err(format!(
            "Its shim has options that CRI-O cannot give to it: give it a runtime of the name {}, and plan again.",
            handler.name
        ));
    }
    Ok(Handler {
        kind: RUNC_SHIM.to_owned(),
        options: vec![(BINARY.to_owned(), program.to_string())],
        path: None,
        ..handler.clone()
    })
}

/// What its configuration says of a runtime.
fn runtime_of(handler: &Handler) -> crio_conf::Runtime {
    let vm = handler.kind != RUNC_SHIM;
    let mut configs = handler.options.iter().filter(|(key, _)| vm && key == CONFIG_PATH);
    crio_conf::Runtime {
        name: handler.name.clone(),
        path: if vm {
            handler.path.as_deref()
        } else {
            handler.program()
        }
        .unwrap_or_default()
        .to_owned(),
        root: format!("/run/{}", if vm { "vc" } else { &handler.name }),
        vm,
        config: configs.next().map(|(_, path)| path.clone()),
        without_host_devices: handler.without_host_devices,
    }
}
