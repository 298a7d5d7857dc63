//! The pods that must be Ready again before a switch is confirmed: recorded before it, compared after it. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Node, Pod};
use kube::ResourceExt as _;

use super::drain::{
    Survey,
    classify::{is_daemon_set, is_mirror},
};
use crate::{
    api::{
        reported,
        request::{Drain, DrainMode},
    },
    plan::baseline::{Baseline, PodKind, ReadyPod},
};

/// Most pods of a baseline. Kubelets run 110 pods unless they are told otherwise.
const MOST: usize = 1000;

/// What the API reports of a node and its pods now. `own` is the namespace and the name of the agent's own pod, which
/// is asked for separately.
pub fn record(node: &Node, pods: &[Pod], drain: &Drain, own: (&str, &str)) -> Baseline {
    Baseline {
        heartbeat: heartbeat(node),
        containers: pods.iter().flat_map(ids).collect(),
        pods: staying(pods, drain, own),
    }
}

/// The pods that are Ready now, stay on the node and must be Ready again, sorted by namespace and name.
pub fn staying(pods: &[Pod], drain: &Drain, (namespace, name): (&str, &str)) -> Vec<ReadyPod> {
    let candidates: Vec<&Pod> = match drain.mode {
        DrainMode::Auto | DrainMode::Evict => Survey::new(pods, drain, namespace).stay,
        DrainMode::InPlace => pods.iter().collect(),
        // They do not stop.
        DrainMode::Live => Vec::new(),
    };
    let own = |pod: &Pod| pod.name_any() == name && pod.namespace().as_deref() == Some(namespace);
    let mut ready: Vec<ReadyPod> = candidates
        .into_iter()
        .filter(|pod| !own(pod) && reported::is_pod_ready(pod) && pod.metadata.deletion_timestamp.is_none())
        // A pod that never restarts fails with the switch; a finding of the preflight names it.
        .filter(|pod| is_mirror(pod) || restart_policy(pod) != Some("Never"))
        .map(|pod| ReadyPod {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            kind: kind(pod),
        })
        .collect();
    ready.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    ready.truncate(MOST);
    ready
}

/// Whether a pod in the pod network is among the pods that must be Ready again.
pub fn in_pod_network(pods: &[Pod], drain: &Drain, own: (&str, &str)) -> bool {
    let staying = staying(pods, drain, own);
    let on_host = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    pods.iter().any(|pod| {
        let same = |kept: &&ReadyPod| {
            kept.name == pod.name_any() && pod.namespace().as_deref() == Some(&kept.namespace)
        };
        !on_host(pod) && staying.iter().any(|kept| same(&kept))
    })
}

/// The pods of `baseline` that are not back under the runtime with this scheme, each with the reason.
pub fn missing(baseline: &Baseline, pods: &[Pod], scheme: &str) -> Vec<String> {
    let absent = |kept: &ReadyPod| why_absent(kept, baseline, pods, scheme);
    baseline
        .pods
        .iter()
        .filter_map(|kept| Some(format!("{}/{}: {}", kept.namespace, kept.name, absent(kept)?)))
        .collect()
}

/// Whether all containers of a pod run under the runtime with this scheme and were started after the baseline.
pub fn runs_under(pod: &Pod, baseline: &Baseline, scheme: &str) -> bool {
    let containers = statuses(pod);
    !containers.is_empty()
        && containers.iter().all(|container| {
            let runs = container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some());
            runs && is_new(container, &baseline.containers, scheme)
        })
}

/// Whether the Node is Ready by a heartbeat that the baseline does not have.
pub fn node_is_ready(node: &Node, baseline: &Baseline) -> bool {
    let ready = reported::is_ready(node);
    let beat = heartbeat(node);
    ready && beat.is_some() && beat != baseline.heartbeat
}

fn kind(pod: &Pod) -> PodKind {
    let controller = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));
    let uid = pod.uid().unwrap_or_default();
    match controller {
        _ if is_mirror(pod) => PodKind::Static,
        Some(owner) if is_daemon_set(owner) => PodKind::DaemonSet {
            owner: owner.uid.clone(),
        },
        Some(_) => PodKind::Controlled { uid },
        None => PodKind::Bare { uid },
    }
}

/// Why a pod of the baseline is not back; `None` if it is, or if it counts no longer.
fn why_absent(kept: &ReadyPod, baseline: &Baseline, pods: &[Pod], scheme: &str) -> Option<String> {
    let named =
        |pod: &&Pod| pod.name_any() == kept.name && pod.namespace().as_deref() == Some(&kept.namespace);
    let back = |pod: &Pod| why_not_back(pod, &baseline.containers, scheme);
    match &kept.kind {
        PodKind::Static => match pods.iter().find(named) {
            Some(pod) => back(pod),
            None => Some("the kubelet does not report it".to_owned()),
        },
        PodKind::DaemonSet { owner } => {
            let owned = |pod: &&Pod| pod.owner_references().iter().any(|found| found.uid == *owner);
            let mut reasons: Vec<(bool, String)> = Vec::new();
            for pod in pods.iter().filter(owned) {
                match back(pod) {
                    None => return None,
                    // The reason of the pod that takes its place says more than that the old one is going.
                    Some(reason) => reasons.push((pod.metadata.deletion_timestamp.is_some(), reason)),
                }
            }
            reasons.sort();
            let first = reasons.into_iter().next().map(|(_, reason)| reason);
            Some(first.unwrap_or_else(|| "its DaemonSet has no pod on the node".to_owned()))
        }
        PodKind::Controlled { uid } | PodKind::Bare { uid } => {
            let pod = pods.iter().find(|pod| pod.uid().as_ref() == Some(uid))?;
            let replaced =
                matches!(kept.kind, PodKind::Controlled { .. }) && reported::pod_phase(pod) == Some("Failed");
            let over =
                pod.metadata.deletion_timestamp.is_some() || reported::pod_phase(pod) == Some("Succeeded");
            if replaced || over { None } else { back(pod) }
        }
    }
}

/// Why a pod is not Ready under the target; `None` if it is.
fn why_not_back(pod: &Pod, before: &BTreeSet<String>, scheme: &str) -> Option<String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some("it is terminating".to_owned());
    }
    if let Some("Failed") = reported::pod_phase(pod) {
        let reason = pod.status.as_ref().and_then(|status| status.reason.as_deref());
        return Some(format!(
            "it has failed ({})",
            reason.unwrap_or("no reason is given")
        ));
    }
    let waiting = |container: &ContainerStatus| match &container.state {
        Some(ContainerState {
            waiting: Some(waiting),
            ..
        }) => waiting.reason.clone(),
        _ => None,
    };
    let init = pod
        .status
        .as_ref()
        .and_then(|status| status.init_container_statuses.as_deref());
    let all = || init.unwrap_or_default().iter().chain(statuses(pod));
    // `PodInitializing` only says that another container is waited for.
    let reasons: Vec<String> = all().filter_map(waiting).collect();
    let telling = reasons.iter().find(|reason| *reason != "PodInitializing");
    if let Some(reason) = telling.or(reasons.first()) {
        return Some(reason.clone());
    }
    let containers = statuses(pod);
    if containers.is_empty() || !containers.iter().all(|status| is_new(status, before, scheme)) {
        return Some("the kubelet has not reported its new containers".to_owned());
    }
    (!reported::is_pod_ready(pod)).then(|| "it is not Ready".to_owned())
}

fn is_new(container: &ContainerStatus, before: &BTreeSet<String>, scheme: &str) -> bool {
    container
        .container_id
        .as_ref()
        .is_some_and(|id| id.starts_with(scheme) && !before.contains(id))
}

fn statuses(pod: &Pod) -> &[ContainerStatus] {
    pod.status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default()
}

fn ids(pod: &Pod) -> impl Iterator<Item = String> {
    statuses(pod)
        .iter()
        .filter_map(|status| status.container_id.clone())
}

/// What becomes of its containers when they end; `None` for the default of Kubernetes.
pub fn restart_policy(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref())
}

fn heartbeat(node: &Node) -> Option<String> {
    let beat = reported::ready_condition(node)?.last_heartbeat_time.as_ref()?;
    Some(beat.0.to_string())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const OWN: (&str, &str) = ("transship", "agent");

    fn pod(name: &str, owner: Option<&str>, status: Value) -> Pod {
        let owners: Vec<Value> = owner
            .into_iter()
            .map(|kind| json!({ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": format!("uid-of-{kind}"), "controller": true }))
            .collect();
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "lab", "uid": format!("uid-of-{name}"), "ownerReferences": owners },
            "spec": { "containers": [] }, "status": status,
        }))
        .unwrap()
    }

    fn runs(id: &str, ready: &str) -> Value {
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }], "containerStatuses": [
            { "name": "c", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "containerID": id,
              "state": { "running": {} } }] })
    }

    fn waits(reason: &str) -> Value {
        json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }], "containerStatuses": [
            { "name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
              "state": { "waiting": { "reason": reason } } }] })
    }

    fn mirror(mut pod: Pod) -> Pod {
        pod.annotations_mut()
            .insert("kubernetes.io/config.mirror".to_owned(), "h".to_owned());
        pod
    }

    fn going(mut pod: Pod) -> Pod {
        pod.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-11-21T12:00:00Z")).unwrap());
        pod
    }

    fn baseline(pods: &[Pod], mode: DrainMode) -> Baseline {
        let drain = Drain {
            mode,
            ..Drain::default()
        };
        record(&Node::default(), pods, &drain, OWN)
    }

    #[test]
    fn what_is_ready_and_stays_is_recorded() {
        let mut once = pod("once", None, runs("docker://5", "True"));
        once.spec.as_mut().unwrap().restart_policy = Some("Never".to_owned());
        let pods = [
            pod("web", Some("ReplicaSet"), runs("docker://2", "True")),
            pod("proxy", Some("DaemonSet"), runs("docker://1", "True")),
            pod("never-ready", Some("DaemonSet"), runs("docker://3", "False")),
            going(pod("going", Some("DaemonSet"), runs("docker://4", "True"))),
            mirror(pod("etcd", Some("Node"), runs("docker://6", "True"))),
            once,
        ];
        let names = |mode| -> Vec<String> {
            let recorded = baseline(&pods, mode).pods;
            recorded.into_iter().map(|kept| kept.name).collect()
        };
        assert_eq!(names(DrainMode::Evict), ["etcd", "proxy"]);
        assert_eq!(names(DrainMode::InPlace), ["etcd", "proxy", "web"]);
        assert_eq!(baseline(&pods, DrainMode::Evict).containers.len(), 6);
    }

    #[rstest]
    #[case::as_it_was(
        runs("docker://1", "True"),
        Some("the kubelet has not reported its new containers")
    )]
    #[case::new(runs("containerd://1", "True"), None)]
    #[case::new_and_not_ready(runs("containerd://1", "False"), Some("it is not Ready"))]
    #[case::cannot_start(waits("CreateContainerError"), Some("CreateContainerError"))]
    #[case::failed(json!({ "phase": "Failed", "reason": "Evicted" }), Some("it has failed (Evicted)"))]
    fn a_pod_is_back_or_named(#[case] status: Value, #[case] why: Option<&str>) {
        let before = baseline(
            &[pod("proxy", Some("DaemonSet"), runs("docker://1", "True"))],
            DrainMode::Evict,
        );
        let expected: Vec<String> = why.iter().map(|why| format!("lab/proxy: {why}")).collect();
        let after = [pod("proxy", Some("DaemonSet"), status)];
        assert_eq!(missing(&before, &after, "containerd://"), expected);
    }

    /// Between the shims of one engine only the ids tell containers apart.
    #[rstest]
    #[case("docker://1", false)]
    #[case("docker://2", true)]
    fn a_container_with_a_known_id_is_an_old_one(#[case] id: &str, #[case] back: bool) {
        let before = baseline(
            &[mirror(pod("etcd", None, runs("docker://1", "True")))],
            DrainMode::Evict,
        );
        let after = [mirror(pod("etcd", None, runs(id, "True")))];
        assert_eq!(missing(&before, &after, "docker://").is_empty(), back);
        assert_eq!(runs_under(&after[0], &before, "docker://"), back);
    }

    #[test]
    fn what_takes_the_place_of_a_pod_counts() {
        let daemon = [pod("proxy-1", Some("DaemonSet"), runs("docker://1", "True"))];
        let before = baseline(&daemon, DrainMode::Evict);
        let next = pod("proxy-2", Some("DaemonSet"), runs("containerd://1", "True"));
        let starting = pod("proxy-2", Some("DaemonSet"), waits("CreateContainerError"));
        let old = going(daemon[0].clone());
        assert!(missing(&before, &[old.clone(), next], "containerd://").is_empty());
        assert_eq!(
            missing(&before, &[old, starting], "containerd://"),
            ["lab/proxy-1: CreateContainerError"]
        );
        assert_eq!(
            missing(&before, &[], "containerd://"),
            ["lab/proxy-1: its DaemonSet has no pod on the node"]
        );

        let replica = pod("web", Some("ReplicaSet"), runs("docker://1", "True"));
        let before = baseline(std::slice::from_ref(&replica), DrainMode::InPlace);
        assert!(
            missing(&before, &[], "containerd://").is_empty(),
            "it was deleted"
        );
        assert!(missing(&before, &[going(replica.clone())], "containerd://").is_empty());
        assert_eq!(missing(&before, &[replica], "containerd://").len(), 1);
    }

    #[rstest]
    #[case::of_before("2026-11-28T01:00:00Z", "True", false)]
    #[case::of_a_clock_that_was_set_back("2026-11-28T00:00:00Z", "True", true)]
    #[case::not_ready("2026-11-28T01:00:01Z", "False", false)]
    fn a_heartbeat_is_another_one_whatever_the_clock(
        #[case] beat: &str,
        #[case] ready: &str,
        #[case] good: bool,
    ) {
        let node = |beat: &str, ready: &str| -> Node {
            serde_json::from_value(json!({ "status": { "conditions": [
                { "type": "Ready", "status": ready, "lastHeartbeatTime": beat }] } }))
            .unwrap()
        };
        let before = record(&node("2026-11-28T01:00:00Z", "True"), &[], &Drain::default(), OWN);
        assert_eq!(node_is_ready(&node(beat, ready), &before), good);
    }
}
