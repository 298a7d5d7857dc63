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

/// The settings of a unit's text, key and value, in their order, whatever their section; an empty value resets a list.
pub fn settings(text: &str) -> impl Iterator<Item = (&str, String)> {
    let mut lines = text.lines();
    std::iter::from_fn(move || {
        loop {
            let line = lines.next()?.trim();
            let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with(['#', ';'])) else {
                continue;
            };
            let mut value = value.trim().to_owned();
            while let Some(head) = value.strip_suffix('\\') {
                let next = lines.next().unwrap_or_default();
                value = format!("{} {}", head.trim_end(), next.trim());
            }
            return Some((key.trim(), value));
        }
    })
}

/// The directives with which the stop of one unit stops another (systemd.unit(5)).
const BINDING: [&str; 4] = ["BindsTo", "PartOf", "Requires", "Requisite"];

/// Those with which the start of one unit starts another.
const STARTING: [&str; 4] = ["BindsTo", "Requires", "Upholds", "Wants"];

/// The text of a unit that is bound to `other`, and only wants it in the text that is returned; `None` if its lines do not name
/// it so.
pub fn unbound(text: &str, other: &str) -> Option<String> {
    without(text, &BINDING, other, Some(&format!("Wants={other}")))
}

/// The text of a unit that starts `other` with itself, and does not in the text that is returned; `None` if its lines do not
/// name it so.
pub fn not_starting(text: &str, other: &str) -> Option<String> {
    without(text, &STARTING, other, None)
}

/// The text without `other` in these directives, and with a line `instead` of each of them.
fn without(text: &str, directives: &[&str], other: &str, instead: Option<&str>) -> Option<String> {
    let mut changed = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let named = line.split_once('=').filter(|(key, value)| {
            directives.contains(&key.trim()) && value.split_whitespace().any(|unit| unit == other)
        });
        let Some((key, value)) = named else {
            lines.push(line.to_owned());
            continue;
        };
        changed = true;
        let others: Vec<&str> = value.split_whitespace().filter(|unit| *unit != other).collect();
        if !others.is_empty() {
            lines.push(format!("{key}={}", others.join(" ")));
        }
        lines.extend(instead.map(str::to_owned));
    }
    changed.then(|| lines.join("\n") + "\n")
}

/// The words of a value, without their quotes, `%%` as `%`, and without the signs before a command that say how it is
/// run; none in a value whose quotes are not closed.
pub fn words(value: &str) -> Vec<String> {
    let words = shlex::split(value.trim_start_matches(['-', '@', ':', '+', '!'])).unwrap_or_default();
    words.iter().map(|word| word.replace("%%", "%")).collect()
}

/// The words of the first command in `ExecStart=` of a unit's text, without the signs before it that say how it is run
/// (`-`, `@`, `:`, `+`, `!`); nothing where there is none, or its quotes are not closed.
pub fn exec_start(text: &str) -> Option<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let command = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("ExecStart="))
        .find(|command| !command.trim().is_empty())?;
    shlex::split(command.trim().trim_start_matches(['-', '@', ':', '+', '!']))
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

    #[test]
    fn a_unit_that_is_bound_to_another_only_wants_it() {
        let text = "[Unit]\nAfter=docker.socket containerd.service\nBindsTo=containerd.service\nRequires=docker.socket \
                    containerd.service\n\n[Service]\nExecStart=/usr/bin/dockerd \\\n    --x\n";
        let weak = "[Unit]\nAfter=docker.socket containerd.service\nWants=containerd.service\nRequires=docker.socket\n\
                    Wants=containerd.service\n\n[Service]\nExecStart=/usr/bin/dockerd \\\n    --x\n";
        assert_eq!(unbound(text, "containerd.service").unwrap(), weak);
        assert_eq!(unbound(weak, "containerd.service"), None);
        assert_eq!(
            unbound("[Unit]\n#BindsTo=containerd.service\n", "containerd.service"),
            None
        );
    }

    #[test]
    fn a_unit_no_longer_starts_another() {
        let text = "[Unit]\nAfter=crio.service\nWants=crio.service network-online.target\nWants=crio.service\n[Service]\n";
        assert_eq!(
            not_starting(text, "crio.service").unwrap(),
            "[Unit]\nAfter=crio.service\nWants=network-online.target\n[Service]\n"
        );
        assert_eq!(not_starting("[Unit]\nAfter=crio.service\n", "crio.service"), None);
    }

    #[test]
    fn the_command_of_a_text_is_read_in_words() {
        let text = "[Service]\nExecStart=\nExecStart=-/usr/bin/x --a \\\n  \"--b=c d\"\n";
        assert_eq!(super::exec_start(text).unwrap(), ["/usr/bin/x", "--a", "--b=c d"]);
        assert_eq!(super::exec_start("[Unit]\nExecStartPre=/bin/true\n"), None);
    }
}
