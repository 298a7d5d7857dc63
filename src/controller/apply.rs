//! Carries a decision out. The status comes first: it claims the slots, and a conflict there means that another
//! controller, or a newer spec, was faster; then nothing of the decision happens.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::events::{Event, Recorder};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::json;

use super::error::{Error, IntoError as _};
use super::observe::{self, World};
use super::report::Happened;
use super::rollout::{Ask, Decision, Write};
use super::seen::Seen;
use crate::api::migration::{RuntimeMigration, RuntimeMigrationStatus};
use crate::api::node_migration::{Action, MigrationRef, NodeMigration, NodeMigrationSpec};
use crate::api::request::DrainMode;
use crate::api::{AGENT_LABEL, FINALIZER, RETRY_ANNOTATION};

/// Who owns what the controller writes.
pub(super) const FIELD_MANAGER: &str = "transship-controller";

fn post() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}

fn patching() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// What the agent's label is set to: the migration's name, cut to a valid label value.
pub(super) fn label_value(migration: &RuntimeMigration) -> String {
    const LONGEST: usize = 63;
    let name = migration.name_any();
    if name.len() <= LONGEST {
        return name;
    }
    // Long names that begin alike must not be taken for each other.
    let uid = migration.uid().unwrap_or_default();
    let own: String = uid.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
    format!("{}-{own}", &name[..LONGEST - 13])
}

/// Writes a status, on the condition that the migration is still as it was seen.
pub(super) async fn claim(
    client: &Client,
    migration: &RuntimeMigration,
    status: RuntimeMigrationStatus,
) -> Result<(), Error> {
    let api: Api<RuntimeMigration> = Api::all(client.clone());
    let name = migration.name_any();
    let wanted = RuntimeMigration {
        status: Some(status),
        ..migration.clone()
    };
    api.replace_status(&name, &post(), &wanted)
        .await
        .during(|| format!("writing the status of RuntimeMigration {name}"))?;
    Ok(())
}

/// Writes the NodeMigrations and the labels of a decision.
pub(super) async fn apply(
    client: &Client,
    migration: &RuntimeMigration,
    world: &World,
    seen: &Seen,
    decision: &Decision,
) -> Result<(), Error> {
    let shares: Api<NodeMigration> = Api::all(client.clone());
    for name in &decision.forget {
        let uid = observe::readable(&world.shares)
            .find(|share| share.name_any() == *name)
            .and_then(|share| share.uid());
        let exactly = DeleteParams {
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match shares.delete(name, &exactly).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => {
                result.during(|| format!("deleting NodeMigration {name}, whose node is gone"))?;
            }
        }
    }
    for (name, wanted) in &decision.writes {
        write(&shares, migration, world, seen, name, *wanted).await?;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let value = label_value(migration);
    let active: BTreeSet<&str> = decision.slots.iter().map(|slot| slot.name.as_str()).collect();
    for (name, node) in &seen.nodes {
        let has = node.label.as_deref() == Some(value.as_str());
        let wants = active.contains(name.as_str());
        if has != wants {
            label(&nodes, name, wants.then_some(value.as_str())).await?;
        }
    }
    Ok(())
}

async fn write(
    shares: &Api<NodeMigration>,
    migration: &RuntimeMigration,
    world: &World,
    seen: &Seen,
    name: &str,
    wanted: Write,
) -> Result<(), Error> {
    let before = observe::readable(&world.shares).find(|share| share.name_any() == name);
    let doing = || format!("writing NodeMigration {name}");
    let mut object = match (before, wanted) {
        (Some(before), _) => NodeMigration::clone(before),
        (None, Write::Ask(ask)) => NodeMigration::new(name, spec(migration, seen, name, ask)),
        (None, Write::Abort | Write::Proceed(_) | Write::Evict) => return Ok(()),
    };
    match wanted {
        Write::Ask(ask) => {
            let asked = object.spec.clone();
            object.spec = spec(migration, seen, name, ask);
            let again = before.is_some()
                && asked.node_uid == object.spec.node_uid
                && asked.migration.uid == object.spec.migration.uid
                && asked.migration.generation == object.spec.migration.generation;
            // What is on the node of the attempt before stays there under its name.
            object.spec.attempt = if again { asked.attempt + 1 } else { 0 };
            object.annotations_mut().remove(RETRY_ANNOTATION);
            object.metadata.owner_references = migration.controller_owner_ref(&()).map(|owner| vec![owner]);
        }
        Write::Abort => object.spec.action = Action::Abort,
        Write::Proceed(proceed) => object.spec.proceed = proceed,
        Write::Evict => {
            (object.spec.drain.mode, object.spec.no_other_node) = (DrainMode::Evict, false);
            object.spec.proceed = false;
        }
    }
    match before {
        Some(_) => shares.replace(name, &post(), &object).await,
        None => shares.create(&post(), &object).await,
    }
    .during(doing)?;
    Ok(())
}

fn spec(migration: &RuntimeMigration, seen: &Seen, name: &str, ask: Ask) -> NodeMigrationSpec {
    let spec = &migration.spec;
    let mut drain = spec.drain.clone();
    if ask.no_other_node {
        drain.mode = DrainMode::InPlace;
    }
    NodeMigrationSpec {
        migration: MigrationRef {
            name: migration.name_any(),
            uid: seen.uid.clone(),
            generation: seen.generation,
        },
        node_uid: seen
            .nodes
            .get(name)
            .map(|node| node.uid.clone())
            .unwrap_or_default(),
        action: ask.action,
        target: spec.target.clone(),
        drain,
        no_other_node: ask.no_other_node,
        attempt: 0,
        proceed: false,
        images: spec.images.clone(),
        preflight: spec.preflight.clone(),
        rollback: spec.rollback.clone(),
    }
}

/// Sets or removes the agent's label; a node that is gone has none.
async fn label(nodes: &Api<Node>, name: &str, value: Option<&str>) -> Result<(), Error> {
    let patch = json!({ "metadata": { "labels": { AGENT_LABEL: value } } });
    match nodes
        .patch_metadata(name, &patching(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop).during(|| format!("labelling Node {name}")),
    }
}

/// Adds or removes the finalizer, on the condition that the migration is still as it was seen.
pub(super) async fn finalizer(
    client: &Client,
    migration: &RuntimeMigration,
    wanted: bool,
) -> Result<(), Error> {
    let api: Api<RuntimeMigration> = Api::all(client.clone());
    let name = migration.name_any();
    let mut finalizers: Vec<String> = migration
        .finalizers()
        .iter()
        .filter(|f| *f != FINALIZER)
        .cloned()
        .collect();
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    let patch = json!({ "metadata": {
        "finalizers": finalizers,
        "resourceVersion": migration.metadata.resource_version,
    } });
    match api
        .patch_metadata(&name, &patching(), &Patch::Merge(&patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result
            .map(drop)
            .during(|| format!("writing the finalizer of RuntimeMigration {name}")),
    }
}

/// Tells what happened, on the migration and on the node. An event that cannot be written is logged and lost.
pub(super) async fn tell(recorder: &Recorder, migration: &RuntimeMigration, all: &[Happened]) {
    let of_migration = migration.object_ref(&());
    for Happened {
        kind,
        reason,
        note,
        node,
    } in all
    {
        let event = |secondary| Event {
            type_: *kind,
            reason: (*reason).to_owned(),
            // The API refuses notes from 1024 bytes on.
            note: Some(note.chars().take(250).collect()),
            action: "Migrate".to_owned(),
            secondary,
        };
        let of_node = node.as_ref().map(|name| ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(name.clone()),
            // What the kubelet and `kubectl describe node` use for a node's events.
            uid: Some(name.clone()),
            ..ObjectReference::default()
        });
        let mut results = vec![recorder.publish(&event(of_node.clone()), &of_migration).await];
        if let Some(of_node) = of_node {
            results.push(
                recorder
                    .publish(&event(Some(of_migration.clone())), &of_node)
                    .await,
            );
        }
        for error in results.into_iter().filter_map(Result::err) {
            tracing::warn!(reason, %error, "an event could not be written");
        }
    }
}
