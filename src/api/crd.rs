//! The custom resource definitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
};
use kube::CustomResourceExt as _;
use serde_json::json;

use super::bounds;
use super::migration::RuntimeMigration;
use super::node_migration::NodeMigration;
use super::validation;

/// Whether a definition carries validation rules in CEL. Servers up to 1.22 refuse them as an unknown field, 1.23
/// and 1.24 drop them, and from 1.25 on they are evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cel {
    /// With the rules.
    With,
    /// Without; the controller applies the same rules.
    Without,
}

/// Both definitions.
pub fn all(cel: Cel) -> [CustomResourceDefinition; 2] {
    let mut migration = RuntimeMigration::crd();
    for version in &mut migration.spec.versions {
        if let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        {
            if let Some(from) = field(schema, &["spec", "target", "from"]) {
                // A default that the server wrote down would stand next to the member that a later `kubectl apply` adds.
                from.default = None;
            }
            if cel == Cel::With {
                schema.x_kubernetes_validations = Some(validation::cel());
            }
        }
    }
    let mut node = NodeMigration::crd();
    for (crd, sentence) in [(&mut migration, bounds::MESSAGE), (&mut node, bounds::SENTENCE)] {
        let schemas = crd
            .spec
            .versions
            .iter_mut()
            .filter_map(|version| version.schema.as_mut());
        for schema in schemas.filter_map(|schema| schema.open_api_v3_schema.as_mut()) {
            if let Some(status) = field(schema, &["status"]) {
                explained(status);
                // What nobody has reported on yet has a phase, too.
                status.default = Some(JSON(json!({ "phase": "Pending" })));
            }
            bounds::bound(schema, sentence);
        }
    }
    [migration, node]
}

/// `kubectl explain` shows no field of an object that may be null. What is absent is left out instead.
fn explained(schema: &mut JSONSchemaProps) {
    if schema.properties.is_some() {
        schema.nullable = None;
    }
    for (_, field) in schema.properties.iter_mut().flatten() {
        explained(field);
    }
}

fn field<'a>(schema: &'a mut JSONSchemaProps, path: &[&str]) -> Option<&'a mut JSONSchemaProps> {
    path.iter()
        .try_fold(schema, |schema, name| schema.properties.as_mut()?.get_mut(*name))
}

/// Both definitions as YAML documents.
///
/// # Errors
/// A value that YAML cannot hold; a mistake in the types.
pub fn yaml(cel: Cel) -> Result<String, serde_saphyr::ser::Error> {
    let mut text = String::new();
    for crd in all(cel) {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(&crd)?);
    }
    Ok(text)
}
