//! Replace: the pods of the source stop, and start again under the target. It puts the part of a source and the part of a target together, in the order that matters (`docs/architecture.md`, Steps). Read
//! in reverse a plan is a valid procedure too: the files of a unit stand between two steps for it, and the critical
//! section opens with the look at the source that closes it when the plan is undone.

use crate::{
    plan::{
        digest::Digest,
        document::Section,
        finding::Finding,
        host_path::HostPath,
        paths::HOLD_DROP_IN,
        request::{Drain, DrainMode},
        runtime::Runtime,
        step::{
            AwaitStep, ClearPods, FileStep, HOLD_FILE, ImagesStep, KubeletStep, KubeletWant, Proof, Side,
            Step, StopPods,
        },
    },
    planner::{
        context::View,
        kubelet_endpoint, layers, pod_network,
        steps::{RUNTIME_WITHIN_SECS, Sections, await_target, confirm_within_secs, file, path, rehearsal},
    },
};

/// Longest grace period of a pod on a node that was drained: what is left are DaemonSets' pods and static pods, and
/// the node must be back before the controller manager calls it lost (40 s).
const GRACE_LIMIT_SECS: u32 = 20;
const KUBELET_WITHIN_SECS: u32 = 120;
/// Where the API server comes back with the kubelet: etcd first, which a slow disk delays.
const CONTROL_PLANE_WITHIN_SECS: u32 = 180;

/// The steps, or why a file cannot be edited.
pub fn steps(view: &View<'_>) -> Result<Sections, Finding> {
    Ok([
        (Section::Prepare, prepare(view)?),
        (Section::Switch, switch(view)?),
        (Section::Settle, settle(view)?),
    ])
}

/// While the node serves: the target brought, configured and started beside the source, the images, the rehearsal.
fn prepare(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let mut steps = (view.parts.0.prepare)(view);
    steps.extend((view.parts.1.prepare)(view)?);
    let mut wait = await_target(view, None, RUNTIME_WITHIN_SECS);
    if let Step::Await(wait) = &mut wait {
        wait.configuration = (view.parts.1.configuration)(view);
        if view.target.until_switch.is_some() {
            // The program that the plan brings starts later.
            wait.version.clone_from(&view.target.until_switch);
        }
    }
    steps.push(wait);
    steps.extend(images(view));
    // Over one and the same engine the source's kubelet would see the sandbox, and end it.
    if !view.shares_store() {
        let pod_network = pod_network::rehearse_in_pod_network(view);
        steps.push(rehearsal(view, pod_network, Proof::Own));
    }
    Ok(steps)
}

/// The critical section, with the last look at the images before it.
fn switch(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let facts = view.facts;
    let hold = path(HOLD_DROP_IN)?;
    let within_secs = if view.kubelet.static_pod_images.is_empty() {
        KUBELET_WITHIN_SECS
    } else {
        CONTROL_PLANE_WITHIN_SECS
    };
    let mut steps: Vec<Step> = file(&hold, facts.text_at(&hold), hold_text(), 0o644)
        .into_iter()
        .collect();
    // What came into use since they were prepared; what is there already is left.
    steps.extend(images(view));
    steps.push(Step::Await(AwaitStep {
        side: Side::Source,
        runtime: view.source.cri.clone(),
        version: None,
        configuration: None,
        kubelet: Some(KubeletWant {
            endpoint: view.settings.named_endpoint.clone(),
        }),
        within_secs,
    }));
    steps.push(Step::Kubelet(KubeletStep {
        run: false,
        runtime: view.source.cri.clone(),
    }));
    // On the way back these come after the end of the target's pods.
    steps.extend((view.parts.0.switch)(view)?);
    steps.extend((view.parts.1.switch)(view)?);
    steps.push(Step::StopPods(StopPods {
        source: view.source.cri.clone(),
        target: view.target.cri.clone(),
        grace_limit_secs: grace_limit_secs(&view.request.drain),
        cni_bin_dirs: cni_bin_dirs(view)?,
        cni_cache_dir: path(&view.source.network.cache_dir)?,
        engine: view
            .source
            .runtime
            .runs_on_docker()
            .then(|| view.source.images.socket.clone()),
        source_units: daemons(view, view.source.runtime),
        target_units: daemons(view, view.target.runtime),
    }));
    let without_pods = (view.parts.1.without_pods)(view)?;
    let starts = !without_pods.is_empty();
    steps.extend(without_pods);
    steps.extend(kubelet_endpoint::files(view)?);
    if starts {
        // After the files, which are written while it starts. The kubelet looks once whether its pod network is ready, and for some
        // seconds not again: it would leave its pods waiting.
        steps.push(await_target(view, None, RUNTIME_WITHIN_SECS));
    }
    steps.push(Step::Kubelet(KubeletStep {
        run: true,
        runtime: view.target.cri.clone(),
    }));
    let endpoint = Some(view.target.cri.url());
    steps.push(await_target(view, Some(KubeletWant { endpoint }), within_secs));
    Ok(steps)
}

/// After the critical section: what is left of the source's pods, its units, and the hold.
fn settle(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let mut steps = Vec::new();
    // Over one and the same engine all of the source's pods went before the target took them for its own.
    if !view.shares_store() {
        steps.push(Step::ClearPods(ClearPods {
            source: view.source.cri.clone(),
            cni_bin_dirs: cni_bin_dirs(view)?,
            cni_cache_dir: path(&view.source.network.cache_dir)?,
        }));
    }
    // Before the source's daemons stop, so that a pod network that does not work costs them nothing.
    steps.extend(network_proof(view));
    steps.extend((view.parts.0.settle)(view)?);
    steps.push(Step::File(FileStep {
        path: path(HOLD_DROP_IN)?,
        planned_from: Some(Digest::of(hold_text())),
        want: None,
    }));
    Ok(steps)
}

/// The proof that the pod network works under the target, since the kubelet's start; `None` where there is no way to
/// have it, which is a finding.
fn network_proof(view: &View<'_>) -> Option<Step> {
    match pod_network::proof(view)? {
        pod_network::Provable::ByRehearsal => Some(rehearsal(view, true, Proof::KubeletOrOwn)),
        pod_network::Provable::ByPods => Some(rehearsal(
            view,
            true,
            Proof::Kubelet {
                within_secs: confirm_within_secs(view),
            },
        )),
    }
}

/// Units of the daemons that a runtime stands on, the lowest first.
fn daemons(view: &View<'_>, runtime: Runtime) -> Vec<String> {
    let containerd = view.containerd.map(|containerd| &containerd.service.name);
    let docker = view.docker.map(|docker| &docker.service.name);
    // Docker's containerd, where it has one of its own unit; Docker starts any other one itself.
    let below = containerd.into_iter().chain(docker);
    let below = below.filter(|_| runtime.runs_on_docker()).map(String::as_str);
    let found = view.facts.installed().remove(&runtime);
    let usual = runtime.profile().units.first().copied();
    let own = found.map(|found| found.service.name.as_str()).or(usual);
    below.chain(own).map(str::to_owned).collect()
}

fn grace_limit_secs(drain: &Drain) -> u32 {
    match drain.mode {
        DrainMode::Auto | DrainMode::Evict | DrainMode::Live => GRACE_LIMIT_SECS,
        // Nobody has stopped these pods before. A database that is killed before it has written everything is worse than
        // a node that is away for longer.
        DrainMode::InPlace => u32::try_from(drain.grace_period_limit.get().as_secs()).unwrap_or(u32::MAX),
    }
}

fn cni_bin_dirs(view: &View<'_>) -> Result<Vec<HostPath>, Finding> {
    let dirs = &view.source.network.bin_dirs;
    dirs.iter().map(|dir| path(dir)).collect()
}

fn hold_text() -> String {
    format!(
        "# Written by Transship for the time of a switch: only Transship starts the kubelet.\n[Unit]\nConditionPathExists=!{HOLD_FILE}\n"
    )
}

fn images(view: &View<'_>) -> Option<Step> {
    let names = view.carried.names.clone();
    (!names.is_empty() && !view.shares_store()).then(|| {
        let store = (view.parts.1.store)(view);
        Step::Images(ImagesStep {
            from: view.source.images.clone(),
            to: view.target.images.clone(),
            names,
            layers: store.layers,
            pull_directory: store.pull_directory,
            ctr: layers::ctr(view),
        })
    })
}
