//! The kubelet's unit where it starts that of a runtime, as Kubespray has it (`Wants=crio.service`): a runtime that has ended
//! would start again with the kubelet, and one whose own unit is an administrator's cannot be masked.

use crate::{
    edit::unit_file,
    plan::{facts::Kubelet, step::Step},
    planner::steps::own_files,
};

/// The steps after which the kubelet no longer starts `unit`; `None` where it is not an administrator's files alone that can
/// name it. systemd adds what drop-ins say of other units, so no drop-in could take it back.
pub fn freed(kubelet: &Kubelet, unit: &str) -> Option<Vec<Step>> {
    let own = kubelet.own_unit.as_ref()?;
    let files = std::iter::once(own).chain(&kubelet.unit.drop_ins);
    own_files(files, |text| unit_file::not_starting(text, unit))
}
