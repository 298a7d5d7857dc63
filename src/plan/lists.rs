//! Lists and numbers in sentences.

/// `1 container`, `3 containers`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The first few of a list, and how many more there are.
pub fn some(names: &[String]) -> String {
    listed(names, 5)
}

/// The first few clauses of a list, and how many more there are; a clause may have commas of its own.
pub fn listing(clauses: &[String]) -> String {
    clauses_of(clauses, 8)
}

/// The first `shown` clauses of a list, and how many more there are.
pub fn clauses_of(clauses: &[String], shown: usize) -> String {
    first(clauses, shown, "; ", "; and")
}

/// As much of a list as a status may hold, of what a person has to look for by name.
pub fn many(names: &[String]) -> String {
    listed(names, 100)
}

/// The first `shown` names of a list, and how many more there are.
pub fn listed(names: &[String], shown: usize) -> String {
    first(names, shown, ", ", " and")
}

/// All of a list, as a sentence has them: `a, b and c`.
pub fn whole(names: &[&str]) -> String {
    match names {
        [before @ .., last] if !before.is_empty() => format!("{} and {last}", before.join(", ")),
        _ => names.concat(),
    }
}

fn first(all: &[String], shown: usize, between: &str, and: &str) -> String {
    let mut text = all[..all.len().min(shown)].join(between);
    if all.len() > shown {
        text.push_str(&format!("{and} {} more", all.len() - shown));
    }
    text
}
