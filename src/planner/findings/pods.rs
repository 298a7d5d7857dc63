//! What a migration means for the pods that are on the node while it is planned.
//!
//! Pods come and go afterwards. The drain sorts them again each time that it looks, by the same rules: a pod that would be
//! lost, and came after the plan, is waited for until `drain.timeout` and reported in `status.drain`.

use crate::{
    plan::{
        cluster::{ClusterFacts, PodFacts},
        codes::drain::{
            NO_OTHER_NODE, PODS_BLOCK_DRAIN, PODS_END_IN_PLACE, PODS_MUST_RETURN, PODS_OUTLAST_DRAIN,
            PODS_TO_EVICT, PRE_STOP_SKIPPED,
        },
        finding::Finding,
        lists::listing,
        request::DrainMode,
    },
    planner::request::Request,
};

/// Checks of the pods; `keeps_pods` if they keep running while their runtime is upgraded.
pub fn check(request: &Request, cluster: &ClusterFacts, keeps_pods: bool) -> Vec<Finding> {
    let mut findings = match request.drain.mode.of(keeps_pods) {
        DrainMode::Auto | DrainMode::Evict => drained(request, &cluster.pods),
        DrainMode::InPlace => staying(cluster),
        DrainMode::Live => Vec::new(),
    };
    if !keeps_pods {
        findings.extend(returning(request, &cluster.pods));
    }
    findings
}

/// What a drain would do.
fn drained(request: &Request, pods: &PodFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !pods.blocked.is_empty() {
        let blocked: Vec<String> = pods
            .blocked
            .iter()
            .map(|pod| format!("{}: {}", pod.name, pod.reason))
            .collect();
        findings.push(PODS_BLOCK_DRAIN.found(
            format!("{} pods would not be evicted: {}", blocked.len(), listing(&blocked)),
            format!(
                "Set drain.deleteEmptyDirData or drain.force, delete the pods, or accept {}: the drain then waits \
                 for them.",
                PODS_BLOCK_DRAIN.name
            ),
        ));
    }
    let timeout = request.drain.timeout;
    let slow: Vec<String> = pods
        .evicted
        .iter()
        .filter(|pod| timeout.is_shorter_than(pod.grace_secs))
        .map(|pod| format!("{} has {} s to stop", pod.name, pod.grace_secs))
        .collect();
    if !slow.is_empty() {
        findings.push(PODS_OUTLAST_DRAIN.found(
            format!("drain.timeout is {timeout}: {}", listing(&slow)),
            "Raise drain.timeout, or set drain.gracePeriod; a pod that stops sooner is not waited for.",
        ));
    }
    if !pods.evicted.is_empty() {
        let evicted: Vec<String> = pods.evicted.iter().map(|pod| pod.name.clone()).collect();
        findings.push(PODS_TO_EVICT.found(
            format!("{} pods would be evicted: {}", evicted.len(), listing(&evicted)),
            "Nothing to do; their controllers start them elsewhere.",
        ));
    }
    findings
}

/// What happens to pods that stop with the source and start again under the target.
fn staying(cluster: &ClusterFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if cluster.no_other_node {
        findings.push(NO_OTHER_NODE.found(
            "the cluster has no other node that could ever take the pods, so they stay: they stop with the source and \
             start again under the target. Nothing is evicted, no PodDisruptionBudget is asked, and the node is not \
             cordoned",
            "To have the pods move away instead, add a node. Without one, do by hand what an eviction would do for them.",
        ));
    }
    let lost = &cluster.pods.never_restarted;
    if !lost.is_empty() {
        findings.push(PODS_END_IN_PLACE.found(
            format!(
                "{} pods have restartPolicy Never: they will be Failed and not start again: {}",
                lost.len(),
                listing(lost)
            ),
            "Wait until they have finished; a Job makes a new pod for its own, nobody does for one without a \
             controller.",
        ));
    }
    let hooked = &cluster.pods.with_pre_stop;
    if !hooked.is_empty() {
        findings.push(PRE_STOP_SKIPPED.found(
            format!(
                "{} pods have a preStop hook, which is not run: they get their stop signal at once, and their grace \
                 period: {}",
                hooked.len(),
                listing(hooked)
            ),
            "Do by hand before the switch what the hooks are for; where there is another node, `drain.mode: Evict` runs \
             them.",
        ));
    }
    findings
}

/// The pods that the commit waits for.
fn returning(request: &Request, pods: &PodFacts) -> Option<Finding> {
    let names = &pods.must_return;
    (!names.is_empty()).then(|| {
        PODS_MUST_RETURN.found(
            format!(
                "{} pods must be Ready again within {} of the kubelet's start, or the node rolls back: {}",
                names.len(),
                request.rollback.confirm_within,
                listing(names)
            ),
            "Raise rollback.confirmWithin if one of them needs longer to become Ready.",
        )
    })
}
