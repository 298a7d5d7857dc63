//! Top-level scalars of other people's YAML: `containerRuntimeEndpoint` of a KubeletConfiguration or of kubeadm's
//! `instance-config.yaml`, `runtime-endpoint` and `image-endpoint` of `/etc/crictl.yaml`.
//!
//! It accepts what the kubelet's own reader accepts: JSON, a key that stands there twice (the last value counts), and
//! documents after the first, which are not read.

use serde_json::Value;

use super::{
    json,
    parse::{self, ParseError},
};

/// A file that cannot be read, or not be edited safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    /// Not YAML.
    #[error(transparent)]
    Syntax(#[from] ParseError),
    /// YAML, but not a block mapping at the top.
    #[error("the file is not a mapping with one key per line; write it in that form")]
    NoMapping,
    /// A value that is more than a scalar on one line.
    #[error("line {line}: the value of {key} is not a plain text on one line; edit it by hand")]
    OddValue {
        /// The key.
        key: String,
        /// Line number from 1.
        line: usize,
    },
    /// The edited text does not read as it should.
    #[error("after setting {key} the file would not read as meant; edit it by hand")]
    NotAsMeant {
        /// The key.
        key: String,
    },
}

/// The file as data; an empty file is an empty mapping.
pub fn parse(text: &str) -> Result<Value, YamlError> {
    if let Some(found) = json::parse(text) {
        return Ok(Value::Object(found));
    }
    let (text, _) = first_document(text);
    match parse::lenient_yaml::<Value>(text).map(Option::unwrap_or_default) {
        Ok(Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        Ok(parsed) => Ok(parsed),
        Err(_)
            if text
                .lines()
                .all(|line| line.trim().is_empty() || line.starts_with('#') || is_marker(line, "---")) =>
        {
            Ok(Value::Object(serde_json::Map::new()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The first document of a text, and what follows it.
fn first_document(text: &str) -> (&str, &str) {
    let (mut at, mut begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let ends = is_marker(line, "...") || (begun && is_marker(line, "---"));
        if ends {
            return text.split_at(at);
        }
        let nothing = line.trim().is_empty() || line.starts_with(['#', '%']);
        begun |= !nothing;
        at += line.len();
    }
    (text, "")
}

/// Whether a line is a marker of documents, perhaps with a comment behind it.
fn is_marker(line: &str, marker: &str) -> bool {
    let rest = line.strip_prefix(marker);
    rest.is_some_and(|rest| {
        rest.trim().is_empty() || rest.trim_start().starts_with('#') && rest.starts_with(' ')
    })
}

/// The text of a top-level scalar; absent when there is none.
pub fn get(text: &str, key: &str) -> Result<Option<String>, YamlError> {
    Ok(match parse(text)?.get(key) {
        Some(Value::String(found)) => Some(found.clone()),
        Some(Value::Null) | None => None,
        Some(other) => Some(other.to_string()),
    })
}

/// The text with the top-level scalar `key` set to `new`: its line is replaced, or one is added at the end of the first
/// document.
pub fn set(text: &str, key: &str, new: impl Into<Value>) -> Result<String, YamlError> {
    let (new, Value::Object(before)) = (new.into(), parse(text)?) else {
        return Err(YamlError::NoMapping);
    };
    if before.get(key) == Some(&new) {
        return Ok(text.to_owned());
    }
    let not_as_meant = || YamlError::NotAsMeant { key: key.to_owned() };
    if json::parse(text).is_some() {
        return json::set(text, key, new).ok_or_else(not_as_meant);
    }
    let (document, rest) = first_document(text);
    let flow = document
        .lines()
        .find(|line| !line.trim().is_empty() && !line.starts_with(['#', '%']) && !is_marker(line, "---"));
    if flow.is_some_and(|line| line.starts_with(['{', '[', ' ', '\t'])) {
        return Err(YamlError::NoMapping);
    }
    let lines = document.split_inclusive('\n').enumerate();
    let places: Vec<usize> = lines
        .filter(|(_, line)| line_key(line) == Some(key))
        .map(|(index, _)| index)
        .collect();
    let mut edited = document.to_owned();
    for index in &places {
        edited = replace(&edited, *index, key, &new)?;
    }
    if places.is_empty() {
        let newline = if document.is_empty() || document.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        edited.push_str(&format!("{newline}{key}: {new}\n"));
    }
    edited.push_str(rest);
    let mut expected = before;
    expected.insert(key.to_owned(), new);
    if parse(&edited) == Ok(Value::Object(expected)) {
        Ok(edited)
    } else {
        Err(not_as_meant())
    }
}

/// The key of a line that stands at the left margin.
fn line_key(line: &str) -> Option<&str> {
    let (key, _) = line.split_once(':')?;
    (!line.starts_with([' ', '\t', '#', '-'])).then(|| key.trim_end().trim_matches(['"', '\'']))
}

/// The text with another scalar in a line. JSON's scalars are YAML's, too.
fn replace(text: &str, index: usize, key: &str, new: &Value) -> Result<String, YamlError> {
    let odd = || YamlError::OddValue {
        key: key.to_owned(),
        line: index + 1,
    };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let line = lines[index];
    let (name, rest) = line.split_once(':').ok_or_else(odd)?;
    let value = rest.trim_start_matches([' ', '\t']);
    let length = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let inner = &value[1..];
            let end = inner.find(quote).ok_or_else(odd)?;
            // An escape or a doubled quote inside: where it ends is YAML's business.
            if inner[..end].contains('\\') || inner[end + 1..].starts_with(quote) {
                return Err(odd());
            }
            end + 2
        }
        Some('|' | '>' | '&' | '*' | '!' | '{' | '[') => return Err(odd()),
        _ => value
            .find(" #")
            .unwrap_or(value.len())
            .min(value.trim_end().len()),
    };
    // A value that goes on in the next line.
    let next = lines[index + 1..].iter().find(|line| !line.trim().is_empty());
    if next.is_some_and(|line| line.starts_with([' ', '\t', '-'])) {
        return Err(odd());
    }
    let (value, length) = if value.starts_with('#') {
        (&rest[rest.len() - value.len()..], 0)
    } else {
        (value, length)
    };
    let tail = &value[length..];
    let gap = if tail.starts_with('#') { " " } else { "" };
    let edited = format!("{name}: {new}{gap}{tail}");
    Ok([&lines[..index].concat(), &*edited, &lines[index + 1..].concat()].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn replaces_or_adds_one_line() {
        let text = "# head\nkind: X\nendpoint: unix:///a # why\nlist:\n- endpoint: b\n";
        assert_eq!(
            set(text, "endpoint", "unix:///c").unwrap(),
            "# head\nkind: X\nendpoint: \"unix:///c\" # why\nlist:\n- endpoint: b\n"
        );
        assert_eq!(set("a: 1", "b", "2").unwrap(), "a: 1\nb: \"2\"\n");
        assert_eq!(set("", "b", "2").unwrap(), "b: \"2\"\n");
        assert_eq!(set("b: \"\"\n", "b", "2").unwrap(), "b: \"2\"\n");
        assert_eq!(
            set("b: # none\na: 1\n", "b", "2").unwrap(),
            "b: \"2\" # none\na: 1\n"
        );
        assert_eq!(set("# nothing\n", "b", "2").unwrap(), "# nothing\nb: \"2\"\n");
        assert_eq!(set("b: 1 # few\n", "b", 2).unwrap(), "b: 2 # few\n");
        assert_eq!(set("{\"b\": 1}", "b", 2).unwrap(), "{\"b\": 2}");
    }

    /// As the kubelet itself reads them.
    #[test]
    fn duplicates_json_and_further_documents_are_accepted() {
        let twice = "b: 1\na: x\nb: unix:///a\n";
        assert_eq!(get(twice, "b").unwrap().as_deref(), Some("unix:///a"));
        assert_eq!(set(twice, "b", "c").unwrap(), "b: \"c\"\na: x\nb: \"c\"\n");
        let two = "---\nb: 1\n--- # more\nb: 2\n";
        assert_eq!(get(two, "b").unwrap().as_deref(), Some("1"));
        assert_eq!(set(two, "b", "c").unwrap(), "---\nb: \"c\"\n--- # more\nb: 2\n");
        assert_eq!(set("a: 1\n...\n", "b", "c").unwrap(), "a: 1\nb: \"c\"\n...\n");
        let json = "{\n\t\"kind\": \"X\",\n\t\"b\": \"unix:///a\"\n}\n";
        assert_eq!(set(json, "b", "c").unwrap(), json.replace("unix:///a", "c"));
        assert_eq!(
            parse("a: 1\nb: [\n").unwrap_err().to_string().split(' ').next(),
            Some("line")
        );
    }

    #[test]
    fn refuses_what_it_cannot_print_again() {
        assert!(matches!(set("a: [\n", "b", "2"), Err(YamlError::Syntax { .. })));
        assert_eq!(set("{a: 1}\n", "b", "2"), Err(YamlError::NoMapping), "not JSON");
        assert_eq!(set("- a\n", "b", "2"), Err(YamlError::NoMapping));
        assert!(matches!(
            set("b: |\n  x\n", "b", "2"),
            Err(YamlError::OddValue { line: 1, .. })
        ));
        assert!(matches!(
            set("b: x\n  y\n", "b", "2"),
            Err(YamlError::OddValue { .. })
        ));
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "# [a-z ]{0,8}",
            "[acd]: [a-z0-9/]{1,8}( # [a-z]{1,4})?",
            "b: ('[a-z/: ]{0,8}'|\"[a-z/: ]{0,8}\"|[a-z0-9/]{1,8})( # [a-z]{1,4})?",
            "[ef]:\n  b: [a-z]{1,4}",
            "[gh]:\n- b: [a-z]{1,4}",
        ]
    }

    proptest! {
        #[test]
        fn changes_one_key(lines in prop::collection::vec(line(), 0..6), new in "[ -~]{0,12}") {
            let text = lines.join("\n");
            let Ok(Value::Object(before)) = parse(&text) else { return Ok(()) };
            let edited = set(&text, "b", new.as_str()).unwrap();
            let Value::Object(after) = parse(&edited).unwrap() else { unreachable!() };
            prop_assert_eq!(after.get("b"), Some(&Value::String(new.clone())));
            prop_assert_eq!(
                before.iter().filter(|(key, _)| *key != "b").collect::<Vec<_>>(),
                after.iter().filter(|(key, _)| *key != "b").collect::<Vec<_>>(),
            );
            prop_assert_eq!(&set(&edited, "b", new.as_str()).unwrap(), &edited, "idempotent");
            for comment in text.lines().filter_map(|line| line.find('#').map(|at| &line[at..])) {
                prop_assert!(edited.contains(comment), "{} lost in {}", comment, edited);
            }
        }
    }
}
