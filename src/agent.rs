//! Brings a migration to its node: a pod of the DaemonSet on a node that the controller chose, which takes the
//! node's `NodeMigration` to its end and reports on the way. In reading order:
//!
//! - [`machine`]: what to do next, a pure function of what is seen. The truth is the journal on the host and the
//!   Node, never the agent's memory: the pod dies in the middle of every switch.
//! - [`parent`]: whether a `NodeMigration` says what its `RuntimeMigration` says (pure).
//! - [`orphan`]: what is left on the node of a migration that is gone (pure).
//! - [`report`]: how the status of the `NodeMigration` is kept (pure).
//! - [`node`]: what is written to the Node: the cordon, kubeadm's annotation (pure).
//! - [`cluster`]: what kubeadm remembers and what the server forbids; findings of the preflight.
//! - [`baseline`]: which pods must be Ready again before a switch is confirmed (pure).
//! - [`drain`]: which pods leave the node, and how they are asked to.
//! - [`identity`]: clients: the node's own for everything on its Node and pods, the service account's for its
//!   `NodeMigration` and the `RuntimeMigration` above it.
//! - [`share`]: the node's `NodeMigration`: how it is read and watched, and how its status is written without a secret.
//! - [`kubeconfig`]: the kubelet's, read as kubectl reads it; no error shows a part of it.
//! - [`host`]: what the agent asks of the host that it runs on.
//! - [`shell`]: looks, decides, writes the status, acts; over and over.
//! - [`service`]: `transship agent`.

pub mod baseline;
mod cluster;
pub mod drain;
pub mod host;
pub mod identity;
mod kubeconfig;
pub mod machine;
pub mod node;
pub mod orphan;
pub mod parent;
pub mod report;
pub mod service;
mod share;
pub mod shell;
