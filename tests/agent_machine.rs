//! The agent's state machine against a real API server: the whole way there and back, with the agent dying in the
//! middle. The host is a state machine; the test plays kubelet and executor.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "all of it is a test"
)]

#[path = "support/api_server.rs"]
mod api_server;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api_server::{ADMIN, AGENT, ApiServer, NAMESPACE, api_server, kubelet};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use transship::agent::host::{Host, HostError, Planned, Run};
use transship::agent::identity::NodeIdentity;
use transship::agent::shell::{Agent, Myself};
use transship::api::crd::{self, Cel};
use transship::api::node_migration::{NodeMigration, NodeMigrationSpec, NodeMigrationStatus, NodePhase};
use transship::api::request::Runtime;
use transship::executor::control::Order;
use transship::executor::progress::{Progress, State};
use transship::metrics::Metrics;
use transship::plan::digest::Digest;
use transship::plan::document::{FORMAT, Plan, PlannedStep, Section};
use transship::plan::finding::{Finding, Severity};
use transship::plan::planner::{Outcome, Verdict};
use transship::plan::step::{KubeletStep, Step};

const CONTAINERD: &str = "containerd://1.6.20";
const DOCKER: &str = "docker://20.10.24";
const SOCKET: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

// --- the host ---------------------------------------------------------------------------------------------------

#[derive(Clone, Debug)]
struct FakeRun {
    plan: Plan,
    progress: Option<Progress>,
    go: bool,
    commit: bool,
    abort: bool,
}

#[derive(Debug, Default)]
struct Inner {
    verdict: Option<Verdict>,
    findings: Vec<Finding>,
    broken_inspect: bool,
    unhealthy: bool,
    runs: BTreeMap<String, FakeRun>,
    /// The run that the unit is for, and whether it runs.
    unit: Option<(String, bool)>,
    changes: Vec<String>,
    own_images: Vec<String>,
}

/// Shared with all agents that a test starts one after another: what a host remembers.
#[derive(Clone, Debug, Default)]
struct FakeHost(Arc<Mutex<Inner>>);

fn progress(state: State) -> Progress {
    Progress {
        state,
        steps_done: 1,
        current: None,
        image_bytes: 4096,
        kubelet_stopped: None,
        kubelet_started: None,
        error: None,
        left: Vec::new(),
    }
}

impl FakeHost {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    /// What the executor does while nobody looks, up to where it waits or stops.
    fn executor(&self) {
        let mut inner = self.inner();
        let Some((name, true)) = inner.unit.clone() else {
            return;
        };
        let run = inner.runs.get_mut(&name).unwrap();
        let state = run
            .progress
            .as_ref()
            .map_or(State::Preparing, |progress| progress.state);
        let (next, runs) = match state {
            State::Committed | State::RolledBack | State::Broken => (state, false),
            _ if run.abort => (State::RolledBack, false),
            State::RollingBack => (State::RolledBack, false),
            State::Preparing => (State::Prepared, false),
            State::Prepared => (State::Switching, true),
            State::AwaitingCommit { .. } if run.commit => (State::Committed, false),
            State::Switching | State::AwaitingCommit { .. } => (state, true),
        };
        let next = if state == State::Prepared && !run.go && !run.abort {
            (state, false)
        } else {
            (next, runs)
        };
        let before = run.progress.take();
        run.progress = Some(Progress {
            state: next.0,
            ..before.unwrap_or_else(|| progress(next.0))
        });
        inner.unit = Some((name, next.1));
    }

    fn state(&self, run: &str) -> Option<State> {
        self.inner()
            .runs
            .get(run)
            .and_then(|run| run.progress.as_ref())
            .map(|progress| progress.state)
    }

    fn set(&self, run: &str, change: impl FnOnce(&mut Progress)) {
        change(self.inner().runs.get_mut(run).unwrap().progress.as_mut().unwrap());
    }

    fn changes(&self) -> Vec<String> {
        self.inner().changes.clone()
    }
}

impl Host for FakeHost {
    async fn look(&self, run: &str) -> Result<Option<Run>, HostError> {
        let inner = self.inner();
        Ok(inner.runs.get(run).map(|found| Run {
            words: vec!["stop the kubelet".to_owned(), "start it".to_owned()],
            plan: found.plan.clone(),
            progress: found.progress.clone(),
            go: found.go,
            commit: found.commit,
            abort: found.abort,
            executor_running: inner.unit == Some((run.to_owned(), true)),
        }))
    }

    async fn plan(
        &self,
        _: &str,
        _: &NodeMigrationSpec,
        own_images: Vec<String>,
    ) -> Result<Planned, HostError> {
        let mut inner = self.inner();
        if inner.broken_inspect {
            return Err(HostError(
                "`transship node inspect` ended with 1 on the host".to_owned(),
            ));
        }
        inner.own_images = own_images;
        let verdict = inner
            .verdict
            .clone()
            .unwrap_or_else(|| Verdict::Ready(Box::new(plan())));
        Ok(Planned {
            outcome: Outcome {
                findings: inner.findings.clone(),
                verdict,
            },
            words: vec!["stop the kubelet".to_owned(), "start it".to_owned()],
            diff: "--- /etc/containerd/config.toml\n".to_owned(),
        })
    }

    async fn install(&self, run: &str, plan: &Plan) -> Result<(), HostError> {
        let mut inner = self.inner();
        inner.changes.push(format!("install {run}"));
        inner.runs.entry(run.to_owned()).or_insert_with(|| FakeRun {
            plan: plan.clone(),
            progress: None,
            go: false,
            commit: false,
            abort: false,
        });
        inner.unit = Some((run.to_owned(), true));
        Ok(())
    }

    async fn start_executor(&self) -> Result<(), HostError> {
        let mut inner = self.inner();
        let (run, _) = inner
            .unit
            .clone()
            .ok_or_else(|| HostError("no such unit".to_owned()))?;
        inner.unit = Some((run, true));
        Ok(())
    }

    async fn order(&self, run: &str, order: Order, plan: &Digest) -> Result<(), HostError> {
        let mut inner = self.inner();
        inner.changes.push(format!("{order:?}"));
        let run = inner.runs.get_mut(run).unwrap();
        assert_eq!(*plan, run.plan.digest());
        match order {
            Order::Go => run.go = true,
            Order::Commit => run.commit = true,
            Order::Abort => run.abort = true,
            Order::Undo => panic!("the agent never takes back what is committed"),
        }
        Ok(())
    }

    async fn kubelet_health(&self, _: &str) -> Result<(), HostError> {
        if self.inner().unhealthy {
            Err(HostError("it does not answer".to_owned()))
        } else {
            Ok(())
        }
    }
}

fn plan() -> Plan {
    let step = |section, run| PlannedStep {
        section,
        does: Step::Kubelet(KubeletStep { run }),
    };
    Plan {
        format: FORMAT,
        migration: "m".to_owned(),
        node: "w".to_owned(),
        machine_id: "0".repeat(32),
        source: (Runtime::Dockershim, "20.10.24".to_owned()),
        target: (Runtime::Containerd, "1.6.20".to_owned()),
        confirm_within_secs: 300,
        rollback_automatic: true,
        findings: Vec::new(),
        steps: vec![step(Section::Switch, false), step(Section::Switch, true)],
    }
}

// --- the cluster ------------------------------------------------------------------------------------------------

struct World {
    server: &'static ApiServer,
    admin: Client,
    node: &'static str,
    pod: String,
    kubeconfig: tempfile::NamedTempFile,
    host: FakeHost,
    agent: Option<Agent<FakeHost>>,
    /// The agent dies after every round (but for the one that plans).
    mortal: bool,
    /// Pods that were asked to leave are let go of.
    kubelet: bool,
}

static CLUSTER: OnceCell<()> = OnceCell::const_new();

/// What the chart installs: the definition, the namespace, and the agent's few rights.
async fn install(admin: Client) {
    let definition = crd::all(Cel::Without)
        .into_iter()
        .find(|crd| crd.name_any().starts_with("nodemigrations"));
    Api::all(admin.clone())
        .create(&PostParams::default(), &definition.unwrap())
        .await
        .unwrap();
    let namespace: Namespace = serde_json::from_value(json!({ "metadata": { "name": NAMESPACE } })).unwrap();
    Api::all(admin.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap();
    let server = api_server().await;
    let rights = json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
          "metadata": { "name": "transship-agent" }, "rules": [
            { "apiGroups": ["transship.dev"], "resources": ["nodemigrations"], "verbs": ["get", "watch"] },
            { "apiGroups": ["transship.dev"], "resources": ["nodemigrations/status"], "verbs": ["patch"] }] },
        { "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
          "metadata": { "name": "transship-agent" },
          "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "transship-agent" },
          "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AGENT }] },
    ] });
    server.kubectl(&["create", "-f", "-"], &rights.to_string());
    for _ in 0..100 {
        if Api::<NodeMigration>::all(admin.clone())
            .list(&Default::default())
            .await
            .is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the definition was not established");
}

impl World {
    async fn new(node: &'static str, node_patch: Value) -> Self {
        let server = api_server().await;
        let admin = server.client(ADMIN).await;
        CLUSTER.get_or_init(|| install(admin.clone())).await;
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
    async fn pod(&self, namespace: &str, name: &str, labels: Value) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
        let pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": labels, "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] },
            "spec": { "nodeName": self.node, "containers": [{ "name": "c", "image": "example.com/image:1" }] },
        }));
        pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        let status = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn budget(&self, name: &str, app: &str) {
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
    async fn heartbeat(&self, runtime: &str) {
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
    async fn runs_under(&self, runtime: &str) {
        let id = format!("{}0123", runtime.split_inclusive("//").next().unwrap());
        let status = json!({ "status": { "phase": "Running", "containerStatuses": [{
            "name": "c", "image": "example.com/image:1", "imageID": "sha256:1", "ready": true, "restartCount": 0,
            "containerID": id, "state": { "running": { "startedAt": Timestamp::now().to_string() } } }] } });
        Api::<Pod>::namespaced(self.admin.clone(), NAMESPACE)
            .patch_status(&self.pod, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    fn migrations(&self) -> Api<NodeMigration> {
        Api::all(self.admin.clone())
    }

    /// The same, for what is no `NodeMigration`.
    fn raw(&self) -> Api<DynamicObject> {
        Api::all_with(self.admin.clone(), &ApiResource::erase::<NodeMigration>(&()))
    }

    async fn the_node(&self) -> Node {
        Api::<Node>::all(self.admin.clone()).get(self.node).await.unwrap()
    }

    async fn is_cordoned(&self) -> bool {
        self.the_node()
            .await
            .spec
            .and_then(|spec| spec.unschedulable)
            .unwrap_or(false)
    }

    /// What the controller asks for.
    async fn ask(&self, action: &str, generation: i64, drain: Value) {
        let spec = json!({
            "migration": { "name": "m", "uid": "m1", "generation": generation },
            "nodeUid": self.the_node().await.uid(),
            "action": action,
            "target": { "runtime": "containerd" },
            "drain": drain,
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

    async fn status(&self) -> NodeMigrationStatus {
        self.migrations()
            .get(self.node)
            .await
            .unwrap()
            .status
            .unwrap_or_default()
    }

    /// The agent dies; another one comes.
    fn die(&mut self) {
        self.agent = None;
    }

    async fn round(&mut self) {
        if self.agent.is_none() {
            let me = Myself {
                node: self.node.to_owned(),
                namespace: NAMESPACE.to_owned(),
                pod: self.pod.clone(),
            };
            let identity = NodeIdentity::new(self.kubeconfig.path().to_owned(), self.node.to_owned());
            let migrations = Api::all(self.server.client(AGENT).await);
            let metrics = Metrics::new().unwrap();
            self.agent = Some(Agent::new(me, self.host.clone(), identity, migrations, metrics));
        }
        self.agent.as_mut().unwrap().round().await;
        self.host.executor();
        if self.kubelet {
            self.let_go().await;
        }
        if self.mortal && self.status().await.phase != NodePhase::Preflight {
            self.die();
        }
    }

    /// The kubelet ends pods that were asked to leave.
    async fn let_go(&self) {
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
    async fn until(&mut self, wanted: impl Fn(&NodeMigrationStatus) -> bool) -> NodeMigrationStatus {
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

    async fn until_phase(&mut self, phase: NodePhase) -> NodeMigrationStatus {
        self.until(|status| status.phase == phase).await
    }

    /// The critical section happens, and kills the agent.
    async fn switch(&mut self, run: &str) {
        self.die();
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

// --- the tests --------------------------------------------------------------------------------------------------

/// Plan, then Migrate, all the way; with an agent that dies after every round if `mortal`.
async fn whole_way(node: &'static str, mortal: bool) {
    let docker_socket = "/var/run/dockershim.sock";
    let mut world = World::new(
        node,
        json!({ "metadata": { "annotations": { SOCKET: docker_socket } } }),
    )
    .await;
    world.mortal = mortal;
    let app = format!("web-{node}");
    world.pod("default", &app, json!({ "app": app })).await;

    world.ask("Plan", 1, json!({})).await;
    let status = world.until_phase(NodePhase::Planned).await;
    assert_eq!(status.message, "planned in 2 steps; nothing was changed");
    let summary = status.plan.unwrap();
    assert_eq!(
        (summary.steps.len(), summary.digest),
        (2, plan().digest().as_str().to_owned())
    );
    assert!(
        status
            .findings
            .iter()
            .any(|finding| finding.code == "PodsToEvict" && finding.message.contains(&app))
    );
    assert_eq!(world.host.inner().own_images, ["example.com/image:1"]);
    assert!(world.host.changes().is_empty() && !world.is_cordoned().await);

    world.ask("Migrate", 1, json!({})).await;
    world.until_phase(NodePhase::Switching).await;
    assert!(world.is_cordoned().await);
    let host = world.host.clone();
    world.until(|_| world_go(&host)).await;
    let gone = Api::<Pod>::namespaced(world.admin.clone(), "default")
        .get_opt(&app)
        .await
        .unwrap();
    assert!(gone.is_none(), "the pod was there when the switch was ordered");

    world.switch("m1-1").await;
    let status = world.until_phase(NodePhase::Verifying).await;
    assert!(
        status
            .message
            .contains("the agent's own pod is reported as running under containerd"),
        "{status:?}"
    );
    assert!(
        status
            .message
            .contains("the Node reports containerd instead of docker://"),
        "{status:?}"
    );
    world.runs_under(CONTAINERD).await;
    world.heartbeat(CONTAINERD).await;
    world.host.inner().unhealthy = true;
    let status = world.until(|status| !status.message.contains("instead of")).await;
    assert_eq!(
        status.message,
        "waits until the kubelet is healthy (it does not answer)"
    );
    assert!(!world.host.changes().contains(&"Commit".to_owned()));
    world.host.inner().unhealthy = false;

    let status = world.until_phase(NodePhase::Succeeded).await;
    assert_eq!(world.host.changes(), ["install m1-1", "Go", "Commit"]);
    assert_eq!(
        status.message,
        "runs on containerd 1.6.20; the kubelet was away for 1.2 s"
    );
    assert_eq!(
        (status.kubelet_downtime_millis, status.image_bytes),
        (Some(1234), Some(4096))
    );
    let phases: Vec<_> = status.times.iter().map(|time| time.phase).collect();
    use NodePhase::{Draining, Preflight, Preparing, Succeeded, Switching, Uncordoning, Verifying};
    assert_eq!(
        phases,
        [
            Preflight,
            Preparing,
            Draining,
            Switching,
            Verifying,
            Uncordoning,
            Succeeded
        ]
    );
    assert!(status.times.iter().all(|time| time.end.is_some()));
    let node = world.the_node().await;
    assert!(!world.is_cordoned().await);
    assert_eq!(
        node.annotations()[SOCKET],
        "unix:///run/containerd/containerd.sock"
    );
    assert_eq!(
        node.annotations()["transship.dev/previous-cri-socket"],
        docker_socket
    );
    assert!(!node.annotations().contains_key("transship.dev/cordoned-by"));

    // An edit of the spec changes nothing for a node that is there.
    world.ask("Migrate", 2, json!({})).await;
    let status = world.until(|status| status.migration_generation == 2).await;
    assert_eq!(status.phase, NodePhase::Succeeded);
    assert_eq!(world.host.changes().len(), 3);
}

fn world_go(host: &FakeHost) -> bool {
    host.state("m1-1") == Some(State::Switching)
}

#[tokio::test]
async fn a_node_goes_all_the_way() {
    whole_way("w1", false).await;
}

#[tokio::test]
async fn an_agent_that_dies_after_every_round_goes_all_the_way() {
    whole_way("w2", true).await;
}

#[tokio::test]
async fn a_node_that_goes_back_is_retried_with_a_new_generation() {
    // Somebody else cordoned it: it stays so.
    let mut world = World::new("w3", json!({ "spec": { "unschedulable": true } })).await;
    world.ask("Migrate", 1, json!({})).await;
    world.until_phase(NodePhase::Switching).await;
    let host = world.host.clone();
    world.until(|_| world_go(&host)).await;
    world.die();
    let error = "start containerd.service: the job ended as failed";
    world.host.set("m1-1", |progress| {
        progress.state = State::RollingBack;
        progress.error = Some(error.to_owned());
    });
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(status.message, format!("back on dockershim: {error}"));
    assert_eq!(status.last_error.as_deref(), Some(error));
    assert!(world.is_cordoned().await, "the cordon was somebody else's");
    for _ in 0..3 {
        world.round().await;
    }
    assert_eq!(
        world.host.changes(),
        ["install m1-1", "Go"],
        "an ended node is left alone"
    );

    world.ask("Migrate", 2, json!({})).await;
    world
        .until(|status| status.phase == NodePhase::Switching && status.migration_generation == 2)
        .await;
    assert_eq!(world.host.changes()[2..], ["install m1-2", "Go"]);
    assert_eq!(world.status().await.last_error, None);

    // A status that nobody can read, from whoever may write statuses, is written anew.
    let forged = json!({ "status": { "times": [{ "phase": "Draining", "start": "9999-12-31T23:59:59Z" }] } });
    world
        .raw()
        .patch_status("w3", &PatchParams::default(), &Patch::Merge(&forged))
        .await
        .unwrap();
    world.migrations().get("w3").await.unwrap_err();
    world.round().await;
    let status = world.status().await;
    assert_eq!(
        (status.phase, status.migration_generation),
        (NodePhase::Switching, 2)
    );

    // What no software can repair.
    world
        .until(|_| host.state("m1-2") == Some(State::Switching))
        .await;
    world.host.set("m1-2", |progress| {
        progress.state = State::Broken;
        progress.error = Some("the disk is read-only".to_owned());
    });
    let status = world.until_phase(NodePhase::Failed).await;
    assert!(
        status
            .message
            .starts_with("a person has to help: the disk is read-only"),
        "{}",
        status.message
    );
}

#[tokio::test]
async fn a_budget_blocks_is_aborted_and_times_out() {
    let mut world = World::new("w4", json!({})).await;
    world.pod("default", "guarded", json!({ "app": "guarded" })).await;
    world.budget("guard", "guarded").await;
    world.ask("Migrate", 1, json!({ "timeout": "10m" })).await;
    let status = world
        .until(|status| {
            status
                .drain
                .as_ref()
                .is_some_and(|drain| !drain.blocking.is_empty())
        })
        .await;
    assert_eq!(status.phase, NodePhase::Draining);
    let drain = status.drain.unwrap();
    assert_eq!((drain.evicted, drain.remaining), (0, 1));
    let reason = "PodDisruptionBudget guard needs 1 healthy pods and has 1 currently";
    assert_eq!(
        (drain.blocking[0].name.as_str(), drain.blocking[0].reason.as_str()),
        ("guarded", reason)
    );
    assert_eq!(
        status.message,
        format!("waits for 1 pods to leave: default/guarded: {reason}")
    );
    assert!(world.is_cordoned().await);

    world.ask("Abort", 1, json!({ "timeout": "10m" })).await;
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(
        status.message,
        "back on dockershim: the migration is being deleted"
    );
    assert_eq!(status.last_error, None);
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes(), ["install m1-1", "Abort"]);

    // Again, with less patience, and an agent that dies while it waits and remembers nothing.
    world.ask("Migrate", 2, json!({ "timeout": "4s" })).await;
    let blocked = |status: &NodeMigrationStatus| {
        status.migration_generation == 2
            && status
                .drain
                .as_ref()
                .is_some_and(|drain| !drain.blocking.is_empty())
    };
    world.until(blocked).await;
    world.die();
    world.round().await;
    assert!(
        blocked(&world.status().await),
        "what the old agent was told is not forgotten"
    );
    let status = world
        .until(|status| status.migration_generation == 2 && status.phase == NodePhase::Blocked)
        .await;
    let condition = &status.conditions[0];
    assert_eq!(
        (condition.type_.as_str(), condition.status.as_str()),
        ("DrainTimedOut", "True")
    );
    assert!(
        condition
            .message
            .starts_with("1 pods did not leave within 4s: default/guarded"),
        "{condition:?}"
    );
    assert!(condition.message.contains(reason), "{condition:?}");
    assert!(
        status
            .message
            .ends_with("What was prepared is undone, the node serves"),
        "{}",
        status.message
    );
    assert!(!world.is_cordoned().await);
    assert_eq!(world.host.changes()[2..], ["install m1-2", "Abort"]);
    let pod = Api::<Pod>::namespaced(world.admin.clone(), "default")
        .get("guarded")
        .await
        .unwrap();
    assert!(pod.metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn a_node_that_cannot_or_need_not_move_is_not_touched() {
    let mut world = World::new("w5", json!({})).await;

    // Not this node: an older one of the same name.
    world.ask("Migrate", 1, json!({})).await;
    let patch = Patch::Merge(json!({ "spec": { "nodeUid": "another" } }));
    world
        .migrations()
        .patch("w5", &PatchParams::default(), &patch)
        .await
        .unwrap();
    world.round().await;
    assert_eq!(world.status().await, NodeMigrationStatus::default());

    // Trouble is reported, and tried again.
    world.host.inner().broken_inspect = true;
    world.ask("Migrate", 1, json!({})).await;
    let status = world.until(|status| status.last_error.is_some()).await;
    assert_eq!(status.phase, NodePhase::Preflight);
    assert!(
        status.message.contains("`transship node inspect` ended with 1"),
        "{}",
        status.message
    );
    world.host.inner().broken_inspect = false;

    // A finding blocks.
    world.host.inner().verdict = Some(Verdict::Blocked);
    world.host.inner().findings = vec![Finding {
        severity: Severity::Block,
        code: "CgroupDriverMismatch".to_owned(),
        message: "The drivers differ".to_owned(),
        remedy: "Choose one.".to_owned(),
    }];
    let status = world.until_phase(NodePhase::Blocked).await;
    assert_eq!(
        status.message,
        "CgroupDriverMismatch: The drivers differ. Choose one."
    );
    assert_eq!(status.last_error, None);

    // A pod would be lost: an unmanaged one with data.
    world.host.inner().verdict = None;
    world.host.inner().findings.clear();
    let lonely = serde_json::from_value(json!({
        "metadata": { "name": "lonely" },
        "spec": { "nodeName": "w5", "volumes": [{ "name": "v", "emptyDir": {} }],
            "containers": [{ "name": "c", "image": "i" }] },
    }));
    let pods: Api<Pod> = Api::namespaced(world.admin.clone(), "default");
    pods.create(&PostParams::default(), &lonely.unwrap())
        .await
        .unwrap();
    world.ask("Migrate", 2, json!({})).await;
    let status = world
        .until(|status| status.migration_generation == 2 && status.phase.ended())
        .await;
    assert_eq!(status.phase, NodePhase::Blocked);
    assert!(
        status
            .message
            .starts_with("PodsBlockDrain: 1 pods would not be evicted: default/lonely")
    );

    // Aborted before anything was changed.
    world.ask("Abort", 2, json!({})).await;
    let status = world
        .until(|status| status.action == Some(transship::api::node_migration::Action::Abort))
        .await;
    assert_eq!(status.phase, NodePhase::Blocked);

    // Already there.
    world.heartbeat(CONTAINERD).await;
    world.host.inner().verdict = Some(Verdict::AlreadyThere);
    world.ask("Migrate", 3, json!({})).await;
    let status = world.until_phase(NodePhase::Succeeded).await;
    assert!(
        status.message.ends_with("nothing was touched"),
        "{}",
        status.message
    );
    assert!(world.host.changes().is_empty());
    assert!(!world.is_cordoned().await);

    // Another migration of the same name begins anew; it is aborted before it does.
    let spec = json!({ "spec": { "migration": { "uid": "m2", "generation": 1 }, "action": "Abort" } });
    world
        .migrations()
        .patch("w5", &PatchParams::default(), &Patch::Merge(spec))
        .await
        .unwrap();
    let status = world.until_phase(NodePhase::RolledBack).await;
    assert_eq!(status.message, "aborted before anything was changed");
    assert_eq!(status.migration_uid, "m2");
}
