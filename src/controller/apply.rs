//! Carries a decision out. The status comes first: it claims the slots, and a conflict there means that another
//! controller, or a newer spec, was faster; then nothing of the decision happens.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Node, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, Resource as _, ResourceExt as _};
use kube_runtime::events::{Event, EventType, Recorder};
use serde_json::json;

use super::error::{Error, IntoError as _};
use super::observe::{self, World};
use super::report::Happened;
use super::rollout::{Ask, Decision, Write};
use super::seen::Seen;
use super::sweep::{self, Act};
use crate::api::migration::{RuntimeMigration, RuntimeMigrationStatus, Slot};
use crate::api::node_migration::{Action, MigrationRef, NodeMigration, NodeMigrationSpec};
use crate::api::request::{CgroupDriverChoice, DrainMode, Origin, Runtime, Target};
use crate::api::{
    AGENT_LABEL, FINALIZER, RETRY_ANNOTATION,
    bounds::{self, cut},
};

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
pub(super) fn label_value(name: &str, uid: &str) -> String {
    const LONGEST: usize = 63;
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    // Long names that begin alike must not be taken for each other.
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
    let mut status = status;
    for text in status
        .conditions
        .iter_mut()
        .map(|condition| &mut condition.message)
    {
        *text = cut(std::mem::take(text), bounds::MESSAGE);
    }
    status.message = cut(status.message, bounds::MESSAGE);
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
        let share = observe::readable(&world.shares).find(|share| share.name_any() == *name);
        if let Some(share) = share {
            hold(&shares, share, false).await?;
        }
        delete(&shares, name, share.and_then(|share| share.uid())).await?;
    }
    for (name, wanted) in &decision.writes {
        write(&shares, migration, world, seen, &decision.slots, (name, *wanted)).await?;
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let value = label_value(&migration.name_any(), &seen.uid);
    let active: BTreeSet<&str> = decision.slots.iter().map(|slot| slot.name.as_str()).collect();
    for share in observe::readable(&world.shares).filter(|share| share.spec.migration.uid == seen.uid) {
        let name = share.name_any();
        let changed =
            decision.writes.iter().any(|(written, _)| *written == name) || decision.forget.contains(&name);
        if !changed {
            let may_change_its_node = share.spec.action != Action::Plan;
            // A node that is broken stays cordoned: its NodeMigration says so until a person uncordons it.
            let node = seen.nodes.get(&name);
            let cordoned = node.is_some_and(|node| node.cordoned_for.as_ref() == Some(&seen.uid));
            let wanted = may_change_its_node && (active.contains(name.as_str()) || cordoned);
            hold(&shares, share, wanted).await?;
        }
    }
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
    slots: &[Slot],
    (name, wanted): (&str, Write),
) -> Result<(), Error> {
    let before = observe::readable(&world.shares).find(|share| share.name_any() == name);
    let doing = || format!("writing NodeMigration {name}");
    let mut object = match (before, wanted) {
        (Some(before), _) => NodeMigration::clone(before),
        (None, Write::Ask(ask)) => NodeMigration::new(name, spec(migration, seen, slots, name, ask)),
        // Somebody took it away; what was begun is brought to its end.
        (None, Write::Abort) => {
            let ask = Ask {
                action: Action::Abort,
                no_other_node: false,
            };
            NodeMigration::new(name, spec(migration, seen, slots, name, ask))
        }
        (None, Write::Proceed(_) | Write::Evict) => return Ok(()),
    };
    match wanted {
        Write::Ask(ask) => {
            let asked = object.spec.clone();
            object.spec = spec(migration, seen, slots, name, ask);
            let again = before.is_some()
                && asked.node_uid == object.spec.node_uid
                && asked.migration.uid == object.spec.migration.uid
                && asked.migration.generation == object.spec.migration.generation;
            // What is on the node of the attempt before stays there under its name.
            object.spec.attempt = if again { asked.attempt + 1 } else { 0 };
            object.annotations_mut().remove(RETRY_ANNOTATION);
        }
        Write::Abort => object.spec.action = Action::Abort,
        Write::Proceed(proceed) => object.spec.proceed = proceed,
        Write::Evict => {
            (object.spec.drain.mode, object.spec.no_other_node) = (DrainMode::Evict, false);
            object.spec.proceed = false;
        }
    }
    if before.is_none() || matches!(wanted, Write::Ask(_)) {
        let may_change_its_node = object.spec.action != Action::Plan;
        set_finalizer(&mut object, may_change_its_node);
        object.metadata.owner_references = owner(migration);
    }
    leave_owners(&mut object);
    match before {
        Some(_) => shares.replace(name, &post(), &object).await,
        None => shares.create(&post(), &object).await,
    }
    .during(doing)?;
    Ok(())
}

/// `slots` are the slots that the decision leaves.
fn spec(
    migration: &RuntimeMigration,
    seen: &Seen,
    slots: &[Slot],
    name: &str,
    ask: Ask,
) -> NodeMigrationSpec {
    let spec = &migration.spec;
    let mut drain = spec.drain.clone();
    drain.mode = if ask.no_other_node {
        DrainMode::InPlace.of(seen.is_upgrade(name))
    } else {
        seen.drain_of(name)
    };
    NodeMigrationSpec {
        migration: MigrationRef {
            name: migration.name_any(),
            uid: seen.uid.clone(),
            // A NodeMigration that went missing is written anew for the attempt that it was written for.
            generation: slots
                .iter()
                .find(|slot| slot.name == name)
                .map_or(seen.generation, |slot| slot.generation),
        },
        node_uid: seen
            .nodes
            .get(name)
            .map(|node| node.uid.clone())
            .unwrap_or_default(),
        action: ask.action,
        target: spec.target.clone(),
        source: spec.source.clone(),
        drain,
        no_other_node: ask.no_other_node,
        attempt: 0,
        proceed: false,
        images: spec.images.clone(),
        preflight: spec.preflight.clone(),
        approved_plans: spec.approved_plans.clone(),
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

/// The owner of a NodeMigration. A deletion of the migration in the foreground waits for it.
fn owner(migration: &RuntimeMigration) -> Option<Vec<OwnerReference>> {
    let mut owner = migration.controller_owner_ref(&())?;
    owner.block_owner_deletion = Some(true);
    Some(vec![owner])
}

fn set_finalizer(share: &mut NodeMigration, wanted: bool) {
    let finalizers = share.finalizers_mut();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if wanted {
        finalizers.push(FINALIZER.to_owned());
    }
}

/// Adds the finalizer to a NodeMigration or takes it off, on the condition that the object is still as it was seen. The
/// API server refuses a new finalizer on an object that is being deleted.
async fn hold(shares: &Api<NodeMigration>, share: &NodeMigration, wanted: bool) -> Result<(), Error> {
    let refused = wanted && share.metadata.deletion_timestamp.is_some();
    if sweep::is_held(share) == wanted || refused {
        return Ok(());
    }
    let mut changed = share.clone();
    set_finalizer(&mut changed, wanted);
    replace(shares, &changed).await
}

/// The store keeps of an object's field managers only their times. Sent back, they would take the fields of the status
/// from the agent, which could then not remove any; absent, the server keeps what it has.
fn leave_owners(share: &mut NodeMigration) {
    share.metadata.managed_fields = None;
}

/// Writes a NodeMigration on the condition that it is still as it was seen; one that is gone stays so.
async fn replace(shares: &Api<NodeMigration>, share: &NodeMigration) -> Result<(), Error> {
    let name = share.name_any();
    let mut whole = share.clone();
    leave_owners(&mut whole);
    match shares.replace(&name, &post(), &whole).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result
            .map(drop)
            .during(|| format!("writing NodeMigration {name}")),
    }
}

async fn delete(shares: &Api<NodeMigration>, name: &str, uid: Option<String>) -> Result<(), Error> {
    let exactly = DeleteParams {
        preconditions: Some(Preconditions {
            uid,
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match shares.delete(name, &exactly).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result
            .map(drop)
            .during(|| format!("deleting NodeMigration {name}")),
    }
}

/// Forgets migrations that are gone although the watch did not say so: it ends without a word when their definition is
/// deleted. Asked only for migrations whose NodeMigrations are being deleted.
pub(super) async fn forget_gone(client: &Client, world: &mut World) {
    let api: Api<RuntimeMigration> = Api::all(client.clone());
    let asked: BTreeMap<String, String> = observe::readable(&world.shares)
        .filter(|share| share.metadata.deletion_timestamp.is_some() && sweep::is_held(share))
        .map(|share| {
            (
                share.spec.migration.uid.clone(),
                share.spec.migration.name.clone(),
            )
        })
        .collect();
    for (uid, name) in asked {
        match exists(&api, &name, &uid).await {
            Ok(true) => {}
            Ok(false) => world.migrations.retain(|m| m.meta().uid.as_ref() != Some(&uid)),
            Err(error) => tracing::debug!(name, %error, "a RuntimeMigration could not be read"),
        }
    }
}

/// Whether the API server has this very migration. Without the definition, which it calls not found in another form, it
/// has none.
async fn exists(api: &Api<RuntimeMigration>, name: &str, uid: &str) -> Result<bool, Error> {
    match api.get_metadata(name).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        read => {
            let present = read.during(|| format!("reading RuntimeMigration {name}"))?;
            Ok(present.metadata.uid.as_deref() == Some(uid))
        }
    }
}

/// Does what is to be done about what no migration answers for.
pub(super) async fn sweep(
    client: &Client,
    recorder: &Recorder,
    world: &World,
    acts: Vec<Act>,
) -> Result<(), Error> {
    let shares: Api<NodeMigration> = Api::all(client.clone());
    let nodes: Api<Node> = Api::all(client.clone());
    let migrations: Api<RuntimeMigration> = Api::all(client.clone());
    let share = |name: &str| observe::readable(&world.shares).find(|share| share.name_any() == name);
    for act in acts {
        tracing::info!(?act, "no RuntimeMigration answers for this");
        match act {
            Act::Delete { name, uid, migration } => {
                // The watches do not arrive together: the API server itself is asked.
                if !exists(&migrations, &migration.0, &migration.1).await? {
                    delete(&shares, &name, Some(uid)).await?;
                }
            }
            Act::Abort(name) => {
                if let Some(mut aborted) = share(&name).cloned() {
                    aborted.spec.action = Action::Abort;
                    replace(&shares, &aborted).await?;
                }
            }
            Act::Release(name) => {
                // The label first: nobody looks for it once the object is gone.
                label(&nodes, &name, None).await?;
                if let Some(share) = share(&name) {
                    hold(&shares, share, false).await?;
                }
            }
            Act::Label(name, value) => label(&nodes, &name, value.as_deref()).await?,
            Act::Adopt {
                node,
                node_uid,
                migration,
                migration_uid,
            } => {
                let all = match migrations.list_metadata(&ListParams::default()).await {
                    // Their definition is gone, and with it all of them.
                    Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
                    listed => listed.during(|| "listing RuntimeMigrations".to_owned())?.items,
                };
                if all
                    .iter()
                    .all(|present| present.uid().as_ref() != Some(&migration_uid))
                {
                    let adopted = last_share(&node, node_uid, migration, migration_uid);
                    match shares.create(&post(), &adopted).await {
                        Err(kube::Error::Api(status)) if status.code == 409 => {}
                        result => {
                            result.during(|| format!("writing NodeMigration {node}"))?;
                        }
                    }
                }
            }
            Act::Open {
                node,
                migration,
                message,
            } => {
                let note = format!(
                    "RuntimeMigration {migration} was deleted and left the node cordoned; repair it, then \
                     `kubectl uncordon {node}`. Its agent says: {message}"
                );
                publish(
                    recorder,
                    EventType::Warning,
                    "NodeLeftCordoned",
                    &note,
                    &of_node(&node),
                    None,
                )
                .await;
            }
        }
    }
    Ok(())
}

/// What makes the agent of a node settle it after a migration of which nothing else is left.
fn last_share(node: &str, node_uid: String, migration: String, migration_uid: String) -> NodeMigration {
    let spec = NodeMigrationSpec {
        migration: MigrationRef {
            name: migration,
            uid: migration_uid,
            generation: 1,
        },
        node_uid,
        action: Action::Abort,
        // An abort goes nowhere.
        target: Target {
            runtime: Runtime::DEFAULT_TARGET,
            version: None,
            from: Origin::default(),
            sandbox_image: None,
            cgroup_driver: CgroupDriverChoice::default(),
            keep_log_limits: false,
        },
        source: Default::default(),
        drain: Default::default(),
        no_other_node: false,
        attempt: 0,
        proceed: false,
        images: Default::default(),
        preflight: Default::default(),
        approved_plans: Default::default(),
        rollback: Default::default(),
    };
    let mut share = NodeMigration::new(node, spec);
    set_finalizer(&mut share, true);
    share
}

/// Tells what happened, on the migration and on the node.
pub(super) async fn tell(recorder: &Recorder, migration: &RuntimeMigration, all: &[Happened]) {
    let of_migration = migration.object_ref(&());
    for Happened {
        kind,
        reason,
        note,
        node,
    } in all
    {
        let of_node = node.as_deref().map(of_node);
        publish(recorder, *kind, reason, note, &of_migration, of_node.clone()).await;
        if let Some(of_node) = of_node {
            publish(
                recorder,
                *kind,
                reason,
                note,
                &of_node,
                Some(of_migration.clone()),
            )
            .await;
        }
    }
}

/// What the kubelet and `kubectl describe node` use for a node's events.
fn of_node(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

/// Writes an event. One that cannot be written is logged and lost.
async fn publish(
    recorder: &Recorder,
    kind: EventType,
    reason: &str,
    note: &str,
    regarding: &ObjectReference,
    secondary: Option<ObjectReference>,
) {
    let event = Event {
        type_: kind,
        reason: reason.to_owned(),
        // The API refuses notes from 1024 bytes on.
        note: Some(note.chars().take(250).collect()),
        action: "Migrate".to_owned(),
        secondary,
    };
    if let Err(error) = recorder.publish(&event, regarding).await {
        tracing::warn!(reason, %error, "an event could not be written");
    }
}
