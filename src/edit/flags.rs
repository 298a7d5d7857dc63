//! The words of a command line inside one text, as systemd splits `$VARIABLE`: at blanks, with quotes respected
//! and removed. Words that are not concerned stay as they are written.
//!
//! New flags are written as `--name=value`: kubeadm's own reader of `kubeadm-flags.env` joins a word without `=`
//! with the word that follows.

use std::ops::Range;

/// A text that cannot be split, or not be edited safely. The text itself is not told: it may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagsError {
    /// A quote that is never closed.
    #[error("there is a quote without an end; close it")]
    Unterminated,
    /// Versions of systemd differ in what a backslash means here.
    #[error("there is a backslash, which cannot be edited safely; write the flags without it")]
    Backslash,
    /// A value that would need quotes.
    #[error(
        "the value {value:?} of --{name} has blanks, quotes or backslashes and cannot be written as one word"
    )]
    OddValue {
        /// Name of the flag.
        name: String,
        /// Its value.
        value: String,
    },
    /// The edited text does not read as it should.
    #[error("after the edit the flags would not read as meant; edit them by hand")]
    NotAsMeant,
}

/// One change to a list of flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// `--name=value`, once.
    Set {
        /// Name without dashes in front.
        name: String,
        /// Its value.
        value: String,
    },
    /// No `--name`.
    Remove {
        /// Name without dashes in front.
        name: String,
    },
}

impl Change {
    /// The flag that is changed.
    pub fn name(&self) -> &str {
        match self {
            Self::Set { name, .. } | Self::Remove { name } => name,
        }
    }
}

/// Flags of the kubelet and of cri-dockerd that may stand without a value; all others take the next word when they have
/// no `=`.
const BOOLEAN: [&str; 4] = [
    "docker-only",
    "docker-tls",
    "ipv6-dual-stack",
    "redirect-container-streaming",
];

/// A flag among words: its name, its value, and the words that it takes.
struct Flag<'a> {
    name: String,
    value: Option<&'a str>,
    words: Range<usize>,
}

/// The flags among `words`, in order. Names are written with dashes, as the kubelet reads `_` too.
fn flags(words: &[String]) -> Vec<Flag<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let start = at;
        at += 1;
        let Some(flag) = words[start].strip_prefix("--").filter(|flag| !flag.is_empty()) else {
            continue;
        };
        let (name, value) = match flag.split_once('=') {
            Some((name, value)) => (name.replace('_', "-"), Some(value)),
            None => {
                let name = flag.replace('_', "-");
                let next = words
                    .get(at)
                    .filter(|next| !next.starts_with("--") && !BOOLEAN.contains(&&*name));
                at += usize::from(next.is_some());
                (name, next.map(String::as_str))
            }
        };
        found.push(Flag {
            name,
            value,
            words: start..at,
        });
    }
    found
}

/// The value of the last `--name` among `words`, as pflag reads it; empty for a flag without a value.
pub fn value<'a>(words: &'a [String], name: &str) -> Option<&'a str> {
    flags(words)
        .into_iter()
        .rfind(|flag| flag.name == name)
        .map(|flag| flag.value.unwrap_or_default())
}

/// The values of every `--name` among `words`, in order.
pub fn values<'a>(words: &'a [String], name: &str) -> Vec<&'a str> {
    flags(words)
        .into_iter()
        .filter(|flag| flag.name == name)
        .map(|flag| flag.value.unwrap_or_default())
        .collect()
}

/// The words of `text`.
pub fn words(text: &str) -> Result<Vec<String>, FlagsError> {
    Ok(split(text)?.into_iter().map(|(word, _)| word).collect())
}

/// The words after `changes`: the first occurrence of a flag is replaced, all others go, a new one is added at
/// the end.
pub fn change_words(words: &[String], changes: &[Change]) -> Vec<String> {
    let Edits { replaced, added } = edits(words, changes);
    let kept = words
        .iter()
        .enumerate()
        .filter_map(|(index, word)| match replaced.get(&index) {
            None => Some(word.clone()),
            Some(new) => new.clone(),
        });
    kept.chain(added).collect()
}

/// The text after `changes`, as [`change_words`]; every word that is not concerned stays as it is written.
pub fn change(text: &str, changes: &[Change]) -> Result<String, FlagsError> {
    for change in changes {
        if let Change::Set { name, value } = change
            && value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\'))
        {
            return Err(FlagsError::OddValue {
                name: name.clone(),
                value: value.clone(),
            });
        }
    }
    let parts = split(text)?;
    let before: Vec<String> = parts.iter().map(|(word, _)| word.clone()).collect();
    let Edits { replaced, added } = edits(&before, changes);
    let mut edited = String::new();
    let mut from = 0;
    for (index, (_, span)) in parts.iter().enumerate() {
        match replaced.get(&index) {
            None => edited.push_str(&text[from..span.end]),
            Some(Some(new)) => edited.extend([&text[from..span.start], new]),
            Some(None) => {}
        }
        from = span.end;
    }
    edited.push_str(&text[from..]);
    for word in added {
        if !edited.is_empty() && !edited.ends_with(char::is_whitespace) {
            edited.push(' ');
        }
        edited.push_str(&word);
    }
    if matches!(replaced.get(&0), Some(None)) && !text.starts_with(char::is_whitespace) {
        edited = edited.trim_start().to_owned();
    }
    let after = words(&edited)?;
    if after == change_words(&before, changes) {
        Ok(edited)
    } else {
        Err(FlagsError::NotAsMeant)
    }
}

struct Edits {
    /// By index: the word instead of it, or none.
    replaced: std::collections::BTreeMap<usize, Option<String>>,
    added: Vec<String>,
}

fn edits(words: &[String], changes: &[Change]) -> Edits {
    let found = flags(words);
    let mut edits = Edits {
        replaced: std::collections::BTreeMap::new(),
        added: Vec::new(),
    };
    for change in changes {
        let mut new = match change {
            Change::Set { name, value } => Some(format!("--{name}={value}")),
            Change::Remove { .. } => None,
        };
        for flag in found.iter().filter(|flag| flag.name == change.name()) {
            let mut indices = flag.words.clone();
            if let Some(first) = indices.next() {
                edits.replaced.insert(first, new.take());
            }
            edits.replaced.extend(indices.map(|index| (index, None)));
        }
        edits.added.extend(new);
    }
    edits
}

/// Words with the bytes that they stand in.
fn split(text: &str) -> Result<Vec<(String, Range<usize>)>, FlagsError> {
    if text.contains('\\') {
        return Err(FlagsError::Backslash);
    }
    let mut parts: Vec<(String, Range<usize>)> = Vec::new();
    let mut current: Option<(String, usize)> = None;
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => current.get_or_insert_with(|| (String::new(), at)).0.push(c),
            None if matches!(c, ' ' | '\t' | '\n' | '\r') => {
                parts.extend(current.take().map(|(word, start)| (word, start..at)));
            }
            None => {
                let (word, _) = current.get_or_insert_with(|| (String::new(), at));
                if matches!(c, '"' | '\'') {
                    quote = Some(c)
                } else {
                    word.push(c)
                }
            }
        }
    }
    if quote.is_some() {
        return Err(FlagsError::Unterminated);
    }
    parts.extend(current.map(|(word, start)| (word, start..text.len())));
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(name: &str, value: &str) -> Change {
        Change::Set {
            name: name.into(),
            value: value.into(),
        }
    }

    fn remove(name: &str) -> Change {
        Change::Remove { name: name.into() }
    }

    #[test]
    fn changes_flags_in_both_forms() {
        let text = "--network-plugin cni --x='a b'  --pod-infra-container-image=p:1 --v 2";
        let edited = change(
            text,
            &[
                remove("network-plugin"),
                set("pod-infra-container-image", "p:2"),
                set("y", "z"),
            ],
        );
        assert_eq!(
            edited.unwrap(),
            "--x='a b'  --pod-infra-container-image=p:2 --v 2 --y=z"
        );
        assert_eq!(
            change(
                "--cni_bin_dir=/a --docker-only x",
                &[remove("cni-bin-dir"), remove("docker-only")]
            )
            .unwrap(),
            "x"
        );
        assert_eq!(change("", &[set("a", "b")]).unwrap(), "--a=b");
        assert_eq!(
            change("--a=1 --b=2 --a=3", &[set("a", "4")]).unwrap(),
            "--a=4 --b=2"
        );
    }

    #[test]
    fn the_last_value_counts() {
        let found = words("--a=1 --a '2 3' --b").unwrap();
        assert_eq!(value(&found, "a"), Some("2 3"));
        assert_eq!(value(&found, "b"), Some(""));
        assert_eq!(value(&found, "c"), None);
    }

    #[test]
    fn refuses_odd_quoting() {
        assert!(matches!(change("--a='1", &[]), Err(FlagsError::Unterminated)));
        assert!(matches!(change("--a=\\x", &[]), Err(FlagsError::Backslash)));
        assert!(matches!(
            change("", &[set("a", "b c")]),
            Err(FlagsError::OddValue { .. })
        ));
    }

    proptest! {
        #[test]
        fn changes_one_flag_and_keeps_every_other_word(
            parts in prop::collection::vec("--[a-d]=[!#-&(-\\[\\]-~]{0,6}|--[a-d]='[ -&(-\\[\\]-~]{1,6}'|--[a-d] x", 0..6),
            blanks in "[ \t]{1,3}", value_text in "[a-z/:.]{1,8}",
        ) {
            let text = parts.join(&blanks);
            let before = words(&text).unwrap();
            let edited = change(&text, &[set("b", &value_text)]).unwrap();
            let after = words(&edited).unwrap();
            prop_assert_eq!(value(&after, "b"), Some(value_text.as_str()));
            for other in ["a", "c", "d"] {
                prop_assert_eq!(value(&after, other), value(&before, other));
            }
            prop_assert_eq!(&change(&edited, &[set("b", &value_text)]).unwrap(), &edited, "idempotent");
            for part in parts.iter().filter(|part| !part.starts_with("--b")) {
                prop_assert!(edited.contains(part.as_str()), "kept as written");
            }
            let without = change(&edited, &[remove("b")]).unwrap();
            prop_assert_eq!(words(&without).unwrap(), words(&change(&text, &[remove("b")]).unwrap()).unwrap());
        }
    }
}
