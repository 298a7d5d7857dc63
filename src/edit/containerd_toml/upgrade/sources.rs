//! What decides how a configuration is translated.

use toml_edit::DocumentMut;

use super::{
    super::{ContainerdTomlError, parse},
    draft::Draft,
    outcome::Problem,
};

/// What the old program reads.
#[derive(Clone, Copy, Debug)]
pub struct Old<'a> {
    /// Text of the file; `None` if it does not exist.
    pub text: Option<&'a str>,
    /// Path and text of every file that it imports, in the order of containerd.
    pub imported: &'a [(String, String)],
    /// What `config dump` of the old program prints.
    pub effective: Option<&'a str>,
    /// The old program is containerd 1.x.
    pub first: bool,
}

/// What the new program must get.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    /// Path of the shim program with which sandboxes start until the commit.
    pub shim: &'a str,
    /// The new program is 2.1 or later: it has `cni.bin_dirs`, and pulls with the transfer service.
    pub from_2_1: bool,
    /// Directory for the settings of registries (`config_path`).
    pub registries: &'a str,
}

/// What else decides, next to the file itself.
pub(super) struct Sources<'a> {
    /// What `config dump` of the old program prints.
    pub(super) text: Option<&'a str>,
    /// The same, read.
    pub(super) effective: Option<&'a DocumentMut>,
    pub(super) imported: &'a [Imported],
}

impl Sources<'_> {
    /// The documents that containerd 2.x merges into the file.
    pub(super) fn drafts(&self) -> impl Iterator<Item = &Draft> {
        self.imported.iter().map(|imported| &imported.draft)
    }
}

/// An imported file.
pub(super) struct Imported {
    pub(super) path: String,
    pub(super) draft: Draft,
}

impl<'a> Sources<'a> {
    /// Nothing but the file itself decides.
    pub(super) fn none() -> Self {
        Self {
            text: None,
            effective: None,
            imported: &[],
        }
    }
}

/// Reads what `config dump` printed.
pub(super) fn read_effective(old: &Old<'_>) -> Result<Option<DocumentMut>, ContainerdTomlError> {
    old.effective.map(parse).transpose()
}

/// Reads the imported files.
pub(super) fn read_imported(old: &Old<'_>) -> Result<Vec<Imported>, Problem> {
    let read = |(path, text): &(String, String)| {
        let error = |error| Problem::Imported {
            path: path.clone(),
            error,
        };
        let draft = Draft::imported(text).map_err(error)?;
        if old.first && draft.version > 2 {
            return Err(Problem::ImportTooNew {
                path: path.clone(),
                version: draft.version,
            });
        }
        Ok(Imported {
            path: path.clone(),
            draft,
        })
    };
    old.imported.iter().map(read).collect()
}
