//! What is deleted while a node is under way, in whatever order, against a real API server: every node ends settled, or
//! an object still says what is open.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::fleet::Script;
use crate::scenario::{Scenario, message};
use crate::server::{ADMIN, CONTROLLER, NAMESPACE, Release, part};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use rstest::rstest;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use transship::api::migration::{MigrationPhase, RuntimeMigration};
use transship::api::node_migration::{Action, NodeMigration, NodePhase};
use transship::api::{AGENT_LABEL, CORDONED_ANNOTATION, FINALIZER};

fn draining(migration: &RuntimeMigration) -> bool {
    message(migration).contains("Draining")
}

/// A migration whose only node drains until it is told to abort.
async fn in_the_middle(s: &Scenario, node: &str, migration: &str) {
    s.fleet.node(node, migration).await;
    s.fleet.script(node, Script::Hang);
    s.create(migration, migration, json!({})).await;
    s.until(migration, "draining", draining).await;
}

fn shares(s: &Scenario) -> Api<NodeMigration> {
    Api::all(s.admin.clone())
}

async fn delete(s: &Scenario, migration: &str) {
    s.migrations
        .delete(migration, &DeleteParams::default())
        .await
        .unwrap();
}

/// Takes a NodeMigration away, whoever holds it.
async fn tear_out(s: &Scenario, name: &str) {
    let free = json!({ "metadata": { "finalizers": null } });
    shares(s)
        .patch(name, &PatchParams::default(), &Patch::Merge(&free))
        .await
        .unwrap();
    shares(s).delete(name, &DeleteParams::default()).await.unwrap();
}

/// Waits until nothing of a migration is left on a node, nor its NodeMigration.
async fn settled(s: &Scenario, name: &str) {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let (node, share) = (s.node(name).await, s.share(name).await);
        let clean = node.spec.as_ref().unwrap().unschedulable != Some(true)
            && !node.annotations().contains_key(CORDONED_ANNOTATION)
            && !node.labels().contains_key(AGENT_LABEL);
        if clean && share.is_none() {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "not settled after 40 s: {:?} {:?} {share:#?}",
            node.metadata,
            node.spec
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[rstest]
#[tokio::test]
async fn a_deletion_in_the_middle_returns_at_once_and_its_node_goes_back(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "d1", "deleted").await;
    let share = s.share("d1").await.unwrap();
    assert!(share.finalizers().iter().any(|f| f == FINALIZER));
    assert_eq!(share.owner_references()[0].block_owner_deletion, Some(true));
    assert_eq!(
        s.migrations.get("deleted").await.unwrap().finalizers(),
        [] as [&str; 0]
    );
    delete(&s, "deleted").await;
    s.gone("deleted", Duration::from_secs(2)).await;
    settled(&s, "d1").await;

    // Another of the same name is another one, and begins anew.
    s.fleet.script("d1", Script::Succeed);
    s.create("deleted", "deleted", json!({})).await;
    s.until_phase("deleted", MigrationPhase::Succeeded).await;
    s.end(&["deleted"]).await;
}

#[rstest]
#[tokio::test]
async fn a_deletion_in_the_foreground_waits_for_the_node(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "e1", "waiting").await;
    s.migrations
        .delete("waiting", &DeleteParams::foreground())
        .await
        .unwrap();
    // There is no garbage collector here: it deletes what the migration owns, and then lets it go.
    shares(&s).delete("e1", &DeleteParams::default()).await.unwrap();
    settled(&s, "e1").await;
    let held = s.migrations.get("waiting").await.unwrap();
    assert_eq!(held.finalizers(), ["foregroundDeletion"]);
    let free = json!({ "metadata": { "finalizers": null } });
    s.migrations
        .patch("waiting", &PatchParams::default(), &Patch::Merge(&free))
        .await
        .unwrap();
    s.end(&["waiting"]).await;
}

#[rstest]
#[tokio::test]
async fn a_migration_and_its_node_migration_deleted_together_leave_nothing_behind(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "b1", "both").await;
    delete(&s, "both").await;
    shares(&s).delete("b1", &DeleteParams::default()).await.unwrap();
    settled(&s, "b1").await;

    // Torn out together: the Node's cordon is all that is left.
    in_the_middle(&s, "b2", "torn").await;
    delete(&s, "torn").await;
    tear_out(&s, "b2").await;
    settled(&s, "b2").await;
    s.end(&[]).await;
}

#[rstest]
#[tokio::test]
async fn a_node_migration_that_is_taken_away_in_the_middle_is_written_anew(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "a1", "anew").await;
    tear_out(&s, "a1").await;
    let deadline = Instant::now() + Duration::from_secs(20);
    let share = loop {
        if let Some(share) = s.share("a1").await {
            break share;
        }
        assert!(Instant::now() < deadline, "it is not written anew");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        (share.spec.action, share.spec.migration.generation),
        (Action::Migrate, 1)
    );
    s.until("anew", "draining", draining).await;

    // Deleted in a way that its finalizer sees, it goes on to its end.
    shares(&s).delete("a1", &DeleteParams::default()).await.unwrap();
    s.fleet.script("a1", Script::Succeed);
    s.until_phase("anew", MigrationPhase::Succeeded).await;
    settled(&s, "a1").await;
    s.end(&["anew"]).await;
}

#[rstest]
#[tokio::test]
async fn what_has_ended_is_deleted_without_a_controller(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    for name in ["c1", "c2"] {
        s.fleet.node(name, "c").await;
    }
    s.fleet.script("c2", Script::RollBack);
    s.create("ended", "c", json!({ "strategy": { "maxUnavailable": 2 } }))
        .await;
    s.until_phase("ended", MigrationPhase::Degraded).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    for name in ["c1", "c2"] {
        while !s.share(name).await.unwrap().finalizers().is_empty() {
            assert!(Instant::now() < deadline, "{name} keeps its finalizer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // A plan changes nothing: nobody waits for it either.
    s.fleet.node("c3", "c-plan").await;
    s.fleet.script("c3", Script::Absent);
    s.create("absent", "c-plan", json!({ "mode": "Plan" })).await;
    s.until("absent", "a slot", |m| {
        m.status.clone().unwrap_or_default().active_nodes.len() == 1
    })
    .await;
    delete(&s, "absent").await;
    settled(&s, "c3").await;
    s.end(&["ended"]).await;
}

#[rstest]
#[tokio::test]
async fn a_broken_node_keeps_its_node_migration_until_a_person_uncordons_it(
    #[values(Release::Old, Release::New)] release: Release,
    #[values(false, true)] breaks_first: bool,
) {
    let s = Scenario::start(release, 1).await;
    let node = if breaks_first { "x1" } else { "x2" };
    in_the_middle(&s, node, "broken").await;
    s.fleet.script(node, Script::Fail);
    if breaks_first {
        s.until_phase("broken", MigrationPhase::Failed).await;
    }
    delete(&s, "broken").await;
    s.until_told(node, "NodeLeftCordoned").await;
    let share = s.share(node).await.unwrap();
    assert_eq!(share.phase(), NodePhase::Failed);
    assert!(share.metadata.deletion_timestamp.is_some());
    Api::<Node>::all(s.admin.clone()).uncordon(node).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while s.share(node).await.is_some() {
        assert!(Instant::now() < deadline, "it is uncordoned, and still held");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    s.without_label(&[node]).await;
    s.end(&[]).await;
}

#[rstest]
#[tokio::test]
async fn a_label_that_nobody_uses_is_swept(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    for (name, value) in [("s1", "nobody"), ("s2", "")] {
        s.fleet.node(name, "s").await;
        let label = json!({ "metadata": { "labels": { AGENT_LABEL: value } } });
        Api::<Node>::all(s.admin.clone())
            .patch(name, &PatchParams::default(), &Patch::Merge(&label))
            .await
            .unwrap();
    }
    s.without_label(&["s1", "s2"]).await;
    s.end(&[]).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn definitions_deleted_in_the_middle_leave_no_node_behind_and_may_come_back(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "y1", "undefined").await;
    let crds = [
        "crd",
        "runtimemigrations.transship.dev",
        "nodemigrations.transship.dev",
    ];
    s.server
        .kubectl(&[&["delete", "--timeout=60s"], &crds[..]].concat(), "");
    let node = s.node("y1").await;
    assert_ne!(node.spec.as_ref().unwrap().unschedulable, Some(true));
    assert!(!node.annotations().contains_key(CORDONED_ANNOTATION));
    s.without_label(&["y1"]).await;

    s.server.kubectl(&["apply", "-f", release.manifest()], "");
    s.server.kubectl(
        &[
            &["wait", "--for=condition=Established", "--timeout=30s"],
            &crds[..],
        ]
        .concat(),
        "",
    );
    s.fleet.script("y1", Script::Succeed);
    s.create("undefined", "undefined", json!({})).await;
    s.until_phase("undefined", MigrationPhase::Succeeded).await;
    s.end(&["undefined"]).await;
}

/// `helm` on the server, with its failure as an error.
fn helm(s: &Scenario, arguments: &[&str]) -> Result<String, String> {
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        serde_json::to_string(&s.server.kubeconfig(ADMIN)).unwrap(),
    )
    .unwrap();
    let output = Command::new(part("helm-3.22.0", "helm"))
        .args(arguments)
        .args(["--namespace", NAMESPACE, "--kubeconfig"])
        .arg(&kubeconfig)
        .env("HOME", directory.path())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_is_refused_in_the_middle_and_the_release_can_be_mended(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    in_the_middle(&s, "u1", "busy").await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        serde_json::to_string(&s.server.kubeconfig(CONTROLLER)).unwrap(),
    )
    .unwrap();
    let guard = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_transship"));
        command
            .args(["controller", "--check-idle"])
            .env("KUBECONFIG", &kubeconfig);
        command.output().unwrap()
    };
    let refused = guard();
    assert!(!refused.status.success());
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(says.contains("u1 (Draining)"), "{says}");

    // No kubelet runs the guard's Job here, so it cannot succeed: what Helm sees of a refusal.
    let chart = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/transship");
    helm(&s, &["install", "guarded", chart, "--set", "crds.install=false"]).unwrap();
    helm(&s, &["uninstall", "guarded", "--timeout", "2s"]).unwrap_err();
    let state = || helm(&s, &["status", "guarded", "--output", "json"]).unwrap();
    assert!(state().contains(r#""status":"uninstalling""#), "{}", state());
    helm(&s, &["upgrade", "guarded", chart, "--set", "crds.install=false"]).unwrap_err();
    helm(&s, &["rollback", "guarded", "1"]).unwrap();
    assert!(state().contains(r#""status":"deployed""#), "{}", state());
    helm(&s, &["upgrade", "guarded", chart, "--set", "crds.install=false"]).unwrap();

    delete(&s, "busy").await;
    settled(&s, "u1").await;
    assert!(guard().status.success());
    helm(&s, &["uninstall", "guarded", "--no-hooks"]).unwrap();
    s.end(&[]).await;
}

/// On a node that has just booted the guard's pod is there before the rules that lead it to the API server.
#[tokio::test(flavor = "multi_thread")]
async fn an_uninstall_waits_for_an_api_server_that_does_not_answer_yet() {
    let s = Scenario::start(Release::New, 0).await;
    let mut config = s.server.kubeconfig(CONTROLLER);
    let server = config.clusters[0]
        .cluster
        .as_mut()
        .unwrap()
        .server
        .as_mut()
        .unwrap();
    let real = server.trim_start_matches("https://").to_owned();
    // Bound and not listening: connections are refused until it listens.
    let later = tokio::net::TcpSocket::new_v4().unwrap();
    later.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    *server = format!("https://{}", later.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("kubeconfig");
    std::fs::write(&kubeconfig, serde_json::to_string(&config).unwrap()).unwrap();
    let mut guard = tokio::process::Command::new(env!("CARGO_BIN_EXE_transship"))
        .args(["controller", "--check-idle"])
        .env("KUBECONFIG", &kubeconfig)
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut says = BufReader::new(guard.stderr.take().unwrap()).lines();
    loop {
        let line = says.next_line().await.unwrap();
        let line = line.expect("the guard gave up");
        if line.contains("asked again") {
            break;
        }
    }
    let listener = later.listen(16).unwrap();
    tokio::spawn(async move {
        loop {
            let (mut from, _) = listener.accept().await.unwrap();
            let real = real.clone();
            tokio::spawn(async move {
                let mut to = tokio::net::TcpStream::connect(real).await.unwrap();
                tokio::io::copy_bidirectional(&mut from, &mut to).await.ok();
            });
        }
    });
    while says.next_line().await.unwrap().is_some() {}
    assert!(guard.wait().await.unwrap().success());
    s.end(&[]).await;
}
