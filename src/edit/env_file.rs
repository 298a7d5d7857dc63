//! systemd environment files (`EnvironmentFile=`), by the grammar of systemd's own reader, `src/basic/env-file.c`:
//! no expansion, the last assignment of a name wins, quoted pieces that follow each other are joined.

use std::ops::Range;

/// A file that cannot be read, or not be written again safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvFileError {
    /// Before systemd 254 such a comment swallows the next line, later it does not.
    #[error(
        "line {line}: a comment ends in a backslash, which systemd's versions read differently; remove the backslash"
    )]
    CommentContinues {
        /// Line number from 1.
        line: usize,
    },
    /// A quote that is never closed. What stands before the `=` is not shown: in a broken file it may be a part of a
    /// secret.
    #[error("line {line}: a quoted value has no end; close the quote")]
    Unterminated {
        /// Line number from 1.
        line: usize,
    },
    /// A value of several pieces, whose form could not be kept.
    #[error(
        "line {line}: the value of {name} is made of several quoted pieces, which cannot be edited safely; write \
         it as one double-quoted text"
    )]
    OddQuoting {
        /// The variable.
        name: String,
        /// Line number from 1.
        line: usize,
    },
    /// The edited text does not read as it should.
    #[error("after setting {name} the file would not read as meant; edit it by hand")]
    NotAsMeant {
        /// The variable.
        name: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    Plain,
    Single,
    Double,
    Pieces,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    name: String,
    value: String,
    line: usize,
    quoting: Quoting,
    /// The bytes of the value as written, quotes included.
    span: Range<usize>,
}

/// The value that systemd would give to `name`; absent when the file does not set it.
pub fn get(text: &str, name: &str) -> Result<Option<String>, EnvFileError> {
    Ok(parse(text)?
        .into_iter()
        .rfind(|found| found.name == name)
        .map(|found| found.value))
}

/// The text with `name` set to `value`: the assignment that wins is replaced in its own style of quoting, or one
/// is added at the end.
pub fn set(text: &str, name: &str, value: &str) -> Result<String, EnvFileError> {
    let before = parse(text)?;
    let wins = before.iter().rposition(|found| found.name == name);
    let mut expected: Vec<(String, String)> = before.iter().map(pair).collect();
    let edited = match wins.map(|index| (index, &before[index])) {
        Some((_, found)) if found.value == value => return Ok(text.to_owned()),
        Some((
            _,
            Assignment {
                quoting: Quoting::Pieces,
                line,
                ..
            },
        )) => {
            return Err(EnvFileError::OddQuoting {
                name: name.to_owned(),
                line: *line,
            });
        }
        Some((index, found)) => {
            expected[index].1 = value.to_owned();
            let (head, tail) = (&text[..found.span.start], &text[found.span.end..]);
            format!("{head}{}{tail}", print(value, found.quoting))
        }
        None => {
            expected.push((name.to_owned(), value.to_owned()));
            let newline = if text.is_empty() || text.ends_with('\n') {
                ""
            } else {
                "\n"
            };
            format!("{text}{newline}{name}={}\n", print(value, Quoting::Double))
        }
    };
    let after: Vec<(String, String)> = parse(&edited)?.iter().map(pair).collect();
    if after == expected {
        Ok(edited)
    } else {
        Err(EnvFileError::NotAsMeant {
            name: name.to_owned(),
        })
    }
}

fn pair(found: &Assignment) -> (String, String) {
    (found.name.clone(), found.value.clone())
}

/// The value in the style that is wanted, or double-quoted where that style cannot hold it.
fn print(value: &str, quoting: Quoting) -> String {
    let plain = !value.starts_with(['\'', '"', ' ', '\t'])
        && !value.ends_with([' ', '\t'])
        && !value.contains(['\\', '\n', '\r']);
    match quoting {
        Quoting::Plain if plain => value.to_owned(),
        Quoting::Single if !value.contains('\'') => format!("'{value}'"),
        _ => {
            let mut quoted = String::from("\"");
            for c in value.chars() {
                if matches!(c, '"' | '\\' | '`' | '$') {
                    quoted.push('\\');
                }
                quoted.push(c);
            }
            quoted + "\""
        }
    }
}

fn parse(text: &str) -> Result<Vec<Assignment>, EnvFileError> {
    let mut reader = Reader { text, at: 0 };
    let mut found = Vec::new();
    while let Some(c) = reader.peek() {
        if is_space(c) {
            reader.next();
        } else if matches!(c, '#' | ';') {
            reader.comment()?;
        } else if let Some(assignment) = reader.assignment()? {
            found.push(assignment);
        }
    }
    Ok(found)
}

const fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r')
}

const fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn comment(&mut self) -> Result<(), EnvFileError> {
        let line = self.line();
        while let Some(c) = self.next() {
            if c == '\\' && self.next().is_some_and(is_newline) {
                return Err(EnvFileError::CommentContinues { line });
            }
            if is_newline(c) {
                break;
            }
        }
        Ok(())
    }

    /// A line up to its end; a line without `=` is dropped, as systemd does.
    fn assignment(&mut self) -> Result<Option<Assignment>, EnvFileError> {
        let (start, line) = (self.at, self.line());
        loop {
            match self.next() {
                Some('=') => break,
                Some(c) if is_newline(c) => return Ok(None),
                Some(_) => {}
                None => return Ok(None),
            }
        }
        let name = self.text[start..self.at - 1].trim_end().to_owned();
        let (value, quoting, span) = self.value().ok_or(EnvFileError::Unterminated { line })?;
        Ok(Some(Assignment {
            name,
            value,
            line,
            quoting,
            span,
        }))
    }

    /// The value with its quoting and its bytes; `None` when a quote is not closed.
    fn value(&mut self) -> Option<(String, Quoting, Range<usize>)> {
        let mut value = String::new();
        let mut pieces = Vec::new();
        let mut span = self.at..self.at;
        loop {
            match self.peek() {
                None => break,
                Some(c) if is_newline(c) => break,
                Some(c) if is_space(c) => {
                    self.next();
                    if pieces.is_empty() {
                        span = self.at..self.at;
                    }
                    continue;
                }
                Some('\'') => {
                    pieces.push(Quoting::Single);
                    self.next();
                    loop {
                        match self.next()? {
                            '\'' => break,
                            c => value.push(c),
                        }
                    }
                }
                Some('"') => {
                    pieces.push(Quoting::Double);
                    self.next();
                    self.double_quoted(&mut value)?;
                }
                Some(_) => {
                    pieces.push(Quoting::Plain);
                    let written = self.plain(&mut value);
                    span.end = written;
                    break;
                }
            }
            span.end = self.at;
        }
        let quoting = match pieces[..] {
            [] => Quoting::Plain,
            [one] => one,
            _ => Quoting::Pieces,
        };
        Some((value, quoting, span))
    }

    fn double_quoted(&mut self, value: &mut String) -> Option<()> {
        loop {
            match self.next()? {
                '"' => return Some(()),
                '\\' => match self.next()? {
                    c @ ('"' | '\\' | '`' | '$') => value.push(c),
                    '\n' | '\r' => {}
                    c => value.extend(['\\', c]),
                },
                c => value.push(c),
            }
        }
    }

    /// An unquoted rest of the line; returns where its last byte that counts ends.
    fn plain(&mut self, value: &mut String) -> usize {
        let (mut keep, mut end) = (value.len(), self.at);
        while let Some(c) = self.peek() {
            if is_newline(c) {
                break;
            }
            self.next();
            if c == '\\' {
                if let Some(escaped) = self.next().filter(|c| !is_newline(*c)) {
                    value.push(escaped);
                    (keep, end) = (value.len(), self.at);
                }
                continue;
            }
            value.push(c);
            if !is_space(c) {
                (keep, end) = (value.len(), self.at);
            }
        }
        value.truncate(keep);
        end
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_as_systemd_does() {
        let text = "# comment\n; other\n\nA=one two  \nB = \"a \\\"b\\\" \\x\" \nno assignment\nC='it''s'\nD=x\\\ny\nA=last";
        assert_eq!(get(text, "A").unwrap().as_deref(), Some("last"));
        assert_eq!(get(text, "B").unwrap().as_deref(), Some("a \"b\" \\x"));
        assert_eq!(get(text, "C").unwrap().as_deref(), Some("its"));
        assert_eq!(get(text, "D").unwrap().as_deref(), Some("xy"));
        assert_eq!(get(text, "E").unwrap(), None);
    }

    #[test]
    fn keeps_the_style_of_quoting() {
        assert_eq!(set("A=1\nB=2\n", "A", "x y").unwrap(), "A=x y\nB=2\n");
        assert_eq!(set("A='1' \n", "A", "x y").unwrap(), "A='x y' \n");
        assert_eq!(set("A=  \"1\"\n", "A", "$x").unwrap(), "A=  \"\\$x\"\n");
        assert_eq!(set("A=\n", "A", "x").unwrap(), "A=x\n");
        assert_eq!(set("B=2", "A", "x").unwrap(), "B=2\nA=\"x\"\n");
        assert_eq!(set("A=\"x \\\n y\"\n", "A", "z").unwrap(), "A=\"z\"\n");
    }

    #[test]
    fn refuses_what_it_cannot_print_again() {
        assert_eq!(
            set("A='1'\"2\"\n", "A", "x"),
            Err(EnvFileError::OddQuoting {
                name: "A".into(),
                line: 1
            })
        );
        assert_eq!(get("\nA=\"1\n", "A"), Err(EnvFileError::Unterminated { line: 2 }));
        assert_eq!(
            get("# c\\\nA=1\n", "A"),
            Err(EnvFileError::CommentContinues { line: 1 })
        );
    }

    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            "[#;][ -\\[\\]-~]{0,12}",
            "[A-C]=[ -~]{0,12}",
            "[A-C]='[ -&(-~]{0,8}'",
            "[A-C]=\"[ !#-\\[\\]-~]{0,8}\" ?",
            Just(String::new()),
        ]
    }

    proptest! {
        #[test]
        fn changes_one_variable_and_keeps_every_other_line(
            lines in prop::collection::vec(line(), 0..6), value in "[ -~]{0,16}",
        ) {
            let text = lines.join("\n");
            let Ok(edited) = set(&text, "B", &value) else { return Ok(()) };
            prop_assert_eq!(get(&edited, "B").unwrap(), Some(value.clone()));
            for other in ["A", "C"] {
                prop_assert_eq!(get(&edited, other).unwrap(), get(&text, other).unwrap());
            }
            prop_assert_eq!(&set(&edited, "B", &value).unwrap(), &edited, "idempotent");
            // After a backslash or within quotes at the end of a line the next one is a part of its value.
            let continued = lines.iter().any(|line| line.ends_with('\\') || parse(line).is_err());
            for comment in lines.iter().filter(|line| !continued && line.starts_with(['#', ';'])) {
                prop_assert!(edited.contains(comment.as_str()));
            }
            // The way back may be refused (a backslash at the very end leaves odd quoting), but never be wrong.
            if let Some(old) = get(&text, "B").unwrap()
                && let Ok(back) = set(&edited, "B", &old)
            {
                prop_assert_eq!(get(&back, "B").unwrap(), Some(old), "round trip");
            }
        }
    }
}
