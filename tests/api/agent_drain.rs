//! Evictions with a node's own identity against a real API server. No controller runs: a test writes the status of
//! budgets and, where a kubelet would let go of a pod, deletes it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::server::{ADMIN, ApiServer, QUIET, RESTRICTED, Release, kubelet};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use transship::agent::drain::evict::{Answer, EvictionVersion, evict};
use transship::agent::identity::{IdentityError, NodeIdentity};
use transship::api::request::Drain;

/// A namespace and a node of one test's own.
struct World {
    server: &'static ApiServer,
    admin: kube::Client,
    namespace: String,
    node: &'static str,
    _kubeconfig: tempfile::NamedTempFile,
    identity: NodeIdentity,
}

impl World {
    async fn new(release: Release, node: &'static str, namespace: &str) -> Self {
        let server = QUIET.of(release).await;
        let admin = server.client(ADMIN).await;
        let object = serde_json::from_value(json!({ "metadata": { "name": namespace } })).unwrap();
        Api::<Namespace>::all(admin.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let object = serde_json::from_value(json!({ "metadata": { "name": node } })).unwrap();
        Api::<Node>::all(admin.clone())
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        let text = serde_json::to_string(&server.kubeconfig(&kubelet(node))).unwrap();
        std::fs::write(kubeconfig.path(), text).unwrap();
        let identity = NodeIdentity::new(kubeconfig.path().to_owned(), node.to_owned());
        Self {
            server,
            admin,
            namespace: namespace.to_owned(),
            node,
            _kubeconfig: kubeconfig,
            identity,
        }
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.admin.clone(), &self.namespace)
    }

    /// A pod that runs and is ready, as its kubelet would have it.
    async fn running_pod(&self, name: &str) -> Pod {
        self.running_pod_on(self.node, name).await
    }

    async fn running_pod_on(&self, node: &str, name: &str) -> Pod {
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": name } },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }] },
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods().create(&PostParams::default(), &pod).await.unwrap();
        let status = json!({ "status": {
            "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] } });
        let (parameters, patch) = (PatchParams::default(), Patch::Merge(status));
        self.pods().patch_status(name, &parameters, &patch).await.unwrap()
    }

    async fn budget(&self, name: &str, app: &str, allowed: i32) {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.admin.clone(), &self.namespace);
        let budget = json!({
            "metadata": { "name": name },
            "spec": { "minAvailable": 2, "selector": { "matchLabels": { "app": app } } },
        });
        let budget = serde_json::from_value(budget).unwrap();
        let made = budgets.create(&PostParams::default(), &budget).await.unwrap();
        self.allow(name, allowed, made.metadata.generation).await;
    }

    /// What the controller of budgets would say.
    async fn allow(&self, name: &str, allowed: i32, observed: Option<i64>) {
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.admin.clone(), &self.namespace);
        let status: Value = json!({ "status": {
            "observedGeneration": observed, "disruptionsAllowed": allowed,
            "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2 } });
        budgets
            .patch_status(name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .unwrap();
    }

    async fn is_ending(&self, name: &str) -> bool {
        let pod = self.pods().get_opt(name).await.unwrap();
        pod.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some())
    }
}

#[rstest]
#[tokio::test]
async fn an_exhausted_budget_is_named_at_once(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w1", "budget").await;
    let pod = world.running_pod("web").await;
    world.budget("web-budget", "web", 0).await;

    let asked = Instant::now();
    let answer = world.identity.evict(&pod, &Drain::default()).await.unwrap();
    let expected = "PodDisruptionBudget web-budget needs 2 healthy pods and has 2 currently";
    assert_eq!(answer, Answer::Refused(expected.to_owned()));
    assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
    assert!(!world.is_ending("web").await);

    world.allow("web-budget", 1, Some(1)).await;
    assert_eq!(
        world.identity.evict(&pod, &Drain::default()).await.unwrap(),
        Answer::Going
    );
    assert!(world.is_ending("web").await);
}

#[rstest]
#[tokio::test]
async fn a_budget_that_nobody_has_looked_at_is_named_too(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let mut world = World::new(release, "w2", "unobserved").await;
    let pod = world.running_pod("web").await;
    world.budget("new-budget", "web", 0).await;
    world.allow("new-budget", 0, Some(0)).await;
    let answer = world.identity.evict(&pod, &Drain::default()).await.unwrap();
    let Answer::Refused(reason) = answer else {
        panic!("{answer:?}")
    };
    assert!(
        reason.starts_with("PodDisruptionBudget new-budget is still being processed"),
        "{reason}"
    );
}

#[rstest]
#[tokio::test]
async fn what_the_server_refuses_for_ever_is_said(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w3", "refused").await;
    let pod = world.running_pod("web").await;
    world.budget("one", "web", 1).await;
    world.budget("two", "web", 1).await;
    let answer = world.identity.evict(&pod, &Drain::default()).await.unwrap();
    let Answer::Refused(reason) = answer else {
        panic!("{answer:?}")
    };
    assert!(reason.contains("more than one PodDisruptionBudget"), "{reason}");
    assert!(!world.is_ending("web").await);

    // Only the namespace's own controller would end it now.
    let lonely = world.running_pod("lonely").await;
    Api::<Namespace>::all(world.admin.clone())
        .delete(&world.namespace, &DeleteParams::default())
        .await
        .unwrap();
    let answer = world.identity.evict(&lonely, &Drain::default()).await.unwrap();
    assert_eq!(
        answer,
        Answer::Refused("its namespace is being deleted, and it with it".to_owned())
    );
}

#[rstest]
#[tokio::test]
async fn exactly_the_pod_that_was_meant_is_evicted(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w4", "exactly").await;
    let old = world.running_pod("web").await;
    world
        .pods()
        .delete("web", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let new = world.running_pod("web").await;
    assert_ne!(old.uid(), new.uid());
    let answer = world.identity.evict(&old, &Drain::default()).await.unwrap();
    assert!(matches!(answer, Answer::Refused(_)), "{answer:?}");
    assert!(!world.is_ending("web").await);

    // Its own grace period, or the one of the request.
    let drain = Drain {
        grace_period: 7,
        ..Drain::default()
    };
    assert_eq!(world.identity.evict(&new, &drain).await.unwrap(), Answer::Going);
    let ending = world.pods().get("web").await.unwrap();
    assert_eq!(ending.metadata.deletion_grace_period_seconds, Some(7));

    world
        .pods()
        .delete("web", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert_eq!(world.identity.evict(&new, &drain).await.unwrap(), Answer::Going);

    // The form for servers before 1.22; later ones understand it too.
    let pod = world.running_pod("older").await;
    let client = world.server.client(&kubelet("w4")).await;
    let answer = evict(&client, EvictionVersion::V1Beta1, &pod, &Drain::default())
        .await
        .unwrap();
    assert_eq!(answer, Answer::Going);
    assert!(world.is_ending("older").await);
}

#[rstest]
#[tokio::test]
async fn a_node_sees_and_evicts_its_own_pods_alone(#[values(Release::Old, Release::New)] release: Release) {
    let mut world = World::new(release, "w5", "own").await;
    let mine = world.running_pod("mine").await;
    for exactly in [true, false] {
        let pods = world.identity.pods(exactly).await.unwrap();
        let names: Vec<_> = pods
            .iter()
            .map(|pod| (pod.namespace().unwrap(), pod.name_any()))
            .collect();
        assert_eq!(names, [("own".to_owned(), "mine".to_owned())]);
    }
    let foreign = world.running_pod_on("elsewhere", "foreign").await;
    let refused = world
        .identity
        .evict(&foreign, &Drain::default())
        .await
        .unwrap_err();
    assert!(!refused.may_pass());
    assert!(matches!(&refused, IdentityError::Api { .. }), "{refused}");
    assert!(
        refused
            .to_string()
            .contains("can only evict pods with spec.nodeName set to itself"),
        "{refused}"
    );
    assert_eq!(
        world.identity.evict(&mine, &Drain::default()).await.unwrap(),
        Answer::Going
    );
}

#[tokio::test]
async fn a_kubeconfig_that_is_not_there_is_named() {
    let mut identity = NodeIdentity::new("/nowhere/kubelet.conf".into(), "w1".to_owned());
    let error = identity.node().await.unwrap_err();
    assert!(!error.may_pass());
    assert!(
        error
            .to_string()
            .starts_with("the kubelet's kubeconfig /nowhere/kubelet.conf cannot be used")
    );
}

fn openssl(directory: &Path, arguments: &[&str]) {
    let output = Command::new("openssl")
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A certificate of a node and its key in one file, as the kubelet keeps them, signed by the authority `ca`.
fn certificate(directory: &Path, ca: &str, file: &str) {
    let subject = "/O=system:nodes/CN=system:node:w1";
    let new_key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ];
    let own = [
        "req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", ca,
    ];
    openssl(directory, &[&own[..], &new_key].concat());
    let asked = ["req", "-subj", subject, "-keyout", "node.key", "-out", "node.csr"];
    openssl(directory, &[&asked[..], &new_key].concat());
    std::fs::write(directory.join("extensions"), "extendedKeyUsage=clientAuth").unwrap();
    let signed = [
        "x509",
        "-req",
        "-in",
        "node.csr",
        "-CA",
        ca,
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
    ];
    let as_client = ["-extfile", "extensions", "-days", "1", "-out", "node.crt"];
    openssl(directory, &[&signed[..], &as_client].concat());
    let both = [
        std::fs::read(directory.join("node.crt")),
        std::fs::read(directory.join("node.key")),
    ];
    std::fs::write(directory.join(file), both.map(Result::unwrap).concat()).unwrap();
}

#[tokio::test]
async fn a_certificate_that_the_kubelet_rotates_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    certificate(directory.path(), "ca.crt", "good.pem");
    certificate(directory.path(), "other.crt", "bad.pem");
    let flag = format!("--client-ca-file={}", directory.path().join("ca.crt").display());
    let server = ApiServer::start(Release::New, &[RESTRICTED, &flag]).await;
    let admin: Api<Node> = Api::all(server.client(ADMIN).await);
    let node = serde_json::from_value(json!({ "metadata": { "name": "w1" } })).unwrap();
    admin.create(&PostParams::default(), &node).await.unwrap();

    let current = directory.path().join("kubelet-client-current.pem");
    let mut kubeconfig = server.kubeconfig(&kubelet("w1"));
    kubeconfig.auth_infos[0].auth_info = serde_json::from_value(json!({
        "client-certificate": current, "client-key": current,
    }))
    .unwrap();
    let file = directory.path().join("kubelet.conf");
    std::fs::write(&file, serde_json::to_string(&kubeconfig).unwrap()).unwrap();

    std::fs::copy(directory.path().join("bad.pem"), &current).unwrap();
    let mut identity = NodeIdentity::new(file, "w1".to_owned());
    let refused = identity.node().await.unwrap_err();
    assert!(matches!(refused, IdentityError::Api { .. }), "{refused}");
    assert!(!refused.may_pass(), "{refused}");
    std::fs::copy(directory.path().join("good.pem"), &current).unwrap();
    assert_eq!(identity.node().await.unwrap().name_any(), "w1");
    let cordon = json!({ "spec": { "unschedulable": true } });
    identity.patch_node(&cordon).await.unwrap();
    assert_eq!(
        admin.get("w1").await.unwrap().spec.unwrap().unschedulable,
        Some(true)
    );
}
