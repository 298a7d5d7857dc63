//! The controller: which node, when. It never touches a host; it reads nodes, writes NodeMigrations, the status of
//! their migration, events, its lease and the one label that brings the agent to a node.
//!
//! - [`service`]: the process, with its lease and its probes; it makes a [`Leader`], whose watches are here.
//! - [`mod@reconcile`]: one migration, looked at once: `observe → validate → decide → apply → report`.
//! - [`observe`]: from the stores of the watches to [`seen::Seen`], plain data, validated.
//! - [`rollout`]: the decision, a pure function of it.
//! - [`gates`]: what the control plane as a whole waits for; asked before one of its nodes is started.
//! - [`overlap`]: migrations that choose the same nodes.
//! - [`policy`]: whether the admission policies are where they can be.
//! - [`report`]: the decision in words: status, conditions, events (pure).
//! - [`apply`]: the writes, the claim of the slots first.
//! - [`sweep`]: what no migration answers for any more (pure).
//! - [`trouble`]: why agents do not begin.
//! - [`unreadable`]: what is done about an object that cannot be read: it is told on it, and nothing else stops.

mod apply;
mod error;
mod gates;
pub mod observe;
mod overlap;
mod policy;
mod reconcile;
pub mod report;
pub mod rollout;
pub mod seen;
mod service;
pub mod sweep;
mod trouble;
mod unreadable;

use std::collections::HashMap;
use std::future::ready;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_runtime::controller::{Config, Controller};
use kube_runtime::events::{Recorder, Reporter};
use kube_runtime::reflector;
use kube_runtime::watcher::{self, Event, watcher};
use kube_runtime::{WatchStreamExt as _, reflector::store::Writer};

use crate::api::migration::{ControlPlane, RuntimeMigration};
use crate::api::node_migration::{DRAIN_TIMED_OUT, NodeMigration, READY_TO_SWITCH};
use crate::metrics::Metrics;
pub use error::Error;
use reconcile::{Context, again, reconcile};
pub use service::{Args, run};

/// How many objects of Transship's own a list asks for at a time: one may be as large as `api::bounds` lets it be, and a
/// page is held whole.
const PAGE: u32 = 10;
/// How many Nodes are.
const NODES: u32 = 100;

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

impl Leader {
    /// Leads until the future is dropped. It is safe to be led by two: slots are claimed by optimistic locking.
    ///
    /// # Errors
    /// The watches ended.
    pub async fn lead(self) -> Result<(), Error> {
        let client = self.client.clone();
        let _forget = ForgetMetrics(self.metrics.clone());
        let (nodes, node_writer) = reflector::store();
        let (shares, share_writer) = reflector::store();
        let (others, other_writer) = reflector::store();
        // The stores hold the whole fleet: all that is large and that nobody here reads is left out.
        let node_watch = watcher(
            Api::<Node>::all(client.clone()),
            watcher::Config::default().page_size(NODES),
        )
        .map_ok(|event| event.modify(without_bulk_of_node));
        let share_watch = watcher(
            Api::<DeserializeGuard<NodeMigration>>::all(client.clone()),
            watcher::Config::default().page_size(PAGE),
        )
        .map_ok(|event| event.modify(without_bulk_of_share));
        let node_changes = changes(
            node_watch.backoff(Backoff::default()),
            node_writer,
            self.metrics.clone(),
            |node: &Node| {
                let view = observe::view(node, true, ControlPlane::Last);
                digest(&(view, node.labels()))
            },
        );
        let share_changes = changes(
            share_watch.backoff(Backoff::default()),
            share_writer,
            self.metrics.clone(),
            |share| {
                unreadable::log(share);
                digest(&share.meta().resource_version)
            },
        );
        // What one migration gives free, another may wait for.
        let migrations = Api::<DeserializeGuard<RuntimeMigration>>::all(client.clone());
        let migration_watch = watcher(migrations.clone(), watcher::Config::default().page_size(PAGE));
        let migration_changes = changes(
            migration_watch.backoff(Backoff::default()),
            other_writer,
            self.metrics.clone(),
            |other| digest(&observe::is_active(other)),
        );
        let any_change = futures::stream::select_all([
            node_changes.boxed(),
            share_changes.boxed(),
            migration_changes.boxed(),
        ]);
        let controller = Controller::new(migrations, watcher::Config::default().page_size(PAGE))
            .trigger_backoff(Backoff::default())
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
        let (gauges, sweeper) = (context.clone(), context.clone());
        tokio::select! {
            () = controller.run(reconcile, again, context).for_each(|_| ready(())) => {}
            () = gauges.keep_gauges() => {}
            () = sweeper.keep_swept() => {}
        }
        Err(Error::WatchEnded)
    }
}

/// Who does not lead any more exports nothing of migrations: it would contradict the one that leads.
struct ForgetMetrics(Metrics);

impl Drop for ForgetMetrics {
    fn drop(&mut self) {
        self.0.forget();
    }
}

fn without_bulk_of_node(node: &mut Node) {
    node.metadata.managed_fields = None;
    if let Some(status) = &mut node.status {
        (status.images, status.volumes_attached, status.volumes_in_use) = (None, None, None);
    }
}

fn without_bulk_of_share(share: &mut DeserializeGuard<NodeMigration>) {
    for entry in share.meta_mut().managed_fields.iter_mut().flatten() {
        // Its time says when the agent last wrote the status.
        entry.fields_v1 = None;
    }
    if let Ok(NodeMigration {
        status: Some(status), ..
    }) = &mut share.0
    {
        status.plan = None;
        for finding in &mut status.findings {
            (finding.message, finding.remedy) = (String::new(), String::new());
        }
        let read = [READY_TO_SWITCH, DRAIN_TIMED_OUT];
        status
            .conditions
            .retain(|condition| read.contains(&&*condition.type_));
    }
}

/// How long a watch waits after an error: longer every time, and never so long that definitions which came back, or an
/// API server, go unnoticed.
#[derive(Debug, Default)]
struct Backoff {
    errors: u32,
}

impl Iterator for Backoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = Duration::from_millis(500) * 2_u32.pow(self.errors.min(3));
        self.errors = self.errors.saturating_add(1);
        Some(pause)
    }
}

impl kube_runtime::utils::Backoff for Backoff {
    fn reset(&mut self) {
        self.errors = 0;
    }
}

fn digest(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
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
    kube_runtime::reflector(writer, events).filter_map(move |event| {
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
