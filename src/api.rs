//! What a user can ask for and what is reported back: the group `transship.dev/v1alpha1`.
//!
//! [`request`] holds the parts of a request that mean the same for a whole migration and for one node; it knows
//! nothing of Kubernetes, so that `plan` can use it. [`migration`] and [`node_migration`] are the custom resources,
//! [`validation`] is what the first must satisfy, and [`crd`] prints their definitions.

pub mod crd;
pub mod migration;
pub mod node_migration;
pub mod request;
pub mod validation;

/// The API group of both resources, and the prefix of every label and annotation that Transship writes.
pub const GROUP: &str = "transship.dev";
/// Finalizer on a `RuntimeMigration`: it is removed when every active node has ended.
pub const FINALIZER: &str = "transship.dev/active-nodes";
/// Label that the controller sets on a node while the agent's DaemonSet shall run there.
/// Its value is the name of the migration, cut to a valid label value.
pub const AGENT_LABEL: &str = "transship.dev/agent";
/// Annotation by which the owner of a node opts it out of every migration (`"true"`).
pub const SKIP_ANNOTATION: &str = "transship.dev/skip";
/// Annotation on the Node that says that the agent cordoned it (value: the migration's UID), so that a node
/// which was already cordoned stays so.
pub const CORDONED_ANNOTATION: &str = "transship.dev/cordoned-by";
/// Label that all of Transship's own pods bear, and its value; they are never evicted by a drain.
pub const POD_LABEL: (&str, &str) = ("app.kubernetes.io/name", "transship");
/// Annotation on the Node that keeps kubeadm's `cri-socket` annotation as it was before the switch.
pub const PREVIOUS_SOCKET_ANNOTATION: &str = "transship.dev/previous-cri-socket";
