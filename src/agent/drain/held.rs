//! Pods that are terminating: since when, and what holds them. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use super::blocking;
use crate::api::{node_migration::BlockingPod, request::GoDuration};

/// How long after its grace period a pod may need until the kubelet lets go of its object.
const LETS_GO: Duration = Duration::from_secs(10);

/// When a pod was asked to stop; `None` if it was not.
fn since(pod: &Pod) -> Option<Timestamp> {
    let deadline = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
    Some(deadline.checked_sub(grace).unwrap_or(deadline))
}

/// Terminating pods, the longest waiting first, each with what is known of it.
pub fn terminating(pods: &[&Pod], timeout: GoDuration, now: Timestamp) -> Vec<BlockingPod> {
    let mut pods: Vec<&Pod> = pods.to_vec();
    pods.sort_by_cached_key(|pod| (since(pod), pod.namespace(), pod.name_any()));
    pods.into_iter()
        .filter_map(|pod| Some(blocking(pod, reason(pod, since(pod)?, timeout, now))))
        .collect()
}

fn reason(pod: &Pod, since: Timestamp, timeout: GoDuration, now: Timestamp) -> String {
    let finalizers = pod.finalizers();
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let overdue = now.duration_since(since) > SignedDuration::from_secs(grace) + to_signed(LETS_GO);
    if !finalizers.is_empty() {
        format!(
            "terminating since {since:.0}, held by finalizer {}",
            finalizers.join(", ")
        )
    } else if timeout.is_shorter_than(grace) {
        format!("terminating since {since:.0}, has {grace} s to stop, drain.timeout is {timeout}")
    } else if overdue {
        format!(
            "terminating since {since:.0}, and its {grace} s to stop are over: the kubelet does not report its end"
        )
    } else {
        format!("terminating since {since:.0}")
    }
}

fn to_signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, metadata: Value) -> Pod {
        let mut all = json!({ "name": name, "namespace": "lab", "deletionTimestamp": "2026-11-28T03:00:30Z",
            "deletionGracePeriodSeconds": 30 });
        all.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({ "metadata": all })).unwrap()
    }

    fn reasons(pods: &[Pod], now: &str) -> Vec<String> {
        let timeout: GoDuration = serde_json::from_value(json!("5m")).unwrap();
        terminating(&pods.iter().collect::<Vec<_>>(), timeout, now.parse().unwrap())
            .into_iter()
            .map(|pod| format!("{}: {}", pod.name, pod.reason))
            .collect()
    }

    #[test]
    fn the_longest_waiting_come_first_with_what_holds_them() {
        let pods = [
            pod("b", json!({})),
            pod("a", json!({})),
            pod(
                "slow",
                json!({ "deletionTimestamp": "2026-11-28T03:10:10Z", "deletionGracePeriodSeconds": 600 }),
            ),
            pod(
                "stuck",
                json!({ "deletionTimestamp": "2026-11-28T02:59:00Z", "deletionGracePeriodSeconds": 0,
                "finalizers": ["example.com/never"] }),
            ),
        ];
        let stuck = "stuck: terminating since 2026-11-28T02:59:00Z, held by finalizer example.com/never";
        let slow = "slow: terminating since 2026-11-28T03:00:10Z, has 600 s to stop, drain.timeout is 5m";
        let plain = |name: &str| format!("{name}: terminating since 2026-11-28T03:00:00Z");
        assert_eq!(
            reasons(&pods, "2026-11-28T03:00:20Z"),
            [stuck.to_owned(), plain("a"), plain("b"), slow.to_owned()]
        );
        let late = reasons(&pods[..1], "2026-11-28T03:00:41Z");
        assert!(
            late[0].ends_with("its 30 s to stop are over: the kubelet does not report its end"),
            "{late:?}"
        );
    }
}
