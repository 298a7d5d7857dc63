//! The variables that systemd gives a unit.

use super::facts::UnitFacts;
use crate::edit::env_file::{self, EnvFileError};

/// Where a variable is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Index into [`UnitFacts::environment_files`].
    File(usize),
    /// `Environment=` of the unit or of a drop-in.
    Environment,
}

/// The values of a variable, the one that the unit gets first: files beat `Environment=`, and the last file and the last
/// assignment win. A file that cannot be read as one of variables is among them, because it may set the variable.
pub fn values<'a>(
    unit: &'a UnitFacts,
    name: &'a str,
) -> impl Iterator<Item = (Place, Result<String, EnvFileError>)> + 'a {
    let files = unit.environment_files.iter().enumerate().rev();
    let in_files = files.filter_map(move |(index, file)| {
        let value = env_file::get(&file.text, name).transpose()?;
        Some((Place::File(index), value))
    });
    let assignments = unit.environment.iter().rev();
    let assigned = assignments.filter_map(move |assignment| {
        let (key, value) = assignment.split_once('=')?;
        (key == name).then(|| (Place::Environment, Ok(value.to_owned())))
    });
    in_files.chain(assigned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::TextFile;

    #[test]
    fn files_beat_assignments_and_the_last_of_each_wins() {
        let file = |text: &str| TextFile::example("/etc/default/a", text);
        let unit = UnitFacts {
            environment: ["A=1", "B=2", "A=3"].map(str::to_owned).into(),
            environment_files: vec![file("A=4\n"), file("C=5\n"), file("A=6\nA=7\n")],
            ..UnitFacts::default()
        };
        let all = |name: &str| -> Vec<_> {
            values(&unit, name)
                .map(|(place, value)| (place, value.unwrap()))
                .collect()
        };
        let value = |place: Place, value: &str| (place, value.to_owned());
        assert_eq!(
            all("A"),
            [
                value(Place::File(2), "7"),
                value(Place::File(0), "4"),
                value(Place::Environment, "3"),
                value(Place::Environment, "1"),
            ]
        );
        assert_eq!(all("B"), [value(Place::Environment, "2")]);
        assert_eq!(all("D"), []);
    }
}
