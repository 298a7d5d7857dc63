//! One node of a real API server, and the agent there; the test plays kubelet and executor.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use transship::agent::identity::NodeIdentity;
use transship::agent::shell::{Agent, Myself};
use transship::api::crd::{self, Cel};
use transship::api::migration::RuntimeMigration;
use transship::api::node_migration::{NodeMigration, NodeMigrationStatus, NodePhase};
use transship::executor::progress::State;

use super::host::FakeHost;
use crate::server::{ADMIN, AGENT, ApiServer, NAMESPACE, Release, Servers, kubelet};

pub(crate) const CONTAINERD: &str = "containerd://1.6.20";
pub(crate) const DOCKER: &str = "docker://20.10.24";

pub(crate) struct World {
    pub(crate) server: &'static ApiServer,
    pub(crate) admin: Client,
    node: &'static str,
    pod: String,
    kubeconfig: tempfile::NamedTempFile,
    pub(crate) host: FakeHost,
    agent: Option<Agent<FakeHost>>,
    /// The agent dies after every round (but for the one that plans).
    pub(crate) mortal: bool,
    /// Pods that were asked to leave are let go of.
    kubelet: bool,
}

static SERVERS: Servers = Servers::new();
static CLUSTERS: [OnceCell<()>; 2] = [OnceCell::const_new(), OnceCell::const_new()];

/// What the chart installs: the definition, the namespace, and the agent's few rights.
async fn install(server: &ApiServer) {
    let admin = server.client(ADMIN).await;
    for definition in crd::all(Cel::Without) {
        Api::all(admin.clone())
            .create(&PostParams::default(), &definition)
            .await
            .unwrap();
    }
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
    Api::all(admin.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let rights = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
          "metadata": { "name": "transship-agent" }, "rules": [
            { "apiGroups": ["transship.dev"], "resources": ["nodemigrations"], "verbs": ["get", "watch"] },
            { "apiGroups": ["transship.dev"], "resources": ["runtimemigrations"], "verbs": ["get"] },
            { "apiGroups": ["transship.dev"], "resources": ["nodemigrations/status"], "verbs": ["patch"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
          "metadata": { "name": "transship-agent" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "transship-agent" },
          "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT }] },
    ] });
    server.kubectl(&["create", "-f", "-"], &rights.to_string());
    for _ in 0..100 {
        let shares: Api<NodeMigration> = Api::all(admin.clone());
        let parents: Api<RuntimeMigration> = Api::all(admin.clone());
        if shares.list(&Default::default()).await.is_ok() && parents.list(&Default::default()).await.is_ok() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the definition was not established");
}

impl World {
    pub(crate) async fn new(release: Release, node: &'static str, node_patch: Value) -> Self {
        let server = SERVERS.of(release).await;
        CLUSTERS[release as usize].get_or_init(|| install(server)).await;
        Self::on_installed(server, node, node_patch).await
    }

    /// On a server of the test's own.
    pub(crate) async fn on(server: &'static ApiServer, node: &'static str, node_patch: Value) -> Self {
        install(server).await;
        Self::on_installed(server, node, node_patch).await
    }

    async fn on_installed(server: &'static ApiServer, node: &'static str, node_patch: Value) -> Self {
        let admin = server.client(ADMIN).await;
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = serde_json::to_string(&server.kubeconfig(&kubelet(node))).unwrap();
        std::fs::write(kubeconfig.path(), text).unwrap();
        let nodes: Api<Node> = Api::all(admin.clone());
        let object = serde_json::from_value(json!({ "metadata": { "name": node } })).unwrap();
        nodes.create(&PostParams::default(), &object).await.unwrap();
        nodes
            .patch(node, &PatchParams::default(), &Patch::Merge(node_patch))
            .await
            .unwrap();
        let world = Self {
            server,
            admin,
            node,
            pod: format!("agent-{node}"),
            kubeconfig,
            host: FakeHost::default(),
            agent: None,
            mortal: false,
            kubelet: true,
        };
        world.heartbeat(DOCKER).await;
        world
            .pod(
                NAMESPACE,
                &world.pod,
                json!({ "app.kubernetes.io/name": "transship" }),
            )
            .await;
        world.runs_under(DOCKER).await;
        world
    }

    /// A pod of a ReplicaSet that runs on the node.
    pub(crate) async fn pod(&self, namespace: &str, name: &str, labels: Value) {
        self.pod_of("ReplicaSet", namespace, name, labels).await;
    }

    /// A pod of a controller of this kind that runs on the node.
    pub(crate) async fn pod_of(&self, kind: &str, namespace: &str, name: &str, labels: Value) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": name, "controller": true }] },
            "spec": { "nodeName": self.node, "containers": [{ "name": "c", "image": "example.com/image:1" }] },
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let status = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) async fn budget(&self, name: &str, app: &str) {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.admin.clone(), "default");
        let budget = serde_json::from_value(json!({
            "metadata": { "name": name },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": app } } },
        }));
        budgets
            .create(&PostParams::default(), &budget.unwrap())
            .await
            .unwrap();
        let status = json!({ "status": { "observedGeneration": 1, "disruptionsAllowed": 0,
            "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1 } });
        budgets
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// What the kubelet says of the node.
    pub(crate) async fn heartbeat(&self, runtime: &str) {
        let now = Timestamp::now().to_string();
        let status = json!({ "status": {
            "nodeInfo": { "containerRuntimeVersion": runtime },
            "conditions": [{ "type": "Ready", "status": "True", "lastHeartbeatTime": now }] } });
        Api::<Node>::all(self.server.client(&kubelet(self.node)).await)
            .patch_status(self.node, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    /// What the kubelet says of the agent's own pod.
    pub(crate) async fn runs_under(&self, runtime: &str) {
        self.pod_runs_under(NAMESPACE, &self.pod, runtime).await;
    }

    /// What the kubelet says of a pod whose container it has started.
    pub(crate) async fn pod_runs_under(&self, namespace: &str, name: &str, runtime: &str) {
        let now = Timestamp::now();
        let scheme = runtime.split_inclusive("//").next().unwrap();
        let id = format!("{scheme}{}", now.as_nanosecond());
        let running = json!({ "running": { "startedAt": now.to_string() } });
        self.pod_reports(
            namespace,
            name,
            json!({ "containerID": id, "ready": true, "state": running }),
        )
        .await;
    }

    /// What the kubelet says of the one container of a pod.
    pub(crate) async fn pod_reports(&self, namespace: &str, name: &str, container: Value) {
        let mut status = json!({ "name": "c", "image": "example.com/image:1", "imageID": "sha256:1", "ready": false,
            "restartCount": 0 });
        status
            .as_object_mut()
            .unwrap()
            .extend(container.as_object().unwrap().clone());
        let status = json!({ "status": { "phase": "Running", "containerStatuses": [status] } });
        Api::<Pod>::namespaced(self.admin.clone(), namespace)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    pub(crate) fn migrations(&self) -> Api<NodeMigration> {
        Api::all(self.admin.clone())
    }

    /// The same, for what is no `NodeMigration`.
    pub(crate) fn raw(&self) -> Api<DynamicObject> {
        Api::all_with(self.admin.clone(), &ApiResource::erase::<NodeMigration>(&()))
    }

    pub(crate) async fn the_node(&self) -> Node {
        Api::<Node>::all(self.admin.clone()).get(self.node).await.unwrap()
    }

    pub(crate) async fn is_cordoned(&self) -> bool {
        self.the_node()
            .await
            .spec
            .and_then(|spec| spec.unschedulable)
            .unwrap_or(false)
    }

    /// What the user and the controller ask for. The generation of the share may be an older one than that of its
    /// parent, as long as both say the same.
    pub(crate) async fn ask(&self, action: &str, generation: i64, drain: Value) {
        let parent = self
            .parent(
                if action == "Plan" { "Plan" } else { "Apply" },
                generation,
                &drain,
            )
            .await;
        let spec = json!({
            "migration": { "name": parent.name_any(), "uid": parent.uid(), "generation": generation },
            "nodeUid": self.the_node().await.uid(),
            "action": action,
            "target": { "runtime": "containerd" },
            "drain": drain,
            "proceed": true,
        });
        if self.migrations().get_opt(self.node).await.unwrap().is_some() {
            let patch = Patch::Merge(json!({ "spec": spec }));
            self.migrations()
                .patch(self.node, &PatchParams::default(), &patch)
                .await
                .unwrap();
        } else {
            let object = NodeMigration::new(self.node, serde_json::from_value(spec).unwrap());
            self.migrations()
                .create(&PostParams::default(), &object)
                .await
                .unwrap();
        }
    }

    /// The user approves plans; the parent must have this generation then.
    pub(crate) async fn approve(&self, generation: i64, plans: &[&str]) {
        self.edit(generation, json!({ "approvedPlans": plans })).await;
    }

    /// The user edits the spec, and the controller follows; the parent must have this generation then.
    pub(crate) async fn edit(&self, generation: i64, mut spec: Value) {
        let name = format!("m-{}", self.node);
        let patch = Patch::Merge(json!({ "spec": spec }));
        let parent = self
            .parents()
            .patch(&name, &PatchParams::default(), &patch)
            .await
            .unwrap();
        assert_eq!(parent.metadata.generation, Some(generation));
        spec["migration"] = json!({ "generation": generation });
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.migrations()
            .patch(self.node, &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    pub(crate) fn parents(&self) -> Api<RuntimeMigration> {
        Api::all(self.admin.clone())
    }

    /// The migration of this node, with this spec and at least this generation.
    async fn parent(&self, mode: &str, generation: i64, drain: &Value) -> RuntimeMigration {
        let name = format!("m-{}", self.node);
        let mut spec = json!({ "mode": mode, "nodeSelector": {}, "target": { "runtime": "containerd" },
            "drain": drain });
        let Some(before) = self.parents().get_opt(&name).await.unwrap() else {
            let new = RuntimeMigration::new(&name, serde_json::from_value(spec).unwrap());
            return self.parents().create(&PostParams::default(), &new).await.unwrap();
        };
        spec["strategy"] = json!({ "maxFailures": generation });
        let mut wanted = before;
        wanted.spec = serde_json::from_value(spec).unwrap();
        let written = self
            .parents()
            .replace(&name, &PostParams::default(), &wanted)
            .await
            .unwrap();
        assert!(written.metadata.generation.unwrap() >= generation);
        written
    }

    pub(crate) async fn status(&self) -> NodeMigrationStatus {
        self.migrations()
            .get(self.node)
            .await
            .unwrap()
            .status
            .unwrap_or_default()
    }

    /// The agent dies; another one comes.
    pub(crate) fn die(&mut self) {
        self.agent = None;
    }

    fn agent(&mut self, migrations: Api<NodeMigration>) -> &mut Agent<FakeHost> {
        let me = Myself {
            node: self.node.to_owned(),
            namespace: NAMESPACE.to_owned(),
            pod: self.pod.clone(),
        };
        let identity = NodeIdentity::new(self.kubeconfig.path().to_owned(), self.node.to_owned());
        let host = self.host.clone();
        self.agent
            .get_or_insert_with(|| Agent::new(me, host, identity, migrations))
    }

    /// A round of the agent, and of the executor, without anything else.
    pub(crate) async fn round_alone(&mut self) {
        let migrations = Api::all(self.server.client(AGENT).await);
        self.agent(migrations).round().await;
        self.host.executor();
    }

    pub(crate) async fn round(&mut self) {
        self.round_alone().await;
        if self.kubelet {
            self.let_go().await;
        }
        if self.mortal && self.status().await.phase != NodePhase::Preflight {
            self.die();
        }
    }

    /// The agent is asked to end.
    pub(crate) async fn farewell(&mut self) {
        let migrations = Api::all(self.server.client(AGENT).await);
        self.agent(migrations).farewell().await;
        self.die();
    }

    /// The kubelet ends pods that were asked to leave.
    pub(crate) async fn let_go(&self) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "default");
        for pod in pods.list(&Default::default()).await.unwrap() {
            let here = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(self.node);
            if here && pod.metadata.deletion_timestamp.is_some() {
                pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(0))
                    .await
                    .unwrap();
            }
        }
    }

    /// Rounds until the status is as wanted.
    pub(crate) async fn until(
        &mut self,
        wanted: impl Fn(&NodeMigrationStatus) -> bool,
    ) -> NodeMigrationStatus {
        for _ in 0..150 {
            self.round().await;
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not come to that: {:#?}", self.status().await);
    }

    pub(crate) async fn until_phase(&mut self, phase: NodePhase) -> NodeMigrationStatus {
        self.until(|status| status.phase == phase).await
    }

    /// The critical section happens, and kills the agent.
    pub(crate) async fn switch(&mut self, run: &str) {
        self.die();
        // The API keeps seconds: a heartbeat of the new kubelet must differ from the last one of before.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = Timestamp::now();
        self.host.set(run, |progress| {
            progress.state = State::AwaitingCommit {
                left: Duration::from_secs(300),
            };
            progress.steps_done = 2;
            progress.kubelet_stopped = Some(now - Duration::from_millis(1234));
            progress.kubelet_started = Some(now);
        });
    }
}
