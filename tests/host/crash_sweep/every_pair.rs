//! All that goes wrong by itself, without a crash, on a captured host of every pair; crashes on top of it are swept on some.

use std::{collections::BTreeMap, sync::Arc};

use rstest::rstest;
use transship::executor::decide::End;

use crate::crash_sweep::{
    captured,
    cases::Case,
    end_with,
    lives::{Others, begin, live_on},
    random::{Random, seed, whole},
    sweep::Sweep,
    world::Fault,
};

/// The first captured host of each pair.
pub(crate) fn all() -> Vec<Arc<Case>> {
    let mut first = BTreeMap::new();
    for case in captured::captured() {
        first.entry((case.source(), case.target())).or_insert(case);
    }
    first.into_values().map(Arc::new).collect()
}

/// One of so many of these, beginning with a drawn one; all where nothing is left out.
fn some(all: impl IntoIterator<Item = u64>, of: usize) -> impl Iterator<Item = u64> {
    let of = if whole() { 1 } else { of };
    let first = Random(seed()).below(of as u64) as usize;
    all.into_iter().skip(first).step_by(of)
}

/// Where a fault changes nothing, because the plan has no such step, the node is migrated.
#[test]
fn every_fault_ends_in_one_of_the_two() {
    for case in all() {
        let faults = [
            Fault::TargetRefusesConfig,
            Fault::CarryFails,
            Fault::RehearsalFails,
            Fault::StopPodsFails,
            Fault::ClearPodsFails,
            Fault::KubeletUnhealthy,
            Fault::KubeletCrashes,
            Fault::KubeletMasked,
            Fault::StopFails,
            Fault::ReadOnly,
            Fault::TargetDies,
            Fault::TargetHangs,
        ];
        let back = faults.into_iter().filter(|fault| {
            let what = format!("{}: {fault:?}", case.name);
            end_with(&case, *fault, Others::Commit, &what) == End::RolledBack
        });
        let back = back.count();
        assert!(back >= 8, "{}: {back}", case.name);
    }
}

#[test]
fn every_step_that_fails_ends_in_one_of_the_two() {
    for case in all() {
        for step in 0..case.plan.steps.len() {
            let what = format!("{}: step {step} fails", case.name);
            end_with(&case, Fault::StepFails(step), Others::Commit, &what);
        }
    }
}

#[rstest]
#[case::with_a_commit(Others::Commit)]
#[case::without_one(Others::Nobody)]
fn calls_that_hang_or_lose_their_answers_end_in_one_of_the_two(#[case] others: Others) {
    for case in all() {
        let world = begin(&case, Fault::Nothing);
        live_on(&world, others, false).unwrap();
        let hung = some(1..=world.times_called() as u64, 9).map(|at| Fault::CallHangs(at as usize));
        let answered = world.calls_with_an_effect().into_iter().map(|at| at as u64);
        let lost = some(answered, 5).map(|at| Fault::AnswerLost(at as usize));
        for fault in hung.chain(lost) {
            end_with(
                &case,
                fault,
                others,
                &format!("{}, {others:?}: {fault:?}", case.name),
            );
        }
    }
}

#[test]
fn a_full_disk_ends_in_one_of_the_two() {
    for case in all() {
        for from in some(14..300, 23) {
            let what = format!("{}: full from {from}", case.name);
            end_with(&case, Fault::DiskFull(from), Others::Commit, &what);
        }
    }
}

#[test]
fn sandboxes_that_stay_keep_no_node_from_its_source_after_the_commit() {
    for case in all() {
        let sweep = Sweep::new(&case, Fault::SandboxSticks, Others::Undo);
        sweep.sampled(61).ends(End::RolledBack);
    }
}
