//! What the source gives to pods without their asking and the target does not, and the settings of the target that
//! give it to them too. `docs/pod-environment.md` lists everything.

use std::time::Duration;

use semver::Version;

use crate::{
    plan::{request::GoDuration, version},
    planner::context::View,
};

/// The first Docker Engine under which every process may bind ports under 1024 and send pings (`daemon/oci_linux.go`).
const UNPRIVILEGED_SINCE: Version = Version::new(20, 10, 0);
/// Major and minor version of the first kernel with both settings; with an older one containerd's CRI plugin does not
/// load if they are switched on (`pkg/cri/config/config_kernel_linux.go`), and Docker does not set them.
const UNPRIVILEGED_KERNEL: (u64, u64) = (4, 11);
/// The settings of the kernel with which Docker gives every container both (`daemon/oci_linux.go`).
pub const UNPRIVILEGED_SYSCTLS: [(&str, &str); 2] = [
    ("net.ipv4.ip_unprivileged_port_start", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
];
/// How long dockershim and cri-dockerd let a pull make no progress unless told otherwise.
const PULL_DEADLINE: Duration = Duration::from_secs(60);

/// Whether pods may bind ports under 1024 and send pings without privileges: because Docker runs them, or because the source is
/// set so.
pub fn unprivileged(view: &View<'_>) -> bool {
    view.translation.unprivileged() || under_docker(view)
}

fn under_docker(view: &View<'_>) -> bool {
    let docker = view
        .docker_left()
        .and_then(|(_, engine)| version::upstream(&engine.version));
    let kernel = version::upstream(&view.facts.kernel).map(|found| (found.major, found.minor));
    docker.is_some_and(|found| found >= UNPRIVILEGED_SINCE)
        && kernel.is_some_and(|found| found >= UNPRIVILEGED_KERNEL)
}

/// The source's deadline for pulls that make no progress, if somebody made it longer than dockershim's own and longer
/// than the target's.
pub fn pull_deadline(view: &View<'_>) -> Option<String> {
    let deadline = view.source.pull_deadline.as_deref()?;
    let found = duration(deadline)?;
    let has = view.target.pull_deadline.as_deref().and_then(duration);
    (found > PULL_DEADLINE && has.is_none_or(|has| found > has)).then(|| deadline.to_owned())
}

/// A duration of Go's, in whole seconds.
fn duration(text: &str) -> Option<Duration> {
    text.parse::<GoDuration>().ok().map(GoDuration::get)
}
