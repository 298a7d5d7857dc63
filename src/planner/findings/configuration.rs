//! Files that must be edited, or that decide what the edited ones mean.

use semver::Version;

use crate::{
    edit::daemon_json,
    plan::{
        codes::configuration::{DAEMON_JSON_BROKEN, DAEMON_JSON_UNREAD},
        finding::Finding,
        version,
    },
    planner::context::View,
};

/// The first Docker Engine that starts with a `daemon.json` that is empty, or begins with a byte order mark
/// (`daemon/config/config.go`).
const LENIENT_SINCE: Version = Version::new(23, 0, 0);

/// What would keep Docker, which runs, from being started again.
fn docker(view: &View<'_>) -> Option<Finding> {
    let (docker, engine) = view.docker.zip(view.engine)?;
    let file = docker.daemon_json.as_ref()?;
    let is_strict = version::upstream(&engine.version).is_some_and(|found| found < LENIENT_SINCE);
    let mistake = if file.text.trim().is_empty() {
        Some(("is empty", "Remove it, or write `{}` into it"))
    } else if file.text.starts_with(daemon_json::BYTE_ORDER_MARK) {
        Some((
            "begins with a byte order mark",
            "Write it without (`sed -i '1s/^\\xEF\\xBB\\xBF//'`)",
        ))
    } else {
        None
    };
    if let Some((what, remedy)) = mistake.filter(|_| is_strict) {
        return Some(DAEMON_JSON_BROKEN.found(
            format!(
                "{} {what}, with which Docker {} does not start",
                file.path, engine.version
            ),
            format!("{remedy}: otherwise Docker cannot be started again by a rollback."),
        ));
    }
    docker.daemon_json_unread.then(|| {
        DAEMON_JSON_UNREAD.found(
            format!("{} is newer than the running Docker {}", file.path, engine.version),
            "Check it (`dockerd --validate` from Docker 23.0 on), restart Docker and plan again, or accept it with \
             `preflight.allow: [DaemonJsonUnread]`. With a file that Docker refuses, a rollback fails.",
        )
    })
}

/// Checks of the files of a pair that can be planned; those of the target's own files are its planner's.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    docker(view).into_iter().collect()
}
