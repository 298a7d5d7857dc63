//! CRI-O. What it is given stands in a part of its own in `crio.conf.d`; the files of others are left.

mod certificates;
mod credentials;
mod found;
mod left;
mod network;
mod policy;
mod registries;
mod settings;
mod store;

use semver::Version;

use found::{SERVICE, crio, endpoint};

use crate::{
    edit::{crio_conf, hosts_toml},
    plan::{
        codes::{
            crio::{
                CONTAINERD_RUNS_ON, CRIO_WIPE, HOST_PORTS_NOT_ON_LOOPBACK, KUBELET_STARTS_CRIO,
                LAYERS_NOT_LINKED, NFT_MISSING,
            },
            runtimes::{SOURCE_NOT_ANSWERING, TARGET_NOT_INSTALLED},
        },
        facts::{Crio, Facts, UnitFacts},
        finding::Finding,
        host_path::{self, HostPath},
        kubelet_settings::{PodNetwork, Settings},
        paths::{CRICTL, CRIO_ENVIRONMENT},
        runtime::Runtime,
        step::{Boot, KUBELET_UNIT, Layers, LinkStep, Restart, Step, UnitStep},
        version,
    },
    planner::{
        context::{Downloads, Planner, Source, SourcePart, Takes, Target, TargetPart, View},
        delivery, kubelet_binding, kubelet_endpoint, refusals,
        request::Request,
        steps::{ended, file, maybe, opening, path},
        unit_drop_in::{self, DropIn},
    },
};

/// The planner of CRI-O.
pub const PLANNER: Planner = Planner {
    runtime: Runtime::CriO,
    source: Some(SourcePart {
        look: source,
        // Without its images there is no way back.
        prepare: |view| view.facts.crio.iter().filter_map(no_wipe).collect(),
        switch: |view| by_crio(view, switch_from),
        settle: |view| by_crio(view, settle),
        settings: left::settings,
        layers: store::layers,
        check: |view| view.facts.crio.iter().filter_map(wipe_found).collect(),
    }),
    target: Some(TargetPart {
        look: target,
        prepare,
        switch: |_| Ok(Vec::new()),
        without_pods: network::without_pods,
        configuration: settings::configuration,
        store: store::store,
        takes: Some(Takes {
            selinux: "selinux",
            // containers/image, `copy/copy.go`.
            downloads: Downloads::Fixed(6),
            default_runtime: "default_runtime",
            store_is_settled: store::is_settled,
            ulimits: Some("default_ulimits"),
            handler: settings::handler,
            calls_runsc: true,
            has_runtime: |view, name| view.crio_conf.has_runtime(name),
            registries: registries::registries,
            credentials: credentials::fate,
        }),
        // cri-o/packaging, `templates/latest/cri-o/cri-o.spec`.
        packaged: &[CRICTL],
        check,
        upgrade: None,
    }),
};

/// Where its unit is written where there is none.
const UNIT: &str = "/etc/systemd/system/crio.service";
/// The image of sandboxes that is compiled in (`pkg/config/config.go`).
const SANDBOX_IMAGE: &str = "registry.k8s.io/pause:3.10";
/// The first release that sets ports of the node up with nft, and ends where there is none
/// (`internal/hostport`; tried with 1.34.0).
const NFT_SINCE: Version = Version::new(1, 34, 0);
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

/// Whether the kubelet starts it with itself, and it cannot be masked.
fn is_started_by_kubelet(crio: &Crio) -> bool {
    let names = crio.service.needed_by.iter().any(|unit| unit == KUBELET_UNIT);
    names && crio.service.own_file().is_some()
}

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
    let unit = &crio.service.name;
    // One that is required has a finding for all runtimes, and one that is only wanted is masked, if it can be.
    let is_stuck = |kubelet| is_started_by_kubelet(crio) && kubelet_binding::freed(kubelet, unit).is_none();
    if facts.kubelet.as_ref().is_some_and(is_stuck) {
        return Err(KUBELET_STARTS_CRIO.found(
            format!("{KUBELET_UNIT} names {unit} in Wants=, Requires= or BindsTo="),
            format!("Remove {unit} from the kubelet's unit, run `systemctl daemon-reload`, and plan again."),
        ));
    }
    let printed = crio.printed();
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
            cache_dir: network::CNI_CACHE.to_owned(),
            ..settings.network.clone()
        },
        sandbox_image: printed.pause_image().unwrap_or_else(|| SANDBOX_IMAGE.to_owned()),
        pull_deadline: None,
        cgroup_driver: cri.cgroup_driver.as_deref(),
        told_cgroup_driver: cri.cgroup_driver.as_deref(),
        unit: SERVICE,
    })
}

/// It ends, and nobody starts it by accident: that would take the pods of the target off the network, see `network`.
fn settle(view: &View<'_>, crio: &Crio) -> Result<Vec<Step>, Finding> {
    let mut steps = ended(&crio.service, &UnitFacts::default(), &crio.endpoint);
    steps.extend(network::after_left(view)?);
    Ok(steps)
}

/// Once the kubelet has stopped: it no longer starts CRI-O with itself, and CRI-O is ready for a way back.
fn switch_from(view: &View<'_>, crio: &Crio) -> Result<Vec<Step>, Finding> {
    let unit = &crio.service.name;
    let freed = is_started_by_kubelet(crio).then(|| kubelet_binding::freed(view.kubelet, unit));
    let mut steps = freed.flatten().unwrap_or_default();
    steps.extend(network::before_left(view, crio)?);
    Ok(steps)
}

/// The steps of a CRI-O that was found, as every source is.
fn by_crio(
    view: &View<'_>,
    steps: fn(&View<'_>, &Crio) -> Result<Vec<Step>, Finding>,
) -> Result<Vec<Step>, Finding> {
    view.facts
        .crio
        .as_ref()
        .map_or_else(|| Ok(Vec::new()), |crio| steps(view, crio))
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

/// CRI-O brought, configured, and started beside the source.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let crio = &*crio(view.facts)?;
    let mut steps: Vec<Step> = kubelet_endpoint::before_package(view)?.into_iter().collect();
    steps.extend(view.target.delivered());
    steps.extend(no_wipe(crio));
    // They are read at each pull.
    steps.extend(links(view)?);
    let policy = settings::policy(view)?;
    let config = file(
        &crio.config.path,
        crio.config.file.as_ref(),
        crio_conf::part(&settings::wanted(view, crio)),
        0o644,
    );
    let credentials = credentials::prepare(view)?;
    let mut files: Vec<Step> = policy.into_iter().chain(credentials).chain(config).collect();
    files.extend(network::prepare(view)?);
    for registry in view.translation.registry_files().filter(|file| !file.is_there) {
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
    if let Some(drop_in) = drop_in(view, crio) {
        effective = Some(drop_in.effective());
        files.extend(drop_in.files(view.facts)?);
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

/// The links to certificates that are not there yet.
fn links(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let all = view.translation.links();
    let new = all.filter(|link| link.planned_from.as_ref() != Some(&link.to));
    new.map(|link| {
        Ok(Step::Link(LinkStep {
            path: path(&link.path)?,
            planned_from: link.planned_from.clone(),
            to: path(&link.to)?,
        }))
    })
    .collect()
}

/// containerd is not stopped when it is left: Docker, builds and containers of others may stand on it.
fn containerd_runs_on(view: &View<'_>) -> Option<Finding> {
    let unit = &view.containerd.map(|containerd| &containerd.service)?;
    (unit.active == "active").then(|| {
        CONTAINERD_RUNS_ON.found(
            format!("{} stays as it is: the kubelet's pods leave nothing there but images", unit.name),
            format!(
                "If nothing else uses it, run `systemctl disable --now {}` after the commit; no rollback is possible then until it is started again.",
                unit.name
            ),
        )
    })
}

/// What is told of the unit that removes images.
fn wipe_found(crio: &Crio) -> Option<Finding> {
    no_wipe(crio)?;
    Some(CRIO_WIPE.found(
        format!("{} removes all images at the boot after a power cut", crio.wipe.name),
        "The plan disables it. Enable it again after the commit if CRI-O serves then, and the node can pull its images again.",
    ))
}

/// Keeps the images from being removed at the next boot, if the power fails before the next clean stop of CRI-O.
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

/// The drop-in for its unit, if it needs one.
fn drop_in<'a>(view: &View<'_>, crio: &'a Crio) -> Option<DropIn<'a>> {
    let unit = unit_drop_in::Unit {
        unit: &crio.service,
        is_there: view.facts.crio.is_some(),
        drop_in: &crio.drop_in,
        environment: CRIO_ENVIRONMENT,
    };
    unit_drop_in::drop_in(view, unit, view.target.command(&crio.service.exec_start))
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
    findings.extend(network::pods_lose_network(view));
    findings.extend(containerd_runs_on(view));
    let store = store::store(view);
    findings.extend(policy::check(view, &store.layers));
    if let Layers::Streamed { why } = store.layers {
        let pulled = store.pull_directory.as_ref().map_or("", HostPath::as_str);
        let bytes = view.carried.bytes.saturating_mul(store.copies);
        findings.push(LAYERS_NOT_LINKED.found(
            format!(
                "{why}: CRI-O pulls the images from the node itself, which writes up to {} MiB below {} and {pulled}; a part of it \
                 goes again",
                bytes >> 20,
                store.directory
            ),
            "Nothing has to be done. It is faster, and takes next to no room, where both stores lie on one file system (`root` in \
             CRI-O's configuration).",
        ));
    }
    if let Some(crio) = &view.facts.crio {
        // The plan unmasks one that an earlier plan has left.
        findings.extend(refusals::not_loaded(&crio.service).filter(|_| crio.service.load != "masked"));
        if let Some(ours) = drop_in(view, crio) {
            findings.extend(refusals::shadowed(&ours.effective(), &crio.service));
        }
        findings.extend(wipe_found(crio));
    }
    findings
}
