//! What a translation returns.

use std::fmt;

use super::super::ContainerdTomlError;

/// A translated configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The file until the commit: every handler of runc has the old shim as its `runtime_path`.
    pub soak: String,
    /// The file after the commit: as [`Translation::soak`], without these paths.
    pub settled: String,
    /// Files below the directory of registries ([`super::New::registries`]).
    pub registries: Vec<RegistryFile>,
    /// What became of each key that does not stay as it was. Holds no credentials.
    pub keys: Vec<Key>,
}

/// A key of the old configuration, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// The key with its tables.
    pub key: String,
    /// What became of it.
    pub became: Became,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Became {
    /// Another key or a file has it.
    Translated(String),
    /// The old program had this value without a key in the file; the new program has another default.
    WrittenOut(String),
    /// The new program does not read it, for this reason.
    Dropped(&'static str),
    /// It stays, and means this under the new program.
    Kept(&'static str),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.became {
            Became::Translated(to) => write!(f, "{}: translated to {to}", self.key),
            Became::WrittenOut(value) => write!(f, "{}: written out as {value}", self.key),
            Became::Dropped(why) => write!(f, "{}: dropped, {why}", self.key),
            Became::Kept(why) => write!(f, "{}: kept, {why}", self.key),
        }
    }
}

/// Why a configuration cannot be translated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The file cannot be edited.
    #[error(transparent)]
    File(#[from] ContainerdTomlError),
    /// An imported file cannot be read.
    #[error("{path}: {error}")]
    Imported {
        /// The imported file.
        path: String,
        /// What is wrong.
        error: ContainerdTomlError,
    },
    /// An import without a file: containerd does not start with it.
    #[error("imports names {0}, which does not exist")]
    ImportMissing(String),
    /// An imported file of a format that containerd 1.x does not read.
    #[error("{path} has version {version}, which containerd 1.x cannot read after a rollback")]
    ImportTooNew {
        /// The imported file.
        path: String,
        /// Its version.
        version: i64,
    },
    /// A key that must be translated stands in an imported file, which is not edited.
    #[error("{path} has {key}, which containerd 2.x drops; move it to the main file")]
    ImportedKey {
        /// The imported file.
        path: String,
        /// The key.
        key: String,
    },
    /// An imported file gives a handler an empty `runtime_path`, which beats the main file.
    #[error("{path} has an empty {key}, which beats the path of the old shim; remove the key")]
    ImportedShim {
        /// The imported file.
        path: String,
        /// The key.
        key: String,
    },
    /// Two imported files configure one plugin: 1.x reads the last one alone, 2.x merges them.
    #[error(
        "{first} and {second} both configure {plugin}: containerd 1.x reads only the second, and 2.x merges them"
    )]
    ImportsOverlap {
        /// The first file.
        first: String,
        /// The second file.
        second: String,
        /// The plugin.
        plugin: String,
    },
    /// A built-in default of the old program is not known.
    #[error(
        "the value of {0} is not known: it is not in the file, and `containerd config dump` did not print it"
    )]
    DefaultUnknown(String),
    /// A key with which pods cannot run under containerd 2.x.
    #[error("{key} {why}")]
    Impossible {
        /// The key.
        key: String,
        /// What happens with it.
        why: &'static str,
    },
}

/// A file with the settings of one registry. Holds no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryFile {
    /// Its path.
    pub path: String,
    /// Its text.
    pub text: String,
    /// Its permission bits.
    pub mode: u32,
}
