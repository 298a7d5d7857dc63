//! Which pods leave the node, and how they are asked to. kubectl drain's semantics, with what the node's own
//! identity may do: list the pods that are bound to it, and evict them.

pub mod classify;
pub mod evict;
pub mod held;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use self::classify::{Left, Verdict, classify};
use crate::api::{node_migration::BlockingPod, request::Drain};

/// The pods of a node, by what a drain does with them; each list is sorted by namespace and name.
#[derive(Debug, Default)]
pub struct Survey<'a> {
    /// To be evicted.
    pub evict: Vec<&'a Pod>,
    /// Evicted or deleted, and still ending: their containers are there until the kubelet says otherwise, by
    /// letting go of the object.
    pub ending: Vec<&'a Pod>,
    /// In the way until a person decides, each with the reason.
    pub blocked: Vec<BlockingPod>,
    /// Not touched by a drain: they come back under the target.
    pub stay: Vec<&'a Pod>,
}

impl<'a> Survey<'a> {
    /// Sorts the pods of a node. `own_namespace` is the one that Transship is installed in.
    pub fn new(pods: &'a [Pod], drain: &Drain, own_namespace: &str) -> Self {
        let mut survey = Self::default();
        // The API lists them in no order.
        let mut pods: Vec<&Pod> = pods.iter().collect();
        pods.sort_by_cached_key(|pod| (pod.namespace(), pod.name_any()));
        for pod in pods {
            match classify(pod, drain, own_namespace) {
                Verdict::Evict => survey.evict.push(pod),
                Verdict::Leave(Left::Terminating) => survey.ending.push(pod),
                Verdict::Leave(Left::DaemonSet | Left::Mirror | Left::Transship) => survey.stay.push(pod),
                Verdict::Block(obstacles) => survey.blocked.push(blocking(
                    pod,
                    obstacles
                        .iter()
                        .map(ToString::to_string)
                        .collect::<Vec<_>>()
                        .join("; "),
                )),
            }
        }
        survey
    }

    /// How many pods have still to go.
    pub fn remaining(&self) -> usize {
        self.evict.len() + self.ending.len() + self.blocked.len()
    }

    /// Images without which the node's own pods could not come back under the target: those of Transship, of
    /// DaemonSets and of static pods that have been started here.
    pub fn images_to_come_back(&self) -> Vec<String> {
        let mut images: Vec<String> = self.stay.iter().flat_map(|pod| started_images(pod)).collect();
        images.sort();
        images.dedup();
        images
    }
}

/// Seconds that a pod has to stop when the drain evicts it.
pub fn grace_secs(pod: &Pod, drain: &Drain) -> i64 {
    let own = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.termination_grace_period_seconds);
    match drain.grace_period {
        // Kubernetes' default where the pod has none of its own.
        ..0 => own.unwrap_or(30),
        asked => asked,
    }
}

/// A pod that cannot be evicted now, and why.
pub fn blocking(pod: &Pod, reason: String) -> BlockingPod {
    BlockingPod {
        namespace: pod.namespace().unwrap_or_default(),
        name: pod.name_any(),
        reason,
    }
}

/// The images of those containers of a pod that were started once, as its spec names them.
fn started_images(pod: &Pod) -> Vec<String> {
    let Some((spec, status)) = pod.spec.as_ref().zip(pod.status.as_ref()) else {
        return Vec::new();
    };
    let statuses = || {
        let containers = status
            .container_statuses
            .iter()
            .chain(&status.init_container_statuses);
        containers.flatten()
    };
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter(|container| {
            statuses().any(|status| status.name == container.name && !status.image_id.is_empty())
        })
        .filter_map(|container| container.image.clone())
        .collect()
}
