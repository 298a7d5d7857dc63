//! What a drain would mean for the node's pods. Who knows the pods, the agent, finds these.

use super::Code;

/// Pods that a drain would not evict.
pub const PODS_BLOCK_DRAIN: Code = Code::block_unless_allowed(
    "PodsBlockDrain",
    "Pods would not be evicted by the drain that is asked for; the drain would wait for them",
);
/// The pods that a drain would evict.
pub const PODS_TO_EVICT: Code = Code::info("PodsToEvict", "The pods that the drain will evict");

/// All codes of this module.
pub const CODES: &[Code] = &[PODS_BLOCK_DRAIN, PODS_TO_EVICT];
