//! Certificates of private registries, which each runtime reads from a directory of its own.

use crate::plan::finding::Code;

/// Certificates stay behind.
pub const REGISTRY_CERTIFICATES: Code = Code::warn(
    "RegistryCertificates",
    "The source has certificates of registries in a directory that the target does not read; pulls from them fail with x509",
);

/// All codes of this module.
pub const CODES: &[Code] = &[REGISTRY_CERTIFICATES];
