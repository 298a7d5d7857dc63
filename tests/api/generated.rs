//! Files that are generated: they equal what the code produces, and `UPDATE=1 cargo test` rewrites them.

use std::path::{Path, PathBuf};

/// A path in the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Fails when the file is not this text; writes it instead when `UPDATE` is set.
pub(crate) fn holds(path: &str, text: &str) {
    let file = repository(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    let present = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        present == text,
        "{path} is not what the code produces; UPDATE=1 cargo test rewrites it"
    );
}
