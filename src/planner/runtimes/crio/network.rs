//! The pod network when CRI-O starts next to another runtime.
//!
//! When its pod network is ready for the first time, CRI-O takes every sandbox off it that stands in its cache of libcni and is not its
//! own, and has the plugins free what they hold for others, if their configuration is one of CNI 1.1 (`pollFunc` of
//! `internal/config/cnimgr`, `GC` of ocicni; tried with 1.34.0). So where it shares that with the source, it has a copy of the
//! configuration that forbids this (`disableGC`) for as long as the other one has pods, and the real one from then on: the source,
//! when it is gone to, and the target, when a plan away from it is undone.

use semver::Version;
use serde_json::{Value, json};

use super::found::SERVICE;
use crate::{
    plan::{
        codes::crio::PODS_LOSE_NETWORK,
        digest::Digest,
        facts::Crio,
        finding::Finding,
        paths::{CRIO_NETWORK, CRIO_NETWORK_DIRECTORY, CRIO_UNTIL_SWITCH},
        runtime::Runtime,
        step::{AwaitStep, FileStep, Restart, Side, Step, UnitStep},
        version,
    },
    planner::{
        context::View,
        pod_network,
        steps::{RUNTIME_WITHIN_SECS, file, maybe, opening, path},
    },
};

/// Where libcni keeps what CRI-O gave to plugins (the default of the library).
pub(super) const CNI_CACHE: &str = "/var/lib/cni";
/// The first version of CNI whose plugins are asked to collect garbage themselves.
const PLUGINS_COLLECT_SINCE: Version = Version::new(1, 1, 0);

/// Why the source's pods would lose their network when CRI-O starts; `None` if they would not.
fn pods_lose_it(view: &View<'_>) -> Option<String> {
    let network = &view.source.network;
    if view.source.runtime == Runtime::Containerd || network.cache_dir == CNI_CACHE {
        return Some(format!(
            "{} and CRI-O note in {CNI_CACHE} which pods are on the network, and CRI-O takes those off it, when it starts, that \
             it has not made",
            view.source.runtime
        ));
    }
    let config = pod_network::configuration(view).unwrap_or_default();
    let version = config.get("cniVersion").and_then(Value::as_str);
    let collects = version
        .and_then(version::upstream)
        .is_some_and(|version| version >= PLUGINS_COLLECT_SINCE);
    collects.then(|| {
        format!(
            "the configuration in {} is one of CNI 1.1, and CRI-O has its plugins free, when it starts, what they hold for pods \
             that it has not made",
            network.conf_dir
        )
    })
}

/// Where they cannot be spared that.
pub(super) fn pods_lose_network(view: &View<'_>) -> Option<Finding> {
    let why = pods_lose_it(view)?;
    let crio = view.facts.crio.as_ref();
    if crio.is_some_and(|crio| crio.service.active == "active") {
        // It runs with the real configuration, to which a rollback would restart it.
        return Some(PODS_LOSE_NETWORK.found(
            format!("{SERVICE} runs already, and would be restarted; {why}"),
            format!("Run `systemctl disable --now {SERVICE}`, and plan again: the plan starts it."),
        ));
    }
    if pod_network::configuration(view).is_none() {
        let directory = &view.source.network.conf_dir;
        return Some(PODS_LOSE_NETWORK.found(
            why,
            format!("Let the first file in {directory} be a CNI configuration, and plan again."),
        ));
    }
    None
}

/// The files with which it starts next to the pods of another runtime, and leaves them on the network.
struct Beside {
    /// The pod network, with the word that nothing is collected.
    network: String,
    /// The part of its configuration that names it.
    part: String,
}

/// Next to the source's pods, if they would lose their network.
fn beside_source(view: &View<'_>) -> Option<Beside> {
    pods_lose_it(view)?;
    beside(view, view.source.runtime)
}

fn beside(view: &View<'_>, other: Runtime) -> Option<Beside> {
    let mut config = pod_network::configuration(view)?;
    if config.get("plugins").is_none() {
        // A file with one plugin has no place for the word.
        let said = |key: &str| config.get(key).cloned().unwrap_or_default();
        config = json!({
            "cniVersion": said("cniVersion"),
            "name": said("name"),
            "plugins": [config],
        });
    }
    config
        .as_object_mut()?
        .insert("disableGC".to_owned(), true.into());
    Some(Beside {
        network: format!("{config:#}\n"),
        part: format!(
            "# Written by Transship until the pods of {other} have ended: CRI-O must leave them on the network.\n\
             [crio.network]\nnetwork_dir = \"{CRIO_NETWORK_DIRECTORY}\"\ncni_default_network = \"\"\n",
        ),
    })
}

impl Beside {
    fn written(self, view: &View<'_>) -> Result<Vec<Step>, Finding> {
        let mut steps = Vec::new();
        for (name, text) in [(CRIO_NETWORK, self.network), (CRIO_UNTIL_SWITCH, self.part)] {
            let there = maybe(view.facts, name)?;
            steps.extend(file(&there.path, there.file.as_ref(), text, 0o644));
        }
        Ok(steps)
    }

    /// The steps that remove the part, and then what it names.
    fn removed(&self) -> Result<[Step; 2], Finding> {
        let remove = |name: &str, text: &str| {
            Ok::<_, Finding>(Step::File(FileStep {
                path: path(name)?,
                planned_from: Some(Digest::of(text)),
                want: None,
            }))
        };
        Ok([
            remove(CRIO_UNTIL_SWITCH, &self.part)?,
            remove(CRIO_NETWORK, &self.network)?,
        ])
    }
}

/// Before it starts next to the source.
pub(super) fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    beside_source(view).map_or_else(|| Ok(Vec::new()), |beside| beside.written(view))
}

/// Once the source's pods have ended: it has the pod network as it is configured.
pub(super) fn without_pods(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let Some(beside) = beside_source(view) else {
        return Ok(Vec::new());
    };
    let [part, network] = beside.removed()?;
    Ok(vec![
        part,
        Step::Unit(UnitStep {
            unit: view.target.unit.clone(),
            active: Some(true),
            boot: None,
            restart: Restart::ForwardsAtOnce,
            socket: None,
            effective: None,
        }),
        network,
    ])
}

/// Where it is left: the files are there when it starts next to the target's pods, on the way back. Once those have ended it has the
/// pod network as it is configured, and says that it is ready.
pub(super) fn before_left(view: &View<'_>, crio: &Crio) -> Result<Vec<Step>, Finding> {
    let Some(beside) = beside(view, view.target.runtime) else {
        return Ok(Vec::new());
    };
    let mut steps = vec![
        Step::Await(AwaitStep {
            side: Side::Source,
            runtime: view.source.cri.clone(),
            version: None,
            configuration: None,
            kubelet: None,
            within_secs: RUNTIME_WITHIN_SECS,
        }),
        opening(&crio.service),
    ];
    steps.extend(beside.written(view)?);
    Ok(steps)
}

/// Once it has ended.
pub(super) fn after_left(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    beside(view, view.target.runtime).map_or_else(|| Ok(Vec::new()), |beside| Ok(beside.removed()?.into()))
}
