//! Words that documents and messages do not use, and what stands there instead. `docs/api.md` and `docs/findings.md` have
//! the texts of the definitions and of the findings, so these are read, too; and so is each string in the sources. The
//! list grows as texts are mended.

use std::{
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{TokenStream, TokenTree};

/// Words that follow each other, and what is better.
const INSTEAD: &[(&str, &str)] = &[
    ("shall", "must, will or is"),
    ("anew", "again"),
    ("for ever", "forever"),
    ("wholly", "entirely"),
    ("at present", "currently"),
    ("another one", "the noun"),
    ("beside", "next to, or at the same time"),
    ("behind", "after, or the noun"),
    ("nothing when", "`None` if, or empty if"),
    ("nothing where", "`None` if, or empty if"),
    ("backwards", "in reverse, or when it is undone"),
    ("way back", "rollback"),
    ("take back", "undo"),
    ("takes back", "undoes"),
    ("taken back", "undone"),
    ("go back", "roll back"),
    ("goes back", "rolls back"),
    ("going back", "rolling back"),
    ("went back", "was rolled back"),
    ("gone back", "rolled back"),
    ("goes on", "continues"),
    ("go on", "continue"),
    ("nobody knows", "it is not known"),
    ("does not know", "does not have, or does not support"),
    ("which is no", "which is not a"),
    ("those that are there", "the noun"),
];

/// The documents that people read first, and everything in `docs/`.
fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let markdown = |directory: &Path| -> Vec<PathBuf> {
        let files = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "md"))
            .collect()
    };
    let mut all = [markdown(root), markdown(&root.join("docs"))].concat();
    all.push(root.join("tests/lab/README.md"));
    all.sort();
    assert!(all.len() > 12, "{all:?}");
    all
}

/// The prose of a document: a line at a time, without what programs printed.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut printed = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            printed = !printed;
        }
        (!printed).then_some((index + 1, line))
    })
}

/// The words of a line in small letters, with one blank before each and after the last.
fn words(line: &str) -> String {
    let words: Vec<String> = line
        .split(|c: char| !c.is_alphanumeric() && c != '-' && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    format!(" {} ", words.join(" "))
}

/// What a document says in words that the list replaces.
fn found(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    // A sentence goes on in the next line.
    let lines: Vec<(usize, &str)> = prose(text).collect();
    for (index, (number, line)) in lines.iter().enumerate() {
        let here = words(line);
        let next = lines
            .get(index + 1)
            .map(|(_, next)| words(next))
            .unwrap_or_default();
        let both = format!("{here}{}", next.trim_start());
        for (wrong, better) in INSTEAD {
            let wrong = format!(" {wrong} ");
            if both.contains(&wrong) && !next.contains(&wrong) {
                found.push(format!("{name}:{number}: \"{}\": write {better}", wrong.trim()));
            }
        }
    }
    found
}

#[test]
fn documents_use_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for path in documents() {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        all.extend(found(&name, &fs::read_to_string(&path).unwrap()));
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
}

/// The strings of a source, outside its tests and its comments, with the lines that they begin in.
fn strings(tokens: TokenStream, found: &mut Vec<(usize, String)>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            // An attribute: a comment, or a condition. What is for tests ends the file.
            TokenTree::Punct(sign) if sign.as_char() == '#' => {
                if tokens.next().is_some_and(|of| of.to_string() == "[cfg (test)]") {
                    return;
                }
            }
            TokenTree::Group(group) => strings(group.stream(), found),
            TokenTree::Literal(literal) => {
                if let Ok(text) = syn::parse_str::<syn::LitStr>(&literal.to_string()) {
                    found.push((literal.span().start().line, text.value()));
                }
            }
            TokenTree::Ident(_) | TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn messages_use_plain_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut all, mut read) = (Vec::new(), 0);
    for file in walkdir::WalkDir::new(&root).sort_by_file_name() {
        let file = file.unwrap();
        let name = file.path().strip_prefix(&root).unwrap().display().to_string();
        if !name.ends_with(".rs") || name.contains("tests") {
            continue;
        }
        let mut found_here = Vec::new();
        let text = fs::read_to_string(file.path()).unwrap();
        strings(text.parse().unwrap(), &mut found_here);
        read += found_here.len();
        for (line, text) in found_here {
            all.extend(found(&format!("{name}:{line}"), &text));
        }
    }
    assert!(all.is_empty(), "{}", all.join("\n"));
    assert!(read > 1000, "{read} strings");
}

#[test]
fn the_list_is_applied_to_prose_alone() {
    let text = "A node shall go\nback; **Beside** it.\n```\n$ shall\n```\nShallow besides, go-back.\n";
    let expected = ["d:1: \"shall\"", "d:1: \"go back\"", "d:2: \"beside\""];
    let found = found("d", text);
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
}
