//! Images: of pods that have no containers yet, as right after a start of the kubelet; and what CRI-O refuses and where it pulls.

use transship::plan::{
    cluster::ClusterFacts,
    facts::{KubeletPod, MaybeFile},
};

use super::{
    crio::{to_crio, with_crio},
    *,
};

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

const REFUSES: &str = "ImagePolicyRefuses";

/// The node of the lab with CRI-O next to Docker, and this policy of signatures.
fn with_policy(text: &str) -> Facts {
    let mut facts = with_crio();
    let crio = facts.crio.as_mut().unwrap();
    crio.policy = Some(file("/etc/containers/policy.json", text));
    // Its packages name one.
    crio.effective = Some(String::new());
    facts
}

/// Puts Docker's store on another file system, from which layers cannot be linked.
fn not_linked(facts: &mut Facts) {
    let crio = "/var/lib/containers/storage";
    let disk = facts.disks.iter_mut().find(|disk| disk.path.as_str() == crio);
    disk.unwrap().device += 7;
}

/// CRI-O pulls what is copied, and asks its policy before.
#[test]
fn a_policy_that_refuses_what_comes_along_is_told() {
    let rejects = r#"{"default": [{"type": "reject"}], "transports": {"docker": {"registry.k8s.io": [{"type": "insecureAcceptAnything"}]}}}"#;
    // The policy of the system is asked at a pull alone.
    let mut facts = with_policy(rejects);
    assert_eq!(of(&facts, &to_crio(), REFUSES), []);
    not_linked(&mut facts);
    let found = of(&facts, &to_crio(), REFUSES);
    assert!(
        found.len() == 1 && found[0].message.contains("from 127.0.0.1"),
        "{found:#?}"
    );
    let takes = rejects.replace("\"registry.k8s.io\"", "\"*.0.0.1\"");
    facts.crio.as_mut().unwrap().policy = Some(file("/etc/containers/policy.json", &takes));
    assert_eq!(of(&facts, &to_crio(), REFUSES), []);

    // One that CRI-O's configuration names is asked before a container starts, too.
    let mut facts = with_policy(rejects);
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some("[crio.image]\nsignature_policy = \"/etc/containers/policy.json\"\n".to_owned());
    let found = of(&facts, &to_crio(), REFUSES);
    assert!(
        found.len() == 1
            && found[0].message.contains("refuses 1 image ")
            && found[0].message.contains("server:1"),
        "{found:#?}"
    );

    // And so is that of a namespace.
    let mut facts = with_crio();
    let of_namespace = |namespace: &str| file(&format!("/etc/crio/policies/{namespace}.json"), rejects);
    facts.crio.as_mut().unwrap().namespace_policies = vec![of_namespace("kube-system")];
    assert_eq!(of(&facts, &to_crio(), REFUSES), []);
    facts.crio.as_mut().unwrap().namespace_policies = vec![of_namespace("lab")];
    let found = of(&facts, &to_crio(), REFUSES);
    assert!(
        found.len() == 1 && found[0].message.contains("/etc/crio/policies/lab.json"),
        "{found:#?}"
    );

    // CRI-O that comes in a bundle reads the policy of the system.
    let mut facts = with_crio();
    not_linked(&mut facts);
    facts.crio = None;
    facts.files.push(MaybeFile {
        path: path("/etc/containers/policy.json"),
        file: Some(file("/etc/containers/policy.json", rejects)),
    });
    let bundle = fixtures::from_archive(Runtime::CriO);
    assert_eq!(of(&facts, &bundle, REFUSES).len(), 1);

    let found = of(&with_policy("{"), &to_crio(), REFUSES);
    assert!(found[0].message.contains("cannot be read"), "{found:#?}");
}

#[test]
fn the_directory_in_which_cri_o_pulls_needs_room() {
    let mut facts = with_crio();
    not_linked(&mut facts);
    let crio = facts.crio.as_mut().unwrap();
    crio.effective = Some("[crio.image]\nbig_files_temporary_dir = \"/scratch\"\n".to_owned());
    assert!(
        of(&facts, &to_crio(), "LayersNotLinked")[0]
            .message
            .contains(" and /scratch;")
    );
    assert_eq!(of(&facts, &to_crio(), "DiskSpace"), []);
    let mut disk = facts.disks[0].clone();
    (disk.path, disk.free, disk.device) = (path("/scratch"), 1 << 20, 77);
    facts.disks.push(disk);
    assert!(
        of(&facts, &to_crio(), "DiskSpace")[0]
            .message
            .contains("/scratch has 1 MiB free")
    );
}
