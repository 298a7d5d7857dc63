//! `transship agent`: the pod on a chosen node.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context as _;
use kube::{Api, Client, Config};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    host::pod::PodHost,
    identity::{NodeIdentity, plain},
    shell::{Agent, Myself},
};
use crate::{
    admin::{self, Ready},
    host::files::Files,
    metrics::Metrics,
};

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
    /// Where probes and Prometheus are answered
    #[arg(long, env = "TRANSSHIP_LISTEN", default_value = "0.0.0.0:9478")]
    listen: SocketAddr,
}

/// Works until SIGTERM, which ends it at once: what it was doing is found again from the node.
///
/// # Errors
/// When the service account or the kernel's signals cannot be used.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let service_account = Config::incluster().context("use the service account of this pod")?;
    let client = Client::try_from(plain(service_account)).context("use the service account of this pod")?;
    let metrics = Metrics::new().context("make the metrics")?;
    let ready = Ready::default();
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
    let agent = Agent::new(me, host, identity, Api::all(client), metrics.clone());
    tokio::select! {
        never = agent.run(&ready) => match never {},
        never = serve(args.listen, ready.clone(), metrics) => match never {},
        _ = terminated.recv() => Ok(()),
    }
}

/// Answers probes and Prometheus. A port that is taken must not keep a switch from being confirmed.
async fn serve(address: SocketAddr, ready: Ready, metrics: Metrics) -> Infallible {
    loop {
        let served = match TcpListener::bind(address).await {
            Ok(listener) => admin::serve(listener, ready.clone(), metrics.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::warn!(%address, %error, "probes and metrics are not served; tries again");
        }
        sleep(Duration::from_secs(5)).await;
    }
}
