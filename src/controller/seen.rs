//! What a decision is made from: the migration, the nodes and their shares, as plain data.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::api::migration::{ControlPlane, Mode, Slot};
use crate::api::node_migration::{Action, NodePhase};
use crate::api::request::{DrainMode, Runtime};

/// Everything that one decision knows.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The migration's UID.
    pub uid: String,
    /// The generation of its spec.
    pub generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has ended at this generation; then nothing more is started.
    pub ended: bool,
    /// Its mode.
    pub mode: Mode,
    /// Whether the user paused it.
    pub paused: bool,
    /// What is wrong with its spec, in sentences.
    pub problems: Vec<String>,
    /// How many nodes may be unavailable, resolved against [`Seen::budgeted`].
    pub max_unavailable: usize,
    /// After how many failures nothing more is started.
    pub max_failures: usize,
    /// When control plane nodes have their turn.
    pub control_plane: ControlPlane,
    /// How pods leave a node, as the user asks for it.
    pub drain: DrainMode,
    /// The runtime that is asked for.
    pub target: Runtime,
    /// What the control plane as a whole still waits for, in sentences that follow "waits"; absent when it was not
    /// asked.
    pub gates: Option<Vec<String>>,
    /// The slots that the status holds.
    pub slots: Vec<Slot>,
    /// Every node, by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// Every NodeMigration, by the name of its node.
    pub shares: BTreeMap<String, Share>,
    /// NodeMigrations that cannot be read, by the name of their node, with the error.
    pub unreadable: BTreeMap<String, String>,
    /// The node that this controller runs on.
    pub own_node: Option<String>,
    /// Why the agent does not run on a node, where that is known.
    pub agent_trouble: BTreeMap<String, String>,
    /// Other active migrations that choose some of the same nodes.
    pub overlaps: Vec<Overlap>,
    /// Now.
    pub now: Timestamp,
}

/// A node, as far as a decision needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeView {
    /// Its UID.
    pub uid: String,
    /// Whether the migration's selector chooses it.
    pub selected: bool,
    /// It bears the label of a control plane node.
    pub control_plane: bool,
    /// Why it is left out whatever else holds.
    pub left_out: Option<LeftOut>,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// When that condition changed last, by the clock of the control plane or of the node.
    pub ready_changed: Option<Timestamp>,
    /// It is unschedulable.
    pub cordoned: bool,
    /// It is unschedulable, and not by an agent.
    pub cordoned_by_others: bool,
    /// UID of the migration in whose name an agent made it unschedulable.
    pub cordoned_for: Option<String>,
    /// An older active migration that chooses it too; its name.
    pub claimed_by: Option<String>,
    /// Another migration, for which it holds a slot and is changed; its name.
    pub busy_with: Option<String>,
    /// Ordinary pods may run there, apart from what passes: it runs Linux, and nobody tainted it for good.
    pub takes_pods: bool,
    /// The cluster's own taint that keeps pods away for the moment, apart from those that only repeat that the node is
    /// not Ready or cordoned.
    pub taint: Option<String>,
    /// Its `containerRuntimeVersion`.
    pub shows: String,
    /// What that says about the target.
    pub on_target: OnTarget,
    /// The value of the agent's label, if it bears one.
    pub label: Option<String>,
}

/// Whether a node is on the target, as far as the Node tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnTarget {
    /// It shows another runtime.
    #[default]
    No,
    /// It shows Docker Engine, and its kubelet may have either shim. Only the node itself knows its endpoint: without
    /// a share it is planned, and its agent says `AlreadyThere`; with one, the agent's word is believed.
    Perhaps,
    /// It shows the target.
    Yes,
}

/// Why a node is left out whatever else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeftOut {
    /// `strategy.controlPlane` is `Skip`.
    ControlPlane,
    /// The annotation `transship.dev/skip` says so.
    OptedOut,
    /// It does not run Linux.
    NotLinux,
}

impl LeftOut {
    /// The reason in a sentence about one node.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ControlPlane => "a control plane node (strategy.controlPlane is Skip)",
            Self::OptedOut => "opted out by its annotation transship.dev/skip",
            Self::NotLinux => "not a Linux node",
        }
    }
}

/// A NodeMigration, as far as a decision needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// UID of the migration that it is a share of.
    pub migration_uid: String,
    /// Whether that migration exists and has not ended.
    pub migration_active: bool,
    /// Name of that migration.
    pub migration_name: String,
    /// The generation that its spec was made from.
    pub generation: i64,
    /// What it asks.
    pub action: Action,
    /// Whether that migration is older than the one that decides.
    pub migration_older: bool,
    /// Its spec asks for what the migration asks for now.
    pub same_request: bool,
    /// A person asks for another attempt.
    pub retry: bool,
    /// UID of the node that it means.
    pub node_uid: String,
    /// Whether it is being deleted: it must not be taken over.
    pub deleting: bool,
    /// Where the node is on its way to what the spec asks; `Pending` when the status speaks of anything else.
    pub phase: NodePhase,
    /// The agent's sentence.
    pub message: String,
    /// Its spec has the pods stay, because the cluster had no other node for them.
    pub no_other_node: bool,
    /// Its spec has the pods keep running while the runtime is upgraded.
    pub keeps_pods: bool,
    /// Its spec lets the switch begin.
    pub proceed: bool,
    /// Its agent has only the switch left to do, and waits until its spec lets it begin.
    pub ready_to_switch: bool,
    /// Its drain, or the wait for permission to switch, took too long.
    pub timed_out: bool,
    /// Pods of the node that still ran on a shim of the version before an upgrade in place when that was last counted.
    pub pods_on_old_shims: u32,
    /// The findings that block the node, by their codes, with their subjects where they have one.
    pub blocked_by: Vec<String>,
    /// When its agent last wrote the status, by the API server's clock.
    pub reported: Option<Timestamp>,
    /// How long its Node may be not Ready before it counts as lost: the switch, its confirmation, a rollback and a boot.
    pub patience: SignedDuration,
}

/// Another active migration that chooses some of the same nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Its name.
    pub migration: String,
    /// Whether it is older than the one that decides; the older one goes first.
    pub older: bool,
    /// The runtime that it moves nodes to, where that is another one.
    pub opposed: Option<Runtime>,
    /// The nodes that both choose.
    pub nodes: Vec<String>,
}

/// Whether the pods of a node can go to another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elsewhere {
    /// Another node can take them now.
    Now,
    /// Other nodes could, and cannot now; the reason of each, as `w2 is not Ready`.
    Later(Vec<String>),
    /// The cluster has no other node that could ever take them.
    Never,
}

impl Seen {
    /// The selected nodes that count for `maxUnavailable`, by name. Control planes are cordoned and tainted for
    /// reasons of their own, and go one at a time anyway.
    pub fn budgeted(nodes: &BTreeMap<String, NodeView>) -> impl Iterator<Item = (&String, &NodeView)> {
        nodes
            .iter()
            .filter(|(_, node)| node.selected && !node.control_plane)
    }

    /// Whether the pods of a node can go to another one, with `slots` claimed.
    pub fn elsewhere(&self, name: &str, slots: &[Slot]) -> Elsewhere {
        let busy = |other: &str| self.mode == Mode::Apply && slots.iter().any(|slot| slot.name == other);
        let mut later = Vec::new();
        for (other, node) in &self.nodes {
            if other == name || !node.takes_pods {
                continue;
            }
            let why = match &node.taint {
                _ if busy(other) || node.busy_with.is_some() => "being migrated".to_owned(),
                _ if !node.ready => "not Ready".to_owned(),
                _ if node.cordoned => "cordoned".to_owned(),
                Some(taint) => format!("tainted {taint}"),
                None => return Elsewhere::Now,
            };
            later.push(format!("{other} is {why}"));
        }
        if later.is_empty() {
            Elsewhere::Never
        } else {
            Elsewhere::Later(later)
        }
    }

    /// How pods leave a node: a runtime that is asked for in another version is upgraded below them. Docker Engine, which a
    /// Node shows for either of its shims, does not tell whether it is the same runtime.
    pub fn drain_of(&self, name: &str) -> DrainMode {
        self.drain.of(self.is_upgrade(name))
    }

    /// Whether a node that is not switched yet shows the target's runtime: it is upgraded in place, and no pod has to stop.
    pub fn is_upgrade(&self, name: &str) -> bool {
        let shows = |node: &NodeView| node.shows.starts_with(&self.target.scheme());
        self.target.reports_own_version() && self.nodes.get(name).is_some_and(shows)
    }

    /// Whether a control plane node has been migrated, or may have been.
    pub fn moved_control_plane(&self) -> bool {
        self.nodes.iter().any(|(name, node)| {
            let migrated = |share: &Share| share.action == Action::Migrate && share.phase.ended();
            node.control_plane && self.share(name).is_some_and(migrated)
        })
    }

    /// This migration's share for a node, if it means the node that is there now.
    pub fn share(&self, name: &str) -> Option<&Share> {
        let node = self.nodes.get(name)?;
        self.shares
            .get(name)
            .filter(|share| share.migration_uid == self.uid && share.node_uid == node.uid)
    }

    /// The share of another migration for a node, if it must be left alone: it may be under way, whatever became of
    /// its migration, or that migration is active and goes first.
    pub fn foreign(&self, name: &str) -> Option<&Share> {
        self.shares.get(name).filter(|share| {
            let claimed = share.phase == NodePhase::Pending && share.action != Action::Plan;
            let goes_first = share.migration_older || self.mode == Mode::Plan;
            share.migration_uid != self.uid
                && (share.phase.is_under_way()
                    || share.deleting
                    || share.migration_active && (claimed || goes_first))
        })
    }

    /// The migration that must be done with a node before this one starts it.
    pub fn left_to(&self, name: &str) -> Option<&str> {
        let node = self.nodes.get(name)?;
        let foreign = self.foreign(name).map(|share| share.migration_name.as_str());
        let claimed = node.claimed_by.as_deref().filter(|_| self.mode == Mode::Apply);
        foreign.or(node.busy_with.as_deref()).or(claimed)
    }
}
