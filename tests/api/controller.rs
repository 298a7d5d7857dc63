//! The controller against a real API server, with the permissions that the chart gives it: nodes and agents are played
//! by `fleet.rs`.

use std::time::{Duration, Instant};

use crate::fleet::Script;
use crate::scenario::{Scenario, message};
use crate::server::Release;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use rstest::rstest;
use serde_json::json;
use transship::api::RETRY_ANNOTATION;
use transship::api::migration::MigrationPhase;
use transship::api::node_migration::NodePhase;
use transship::api::request::DrainMode;

#[rstest]
#[tokio::test]
async fn plans_first_and_then_applies_one_by_one(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    for name in ["p1", "p2", "p3"] {
        s.fleet.node(name, "p").await;
    }
    s.fleet
        .node_with(
            "p0",
            json!({ "group": "p", "node-role.kubernetes.io/control-plane": "" }),
        )
        .await;
    s.create(
        "plan",
        "p",
        json!({ "mode": "Plan", "strategy": { "controlPlane": "Skip" } }),
    )
    .await;
    let planned = s.until_phase("plan", MigrationPhase::Succeeded).await;
    let status = planned.status.unwrap();
    assert_eq!(
        (
            status.nodes.planned,
            status.nodes.skipped,
            status.progress.as_str()
        ),
        (3, 1, "3/3")
    );
    s.without_label(&["p1", "p2", "p3"]).await;
    assert_eq!(s.share("p1").await.unwrap().phase(), NodePhase::Planned);
    assert!(s.share("p0").await.is_none(), "the control plane is skipped");

    s.edit("plan", json!({ "mode": "Apply" })).await;
    let done = s.until_phase("plan", MigrationPhase::Succeeded).await;
    assert_eq!(message(&done), "all 3 nodes are on the target");
    assert_eq!(s.fleet.most(), 1, "one at a time");
    s.without_label(&["p1", "p2", "p3"]).await;
    let reasons = s.reasons("plan").await;
    for reason in [
        "NodePlanning",
        "NodePlanned",
        "NodeStarted",
        "NodeSucceeded",
        "Complete",
    ] {
        assert!(
            reasons.iter().any(|r| r == reason),
            "{reason} is missing in {reasons:?}"
        );
    }
    assert!(
        s.reasons("p1").await.iter().any(|r| r == "NodeSucceeded"),
        "the Node has its event too"
    );
    s.end(&["plan"]).await;
}

#[rstest]
#[tokio::test]
async fn control_planes_go_last_alone_and_through_their_gates(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    for name in ["k1", "k2"] {
        s.fleet.node(name, "k").await;
    }
    for name in ["k8", "k9"] {
        let labels = json!({ "group": "k", "node-role.kubernetes.io/control-plane": "" });
        s.fleet.node_with(name, labels).await;
        s.fleet.etcd(name, true).await;
    }
    s.fleet.etcd("k9", false).await;
    s.create("ordered", "k", json!({ "strategy": { "maxUnavailable": 4 } }))
        .await;
    let held = s
        .until("ordered", "a gate", |m| {
            message(m).contains("waits for etcd-k9 to be Ready")
        })
        .await;
    let status = held.status.unwrap();
    assert_eq!(
        (status.nodes.succeeded, status.nodes.pending),
        (2, 2),
        "the workers go first"
    );
    assert_eq!(status.phase, MigrationPhase::Running);
    assert!(s.share("k8").await.is_none());

    s.fleet.script("k8", Script::Hang);
    s.fleet.etcd("k9", true).await;
    s.until("ordered", "draining", |m| message(m).contains("k8: Draining"))
        .await;
    assert!(s.share("k9").await.is_none(), "one at a time");

    // Its etcd is reported under the old runtime until its kubelet says otherwise.
    s.fleet.script("k8", Script::Succeed);
    s.until("ordered", "the gate behind it", |m| {
        message(m).contains("waits for etcd-k8 to be reported under containerd")
    })
    .await;
    assert!(s.share("k9").await.is_none());
    s.fleet.etcd("k8", true).await;
    s.until_phase("ordered", MigrationPhase::Succeeded).await;
    let reasons = s.reasons("ordered").await;
    assert!(
        reasons.iter().any(|reason| reason == "ControlPlaneNotReady"),
        "{reasons:?}"
    );
    s.end(&["ordered"]).await;
}

#[rstest]
#[tokio::test]
async fn pods_stay_where_there_is_no_other_node(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    s.fleet.node("n1", "n").await;
    s.create("alone", "n", json!({})).await;
    s.until_phase("alone", MigrationPhase::Succeeded).await;
    let spec = s.share("n1").await.unwrap().spec;
    assert_eq!((spec.drain.mode, spec.no_other_node), (DrainMode::InPlace, true));
    s.until_told("alone", "NoOtherNode").await;

    s.fleet.node("n2", "another").await;
    s.fleet.node("n3", "n").await;
    s.edit(
        "alone",
        json!({ "paused": false, "strategy": { "maxUnavailable": 2 } }),
    )
    .await;
    s.until("alone", "both", |m| message(m) == "all 2 nodes are on the target")
        .await;
    let spec = s.share("n3").await.unwrap().spec;
    assert_eq!((spec.drain.mode, spec.no_other_node), (DrainMode::Evict, false));
    s.end(&["alone"]).await;
}

/// The pods of a node whose containerd is upgraded stay where they are, so no other node is looked for.
#[rstest]
#[tokio::test]
async fn an_upgrade_needs_no_other_node(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    s.fleet.node("u1", "u").await;
    s.fleet.node("u2", "another").await;
    s.fleet.status("u1", "containerd://1.5.9", true).await;
    s.fleet.status("u2", "docker://20.10.24", false).await;
    let target = json!({ "runtime": "containerd", "version": ">=1.6" });
    s.create("upgrade", "u", json!({ "target": target })).await;
    s.until_phase("upgrade", MigrationPhase::Succeeded).await;
    let spec = s.share("u1").await.unwrap().spec;
    assert_eq!((spec.drain.mode, spec.no_other_node), (DrainMode::Live, false));
    assert!(spec.proceed, "the controller is asked before the switch");
    s.end(&["upgrade"]).await;
}

/// Another node is away for a moment: its pods would be killed in place, past every PodDisruptionBudget.
#[rstest]
#[tokio::test]
async fn a_drain_waits_for_a_node_that_can_take_the_pods(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    s.fleet.node("e1", "e").await;
    s.fleet.node("e2", "another").await;
    s.fleet.status("e2", "docker://20.10.24", false).await;
    s.create("evict", "e", json!({})).await;
    let expected = "waits until another node can take the pods: e2 is not Ready";
    s.until("evict", "a reason", |m| message(m).contains(expected))
        .await;
    assert!(s.share("e1").await.is_none());
    s.fleet.status("e2", "docker://20.10.24", true).await;
    s.until_phase("evict", MigrationPhase::Succeeded).await;
    let spec = s.share("e1").await.unwrap().spec;
    assert_eq!((spec.drain.mode, spec.no_other_node), (DrainMode::Evict, false));
    assert!(spec.proceed, "the switch was let begin");
    s.end(&["evict"]).await;
}

/// The Node's runtime has the right name, and not the version that is asked for.
#[rstest]
#[tokio::test]
async fn a_node_with_another_version_is_not_on_the_target(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    for name in ["x1", "x2"] {
        s.fleet.node(name, "x").await;
        s.fleet.status(name, "containerd://1.6.20", true).await;
    }
    s.fleet.script("x1", Script::Block);
    s.fleet.script("x2", Script::Lie);
    s.create(
        "version",
        "x",
        json!({ "target": { "runtime": "containerd", "version": ">=2" }, "strategy": { "maxUnavailable": 1 } }),
    )
    .await;
    let doubted = s
        .until("version", "doubt", |m| {
            message(m).contains("the Node shows containerd://1.6.20")
        })
        .await;
    let nodes = doubted.status.unwrap().nodes;
    assert_eq!((nodes.succeeded, nodes.blocked, nodes.active), (0, 1, 1));
    s.fleet.status("x2", "containerd://2.0.5", true).await;
    s.until_phase("version", MigrationPhase::Degraded).await;
    s.end(&["version"]).await;
}

#[rstest]
#[tokio::test]
async fn the_brake_stops_and_forgets_nothing(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    for name in ["b1", "b2", "b3"] {
        s.fleet.node(name, "b").await;
    }
    s.fleet.script("b2", Script::RollBack);
    s.create("brake", "b", json!({})).await;
    let paused = s.until_phase("brake", MigrationPhase::Paused).await;
    assert!(message(&paused).contains("b2 RolledBack"), "{}", message(&paused));
    let nodes = paused.status.unwrap().nodes;
    assert_eq!((nodes.succeeded, nodes.rolled_back, nodes.pending), (1, 1, 1));
    assert!(s.share("b3").await.is_none(), "nothing more is started");
    let before = s.share("b1").await.unwrap().metadata.generation;

    // A person asks for another attempt, on that node alone; it fails as the first one did.
    s.annotate_share("b2", RETRY_ANNOTATION).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    let retried = loop {
        let share = s.share("b2").await.unwrap();
        if share.spec.attempt == 1 && share.phase() == NodePhase::RolledBack {
            break share;
        }
        assert!(Instant::now() < deadline, "b2 is not tried again: {share:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(retried.status.as_ref().unwrap().attempt, 1);
    assert!(!retried.annotations().contains_key(RETRY_ANNOTATION), "once");
    let managers = retried.managed_fields().iter();
    assert!(
        managers
            .filter_map(|entry| entry.manager.as_deref())
            .any(|manager| manager == "transship-controller")
    );
    s.until_phase("brake", MigrationPhase::Paused).await;
    assert!(s.share("b3").await.is_none(), "still nothing more is started");

    // More failures are allowed; the one before is neither forgotten nor tried again.
    s.fleet.script("b2", Script::Succeed);
    s.edit("brake", json!({ "strategy": { "maxFailures": 2 } })).await;
    let degraded = s.until_phase("brake", MigrationPhase::Degraded).await;
    assert!(
        message(&degraded).contains("b2 RolledBack"),
        "{}",
        message(&degraded)
    );
    let nodes = degraded.status.unwrap().nodes;
    assert_eq!((nodes.succeeded, nodes.rolled_back), (2, 1));

    s.annotate_share("b2", RETRY_ANNOTATION).await;
    s.until_phase("brake", MigrationPhase::Succeeded).await;
    assert_eq!(
        s.share("b1").await.unwrap().metadata.generation,
        before,
        "what succeeded is not tried again"
    );
    s.end(&["brake"]).await;
}

#[rstest]
#[tokio::test]
async fn a_pause_in_the_middle_lets_the_node_end_and_starts_no_other(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    for name in ["m1", "m2", "m3"] {
        s.fleet.node(name, "m").await;
    }
    s.fleet.script("m1", Script::Hang);
    s.create("middle", "m", json!({})).await;
    s.until("middle", "draining", |m| message(m).contains("Draining"))
        .await;
    s.edit(
        "middle",
        json!({ "paused": true, "strategy": { "maxUnavailable": 2 } }),
    )
    .await;
    s.until("middle", "both", |m| {
        let says = message(m);
        says.contains("spec.paused is true") && says.contains("waiting for m1: Draining")
    })
    .await;
    s.fleet.script("m1", Script::Succeed);
    let ended = s
        .until("middle", "no active node", |m| {
            let status = m.status.clone().unwrap_or_default();
            status.active_nodes.is_empty() && status.nodes.succeeded == 1
        })
        .await;
    assert_eq!(ended.status.unwrap().phase, MigrationPhase::Paused);
    assert!(s.share("m2").await.is_none() && s.share("m3").await.is_none());
    s.until_told("middle", "Paused").await;

    s.edit("middle", json!({ "paused": false })).await;
    s.until_phase("middle", MigrationPhase::Succeeded).await;
    assert_eq!(s.fleet.most(), 2, "the new limit holds");
    s.end(&["middle"]).await;
}

#[rstest]
#[tokio::test]
async fn why_nothing_happens_is_always_said(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    s.fleet.node("q1", "q").await;
    s.fleet.node("q2", "q").await;
    if release == Release::Old {
        // The schema of this server cannot refuse this; the controller does.
        s.create("invalid", "q", json!({ "nodeSelector": {} })).await;
        let invalid = s
            .until("invalid", "a reason", |m| {
                message(m).contains("spec.nodeSelector is empty")
            })
            .await;
        let conditions = invalid.status.unwrap().conditions;
        let has = |kind: &str, status: &str, reason: &str| {
            let fits = |c: &&Condition| (&*c.type_, &*c.status, &*c.reason) == (kind, status, reason);
            conditions.iter().any(|c| fits(&c))
        };
        assert!(has("Progressing", "False", "InvalidSpec") && has("Degraded", "True", "InvalidSpec"));
    }

    s.create("nobody", "nobody", json!({})).await;
    s.until("nobody", "a reason", |m| message(m).contains("chooses no node"))
        .await;

    s.create("paused", "q", json!({ "paused": true })).await;
    s.until("paused", "a reason", |m| {
        message(m).contains("spec.paused is true")
    })
    .await;
    assert!(s.share("q1").await.is_none());

    s.fleet.status("q2", "docker://20.10.24", false).await;
    s.edit("paused", json!({ "paused": false })).await;
    s.until("paused", "a reason", |m| {
        message(m).contains("unavailable already are q2")
    })
    .await;
    s.fleet.script("q1", Script::Lie);
    s.fleet.status("q2", "docker://20.10.24", true).await;
    s.until("paused", "doubt", |m| {
        message(m).contains("the Node shows docker://20.10.24")
    })
    .await;
    s.fleet.status("q1", "containerd://1.6.20", true).await;
    s.until_phase("paused", MigrationPhase::Succeeded).await;

    let changed = json!({ "source": { "keep": true } });
    match release {
        Release::Old => {
            s.edit("paused", changed).await;
            s.until("paused", "a reason", |m| {
                message(m).contains("spec.source is another than before")
            })
            .await;
        }
        Release::New => {
            let refused = s.try_edit("paused", changed).await.unwrap_err().to_string();
            assert!(
                refused.contains("spec.source: it cannot change once a node was started"),
                "{refused}"
            );
        }
    }
    s.end(&["invalid", "nobody", "paused"]).await;
}

#[rstest]
#[tokio::test]
async fn two_controllers_at_once_keep_the_budget(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 2).await;
    for number in 0..8 {
        s.fleet.node(&format!("t{number}"), "t").await;
    }
    s.create("two", "t", json!({ "strategy": { "maxUnavailable": "25%" } }))
        .await;
    s.until_phase("two", MigrationPhase::Succeeded).await;
    assert_eq!(s.fleet.most(), 2, "a quarter of eight");
    s.end(&["two"]).await;
}

#[rstest]
#[tokio::test]
async fn a_second_migration_leaves_the_nodes_of_an_active_one(
    #[values(Release::Old, Release::New)] release: Release,
) {
    let s = Scenario::start(release, 1).await;
    s.fleet.node("o1", "o").await;
    s.fleet.script("o1", Script::Hang);
    s.create("first", "o", json!({})).await;
    s.until("first", "draining", |m| message(m).contains("Draining"))
        .await;
    s.create("second", "o", json!({})).await;
    s.until("second", "a reason", |m| {
        message(m).contains("waits for o1, which migration first has")
    })
    .await;
    for name in ["first", "second"] {
        s.until_told(name, "Overlapping").await;
    }
    let owner = s.share("o1").await.unwrap().spec.migration.name;
    assert_eq!(owner, "first");
    // The first ends by its deletion; then the node is free.
    s.migrations
        .delete("first", &DeleteParams::default())
        .await
        .unwrap();
    s.gone("first", Duration::from_secs(2)).await;
    let deadline = Instant::now() + Duration::from_secs(30);
    while s
        .share("o1")
        .await
        .is_some_and(|share| share.spec.migration.name == "first")
    {
        assert!(Instant::now() < deadline, "the first holds the node");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    s.fleet.script("o1", Script::Succeed);
    s.until_phase("second", MigrationPhase::Succeeded).await;
    assert_eq!(s.share("o1").await.unwrap().spec.migration.name, "second");
    s.end(&["second"]).await;
}

/// What one migration did, the other must not count as its own; nor may two drain two nodes at once.
#[rstest]
#[tokio::test]
async fn opposite_migrations_do_not_fight(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    for name in ["f1", "f2"] {
        s.fleet.node(name, "f").await;
    }
    s.fleet.script("f1", Script::Hang);
    s.create("older", "f", json!({})).await;
    s.until("older", "draining", |m| message(m).contains("Draining"))
        .await;
    // Creation times have whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    s.create("younger", "f", json!({ "target": { "runtime": "cri-dockerd" } }))
        .await;
    let refused = s
        .until("younger", "a reason", |m| {
            message(m).contains("migration older, which is older and has not ended")
        })
        .await;
    assert_eq!(refused.status.unwrap().nodes.pending, 2);
    s.fleet.script("f1", Script::Succeed);
    s.until_phase("older", MigrationPhase::Succeeded).await;
    assert_eq!(s.fleet.most(), 1, "one at a time, whoever asks");
    s.migrations
        .delete("younger", &DeleteParams::default())
        .await
        .unwrap();
    s.gone("younger", Duration::from_secs(30)).await;

    // Somebody rolls a node back by hand.
    s.fleet.status("f2", "docker://20.10.24", true).await;
    let degraded = s.until_phase("older", MigrationPhase::Degraded).await;
    assert!(
        message(&degraded).contains("f2 was migrated and shows docker://20.10.24 now"),
        "{}",
        message(&degraded)
    );
    s.until_told("older", "NodesReverted").await;
    s.fleet.status("f2", "containerd://1.6.20", true).await;
    s.until_phase("older", MigrationPhase::Succeeded).await;
    s.end(&["older"]).await;
}

/// Its kubelet is held, so no agent can report.
#[rstest]
#[tokio::test]
async fn a_node_that_is_gone_is_lost_and_brakes(#[values(Release::Old, Release::New)] release: Release) {
    let s = Scenario::start(release, 1).await;
    for name in ["l1", "l2", "l3"] {
        s.fleet.node(name, "l").await;
    }
    s.fleet.script("l1", Script::Hang);
    s.create("lost", "l", json!({})).await;
    s.until("lost", "draining", |m| message(m).contains("Draining"))
        .await;
    s.fleet.not_ready_since("l1", Duration::from_secs(60)).await;
    let silent = s
        .until("lost", "silence", |m| {
            message(m).contains("the Node is not Ready since") && message(m).contains("counts as lost from")
        })
        .await;
    assert_eq!(silent.status.unwrap().nodes.lost, 0);
    // The slot is as old as the condition.
    s.age_slot("lost", Duration::from_secs(2 * 3600)).await;
    s.fleet.not_ready_since("l1", Duration::from_secs(3600)).await;
    s.edit("lost", json!({ "strategy": { "maxUnavailable": 3 } }))
        .await;
    let braked = s.until_phase("lost", MigrationPhase::Paused).await;
    assert!(message(&braked).contains("(l1 Lost)"), "{}", message(&braked));
    let status = braked.status.unwrap();
    assert_eq!((status.nodes.lost, status.nodes.pending), (1, 2));
    let degraded = status.conditions.iter().find(|c| c.type_ == "Degraded").unwrap();
    assert_eq!((&*degraded.status, &*degraded.reason), ("True", "NodesLost"));
    s.until_told("lost", "NodeLost").await;

    s.fleet.status("l1", "docker://20.10.24", true).await;
    s.until_told("lost", "NodeFound").await;
    s.fleet.script("l1", Script::Succeed);
    s.until_phase("lost", MigrationPhase::Succeeded).await;
    s.end(&["lost"]).await;
}
