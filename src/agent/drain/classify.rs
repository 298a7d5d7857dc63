//! What a drain does with one pod: the rules of `kubectl drain --ignore-daemonsets` (kubernetes/kubectl,
//! `pkg/drain/filters.go`), and for Transship's own pods. What cannot be known with the node's identity
//! (whether a DaemonSet still exists) is taken from the pod itself.

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::ResourceExt as _;

use crate::api::{POD_LABEL, reported, request::Drain};

/// The kubelet puts it on the API's picture of a static pod.
const MIRROR_ANNOTATION: &str = "kubernetes.io/config.mirror";

/// What a drain does with a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is evicted.
    Evict,
    /// It is not evicted.
    Leave(Left),
    /// It would be lost, or its data would: a person has to decide.
    Block(Vec<Obstacle>),
}

/// Why a pod is not evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// Its DaemonSet would put it back at once.
    DaemonSet,
    /// It stands for a static pod, which the API cannot end.
    Mirror,
    /// It belongs to Transship.
    Transship,
    /// It is ending already.
    Terminating,
}

/// What an eviction would lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// An emptyDir volume.
    #[error(
        "its emptyDir volumes would be deleted; accept that with drain.deleteEmptyDirData, or move it by hand"
    )]
    LocalData,
    /// No controller.
    #[error("no controller would start it again; accept that with drain.force, or delete it by hand")]
    Unmanaged,
}

/// Whether `pod` is the API's picture of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    pod.annotations().contains_key(MIRROR_ANNOTATION)
}

/// Whether `owner` is a DaemonSet of Kubernetes' own.
pub fn is_daemon_set(owner: &OwnerReference) -> bool {
    owner.kind == "DaemonSet" && owner.api_version.starts_with("apps/")
}

/// What a drain does with `pod`. `own_namespace` is the one that Transship is installed in: its label means
/// nothing on the pods of others.
pub fn classify(pod: &Pod, drain: &Drain, own_namespace: &str) -> Verdict {
    let finished = reported::has_pod_ended(pod);
    let controller = pod
        .owner_references()
        .iter()
        .find(|owner| owner.controller == Some(true));

    if is_mirror(pod) {
        return Verdict::Leave(Left::Mirror);
    }
    let (label, value) = POD_LABEL;
    if pod.namespace().as_deref() == Some(own_namespace)
        && pod.labels().get(label).is_some_and(|found| found == value)
    {
        return Verdict::Leave(Left::Transship);
    }
    if controller.is_some_and(is_daemon_set) && !finished {
        return Verdict::Leave(Left::DaemonSet);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Verdict::Leave(Left::Terminating);
    }
    if finished {
        return Verdict::Evict;
    }

    let local_data = pod
        .spec
        .iter()
        .flat_map(|spec| spec.volumes.iter().flatten())
        .any(|volume| volume.empty_dir.is_some());
    let obstacles: Vec<Obstacle> = [
        (local_data && !drain.delete_empty_dir_data).then_some(Obstacle::LocalData),
        (controller.is_none() && !drain.force).then_some(Obstacle::Unmanaged),
    ]
    .into_iter()
    .flatten()
    .collect();
    if obstacles.is_empty() {
        Verdict::Evict
    } else {
        Verdict::Block(obstacles)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    const OWN: &str = "transship-system";

    fn pod(patch: Value) -> Pod {
        let mut pod = json!({
            "metadata": { "name": "web-0", "namespace": "default" },
            "spec": { "containers": [] },
            "status": { "phase": "Running" },
        });
        merge(&mut pod, patch);
        serde_json::from_value(pod).unwrap()
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(into), Value::Object(from)) => {
                for (key, value) in from {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
            (into, from) => *into = from,
        }
    }

    fn owned(kind: &str, api: &str) -> Value {
        json!({ "metadata": { "ownerReferences": [
            { "apiVersion": api, "kind": kind, "name": "o", "uid": "u", "controller": true }] } })
    }

    fn and(mut a: Value, b: Value) -> Value {
        merge(&mut a, b);
        a
    }

    fn replica() -> Value {
        owned("ReplicaSet", "apps/v1")
    }

    fn empty_dir() -> Value {
        json!({ "spec": { "volumes": [{ "name": "v", "emptyDir": {} }] } })
    }

    fn finished() -> Value {
        json!({ "status": { "phase": "Succeeded" } })
    }

    fn mirror() -> Value {
        json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "h" } } })
    }

    fn terminating() -> Value {
        json!({ "metadata": { "deletionTimestamp": "2026-11-21T12:00:00Z" } })
    }

    fn labelled(namespace: &str) -> Value {
        json!({ "metadata": { "namespace": namespace, "labels": { POD_LABEL.0: POD_LABEL.1 } } })
    }

    #[rstest]
    #[case::managed(replica(), Verdict::Evict)]
    #[case::job(owned("Job", "batch/v1"), Verdict::Evict)]
    #[case::unmanaged(json!({}), Verdict::Block(vec![Obstacle::Unmanaged]))]
    #[case::owned_but_not_controlled(
        json!({ "metadata": { "ownerReferences": [
            { "apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "u" }] } }),
        Verdict::Block(vec![Obstacle::Unmanaged])
    )]
    #[case::local_data(and(replica(), empty_dir()), Verdict::Block(vec![Obstacle::LocalData]))]
    #[case::both(empty_dir(), Verdict::Block(vec![Obstacle::LocalData, Obstacle::Unmanaged]))]
    #[case::finished(and(finished(), empty_dir()), Verdict::Evict)]
    #[case::failed(json!({ "status": { "phase": "Failed" } }), Verdict::Evict)]
    #[case::daemon_set(owned("DaemonSet", "apps/v1"), Verdict::Leave(Left::DaemonSet))]
    #[case::daemon_set_with_data(
        and(owned("DaemonSet", "apps/v1"), empty_dir()),
        Verdict::Leave(Left::DaemonSet)
    )]
    #[case::finished_daemon_set(and(owned("DaemonSet", "apps/v1"), finished()), Verdict::Evict)]
    #[case::somebody_elses_daemon_set(owned("DaemonSet", "apps.kruise.io/v1alpha1"), Verdict::Evict)]
    #[case::mirror(mirror(), Verdict::Leave(Left::Mirror))]
    #[case::finished_mirror(and(mirror(), finished()), Verdict::Leave(Left::Mirror))]
    #[case::terminating(terminating(), Verdict::Leave(Left::Terminating))]
    #[case::terminating_with_data(and(terminating(), empty_dir()), Verdict::Leave(Left::Terminating))]
    #[case::terminating_daemon_set(
        and(terminating(), owned("DaemonSet", "apps/v1")),
        Verdict::Leave(Left::DaemonSet)
    )]
    #[case::transship(and(replica(), labelled(OWN)), Verdict::Leave(Left::Transship))]
    #[case::label_elsewhere(and(replica(), labelled("default")), Verdict::Evict)]
    fn a_pod_is_treated_as_by_kubectl(#[case] patch: Value, #[case] expected: Verdict) {
        assert_eq!(classify(&pod(patch), &Drain::default(), OWN), expected);
    }

    #[rstest]
    #[case(true, false, Verdict::Block(vec![Obstacle::Unmanaged]))]
    #[case(false, true, Verdict::Block(vec![Obstacle::LocalData]))]
    #[case(true, true, Verdict::Evict)]
    fn a_person_may_accept_what_is_lost(#[case] data: bool, #[case] force: bool, #[case] expected: Verdict) {
        let drain = Drain {
            delete_empty_dir_data: data,
            force,
            ..Drain::default()
        };
        assert_eq!(classify(&pod(empty_dir()), &drain, OWN), expected);
    }
}
