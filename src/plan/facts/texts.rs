//! Files with their texts.

use serde::{Deserialize, Serialize};

use crate::plan::{digest::Digest, host_path::HostPath};

/// A file with its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TextFile {
    /// Where it is.
    pub path: HostPath,
    /// Its text (UTF-8; a file that is not UTF-8 is listed in [`Facts::unreadable`](super::Facts::unreadable)).
    pub text: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Its permission bits.
    pub mode: u32,
}

#[cfg(test)]
impl TextFile {
    /// A file that everybody may read.
    pub fn example(path: &str, text: &str) -> Self {
        Self {
            path: HostPath::new(path).unwrap(),
            text: text.to_owned(),
            digest: Digest::of(text),
            mode: 0o644,
        }
    }
}

/// A path, and the file there if there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MaybeFile {
    /// Where it would be.
    pub path: HostPath,
    /// The file there.
    pub file: Option<TextFile>,
}
