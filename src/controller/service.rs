//! The process `transship controller`: probes and metrics, the lease, and the way out.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Config, ResourceExt as _};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError, LeaseParams};
use tokio::task::JoinHandle;

use super::apply::FIELD_MANAGER;
use super::error::{Error, IntoError as _};
use super::{Leader, PAGE, policy, sweep};
use crate::admin::{self, Ready};
use crate::api::node_migration::{Action, NodeMigration};
use crate::api::user_agent;
use crate::metrics::Metrics;

/// Seconds that a lease lasts, and seconds before its end at which it is renewed.
const LEASE: (u64, u64) = (15, 5);

/// Arguments of `transship controller`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The namespace of the controller and its agents.
    #[arg(long, env = "POD_NAMESPACE", default_value = "transship")]
    namespace: String,
    /// The name under which this process holds the lease.
    #[arg(long, env = "POD_NAME", default_value = "transship-controller")]
    identity: String,
    /// The node that this process runs on; it is migrated last.
    #[arg(long, env = "NODE_NAME")]
    node: Option<String>,
    /// Name of the lease.
    #[arg(long, env = "TRANSSHIP_LEASE", default_value = "transship-controller")]
    lease: String,
    /// Where `/healthz`, `/readyz` and `/metrics` are served.
    #[arg(long, env = "TRANSSHIP_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Names of the chart's admission policies.
    #[arg(long, env = "TRANSSHIP_POLICIES", value_delimiter = ',')]
    policies: Vec<String>,
    /// Start nothing; say whether a node is under way, and fail if one is.
    #[arg(long)]
    check_idle: bool,
}

/// How long the API server is left alone after it did not answer.
const RETRY: Duration = Duration::from_secs(2);

/// How long the check before an uninstall waits for an API server that does not answer: less than the chart gives its Job
/// (`activeDeadlineSeconds`). A pod that starts right after its node has booted is there before the Service's rules are.
const ANSWERS_WITHIN: Duration = Duration::from_secs(90);

/// Runs `transship controller` until it is told to stop. An API server that is away, as it is while the only control
/// plane node is switched, is waited for; so is a lease that another process holds.
///
/// # Errors
/// The service account or the listening address cannot be used.
pub async fn run(args: Args) -> Result<(), Error> {
    let client = client()
        .await
        .during(|| "reading the configuration of the client".to_owned())?;
    if args.check_idle {
        return check_idle(&client, ANSWERS_WITHIN).await;
    }
    let (metrics, serving) = (Metrics::new()?, Ready::default());
    let listen_error = |cause| Error::Listen {
        address: args.listen,
        cause,
    };
    let listener = tokio::net::TcpListener::bind(args.listen)
        .await
        .map_err(listen_error)?;
    let admin = admin::serve(listener, serving.clone(), metrics.clone());
    let me = Leader {
        client,
        namespace: args.namespace,
        identity: args.identity,
        own_node: args.node,
        metrics,
    };
    let mut holding = None;
    let result = tokio::select! {
        never = keep_leading(&me, &args.lease, &serving, &mut holding) => match never {},
        never = admin => match never {},
        never = policy::watch(&me.client, &args.policies, &me.metrics) => match never {},
        () = told_to_stop() => Ok(()),
    };
    // Not needed to be safe, but without it a successor waits until the lease has run out.
    if let Some(holding) = holding {
        let _ = tokio::time::timeout(Duration::from_secs(3), holding).await;
    }
    result
}

async fn client() -> kube::Result<Client> {
    let mut config = Config::infer().await.map_err(kube::Error::InferConfig)?;
    config.headers.push(user_agent(FIELD_MANAGER));
    Client::try_from(config)
}

/// The task that renews the lease, and gives it back when nobody watches it any more.
type Holding = JoinHandle<Result<LeaseManager, LeaseManagerError>>;

/// Leads whenever it holds the lease. While the API server is away the lease is neither renewed nor taken by another;
/// who led goes on trying, and two leaders are safe anyway.
async fn keep_leading(
    me: &Leader,
    lease: &str,
    serving: &Ready,
    holding: &mut Option<Holding>,
) -> Infallible {
    let (lifetime, grace) = LEASE;
    loop {
        let manager = LeaseManagerBuilder::new(me.client.clone(), lease)
            .with_namespace(&me.namespace)
            .with_parameters(LeaseParams::new(&me.identity, lifetime, grace))
            .build();
        match manager.await {
            Ok(manager) => {
                let (mut leading, task) = manager.watch().await;
                *holding = Some(task);
                // A follower is as ready as a leader: it can take over at any time.
                serving.set(true);
                while leading.wait_for(|leads| *leads).await.is_ok() {
                    tracing::info!(lease, "leading");
                    tokio::select! {
                        ended = me.clone().lead() => {
                            let error = ended.err().map(|error| error.to_string());
                            tracing::warn!(error, "leads again");
                        }
                        _ = leading.wait_for(|leads| !*leads) => tracing::warn!(lease, "another controller leads"),
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
            Err(error) => tracing::warn!(lease, %error, "the lease cannot be used; tries again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be received; only SIGKILL ends this process");
            std::future::pending::<()>().await;
        }
    }
}

/// Whether any node is between start and end; the chart asks before it is uninstalled. An API server that does not answer is
/// asked again until the time is over: it says nothing about the nodes.
async fn check_idle(client: &Client, within: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + within;
    let busy = loop {
        match busy_nodes(client).await {
            Err(error) if error.may_pass() && Instant::now() < deadline => {
                tracing::warn!(%error, "the API server does not answer; it is asked again");
                tokio::time::sleep(RETRY).await;
            }
            listed => break listed?,
        }
    };
    if busy.is_empty() {
        Ok(())
    } else {
        Err(Error::Busy(busy.join(", ")))
    }
}

/// Nodes that are, or may be, between start and end.
async fn busy_nodes(client: &Client) -> Result<Vec<String>, Error> {
    let shares: Api<DeserializeGuard<NodeMigration>> = Api::all(client.clone());
    let mut busy: Vec<String> = Vec::new();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let some = match shares.list(&page).await {
            // Without their definition, which may have been deleted first, there are none.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(busy),
            listed => listed.during(|| "listing NodeMigrations".to_owned())?,
        };
        busy.extend(some.iter().filter_map(under_way));
        match some.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(busy),
        }
    }
}

/// Names a node that is, or may be, between start and end.
fn under_way(share: &DeserializeGuard<NodeMigration>) -> Option<String> {
    let name = share.name_any();
    match &share.0 {
        Ok(share) if share.spec.action == Action::Plan => None,
        // Nobody would take the finalizer off any more.
        Ok(share) if sweep::is_held(share) => Some(format!("{name} ({})", share.phase().name())),
        Ok(share) if !share.phase().is_under_way() => None,
        Ok(share) => Some(format!("{name} ({})", share.phase().name())),
        Err(invalid) => Some(format!(
            "{name} (its NodeMigration cannot be read: {})",
            invalid.error
        )),
    }
}
