//! This node's share of a migration, its NodeMigration, as the agent reads and reports it, and the RuntimeMigration that
//! it belongs to.

use kube::{
    Api, Resource as _, ResourceExt as _,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use super::identity::FIELD_MANAGER;
use crate::{
    api::{
        migration::RuntimeMigration,
        node_migration::{NodeMigration, NodeMigrationStatus, NodePhase},
        outage,
    },
    plan::redaction::Published,
};

/// What keeps the agent from its NodeMigration.
#[derive(Debug, thiserror::Error)]
#[error("{what} {name}: {error}")]
pub(super) struct ShareError {
    what: &'static str,
    /// Kind and name of the object.
    name: String,
    error: Box<kube::Error>,
}

impl ShareError {
    /// See [`outage::may_pass`].
    pub(super) fn may_pass(&self) -> bool {
        outage::may_pass(&self.error)
    }

    /// Whether the service account may not read it: the role is gone, as when Transship is being uninstalled.
    fn is_refusal(&self) -> bool {
        matches!(&*self.error, kube::Error::Api(status) if status.code == 403)
    }
}

/// The status of a NodeMigration as it leaves the node. `None` if the API server has it.
fn change(migration: &NodeMigration, status: &NodeMigrationStatus) -> Option<Published> {
    let body = |status| {
        Published::of(json!({
            "apiVersion": NodeMigration::api_version(&()),
            "kind": NodeMigration::kind(&()),
            // An object of this name that was made anew is another one, and the server says so.
            "metadata": { "name": migration.name_any(), "uid": migration.uid() },
            "status": status,
        }))
    };
    let new = body(Some(status));
    (body(migration.status.as_ref()) != new).then_some(new)
}

/// The NodeMigration of one node.
#[derive(Debug)]
pub(super) struct Share {
    node: String,
    migrations: Api<NodeMigration>,
    last_phase: Option<NodePhase>,
}

impl Share {
    /// That of this node; `migrations` is the service account's.
    pub(super) fn new(node: String, migrations: Api<NodeMigration>) -> Self {
        Self {
            node,
            migrations,
            last_phase: None,
        }
    }

    /// What the API server has; nothing when the node has none.
    pub(super) async fn read(&self) -> Result<Option<NodeMigration>, ShareError> {
        let read = match self.migrations.get_opt(&self.node).await {
            Err(kube::Error::SerdeError(error)) => {
                tracing::warn!(%error, "the NodeMigration cannot be read; tries without its status");
                self.without_status().await
            }
            read => read,
        };
        read.map_err(|error| self.error("read", error))
    }

    /// The RuntimeMigration of this name; `None` if there is none.
    pub(super) async fn parent(&self, name: &str) -> Result<Option<RuntimeMigration>, ShareError> {
        let api: Api<RuntimeMigration> = Api::all(self.migrations.clone().into_client());
        api.get_opt(name).await.map_err(|error| ShareError {
            what: "read",
            name: format!("RuntimeMigration {name}"),
            error: Box::new(error),
        })
    }

    /// Whether the node has no NodeMigration any more: it, its definition or the right to read it is gone.
    pub(super) async fn is_gone(&self) -> bool {
        match self.read().await {
            Ok(share) => share.is_none(),
            Err(error) => error.is_refusal(),
        }
    }

    /// A status that nobody can read, forged or of another version, must not keep a switch from its commit: it is
    /// written anew, from what the node knows.
    async fn without_status(&self) -> kube::Result<Option<NodeMigration>> {
        let kind = ApiResource::erase::<NodeMigration>(&());
        let api: Api<DynamicObject> = Api::all_with(self.migrations.clone().into_client(), &kind);
        let Some(mut object) = api.get_opt(&self.node).await? else {
            return Ok(None);
        };
        if let Some(data) = object.data.as_object_mut() {
            data.remove("status");
        }
        object
            .try_parse()
            .map(Some)
            .map_err(|error| kube::Error::SerdeError(serde::de::Error::custom(error)))
    }

    /// Logs the phases. Returns whether a phase begins with this status.
    pub(super) fn note(&mut self, status: &NodeMigrationStatus) -> bool {
        let begins = self.last_phase.replace(status.phase) != Some(status.phase);
        if begins {
            tracing::info!(phase = ?status.phase, message = status.message, "enters a phase");
        }
        begins
    }

    /// Writes the status if it is another one, whole, by server-side apply.
    pub(super) async fn report(
        &self,
        migration: &NodeMigration,
        status: &NodeMigrationStatus,
    ) -> Result<(), ShareError> {
        let Some(body) = change(migration, status) else {
            return Ok(());
        };
        self.migrations
            .patch_status(
                &self.node,
                &PatchParams::apply(FIELD_MANAGER).force(),
                &Patch::Apply(body),
            )
            .await
            .map(|_| ())
            .map_err(|error| self.error("report to", error))
    }

    fn error(&self, what: &'static str, error: kube::Error) -> ShareError {
        ShareError {
            what,
            name: format!("NodeMigration {}", self.node),
            error: Box::new(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_status_leaves_the_node_with_a_secret() {
        let mut migration: NodeMigration = serde_json::from_value(json!({
            "metadata": { "name": "w1", "uid": "u" },
            "spec": {
                "migration": { "name": "m", "uid": "m1", "generation": 1 },
                "nodeUid": "n1",
                "action": "Plan",
                "target": { "runtime": "containerd" },
            },
        }))
        .unwrap();
        let status = NodeMigrationStatus {
            message: "the executor says: 3 | token: zq7".to_owned(),
            last_error: Some("cannot fetch https://me:zq7@mirror/a?sig=zq7".to_owned()),
            ..NodeMigrationStatus::default()
        };
        let body = change(&migration, &status).unwrap().to_string();
        assert!(
            !body.contains("zq7") && body.contains("https://…@mirror/a"),
            "{body}"
        );
        // What the API server has is not written again and again.
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        migration.status = serde_json::from_value(body["status"].clone()).unwrap();
        assert_eq!(change(&migration, &status), None);
    }
}
