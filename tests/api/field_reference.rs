//! The reference of the API's fields (`docs/api.md`), made from the definitions.

use std::fmt::Write as _;

use serde_json::{Map, Value};
use transship::api::crd::{self, Cel};

const HEAD: &str = "# The fields of the API

Generated from the definitions in `crds/`; `UPDATE=1 cargo test --test api crds::` rewrites it. `kubectl explain` shows the same
texts. `a[].b` is the field `b` of each member of the list `a`; *required* holds within the object that the field belongs to.
";

/// The page.
pub(crate) fn page() -> String {
    let mut page = HEAD.to_owned();
    for definition in crd::all(Cel::With) {
        let definition = serde_json::to_value(definition).unwrap();
        resource(&definition["spec"], &mut page);
    }
    page
}

fn resource(spec: &Value, page: &mut String) {
    let (kind, version) = (text(&spec["names"], "kind"), &spec["versions"][0]);
    let schema = &version["schema"]["openAPIV3Schema"];
    write!(
        page,
        "\n## {kind}\n\n`{}/{}`, scope `{}`; `kubectl get {}`, short `{}`. {}\n",
        text(spec, "group"),
        text(version, "name"),
        text(spec, "scope"),
        text(&spec["names"], "plural"),
        text(&spec["names"]["shortNames"], 0),
        line(text(schema, "description")),
    )
    .unwrap();
    for part in ["spec", "status"] {
        write!(page, "\n### {kind}: {part}\n\n").unwrap();
        page.push_str("| Field | Type | Default | Limits | Description |\n|---|---|---|---|---|\n");
        fields(&schema["properties"][part], part, page);
    }
    rules(schema, kind, page);
}

/// A text in an object or a list.
fn text(value: &Value, index: impl serde_json::value::Index) -> &str {
    value.get(index).and_then(Value::as_str).unwrap_or_default()
}

/// A row for each field under this one.
fn fields(schema: &Value, path: &str, page: &mut String) {
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        row(
            field,
            &path,
            required.iter().any(|required| required == name),
            page,
        );
        let (inner, path) = match text(field, "type") {
            "array" => (&field["items"], format!("{path}[]")),
            _ => (field, path),
        };
        fields(inner, &path, page);
    }
}

fn row(field: &Value, path: &str, required: bool, page: &mut String) {
    // The defaults of an object's fields stand in their own rows.
    let default = match field.get("default") {
        None | Some(Value::Object(_)) => String::new(),
        Some(value) => code(&value.to_string()),
    };
    let mut limits = limits(field);
    if required {
        limits.insert(0, "required".to_owned());
    }
    if field["type"] == "array" {
        let inner = self::limits(&field["items"]).into_iter();
        limits.extend(inner.map(|limit| format!("each: {limit}")));
    }
    writeln!(
        page,
        "| {} | {} | {default} | {} | {} |",
        code(path),
        kind(field),
        limits.join("; "),
        line(text(field, "description")),
    )
    .unwrap();
}

fn kind(field: &Value) -> String {
    if field["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match text(field, "type") {
        "array" => format!("list of {}", kind(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", kind(&field["additionalProperties"]))
        }
        other => other.to_owned(),
    }
}

fn limits(field: &Value) -> Vec<String> {
    let mut limits = Vec::new();
    if let Some(values) = field["enum"].as_array() {
        let values: Vec<String> = values
            .iter()
            .map(|value| code(value.as_str().unwrap_or(&value.to_string())))
            .collect();
        limits.push(format!("one of {}", values.join(", ")));
    }
    let number = |key: &str| field[key].as_f64().map(|number| number.to_string());
    let named = [
        ("minimum", "at least ", ""),
        ("maximum", "at most ", ""),
        ("minLength", "at least ", " characters"),
        ("maxLength", "at most ", " characters"),
        ("minItems", "at least ", " members"),
        ("maxItems", "at most ", " members"),
        ("maxProperties", "at most ", " entries"),
    ];
    for (key, before, after) in named {
        limits.extend(number(key).map(|number| format!("{before}{number}{after}")));
    }
    if field.get("pattern").is_some() {
        limits.push(code(text(field, "pattern")));
    }
    if field["format"] == "date-time" {
        limits.push("a time (RFC 3339)".to_owned());
    }
    let one: Vec<String> = field["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| code(text(&one["required"], 0)))
        .collect();
    if !one.is_empty() {
        limits.push(format!("exactly one of {}", one.join(", ")));
    }
    limits
}

/// What the server checks beyond single fields (CEL).
fn rules(schema: &Value, kind: &str, page: &mut String) {
    let Some(rules) = schema["x-kubernetes-validations"].as_array() else {
        return;
    };
    write!(page, "\n### {kind}: rules\n\nKubernetes 1.25 and later refuse what breaks one of them; on older servers the controller reports it.\n\n").unwrap();
    let mut seen = Map::new();
    for rule in rules {
        let message = line(text(rule, "message"));
        if seen.insert(message.clone(), Value::Null).is_none() {
            writeln!(page, "- {message}").unwrap();
        }
    }
}

/// A text as a cell of a table or an item of a list.
fn line(text: &str) -> String {
    text.split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

/// A bar ends a cell even within backticks, unless a backslash stands before it.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}
