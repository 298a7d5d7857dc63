//! The controller's process against a real API server: how much memory it takes, what it exports, and what it says of a
//! server that could limit it and does not.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scenario::Scenario;
use crate::server::{AGENT, CONTROLLER, NAMESPACE, Release};
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Api, Resource as _, ResourceExt as _};
use rstest::rstest;
use serde_json::{Value, json};
use transship::api::crd::{self, Cel};
use transship::api::node_migration::NodeMigration;
use transship::controller::Leader;
use transship::metrics::Metrics;

/// What the chart allows the controller, in bytes.
const LIMIT: u64 = 256 << 20;
/// How many nodes there are, each with a status as large as the definition lets it be. How much memory they take does not
/// depend on the server, and servers take long for such statuses: the older one shows that its definition limits them.
const fn nodes_of(release: Release) -> usize {
    match release {
        Release::Old => 40,
        Release::New => 150,
    }
}

/// A running `transship controller`; it ends with this value.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    fn start(s: &Scenario, directory: &std::path::Path) -> Self {
        let kubeconfig = directory.join("kubeconfig");
        let text = serde_json::to_string(&s.server.kubeconfig(CONTROLLER)).unwrap();
        fs::write(&kubeconfig, text).unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(env!("CARGO_BIN_EXE_transship"))
            .arg("controller")
            .env("KUBECONFIG", &kubeconfig)
            .env("POD_NAMESPACE", NAMESPACE)
            .env("TRANSSHIP_LISTEN", &address)
            .env("TRANSSHIP_POLICIES", "transship-own-node,transship-one-label")
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address }
    }

    /// What it exports; empty while it does not listen.
    fn metrics(&self) -> String {
        let Ok(mut stream) = TcpStream::connect(&self.address) else {
            return String::new();
        };
        let mut text = String::new();
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: controller\r\n\r\n")
            .and_then(|()| stream.read_to_string(&mut text))
            .unwrap();
        text
    }

    fn until_exported(&self, what: &str, holds: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let text = self.metrics();
            if holds(&text) {
                return;
            }
            assert!(Instant::now() < deadline, "waited 120 s for {what}: {text:.2000}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The most memory that it has had, in bytes.
    fn most_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A value as large as its schema lets it be.
fn brim(schema: &JSONSchemaProps) -> Value {
    if let Some(allowed) = &schema.enum_ {
        return allowed[0].0.clone();
    }
    match schema.type_.as_deref() {
        Some("object") => schema
            .properties
            .iter()
            .flatten()
            .map(|(name, field)| (name.clone(), brim(field)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Some("array") => {
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else {
                panic!("a list of nothing")
            };
            let most = usize::try_from(schema.max_items.unwrap()).unwrap();
            vec![brim(items); most].into()
        }
        Some("string") if schema.format.as_deref() == Some("date-time") => "2026-01-01T00:00:00Z".into(),
        // No character takes more bytes.
        Some("string") => "𝄞"
            .repeat(usize::try_from(schema.max_length.unwrap()).unwrap())
            .into(),
        Some("boolean") => true.into(),
        Some("integer" | "number") => 1.into(),
        other => panic!("a field of type {other:?}"),
    }
}

fn status_schema() -> JSONSchemaProps {
    let [_, node] = crd::all(Cel::Without);
    let schema = node.spec.versions[0]
        .schema
        .clone()
        .unwrap()
        .open_api_v3_schema
        .unwrap();
    schema.properties.unwrap()["status"].clone()
}

/// A NodeMigration of a migration.
fn share(name: &str, node_uid: Option<String>, migration: (&str, Option<String>)) -> NodeMigration {
    let share = json!({ "metadata": { "name": name }, "spec": { "nodeUid": node_uid, "action": "Plan",
        "migration": { "name": migration.0, "uid": migration.1, "generation": 1 },
        "target": { "runtime": "containerd" } } });
    serde_json::from_value(share).unwrap()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn statuses_filled_to_the_brim_fit_into_the_controllers_memory(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 0).await;
    s.create("brim", "brim", json!({ "paused": true })).await;
    let uid = s.migrations.get("brim").await.unwrap().uid();
    let nodes: Api<Node> = Api::all(s.admin.clone());
    let shares: Api<NodeMigration> = Api::all(s.admin.clone());
    let agent: Api<NodeMigration> = match release {
        Release::Old => Api::all(s.server.client(AGENT).await),
        // Here an agent reaches its own alone.
        Release::New => shares.clone(),
    };
    let (client, path) = (agent.clone().into_client(), NodeMigration::url_path(&(), None));
    let status = json!({ "status": brim(&status_schema()) });
    let count = nodes_of(release);
    for number in 0..count {
        let name = format!("brim{number}");
        let node = json!({ "metadata": { "name": name, "labels": { "brim": "" } } });
        let node = nodes
            .create(&PostParams::default(), &serde_json::from_value(node).unwrap())
            .await
            .unwrap();
        let share = share(&name, node.uid(), ("brim", uid.clone()));
        shares.create(&PostParams::default(), &share).await.unwrap();
        let report = Request::new(&path)
            .patch_subresource("status", &name, &PatchParams::default(), &Patch::Merge(&status))
            .unwrap();
        // The answer is not read as an object: that takes longer than all the rest here.
        client.request_text(report).await.unwrap();
    }
    // One character more is refused, whatever the server.
    for more in [
        json!({ "message": "m".repeat(1025) }),
        json!({ "plan": { "digest": "d", "steps": vec!["s"; 201], "diff": "" } }),
    ] {
        let refused = agent
            .patch_status(
                "brim0",
                &PatchParams::default(),
                &Patch::Merge(&json!({ "status": more })),
            )
            .await
            .unwrap_err();
        assert!(matches!(refused, kube::Error::Api(status) if status.code == 422));
    }

    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&s, directory.path());
    process.until_exported("every node", |text| {
        text.lines()
            .filter(|line| line.starts_with("transship_node_phase"))
            .count()
            == count
    });
    let most = process.most_memory();
    println!("{count} statuses at the brim: {} MiB", most >> 20);
    assert!(most < LIMIT / 2, "{} MiB of {} MiB", most >> 20, LIMIT >> 20);
    drop(process);

    let brimful = ListParams::default().labels("brim");
    nodes
        .delete_collection(&DeleteParams::default(), &brimful)
        .await
        .unwrap();
    s.end(&["brim"]).await;
}

#[tokio::test]
async fn who_leads_no_more_exports_nothing_of_migrations_and_nodes() {
    let s = Scenario::start(Release::Old, 0).await;
    let metrics = Metrics::new().unwrap();
    let leader = Leader {
        client: s.server.client(CONTROLLER).await,
        namespace: NAMESPACE.to_owned(),
        identity: "leader".to_owned(),
        own_node: None,
        metrics: metrics.clone(),
    };
    let leading = tokio::spawn(leader.lead());
    s.fleet.node("m1", "m").await;
    s.create("led", "m", json!({ "mode": "Plan" })).await;
    let deadline = Instant::now() + Duration::from_secs(40);
    let exported = |what: &str| metrics.text().unwrap().contains(what);
    while !(exported(r#"migration="led""#)
        && exported(r#"transship_node_phase{migration="led",node="m1",phase="Planned"} 1"#))
    {
        assert!(Instant::now() < deadline, "{}", metrics.text().unwrap());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    leading.abort();
    let _ = leading.await;
    assert!(!exported("led") && !exported("m1"), "{}", metrics.text().unwrap());
    s.end(&["led"]).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn missing_admission_policies_are_noticed_where_the_server_could_have_them(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 0).await;
    let directory = tempfile::tempdir().unwrap();
    let process = Process::start(&s, directory.path());
    process.until_exported("its policies", |text| {
        text.contains("transship_admission_policies_missing 0")
    });
    drop(process);
    if release == Release::New {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(s.admin.clone());
        bindings
            .delete("transship-one-label", &DeleteParams::default())
            .await
            .unwrap();
        let process = Process::start(&s, directory.path());
        process.until_exported("what is missing", |text| {
            text.contains("transship_admission_policies_missing 1")
        });
        let log = fs::read_to_string(directory.path().join("log")).unwrap();
        assert!(
            log.contains("transship-one-label") && log.contains("helm upgrade"),
            "{log}"
        );
        s.server.kubectl(&["apply", "-f", release.manifest()], "");
    }
    s.end(&[]).await;
}
