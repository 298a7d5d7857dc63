//! Where the running binary stays on the host while a journal is open: the executor runs from there.

use std::io;

use super::{files::Files, selinux};
use crate::plan::{digest::Digest, document::STATE, host_path::HostPath};

/// Copies the binary at `own` to `/var/lib/transship/bin/<digest>/transship`, and returns where that is. A copy that is
/// there and is not whole is made again.
///
/// # Errors
/// When it cannot be read, or the copy is not durable.
pub fn settle(files: &Files, own: &HostPath) -> io::Result<HostPath> {
    let gone = || io::Error::new(io::ErrorKind::NotFound, format!("read {own}: it is gone"));
    let bytes = files.read(own)?.ok_or_else(gone)?;
    let digest = Digest::of(&bytes);
    let hex = digest.as_str().trim_start_matches("sha256:");
    let path = HostPath::new(format!("{STATE}/bin/{hex}/transship")).map_err(io::Error::other)?;
    if files.read(&path)?.as_deref() != Some(&bytes) {
        files.write(&path, &bytes, 0o755)?;
    }
    selinux::try_to_label(files, &path);
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_brought_once_and_repaired() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let own = HostPath::new("/proc/self/exe").unwrap();
        let error = settle(&files, &own).unwrap_err();
        assert!(error.to_string().contains("it is gone"), "{error}");
        files.write(&own, b"\x7fELF", 0o755).unwrap();
        let path = settle(&files, &own).unwrap();
        let digest = Digest::of(b"\x7fELF");
        assert_eq!(
            path.as_str(),
            format!("{STATE}/bin/{}/transship", &digest.as_str()[7..])
        );
        assert_eq!(files.read(&path).unwrap().as_deref(), Some(&b"\x7fELF"[..]));
        assert_eq!(files.attributes(&path).unwrap().unwrap().mode, 0o755);
        files.write(&path, b"torn", 0o755).unwrap();
        assert_eq!(settle(&files, &own).unwrap(), path);
        assert_eq!(files.read(&path).unwrap().as_deref(), Some(&b"\x7fELF"[..]));
    }
}
