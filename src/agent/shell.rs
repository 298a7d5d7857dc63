//! Looks, decides, writes the status, acts; over and over. Nothing that counts is kept here: what is lost with
//! the process is a plan that was computed and not handed over, and when an eviction was last refused.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::{
    cluster,
    drain::{Survey, evict::Answer},
    host::{Host, HostError, Planned, Run},
    identity::{self, FIELD_MANAGER, IdentityError, NodeIdentity},
    machine::{Act, Decision, Refusal, Seen, Trouble, decide, in_trouble, is_at_rest, run_name},
};
use crate::{
    admin::Ready,
    api::node_migration::{NodeMigration, NodeMigrationStatus, NodePhase},
    executor::progress::State,
    metrics::Metrics,
    plan::planner::Verdict,
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
    #[error("{what} NodeMigration {name}: {error}")]
    Migration {
        what: &'static str,
        name: String,
        error: Box<kube::Error>,
    },
    #[error("evict {pod}: {error}")]
    Evict { pod: String, error: IdentityError },
}

impl RoundError {
    fn is_absence(&self) -> bool {
        match self {
            Self::Identity(error) | Self::Evict { error, .. } => error.is_absence(),
            Self::Migration { error, .. } => identity::is_absence(error),
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
    migrations: Api<NodeMigration>,
    metrics: Metrics,
    /// What was computed, and for which attempt and action.
    planned: Option<(String, Planned)>,
    refusals: BTreeMap<String, Refusal>,
    trouble: Option<Trouble>,
    failures: u32,
    last_phase: Option<NodePhase>,
    idle: bool,
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
    pub fn new(
        me: Myself,
        host: H,
        node: NodeIdentity,
        migrations: Api<NodeMigration>,
        metrics: Metrics,
    ) -> Self {
        Self {
            me,
            host,
            node,
            migrations,
            metrics,
            planned: None,
            refusals: BTreeMap::new(),
            trouble: None,
            failures: 0,
            last_phase: None,
            idle: false,
        }
    }

    /// The host.
    pub const fn host(&self) -> &H {
        &self.host
    }

    /// Works until the process ends; `ready` says whether the last round succeeded.
    pub async fn run(mut self, ready: &Ready) -> std::convert::Infallible {
        loop {
            let pause = self.round().await;
            ready.set(self.failures == 0);
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
                self.failures = self.failures.saturating_add(1);
                if error.is_absence() {
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
                    if !matches!(error, RoundError::Migration { .. }) {
                        self.report_trouble(&trouble).await;
                    }
                    self.trouble = Some(trouble);
                }
                LONGEST.min(SOON * 2u32.saturating_pow(self.failures.min(8) - 1))
            }
        }
    }

    async fn try_round(&mut self) -> Result<Duration, RoundError> {
        let Some(migration) = self.migration().await? else {
            self.say_idle("this node has no NodeMigration");
            return Ok(LATER);
        };
        let run = run_name(&migration);
        let look = self.look(&migration, &run).await?;
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

    async fn look(&mut self, migration: &NodeMigration, run: &str) -> Result<Look, RoundError> {
        let node = self.node.node().await?;
        if is_at_rest(migration) {
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
            Act::Wait => return Ok(SOON),
            Act::Plan => {
                let images = images_to_come_back(&look.pods, migration, &self.me.namespace);
                let mut planned = self.host.plan(run, &migration.spec, images).await?;
                if planned.outcome.verdict != Verdict::AlreadyThere {
                    let more = cluster::findings(&mut self.node, planned.kubeadm.as_ref()).await?;
                    planned.outcome.findings.extend(more);
                }
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
            Act::Order(order) => {
                if let Some(now) = &look.run {
                    tracing::info!(?order, run, "tells the executor");
                    self.host.order(run, order, &now.plan.digest()).await?;
                    // It stopped after `Prepare`. One that has not begun reads the order when it does.
                    if now.progress.is_some() && !now.executor_running {
                        self.host.start_executor().await?;
                    }
                }
            }
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

    async fn evict(&mut self, pod: &Pod, uid: String, migration: &NodeMigration) -> Result<(), RoundError> {
        let name = format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
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

    async fn migration(&self) -> Result<Option<NodeMigration>, RoundError> {
        let read = match self.migrations.get_opt(&self.me.node).await {
            Err(kube::Error::SerdeError(error)) => {
                tracing::warn!(%error, "the NodeMigration cannot be read; tries without its status");
                self.migration_without_status().await
            }
            read => read,
        };
        read.map_err(|error| self.about_migration("read", error))
    }

    /// A status that nobody can read, forged or of another version, must not keep a switch from its commit: it is
    /// written anew, from what the node knows.
    async fn migration_without_status(&self) -> kube::Result<Option<NodeMigration>> {
        let kind = ApiResource::erase::<NodeMigration>(&());
        let api: Api<DynamicObject> = Api::all_with(self.migrations.clone().into_client(), &kind);
        let Some(mut object) = api.get_opt(&self.me.node).await? else {
            return Ok(None);
        };
        if let Some(data) = object.data.as_object_mut() {
            data.remove("status");
        }
        object
            .try_parse()
            .map(Some)
            .map_err(|error| kube::Error::SerdeError(serde::de::Error::custom(error)))
    }

    fn about_migration(&self, what: &'static str, error: kube::Error) -> RoundError {
        RoundError::Migration {
            what,
            name: self.me.node.clone(),
            error: Box::new(error),
        }
    }

    async fn report_trouble(&mut self, trouble: &Trouble) {
        let reported = match self.migration().await {
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

    /// Writes the status if it is another one, whole, by server-side apply.
    async fn report(
        &mut self,
        migration: &NodeMigration,
        status: NodeMigrationStatus,
    ) -> Result<(), RoundError> {
        self.measure(&status);
        if self.last_phase != Some(status.phase) {
            tracing::info!(phase = ?status.phase, message = status.message, "enters a phase");
            self.last_phase = Some(status.phase);
            // A phase may have taken longer than the kubelet's certificate lives.
            self.node.refresh();
        }
        if migration.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let body = json!({
            "apiVersion": NodeMigration::api_version(&()),
            "kind": NodeMigration::kind(&()),
            // An object of this name that was made anew is another one, and the server says so.
            "metadata": { "name": migration.name_any(), "uid": migration.uid() },
            "status": status,
        });
        self.migrations
            .patch_status(
                &self.me.node,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(body),
            )
            .await
            .map(|_| ())
            .map_err(|error| self.about_migration("report to", error))
    }

    fn measure(&self, status: &NodeMigrationStatus) {
        self.metrics.node_phase(&self.me.node, status.phase);
        if let Some(millis) = status.kubelet_downtime_millis {
            self.metrics
                .node_kubelet_downtime(&self.me.node, Duration::from_millis(millis.unsigned_abs()));
        }
        if let Some(bytes) = status.image_bytes {
            self.metrics.node_image_bytes(&self.me.node, bytes.unsigned_abs());
        }
    }

    fn say_idle(&mut self, why: &str) {
        if !std::mem::replace(&mut self.idle, true) {
            tracing::info!(node = self.me.node, "idle: {why}");
        }
    }
}

/// Images without which the node's own pods could not come back under the target: those of Transship, of
/// DaemonSets and of static pods that have been started here.
fn images_to_come_back(pods: &[Pod], migration: &NodeMigration, own_namespace: &str) -> Vec<String> {
    let survey = Survey::new(pods, &migration.spec.drain, own_namespace);
    let mut images: Vec<String> = survey.stay.into_iter().flat_map(started_images).collect();
    images.sort();
    images.dedup();
    images
}

/// The images of those containers of a pod that were started once, as its spec names them.
fn started_images(pod: &Pod) -> Vec<String> {
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else {
        return Vec::new();
    };
    let statuses = || {
        let containers = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses);
        containers.flatten()
    };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter(|container| {
            statuses().any(|status| status.name == container.name && !status.image_id.is_empty())
        })
        .filter_map(|container| container.image.clone())
        .collect()
}
