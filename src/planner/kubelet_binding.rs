//! The kubelet's unit where it starts that of a runtime, as Kubespray has it (`Wants=crio.service`): a runtime that has ended
//! would start again with the kubelet, and one whose own unit is an administrator's cannot be masked.

use crate::{
    edit::unit_file,
    plan::{
        facts::Kubelet,
        paths::OWN_UNITS,
        step::{Contents, FileStep, Step},
    },
};

/// The steps after which the kubelet no longer starts `unit`; `None` where it is not an administrator's files alone that can
/// name it. systemd adds what drop-ins say of other units, so no drop-in could take it back.
pub fn freed(kubelet: &Kubelet, unit: &str) -> Option<Vec<Step>> {
    let own = kubelet.own_unit.as_ref()?;
    let files = std::iter::once(own).chain(&kubelet.unit.drop_ins);
    let changed = files.filter_map(|old| Some((old, unit_file::not_starting(&old.text, unit)?)));
    let steps: Option<Vec<Step>> = changed
        .map(|(old, text)| {
            old.path.as_str().starts_with(OWN_UNITS).then(|| {
                Step::File(FileStep {
                    path: old.path.clone(),
                    planned_from: Some(old.digest.clone()),
                    want: Some(Contents { text, mode: old.mode }),
                })
            })
        })
        .collect();
    steps.filter(|steps| !steps.is_empty())
}
