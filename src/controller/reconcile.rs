//! One migration, looked at once: `observe → validate → decide → apply → report`.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use kube_runtime::controller::Action;
use kube_runtime::events::Recorder;
use kube_runtime::reflector::Store;

use super::error::Error;
use super::observe::World;
use super::{Leader, apply, gates, observe, report, rollout, seen, sweep, trouble, unreadable};
use crate::api::migration::RuntimeMigration;
use crate::api::node_migration::{NodeMigration, NodePhase};

/// How soon an active migration is looked at again without any change.
const ACTIVE: Duration = Duration::from_secs(15);
/// How soon one is that waits for the control plane.
const GATED: Duration = Duration::from_secs(5);
/// How soon one that waits is.
const IDLE: Duration = Duration::from_secs(300);
/// How often what no migration answers for is looked at.
const SWEEP: Duration = Duration::from_secs(2);
/// How long an agent may take to begin before its pod is asked why.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an agent that has begun may report nothing before its pod is asked why.
const SILENCE: Duration = Duration::from_secs(60);

/// What every reconciliation works with.
pub(super) struct Context {
    pub(super) leader: Leader,
    pub(super) recorder: Recorder,
    pub(super) migrations: Store<DeserializeGuard<RuntimeMigration>>,
    pub(super) nodes: Store<Node>,
    pub(super) shares: Store<DeserializeGuard<NodeMigration>>,
}

impl Context {
    fn world(&self) -> World {
        World {
            migrations: self.migrations.state(),
            nodes: self.nodes.state(),
            shares: self.shares.state(),
        }
    }

    /// Sets the gauges from the stores, so that they follow whatever happens to the objects.
    pub(super) async fn keep_gauges(&self) {
        let mut tick = tokio::time::interval(Duration::from_secs(5));
        loop {
            tick.tick().await;
            let world = self.world();
            let metrics = &self.leader.metrics;
            metrics.forget();
            observe::readable(&world.shares).for_each(|share| metrics.node(share));
            for migration in observe::readable(&world.migrations) {
                let status = migration.status.clone().unwrap_or_default();
                let progress = observe::last_progress(migration, &world).map(report::seconds);
                metrics.migration(&migration.name_any(), status.phase, &status.nodes, progress);
            }
        }
    }

    /// Brings to an end what no migration answers for any more.
    pub(super) async fn keep_swept(&self) {
        let ready = [
            self.migrations.wait_until_ready().await,
            self.nodes.wait_until_ready().await,
            self.shares.wait_until_ready().await,
        ];
        if ready.iter().any(Result::is_err) {
            return;
        }
        let mut memory = sweep::Memory::default();
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut world = self.world();
            apply::forget_gone(&self.leader.client, &mut world).await;
            let acts = sweep::acts(&world, &mut memory, jiff::Timestamp::now());
            let swept = apply::sweep(&self.leader.client, &self.recorder, &world, acts).await;
            if let Err(error) = swept {
                self.leader.metrics.reconcile_error(error.reason());
                tracing::warn!(%error, "what no RuntimeMigration answers for could not be ended; it is tried again");
            }
        }
    }

    /// Asks why agents have not begun, or report nothing, for a while.
    async fn trouble(&self, seen: &mut seen::Seen) {
        let since = |moment: jiff::Timestamp| seen.now.duration_since(moment).unsigned_abs();
        let silent: Vec<&str> = seen
            .slots
            .iter()
            .filter(|slot| {
                seen.share(&slot.name).is_some_and(|share| match share.phase {
                    NodePhase::Pending => since(slot.since.0) > PATIENCE,
                    _ => share.reported.is_some_and(|last| since(last) > SILENCE),
                })
            })
            .map(|slot| slot.name.as_str())
            .collect();
        if !silent.is_empty() {
            let Leader {
                client, namespace, ..
            } = &self.leader;
            seen.agent_trouble = trouble::of_agents(client, namespace, &silent).await;
        }
    }
}

/// Looks at one migration and does what is to be done now.
pub(super) async fn reconcile(
    migration: Arc<DeserializeGuard<RuntimeMigration>>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let client = &context.leader.client;
    let migration = match &migration.0 {
        Ok(readable) => readable,
        Err(invalid) => {
            unreadable::tell(client, &context.recorder, invalid).await?;
            return Ok(Action::await_change());
        }
    };
    context
        .nodes
        .wait_until_ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    context
        .shares
        .wait_until_ready()
        .await
        .map_err(|_| Error::WatchEnded)?;
    let deleting = migration.metadata.deletion_timestamp.is_some();

    let world = context.world();
    let mut seen = observe::seen(
        migration,
        &world,
        context.leader.own_node.clone(),
        jiff::Timestamp::now(),
    );
    context.trouble(&mut seen).await;
    let mut decision = rollout::decide(&seen);
    if decision.asks_gates {
        seen.gates = Some(gates::closed(client, &world.nodes, &seen.slots).await);
        decision = rollout::decide(&seen);
    }
    let before = migration.status.clone().unwrap_or_default();
    // What has ended keeps its outcome, as long as its own nodes keep theirs: nodes that another migration took over
    // since do not change it.
    let ended = seen.ended && !deleting && decision.slots == before.active_nodes;
    let after = if ended && !report::reverted(&decision, &before) {
        before.clone()
    } else {
        report::status(&seen, &decision, &migration.spec, &before)
    };
    if after != before {
        apply::claim(client, migration, after.clone()).await?;
        if before.phase != after.phase || before.message != after.message {
            tracing::info!(
                migration = migration.name_any(),
                phase = after.phase.name(),
                progress = after.progress,
                message = after.message,
                "migration"
            );
        }
    }
    apply::tell(
        &context.recorder,
        migration,
        &report::happened(&seen, &decision, &before, &after),
    )
    .await;
    apply::apply(client, migration, &world, &seen, &decision).await?;
    // Nothing tells when a gate opens.
    let gated = decision.gated || matches!(decision.hold, Some(rollout::Hold::Gates(_)));
    Ok(Action::requeue(if gated {
        GATED
    } else if decision.slots.is_empty() {
        IDLE
    } else {
        ACTIVE
    }))
}

/// When to look again after an error.
#[allow(clippy::needless_pass_by_value, reason = "the signature is kube's")]
pub(super) fn again(
    migration: Arc<DeserializeGuard<RuntimeMigration>>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    context.leader.metrics.reconcile_error(error.reason());
    if error.is_conflict() {
        tracing::debug!(migration = migration.name_any(), %error, "what was seen is old");
        return Action::requeue(Duration::from_millis(500));
    }
    tracing::warn!(migration = migration.name_any(), %error, "reconciliation failed; it is tried again");
    Action::requeue(Duration::from_secs(5))
}
