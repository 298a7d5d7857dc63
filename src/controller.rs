//! The controller: which node, when. It never touches a host; it reads nodes, writes NodeMigrations, the status of
//! their migration, events, its lease and the one label that brings the agent to a node.
//!
//! A reconciliation is `observe → validate → decide → apply → report`:
//! - [`observe`]: from the stores of the watches to [`seen::Seen`], plain data, validated.
//! - [`rollout`]: the decision, a pure function of it.
//! - [`report`]: the decision in words: status, conditions, events (pure).
//! - [`apply`]: the writes, the claim of the slots first.
//! - [`trouble`]: why an agent does not begin.

mod apply;
pub mod observe;
pub mod report;
pub mod rollout;
pub mod seen;
mod trouble;

use std::collections::HashMap;
use std::future::ready;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::api::ListParams;
use kube::runtime::controller::{Action, Config, Controller};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt as _, reflector::store::Writer};
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_lease_manager::{LeaseManagerBuilder, LeaseParams};

use crate::admin::{self, Ready};
use crate::api::FINALIZER;
use crate::api::migration::RuntimeMigration;
use crate::api::node_migration::{Action as Asked, NodeMigration, NodePhase};
use crate::api::request::Runtime;
use crate::metrics::Metrics;
use observe::World;

/// How soon an active migration is looked at again without any change.
const ACTIVE: Duration = Duration::from_secs(15);
/// How soon one that waits is.
const IDLE: Duration = Duration::from_secs(300);
/// How long an agent may take to begin before its pod is asked why.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds that a lease lasts, and seconds before its end at which it is renewed.
const LEASE: (u64, u64) = (15, 5);

/// Arguments of `transship controller`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The namespace of the controller and its agents.
    #[arg(long, env = "POD_NAMESPACE", default_value = "transship")]
    namespace: String,
    /// The name under which this process holds the lease.
    #[arg(long, env = "POD_NAME", default_value = "transship-controller")]
    identity: String,
    /// The node that this process runs on; it is migrated last.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// Name of the lease.
    #[arg(long, env = "TRANSSHIP_LEASE", default_value = "transship-controller")]
    lease: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "TRANSSHIP_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Start nothing; say whether a node is under way, and fail if one is.
    #[arg(long)]
    check_idle: bool,
}

/// What the controller cannot go on with, or tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{doing}: {cause}")]
    Api {
        /// What it was for.
        doing: String,
        /// Why it failed.
        cause: Box<kube::Error>,
    },
    /// The lease could not be used.
    #[error("lease {name} in namespace {namespace}: {cause}")]
    Lease {
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: String,
        /// Why.
        cause: Box<kube_lease_manager::LeaseManagerError>,
    },
    /// The lease went to another process; this one must stop at once.
    #[error("the lease {0} is lost; another controller leads now")]
    LeaseLost(String),
    /// The admin server could not listen or serve.
    #[error("serving on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The metrics could not be made.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Nodes are under way.
    #[error(
        "nodes are under way: {0}. Wait until they have ended, or delete their RuntimeMigration, which waits for them; \
         then try again"
    )]
    Busy(String),
    /// A watch ended before its first list was complete.
    #[error("a watch ended before its first list was complete")]
    WatchEnded,
}

impl Error {
    /// Another writer was faster; what was seen is old.
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { cause, .. }
            if matches!(&**cause, kube::Error::Api(status) if status.code == 409))
    }

    /// A bounded label for metrics.
    fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } if self.is_conflict() => "conflict",
            Self::Api { cause, .. } => match &**cause {
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                kube::Error::Api(_) => "refused",
                _ => "unreachable",
            },
            Self::Lease { .. } | Self::LeaseLost(_) => "lease",
            Self::Listen { .. } | Self::Metrics(_) | Self::Busy(_) | Self::WatchEnded => "internal",
        }
    }
}

trait IntoError<T> {
    /// Names what the request was for.
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> IntoError<T> for Result<T, kube::Error> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error::Api {
            doing: doing(),
            cause: Box::new(cause),
        })
    }
}

/// Runs `transship controller` until it is told to stop or loses its lease.
///
/// # Errors
/// The API server, the lease or the listening address cannot be used, or the lease was lost.
pub async fn run(args: Args) -> Result<(), Error> {
    let client = Client::try_default()
        .await
        .during(|| "reading the configuration of the client".to_owned())?;
    if args.check_idle {
        return check_idle(&client).await;
    }
    let (metrics, serving) = (Metrics::new()?, Ready::default());
    let listen_error = |cause| Error::Listen {
        address: args.listen,
        cause,
    };
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(listen_error)?;
    let admin = admin::serve(listener, serving.clone(), metrics.clone());
    let (lifetime, grace) = LEASE;
    let lease_error = |cause| Error::Lease {
        name: args.lease.clone(),
        namespace: args.namespace.clone(),
        cause: Box::new(cause),
    };
    let lease = LeaseManagerBuilder::new(client.clone(), &args.lease)
        .with_namespace(&args.namespace)
        .with_parameters(LeaseParams::new(&args.identity, lifetime, grace))
        .build()
        .await
        .map_err(lease_error)?;
    let (mut leading, holding) = lease.watch().await;
    // A follower is as ready as a leader: it can take over at any time.
    serving.set(true);
    let me = Leader {
        client,
        namespace: args.namespace,
        identity: args.identity,
        own_node: args.node,
        metrics,
    };
    let led = async {
        leading
            .wait_for(|leads| *leads)
            .await
            .map_err(|_| Error::LeaseLost(args.lease.clone()))?;
        tracing::info!(lease = args.lease, "leading");
        tokio::select! {
            result = me.lead() => result,
            _ = leading.wait_for(|leads| !*leads) => Err(Error::LeaseLost(args.lease.clone())),
        }
    };
    let result = tokio::select! {
        result = led => result,
        result = admin => result.map_err(listen_error),
        () = told_to_stop() => Ok(()),
    };
    // Not needed to be safe, but without it a successor waits until the lease has run out.
    drop(leading);
    let _ = tokio::time::timeout(Duration::from_secs(3), holding).await;
    result
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be received; only SIGKILL ends this process");
            std::future::pending::<()>().await;
        }
    }
}

/// Whether any node is between start and end; the chart asks before it is uninstalled.
async fn check_idle(client: &Client) -> Result<(), Error> {
    let shares: Api<NodeMigration> = Api::all(client.clone());
    let all = shares
        .list(&ListParams::default())
        .await
        .during(|| "listing NodeMigrations".to_owned())?;
    let busy: Vec<String> = all
        .iter()
        .filter(|share| share.spec.action != Asked::Plan)
        .filter(|share| !share.phase().ended() && share.phase() != NodePhase::Pending)
        .map(|share| format!("{} ({})", share.name_any(), share.phase().name()))
        .collect();
    if busy.is_empty() {
        Ok(())
    } else {
        Err(Error::Busy(busy.join(", ")))
    }
}

/// What a leading controller works with.
#[derive(Clone)]
pub struct Leader {
    /// Speaks to the API server.
    pub client: Client,
    /// Where the agents' pods are.
    pub namespace: String,
    /// The name in events.
    pub identity: String,
    /// The node that goes last.
    pub own_node: Option<String>,
    /// What Prometheus sees.
    pub metrics: Metrics,
}

impl std::fmt::Debug for Leader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Leader")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

struct Context {
    leader: Leader,
    recorder: Recorder,
    migrations: Store<RuntimeMigration>,
    nodes: Store<Node>,
    shares: Store<NodeMigration>,
}

impl Leader {
    /// Leads until the future is dropped. It is safe to be led by two: slots are claimed by optimistic locking.
    ///
    /// # Errors
    /// The watches ended.
    pub async fn lead(self) -> Result<(), Error> {
        let client = self.client.clone();
        let (nodes, node_writer) = reflector::store();
        let (shares, share_writer) = reflector::store();
        let (others, other_writer) = reflector::store();
        let node_watch =
            watcher(Api::<Node>::all(client.clone()), watcher::Config::default()).map_ok(|event| {
                event.modify(|node| {
                    // All that is large and that nobody reads: the store holds the whole fleet.
                    node.metadata.managed_fields = None;
                    if let Some(status) = &mut node.status {
                        (status.images, status.volumes_attached, status.volumes_in_use) = (None, None, None);
                    }
                })
            });
        let share_watch = watcher(
            Api::<NodeMigration>::all(client.clone()),
            watcher::Config::default(),
        );
        let node_changes = changes(
            node_watch.default_backoff(),
            node_writer,
            self.metrics.clone(),
            |node: &Node| {
                let mut hasher = DefaultHasher::new();
                (observe::view(node, true, Runtime::Containerd), node.labels()).hash(&mut hasher);
                hasher.finish()
            },
        );
        let share_changes = changes(
            share_watch.default_backoff(),
            share_writer,
            self.metrics.clone(),
            |share: &NodeMigration| {
                let mut hasher = DefaultHasher::new();
                share.metadata.resource_version.hash(&mut hasher);
                hasher.finish()
            },
        );
        // What one migration gives free, another may wait for.
        let migrations = Api::<RuntimeMigration>::all(client.clone());
        let migration_watch = watcher(migrations.clone(), watcher::Config::default());
        let migration_changes = changes(
            migration_watch.default_backoff(),
            other_writer,
            self.metrics.clone(),
            |other| u64::from(observe::has_ended(other)),
        );
        let any_change = futures::stream::select_all([
            node_changes.boxed(),
            share_changes.boxed(),
            migration_changes.boxed(),
        ]);
        let controller = Controller::new(migrations, watcher::Config::default())
            // One at a time: two migrations must not decide about the same node at once.
            .with_config(
                Config::default()
                    .concurrency(1)
                    .debounce(Duration::from_millis(200)),
            )
            .reconcile_all_on(any_change);
        let reporter = Reporter {
            controller: "transship-controller".to_owned(),
            instance: Some(self.identity.clone()),
        };
        let context = Arc::new(Context {
            recorder: Recorder::new(client, reporter),
            migrations: others,
            nodes,
            shares,
            leader: self,
        });
        let gauges = context.clone();
        tokio::select! {
            () = controller.run(reconcile, again, context).for_each(|_| ready(())) => {}
            () = gauges.keep_gauges() => {}
        }
        Err(Error::WatchEnded)
    }
}

/// Feeds a store and yields whenever an object changes in a way that matters, which `digest` tells.
fn changes<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
    writer: Writer<K>,
    metrics: Metrics,
    digest: impl Fn(&K) -> u64,
) -> impl Stream<Item = ()>
where
    K: Resource<DynamicType = ()> + Clone,
{
    let mut known = HashMap::new();
    kube::runtime::reflector(writer, events).filter_map(move |event| {
        ready(match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let now = digest(&object);
                (known.insert(object.name_any(), now) != Some(now)).then_some(())
            }
            Ok(Event::Delete(object)) => {
                known.remove(&object.name_any());
                Some(())
            }
            Ok(Event::Init) => None,
            // Objects may have gone while the watch was away.
            Ok(Event::InitDone) => Some(()),
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), %error, "a watch failed; it is tried again");
                metrics.reconcile_error("watch");
                None
            }
        })
    })
}

impl Context {
    fn world(&self) -> World {
        World {
            migrations: self.migrations.state(),
            nodes: self.nodes.state(),
            shares: self.shares.state(),
        }
    }

    /// Sets the gauges from the stores, so that they follow whatever happens to the objects.
    async fn keep_gauges(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            let World {
                migrations,
                nodes: _,
                shares,
            } = self.world();
            let metrics = &self.leader.metrics;
            metrics.forget_migrations();
            for migration in &migrations {
                let status = migration.status.clone().unwrap_or_default();
                let progress = observe::last_progress(migration, &shares).map(report::seconds);
                metrics.migration(&migration.name_any(), status.phase, &status.nodes, progress);
            }
        }
    }

    /// Asks the pods of agents that have not begun for a while.
    async fn trouble(&self, seen: &mut seen::Seen) {
        let unbegun = seen.slots.iter().filter(|slot| {
            seen.share(&slot.name)
                .is_some_and(|share| share.phase == NodePhase::Pending)
                && seen.now.duration_since(slot.since.0).unsigned_abs() > PATIENCE
        });
        let mut found = Vec::new();
        for slot in unbegun {
            if let Some(why) =
                trouble::of_agent(&self.leader.client, &self.leader.namespace, &slot.name).await
            {
                found.push((slot.name.clone(), why));
            }
        }
        seen.agent_trouble.extend(found);
    }
}

async fn reconcile(migration: Arc<RuntimeMigration>, context: Arc<Context>) -> Result<Action, Error> {
    let client = &context.leader.client;
    context
        .nodes
        .wait_until_ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    context
        .shares
        .wait_until_ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    let held = migration
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER);
    let deleting = migration.metadata.deletion_timestamp.is_some();
    if !held {
        if !deleting {
            apply::finalizer(client, &migration, true).await?;
        }
        return Ok(Action::await_change());
    }

    let world = context.world();
    let mut seen = observe::seen(
        &migration,
        &world,
        context.leader.own_node.clone(),
        jiff::Timestamp::now(),
    );
    context.trouble(&mut seen).await;
    let decision = rollout::decide(&seen);
    let before = migration.status.clone().unwrap_or_default();
    // What has ended keeps its outcome: nodes that another migration took over since do not change it.
    let after = if seen.ended && !deleting && decision.slots == before.active_nodes {
        before.clone()
    } else {
        report::status(&seen, &decision, &migration.spec, &before)
    };
    if after != before {
        apply::claim(client, &migration, after.clone()).await?;
        if before.phase != after.phase || before.message != after.message {
            tracing::info!(
                migration = migration.name_any(),
                phase = after.phase.name(),
                progress = after.progress,
                message = after.message,
                "migration"
            );
        }
    }
    apply::tell(
        &context.recorder,
        &migration,
        &report::happened(&seen, &decision, &before, &after),
    )
    .await;
    apply::apply(client, &migration, &world, &seen, &decision).await?;
    if deleting && decision.slots.is_empty() && before == after {
        apply::finalizer(client, &migration, false).await?;
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(if decision.slots.is_empty() {
        IDLE
    } else {
        ACTIVE
    }))
}

#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
fn again(migration: Arc<RuntimeMigration>, error: &Error, context: Arc<Context>) -> Action {
    context.leader.metrics.reconcile_error(error.reason());
    if error.is_conflict() {
        tracing::debug!(migration = migration.name_any(), %error, "what was seen is old");
        return Action::requeue(Duration::from_millis(500));
    }
    tracing::warn!(migration = migration.name_any(), %error, "reconciliation failed; it is tried again");
    Action::requeue(Duration::from_secs(5))
}
