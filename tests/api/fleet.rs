//! Nodes that exist in the API alone, and an agent that plays its part on them from a script: it writes statuses with
//! the token of the agent's pod there, one phase at a time, and changes the Node as a kubelet would.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::server::{ApiServer, NAMESPACE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use transship::api::node_migration::{Action, NodeMigration, NodePhase, READY_TO_SWITCH};
use transship::api::{AGENT_LABEL, CORDONED_ANNOTATION};

/// What the agent of a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Script {
    /// Everything goes well.
    #[default]
    Succeed,
    /// The switch fails, and the node goes back.
    RollBack,
    /// A finding blocks.
    Block,
    /// It drains until it is told to abort.
    Hang,
    /// The switch leaves the node broken and cordoned.
    Fail,
    /// Its pod never starts.
    Absent,
    /// It says Succeeded and has done nothing.
    Lie,
}

/// The nodes of a test and their agents.
#[derive(Clone)]
pub(crate) struct Fleet {
    admin: Client,
    server: &'static ApiServer,
    agents: Arc<Mutex<BTreeMap<String, Client>>>,
    scripts: Arc<Mutex<BTreeMap<String, Script>>>,
    most: Arc<AtomicUsize>,
}

impl Fleet {
    pub(crate) fn new(admin: Client, server: &'static ApiServer) -> Self {
        Self {
            admin,
            server,
            agents: Arc::default(),
            scripts: Arc::default(),
            most: Arc::default(),
        }
    }

    /// Makes a Ready node on dockershim that bears the label `group`.
    pub(crate) async fn node(&self, name: &str, group: &str) {
        self.node_with(name, json!({ "group": group, "kubernetes.io/os": "linux" }))
            .await;
    }

    pub(crate) async fn node_with(&self, name: &str, labels: serde_json::Value) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let node = serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
        self.status(name, "docker://20.10.24", true).await;
        // The server taints a new node as not Ready; the controller manager would take that away.
        let untainted = json!({ "spec": { "taints": null } });
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(&untainted))
            .await
            .unwrap();
        let agent = self.server.agent_on(name).await;
        self.agents.lock().unwrap().insert(name.to_owned(), agent);
        self.scripts
            .lock()
            .unwrap()
            .insert(name.to_owned(), Script::Succeed);
    }

    /// What the kubelet writes of itself.
    pub(crate) async fn status(&self, name: &str, runtime: &str, ready: bool) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let patch = json!({ "status": {
            "nodeInfo": { "containerRuntimeVersion": runtime, "architecture": "amd64", "bootID": "", "kernelVersion": "",
                "kubeProxyVersion": "", "kubeletVersion": "v1.23.17", "machineID": "", "operatingSystem": "linux",
                "osImage": "", "systemUUID": "" },
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "Test",
                "message": "", "lastHeartbeatTime": null, "lastTransitionTime": null }],
        } });
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .unwrap();
    }

    /// What the control plane writes of a node whose kubelet is silent.
    pub(crate) async fn not_ready_since(&self, name: &str, ago: Duration) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let since = Time(Timestamp::now() - ago);
        let patch = json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown", "reason": "Test",
            "message": "", "lastHeartbeatTime": null, "lastTransitionTime": since }] } });
        nodes
            .patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch))
            .await
            .unwrap();
    }

    /// What the kubelet of a control plane node says of its etcd, which it runs under its present runtime.
    pub(crate) async fn etcd(&self, node: &str, ready: bool) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "kube-system");
        let name = format!("etcd-{node}");
        if pods.get_opt(&name).await.unwrap().is_none() {
            let pod = serde_json::from_value(json!({
                "metadata": { "name": name, "labels": { "component": "etcd" } },
                "spec": { "nodeName": node, "containers": [{ "name": "etcd", "image": "etcd" }] },
            }));
            pods.create(&PostParams::default(), &pod.unwrap()).await.unwrap();
        }
        let info = nodes.get(node).await.unwrap().status.unwrap().node_info.unwrap();
        let (scheme, _) = info.container_runtime_version.split_once("://").unwrap();
        let status = json!({ "status": {
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
            "containerStatuses": [{ "name": "etcd", "image": "etcd", "imageID": "", "ready": ready, "restartCount": 0,
                "containerID": format!("{scheme}://0") }] } });
        pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// The identity of the agent's pod on a node.
    pub(crate) fn agent(&self, node: &str) -> Client {
        self.agents.lock().unwrap()[node].clone()
    }

    pub(crate) fn script(&self, name: &str, script: Script) {
        self.scripts.lock().unwrap().insert(name.to_owned(), script);
    }

    /// How many nodes were under way at the same time, at most.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Plays the agents until the future is dropped.
    pub(crate) async fn play(self) {
        loop {
            tokio::time::sleep(Duration::from_millis(60)).await;
            let guarded: Api<DeserializeGuard<NodeMigration>> = Api::all(self.admin.clone());
            let Ok(all) = guarded.list(&ListParams::default()).await else {
                continue;
            };
            let all: Vec<NodeMigration> = all.items.into_iter().filter_map(|share| share.0.ok()).collect();
            let under_way = all
                .iter()
                .filter(|s| s.spec.action != Action::Plan && !s.phase().ended())
                .count();
            self.most.fetch_max(under_way, Ordering::Relaxed);
            for share in all {
                self.step(&share).await;
            }
        }
    }

    async fn step(&self, share: &NodeMigration) {
        let name = share.name_any();
        let Some(script) = self.scripts.lock().unwrap().get(&name).copied() else {
            return;
        };
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let Ok(node) = nodes.get(&name).await else { return };
        // The DaemonSet runs the agent where the label is.
        if script == Script::Absent || !node.labels().contains_key(AGENT_LABEL) || share.phase().ended() {
            return;
        }
        let of = &share.spec;
        let next = match (share.spec.action, share.phase(), script) {
            (Action::Plan, _, Script::Block) | (Action::Migrate, NodePhase::Pending, Script::Block) => {
                NodePhase::Blocked
            }
            (Action::Plan, ..) => NodePhase::Planned,
            (Action::Abort, _, Script::Fail) => NodePhase::Failed,
            (Action::Abort, ..) => NodePhase::RolledBack,
            (Action::Migrate, NodePhase::Pending, Script::Lie) => NodePhase::Succeeded,
            (Action::Migrate, NodePhase::Pending, _) => NodePhase::Preparing,
            (Action::Migrate, NodePhase::Preparing, _) => NodePhase::Draining,
            (Action::Migrate, NodePhase::Draining, Script::Hang) => return,
            (Action::Migrate, NodePhase::Draining, _) if !of.proceed && is_ready_to_switch(share) => return,
            (Action::Migrate, NodePhase::Draining, _) if !of.proceed => NodePhase::Draining,
            (Action::Migrate, NodePhase::Draining, _) => NodePhase::Switching,
            (Action::Migrate, _, Script::RollBack) => NodePhase::RolledBack,
            (Action::Migrate, _, Script::Fail) => NodePhase::Failed,
            (Action::Migrate, ..) => NodePhase::Succeeded,
        };
        match next {
            NodePhase::Draining if share.phase() != next => {
                self.cordon(&name, Some(&share.spec.migration.uid)).await
            }
            NodePhase::RolledBack => self.cordon(&name, None).await,
            NodePhase::Succeeded if script != Script::Lie => {
                self.status(&name, "containerd://1.6.20", true).await;
                self.cordon(&name, None).await;
            }
            _ => {}
        }
        let again = next == share.phase();
        let conditions = if again {
            vec![ready_to_switch()]
        } else {
            Vec::new()
        };
        let status = json!({ "status": {
            "migrationUid": of.migration.uid, "migrationGeneration": of.migration.generation, "action": of.action,
            "attempt": of.attempt,
            "nodeUid": of.node_uid, "phase": next, "message": format!("the script says {}", next.name()),
            "findings": [], "stepsDone": 0, "times": [], "conditions": conditions,
        } });
        Api::<NodeMigration>::all(self.agent(&name))
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    /// Cordons a Node as the agent of a migration does, or puts it back in order.
    pub(crate) async fn cordon(&self, name: &str, migration: Option<&str>) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let patch = json!({ "metadata": { "annotations": { CORDONED_ANNOTATION: migration } },
            "spec": { "unschedulable": migration.map(|_| true) } });
        nodes
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
            .unwrap();
    }

    /// Removes the nodes of this test.
    pub(crate) async fn remove(&self) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let names: Vec<String> = self.scripts.lock().unwrap().keys().cloned().collect();
        for name in names {
            nodes.delete(&name, &DeleteParams::default()).await.unwrap();
        }
        for namespace in ["kube-system", NAMESPACE] {
            let pods: Api<Pod> = Api::namespaced(self.admin.clone(), namespace);
            pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default())
                .await
                .unwrap();
        }
    }
}

/// What an agent reports that has only the switch left to do.
fn ready_to_switch() -> Condition {
    Condition {
        type_: READY_TO_SWITCH.to_owned(),
        status: "True".to_owned(),
        reason: READY_TO_SWITCH.to_owned(),
        message: "the script says that no pod is left".to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

fn is_ready_to_switch(share: &NodeMigration) -> bool {
    let conditions = share.status.iter().flat_map(|status| &status.conditions);
    conditions.into_iter().any(|c| c.type_ == READY_TO_SWITCH)
}
