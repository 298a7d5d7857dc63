//! containerd to a newer containerd while its pods run: what any restart of containerd would lose, and what the newer
//! release no longer has. The pods of a node that passes keep their processes.

mod first;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    edit::containerd_toml::{
        self,
        upgrade::{Became, Key},
    },
    plan::{
        codes::{
            containers::DOCKER_BOUND_TO_CONTAINERD,
            runtimes::CGROUP_DRIVER_MISMATCH,
            upgrade::{
                CONTAINERD_CONFIG_DROPPED, CONTAINERD_CONFIG_TRANSLATED, CONTAINERD_RESTARTS,
                DEPRECATED_FEATURES, DOCKER_ON_CONTAINERD, HANDLER_HAS_SHIM, NRI_PLUGINS_STAY_OFF,
                OTHER_SHIMS, POD_SPLIT, PROCESSES_OUTSIDE_CGROUP, SHIM_MISSING, UPGRADE_BEYOND_SUPPORT,
            },
        },
        facts::{Containerd, Task},
        finding::Finding,
        lists,
        paths::NRI_PLUGINS,
    },
    planner::{context::View, docker_binding, releases, upgraded_configuration},
};

/// Docker's namespace in containerd.
const DOCKER: &str = "moby";
/// containerd's names of deprecated features begin with it.
const DEPRECATION: &str = "io.containerd.deprecation/";
/// Stands for the program that is not known here: what becomes of the other keys does not depend on it.
const ANY_SHIM: &str = "/containerd-shim-runc-v1";

/// Checks of an upgrade; empty for another pair.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let Some(containerd) = view.containerd.filter(|_| view.upgrades()) else {
        return Vec::new();
    };
    let mut findings = vec![restarts(view)];
    findings.extend(tasks(view, containerd));
    findings.extend(other_shims(containerd));
    findings.extend(deprecated(view, containerd));
    if upgraded_configuration::is_translated(view) {
        findings.extend(cgroup_driver(view, containerd));
        findings.extend(configuration(view, containerd));
    }
    findings.extend(docker(view, containerd));
    if !releases::is_promised(&view.source.version, &view.target.version) {
        findings.push(UPGRADE_BEYOND_SUPPORT.found(
            format!(
                "{} to {} is not an upgrade that containerd's project supports",
                view.source.version, view.target.version
            ),
            "Nothing is to be done: the plan keeps a rollback open until the commit. Where there is a choice, bring a \
             release that is supported.",
        ));
    }
    if upgraded_configuration::from_first(view) {
        findings.extend(first::check(view, containerd));
    }
    findings
}

fn restarts(view: &View<'_>) -> Finding {
    let pods = view
        .source
        .store
        .containers
        .iter()
        .filter(|container| container.running);
    let pods: BTreeSet<&str> = pods
        .filter_map(|container| Some(container.pod.as_ref()?.uid.as_str()))
        .collect();
    CONTAINERD_RESTARTS.found(
        format!(
            "containerd {} is replaced by {} while {} keep running; open exec, attach and port-forward sessions are closed",
            view.source.version,
            view.target.version,
            lists::count(pods.len(), "pod")
        ),
        "Start the sessions again after the switch. No container is stopped or restarted.",
    )
}

/// What any restart of containerd would lose.
fn tasks(view: &View<'_>, containerd: &Containerd) -> Vec<Finding> {
    let mut findings = Vec::new();
    let named = |wanted: &dyn Fn(&Task) -> bool| -> Vec<String> {
        let tasks = containerd.upgrade.tasks.iter().filter(|task| wanted(task));
        let names: BTreeSet<String> = tasks.map(|task| name(view, task)).collect();
        names.into_iter().collect()
    };
    let lost = named(&|task| task.lost_pids);
    if !lost.is_empty() {
        findings.push(PROCESSES_OUTSIDE_CGROUP.found(
            format!("processes are not in the cgroup of their container: {}", lists::many(&lost)),
            "Nothing is to be done: the plan moves them back before it restarts containerd. Until then any other restart \
             of containerd ends these containers.",
        ));
    }
    let missing = named(&|task| !task.shim_present);
    if !missing.is_empty() {
        let programs: BTreeSet<String> = (containerd.upgrade.tasks.iter())
            .filter(|task| !task.shim_present)
            .map(|task| task.shim.clone())
            .collect();
        findings.push(SHIM_MISSING.found(
            format!(
                "{} does not exist or is not executable, and is the shim of {}",
                lists::some(&programs.into_iter().collect::<Vec<_>>()),
                lists::many(&missing)
            ),
            "Put the program of the version that started these pods back at that path, or drain the node and restart it; then \
             plan again. Do not restart containerd before.",
        ));
    }
    let split = split(&containerd.upgrade.tasks);
    let split = named(&|task| split.contains(task.address.as_str()));
    if !split.is_empty() {
        findings.push(POD_SPLIT.found(
            format!(
                "containers of one pod hang on different shims: {}",
                lists::many(&split)
            ),
            "Delete or evict these pods and plan again, or accept that they are restarted.",
        ));
    }
    findings
}

/// Sockets behind which more than one shim has tasks.
fn split(tasks: &[Task]) -> BTreeSet<&str> {
    let mut shims: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for task in tasks
        .iter()
        .filter(|task| task.shim_pid != 0 && !task.address.is_empty())
    {
        shims.entry(&task.address).or_default().insert(task.shim_pid);
    }
    shims
        .into_iter()
        .filter(|(_, pids)| pids.len() > 1)
        .map(|(address, _)| address)
        .collect()
}

/// The pod of a task and its container, or its id where the kubelet does not know it.
fn name(view: &View<'_>, task: &Task) -> String {
    let mut containers = view.source.store.containers.iter();
    let pod = containers
        .find(|container| container.id == task.id)
        .and_then(|container| container.pod.as_ref());
    pod.map_or_else(
        || {
            let id = first::short(&task.id);
            format!("container {id} in containerd's namespace {}", task.namespace)
        },
        |pod| format!("{}/{}", pod.namespace, pod.name),
    )
}

/// Containers with shims that nobody has tried.
fn other_shims(containerd: &Containerd) -> Option<Finding> {
    let records = containerd.upgrade.foreign_records.iter();
    let other: Vec<String> = records
        .filter(|record| !first::is_gone(record))
        .map(first::record_name)
        .collect();
    (!other.is_empty()).then(|| {
        OTHER_SHIMS.found(
            format!(
                "these containers have another shim than runc's: {}",
                lists::many(&other)
            ),
            "Look whether their shim supports the newer containerd, and try the upgrade on one node first.",
        )
    })
}

/// A kubelet from 1.31 on takes the cgroup driver from containerd 2.x at its next start; 1.x did not give it one.
fn cgroup_driver(view: &View<'_>, containerd: &Containerd) -> Option<Finding> {
    let effective = containerd.effective.as_deref()?;
    let (handler, systemd) = containerd_toml::default_runtime(effective)?;
    let runtime = if systemd { "systemd" } else { "cgroupfs" };
    let kubelet = view.settings.cgroup_driver.as_str();
    // Where containerd reports its driver already, the kubelet uses it.
    if runtime == kubelet || view.source.told_cgroup_driver.is_some() {
        return None;
    }
    Some(CGROUP_DRIVER_MISMATCH.found(
        format!(
            "the kubelet is configured for {kubelet}, and the handler {handler} of containerd uses {runtime}, which \
             containerd {} reports to the kubelet",
            view.target.version
        ),
        "Kubelet and runtime must use the same driver, and a driver cannot be changed under running pods: drain the node, \
         correct SystemdCgroup or cgroupDriver, restart both, and plan again.",
    ))
}

/// Features in use that a newer release may not have.
fn deprecated(view: &View<'_>, containerd: &Containerd) -> Option<Finding> {
    let ids: Vec<String> = (containerd.upgrade.deprecations.iter())
        .map(|id| id.trim_start_matches(DEPRECATION).to_owned())
        .collect();
    (!ids.is_empty()).then(|| {
        DEPRECATED_FEATURES.found(
            format!(
                "containerd {} reports deprecated features in use: {}",
                view.source.version,
                lists::many(&ids)
            ),
            "Read containerd's releases page for when they end. The plan translates what it knows of the configuration.",
        )
    })
}

/// What becomes of the configuration.
fn configuration(view: &View<'_>, containerd: &Containerd) -> Vec<Finding> {
    let path = &containerd.config.path;
    let mut findings = Vec::new();
    match upgraded_configuration::translation(view, containerd, ANY_SHIM) {
        Err(problems) => findings.extend(upgraded_configuration::refused(containerd, &problems)),
        Ok(translation) => {
            findings.extend(keys(view, path.as_str(), &translation.keys));
            let kept_off = containerd_toml::nri_is_off(&translation.settled);
            if !containerd.upgrade.nri_plugins.is_empty() && kept_off {
                findings.push(NRI_PLUGINS_STAY_OFF.found(
                    format!("{NRI_PLUGINS} has {}", lists::some(&containerd.upgrade.nri_plugins)),
                    "Nothing is to be done: the plan writes `disable = true`. To use them, remove it after the upgrade.",
                ));
            }
        }
    }
    findings
}

fn keys(view: &View<'_>, path: &str, keys: &[Key]) -> Vec<Finding> {
    let lines = |wanted: fn(&Became) -> bool| -> Vec<String> {
        let keys = keys.iter().filter(|key| wanted(&key.became));
        keys.map(ToString::to_string).collect()
    };
    let version = &view.target.version;
    let changed = lines(|became| matches!(became, Became::Translated(_) | Became::WrittenOut(_)));
    let dropped = lines(|became| matches!(became, Became::Dropped(_)));
    let kept = lines(|became| matches!(became, Became::Kept(_)));
    let mut findings = Vec::new();
    if !changed.is_empty() {
        findings.push(CONTAINERD_CONFIG_TRANSLATED.found(
            format!(
                "{path} is changed for containerd {version}: {}",
                changed.join("; ")
            ),
            "Nothing is to be done: nothing changes for the pods. A rollback restores the file.",
        ));
    }
    if !dropped.is_empty() {
        findings.push(CONTAINERD_CONFIG_DROPPED.found(
            format!(
                "{path} has keys without effect under containerd {version}: {}",
                dropped.join("; ")
            ),
            "Look whether somebody needs them, before the upgrade.",
        ));
    }
    if !kept.is_empty() {
        findings.push(HANDLER_HAS_SHIM.found(
            format!("{path}: {}", kept.join("; ")),
            "Look whether that program supports the newer containerd: the shim of 1.6 starts no pod under 2.3 and later. A pod \
             that starts with a newer program before the commit does not survive a rollback.",
        ));
    }
    findings
}

/// Docker takes the shim from its PATH, not from the configuration.
fn docker(view: &View<'_>, containerd: &Containerd) -> Vec<Finding> {
    let mut findings = Vec::new();
    let running = containerd
        .upgrade
        .tasks
        .iter()
        .filter(|task| task.namespace == DOCKER)
        .count();
    let active = view.docker.filter(|docker| docker.service.active == "active");
    if running > 0 || active.is_some() {
        findings.push(DOCKER_ON_CONTAINERD.found(
            format!("Docker runs {} on the same containerd", lists::count(running, "container")),
            "They keep running. A container that Docker starts before the commit is killed by a rollback, and Docker still \
             reports it as running: start none until then, or stop Docker first.",
        ));
    }
    let unit = view.source.unit;
    if active.is_some_and(|docker| docker_binding::loosened(docker, unit).is_none()) {
        findings.push(DOCKER_BOUND_TO_CONTAINERD.found(
            format!("docker.service or docker.socket requires or binds to {unit}, and stops when {unit} is restarted"),
            "Weaken `Requires=` or `BindsTo=` to `Wants=`, run `systemctl daemon-reload`, and plan again; or stop Docker first.",
        ));
    }
    findings
}
