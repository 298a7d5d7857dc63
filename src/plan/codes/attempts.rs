//! Earlier attempts on the node: two plans must not change a host at the same time.

use crate::plan::finding::Code;

/// Another attempt is not over.
pub const EARLIER_ATTEMPT: Code = Code::block(
    "EarlierAttempt",
    "An earlier migration is not over on the node: its journal is open",
);

/// All codes of this module.
pub const CODES: &[Code] = &[EARLIER_ATTEMPT];
