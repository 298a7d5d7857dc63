//! Programs where systemd looks for them.

use super::notes::exists;
use crate::{host::files::Files, plan::host_path::HostPath};

/// `systemd-path search-binaries-default`.
const SEARCHED: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// A program by its path, or by its name where systemd looks for programs.
pub(super) fn find(files: &Files, program: &str) -> Option<HostPath> {
    let paths: Vec<String> = if program.starts_with('/') {
        vec![program.to_owned()]
    } else {
        SEARCHED
            .iter()
            .map(|directory| format!("{directory}/{program}"))
            .collect()
    };
    let found = paths.into_iter().find(|path| exists(files, path))?;
    HostPath::new(found).ok()
}
