//! `transship agent`: the pod on a chosen node. It listens nowhere: it is in the host's network, where any pod could
//! exhaust it in the middle of a switch. What is known of its node is in the status of the `NodeMigration`.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use kube::{Api, Client, Config};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    host::pod::PodHost,
    identity::{NodeIdentity, plain},
    shell::{Agent, Myself},
};
use crate::host::files::Files;

/// How long the agent may take to put the node in order when it is asked to end.
const FAREWELL: Duration = Duration::from_secs(4);

/// Brings a migration to its node: the pod of the chart's DaemonSet
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Name of the node that this pod runs on
    #[arg(long, env = "NODE_NAME")]
    node_name: String,
    /// Name of this pod
    #[arg(long, env = "POD_NAME")]
    pod_name: String,
    /// Namespace of this pod
    #[arg(long, env = "POD_NAMESPACE")]
    pod_namespace: String,
    /// The kubelet's own kubeconfig; certificates that it names must be mounted at their paths
    #[arg(
        long,
        env = "TRANSSHIP_KUBECONFIG",
        default_value = "/etc/kubernetes/kubelet.conf"
    )]
    kubeconfig: PathBuf,
}

/// Works until SIGTERM: what it was doing is found again from the node.
///
/// # Errors
/// When the service account or the kernel's signals cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let service_account = Config::incluster().context("use the service account of this pod")?;
    let client = Client::try_from(plain(service_account)).context("use the service account of this pod")?;
    let me = Myself {
        node: args.node_name,
        namespace: args.pod_namespace,
        pod: args.pod_name,
    };
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        node = me.node,
        "the agent starts"
    );
    let identity = NodeIdentity::new(args.kubeconfig, me.node.clone());
    let host = PodHost::new(Files::new("/"));
    let mut agent = Agent::new(me, host, identity, Api::all(client));
    tokio::select! {
        never = agent.run() => match never {},
        _ = terminated.recv() => {}
    }
    // Whoever asks the agent to go kills it after its grace period of 5 s.
    if timeout(FAREWELL, agent.farewell()).await.is_err() {
        tracing::warn!("the node could not be put in order in time before the end");
    }
    Ok(())
}
