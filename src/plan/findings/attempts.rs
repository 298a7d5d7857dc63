//! Earlier attempts on the node: two plans must not change a host at the same time.

use super::Code;
use crate::plan::{facts::Facts, finding::Finding, planner::Request};

/// Another attempt is not over.
pub const EARLIER_ATTEMPT: Code = Code::block(
    "EarlierAttempt",
    "An earlier migration is not over on the node: its journal is open",
);

/// All codes of this module.
pub const CODES: &[Code] = &[EARLIER_ATTEMPT];

/// The attempts that are not over, but for the one that is planned.
pub fn check<'a>(facts: &'a Facts, request: &'a Request) -> impl Iterator<Item = Finding> + 'a {
    let others = facts
        .attempts
        .iter()
        .filter(|attempt| attempt.name != request.migration);
    others.map(|attempt| {
        EARLIER_ATTEMPT.found(
            format!(
                "the migration in {} is not over on this node: it is {}",
                attempt.dir, attempt.state
            ),
            format!(
                "Wait until it is over, or run `transship node rollback --migration {}` on the node; the program is in \
                 /var/lib/transship/bin.",
                attempt.name
            ),
        )
    })
}
