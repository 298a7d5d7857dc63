//! CRI-O. What it is given stands in a part of its own in `crio.conf.d`; the files of others are left.

mod registries;

use std::borrow::Cow;

use semver::Version;
use serde_json::Value;

use crate::{
    edit::{
        containerd_toml::{Carried, Handler},
        crio_conf::{self, Printed},
        hosts_toml,
    },
    plan::{
        codes::{
            crio::{
                CRIO_WIPE, HOST_PORTS_NOT_ON_LOOPBACK, KUBELET_STARTS_CRIO, LAYERS_NOT_LINKED, NFT_MISSING,
                PODS_LOSE_NETWORK,
            },
            runtimes::{SOURCE_NOT_ANSWERING, TARGET_NOT_INSTALLED},
        },
        configuration::{ConfigurationWant, Form},
        effective::Effective,
        facts::{Crio, Facts, UnitFacts},
        finding::Finding,
        host_path, kubelet_arguments,
        kubelet_settings::{PodNetwork, Settings},
        paths::{
            CONTAINERS_POLICY, CRIO_CONFIG, CRIO_DROP_IN, CRIO_ENVIRONMENT, CRIO_POLICY, CRIO_ROOT,
            CRIO_SOCKET,
        },
        runtime::Runtime,
        step::{Boot, Endpoint, KUBELET_UNIT, Layers, Restart, Step, UnitStep},
        version,
    },
    planner::{
        context::{
            Downloads, LayersOf, Planner, Source, SourcePart, Takes, Target, TargetPart, TargetStore, View,
        },
        delivery, docker_limits, docker_proxies, layers, pod_environment, pod_network, refusals, releases,
        request::Request,
        steps::{file, future_unit, maybe, opening, path, program_lines},
        translation::Translation,
    },
};

/// The planner of CRI-O.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::CriO,
    source: Some(SourcePart {
        look: source,
        settle,
        layers,
    }),
    target: Some(TargetPart {
        look: target,
        prepare,
        switch: |_| Ok(Vec::new()),
        configuration,
        store,
        takes: Some(Takes {
            selinux: "selinux",
            // containers/image, `copy/copy.go`.
            downloads: Downloads::Fixed(6),
            default_runtime: "default_runtime",
            shims: false,
            has_runtime: |view, name| {
                view.facts
                    .crio
                    .as_ref()
                    .is_some_and(|crio| printed(crio).has_runtime(name))
            },
            registries: registries::registries,
        }),
        check,
        upgrade: None,
    }),
};

const SERVICE: &str = "crio.service";
/// Where its unit is written where there is none.
const UNIT: &str = "/etc/systemd/system/crio.service";
/// Where libcni keeps what CRI-O gave to plugins (the default of the library).
const CNI_CACHE: &str = "/var/lib/cni";
/// The image of sandboxes that is compiled in (`pkg/config/config.go`).
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// The first release that sets ports of the node up with nft, and ends where there is none
/// (`internal/hostport`; tried with 1.34.0).
const NFT_SINCE: Version = Version::new(1, 34, 0);
/// The first release without a limit of its own on the number of processes of a container.
const NO_PIDS_LIMIT_SINCE: Version = Version::new(1, 26, 0);
/// The capabilities that Docker and containerd give to containers that ask for none (`oci/caps/defaults.go`, `oci/spec.go`). CRI-O's
/// own are nine of them.
const CAPABILITIES: [&str; 14] = [
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
/// Of an image, CRI-O keeps the unpacked layers alone.
const COPIES: u64 = 1;

/// Upstream's unit, with this command.
fn unit_text(command: &str, search_path: &str) -> String {
    format!(
        "# Written by Transship after CRI-O's own unit, which names another place.
[Unit]
Description=Container Runtime Interface for OCI (CRI-O)
Documentation=https://github.com/cri-o/cri-o
Wants=network-online.target
Before=kubelet.service
After=network-online.target

[Service]
{search_path}
ExecStart={command}
ExecReload=/bin/kill -s HUP $MAINPID
Type=notify
TasksMax=infinity
LimitNOFILE=1048576
LimitNPROC=1048576
LimitCORE=infinity
OOMScoreAdjust=-999
TimeoutStartSec=0
Restart=on-failure
RestartSec=10

[Install]
WantedBy=multi-user.target
"
    )
}

/// The policy of CRI-O's own packages: every image may be pulled.
const POLICY: &str = "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n";

fn source<'a>(facts: &'a Facts, settings: &Settings) -> Result<Source<'a>, Finding> {
    let answering = facts.crio.as_ref().and_then(|crio| {
        let (cri, store) = (crio.cri.as_ref()?, crio.store.as_ref()?);
        Some((crio, cri, store))
    });
    let (crio, cri, store) = answering.ok_or_else(|| {
        SOURCE_NOT_ANSWERING.found(
            "CRI-O does not answer, although the kubelet uses it",
            "Look at `systemctl status crio`; a source that does not work cannot be rolled back to.",
        )
    })?;
    if crio.service.needed_by.iter().any(|unit| unit == KUBELET_UNIT) {
        let unit = &crio.service.name;
        return Err(KUBELET_STARTS_CRIO.found(
            format!("{KUBELET_UNIT} names {unit} in Wants=, Requires= or BindsTo="),
            format!("Remove {unit} from the kubelet's unit, run `systemctl daemon-reload`, and plan again."),
        ));
    }
    let printed = printed(crio);
    let bin_dirs: Vec<String> = printed
        .plugin_dirs()
        .iter()
        .map(|dir| host_path::plain(dir))
        .collect();
    Ok(Source {
        runtime: Runtime::CriO,
        version: cri.version.clone(),
        cri: endpoint(crio),
        images: endpoint(crio),
        store,
        network: PodNetwork {
            plugin: "cni".to_owned(),
            conf_dir: printed
                .network_dir()
                .map_or_else(|| settings.network.conf_dir.clone(), |dir| host_path::plain(&dir)),
            bin_dirs: if bin_dirs.is_empty() {
                settings.network.bin_dirs.clone()
            } else {
                bin_dirs
            },
            cache_dir: CNI_CACHE.to_owned(),
            ..settings.network.clone()
        },
        sandbox_image: printed.pause_image().unwrap_or_else(|| SANDBOX_IMAGE.to_owned()),
        pull_deadline: None,
        cgroup_driver: cri.cgroup_driver.as_deref(),
        told_cgroup_driver: cri.cgroup_driver.as_deref(),
        unit: SERVICE,
    })
}

fn printed(crio: &Crio) -> Printed {
    crio.effective.as_deref().map(Printed::read).unwrap_or_default()
}

/// It ends: at its next start it would look for pods that are gone.
fn settle(view: &View<'_>) -> Vec<Step> {
    let Some(crio) = &view.facts.crio else {
        return Vec::new();
    };
    vec![Step::Unit(UnitStep {
        unit: crio.service.name.clone(),
        active: Some(false),
        boot: Some(Boot::Disabled),
        restart: Restart::Never,
        socket: Some(crio.endpoint.clone()),
        effective: None,
    })]
}

fn target(facts: &Facts, request: &Request) -> Result<Target, Finding> {
    let delivery = delivery::delivery(&request.target, facts)?;
    if facts.crio.is_none() && delivery.is_none() {
        return Err(TARGET_NOT_INSTALLED.found(
            "CRI-O is not installed",
            "Install CRI-O with its crio.service and conmon on the node, where it may run next to the runtime in use; or \
             name its bundle in target.from.",
        ));
    }
    let crio = crio(facts)?;
    Ok(Target {
        runtime: Runtime::CriO,
        version: delivery
            .as_ref()
            .map_or_else(|| crio.version.clone(), |delivery| delivery.version.clone()),
        cri: endpoint(&crio),
        images: endpoint(&crio),
        unit: SERVICE.to_owned(),
        delivery,
        until_switch: None,
        pull_deadline: None,
    })
}

fn endpoint(crio: &Crio) -> Endpoint {
    Endpoint {
        runtime: Runtime::CriO,
        socket: crio.endpoint.clone(),
    }
}

/// CRI-O as it was found, or as the plan is going to write its unit.
fn crio(facts: &Facts) -> Result<Cow<'_, Crio>, Finding> {
    if let Some(found) = &facts.crio {
        return Ok(Cow::Borrowed(found));
    }
    Ok(Cow::Owned(Crio {
        service: future_unit(SERVICE, &["crio"]),
        version: String::new(),
        effective: None,
        endpoint: path(CRIO_SOCKET)?,
        cri: None,
        store: None,
        config: maybe(facts, CRIO_CONFIG)?,
        drop_in: maybe(facts, CRIO_DROP_IN)?,
        wipe: UnitFacts::default(),
    }))
}

fn store(view: &View<'_>) -> TargetStore {
    TargetStore {
        directory: root(view),
        copies: COPIES,
        layers: layers::shared(view, layers(view)),
    }
}

/// Where its layers lie.
fn layers(view: &View<'_>) -> Result<LayersOf, String> {
    let driver = view
        .facts
        .crio
        .as_ref()
        .and_then(|crio| printed(crio).storage_driver());
    match driver {
        Some(driver) if driver != "overlay" => Err(format!("CRI-O's storage driver is {driver}")),
        _ => Ok(LayersOf {
            directory: root(view),
            data_root: None,
        }),
    }
}

/// Where it keeps images and containers.
fn root(view: &View<'_>) -> String {
    let root = view.facts.crio.as_ref().and_then(|crio| printed(crio).root());
    root.map_or_else(|| CRIO_ROOT.to_owned(), |root| host_path::plain(&root))
}

/// CRI-O brought, configured, and started beside the source.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let crio = &*crio(view.facts)?;
    let mut steps: Vec<Step> = view.target.delivered().into_iter().collect();
    steps.extend(no_wipe(crio));
    let policy = policy(view)?;
    let config = file(
        &crio.config.path,
        crio.config.file.as_ref(),
        crio_conf::part(&wanted(view, crio)),
        0o644,
    );
    let mut files: Vec<Step> = policy.into_iter().chain(config).collect();
    for registry in Translation::of(view)
        .registry_files()
        .filter(|file| !file.is_there)
    {
        let there = maybe(view.facts, &registry.path)?;
        let text = registry.text.clone();
        let new = file(&there.path, there.file.as_ref(), text, hosts_toml::MODE);
        // Mirrors and insecure registries stand in one file.
        files.extend(new.filter(|new| !files.contains(new)));
    }
    if view.facts.crio.is_none()
        && let Some((command, search_path)) = view.target.command(&crio.service.exec_start)
    {
        files.extend(file(&path(UNIT)?, None, unit_text(&command, &search_path), 0o644));
    }
    let mut effective = None;
    if let Some(DropIn { text, environment }) = drop_in(view, crio) {
        effective = Some(Effective::of_drop_in(&crio.drop_in.path, &text));
        let named = maybe(view.facts, CRIO_ENVIRONMENT)?;
        // Before the drop-in that names it: the unit does not start without it.
        files.extend(environment.and_then(|text| file(&named.path, named.file.as_ref(), text, 0o600)));
        files.extend(file(&crio.drop_in.path, crio.drop_in.file.as_ref(), text, 0o644));
    }
    let restart = !files.is_empty() || crio.cri.is_none();
    if restart {
        steps.push(opening(&crio.service));
    }
    steps.extend(files);
    steps.push(Step::Unit(UnitStep {
        unit: crio.service.name.clone(),
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

/// Keeps the images from being removed at the next boot, if the power fails before the first clean stop of CRI-O.
fn no_wipe(crio: &Crio) -> Option<Step> {
    (crio.wipe.boot == "enabled").then(|| {
        Step::Unit(UnitStep {
            unit: crio.wipe.name.clone(),
            active: None,
            boot: Some(Boot::Disabled),
            restart: Restart::Never,
            socket: None,
            effective: None,
        })
    })
}

/// Whether CRI-O, which the plan brings as an archive, has no policy of signatures: it would not pull any image.
fn lacks_policy(view: &View<'_>) -> bool {
    let is_there = |found: &str| path(found).is_ok_and(|path| view.facts.text_at(&path).is_some());
    view.facts.crio.is_none() && view.target.is_unpacked() && !is_there(CONTAINERS_POLICY)
}

fn policy(view: &View<'_>) -> Result<Option<Step>, Finding> {
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
fn wanted(view: &View<'_>, crio: &Crio) -> crio_conf::Wanted {
    let printed = printed(crio);
    let version = version::upstream(&view.target.version);
    let translation = Translation::of(view);
    let mut default_sysctls = Vec::new();
    if pod_environment::unprivileged(view) {
        default_sysctls = printed.default_sysctls();
        for (name, value) in pod_environment::UNPRIVILEGED_SYSCTLS {
            default_sysctls.retain(|setting| setting.split('=').next() != Some(name));
            default_sysctls.push(format!("{name}={value}"));
        }
    }
    let usual = oci_runtime(view, &printed);
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
        pause_image: view.carried.sandbox.clone(),
        cgroup_manager: view.cgroup_driver().to_owned(),
        network_dir: view.source.network.conf_dir.clone(),
        // Where no directory has all plugins there is a finding.
        plugin_dirs: pod_network::bin_dir(view).into_iter().collect(),
        default_capabilities: CAPABILITIES.to_vec(),
        default_sysctls,
        signature_policy: signature_policy.or_else(|| earlier.signature_policy()),
        default_runtime,
        runtimes,
        selinux: translation.selinux(),
        pull_progress_timeout: pod_environment::pull_deadline(view)
            .filter(|_| releases::lacks_pull_deadline(Runtime::CriO, &view.target.version).is_none()),
        no_pids_limit: version.is_some_and(|version| version < NO_PIDS_LIMIT_SINCE),
    }
}

/// What the effective configuration must have before a pod stops.
fn configuration(view: &View<'_>) -> Option<ConfigurationWant> {
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
            default_runtime: wanted.default_runtime,
            ..Carried::default()
        },
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
    })
}

/// A runtime of Docker's, whose program is an option of runc's shim.
fn runtime_of(handler: &Handler) -> crio_conf::Runtime {
    let mut programs = handler.options.iter().filter(|(key, _)| key == "BinaryName");
    crio_conf::Runtime {
        name: handler.name.clone(),
        path: programs
            .next()
            .map(|(_, program)| program.clone())
            .unwrap_or_default(),
        root: format!("/run/{}", handler.name),
    }
}

/// A drop-in and the environment file that it names.
struct DropIn {
    text: String,
    environment: Option<String>,
}

/// The drop-in for its unit: the program that the plan brings, and what Docker's unit gave to its containers.
fn drop_in(view: &View<'_>, crio: &Crio) -> Option<DropIn> {
    let mut environment = None;
    let old = crio.drop_in.file.as_ref();
    let brought = view.target.command(&crio.service.exec_start);
    let mut lines = program_lines(brought, view.facts.crio.is_some(), old);
    if let Some((docker, _)) = view.docker_left() {
        let whole = old.is_some() || !lines.is_empty();
        let unit = &crio.service;
        let translation = Translation::of(view);
        let given = docker_proxies::for_unit(translation.proxies(), unit, whole, CRIO_ENVIRONMENT);
        lines.extend(given.lines);
        environment = given.environment;
        lines.extend(docker_limits::lines(
            docker,
            view.daemon,
            view.containerd,
            unit,
            whole,
        ));
    }
    (!lines.is_empty()).then(|| DropIn {
        text: format!(
            "# Written by Transship: the program, and what docker.service gave to its containers.\n[Service]\n{}\n",
            lines.join("\n")
        ),
        environment,
    })
}

fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let version = version::upstream(&view.target.version);
    if version.is_some_and(|version| version >= NFT_SINCE) && !view.facts.crio_programs.contains_key("nft") {
        findings.push(NFT_MISSING.found(
            format!("CRI-O {} ends at the first pod with a port of the node where nft is not installed", view.target.version),
            "Install nft on the node (package nftables), and plan again. Accept the finding only where no pod has a hostPort.",
        ));
    }
    findings.push(HOST_PORTS_NOT_ON_LOOPBACK.found(
        "under CRI-O a hostPort answers at the node's addresses, and not at 127.0.0.1",
        "Let whoever asks 127.0.0.1 for a hostPort of a pod ask the address of the node.",
    ));
    findings.extend(pods_lose_network(view));
    if let Layers::Streamed { why } = store(view).layers {
        findings.push(LAYERS_NOT_LINKED.found(
            why,
            "Let both stores lie on one file system (`root` in CRI-O's configuration), and plan again.",
        ));
    }
    if let Some(crio) = &view.facts.crio {
        findings.extend(refusals::not_loaded(&crio.service));
        if let Some(ours) = drop_in(view, crio) {
            let ours = Effective::of_drop_in(&crio.drop_in.path, &ours.text);
            findings.extend(refusals::shadowed(&ours, &crio.service));
        }
        if no_wipe(crio).is_some() {
            findings.push(CRIO_WIPE.found(
                format!("{} removes all images at the boot after a power cut", crio.wipe.name),
                "The plan disables it. Enable it again after the commit if the node can pull its images again.",
            ));
        }
    }
    findings
}

/// The first version of CNI whose plugins are asked to collect garbage themselves.
const PLUGINS_COLLECT_SINCE: Version = Version::new(1, 1, 0);

/// At its start CRI-O takes every sandbox off the network that stands in its cache of libcni and is not its own; and has the plugins
/// free what they hold for others, if their configuration is one of CNI 1.1 (`GC` of ocicni; tried with 1.34.0).
fn pods_lose_network(view: &View<'_>) -> Option<Finding> {
    let network = &view.source.network;
    let config = pod_network::configuration(view).unwrap_or_default();
    let says = |name: &str| config.get(name).cloned().unwrap_or_default();
    if matches!(&says("disableGC"), Value::Bool(true)) || says("disableGC") == "true" {
        return None;
    }
    let version = says("cniVersion").as_str().and_then(version::upstream);
    let why = if view.source.runtime == Runtime::Containerd || network.cache_dir == CNI_CACHE {
        format!(
            "{} and CRI-O note in {CNI_CACHE} which pods are on the network, and CRI-O takes those off it, when it starts, that \
             it has not made",
            view.source.runtime
        )
    } else if version.is_some_and(|version| version >= PLUGINS_COLLECT_SINCE) {
        format!(
            "the configuration in {} is one of CNI 1.1, and CRI-O has its plugins free, when it starts, what they hold for pods \
             that it has not made",
            network.conf_dir
        )
    } else {
        return None;
    };
    Some(PODS_LOSE_NETWORK.found(
        why,
        format!(
            "Add `\"disableGC\": true` to the first file in {}, and plan again; take it out after the commit.",
            network.conf_dir
        ),
    ))
}
