//! What a user can ask for and what is reported back: the group `transship.dev/v1alpha1`.
//!
//! [`request`](crate::plan::request) holds the parts of a request that mean the same for a whole migration and for one node; it knows
//! nothing of Kubernetes, and lies in `plan`. [`migration`] and [`node_migration`] are the custom resources,
//! [`validation`] is what the first must satisfy, [`bounds`] is how long their texts and lists may be, and [`crd`] prints
//! their definitions. [`outage`] tells errors of the API server that may pass from those that a person has to solve,
//! and [`reported`] reads what both roles read of a Node.

use http::HeaderValue;
use http::header::{HeaderName, USER_AGENT};

pub mod bounds;
pub mod crd;
pub mod migration;
pub mod node_migration;
pub mod outage;
pub mod reported;
pub mod validation;

/// What a user asks for.
pub mod request {
    pub(crate) use crate::plan::request::approved_plans;
    pub use crate::plan::{
        request::*,
        runtime::{Runtime, RuntimeVersion},
    };
}

/// Finalizer on a `NodeMigration` that may change its node: it is removed when the node has ended and is settled. The
/// `RuntimeMigration` has none, so the controller needs no right to patch what the user asks for.
pub const FINALIZER: &str = "transship.dev/under-way";
/// Label that the controller sets on a node while the agent's DaemonSet must run there. Its value is the name of the
/// migration, cut to a valid label value. Where the server runs NodeRestriction, no kubelet can set a label below this
/// prefix, so no node can call an agent to itself.
pub const AGENT_LABEL: &str = "transship.node-restriction.kubernetes.io/agent";
/// Annotation by which the owner of a node opts it out of every migration (`"true"`).
pub const SKIP_ANNOTATION: &str = "transship.dev/skip";
/// Annotation on the Node that says that the agent cordoned it (value: the migration's UID), so that a node
/// which was already cordoned stays so.
pub const CORDONED_ANNOTATION: &str = "transship.dev/cordoned-by";
/// Annotation on a NodeMigration by which a person asks for another attempt on its node, whatever its value. The
/// controller removes it with the attempt.
pub const RETRY_ANNOTATION: &str = "transship.dev/retry";
/// Label that all of Transship's own pods bear, and its value; they are never evicted by a drain.
pub const POD_LABEL: (&str, &str) = ("app.kubernetes.io/name", "transship");
/// Annotation on the Node that keeps kubeadm's `cri-socket` annotation as it was before the switch.
pub const PREVIOUS_SOCKET_ANNOTATION: &str = "transship.dev/previous-cri-socket";

/// The header that names a role in the API server's audit log and flow control.
pub fn user_agent(role: &'static str) -> (HeaderName, HeaderValue) {
    let version = env!("CARGO_PKG_VERSION");
    let value = HeaderValue::from_str(&format!("{role}/{version}"));
    (USER_AGENT, value.unwrap_or(HeaderValue::from_static(role)))
}
