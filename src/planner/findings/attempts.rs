//! Earlier attempts on the node: two plans must not change a host at the same time.

use crate::{
    plan::{codes::attempts::EARLIER_ATTEMPT, facts::Facts, finding::Finding},
    planner::request::Request,
};

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
