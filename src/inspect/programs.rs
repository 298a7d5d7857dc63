//! Programs where systemd looks for them, and what they say of themselves.

use super::notes::exists;
use crate::{
    host::files::Files,
    plan::{host_path::HostPath, paths::PROGRAM_DIRECTORIES},
};

/// A program by its path, or by its name where systemd looks for programs.
pub(super) fn find(files: &Files, program: &str) -> Option<HostPath> {
    let paths: Vec<String> = if program.starts_with('/') {
        vec![program.to_owned()]
    } else {
        PROGRAM_DIRECTORIES
            .iter()
            .map(|directory| format!("{directory}/{program}"))
            .collect()
    };
    let found = paths.into_iter().find(|path| exists(files, path))?;
    HostPath::new(found).ok()
}

/// The version in what a program says of itself: `cri-dockerd 0.4.3 (42ceb44)`, `crio version 1.34.0` with lines about its build.
pub(super) fn version_in(text: &str) -> String {
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    let words = text.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.into_iter().find(number).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_first_number() {
        let said = "crio version 1.34.0\nVersion:        1.34.0\nGoVersion:      go1.26.6\n";
        assert_eq!(version_in(said), "1.34.0");
        assert_eq!(version_in("crio version unknown"), "");
        assert_eq!(version_in("cri-dockerd 0.4.3 (42ceb44)\n"), "0.4.3");
        assert_eq!(version_in("cri-dockerd v0.3.21"), "0.3.21");
    }
}
