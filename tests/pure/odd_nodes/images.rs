//! Images of pods that have no containers yet, as right after a start of the kubelet.

use transship::plan::{cluster::ClusterFacts, facts::KubeletPod};

use super::*;

const PROXY: &str = "registry.k8s.io/kube-proxy:v1.23.17";
const CODE: &str = "PodImagesUnknown";

/// The names of the images that are carried.
fn carried(facts: &Facts, request: &Request) -> Vec<String> {
    let outcome = plan(facts, request);
    let plan = outcome
        .plan()
        .unwrap_or_else(|| panic!("{:#?}", outcome.findings));
    let steps = plan.steps.iter();
    let images = steps.filter_map(|step| match &step.does {
        Step::Images(images) => Some(images.names.clone()),
        _ => None,
    });
    images.flatten().collect()
}

/// A node that was switched back seconds ago: kube-proxy's image is in the store, and its pod has a sandbox alone.
fn started_seconds_ago() -> Facts {
    let mut facts = fixtures::named("debian12-kubeadm-1.23-captured");
    let pods: Vec<KubeletPod> = (engine(&mut facts).store.containers.iter())
        .filter_map(|container| container.pod.as_ref())
        .filter(|pod| pod.container != "POD")
        .map(|pod| KubeletPod {
            uid: pod.uid.clone(),
            name: Some(format!("{}/{}", pod.namespace, pod.name)),
            containers: vec![pod.container.clone()],
        })
        .collect();
    kubelet(&mut facts).pods = pods;
    let containers = &mut engine(&mut facts).store.containers;
    containers.retain(|container| !container.name.starts_with("k8s_kube-proxy_"));
    facts
}

#[test]
fn images_of_pods_without_containers_are_carried_too() {
    let mut facts = started_seconds_ago();
    let mut request = fixtures::to(Runtime::Containerd);
    request.preflight.allow = vec!["ForeignContainers".to_owned()];
    let found = of(&facts, &request, CODE);
    assert!(
        found[0].message.contains("1 pod without all containers")
            && found[0].message.contains("kube-system/kube-proxy-zgn7k;"),
        "{found:#?}"
    );
    assert!(carried(&facts, &request).contains(&PROXY.to_owned()));

    // Whose init container alone has run so far here, or that never ran here.
    for containers in [vec!["server".to_owned(), "main".to_owned()], Vec::new()] {
        let mut facts = fixtures::named("debian12-kubeadm-1.23-captured");
        let uid = if containers.is_empty() {
            "0-1"
        } else {
            "cb6cebbf-f411-4cf4-9b41-338dab05e346"
        };
        kubelet(&mut facts).pods = vec![KubeletPod {
            uid: uid.to_owned(),
            name: None,
            containers,
        }];
        let found = of(&facts, &request, CODE);
        assert!(found[0].message.contains(&format!("UID {uid}")), "{found:#?}");
    }

    // The API server knows the images of all pods.
    request.cluster = Some(ClusterFacts::default());
    assert_eq!(of(&facts, &request, CODE), []);
    assert!(!carried(&facts, &request).contains(&PROXY.to_owned()));
    request.cluster = None;

    // Every pod has its containers.
    kubelet(&mut facts)
        .pods
        .retain(|pod| !pod.name.as_ref().unwrap().contains("proxy"));
    assert_eq!(of(&facts, &request, CODE), []);
    assert!(!carried(&facts, &request).contains(&PROXY.to_owned()));
}
