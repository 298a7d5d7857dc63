//! Docker's `daemon.json`: read, and the one setting added that a kubelet depends on.

use serde_json::{Map, Value};

use super::parse::{self, ParseError};

/// A `daemon.json` that is no JSON object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DaemonJsonError {
    /// Not JSON.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// JSON, but no object.
    #[error("the file holds no JSON object")]
    NoObject,
    /// There are execution options already, whose merging is not ours.
    #[error("the file has exec-opts; set native.cgroupdriver={0} among them")]
    HasOptions(String),
    /// The edited text does not read as it should.
    #[error("after adding exec-opts the file would not read as meant; edit it by hand")]
    NotAsMeant,
}

/// What some editors begin a file with.
pub const BYTE_ORDER_MARK: char = '\u{feff}';

/// The settings by key. An empty file is an empty object, and a byte order mark is passed over, as by Docker from 23.0 on.
pub fn parse(text: &str) -> Result<Map<String, Value>, DaemonJsonError> {
    let text = text.trim_start_matches(BYTE_ORDER_MARK);
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    match parse::json(text)? {
        Value::Object(settings) => Ok(settings),
        _ => Err(DaemonJsonError::NoObject),
    }
}

/// The text with Docker's cgroup driver set: one line right after the first brace, all others as they are. `None`
/// for the text stands for a file that does not exist.
pub fn set_cgroup_driver(text: Option<&str>, driver: &str) -> Result<String, DaemonJsonError> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("{\n}\n");
    let mut settings = parse(text)?;
    if settings.contains_key(OPTIONS) {
        return Err(DaemonJsonError::HasOptions(driver.to_owned()));
    }
    let options = Value::from(vec![format!("native.cgroupdriver={driver}")]);
    let (head, rest) = text.split_once('{').ok_or(DaemonJsonError::NoObject)?;
    let comma = if settings.is_empty() { "" } else { "," };
    let newline = if rest.starts_with(['\n', '\r']) { "" } else { "\n" };
    let edited = format!("{head}{{\n  \"{OPTIONS}\": {options}{comma}{newline}{rest}");
    settings.insert(OPTIONS.to_owned(), options);
    if parse(&edited)? == settings {
        Ok(edited)
    } else {
        Err(DaemonJsonError::NotAsMeant)
    }
}

const OPTIONS: &str = "exec-opts";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_is_one_line_more() {
        let set = |text| set_cgroup_driver(text, "systemd");
        let line = "{\n  \"exec-opts\": [\"native.cgroupdriver=systemd\"]";
        assert_eq!(set(None).unwrap(), format!("{line}\n}}\n"));
        assert_eq!(
            set(Some("{\n\t\"a\": {}\n}")).unwrap(),
            format!("{line},\n\t\"a\": {{}}\n}}")
        );
        assert_eq!(set(Some("{\"a\": 1}")).unwrap(), format!("{line},\n\"a\": 1}}"));
        assert_eq!(set(Some("{}")).unwrap(), format!("{line}\n}}"));
        assert!(matches!(
            set(Some("{\"exec-opts\": []}")),
            Err(DaemonJsonError::HasOptions(_))
        ));
    }

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
