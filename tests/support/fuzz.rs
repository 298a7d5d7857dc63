//! Fuzzing: a property is held against real and odd texts, and against broken variants of them.
//!
//! The texts are the files of `tests/fuzz/KIND/` and those that the captured hosts have (`tests/hosts`). The variants
//! are the same in every run, so that a failure can be repeated; `FUZZ_CASES=100000 FUZZ_SEED=7` tries more and others
//! (`make fuzz`). A text that failed becomes a file in `tests/fuzz/KIND/`.

#![allow(dead_code, unreachable_pub, reason = "every test binary uses its own part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of it is a test")]

use std::{env, fs, path::Path};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner},
};
use serde_json::Value;

/// Variants of each kind of text, unless `FUZZ_CASES` says otherwise.
const CASES: u32 = 300;

/// Stands in many variants, and must stand in no error.
pub const SECRET: &str = "zq7xzq7";

/// What means something to a reader.
const TOKENS: &[&str] = &[
    SECRET,
    "\n",
    "\r\n",
    "\r",
    "\t",
    " ",
    "  ",
    "\\",
    "\\\n",
    "\"",
    "\"\"\"",
    "'",
    "'''",
    "=",
    ":",
    ": ",
    "#",
    " # ",
    ";",
    ",",
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "(",
    ")",
    "|",
    ">",
    "&a ",
    "*a",
    "!!binary ",
    "---\n",
    "...\n",
    "- ",
    "? ",
    "<<: *a",
    "%",
    "%%",
    "$",
    "${A}",
    "$$",
    "@",
    "!",
    "~",
    "`",
    "-",
    "--",
    "--a=b",
    "--a",
    "/",
    "/../",
    "//",
    ".",
    "0",
    "-1",
    "1.5",
    "1e999",
    "0x1F",
    "99999999999999999999",
    "null",
    "true",
    "NaN",
    "\0",
    "\u{feff}",
    "\u{85}",
    "\u{2028}",
    "\u{301}",
    "é",
    "𝄞",
    "version = 3\n",
    "[plugins]\n",
    "exec-opts",
    "package\t",
    "Inst ",
    "Remv ",
];

/// One way to break a text.
#[derive(Clone, Debug)]
enum Break {
    Insert(Index, Vec<Index>),
    InsertAny(Index, String),
    Remove(Index, Index),
    Cut(Index),
    Repeat(Index, Index, usize),
    Splice(Index, Index, Index, Index),
    SwapLines(Index, Index),
}

fn breaks() -> impl Strategy<Value = Break> {
    let index = any::<Index>;
    prop_oneof![
        6 => (index(), prop::collection::vec(index(), 1..4)).prop_map(|(at, tokens)| Break::Insert(at, tokens)),
        1 => (index(), "\\PC{1,6}").prop_map(|(at, text)| Break::InsertAny(at, text)),
        4 => (index(), index()).prop_map(|(at, end)| Break::Remove(at, end)),
        1 => index().prop_map(Break::Cut),
        1 => (index(), index(), 1..400usize).prop_map(|(at, end, times)| Break::Repeat(at, end, times)),
        2 => (index(), index(), index(), index()).prop_map(|(a, b, c, d)| Break::Splice(a, b, c, d)),
        2 => (index(), index()).prop_map(|(a, b)| Break::SwapLines(a, b)),
    ]
}

/// A place in a text, at the beginning of a character or at its end.
fn place(index: &Index, text: &str) -> usize {
    let at = index.index(text.len() + 1);
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A short piece of a text, seldom a long one.
fn piece(at: &Index, length: &Index, text: &str) -> (usize, usize) {
    let start = place(at, text);
    let most = [1, 4, 16, 64, 1024][length.index(5)];
    let end = (start + 1 + length.index(most)).min(text.len());
    let end = (start..=end).rev().find(|at| text.is_char_boundary(*at));
    (start, end.unwrap_or(start))
}

fn broken(mut text: String, by: &Break, samples: &[String]) -> String {
    match by {
        Break::Insert(at, tokens) => {
            let tokens: String = tokens
                .iter()
                .map(|token| TOKENS[token.index(TOKENS.len())])
                .collect();
            text.insert_str(place(at, &text), &tokens);
        }
        Break::InsertAny(at, other) => text.insert_str(place(at, &text), other),
        Break::Remove(at, length) => {
            let (start, end) = piece(at, length, &text);
            text.replace_range(start..end, "");
        }
        Break::Cut(at) => text.truncate(place(at, &text)),
        Break::Repeat(at, length, times) => {
            let (start, end) = piece(at, length, &text);
            let again = text[start..end].repeat(*times);
            // A nesting as deep as that is enough for every reader's limit.
            text.insert_str(end, again.get(..16_384).unwrap_or(&again));
        }
        Break::Splice(at, other, from, length) => {
            let other = &samples[other.index(samples.len())];
            let (start, end) = piece(from, length, other);
            text.insert_str(place(at, &text), &other[start..end]);
        }
        Break::SwapLines(a, b) => {
            let mut lines: Vec<&str> = text.split_inclusive('\n').collect();
            if !lines.is_empty() {
                let (a, b) = (a.index(lines.len()), b.index(lines.len()));
                lines.swap(a, b);
            }
            text = lines.concat();
        }
    }
    text
}

/// Texts with a path that ends in one of these, in what was found on a host.
fn found(value: &Value, ends: &[&str], texts: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let (Some(Value::String(path)), Some(Value::String(text))) =
                (fields.get("path"), fields.get("text"))
                && ends.iter().any(|end| path.ends_with(end))
            {
                texts.push(text.clone());
            }
            fields.values().for_each(|value| found(value, ends, texts));
        }
        Value::Array(list) => list.iter().for_each(|value| found(value, ends, texts)),
        _ => {}
    }
}

/// The texts of a kind: the files of `tests/fuzz/KIND/`, and of the captured hosts the files whose paths end so.
pub fn samples(kind: &str, ends: &[&str]) -> Vec<String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut texts = Vec::new();
    for entry in fs::read_dir(tests.join("fuzz").join(kind)).unwrap_or_else(|error| panic!("{kind}: {error}"))
    {
        texts.push(fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    for host in fs::read_dir(tests.join("hosts")).unwrap() {
        let facts = host.unwrap().path().join("facts.json");
        if !ends.is_empty() && facts.exists() {
            let facts: Value = serde_json::from_slice(&fs::read(facts).unwrap()).unwrap();
            found(&facts, ends, &mut texts);
        }
    }
    texts.sort();
    texts.dedup();
    assert!(!texts.is_empty(), "no sample of {kind}");
    texts
}

fn number(name: &str) -> Option<u32> {
    env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name} is not a number: {value}"))
    })
}

/// Holds a property, which panics where it does not hold, against the samples and their variants.
pub fn hold(samples: &[String], property: impl Fn(&str)) {
    hold_against(1, samples, property);
}

/// As [`hold`], against a part of the variants: for a property that takes its time.
pub fn hold_against(part: u32, samples: &[String], property: impl Fn(&str)) {
    samples.iter().for_each(|text| property(text));
    let config = Config {
        cases: number("FUZZ_CASES").unwrap_or(CASES) / part,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number("FUZZ_SEED").unwrap_or_default().to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let breaks = (any::<Index>(), prop::collection::vec(breaks(), 1..6));
    let variants = breaks.prop_map(|(first, breaks)| {
        let first = samples[first.index(samples.len())].clone();
        breaks.iter().fold(first, |text, by| broken(text, by, samples))
    });
    let result = runner.run(&variants, |text| {
        property(&text);
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, text)) => panic!("{why}\nof the text {text:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// The value; of an error, checks that it shows no part of a secret in the text.
pub fn quiet<T, E: std::fmt::Display + std::fmt::Debug>(result: Result<T, E>) -> Option<T> {
    result
        .inspect_err(|error| {
            let shown = format!("{error} {error:?}");
            assert!(
                !shown.contains("zq7"),
                "an error shows a part of the text: {shown}"
            );
        })
        .ok()
}
