//! What the API server reports is found, accepted and judged with everything else.

use transship::plan::cluster::{BlockedPod, ClusterFacts, ConfigMap, EvictedPod, KubeadmConfigs};
use transship::plan::codes::{drain, kubeadm};
use transship::plan::finding::Code;

use super::*;

/// A cluster with everything that a finding about it can be about, under a drain by eviction.
fn troubled() -> Request {
    let named = |name: &str| vec![format!("shop/{name}")];
    let mut request = fixtures::request();
    request.drain.mode = DrainMode::Evict;
    request.cluster = Some(ClusterFacts {
        node: "w1".to_owned(),
        no_other_node: true,
        kubeadm: Some(KubeadmConfigs {
            kubelet: Ok(ConfigMap {
                name: "kubelet-config-1.23".to_owned(),
                data: vec![("kubelet".to_owned(), "cgroupDriver: cgroupfs\n".to_owned())],
            }),
            cluster: Err("kubeadm-config is forbidden".to_owned()),
        }),
        is_unrestricted: true,
        ..ClusterFacts::default()
    });
    let pods = with_pods(&mut request);
    pods.evicted = vec![EvictedPod {
        name: "shop/slow".to_owned(),
        grace_secs: 3600,
    }];
    pods.blocked = vec![BlockedPod {
        name: "shop/lonely".to_owned(),
        reason: "no controller would start it again".to_owned(),
    }];
    (pods.must_return, pods.never_restarted, pods.with_pre_stop) =
        (named("net"), named("once"), named("hooked"));
    request
}

fn weighed(outcome: &Outcome, codes: &[Code]) -> Vec<(Severity, String)> {
    outcome
        .findings
        .iter()
        .filter(|finding| codes.iter().any(|code| code.name == finding.code))
        .map(|finding| (finding.severity, finding.code.clone()))
        .collect()
}

fn expected(codes: &[(Severity, &str)]) -> Vec<(Severity, String)> {
    codes
        .iter()
        .map(|(severity, code)| (*severity, (*code).to_owned()))
        .collect()
}

#[test]
fn the_cluster_is_found_where_it_was_asked() {
    use Severity::{Block, Info, Warn};
    let facts = fixtures::named(LAB);
    let codes = [drain::CODES, kubeadm::CODES].concat();
    let mut request = troubled();
    assert_eq!(
        weighed(&plan(&facts, &request), &codes),
        expected(&[
            (Block, "PodsBlockDrain"),
            (Warn, "KubeadmWouldUndo"),
            (Warn, "NodeRestrictionAbsent"),
            (Warn, "PodsOutlastDrain"),
            (Info, "KubeadmConfigUnread"),
            (Info, "PodsToEvict"),
            (Info, "PodsMustReturn"),
        ])
    );
    request.drain.mode = DrainMode::InPlace;
    assert_eq!(
        weighed(&plan(&facts, &request), drain::CODES),
        expected(&[
            (Warn, "NoOtherNode"),
            (Warn, "PodsEndInPlace"),
            (Warn, "PreStopSkipped"),
            (Info, "PodsMustReturn"),
        ])
    );
    // What cannot be planned is told with what the cluster means; where nothing is to be done, nothing matters.
    let mut broken = facts.clone();
    broken.containerd = None;
    assert!(!weighed(&plan(&broken, &request), drain::CODES).is_empty());
    let there = fixtures::named("debian12-kubeadm-1.30-containerd");
    let outcome = plan(&there, &request);
    assert_eq!(outcome.verdict, Verdict::AlreadyThere);
    assert_eq!(weighed(&outcome, &codes), []);
    // kubeadm has no part in a node that it did not set up.
    let mut by_hand = facts.clone();
    by_hand.layout = Layout::PlainUnit;
    let found = weighed(&plan(&by_hand, &request), kubeadm::CODES);
    assert_eq!(found, expected(&[(Warn, "NodeRestrictionAbsent")]));
    // Nobody asked the API server.
    request.cluster = None;
    assert_eq!(weighed(&plan(&facts, &request), &codes), []);
}

/// Every finding that blocks and may be accepted is accepted, whatever it is about, and the plan holds them all.
#[test]
fn what_is_accepted_about_the_cluster_warns_in_the_plan_too() {
    let facts = fixtures::named(LAB);
    let mut request = troubled();
    let outcome = plan(&facts, &request);
    let Verdict::Held(held) = &outcome.verdict else {
        panic!("{:?}", outcome.verdict)
    };
    assert_eq!(held.findings, outcome.findings, "it can be read");
    assert_eq!(outcome.plan(), None, "and does not run");

    let acceptable = [drain::CODES, kubeadm::CODES].concat();
    let acceptable = acceptable.iter().filter(|code| code.acceptable);
    let allow: Vec<String> = acceptable.map(|code| code.name.to_owned()).collect();
    assert!(!allow.is_empty());
    request.preflight.allow.clone_from(&allow);
    let outcome = plan(&facts, &request);
    for code in allow {
        let found = outcome
            .findings
            .iter()
            .find(|finding| finding.code == code)
            .unwrap();
        assert_eq!(found.severity, Severity::Warn);
        let before = &held
            .findings
            .iter()
            .find(|other| other.code == code)
            .unwrap()
            .remedy;
        assert_eq!(found.remedy, format!("Accepted by preflight.allow. {before}"));
    }
    let ready = outcome.plan().unwrap_or_else(|| panic!("{:?}", outcome.findings));
    assert_eq!(ready.findings, outcome.findings);
    assert_eq!(
        ready.digest(),
        held.digest(),
        "what is found does not change what is done"
    );
}

/// Pods that stay do not keep a plan from a person; what makes the plan itself doubtful does.
#[test]
fn a_plan_that_something_else_blocks_is_not_shown() {
    let mut facts = fixtures::named(LAB);
    facts.disks.iter_mut().for_each(|disk| disk.free = 0);
    let mut request = troubled();
    request.approved_plans = vec!["sha256:0".to_owned()];
    assert_eq!(plan(&facts, &request).verdict, Verdict::Blocked);
    let blocking = blocking(&facts, &request);
    assert!(blocking.contains(&"DiskSpace".to_owned()), "{blocking:?}");
    assert!(!blocking.contains(&"PlanNotApproved".to_owned()), "{blocking:?}");
}

#[rstest]
#[case::none_is_asked_for(&[], true)]
#[case::approved(&["sha256:0", "this"], true)]
#[case::not_approved(&["sha256:0"], false)]
fn only_approved_plans_run(#[case] approved: &[&str], #[case] runs: bool) {
    let facts = fixtures::named(LAB);
    let mut request = fixtures::request();
    request.migration_name = Some("to-containerd".to_owned());
    let digest = plan(&facts, &request).plan().unwrap().digest();
    request.cluster = Some(ClusterFacts {
        node: "w1".to_owned(),
        ..ClusterFacts::default()
    });
    request.approved_plans = approved
        .iter()
        .map(|text| text.replace("this", digest.as_str()))
        .collect();
    request.preflight.allow = vec!["PlanNotApproved".to_owned()];
    let outcome = plan(&facts, &request);
    match &outcome.verdict {
        Verdict::Ready(_) => assert!(runs),
        Verdict::Held(held) => {
            assert!(!runs);
            assert_eq!(held.digest(), digest, "it is shown all the same");
            let first = &outcome.findings[0];
            assert_eq!(
                (first.severity, first.code.as_str()),
                (Severity::Block, "PlanNotApproved")
            );
            assert!(first.message.contains(digest.as_str()), "{first:?}");
            assert!(first.remedy.contains("nodemigration w1`"), "{first:?}");
            assert!(
                first.remedy.contains("RuntimeMigration to-containerd"),
                "{first:?}"
            );
        }
        other => panic!("{other:?}: {:?}", outcome.findings),
    }
}
