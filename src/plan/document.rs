//! The plan: an ordered list of steps for one node, serialisable, with a digest.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    digest::Digest,
    finding::Finding,
    step::{AwaitStep, ImagesStep, Side, Step},
};
use crate::plan::runtime::RuntimeVersion;

/// Where Transship keeps its own files on a node: plans, journals, the executor's binary. For root alone: plans hold the
/// text of configuration files.
pub const STATE: &str = "/var/lib/transship";
/// Where a node keeps the key of the digests of its plans ([`Plan::digest_key`]), for root alone.
pub const DIGEST_KEY_FILE: &str = "/var/lib/transship/digest-key";

/// Version of the serialised form; an executor refuses any other.
pub const FORMAT: u32 = 1;

/// An ordered list of steps for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// [`FORMAT`].
    pub format: u32,
    /// UID of the `RuntimeMigration`, or `hand-<time>` for one that a person started on the node.
    pub migration: String,
    /// Name of the `RuntimeMigration`; `None` for a plan that a person made on the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_name: Option<String>,
    /// Name of the node.
    pub node: String,
    /// `/etc/machine-id` of the host that was looked at; another host refuses the plan.
    pub machine_id: String,
    /// The runtime that is left, with its version.
    pub source: RuntimeVersion,
    /// The runtime that is gone to, with its version.
    pub target: RuntimeVersion,
    /// Seconds between the kubelet's start under the target and the rollback that a commit prevents.
    pub confirm_within_secs: u32,
    /// Seconds between the confirmation and the commit, in which a rollback is as before the confirmation; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub soak_secs: u32,
    /// Seconds that the prepared node waits for the order to switch; then its preparation is undone.
    pub prepared_for_secs: u32,
    /// Go back when a step fails; otherwise stay for a person to look at.
    pub rollback_automatic: bool,
    /// Results of preflight, the blocking ones first.
    pub findings: Vec<Finding>,
    /// What is done, in this order.
    pub steps: Vec<PlannedStep>,
    /// A secret of the node that makes the digest of the plan tell nothing of the plan: the digest is shown beside a
    /// diff in which passwords are hidden, and without the key anybody could try passwords until the digest fits.
    /// Empty in plans from facts that were captured on another host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest_key: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
impl Plan {
    /// A plan from dockershim to containerd for the executor's own tests.
    pub(crate) fn example(migration: &str, steps: Vec<PlannedStep>) -> Self {
        use crate::plan::runtime::Runtime;

        Self {
            format: FORMAT,
            migration: migration.to_owned(),
            migration_name: None,
            node: "n1".to_owned(),
            machine_id: "1".to_owned(),
            source: RuntimeVersion {
                runtime: Runtime::Dockershim,
                version: "20.10".to_owned(),
            },
            target: RuntimeVersion {
                runtime: Runtime::Containerd,
                version: "1.6".to_owned(),
            },
            confirm_within_secs: 60,
            soak_secs: 0,
            prepared_for_secs: 900,
            rollback_automatic: true,
            digest_key: String::new(),
            findings: Vec::new(),
            steps,
        }
    }
}

/// A step and the section that it stands in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedStep {
    /// Where it stands; sections follow each other in the order of the enum.
    pub section: Section,
    /// What is done.
    pub does: Step,
}

impl PlannedStep {
    fn without_image_names(&self) -> Cow<'_, Self> {
        match &self.does {
            Step::Images(images) => Cow::Owned(Self {
                section: self.section,
                does: Step::Images(ImagesStep {
                    names: Vec::new(),
                    ..images.clone()
                }),
            }),
            _ => Cow::Borrowed(self),
        }
    }
}

/// The part of a [`Plan`] that its digest is made of.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Does<'a> {
    format: u32,
    machine_id: &'a str,
    source: &'a RuntimeVersion,
    target: &'a RuntimeVersion,
    steps: Vec<Cow<'a, PlannedStep>>,
    digest_key: &'a str,
}

/// A part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Section {
    /// While the node serves; afterwards the executor waits for `go`.
    Prepare,
    /// The critical section: from stopping the kubelet to the first healthy answer of kubelet and runtime.
    Switch,
    /// After the critical section, before the commit.
    Settle,
    /// After the commit. A step that fails here is undone with those before it in the section; the switch stays committed.
    Finish,
}

impl Plan {
    /// Digest of what the plan does: its steps, source, target and machine, with the node's [`Plan::digest_key`]. Commits,
    /// control files and `spec.approvedPlans` name it.
    ///
    /// Two plans that do the same have the same digest, whatever migration they are made for and whatever the findings
    /// are. The names of images do not count either: they follow the pods, which come and go while the node serves. What
    /// an image is cannot change by its way from one store to the other.
    ///
    /// # Panics
    /// Never: every field serialises.
    #[allow(
        clippy::expect_used,
        reason = "a plan holds only strings, numbers and lists of them"
    )]
    pub fn digest(&self) -> Digest {
        let does = Does {
            format: self.format,
            machine_id: &self.machine_id,
            source: &self.source,
            target: &self.target,
            steps: self.steps.iter().map(PlannedStep::without_image_names).collect(),
            digest_key: &self.digest_key,
        };
        Digest::of(serde_json::to_vec(&does).expect("a plan serialises"))
    }

    /// The CRI endpoint of the target as kubeadm keeps it (`unix:///run/containerd/containerd.sock`); every plan of a
    /// planner awaits it.
    pub fn target_endpoint(&self) -> Option<String> {
        self.steps.iter().find_map(|planned| match &planned.does {
            Step::Await(AwaitStep {
                side: Side::Target,
                runtime,
                ..
            }) => Some(runtime.url()),
            _ => None,
        })
    }

    /// Whether the pods of the node run on: the runtime is upgraded below them.
    pub fn keeps_pods(&self) -> bool {
        self.steps
            .iter()
            .any(|planned| matches!(planned.does, Step::Tasks(_)))
    }

    /// Index of the first step of [`Section::Finish`], or the number of steps: so many are done when the commit is awaited.
    pub fn switched(&self) -> usize {
        self.steps
            .iter()
            .take_while(|planned| planned.section != Section::Finish)
            .count()
    }

    /// Index of the first step that is not in [`Section::Prepare`].
    pub fn prepared(&self) -> usize {
        self.steps
            .iter()
            .take_while(|planned| planned.section == Section::Prepare)
            .count()
    }
}
