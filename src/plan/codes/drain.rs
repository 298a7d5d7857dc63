//! What the migration would mean for the node's pods. All but [`LIVE_NOT_SUPPORTED`] need what the API server reports of
//! the pods ([`cluster`](crate::plan::cluster)), so `transship node plan` cannot report them.

use crate::plan::finding::Code;

/// Pods that a drain would not evict.
pub const PODS_BLOCK_DRAIN: Code = Code::block_unless_allowed(
    "PodsBlockDrain",
    "Pods would not be evicted by the drain that is asked for; the drain would wait for them",
);
/// The pods that a drain would evict.
pub const PODS_TO_EVICT: Code = Code::info("PodsToEvict", "The pods that the drain will evict");

/// Pods cannot keep running.
pub const LIVE_NOT_SUPPORTED: Code = Code::block(
    "LiveNotSupported",
    "`drain.mode` is `Live`, and the migration is not an upgrade of the containerd in use: the pods have to stop",
);
/// Pods stop, so there is no time in which a rollback costs none.
pub const NOTHING_TO_SOAK: Code = Code::block(
    "NothingToSoak",
    "`rollback.soak` is set, and the migration is not an upgrade of the containerd in use: a rollback restarts the pods at any time",
);
/// There is nowhere to go.
pub const NO_OTHER_NODE: Code = Code::warn(
    "NoOtherNode",
    "The cluster has no other node that could take the pods: they are stopped without an eviction and start again on this one",
);
/// Pods that a switch without a drain ends for good.
pub const PODS_END_IN_PLACE: Code = Code::warn(
    "PodsEndInPlace",
    "Pods that stay on the node (`drain.mode: InPlace`) have restartPolicy Never: they fail with the switch",
);

/// Pods that a commit waits for.
pub const PODS_MUST_RETURN: Code = Code::info(
    "PodsMustReturn",
    "Pods that are Ready and stay on the node: the switch is confirmed when they are Ready again, and rolled back at the deadline",
);
/// Pods that may need longer than the drain.
pub const PODS_OUTLAST_DRAIN: Code = Code::warn(
    "PodsOutlastDrain",
    "Pods may take longer to stop than `drain.timeout`: the drain would be given up",
);
/// Pods whose hooks a switch without a drain leaves out.
pub const PRE_STOP_SKIPPED: Code = Code::warn(
    "PreStopSkipped",
    "Pods that stay on the node (`drain.mode: InPlace`) have a preStop hook, which nobody runs: the kubelet is stopped when they end",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    PODS_BLOCK_DRAIN,
    PODS_TO_EVICT,
    LIVE_NOT_SUPPORTED,
    NOTHING_TO_SOAK,
    NO_OTHER_NODE,
    PODS_END_IN_PLACE,
    PODS_MUST_RETURN,
    PODS_OUTLAST_DRAIN,
    PRE_STOP_SKIPPED,
];
