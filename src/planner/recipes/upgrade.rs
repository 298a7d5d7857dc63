//! Upgrade: a newer version of the runtime takes the place of the older one, and the pods keep running, because their shims do. The
//! kubelet is not stopped either; only the runtime is restarted. Until the commit, new pods start in a form that the older
//! version can adopt, so a rollback costs no pod. What ends that time follows the commit.

use crate::{
    plan::{
        document::Section,
        finding::Finding,
        step::{AwaitStep, Edge, FileStep, KubeletWant, Proof, Restart, Side, Step, TasksStep, UnitStep},
    },
    planner::{
        context::{InPlace, View},
        pod_network, refusals,
        steps::{Sections, await_target, rehearsal},
    },
};

/// How long the newer version may take until it answers. A kubelet whose runtime is away for longer reports its node as not
/// ready.
const ANSWERS_WITHIN_SECS: u32 = 20;
/// How long the older version may take on the way back, and the kubelet to be healthy with it.
const BACK_WITHIN_SECS: u32 = 120;
/// How long the switch waits until no pod is being created.
const QUIET_WITHIN_SECS: u32 = 120;
/// The same after the commit, when pods return to a node that was drained.
const QUIET_LATER_SECS: u32 = 300;

/// The steps, or why there are none.
///
/// # Errors
/// The finding that says why a file cannot be translated.
pub fn steps(view: &View<'_>) -> Result<Sections, Finding> {
    let upgrade = view
        .parts
        .1
        .upgrade
        .ok_or_else(|| refusals::pair(view.source.runtime, view.target.runtime))?;
    let parts = upgrade(view)?;
    let mut prepare: Vec<Step> = view.target.delivered().into_iter().collect();
    prepare.extend(parts.beside.iter().cloned());
    Ok([
        (Section::Prepare, prepare),
        (Section::Switch, switch(view, &parts)),
        (Section::Finish, finish(view, &parts)),
    ])
}

fn switch(view: &View<'_>, parts: &InPlace) -> Vec<Step> {
    let mut steps = vec![
        Step::Await(AwaitStep {
            side: Side::Source,
            runtime: view.source.cri.clone(),
            version: Some(view.source.version.clone()),
            configuration: None,
            kubelet: Some(KubeletWant {
                endpoint: view.settings.named_endpoint.clone(),
            }),
            within_secs: BACK_WITHIN_SECS,
        }),
        tasks(view, Edge::Opening, false, QUIET_WITHIN_SECS),
    ];
    steps.extend(restarted(view, parts, parts.files.clone()));
    steps.push(tasks(view, Edge::Closing, true, QUIET_WITHIN_SECS));
    let pod_network = pod_network::rehearse_in_pod_network(view);
    steps.push(rehearsal(view, pod_network, Proof::OwnBesideKubelet));
    steps
}

fn finish(view: &View<'_>, parts: &InPlace) -> Vec<Step> {
    let Some(settled) = &parts.settled else {
        return Vec::new();
    };
    let mut steps: Vec<Step> = parts.shims.clone().map(Step::Shims).into_iter().collect();
    steps.push(tasks(view, Edge::Opening, false, QUIET_LATER_SECS));
    steps.extend(restarted(view, parts, vec![settled.clone()]));
    steps.push(tasks(view, Edge::Closing, false, QUIET_LATER_SECS));
    steps
}

/// The runtime restarted with other files, and awaited.
fn restarted(view: &View<'_>, parts: &InPlace, files: Vec<FileStep>) -> Vec<Step> {
    let unit = |active, restart, effective| {
        Step::Unit(UnitStep {
            unit: view.target.unit.clone(),
            active,
            boot: None,
            restart,
            socket: None,
            effective,
        })
    };
    let mut steps = vec![unit(None, Restart::Backwards, None)];
    steps.extend(files.into_iter().map(Step::File));
    steps.push(unit(Some(true), Restart::Forwards, parts.effective.clone()));
    let kubelet = KubeletWant {
        endpoint: view.settings.named_endpoint.clone(),
    };
    steps.push(await_target(view, Some(kubelet), ANSWERS_WITHIN_SECS));
    steps
}

fn tasks(view: &View<'_>, edge: Edge, arms: bool, quiet_within_secs: u32) -> Step {
    Step::Tasks(TasksStep {
        cri: view.target.cri.clone(),
        edge,
        arms,
        quiet_within_secs,
    })
}
