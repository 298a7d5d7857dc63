//! Tidying up after migrations that are gone, and the end of the agent itself.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;

use super::{
    super::{
        host::{Attempt, Host, HostError},
        orphan::{self, Relief},
        share::ShareError,
    },
    Agent, RoundError, SOON,
};
use crate::{
    api::node_migration::{NodeMigration, NodePhase},
    executor::control::Order,
};

/// How long a node may be without a NodeMigration before what was prepared on it is undone.
const ALONE: Duration = Duration::from_secs(30);

impl<H: Host> Agent<H> {
    /// Tidies up after migrations that are gone. Returns when to look again if there was something to do.
    pub(super) async fn relieve(
        &mut self,
        migration: Option<&NodeMigration>,
        node: &Node,
        attempts: &[Attempt],
    ) -> Result<Option<Duration>, RoundError> {
        let of = migration.map(|migration| migration.spec.migration.uid.as_str());
        let candidate = orphan::prepared_only(attempts, of);
        let gone = match (candidate, migration) {
            (None, _) => false,
            // The controller may be writing it again.
            (Some(_), None) => self.alone_since.get_or_insert_with(Instant::now).elapsed() >= ALONE,
            (Some(attempt), Some(_)) => self.is_gone(attempt).await?,
        };
        if migration.is_some() {
            self.alone_since = None;
        }
        let failed = migration
            .and_then(|migration| migration.status.as_ref())
            .is_some_and(|status| status.phase == NodePhase::Failed);
        match orphan::relief(node, attempts, candidate.filter(|_| gone)) {
            Some(Relief::TakeBack(run)) => {
                tracing::info!(run, "its migration is gone: what was prepared is undone");
                self.take_back(&run).await?;
                Ok(Some(SOON))
            }
            // Nobody knows what a node runs on that needs a person.
            Some(Relief::Patch(_)) if failed => Ok(None),
            Some(Relief::Patch(patch)) => {
                tracing::info!("lifts the cordon of an attempt that is over");
                self.node.patch_node(&patch).await?;
                Ok(Some(Duration::ZERO))
            }
            None => Ok(None),
        }
    }

    /// Whether the migration of an attempt is gone.
    async fn is_gone(&self, attempt: &Attempt) -> Result<bool, ShareError> {
        let Some(name) = &attempt.migration_name else {
            return Ok(false);
        };
        let parent = self.share.parent(name).await?;
        Ok(parent.and_then(|parent| parent.uid()).as_ref() != Some(&attempt.migration))
    }

    async fn take_back(&self, run: &str) -> Result<(), HostError> {
        let Some(now) = self.host.look(run).await? else {
            return Ok(());
        };
        if !now.abort {
            self.host.order(run, Order::Abort, &now.plan.digest()).await?;
        }
        if !now.executor_running {
            self.host.start_executor().await?;
        }
        Ok(())
    }

    /// The last deed before the process ends. Where the objects are gone nobody comes back to the node: what is only
    /// prepared is undone, and the node is made schedulable. A switch that is under way ends by itself.
    pub async fn farewell(&mut self) {
        if let Err(error) = self.try_farewell().await {
            tracing::warn!(%error, "the node could not be put in order before the end");
        }
    }

    async fn try_farewell(&mut self) -> Result<(), RoundError> {
        let attempts = self.host.attempts().await?;
        // The executor ends this pod in the critical section, where nothing may wait for the API server.
        let switches = |attempt: &Attempt| attempt.is_open() && !attempt.is_prepared_only();
        if attempts.iter().any(switches) || !self.share.is_gone().await {
            return Ok(());
        }
        let mut settled = attempts.clone();
        if let Some(orphan) = orphan::prepared_only(&attempts, None) {
            tracing::info!(
                run = orphan.run,
                "everything is gone: what was prepared is undone"
            );
            self.take_back(&orphan.run).await?;
            // Nothing of it concerns the pods: the cordon need not wait for its end.
            settled.retain(|attempt| attempt.run != orphan.run);
        }
        let node = self.node.node().await?;
        if let Some(Relief::Patch(patch)) = orphan::relief(&node, &settled, None) {
            self.node.patch_node(&patch).await?;
        }
        Ok(())
    }
}
