//! Facts and a request in, findings and a plan out.

use super::{
    assembler,
    cargo::Cargo,
    document::Plan,
    facts::Facts,
    finding::{Finding, Severity},
    findings::{
        self, View, attempts, configuration, kubelet,
        runtimes::{self, Pair},
    },
    kubelet_settings::Settings,
};
use crate::{
    api::request::{Drain, Images, Preflight, Rollback, Source, Target},
    edit::daemon_json,
};

/// What is asked for on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// UID of the `RuntimeMigration`, or `hand-<time>` for one that a person started on the node.
    pub migration: String,
    /// Name of the `RuntimeMigration`; `None` for one that a person started on the node.
    pub migration_name: Option<String>,
    /// The runtime to move to.
    pub target: Target,
    /// What happens to the runtime to leave.
    pub source: Source,
    /// How the pods leave the node before the switch; who only looks at the host does not drain it.
    pub drain: Drain,
    /// Which images are carried.
    pub images: Images,
    /// Which findings are accepted.
    pub preflight: Preflight,
    /// When the node goes back by itself.
    pub rollback: Rollback,
    /// Images without which the node could not come back and which the host alone cannot know: those of the
    /// agent's pod and of the other DaemonSets on the node. They are always carried.
    pub own_images: Vec<String>,
    /// Whether a pod in the pod network is Ready and stays on the node. Only the agent knows; by hand it is false.
    pub pods_in_pod_network: bool,
}

/// What is found, and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Results of preflight, the blocking ones first.
    pub findings: Vec<Finding>,
    /// What follows from them.
    pub verdict: Verdict,
}

/// What follows from facts and a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A finding blocks; nothing is touched.
    Blocked,
    /// The node is on the target already; nothing is to be done.
    AlreadyThere,
    /// This is to be done.
    Ready(Box<Plan>),
}

impl Outcome {
    /// The plan, when there is something to do and nothing blocks it.
    pub fn plan(&self) -> Option<&Plan> {
        match &self.verdict {
            Verdict::Ready(plan) => Some(plan),
            Verdict::Blocked | Verdict::AlreadyThere => None,
        }
    }
}

/// Computes what `request` means on the node of `facts`.
pub fn plan(facts: &Facts, request: &Request) -> Outcome {
    let mut found: Vec<Finding> = kubelet::unreadable(facts).collect();
    found.extend(attempts::check(facts, request));
    let verdict = decide(facts, request, &mut found).unwrap_or_else(|finding| {
        found.push(finding);
        Verdict::Blocked
    });
    let findings = findings::accept(found, &request.preflight.allow);
    let blocked = findings.iter().any(|finding| finding.severity == Severity::Block);
    let verdict = match verdict {
        // A node that is on the target is not touched: nothing that was found matters.
        Verdict::AlreadyThere => Verdict::AlreadyThere,
        Verdict::Blocked => Verdict::Blocked,
        Verdict::Ready(_) if blocked => Verdict::Blocked,
        Verdict::Ready(mut plan) => {
            plan.findings.clone_from(&findings);
            Verdict::Ready(plan)
        }
    };
    Outcome { findings, verdict }
}

fn decide(facts: &Facts, request: &Request, found: &mut Vec<Finding>) -> Result<Verdict, Finding> {
    let kubelet = kubelet::ground(facts)?;
    let settings =
        Settings::of(kubelet, &facts.endpoints()).map_err(|error| configuration::settings(&error))?;
    let (source, target, parts) = match runtimes::pair(facts, &settings, request)? {
        Pair::Same => {
            found.push(runtimes::already_there(&settings));
            return Ok(Verdict::AlreadyThere);
        }
        Pair::Move {
            source,
            target,
            parts,
        } => (*source, *target, parts),
    };
    let docker = facts.docker.as_ref();
    let text = docker.and_then(|docker| docker.daemon_json.as_ref());
    let daemon = text.map_or(Ok(serde_json::Map::new()), |file| daemon_json::parse(&file.text));
    let daemon = daemon.map_err(|error| configuration::daemon_json(text, &error))?;
    let sandbox = request
        .target
        .sandbox_image
        .as_ref()
        .unwrap_or(&source.sandbox_image);
    let cargo = Cargo::of(source.store, kubelet, request, sandbox);
    let view = View {
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
        cargo: &cargo,
    };
    found.extend(findings::all(&view));
    assembler::plan(&view).map(|plan| Verdict::Ready(Box::new(plan)))
}
