//! What the planner is asked, and what it answers.

use crate::plan::{
    document::Plan,
    finding::Finding,
    request::{Drain, Images, Preflight, Rollback, Source, Target},
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
