//! Docker's `daemon.json`, read only.

use serde_json::{Map, Value};

/// A `daemon.json` that is no JSON object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DaemonJsonError {
    /// No JSON; serde_json's words end with the line and the column.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but no object.
    #[error("the file holds no JSON object")]
    NoObject,
}

/// The settings by key. An empty file is an empty object, as for Docker.
pub fn parse(text: &str) -> Result<Map<String, Value>, DaemonJsonError> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_str(text).map_err(|error| DaemonJsonError::Syntax(error.to_string()))? {
        Value::Object(settings) => Ok(settings),
        _ => Err(DaemonJsonError::NoObject),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_a_position() {
        let error = parse("{\n  \"log-driver\": \"json-file\"\n  \"data-root\": 1\n}")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3"), "{error}");
        assert_eq!(parse("[]"), Err(DaemonJsonError::NoObject));
        assert!(parse(" \n").unwrap().is_empty());
    }
}
