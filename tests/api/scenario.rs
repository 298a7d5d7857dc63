//! Controllers against a real API server, with the permissions that the chart gives them: what a test does to them, and
//! what it waits for. Nodes and agents are played by `fleet.rs`.

use std::time::{Duration, Instant};

use crate::fleet::Fleet;
use crate::server::{ADMIN, ApiServer, CONTROLLER, NAMESPACE, Release, Servers};
use futures::FutureExt as _;
use futures::future::select_all;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio::task::JoinSet;
use transship::api::AGENT_LABEL;
use transship::api::migration::{MigrationPhase, RuntimeMigration};
use transship::api::node_migration::NodeMigration;
use transship::controller::Leader;
use transship::metrics::Metrics;

/// An API server of each release, for one scenario at a time: controllers see the whole cluster.
struct Place {
    turns: [Mutex<()>; 2],
    servers: Servers,
    installed: [OnceCell<()>; 2],
}

/// Scenarios mostly wait, so two of a release go on at the same time.
static PLACES: [Place; 2] = [const { Place::new() }; 2];

impl Place {
    const fn new() -> Self {
        Self {
            turns: [const { Mutex::const_new(()) }; 2],
            servers: Servers::new(),
            installed: [const { OnceCell::const_new() }; 2],
        }
    }

    /// The first place that is free.
    async fn free(release: Release) -> (&'static Self, MutexGuard<'static, ()>) {
        let all = PLACES
            .iter()
            .map(|place| async move { (place, place.turns[release as usize].lock().await) }.boxed());
        select_all(all).await.0
    }
}

/// Controllers, the nodes that they see, and the agents there.
pub(crate) struct Scenario {
    pub(crate) fleet: Fleet,
    pub(crate) migrations: Api<RuntimeMigration>,
    pub(crate) admin: Client,
    pub(crate) server: &'static ApiServer,
    tasks: JoinSet<()>,
    _turn: MutexGuard<'static, ()>,
}

impl Scenario {
    /// Installs what the chart installs, and starts agents and `controllers` controllers.
    pub(crate) async fn start(release: Release, controllers: usize) -> Self {
        let (place, turn) = Place::free(release).await;
        let server = place.servers.of(release).await;
        place.installed[release as usize]
            .get_or_init(|| async {
                server.kubectl(&["apply", "-f", release.manifest()], "");
                server.kubectl(
                    &[
                        "wait",
                        "--for=condition=Established",
                        "crd",
                        "--all",
                        "--timeout=30s",
                    ],
                    "",
                );
            })
            .await;
        let admin = server.client(ADMIN).await;
        let fleet = Fleet::new(admin.clone(), server);
        let mut tasks = JoinSet::new();
        tasks.spawn(fleet.clone().play());
        let mut started = Self {
            fleet,
            migrations: Api::all(admin.clone()),
            admin,
            server,
            tasks,
            _turn: turn,
        };
        for _ in 0..controllers {
            started.controller().await;
        }
        started
    }

    /// Starts one more controller.
    pub(crate) async fn controller(&mut self) {
        let leader = Leader {
            client: self.server.client(CONTROLLER).await,
            namespace: NAMESPACE.to_owned(),
            identity: format!("controller-{}", self.tasks.len()),
            own_node: None,
            metrics: Metrics::new().unwrap(),
        };
        self.tasks.spawn(async move {
            leader.lead().await.unwrap();
        });
    }

    pub(crate) async fn create(&self, name: &str, group: &str, more: Value) {
        let object = object(name, group, &more);
        self.migrations
            .create(&PostParams::default(), &serde_json::from_value(object).unwrap())
            .await
            .unwrap();
    }

    pub(crate) async fn edit(&self, name: &str, spec: Value) {
        self.try_edit(name, spec).await.unwrap();
    }

    pub(crate) async fn try_edit(&self, name: &str, spec: Value) -> kube::Result<RuntimeMigration> {
        let patch = json!({ "spec": spec });
        self.migrations
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    }

    /// Waits until the migration is as the closure says, and returns it.
    pub(crate) async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&RuntimeMigration) -> bool,
    ) -> RuntimeMigration {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = self.migrations.get(name).await.unwrap();
            if holds(&now) {
                return now;
            }
            assert!(
                Instant::now() < deadline,
                "waited 60 s for {name}: {what}; it is {:#?}",
                now.status
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn until_phase(&self, name: &str, phase: MigrationPhase) -> RuntimeMigration {
        self.until(name, phase.name(), |m| {
            let status = m.status.clone().unwrap_or_default();
            status.phase == phase && Some(status.observed_generation) == m.metadata.generation
        })
        .await
    }

    pub(crate) async fn gone(&self, name: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while let Some(now) = self.migrations.get_opt(name).await.unwrap() {
            assert!(
                Instant::now() < deadline,
                "{name} is still there after {within:?}: {:#?}",
                now.status
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        Api::<Node>::all(self.admin.clone()).get(name).await.unwrap()
    }

    pub(crate) async fn share(&self, name: &str) -> Option<NodeMigration> {
        Api::<NodeMigration>::all(self.admin.clone())
            .get_opt(name)
            .await
            .unwrap()
    }

    /// What a person does with `kubectl annotate`.
    pub(crate) async fn annotate_share(&self, name: &str, annotation: &str) {
        let patch = json!({ "metadata": { "annotations": { annotation: "" } } });
        Api::<NodeMigration>::all(self.admin.clone())
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Makes the slots of a migration older: nobody waits as long as a node that is lost.
    pub(crate) async fn age_slot(&self, name: &str, by: Duration) {
        loop {
            let mut migration = self.migrations.get(name).await.unwrap();
            for slot in &mut migration.status.as_mut().unwrap().active_nodes {
                slot.since.0 -= by;
            }
            let replaced = self
                .migrations
                .replace_status(name, &PostParams::default(), &migration)
                .await;
            match replaced {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                replaced => return drop(replaced.unwrap()),
            }
        }
    }

    pub(crate) async fn without_label(&self, names: &[&str]) {
        for name in names {
            let deadline = Instant::now() + Duration::from_secs(10);
            while self.node(name).await.labels().contains_key(AGENT_LABEL) {
                assert!(Instant::now() < deadline, "{name} still bears the agent's label");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    pub(crate) async fn reasons(&self, regarding: &str) -> Vec<String> {
        let events: Api<Event> = Api::namespaced(self.admin.clone(), "default");
        let of = |event: &Event| event.regarding.as_ref().and_then(|r| r.name.as_deref()) == Some(regarding);
        let all = events.list(&ListParams::default()).await.unwrap();
        all.iter()
            .filter(|event| of(event))
            .filter_map(|event| event.reason.clone())
            .collect()
    }

    /// Waits for an event: it is written after the status.
    pub(crate) async fn until_told(&self, regarding: &str, reason: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.reasons(regarding).await.iter().any(|told| told == reason) {
            assert!(Instant::now() < deadline, "{regarding} has no event {reason}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Removes what the scenario made; there is no garbage collector here.
    pub(crate) async fn end(mut self, names: &[&str]) {
        for name in names {
            if self.migrations.get_opt(name).await.unwrap().is_some() {
                self.migrations
                    .delete(name, &DeleteParams::default())
                    .await
                    .unwrap();
            }
            self.gone(name, Duration::from_secs(30)).await;
        }
        self.tasks.shutdown().await;
        self.fleet.remove().await;
        let shares: Api<NodeMigration> = Api::all(self.admin.clone());
        // One by one: a server gives a single request a minute, which is too short for many large ones.
        for share in shares.list_metadata(&ListParams::default()).await.unwrap() {
            let deleted = shares.delete(&share.name_any(), &DeleteParams::default()).await;
            assert!(
                matches!(&deleted, Ok(_) | Err(kube::Error::Api(_))),
                "{deleted:?}"
            );
        }
    }
}

/// A migration of the nodes of a group, with more in its spec.
pub(crate) fn object(name: &str, group: &str, more: &Value) -> Value {
    let mut spec = json!({
        "mode": "Apply",
        "nodeSelector": { "matchLabels": { "group": group } },
        "target": { "runtime": "containerd" },
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({ "metadata": { "name": name }, "spec": spec,
        "apiVersion": "transship.dev/v1alpha1", "kind": "RuntimeMigration" })
}

/// What a migration says.
pub(crate) fn message(migration: &RuntimeMigration) -> String {
    migration.status.clone().unwrap_or_default().message
}
