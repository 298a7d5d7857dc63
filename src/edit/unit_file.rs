//! Drop-ins for systemd units, written whole: words and variables in the quoting of unit files.

/// One word of `ExecStart=`, which leaves `$` as it stands: a variable stays a variable.
pub fn word(text: &str) -> String {
    let escaped = text.replace('%', "%%");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=/.,:@+%$".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        escaped
    } else {
        quoted(&escaped)
    }
}

/// A line `Environment="NAME=value"`.
pub fn environment(assignment: &str) -> String {
    format!("Environment={}", quoted(&assignment.replace('%', "%%")))
}

fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_they_must_be() {
        assert_eq!(word("--a=/b,c"), "--a=/b,c");
        assert_eq!(word("$ARGS"), "$ARGS");
        assert_eq!(word("a b\"c"), "\"a b\\\"c\"");
        assert_eq!(word(""), "\"\"");
        assert_eq!(
            environment("P=http://u:100%@h"),
            "Environment=\"P=http://u:100%%@h\""
        );
    }
}
