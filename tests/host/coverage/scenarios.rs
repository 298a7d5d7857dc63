//! The scenarios on real nodes: each says in its head what it proves, a line for each move:
//! `# Proves: SOURCE to TARGET, worker, shell, back`. What may stand after the move is in [`CHECKS`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use transship::api::request::Runtime;

use super::{Pair, Row, repository};

/// The words, and what they say.
const CHECKS: [(&str, &str); 9] = [
    ("worker", "a worker moves"),
    ("control plane", "a control plane node moves"),
    ("operator", "by the operator"),
    ("shell", "from a shell"),
    ("back", "back after the commit"),
    ("boot", "through a boot under the target"),
    ("power cuts", "power cuts in the middle"),
    ("faults", "faults of the node or of the target in the middle"),
    ("Kubespray", "Kubespray's layout"),
];

/// What a scenario says that is about no move.
const NOTHING: &str = "nothing of a move";

/// How many scenarios a cell names.
const NAMED: usize = 3;

pub(super) fn rows(wrong: &mut Vec<String>) -> Vec<Row> {
    let mut proven: BTreeMap<(usize, Pair), Vec<String>> = BTreeMap::new();
    for name in scenarios() {
        let text = fs::read_to_string(repository("tests/e2e").join(&name)).unwrap();
        let lines = text.lines().take_while(|line| line.starts_with('#'));
        let proves: Vec<&str> = lines.filter_map(|line| line.strip_prefix("# Proves: ")).collect();
        if proves.is_empty() {
            wrong.push(format!("tests/e2e/{name} has no line `# Proves: `"));
        }
        for line in proves.into_iter().filter(|line| *line != NOTHING) {
            let (pair, checks) = match read(line) {
                Ok(read) => read,
                Err(error) => {
                    wrong.push(format!("tests/e2e/{name}: {line}: {error}"));
                    continue;
                }
            };
            for check in checks {
                let names = proven.entry((check, pair)).or_default();
                if !names.contains(&name) {
                    names.push(name.clone());
                }
            }
        }
    }
    let mut rows: Vec<Row> = CHECKS.iter().map(|(_, what)| Row::new(what)).collect();
    for ((check, pair), names) in proven {
        let mut mark = names[..names.len().min(NAMED)].join(", ");
        if names.len() > NAMED {
            mark.push_str(&format!(" and {} more", names.len() - NAMED));
        }
        rows[check].marks.insert(pair, mark);
    }
    rows
}

/// The names of all scenarios, from the list of those that run.
fn scenarios() -> Vec<String> {
    let text = fs::read_to_string(repository("tests/e2e.rs")).unwrap();
    let calls = text.split("scenario(\"").skip(1);
    calls
        .map(|rest| rest.split('"').next().unwrap().to_owned())
        .collect()
}

/// The pair of a line, and the rows that it is about.
fn read(line: &str) -> Result<(Pair, BTreeSet<usize>), String> {
    let mut parts = line.split(", ");
    let (source, target) = parts
        .next()
        .and_then(|pair| pair.split_once(" to "))
        .ok_or("it begins with no `SOURCE to TARGET`")?;
    let runtime = |name: &str| {
        let mut all = Runtime::ALL.into_iter();
        all.find(|runtime| runtime.name() == name)
            .ok_or_else(|| format!("there is no runtime {name}"))
    };
    let rows = parts.map(|word| {
        let mut all = CHECKS.iter();
        let at = all.position(|(known, _)| *known == word);
        at.ok_or_else(|| format!("{word:?} is no check"))
    });
    Ok((
        (runtime(source)?, runtime(target)?),
        rows.collect::<Result<_, String>>()?,
    ))
}
