//! An image whose layers lie unpacked in some store, as trees in the form of overlayfs: what Docker's `overlay2`,
//! containerd's `overlayfs` and CRI-O's `overlay` have in common.

use serde::Deserialize;

use super::RuntimeError;
use crate::{
    edit::parse,
    plan::{digest::Digest, host_path::HostPath},
};

/// An image whose layers lie unpacked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Its configuration, whose digest is its id.
    pub(super) config: Vec<u8>,
    /// The manifests by which registries know it, that of this platform last; empty if the store does not keep them.
    pub(super) manifests: Vec<Vec<u8>>,
    /// Its layers, the lowest first; at least one.
    pub(super) layers: Vec<Layer>,
}

/// An unpacked layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// Digest of its uncompressed archive.
    pub(super) diff_id: Digest,
    /// What it is called together with the layers below it.
    pub(super) chain_id: Digest,
    /// Bytes of its files, or of its archive, as far as the store tells.
    pub(super) size: u64,
    /// Its files, in the form of overlayfs.
    pub(super) directory: HostPath,
    /// What its archive can be made of again.
    pub(super) tar_split: TarSplit,
    /// The archive by which registries know it.
    pub(super) compressed: Option<Compressed>,
}

/// The data of `tar-split` of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TarSplit {
    /// In this file.
    Kept(HostPath),
    /// Made of the archive.
    Made(Vec<u8>),
    /// There are none.
    Missing,
}

/// The archive of a layer as registries have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compressed {
    /// Its digest.
    pub(super) digest: Digest,
    /// Its length in bytes, if it is known.
    pub(super) size: Option<u64>,
    /// How it is compressed.
    pub(super) by: Compression,
}

/// How an archive of a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// It is not.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// The first bytes of an archive in gzip, and of one in Zstandard.
const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

impl Compression {
    /// How an archive that begins so is compressed.
    pub(super) fn of(first: &[u8]) -> Self {
        if first.starts_with(GZIP) {
            Self::Gzip
        } else if first.starts_with(ZSTD) {
            Self::Zstd
        } else {
            Self::None
        }
    }
}

/// The part of an image's configuration that names its layers.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<Digest>,
}

/// The layers that a configuration names, the lowest first: each with what it is called together with those below it.
///
/// # Errors
/// When it cannot be read or names none; `at` is where it stands.
pub(super) fn layers(
    config: &[u8],
    at: impl std::fmt::Display,
) -> Result<Vec<(Digest, Digest)>, RuntimeError> {
    let read = parse::json::<Config>(config).map_err(|error| RuntimeError::because(&at, error))?;
    let mut layers: Vec<(Digest, Digest)> = Vec::new();
    for diff_id in read.rootfs.diff_ids {
        // They become names of files.
        if !Digest::is_written(diff_id.as_str()) {
            return Err(RuntimeError::new(format!("{at} names a layer by no digest")));
        }
        let chain_id = match layers.last() {
            Some((_, below)) => Digest::of(format!("{below} {diff_id}")),
            None => diff_id.clone(),
        };
        layers.push((diff_id, chain_id));
    }
    if layers.is_empty() {
        return Err(RuntimeError::new(format!("{at} names no layers")));
    }
    Ok(layers)
}

/// A digest without `sha256:`.
pub(super) fn hex(digest: &str) -> &str {
    digest.trim_start_matches("sha256:")
}
