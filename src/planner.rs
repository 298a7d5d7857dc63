//! What a request means on one node: facts and a request in, findings and a plan out. Pure; no I/O, no clock.
//!
//! - [`request`]: what is asked and answered; [`context`]: what planners and checks look at.
//! - [`pair`]: whether there is a plan from the runtime in use to the one that is asked for.
//! - [`findings`]: the checks; [`refusals`]: findings that several rooms return alike.
//! - [`runtimes`]: what it takes to leave and to go to each runtime. [`recipes`] put the parts of a plan together, in more
//!   than one way; [`steps`] are the parts that several planners write alike, [`unit_drop_in`] the drop-in of a target's unit.
//! - [`kubelet_endpoint`]: the files that name the kubelet's runtime; [`kubelet_binding`]: those with which it starts one.
//!   [`setting`] and [`translation`]: what
//!   becomes of the source's settings; [`other_settings`]: of those of sources that are not Docker; [`docker_settings`], [`docker_registries`], [`docker_runtimes`], [`docker_logs`],
//!   [`docker_proxies`], [`docker_limits`] and [`data_root`] read Docker's. [`docker_binding`]: whether Docker survives a restart
//!   of its containerd. [`pod_environment`]: what pods have of that. [`pod_network`]: how pods are connected.
//! - [`images`]: which images are carried; [`layers`]: what stores have in common. [`delivery`]: where the target's files
//!   come from. [`releases`]: which releases go together. [`upgraded_configuration`]: the configuration for a newer
//!   containerd.

pub mod context;
pub mod data_root;
pub mod delivery;
pub mod docker_binding;
pub mod docker_limits;
pub mod docker_logs;
pub mod docker_proxies;
pub mod docker_registries;
pub mod docker_runtimes;
pub mod docker_settings;
pub mod findings;
pub mod images;
pub mod kubelet_binding;
pub mod kubelet_endpoint;
pub mod layers;
pub mod other_settings;
pub mod pair;
pub mod pod_environment;
pub mod pod_network;
pub mod recipes;
pub mod refusals;
pub mod releases;
pub mod request;
pub mod runtimes;
pub mod setting;
pub mod steps;
pub mod translation;
pub mod unit_drop_in;
pub mod upgraded_configuration;

use crate::{
    edit::daemon_json,
    plan::{
        codes::drain::PODS_BLOCK_DRAIN,
        facts::{Crio, Facts},
        finding::{Finding, Severity},
        kubelet_settings::Settings,
    },
    planner::{
        context::View,
        findings::{approval, attempts, kubelet},
        images::CarriedImages,
        pair::{Both, Pair},
        recipes::Recipe,
        request::{Outcome, Request, Verdict},
        setting::Translation,
    },
};

/// Computes what `request` means on the node of `facts`.
pub fn plan(facts: &Facts, request: &Request) -> Outcome {
    let mut found: Vec<Finding> = kubelet::unreadable(facts).collect();
    found.extend(attempts::check(facts, request));
    let verdict = decide(facts, request, &mut found).unwrap_or_else(|finding| {
        found.push(finding);
        Verdict::Blocked
    });
    judge(facts, request, found, verdict)
}

/// What follows from everything that was found: adds what the cluster means, accepts what the user accepts, and decides
/// whether the node may be touched. Nobody else does.
pub fn judge(facts: &Facts, request: &Request, mut found: Vec<Finding>, verdict: Verdict) -> Outcome {
    let keeps_pods = matches!(&verdict, Verdict::Ready(plan) if plan.keeps_pods());
    // A node that is on the target is not touched: nothing that would be found matters.
    if verdict != Verdict::AlreadyThere {
        found.extend(findings::of_cluster(facts, request, keeps_pods));
    }
    let mut findings = findings::accept(found, &request.preflight.allow);
    let blocks = |finding: &Finding| finding.severity == Severity::Block;
    let is_blocked = findings
        .iter()
        .any(|one| blocks(one) && one.code != PODS_BLOCK_DRAIN.name);
    let verdict = match verdict {
        Verdict::Ready(_) if is_blocked => Verdict::Blocked,
        Verdict::Ready(mut plan) => {
            findings.extend(approval::check(request, &plan));
            findings.sort_by_key(|finding| finding.severity);
            plan.findings.clone_from(&findings);
            if findings.iter().any(blocks) {
                Verdict::Held(plan)
            } else {
                Verdict::Ready(plan)
            }
        }
        other => other,
    };
    Outcome { findings, verdict }
}

fn decide(facts: &Facts, request: &Request, found: &mut Vec<Finding>) -> Result<Verdict, Finding> {
    let kubelet = kubelet::ground(facts)?;
    let settings = Settings::of(kubelet, &facts.endpoints()).map_err(|error| refusals::settings(&error))?;
    let (recipe, pair) = match pair::pair(facts, &settings, request)? {
        Pair::Same => {
            found.push(pair::already_there(&settings));
            return Ok(Verdict::AlreadyThere);
        }
        Pair::Replace(both) => (Recipe::Replace, both),
        Pair::Upgrade(both) => (Recipe::Upgrade, both),
    };
    let Both {
        source,
        target,
        parts,
    } = *pair;
    let docker = facts.docker.as_ref();
    let text = docker.and_then(|docker| docker.daemon_json.as_ref());
    let daemon = text.map_or(Ok(serde_json::Map::new()), |file| daemon_json::parse(&file.text));
    let daemon = daemon.map_err(|error| refusals::daemon_json(text, &error))?;
    let sandbox = request
        .target
        .sandbox_image
        .as_ref()
        .unwrap_or(&source.sandbox_image);
    let carried = CarriedImages::of(source.store, kubelet, request, sandbox);
    let mut view = View {
        facts,
        request,
        kubelet,
        settings: &settings,
        source,
        target,
        parts,
        docker,
        engine: docker.and_then(|docker| docker.engine.as_ref()),
        daemon: &daemon,
        containerd: facts.containerd.as_ref(),
        cri_dockerd: facts.cri_dockerd.as_ref(),
        carried: &carried,
        crio_conf: facts.crio.as_ref().map(Crio::printed).unwrap_or_default(),
        left: Vec::new(),
        translation: Translation::default(),
    };
    if !view.upgrades() {
        view.left = (view.parts.0.settings)(&view);
    }
    view.translation = translation::of(&view);
    found.extend(findings::all(&view));
    recipes::plan(recipe, &view).map(|plan| Verdict::Ready(Box::new(plan)))
}
