//! Labels of SELinux. systemd does not start a program that is labelled as data, and data is what everything below
//! `/var/lib` is labelled as.

use std::io;

use super::files::Files;
use crate::plan::host_path::HostPath;

/// The kernel makes this directory when SELinux is on.
const SELINUX: &str = "/sys/fs/selinux";
/// The attribute that holds a file's label.
pub(super) const ATTRIBUTE: &str = "security.selinux";
/// The label of the targeted policy for programs (`files/file_contexts`, `/usr/bin(/.*)?`); systemd starts them without
/// a domain of their own.
const PROGRAM: &str = "system_u:object_r:bin_t:s0\0";

/// Labels a program so that systemd may start it. Does nothing where there is no SELinux, or the label is right.
///
/// # Errors
/// When the label cannot be set, naming the path.
pub fn label_program(files: &Files, program: &HostPath) -> io::Result<()> {
    let there = HostPath::new(SELINUX).is_ok_and(|path| files.exists(&path).unwrap_or(false));
    if !there {
        return Ok(());
    }
    files.set_attribute(program, ATTRIBUTE, PROGRAM.as_bytes())
}

/// [`label_program`], with a warning where that fails: SELinux may be permissive.
pub fn try_to_label(files: &Files, program: &HostPath) {
    if let Err(error) = label_program(files, program) {
        tracing::warn!(
            %program,
            %error,
            "the program has no label of SELinux with which systemd starts it; if it is not started, run \
             `chcon -t bin_t` for it on the node"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_labelled_where_selinux_is_on() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let program = HostPath::new("/var/lib/transship/bin/1/transship").unwrap();
        files.write(&program, b"\x7fELF", 0o755).unwrap();
        let label = || {
            let attributes = files.attributes(&program).unwrap().unwrap();
            attributes.xattrs.get(ATTRIBUTE).map(|label| label.0.clone())
        };
        label_program(&files, &program).unwrap();
        assert_ne!(
            label().as_deref(),
            Some(PROGRAM.as_bytes()),
            "no SELinux, no label"
        );
        files.create_dir_all(&HostPath::new(SELINUX).unwrap()).unwrap();
        label_program(&files, &program).unwrap();
        assert_eq!(label().as_deref(), Some(PROGRAM.as_bytes()));
        label_program(&files, &program).unwrap();
    }
}
