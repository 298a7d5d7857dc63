//! What the migration would mean for the node's pods. Who knows the pods, the agent, finds these.

use super::Code;

/// Pods that a drain would not evict.
pub const PODS_BLOCK_DRAIN: Code = Code::block_unless_allowed(
    "PodsBlockDrain",
    "Pods would not be evicted by the drain that is asked for; the drain would wait for them",
);
/// The pods that a drain would evict.
pub const PODS_TO_EVICT: Code = Code::info("PodsToEvict", "The pods that the drain will evict");

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

/// Pods whose hooks a switch without a drain leaves out.
pub const PRE_STOP_SKIPPED: Code = Code::warn(
    "PreStopSkipped",
    "Pods that stay on the node (`drain.mode: InPlace`) have a preStop hook, which nobody runs: the kubelet is stopped when they end",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    PODS_BLOCK_DRAIN,
    PODS_TO_EVICT,
    NO_OTHER_NODE,
    PODS_END_IN_PLACE,
    PRE_STOP_SKIPPED,
];
