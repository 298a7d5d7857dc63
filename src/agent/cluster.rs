//! What the API server reports that the node cannot know, read with the node's own identity while planning.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::{
    baseline,
    drain::{Survey, grace_secs},
    identity::{IdentityError, NodeIdentity},
};
use crate::{
    api::{reported, request::Drain},
    plan::cluster::{BlockedPod, ConfigMap, EvictedPod, KubeadmConfigs, PodFacts, Read},
    planner::findings::kubeadm,
};

/// kubeadm's ConfigMaps for a node.
///
/// # Errors
/// The API server does not answer. What it refuses is part of the answer.
pub(super) async fn kubeadm_configs(
    identity: &mut NodeIdentity,
    node: &kubeadm::Node,
) -> Result<KubeadmConfigs, IdentityError> {
    Ok(KubeadmConfigs {
        kubelet: config_map(identity, &node.kubelet_configs()).await?,
        cluster: config_map(identity, &[kubeadm::KUBEADM_CONFIG.to_owned()]).await?,
    })
}

/// The first of these ConfigMaps that can be read.
async fn config_map(identity: &mut NodeIdentity, names: &[String]) -> Result<Read, IdentityError> {
    let mut refusals = Vec::new();
    for name in names {
        match identity.config_map(name).await {
            Ok(map) => {
                let data = map.data.unwrap_or_default().into_iter().collect();
                let name = name.clone();
                return Ok(Ok(ConfigMap { name, data }));
            }
            Err(error) if error.is_refusal() => refusals.push(error.to_string()),
            Err(error) => return Err(error),
        }
    }
    Ok(Err(refusals.join("; ")))
}

/// The pods of the node as the planner looks at them. `own` is the namespace and the name of the agent's own pod.
pub(super) fn pod_facts(pods: &[Pod], drain: &Drain, own: (&str, &str)) -> PodFacts {
    let survey = Survey::new(pods, drain, own.0);
    let evicted = survey.evict.iter().map(|pod| EvictedPod {
        name: name(pod),
        grace_secs: grace_secs(pod, drain),
    });
    let blocked = survey.blocked.iter().map(|pod| BlockedPod {
        name: format!("{}/{}", pod.namespace, pod.name),
        reason: pod.reason.clone(),
    });
    let must_return = baseline::staying(pods, drain, own);
    let named = |which: fn(&Pod) -> bool| -> Vec<String> {
        let those = pods
            .iter()
            .filter(|pod| !reported::has_pod_ended(pod) && which(pod));
        those.map(name).collect()
    };
    PodFacts {
        evicted: evicted.collect(),
        blocked: blocked.collect(),
        must_return: must_return
            .iter()
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect(),
        never_restarted: named(never_restarts),
        with_pre_stop: named(has_pre_stop),
        images: survey.images_to_come_back(),
        in_pod_network: baseline::in_pod_network(pods, drain, own),
    }
}

/// `namespace/name`.
pub(super) fn name(pod: &Pod) -> String {
    format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any())
}

fn never_restarts(pod: &Pod) -> bool {
    baseline::restart_policy(pod) == Some("Never")
}

/// Whether one of its containers has a preStop hook; an init container has one where it runs beside the others.
fn has_pre_stop(pod: &Pod) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(sidecars)
    });
    containers
        .filter_map(|container| container.lifecycle.as_ref())
        .any(|lifecycle| lifecycle.pre_stop.is_some())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value, json};

    use super::*;

    /// What a pod of a ReplicaSet with this in its spec is found as: never restarted, and with a preStop hook.
    #[rstest]
    #[case::plain(json!({}), "Running", (false, false))]
    #[case::never(json!({ "restartPolicy": "Never" }), "Running", (true, false))]
    #[case::finished(json!({ "restartPolicy": "Never" }), "Succeeded", (false, false))]
    #[case::pre_stop(
        json!({ "containers": [{ "name": "c", "lifecycle": { "preStop": { "sleep": { "seconds": 5 } } } }] }),
        "Running", (false, true)
    )]
    #[case::of_a_sidecar(
        json!({ "initContainers": [{ "name": "s", "lifecycle": { "preStop": { "exec": { "command": ["/stop"] } } } }] }),
        "Running", (false, true)
    )]
    #[case::post_start(
        json!({ "containers": [{ "name": "c", "lifecycle": { "postStart": { "exec": { "command": ["/go"] } } } }] }),
        "Running", (false, false)
    )]
    fn pods_are_told_apart(#[case] more: Value, #[case] phase: &str, #[case] expected: (bool, bool)) {
        let mut spec = json!({ "containers": [] });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let pod = json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "p1", "ownerReferences": [
                { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true }] },
            "spec": spec, "status": { "phase": phase },
        });
        let pods = [serde_json::from_value(pod).unwrap()];
        let facts = pod_facts(&pods, &Drain::default(), ("transship", "agent"));
        let evicted = facts
            .evicted
            .iter()
            .map(|pod| (pod.name.as_str(), pod.grace_secs));
        assert_eq!(evicted.collect::<Vec<_>>(), [("shop/web", 30)]);
        let named = |names: &[String]| names == ["shop/web"];
        assert_eq!(
            (named(&facts.never_restarted), named(&facts.with_pre_stop)),
            expected
        );
    }
}
