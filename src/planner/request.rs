//! What the planner is asked, and what it answers.

use crate::plan::{
    cluster::{ClusterFacts, PodFacts},
    document::Plan,
    finding::Finding,
    request::{Drain, Images, Preflight, Rollback, Source, Target},
};

/// What is asked for on one node, and what its API server reports of it.
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
    /// Digests of the plans that may run; any plan if it is empty.
    pub approved_plans: Vec<String>,
    /// What the API server reports; `None` if it was not asked, as by a person on the node.
    pub cluster: Option<ClusterFacts>,
}

impl Request {
    /// What the API server reports of the node's pods; `None` if it was not asked.
    pub fn pods(&self) -> Option<&PodFacts> {
        self.cluster.as_ref().map(|cluster| &cluster.pods)
    }
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
    /// Nothing is touched, because of pods that would be lost or of an approval that is missing. This would be done, so
    /// that a person can review it.
    Held(Box<Plan>),
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
            Verdict::Blocked | Verdict::Held(_) | Verdict::AlreadyThere => None,
        }
    }
}
