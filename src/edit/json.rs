//! One text in an object at the top of somebody's JSON, all else as it is written.

use serde_json::{Map, Value};

use super::parse;

/// The settings, if the text is a JSON object; of a key that stands there twice the last value counts, as for Go.
pub fn parse(text: &str) -> Option<Map<String, Value>> {
    match parse::json(text) {
        Ok(Value::Object(found)) => Some(found),
        _ => None,
    }
}

/// The text with the top-level `key` set to the scalar `new`; `None` if it would not read as meant.
pub fn set(text: &str, key: &str, new: impl Into<Value>) -> Option<String> {
    let mut wanted = parse(text)?;
    let value = new.into();
    let mut edited = text.to_owned();
    let mut spans = spans(text, key);
    if spans.is_empty() {
        let at = text.find('{')? + 1;
        let comma = if wanted.is_empty() { "" } else { "," };
        edited.insert_str(
            at,
            &format!("\n  {}: {value}{comma}", Value::String(key.to_owned())),
        );
    }
    while let Some((start, end)) = spans.pop() {
        edited.replace_range(start..end, &value.to_string());
    }
    wanted.insert(key.to_owned(), value);
    (parse(&edited)? == wanted).then_some(edited)
}

/// Where the values of the top-level `key` stand, in order. The text is an object.
fn spans(text: &str, key: &str) -> Vec<(usize, usize)> {
    let bytes = text.as_bytes();
    let (mut found, mut depth, mut at) = (Vec::new(), 0usize, 0);
    let mut open: Option<usize> = None;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                let start = at;
                at = string_end(bytes, at);
                let is_key = depth == 1 && open.is_none();
                let after = at + text[at..].len() - text[at..].trim_start().len();
                if is_key && bytes.get(after) == Some(&b':') {
                    let name = parse::json::<String>(&text[start..at]);
                    let value = after + 1;
                    let value = value + text[value..].len() - text[value..].trim_start().len();
                    // Another key's value is passed over in the same way.
                    open = Some(if name.is_ok_and(|name| name == key) {
                        value
                    } else {
                        usize::MAX
                    });
                    at = value;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b',' if depth == 1 => close(text, &mut open, at, &mut found),
            b'}' | b']' => {
                if depth == 1 {
                    close(text, &mut open, at, &mut found);
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn close(text: &str, open: &mut Option<usize>, at: usize, found: &mut Vec<(usize, usize)>) {
    if let Some(start) = open.take().filter(|start| *start != usize::MAX) {
        found.push((start, start + text[start..at].trim_end().len()));
    }
}

/// The first byte after a string.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'"' => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_is_replaced_or_added() {
        let text = "{\n  \"a\": {\"b\": \"x\"},\n  \"b\" : \"old\" ,\n  \"c\": [\"b\", 1.50]\n}\n";
        let edited = set(text, "b", "new").unwrap();
        assert_eq!(edited, text.replace("\"old\"", "\"new\""));
        assert_eq!(set("{}", "b", "1").unwrap(), "{\n  \"b\": \"1\"}");
        assert_eq!(
            set("{\"a\": 1}", "b", "1").unwrap(),
            "{\n  \"b\": \"1\",\"a\": 1}"
        );
        assert_eq!(set("{\"b\":\"\"}", "b", "1").unwrap(), "{\"b\":\"1\"}");
        // The last one counts, and none is left with the old value.
        assert_eq!(
            set("{\"b\":1,\"b\":2}", "b", "3").unwrap(),
            "{\"b\":\"3\",\"b\":\"3\"}"
        );
        assert_eq!(set("[]", "b", "1"), None);
        assert_eq!(set("{", "b", "1"), None);
    }

    proptest::proptest! {
        #[test]
        fn all_else_stays_as_it_is_written(
            values in proptest::collection::btree_map("[ab\"\\\\ é]{0,3}", "[ -~é]{0,6}", 0..5),
            pretty: bool, new in "[ -~]{0,8}",
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&values).unwrap()
            } else {
                serde_json::to_string(&values).unwrap()
            };
            let edited = set(&text, "b", new.as_str()).unwrap();
            let mut wanted = parse(&text).unwrap();
            wanted.insert("b".to_owned(), Value::String(new.clone()));
            proptest::prop_assert_eq!(parse(&edited).unwrap(), wanted);
            proptest::prop_assert_eq!(set(&edited, "b", new.as_str()).unwrap(), edited.clone(), "idempotent");
            for line in text.lines().filter(|line| !line.contains("\"b\"")) {
                proptest::prop_assert!(edited.contains(line.trim_start_matches('{')), "{} lost in {}", line, edited);
            }
        }
    }
}
