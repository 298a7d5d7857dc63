//! Looks, decides, writes the status, acts; over and over. Nothing that counts is kept here: what is lost with
//! the process is a plan that was computed and not handed over, and when an eviction was last refused.

mod relief;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};

use super::{
    cluster,
    drain::{Survey, evict::Answer},
    host::{Attempt, Host, HostError, Planned, Run},
    identity::{IdentityError, NodeIdentity},
    machine::{
        Act, Decision, Refusal, Seen, Trouble, asks_for_attempts, asks_for_parent, decide, in_trouble,
        is_at_rest, run_name,
    },
    parent::{self, Parent},
    share::{Share, ShareError},
};
use crate::{
    api::node_migration::{NodeMigration, NodeMigrationSpec, NodeMigrationStatus},
    executor::{control::Order, progress::State},
    plan::cluster::ClusterFacts,
    planner::{findings::kubeadm, request::Request},
};

/// Time until the next look while something goes on.
const SOON: Duration = Duration::from_secs(1);
/// Time until the next look when nothing does.
const LATER: Duration = Duration::from_secs(5);
/// Longest time until the next attempt at what fails.
const LONGEST: Duration = Duration::from_secs(10);

/// What keeps a round from its end.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Share(#[from] ShareError),
    #[error("evict {pod}: {error}")]
    Evict { pod: String, error: IdentityError },
}

impl RoundError {
    fn may_pass(&self) -> bool {
        match self {
            Self::Identity(error) | Self::Evict { error, .. } => error.may_pass(),
            Self::Share(error) => error.may_pass(),
            Self::Host(_) => false,
        }
    }
}

/// The pod that this agent is.
#[derive(Clone, Debug)]
pub struct Myself {
    /// Name of its node.
    pub node: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
}

/// The agent of one node.
#[derive(Debug)]
pub struct Agent<H> {
    me: Myself,
    host: H,
    node: NodeIdentity,
    share: Share,
    /// What was computed, and for which attempt and action.
    planned: Option<(String, Planned)>,
    refusals: BTreeMap<String, Refusal>,
    trouble: Option<Trouble>,
    failures: u32,
    idle: bool,
    /// Since when the node has no NodeMigration.
    alone_since: Option<Instant>,
}

/// What a look found.
struct Look {
    node: Node,
    pods: Vec<Pod>,
    run: Option<Run>,
    kubelet: Option<Result<(), String>>,
}

impl<H: Host> Agent<H> {
    /// An agent that acts on `host` and, as `node`, on its Node; `migrations` is the service account's.
    pub fn new(me: Myself, host: H, node: NodeIdentity, migrations: Api<NodeMigration>) -> Self {
        Self {
            share: Share::new(me.node.clone(), migrations),
            me,
            host,
            node,
            planned: None,
            refusals: BTreeMap::new(),
            trouble: None,
            failures: 0,
            idle: false,
            alone_since: None,
        }
    }

    /// The host.
    pub const fn host(&self) -> &H {
        &self.host
    }

    /// Works until the process ends.
    pub async fn run(&mut self) -> std::convert::Infallible {
        loop {
            let pause = self.round().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks, decides, reports and acts once; returns how long to wait before the next time.
    pub async fn round(&mut self) -> Duration {
        match self.try_round().await {
            Ok(pause) => {
                self.trouble = None;
                self.failures = 0;
                pause
            }
            Err(error) => {
                self.planned = None;
                self.failures = self.failures.saturating_add(1);
                if error.may_pass() {
                    tracing::warn!(%error, "the API server is away; tries again");
                } else {
                    tracing::error!(%error, "tries again");
                    let since = self
                        .trouble
                        .take()
                        .map_or_else(Timestamp::now, |trouble| trouble.since);
                    let trouble = Trouble {
                        since,
                        message: error.to_string(),
                    };
                    if !matches!(error, RoundError::Share(_)) {
                        self.report_trouble(&trouble).await;
                    }
                    self.trouble = Some(trouble);
                }
                LONGEST.min(SOON * 2u32.saturating_pow(self.failures.min(8) - 1))
            }
        }
    }

    async fn try_round(&mut self) -> Result<Duration, RoundError> {
        let migration = self.share.read().await?;
        let node = self.node.node().await?;
        let attempts = if migration.as_ref().is_none_or(asks_for_attempts) {
            self.host.attempts().await?
        } else {
            Vec::new()
        };
        if migration.as_ref().is_none_or(asks_for_attempts)
            && let Some(pause) = self.relieve(migration.as_ref(), &node, &attempts).await?
        {
            return Ok(pause);
        }
        let Some(migration) = migration else {
            self.say_idle("this node has no NodeMigration");
            return Ok(LATER);
        };
        let parent = if asks_for_parent(&migration, &attempts) {
            let read = self.share.parent(&migration.spec.migration.name).await?;
            parent::compare(&migration.spec, read.as_ref())
        } else {
            Parent::Agrees
        };
        let run = run_name(&migration, &attempts);
        let look = self.look(&migration, node, &attempts, &run).await?;
        // A plan is for one attempt at one action with these pods' rules.
        let planned_for = format!("{run} {:?}", migration.spec.action);
        if self
            .planned
            .as_ref()
            .is_some_and(|(computed_for, _)| *computed_for != planned_for)
        {
            self.planned = None;
        }
        let seen = Seen {
            now: Timestamp::now(),
            own_pod: (&self.me.namespace, &self.me.pod),
            migration: &migration,
            parent: &parent,
            attempts: &attempts,
            node: &look.node,
            pods: &look.pods,
            run: look.run.as_ref(),
            planned: self.planned.as_ref().map(|(_, planned)| planned),
            kubelet: look
                .kubelet
                .as_ref()
                .map(|said| said.as_ref().copied().map_err(String::as_str)),
            refusals: &self.refusals,
            trouble: self.trouble.as_ref(),
        };
        let Some(Decision { status, act }) = decide(&seen) else {
            self.say_idle("the NodeMigration is for an earlier node of this name");
            return Ok(LATER);
        };
        self.idle = false;
        self.report(&migration, status).await?;
        self.act(&migration, &run, &look, act, planned_for).await
    }

    async fn look(
        &mut self,
        migration: &NodeMigration,
        node: Node,
        attempts: &[Attempt],
        run: &str,
    ) -> Result<Look, RoundError> {
        if is_at_rest(migration, attempts) {
            return Ok(Look {
                node,
                pods: Vec::new(),
                run: None,
                kubelet: None,
            });
        }
        let run_now = self.host.look(run).await?;
        let mut pods = self.node.pods(false).await?;
        let state = run_now
            .as_ref()
            .and_then(|run| run.progress.as_ref())
            .map(|progress| progress.state);
        let own = &self.me.namespace;
        // What the server's cache says is enough to evict, and not enough to switch.
        if state == Some(State::Prepared) && Survey::new(&pods, &migration.spec.drain, own).remaining() == 0 {
            pods = self.node.pods(true).await?;
        }
        let kubelet = match state {
            Some(State::AwaitingCommit { .. }) => Some(
                self.host
                    .kubelet_health(run)
                    .await
                    .map_err(|error| error.to_string()),
            ),
            _ => None,
        };
        Ok(Look {
            node,
            pods,
            run: run_now,
            kubelet,
        })
    }

    async fn act(
        &mut self,
        migration: &NodeMigration,
        run: &str,
        look: &Look,
        act: Act,
        planned_for: String,
    ) -> Result<Duration, RoundError> {
        match act {
            Act::Rest => {
                // Old knowledge is of no use to what may begin after this.
                self.planned = None;
                self.refusals.clear();
                return Ok(LATER);
            }
            Act::Wait => {
                // Nothing that was planned waits: host and pods may be others when the wait is over.
                self.planned = None;
                return Ok(SOON);
            }
            Act::Plan => {
                let planned = self.plan(&migration.spec, run, look).await?;
                self.planned = Some((planned_for, planned));
            }
            Act::Install(plan) => {
                self.host.install(run, &plan).await?;
                self.planned = None;
            }
            Act::StartExecutor => {
                self.host.start_executor().await?;
                return Ok(SOON);
            }
            Act::Go(baseline) => {
                // First, so that whoever finds the order finds the baseline too.
                self.host.record(run, &baseline).await?;
                self.order(run, look, Order::Go).await?;
            }
            Act::Order(order) => self.order(run, look, order).await?,
            Act::Patch(patch) => self.node.patch_node(&patch).await?,
            Act::Evict(uids) => {
                for pod in &look.pods {
                    let uid = pod.uid().unwrap_or_default();
                    if uids.contains(&uid) {
                        self.evict(pod, uid, migration).await?;
                    }
                }
            }
        }
        Ok(Duration::ZERO)
    }

    /// What the spec means on this node, for its host and its pods as they are now.
    async fn plan(
        &mut self,
        spec: &NodeMigrationSpec,
        run: &str,
        look: &Look,
    ) -> Result<Planned, RoundError> {
        let facts = self.host.facts(run).await?;
        let kubeadm = match kubeadm::Node::of(&facts, spec.target.runtime) {
            Some(node) => Some(cluster::kubeadm_configs(&mut self.node, &node).await?),
            None => None,
        };
        let own = (self.me.namespace.as_str(), self.me.pod.as_str());
        let cluster = ClusterFacts {
            node: self.me.node.clone(),
            no_other_node: spec.no_other_node,
            kubeadm,
            is_unrestricted: !self.node.is_restricted().await?,
            pods: cluster::pod_facts(&look.pods, &spec.drain, own),
        };
        let request = Request {
            migration: run.to_owned(),
            migration_name: Some(spec.migration.name.clone()),
            target: spec.target.clone(),
            source: spec.source.clone(),
            drain: spec.drain.clone(),
            images: spec.images.clone(),
            preflight: spec.preflight.clone(),
            rollback: spec.rollback.clone(),
            approved_plans: spec.approved_plans.clone(),
            cluster: Some(cluster),
        };
        Ok(Planned::of(self.host.plan(&facts, &request), &facts))
    }

    async fn order(&self, run: &str, look: &Look, order: Order) -> Result<(), HostError> {
        let Some(now) = &look.run else { return Ok(()) };
        tracing::info!(?order, run, "tells the executor");
        self.host.order(run, order, &now.plan.digest()).await?;
        // It stopped after `Prepare`. One that has not begun reads the order when it does.
        if now.progress.is_some() && !now.executor_running {
            self.host.start_executor().await?;
        }
        Ok(())
    }

    async fn evict(&mut self, pod: &Pod, uid: String, migration: &NodeMigration) -> Result<(), RoundError> {
        let name = cluster::name(pod);
        let answer = self
            .node
            .evict(pod, &migration.spec.drain)
            .await
            .map_err(|error| RoundError::Evict {
                pod: name.clone(),
                error,
            })?;
        match answer {
            Answer::Going => {
                tracing::info!(pod = name, "evicted");
                self.refusals.remove(&uid);
            }
            Answer::Refused(reason) => {
                tracing::info!(pod = name, reason, "the eviction was refused");
                self.refusals.insert(
                    uid,
                    Refusal {
                        at: Timestamp::now(),
                        reason,
                    },
                );
            }
        }
        Ok(())
    }

    async fn report(
        &mut self,
        migration: &NodeMigration,
        status: NodeMigrationStatus,
    ) -> Result<(), ShareError> {
        if self.share.note(&status) {
            // A phase may have taken longer than the kubelet's certificate lives.
            self.node.refresh();
        }
        self.share.report(migration, &status).await
    }

    async fn report_trouble(&mut self, trouble: &Trouble) {
        let reported = match self.share.read().await {
            Ok(Some(migration)) => {
                let status = in_trouble(&migration, trouble, Timestamp::now());
                self.report(&migration, status).await
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = reported {
            tracing::warn!(%error, "the trouble could not be reported");
        }
    }

    fn say_idle(&mut self, why: &str) {
        if !std::mem::replace(&mut self.idle, true) {
            tracing::info!(node = self.me.node, "idle: {why}");
        }
    }
}
