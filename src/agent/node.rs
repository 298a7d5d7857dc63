//! What is written to the Node: the cordon and kubeadm's annotation, as merge patches computed from the Node as
//! it is. Each names the version that it was computed from, so that a person's cordon in that very moment is
//! seen and not taken for our own. Pure.

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::{CORDONED_ANNOTATION, PREVIOUS_SOCKET_ANNOTATION};

/// Where kubeadm up to 1.33 keeps the CRI socket of a node.
const SOCKET_ANNOTATION: &str = "kubeadm.alpha.kubernetes.io/cri-socket";

/// How an attempt ended for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End<'a> {
    /// On the runtime that the migration goes to, whose endpoint the plan names.
    Target(Option<&'a str>),
    /// Back on the runtime that it had before.
    Source {
        /// The endpoint of the one that it was to go to.
        target: Option<&'a str>,
    },
    /// Nothing was changed.
    Untouched,
}

/// What makes the node unschedulable in the name of the migration with this UID; nothing when it is already. A
/// node that somebody else cordoned stays theirs.
pub fn cordon(node: &Node, migration: &str) -> Option<Value> {
    let ours = node.annotations().get(CORDONED_ANNOTATION);
    match (unschedulable(node), ours) {
        (true, None) => None,
        (true, Some(uid)) if uid == migration => None,
        // A cordon that an earlier migration left is taken over with its duty to uncordon.
        (true, Some(_)) | (false, _) => Some(patch(
            node,
            json!({ (CORDONED_ANNOTATION): migration }),
            Some(true),
        )),
    }
}

/// What the Node needs after a migration that ended on `end`: kubeadm's annotation tells the runtime, and our
/// cordon is lifted. Nothing when all of that is so.
///
/// kubeadm before 1.24 takes a socket with its scheme too, and later ones insist on it.
pub fn settle(node: &Node, migration: &str, end: End<'_>) -> Option<Value> {
    let mut annotations = json!({});
    let socket = node.annotations().get(SOCKET_ANNOTATION);
    let previous = node.annotations().get(PREVIOUS_SOCKET_ANNOTATION);
    match (end, socket, previous) {
        (End::Target(Some(target)), Some(socket), _) => {
            if target != socket {
                annotations[SOCKET_ANNOTATION] = target.into();
                annotations[PREVIOUS_SOCKET_ANNOTATION] = socket.as_str().into();
            }
        }
        // What an earlier migration kept is not this one's to restore.
        (End::Source { target }, Some(socket), Some(previous)) if target == Some(socket.as_str()) => {
            annotations[SOCKET_ANNOTATION] = previous.as_str().into();
            annotations[PREVIOUS_SOCKET_ANNOTATION] = Value::Null;
        }
        // From 1.34 on kubeadm has no annotation, and one would count for more than its file.
        (End::Target(_), ..) | (End::Source { .. } | End::Untouched, ..) => {}
    }
    let ours = node
        .annotations()
        .get(CORDONED_ANNOTATION)
        .is_some_and(|uid| uid == migration);
    if ours {
        annotations[CORDONED_ANNOTATION] = Value::Null;
    }
    let changes = annotations
        .as_object()
        .is_some_and(|annotations| !annotations.is_empty());
    changes.then(|| patch(node, annotations, ours.then_some(false)))
}

fn unschedulable(node: &Node) -> bool {
    node.spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false)
}

fn patch(node: &Node, annotations: Value, unschedulable: Option<bool>) -> Value {
    let mut patch = json!({
        "metadata": { "resourceVersion": node.resource_version(), "annotations": annotations },
    });
    if let Some(unschedulable) = unschedulable {
        // Absent is how the scheduler's default is written.
        patch["spec"] = json!({ "unschedulable": unschedulable.then_some(true) });
    }
    patch
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn node(unschedulable: bool, annotations: Value) -> Node {
        serde_json::from_value(json!({
            "metadata": { "name": "w1", "resourceVersion": "7", "annotations": annotations },
            "spec": { "unschedulable": unschedulable },
        }))
        .unwrap()
    }

    #[rstest]
    #[case::free(false, json!({}), true)]
    #[case::somebody_elses(true, json!({}), false)]
    #[case::ours(true, json!({ (CORDONED_ANNOTATION): "m1" }), false)]
    #[case::uncordoned_in_the_middle(false, json!({ (CORDONED_ANNOTATION): "m1" }), true)]
    #[case::left_by_another(true, json!({ (CORDONED_ANNOTATION): "m0" }), true)]
    fn only_a_schedulable_node_is_cordoned(
        #[case] unschedulable: bool,
        #[case] annotations: Value,
        #[case] patched: bool,
    ) {
        let expected = json!({
            "metadata": { "resourceVersion": "7", "annotations": { (CORDONED_ANNOTATION): "m1" } },
            "spec": { "unschedulable": true },
        });
        assert_eq!(
            cordon(&node(unschedulable, annotations), "m1"),
            patched.then_some(expected)
        );
    }

    const CONTAINERD: &str = "unix:///run/containerd/containerd.sock";
    const CRI_DOCKERD: &str = "unix:///run/elsewhere/cri-dockerd.sock";
    const TARGET: End<'_> = End::Target(Some(CONTAINERD));
    const BACK: End<'_> = End::Source {
        target: Some(CONTAINERD),
    };

    #[rstest]
    #[case::nothing_of_ours(true, json!({}), TARGET, None)]
    #[case::ours(
        true, json!({ (CORDONED_ANNOTATION): "m1" }), TARGET,
        Some((json!({ (CORDONED_ANNOTATION): null }), true))
    )]
    #[case::anothers_cordon(true, json!({ (CORDONED_ANNOTATION): "m0" }), TARGET, None)]
    #[case::kubeadm(
        true, json!({ (SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), TARGET,
        Some((json!({ (SOCKET_ANNOTATION): CONTAINERD,
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), false))
    )]
    #[case::kubeadm_done(
        false, json!({ (SOCKET_ANNOTATION): CONTAINERD,
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), TARGET, None
    )]
    #[case::back(
        true, json!({ (SOCKET_ANNOTATION): CONTAINERD, (CORDONED_ANNOTATION): "m1",
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), BACK,
        Some((json!({ (SOCKET_ANNOTATION): "/var/run/dockershim.sock",
            (PREVIOUS_SOCKET_ANNOTATION): null, (CORDONED_ANNOTATION): null }), true))
    )]
    #[case::back_before_the_annotation(
        false, json!({ (SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), BACK, None
    )]
    #[case::cri_dockerd(
        false, json!({ (SOCKET_ANNOTATION): CONTAINERD,
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), End::Target(Some(CRI_DOCKERD)),
        Some((json!({ (SOCKET_ANNOTATION): CRI_DOCKERD, (PREVIOUS_SOCKET_ANNOTATION): CONTAINERD }), false))
    )]
    #[case::kubeadm_keeps_a_file(true, json!({}), End::Target(Some(CRI_DOCKERD)), None)]
    #[case::back_after_an_earlier_migration(
        false, json!({ (SOCKET_ANNOTATION): CONTAINERD,
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }),
        End::Source { target: Some(CRI_DOCKERD) }, None
    )]
    #[case::untouched_after_an_earlier_migration(
        true, json!({ (SOCKET_ANNOTATION): CONTAINERD, (CORDONED_ANNOTATION): "m1",
            (PREVIOUS_SOCKET_ANNOTATION): "/var/run/dockershim.sock" }), End::Untouched,
        Some((json!({ (CORDONED_ANNOTATION): null }), true))
    )]
    fn a_node_is_settled(
        #[case] unschedulable: bool,
        #[case] annotations: Value,
        #[case] end: End<'_>,
        #[case] expected: Option<(Value, bool)>,
    ) {
        let expected = expected.map(|(annotations, uncordon)| {
            let mut patch = json!({ "metadata": { "resourceVersion": "7", "annotations": annotations } });
            if uncordon {
                patch["spec"] = json!({ "unschedulable": null });
            }
            patch
        });
        assert_eq!(settle(&node(unschedulable, annotations), "m1", end), expected);
    }
}
