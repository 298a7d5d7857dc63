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
    let mut text = clauses[..clauses.len().min(shown)].join("; ");
    if clauses.len() > shown {
        text.push_str(&format!("; and {} more", clauses.len() - shown));
    }
    text
}

/// As much of a list as a status may hold, of what a person has to look for by name.
pub fn many(names: &[String]) -> String {
    listed(names, 100)
}

/// The first `shown` names of a list, and how many more there are.
pub fn listed(names: &[String], shown: usize) -> String {
    let mut text = names[..names.len().min(shown)].join(", ");
    if names.len() > shown {
        text.push_str(&format!(" and {} more", names.len() - shown));
    }
    text
}
