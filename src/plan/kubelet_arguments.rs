//! From a unit to the kubelet's command line, and back: which file must become what, so that systemd would start
//! the kubelet with other flags.
//!
//! A flag in an environment file is edited there. Flags in `Environment=` or in `ExecStart=` belong to the unit
//! or to somebody's drop-in; they are overridden by a drop-in of our own, which sorts after all others.

use super::{
    environment::{self, Place},
    facts::UnitFacts,
    host_path::{HostPath, NotAHostPath},
    redaction,
};
use crate::edit::{
    env_file::{self, EnvFileError},
    flags::{self, Change, FlagsError},
    unit_file,
};

/// Where flags are put that stand in no environment file.
pub const DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/zz-transship.conf";
/// The variable of kubeadm's own flags.
const KUBEADM_ARGS: &str = "KUBELET_KUBEADM_ARGS";

/// A command line that cannot be read or not be changed safely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentsError {
    /// A file with variables cannot be read or edited.
    #[error("{path}: {error}")]
    EnvFile {
        /// The file.
        path: HostPath,
        /// Why.
        error: EnvFileError,
    },
    /// The flags in a variable cannot be read or edited.
    #[error("{place}: {error}")]
    Flags {
        /// File and variable, or the unit.
        place: String,
        /// Why.
        error: FlagsError,
    },
    /// A drop-in that would be read after ours.
    #[error("{0} sorts after Transship's drop-in {DROP_IN} and would override it; rename it")]
    Shadowed(HostPath),
    /// The unit has no command.
    #[error("{0} has no ExecStart")]
    NoCommand(String),
    /// The files would not give the wanted command line.
    #[error("the flags of {unit} cannot be changed safely: {flag} stands in a place that is not understood")]
    NotAsMeant {
        /// The unit.
        unit: String,
        /// A word that would be wrong, as anybody may read it.
        flag: String,
    },
    /// A path that is none.
    #[error(transparent)]
    Path(#[from] NotAHostPath),
}

/// A file that must change so that the command line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edited {
    /// The file.
    pub path: HostPath,
    /// What it shall be.
    pub text: String,
}

/// The words that systemd would start the unit with, the program first.
pub fn compose(unit: &UnitFacts) -> Result<Vec<String>, ArgumentsError> {
    let mut composed = Vec::new();
    for (index, word) in unit.exec_start.iter().enumerate() {
        match variable_alone(word).filter(|_| index > 0) {
            Some(name) => composed.extend(words_of(unit, name)?),
            None => composed.push(substitute(unit, word)?),
        }
    }
    if composed.is_empty() {
        Err(ArgumentsError::NoCommand(unit.name.clone()))
    } else {
        Ok(composed)
    }
}

/// The same, or the command as it stands in the unit if its variables cannot be read.
pub fn command(unit: &UnitFacts) -> Vec<String> {
    compose(unit).unwrap_or_else(|_| unit.exec_start.clone())
}

/// The files that must change so that systemd starts the unit with `changes` applied to its flags. Every flag
/// that is set stays in the place that has it, or goes to kubeadm's variable, or to the last variable there is.
pub fn change(unit: &UnitFacts, changes: &[Change]) -> Result<Vec<Edited>, ArgumentsError> {
    let before = compose(unit)?;
    let mut after = unit.clone();
    let variables = variables(unit);
    let home = home(unit, &variables, changes)?;
    for name in variables.iter().copied().map(Some).chain([None]) {
        let mut here = Vec::new();
        for change in changes {
            let set_here = matches!(change, Change::Set { .. })
                && place_of(unit, &variables, change.name())?.unwrap_or(home) == name;
            here.push(if set_here {
                change.clone()
            } else {
                Change::Remove {
                    name: change.name().to_owned(),
                }
            });
        }
        match name {
            Some(name) => change_variable(&mut after, name, &here)?,
            None => {
                let (program, words) = unit.exec_start.split_first().ok_or_else(|| no_command(unit))?;
                after.exec_start = std::iter::once(program.clone())
                    .chain(flags::change_words(words, &here))
                    .collect();
            }
        }
    }
    check(unit, &before, &after, changes)?;
    edited(unit, &after)
}

/// Variables that stand alone as a word of the command and have a value, in order.
fn variables(unit: &UnitFacts) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for name in unit
        .exec_start
        .iter()
        .skip(1)
        .filter_map(|word| variable_alone(word))
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Where a new flag goes: kubeadm's variable, the last one that has a flag which changes, the last one from a
/// file, the last one at all, or (`None`) the command itself.
fn home<'a>(
    unit: &UnitFacts,
    variables: &[&'a str],
    changes: &[Change],
) -> Result<Option<&'a str>, ArgumentsError> {
    let mut best: Option<(u8, &str)> = None;
    for name in variables {
        let place = lookup(unit, name)?.1;
        let words = words_of(unit, name)?;
        let concerned = changes
            .iter()
            .any(|change| flags::value(&words, change.name()).is_some());
        let rank = match place {
            Some(Place::File(_)) if *name == KUBEADM_ARGS => 4,
            Some(_) if concerned => 3,
            Some(Place::File(_)) => 2,
            Some(Place::Environment) => 1,
            None => continue,
        };
        if best.is_none_or(|(known, _)| known <= rank) {
            best = Some((rank, name));
        }
    }
    Ok(best.map(|(_, name)| name))
}

/// The last place that has a flag: a variable, or (`Some(None)`) the command itself.
fn place_of<'a>(
    unit: &UnitFacts,
    variables: &[&'a str],
    flag: &str,
) -> Result<Option<Option<&'a str>>, ArgumentsError> {
    for name in variables.iter().rev() {
        if flags::value(&words_of(unit, name)?, flag).is_some() {
            return Ok(Some(Some(name)));
        }
    }
    Ok(flags::value(&unit.exec_start, flag).map(|_| None))
}

fn change_variable(unit: &mut UnitFacts, name: &str, changes: &[Change]) -> Result<(), ArgumentsError> {
    let (old, place) = lookup(unit, name)?;
    let new = flags::change(&old, changes).map_err(|error| flags_error(unit, name, error))?;
    match place {
        Some(Place::File(index)) => {
            let file = &mut unit.environment_files[index];
            file.text = env_file::set(&file.text, name, &new).map_err(|error| ArgumentsError::EnvFile {
                path: file.path.clone(),
                error,
            })?;
        }
        Some(Place::Environment) => {
            unit.environment
                .retain(|assignment| !assignment.starts_with(&format!("{name}=")));
            unit.environment.push(format!("{name}={new}"));
        }
        None => {}
    }
    Ok(())
}

/// The new command line must be the old one with exactly `changes`; the order of flags may differ.
fn check(
    unit: &UnitFacts,
    before: &[String],
    after: &UnitFacts,
    changes: &[Change],
) -> Result<(), ArgumentsError> {
    let mut expected = flags::change_words(before, changes);
    let mut composed = compose(after)?;
    expected.sort_unstable();
    composed.sort_unstable();
    if expected == composed {
        return Ok(());
    }
    let odd = composed.iter().find(|word| !expected.contains(word));
    let flag = odd
        .or_else(|| expected.iter().find(|word| !composed.contains(word)))
        .map(|word| redaction::flags(word))
        .unwrap_or_default();
    Err(ArgumentsError::NotAsMeant {
        unit: unit.name.clone(),
        flag,
    })
}

/// The files in which `after` differs from `unit`.
fn edited(unit: &UnitFacts, after: &UnitFacts) -> Result<Vec<Edited>, ArgumentsError> {
    let mut files: Vec<Edited> = std::iter::zip(&unit.environment_files, &after.environment_files)
        .filter(|(old, new)| old.text != new.text)
        .map(|(_, new)| Edited {
            path: new.path.clone(),
            text: new.text.clone(),
        })
        .collect();
    let ours = unit.drop_ins.iter().any(|file| file.path.as_str() == DROP_IN);
    let command = unit.exec_start != after.exec_start;
    let changed: Vec<&String> = after
        .environment
        .iter()
        .filter(|new| ours || !unit.environment.contains(new))
        .collect();
    if !command && unit.environment == after.environment {
        return Ok(files);
    }
    if let Some(later) = unit
        .drop_ins
        .iter()
        .find(|file| file_name(&file.path) > file_name_of(DROP_IN))
    {
        return Err(ArgumentsError::Shadowed(later.path.clone()));
    }
    let mut text = String::from(
        "# Written by Transship: the kubelet's flags that stand in the unit, for another runtime.\n[Service]\n",
    );
    for assignment in changed {
        text.extend([&unit_file::environment(assignment), "\n"]);
    }
    if command || ours {
        let words: Vec<String> = after
            .exec_start
            .iter()
            .map(|word| unit_file::word(word))
            .collect();
        text.push_str(&format!("ExecStart=\nExecStart={}\n", words.join(" ")));
    }
    files.push(Edited {
        path: HostPath::new(DROP_IN)?,
        text,
    });
    Ok(files)
}

fn file_name(path: &HostPath) -> &str {
    file_name_of(path.as_str())
}

fn file_name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `NAME` of a word `$NAME` or of a part of one; `${NAME}` and `$$` are something else.
fn variable_alone(word: &str) -> Option<&str> {
    let name = word.strip_prefix('$')?;
    (!name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')).then_some(name)
}

/// A word with every `${NAME}` replaced and `$$` made `$`.
fn substitute(unit: &UnitFacts, word: &str) -> Result<String, ArgumentsError> {
    let mut done = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        done.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            done.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
            done.push_str(&lookup(unit, name)?.0);
            rest = after;
        } else {
            done.push('$');
        }
    }
    Ok(done + rest)
}

fn words_of(unit: &UnitFacts, name: &str) -> Result<Vec<String>, ArgumentsError> {
    let (value, _) = lookup(unit, name)?;
    flags::words(&value).map_err(|error| flags_error(unit, name, error))
}

/// A variable's value and where it is set; empty and `None` if it is not.
fn lookup(unit: &UnitFacts, name: &str) -> Result<(String, Option<Place>), ArgumentsError> {
    let Some((place, value)) = environment::values(unit, name).next() else {
        return Ok((String::new(), None));
    };
    match (place, value) {
        (place, Ok(value)) => Ok((value, Some(place))),
        (Place::File(index), Err(error)) => Err(ArgumentsError::EnvFile {
            path: unit.environment_files[index].path.clone(),
            error,
        }),
        (Place::Environment, Err(_)) => Ok((String::new(), None)),
    }
}

fn flags_error(unit: &UnitFacts, name: &str, error: FlagsError) -> ArgumentsError {
    let place = match lookup(unit, name) {
        Ok((_, Some(Place::File(index)))) => format!("{} ({name})", unit.environment_files[index].path),
        _ => format!("{} ({name})", unit.name),
    };
    ArgumentsError::Flags { place, error }
}

fn no_command(unit: &UnitFacts) -> ArgumentsError {
    ArgumentsError::NoCommand(unit.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::TextFile;

    fn unit(exec_start: &[&str]) -> UnitFacts {
        UnitFacts {
            name: "kubelet.service".into(),
            exec_start: exec_start.iter().map(|word| (*word).into()).collect(),
            ..UnitFacts::default()
        }
    }

    fn changes() -> [Change; 2] {
        [
            Change::Remove {
                name: "network-plugin".into(),
            },
            Change::Set {
                name: "container-runtime".into(),
                value: "remote".into(),
            },
        ]
    }

    #[test]
    fn files_beat_the_unit_and_variables_are_split() {
        let mut unit = unit(&["/usr/bin/kubelet", "$A", "--b=${B}", "$NONE", "$$x"]);
        unit.environment = vec!["A=--from=unit".into(), "B=one two".into()];
        unit.environment_files = vec![TextFile::example("/etc/default/kubelet", "A=\"--x=1 --y\"\n")];
        assert_eq!(
            compose(&unit).unwrap(),
            ["/usr/bin/kubelet", "--x=1", "--y", "--b=one two", "$x"]
        );
    }

    #[test]
    fn flags_go_to_kubeadms_variable_and_leave_every_place() {
        let mut unit = unit(&["/usr/bin/kubelet", "$KUBELET_KUBEADM_ARGS", "$KUBELET_EXTRA_ARGS"]);
        unit.environment_files = vec![
            TextFile::example(
                "/var/lib/kubelet/kubeadm-flags.env",
                "KUBELET_KUBEADM_ARGS=\"--network-plugin=cni --v=2\"\n",
            ),
            TextFile::example(
                "/etc/default/kubelet",
                "KUBELET_EXTRA_ARGS=--network-plugin=kubenet\n",
            ),
        ];
        let edited = change(&unit, &changes()).unwrap();
        assert_eq!(
            edited[0].text,
            "KUBELET_KUBEADM_ARGS=\"--v=2 --container-runtime=remote\"\n"
        );
        assert_eq!(edited[1].text, "KUBELET_EXTRA_ARGS=\n");
    }

    #[test]
    fn flags_in_the_unit_are_overridden_by_a_drop_in() {
        let mut unit = unit(&["/usr/bin/kubelet", "--network-plugin=cni", "--v=2", "$ARGS"]);
        unit.environment = vec!["ARGS=--container-runtime=docker".into()];
        let edited = change(&unit, &changes()).unwrap();
        assert_eq!(edited.len(), 1);
        assert!(
            edited[0].text.ends_with(
                "[Service]\nEnvironment=\"ARGS=--container-runtime=remote\"\nExecStart=\nExecStart=/usr/bin/kubelet --v=2 $ARGS\n"
            ),
            "{}",
            edited[0].text
        );
        unit.drop_ins = vec![TextFile::example(
            "/etc/systemd/system/kubelet.service.d/zzz.conf",
            "",
        )];
        assert!(matches!(
            change(&unit, &changes()),
            Err(ArgumentsError::Shadowed(_))
        ));
    }

    #[test]
    fn a_flag_inside_another_word_is_refused() {
        let mut unit = unit(&["/usr/bin/kubelet", "${ARGS}"]);
        unit.environment = vec!["ARGS=--network-plugin=cni".into()];
        assert!(matches!(
            change(&unit, &changes()),
            Err(ArgumentsError::NotAsMeant { .. })
        ));
    }
}
