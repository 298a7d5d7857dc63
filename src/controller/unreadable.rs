//! Objects that the API server holds and that this version cannot read: written under another version's definitions,
//! or forged. One of them must not stop the watch of all others, so it is told on the object itself.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::{Api, Client, Resource, ResourceExt as _};
use kube_runtime::events::{Event, EventType, Recorder};
use serde_json::json;

use super::error::{Error, IntoError as _};
use crate::api::migration::RuntimeMigration;

/// Logs an object that cannot be read.
pub(super) fn log<K: Resource<DynamicType = ()>>(object: &DeserializeGuard<K>) {
    if let Err(invalid) = &object.0 {
        tracing::error!(
            kind = %K::kind(&()), name = object.name_any(), error = invalid.error,
            "an object cannot be read; it is left as it is"
        );
    }
}

/// Says on a RuntimeMigration that it cannot be read, once for each error.
pub(super) async fn tell(client: &Client, recorder: &Recorder, invalid: &InvalidObject) -> Result<(), Error> {
    let guard = DeserializeGuard::<RuntimeMigration>(Err(invalid.clone()));
    let name = guard.name_any();
    let message = format!(
        "nothing is started: this version cannot read the object ({})",
        invalid.error
    );
    let kind = ApiResource::erase::<RuntimeMigration>(&());
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &kind);
    let doing = || format!("telling RuntimeMigration {name} that it cannot be read");
    let now = api.get_opt(&name).await.during(doing)?;
    if now.is_none_or(|now| now.data["status"]["message"] == message) {
        return Ok(());
    }
    log(&guard);
    let condition = |kind: &str, status: &str| Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: "Unreadable".to_owned(),
        message: message.clone(),
        observed_generation: invalid.metadata.generation,
        last_transition_time: Time(Timestamp::now()),
    };
    let conditions = [condition("Progressing", "False"), condition("Degraded", "True")];
    let patch = json!({ "status": { "message": message, "conditions": conditions } });
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .during(doing)?;
    let event = Event {
        type_: EventType::Warning,
        reason: "Unreadable".to_owned(),
        note: Some(message.chars().take(250).collect()),
        action: "Migrate".to_owned(),
        secondary: None,
    };
    if let Err(error) = recorder.publish(&event, &guard.object_ref(&())).await {
        tracing::warn!(name, %error, "an event could not be written");
    }
    Ok(())
}
