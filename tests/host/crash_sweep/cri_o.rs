//! Plans to CRI-O and away from it, with all that goes wrong; that every such pair ends migrated, and rolled back, is swept with
//! the other captured hosts.

use std::{panic, sync::Arc};

use rstest::rstest;
use transship::{
    executor::decide::End,
    plan::step::{Boot, Step},
};

use crate::crash_sweep::{
    captured,
    cases::Case,
    lives::{Others, begin, live},
    sweep::Sweep,
    world::Fault,
};

const FROM_DOCKERSHIM: &str = "debian12-kubeadm-1.23-dockershim-to-cri-o";
const FROM_CRI_DOCKERD: &str = "debian12-kubeadm-1.36-cri-dockerd-to-cri-o";
const FROM_CONTAINERD: &str = "debian12-kubeadm-1.36-control-plane-containerd-2.4-to-cri-o";
const TO_CONTAINERD: &str = "debian12-kubeadm-1.36-cri-o";
const TO_CRI_DOCKERD: &str = "debian12-kubeadm-1.36-cri-o-to-cri-dockerd";

/// The cases of which every fault is swept.
pub(crate) const FAULTS: [&str; 3] = [FROM_DOCKERSHIM, TO_CONTAINERD, TO_CRI_DOCKERD];

fn case(name: &str) -> Case {
    let mut all = captured::captured().into_iter();
    all.find(|case| case.name == name).unwrap()
}

#[rstest]
fn every_fault_ends_rolled_back(#[values(0, 1, 2)] which: usize) {
    let name = FAULTS[which];
    let case = Arc::new(case(name));
    for fault in [
        Fault::TargetRefusesConfig,
        Fault::CarryFails,
        Fault::RehearsalFails,
        Fault::StopPodsFails,
        Fault::ClearPodsFails,
        Fault::KubeletUnhealthy,
        Fault::KubeletCrashes,
        Fault::TargetDies,
        Fault::TargetHangs,
    ] {
        Sweep::new(&case, fault, Others::Commit)
            .sampled(61)
            .ends(End::RolledBack);
    }
}

/// Its pods end without it, and no other runtime is waited for.
#[test]
fn the_pods_of_a_cri_o_that_hangs_are_ended_without_it() {
    let world = begin(&Arc::new(case(FROM_DOCKERSHIM)), Fault::TargetHangs);
    live(&world, Others::Commit, false).unwrap();
    let odd = world.oddities();
    assert!(
        odd.contains(&"pods are stopped without cri-o".to_owned()),
        "{odd:?}"
    );
    let calls = world.calls();
    let waited: Vec<&str> = calls
        .iter()
        .filter_map(|(_, call)| call.strip_prefix("wait for "))
        .collect();
    assert!(
        !waited.is_empty() && waited.iter().all(|runtime| *runtime == "cri-o"),
        "{waited:?}"
    );
}

/// Another file sets another cgroup driver: no pod is touched.
#[test]
fn a_file_that_beats_the_plan_is_found_while_the_node_serves() {
    let world = begin(&Arc::new(case(FROM_DOCKERSHIM)), Fault::ImportWins);
    live(&world, Others::Commit, false).unwrap();
    let journal = world.journal();
    assert!(journal.contains("cgroup_manager"), "{journal}");
    let switch = world.case.plan.prepared();
    assert!(
        !journal.contains(&format!("\"event\":\"started\",\"step\":{switch},")),
        "{journal}"
    );
}

/// Plans that are wrong in one place each: the sweep must notice.
#[test]
fn the_sweep_notices_what_cri_o_does_by_itself() {
    let mut wiped = case(FROM_CRI_DOCKERD);
    let disables = |step: &Step| matches!(step, Step::Unit(unit) if unit.unit == "crio-wipe.service" && unit.boot == Some(Boot::Disabled));
    wiped.plan.steps.retain(|planned| !disables(&planned.does));
    wiped.digest = wiped.plan.digest();
    for (what, case, others) in [
        ("images are wiped at a boot", wiped, Others::Commit),
        (
            "pods lose their network",
            collecting(FROM_CONTAINERD),
            Others::Commit,
        ),
        (
            "pods lose it on the way back",
            collecting(TO_CONTAINERD),
            Others::Undo,
        ),
    ] {
        let case = Arc::new(case);
        let swept = panic::catch_unwind(|| {
            Sweep::new(&case, Fault::Nothing, others).sampled(2).run();
        });
        assert!(swept.is_err(), "not noticed: {what}");
    }
}

/// A case whose plan does not keep CRI-O from collecting garbage.
fn collecting(name: &str) -> Case {
    let mut case = case(name);
    for planned in &mut case.plan.steps {
        let Step::File(step) = &mut planned.does else {
            continue;
        };
        let Some(want) = &mut step.want else { continue };
        want.text = want.text.replace("\"disableGC\": true", "\"disableGC\": false");
    }
    case.digest = case.plan.digest();
    case
}
