//! Docker's unit where it is bound to that of its containerd, as Kubespray and old packages have it: a restart of containerd would
//! stop Docker, and with it all containers.

use crate::{
    edit::unit_file,
    plan::{facts::Docker, step::Step},
    planner::steps::own_files,
};

/// The steps after which Docker's service only wants `unit`; none where it is not bound to it, and `None` where a file binds it that is
/// not an administrator's. systemd adds what drop-ins say of other units, so no drop-in could take it back.
pub fn loosened(docker: &Docker, unit: &str) -> Option<Vec<Step>> {
    let is_bound = |bound_to: &[String]| bound_to.iter().any(|bound| bound == unit);
    if is_bound(&docker.socket.bound_to) {
        return None;
    }
    if !is_bound(&docker.service.bound_to) {
        return Some(Vec::new());
    }
    let files = docker.own_unit.iter().chain(&docker.service.drop_ins);
    own_files(files, |text| unit_file::unbound(text, unit))
}
