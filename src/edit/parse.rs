//! Reads YAML, JSON and TOML that other programs and people wrote. Parsers quote the text that they do not
//! understand, and that text may be a secret: everybody reads such files through this module, whose [`ParseError`]
//! names the place and the kind of the mistake and nothing of the text.

use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_saphyr::{DuplicateKeyPolicy, Options};
use toml_edit::DocumentMut;

/// A text that cannot be read. It holds nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{what}", place(*.line, *.column))]
pub struct ParseError {
    /// Line number from 1; 0 if it is not known.
    pub line: usize,
    /// Column from 1; 0 if it is not known.
    pub column: usize,
    /// What is wrong, in words of the parser's code or of this module.
    what: String,
}

fn place(line: usize, column: usize) -> String {
    match (line, column) {
        (0, _) => String::new(),
        (line, 0) => format!("line {line}: "),
        (line, column) => format!("line {line}, column {column}: "),
    }
}

/// What is said of a value that has another type than its reader needs: the parser would quote the value.
const OTHER_KIND: &str = "a value or a key is of another kind than is needed";

/// Reads a YAML document. A key that stands in a mapping twice is an error.
///
/// # Errors
/// See [`ParseError`].
pub fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, ParseError> {
    serde_saphyr::from_str_with_options(text, options(DuplicateKeyPolicy::Error)).map_err(|e| of_yaml(&e))
}

/// Reads the first YAML document of a text as kubectl and the kubelet read kubeconfigs and static pods: of a key that
/// stands in a mapping twice the last value counts, and `n` is a text. `None` if there is no document.
///
/// # Errors
/// See [`ParseError`].
pub fn lenient_yaml<T: DeserializeOwned>(text: &str) -> Result<Option<T>, ParseError> {
    let mut options = options(DuplicateKeyPolicy::LastWins);
    options.strict_booleans = true;
    let documents = serde_saphyr::from_multiple_with_options(text, options);
    let documents: Vec<T> = documents.map_err(|e| of_yaml(&e))?;
    Ok(documents.into_iter().next())
}

/// Scalars, lists and mappings that the aliases of one text may stand for. Seven lines of nine aliases each stand for
/// millions.
const MAX_ALIASED_NODES: usize = 20_000;

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    let mut options = serde_saphyr::options! { duplicate_keys: duplicate_keys, with_snippet: false };
    options.alias_limits.max_total_replayed_events = MAX_ALIASED_NODES;
    options
}

/// Reads a JSON document.
///
/// # Errors
/// See [`ParseError`].
pub fn json<T: DeserializeOwned>(text: impl AsRef<[u8]>) -> Result<T, ParseError> {
    serde_json::from_slice(text.as_ref()).map_err(|error| of_json(&error))
}

/// Reads data that a parser has read before.
///
/// # Errors
/// See [`ParseError`]; the place is not known.
pub fn data<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, ParseError> {
    serde_json::from_value(value).map_err(|error| of_json(&error))
}

/// Reads a TOML document, which can be edited.
///
/// # Errors
/// See [`ParseError`].
pub fn toml(text: &str) -> Result<DocumentMut, ParseError> {
    text.parse::<DocumentMut>().map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        let before = text.get(..at).unwrap_or_default();
        ParseError {
            line: before.matches('\n').count() + 1,
            column: 0,
            // The parser names what it expects in its grammar, never what it found.
            what: error.message().trim_end().replace('\n', "; "),
        }
    })
}

fn of_json(error: &serde_json::Error) -> ParseError {
    let words = error.to_string();
    ParseError {
        line: error.line(),
        column: error.column(),
        what: match error.classify() {
            // These words come from a list in the parser; the place stands behind them.
            Category::Syntax | Category::Eof => match words.rfind(" at line ") {
                Some(end) => words[..end].to_owned(),
                None => words,
            },
            Category::Data | Category::Io => OTHER_KIND.to_owned(),
        },
    }
}

fn of_yaml(error: &serde_saphyr::Error) -> ParseError {
    use serde_saphyr::Error;
    let error = error.without_snippet();
    let location = error.location();
    let number = |number: u64| usize::try_from(number).unwrap_or_default();
    let what = match error {
        Error::DuplicateMappingKey { .. } => "a key stands there twice",
        Error::Eof { .. } => "the text ends too early",
        Error::Unexpected { .. } | Error::Message { .. } => "this is not YAML of the form that is needed",
        Error::MultipleDocuments { .. } => "a second document begins",
        Error::UnknownAnchor { .. } => "an alias has no anchor",
        Error::AliasReplayLimitExceeded { .. } | Error::AliasError { .. } => {
            "the aliases are wrong, or stand for too much text"
        }
        Error::ContainerEndMismatch { .. } => "a bracket or a brace is closed that is not open",
        Error::IndentationError { .. } => "the indentation is wrong",
        Error::InvalidUtf8Input => "the text is not UTF-8",
        Error::SerdeMissingField { field, .. } => {
            return ParseError {
                line: location.map_or(0, |at| number(at.line())),
                column: 0,
                what: format!("{field} is missing"),
            };
        }
        _ => OTHER_KIND,
    };
    ParseError {
        line: location.map_or(0, |at| number(at.line())),
        column: location.map_or(0, |at| number(at.column())),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    /// A reader that needs other types than it gets.
    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only its types matter")]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Strict {
        port: u16,
        kind: Kind,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Plain,
    }

    #[test]
    fn an_error_names_the_place_and_the_mistake() {
        let yaml = |text| yaml::<Value>(text).unwrap_err().to_string();
        assert_eq!(
            yaml("a: 1\nb: 2\na: 3\n"),
            "line 3, column 1: a key stands there twice"
        );
        let json = |text| json::<Value>(text).unwrap_err().to_string();
        assert_eq!(json("{\"a\": x}"), "line 1, column 7: expected value");
        assert_eq!(json("{\n"), "line 2: EOF while parsing an object");
        assert_eq!(
            super::json::<Strict>("{\"port\": \"zq7\"}")
                .unwrap_err()
                .to_string(),
            "line 1, column 14: a value or a key is of another kind than is needed"
        );
        let toml = |text| super::toml(text).unwrap_err().to_string();
        assert!(
            toml("a = 1\nb = zq7\n").starts_with("line 2: "),
            "{}",
            toml("a = 1\nb = zq7\n")
        );
        assert_eq!(
            super::yaml::<Strict>("port: 1\n").unwrap_err().to_string(),
            "line 1: kind is missing"
        );
    }

    #[test]
    fn the_last_of_two_values_counts_where_kubectl_reads_so() {
        let read: Value = lenient_yaml("token: a\nother: 1\ntoken: b\n---\ntoken: c\n")
            .unwrap()
            .unwrap();
        assert_eq!(read, serde_json::json!({ "token": "b", "other": 1 }));
        assert_eq!(lenient_yaml::<Value>("").unwrap(), None);
    }

    #[test]
    fn a_few_aliases_are_read_and_a_bomb_of_them_is_not() {
        assert_eq!(yaml::<Value>("a: &a [x]\nb: *a\n").unwrap()["b"][0], "x");
        let mut bomb = "l0: &l0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..5 {
            let before = format!("*l{}", level - 1);
            bomb += &format!("l{level}: &l{level} [{}]\n", [before.as_str(); 9].join(", "));
        }
        for error in [
            yaml::<Value>(&bomb).unwrap_err(),
            lenient_yaml::<Value>(&bomb).unwrap_err(),
        ] {
            assert!(error.to_string().ends_with("stand for too much text"), "{error}");
        }
    }

    /// Texts with a place for a secret, most of them broken there.
    const TEXTS: [&str; 22] = [
        "a: 1\na: <S>\n",
        "<S>: 1\n<S>: 2\n",
        "port: <S>\nkind: Plain\n",
        "port: 1\nkind: <S>\n",
        "port: 1\nkind: Plain\n<S>: x\n",
        "a: [<S>\n",
        "a: *<S>\n",
        "a: !<S> b\n",
        "- <S>\nb: 1\n",
        "a: \"<S>\n",
        "port: {<S>: [\n",
        "{\"a\": <S>}",
        "{\"port\": \"<S>\", \"kind\": 1}",
        "{\"port\": 1, \"kind\": \"<S>\"}",
        "{\"port\": 1, \"<S>\": 1}",
        "{\"a\": \"<S>",
        "<S>",
        "a = <S>\n",
        "a = 1\n<S> = 2\n<S> = 3\n",
        "[<S>]\n[<S>]\n",
        "a = \"<S>\n",
        "a = { <S> = 1\n",
    ];

    proptest! {
        /// Whatever stands in a text, no error of any parser shows a part of it.
        #[test]
        fn no_error_quotes_the_text(
            at in 0..TEXTS.len(),
            // Signs that mean something to one of the parsers stand around the secret, not in it.
            before in "[-:\"'#{\\[!&*@ ]{0,2}",
            after in "[-:\"'#}\\],=\n ]{0,2}",
        ) {
            let text = TEXTS[at].replace("<S>", &format!("{before}zq7xzq7{after}"));
            let errors = [
                yaml::<Value>(&text).err(),
                yaml::<Strict>(&text).err(),
                lenient_yaml::<Strict>(&text).err(),
                json::<Value>(&text).err(),
                json::<Strict>(&text).err(),
                toml(&text).err(),
            ];
            for error in errors.into_iter().flatten() {
                let shown = format!("{error} {error:?}");
                prop_assert!(!shown.contains("zq7"), "{}", shown);
            }
        }
    }
}
