//! How long every text and every list of both definitions may be. What an agent or a stranger with its token writes is
//! held by the controller and shown to people: the API server refuses what exceeds these, whatever its version.
//!
//! Lengths are counted in characters, as the API server does; who writes cuts to as many bytes, and is always within.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// Longest sentence of a status.
pub const SENTENCE: usize = 1024;
/// Longest sentence of a finding.
pub const FINDING: usize = 512;
/// Longest name of what a finding is about.
pub const SUBJECT: usize = 48;
/// Longest description of a step.
pub const STEP: usize = 256;
/// Longest reason why a pod is not evicted.
pub const REASON: usize = 256;
/// Longest path of a program.
pub const PROGRAM: usize = 256;
/// Longest version of a runtime.
pub const VERSION: usize = 128;
/// Most findings and most blocking pods of a status.
pub const LIST: usize = 20;
/// Most steps of a plan in a status.
pub const STEPS: usize = 200;
/// Most phases of a status.
pub const TIMES: usize = 60;
/// Most conditions of a status.
pub const CONDITIONS: usize = 8;
/// Longest diff of a plan in a status.
pub const DIFF: usize = 64 * 1024;
/// Longest message of a RuntimeMigration, which names nodes with their messages.
pub const MESSAGE: usize = 4096;
/// Most nodes that hold a slot; as many as a cluster may have.
pub const SLOTS: usize = 5000;

/// Longest text, by the name of its field, where it is not [`SENTENCE`].
const TEXTS: &[(&str, usize)] = &[
    ("name", 253),
    ("namespace", 253),
    ("uid", 64),
    ("migrationUid", 64),
    ("nodeUid", 64),
    ("code", 64),
    ("subject", SUBJECT),
    ("digest", 128),
    ("version", VERSION),
    ("sandboxImage", 512),
    ("timeout", 32),
    ("confirmWithin", 32),
    ("progress", 32),
    ("maxUnavailable", 8),
    ("key", 317),
    ("operator", 32),
    ("values", 63),
    ("matchLabels", 63),
    ("sha256", 64),
    ("steps", STEP),
    ("reason", REASON),
    ("program", PROGRAM),
    ("remedy", FINDING),
    ("diff", DIFF),
];

/// Longest list or map, by the name of its field, where it is not 100.
const LISTS: &[(&str, usize)] = &[
    ("findings", LIST),
    ("blocking", LIST),
    ("steps", STEPS),
    ("programs", LIST),
    ("times", TIMES),
    ("conditions", CONDITIONS),
    ("activeNodes", SLOTS),
];

/// Bounds every text, list and map of a definition that is not bounded by its type.
pub(super) fn bound(schema: &mut JSONSchemaProps, sentence: usize) {
    bound_field(schema, "", "", sentence);
}

fn bound_field(schema: &mut JSONSchemaProps, parent: &str, name: &str, sentence: usize) {
    let of = |table: &[(&str, usize)], default: usize| {
        let found = table.iter().find(|(field, _)| *field == name);
        i64::try_from(found.map_or(default, |(_, most)| *most)).unwrap_or(i64::MAX)
    };
    let kind = schema.type_.as_deref();
    let text = kind == Some("string") || schema.x_kubernetes_int_or_string == Some(true);
    if text && schema.enum_.is_none() && schema.max_length.is_none() {
        let default = if parent == "findings" { FINDING } else { sentence };
        schema.max_length = Some(match schema.format.as_deref() {
            Some("date-time") => 64,
            _ => of(TEXTS, default),
        });
    }
    if kind == Some("array") && schema.max_items.is_none() {
        schema.max_items = Some(of(LISTS, 100));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        bound_field(items, name, name, sentence);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        schema.max_properties = schema.max_properties.or(Some(of(LISTS, 100)));
        bound_field(values, name, name, sentence);
    }
    for (field, property) in schema.properties.iter_mut().flatten() {
        bound_field(property, name, field, sentence);
    }
}

/// `text`, at most `most` bytes long; what is cut off is replaced by an ellipsis.
pub fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let limit = most.saturating_sub('…'.len_utf8());
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::crd::{self, Cel};

    /// The largest number of characters that a value of this schema may have, and what is not bounded in it.
    fn largest(schema: &JSONSchemaProps, path: &str, open: &mut Vec<String>) -> i64 {
        let most = |bound: Option<i64>, open: &mut Vec<String>| {
            bound.unwrap_or_else(|| {
                open.push(path.to_owned());
                0
            })
        };
        let of_fields: i64 = schema
            .properties
            .iter()
            .flatten()
            .map(|(name, field)| largest(field, &format!("{path}.{name}"), open))
            .sum();
        if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
            return most(schema.max_items, open) * largest(items, &format!("{path}[]"), open);
        }
        if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
            return most(schema.max_properties, open) * largest(values, &format!("{path}{{}}"), open);
        }
        let text =
            schema.type_.as_deref() == Some("string") || schema.x_kubernetes_int_or_string == Some(true);
        match text && schema.enum_.is_none() {
            true => most(schema.max_length, open),
            false => of_fields,
        }
    }

    #[test]
    fn every_text_list_and_map_is_bounded() {
        for cel in [Cel::With, Cel::Without] {
            for crd in crd::all(cel) {
                let schema = crd.spec.versions[0].schema.clone().unwrap();
                let mut open = Vec::new();
                let most = largest(&schema.open_api_v3_schema.unwrap(), "", &mut open);
                assert_eq!(open, Vec::<String>::new(), "{:?}", crd.metadata.name);
                // A RuntimeMigration is written by those who are root on the nodes, and by the controller.
                if crd.spec.names.kind == "NodeMigration" {
                    assert!(most < 256 * 1024, "{most} characters");
                }
            }
        }
    }

    #[test]
    fn what_is_cut_says_so_and_is_within() {
        assert_eq!(cut("short".to_owned(), 5), "short");
        assert_eq!(cut("too long".to_owned(), 6), "too…");
        assert_eq!(cut("äääää".to_owned(), 8), "ää…");
    }
}
