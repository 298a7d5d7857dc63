//! Where the target's files come from: why an origin cannot be planned.

use crate::plan::finding::Code;

/// Neither URL nor digest.
pub const ORIGIN_NOT_UNDERSTOOD: Code = Code::block(
    "OriginNotUnderstood",
    "`target.from` names no URL, no SHA-256 or no package that can be used",
);
/// A password where many can read it.
pub const ARCHIVE_URL_HAS_CREDENTIALS: Code = Code::block(
    "ArchiveUrlHasCredentials",
    "The URL of the archive holds a user or a password, which everybody can read in the custom resources",
);
/// Which version?
pub const ARCHIVE_VERSION_UNKNOWN: Code = Code::block(
    "ArchiveVersionUnknown",
    "Neither `target.version` nor the archive's name says which version it is",
);
/// Two versions.
pub const ARCHIVE_VERSION_MISMATCH: Code = Code::block(
    "ArchiveVersionMismatch",
    "The archive's name says another version than `target.version`",
);
/// For other machines.
pub const ARCHIVE_ARCHITECTURE: Code = Code::block(
    "ArchiveArchitecture",
    "The archive's name says that it is for another architecture than the node's",
);

/// Not with this package manager.
pub const PACKAGE_MANAGER_UNSUPPORTED: Code = Code::block(
    "PackageManagerUnsupported",
    "Packages of this distribution are not installed by this version",
);
/// Which version?
pub const PACKAGE_VERSION_UNKNOWN: Code = Code::block(
    "PackageVersionUnknown",
    "A package is asked for, and `target.version` is not a whole version",
);
/// Another one is there.
pub const PACKAGE_WOULD_REPLACE: Code = Code::block(
    "PackageWouldReplace",
    "The runtime is installed in another version, which the package would replace while containers depend on it",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    ORIGIN_NOT_UNDERSTOOD,
    ARCHIVE_URL_HAS_CREDENTIALS,
    ARCHIVE_VERSION_UNKNOWN,
    ARCHIVE_VERSION_MISMATCH,
    ARCHIVE_ARCHITECTURE,
    PACKAGE_MANAGER_UNSUPPORTED,
    PACKAGE_VERSION_UNKNOWN,
    PACKAGE_WOULD_REPLACE,
];
