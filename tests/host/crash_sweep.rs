//! The crash sweep: real files under a temporary root, systemd and the runtimes as state machines. The executor is
//! killed before every single effect, between a temporary file and its rename, in the middle of a file and in the
//! middle of a journal line; and again while it recovers. Either it alone dies, or the power is cut: then the machine
//! boots with what was synced, or with all of the rest, or with a drawn part of it (`SWEEP_SEED` draws the same again). Whatever the schedule, the end is one of the two:
//! migrated, or byte for byte, unit for unit and pod for pod as before.
//!
//! That it can fail was tried with one mutation of the executor at a time; it caught each of these: `Started`
//! journalled only after the change, or with what was found after it; a torn journal line not cut off, or read as a
//! whole one; steps undone forwards, or without the one that was half done; the hold not placed, placed after the
//! kubelet's stop, or not lifted; the unit step that opens a bracket not restarting on the way back (this
//! one on the captured hosts: on the one by hand, containerd does not run before). And of what makes changes durable:
//! no sync of a file before its rename, of the journal's line, or of the directory after a rename or a removal; and
//! `settle` doing nothing.

#![allow(unreachable_pub, reason = "what is pub here is so for the sweep")]

mod archive;
pub(crate) mod captured;
pub(crate) mod cases;
mod checks;
pub(crate) mod cri_o;
mod disk;
mod edits;
mod every_pair;
mod lives;
mod package;
mod programs;
mod random;
mod rules;
mod sweep;
mod walk;
mod world;

use std::{sync::Arc, time::Duration};

use rstest::rstest;
use transship::executor::{decide::End, run::Outcome};

use cases::Case;
use checks::check;
use lives::{Others, begin, live, live_for, live_on};
use random::{Random, seed};
use sweep::Sweep;
use world::{Fault, Late};

fn by_hand() -> Arc<Case> {
    Arc::new(cases::by_hand())
}

fn captured() -> Vec<Arc<Case>> {
    captured::captured().into_iter().map(Arc::new).collect()
}

#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed, 400)]
#[case::without_one(Others::Nobody, End::RolledBack, 600)]
fn every_crash_ends_as_the_others_say(#[case] others: Others, #[case] end: End, #[case] at_least: usize) {
    let case = by_hand();
    let sweep = Sweep::new(&case, Fault::Nothing, others).again(450);
    assert!(sweep.ends(end) > at_least);
}

#[test]
fn every_fault_ends_rolled_back() {
    for fault in [
        Fault::TargetRefusesConfig,
        Fault::CarryFails,
        Fault::RehearsalFails,
        Fault::StopPodsFails,
        Fault::ClearPodsFails,
        Fault::KubeletUnhealthy,
        Fault::KubeletCrashes,
        Fault::StopFails,
        Fault::KubeletMasked,
        Fault::ReadOnly,
        Fault::TargetDies,
        Fault::TargetHangs,
        Fault::Overridden,
    ] {
        let case = by_hand();
        let sweep = Sweep::new(&case, fault, Others::Commit).sampled(7);
        assert!(sweep.ends(End::RolledBack) > 10);
    }
}

/// The kubelet hangs with its runtime, and nothing waits for either longer than once.
#[test]
fn a_target_that_hangs_keeps_the_kubelet_away_for_seconds() {
    let world = begin(&by_hand(), Fault::TargetHangs);
    let before = world.tree();
    let ended = live(&world, Others::Commit, false).unwrap();
    assert_eq!(ended, Outcome::Ended(End::RolledBack));
    check(&world, &before, End::RolledBack, "the target hangs");
    let calls = world.calls();
    let back = calls
        .iter()
        .rposition(|(_, what)| what == "stop kubelet.service")
        .unwrap();
    let back = &calls[back..];
    let order: Vec<&str> = back.iter().map(|(_, what)| what.as_str()).collect();
    assert_eq!(
        order[..4],
        [
            "stop kubelet.service",
            "kill kubelet.service",
            "wait for containerd",
            "kill containerd.service",
        ],
        "{order:?}"
    );
    let waits = order.iter().filter(|what| what.starts_with("wait for")).count();
    assert_eq!(waits, 1, "{order:?}");
    let served = back.iter().find(|(_, what)| what == "start kubelet.service");
    let away = served.unwrap().0 - back[0].0;
    assert!(away < Duration::from_secs(20), "{away:?}");
}

/// Runtimes that answer late after a boot turn nobody back.
#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed, 3)]
#[case::later(Others::Commit, End::Committed, 10)]
#[case::without_one(Others::Nobody, End::RolledBack, 10)]
fn a_slow_boot_changes_no_end(#[case] others: Others, #[case] end: End, #[case] secs: u64) {
    let mut case = cases::by_hand();
    // The time of a boot counts.
    case.confirm_within(60);
    let case = Arc::new(case);
    let late = Late {
        containerd: secs,
        docker: secs,
        cri_dockerd: secs,
        cri_o: secs,
    };
    let sweep = Sweep::new(&case, Fault::SlowBoot(late), others);
    sweep.sampled(8).parts().ends(end);
}

/// The power is cut before the first line of the journal: the executor that the boot starts has nothing to continue, and
/// waits for the runtimes all the same, on the way back, too.
#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed)]
#[case::with_an_abort(Others::Abort(1), End::RolledBack)]
fn an_executor_that_a_boot_starts_first_waits_for_the_runtimes(#[case] others: Others, #[case] end: End) {
    for mut case in captured::captured() {
        case.confirm_within(60);
        let late = Late {
            containerd: 2,
            docker: 14,
            cri_dockerd: 8,
            cri_o: 5,
        };
        let world = begin(&Arc::new(case), Fault::SlowBoot(late));
        let before = world.tree();
        world.reboot();
        let ended = live_on(&world, others, false).unwrap();
        assert_eq!(ended, Outcome::Ended(end), "{}", world.case.name);
        check(&world, &before, end, &world.case.name);
    }
}

/// The same on captured hosts, whose runtimes come up one after the other in an order that is drawn.
#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed)]
#[case::without_one(Others::Nobody, End::RolledBack)]
fn runtimes_that_come_up_in_any_order_change_no_end(#[case] others: Others, #[case] end: End) {
    let mut random = Random(seed());
    for mut case in drawn_captured(2) {
        case.confirm_within(60);
        let (case, late) = (Arc::new(case), Late::drawn(&mut random));
        let sweep = Sweep::new(&case, Fault::SlowBoot(late), others);
        sweep.sampled(12).parts().ends(end);
    }
}

/// Sandboxes that stay, and a target that hangs, keep no node from its source, on the way back after a commit too.
#[rstest]
#[case::nothing(Fault::Nothing)]
#[case::sandboxes(Fault::SandboxSticks)]
fn an_undo_after_the_commit_ends_rolled_back(#[case] fault: Fault) {
    let case = by_hand();
    let sweep = Sweep::new(&case, fault, Others::Undo);
    sweep.sampled(3).parts().ends(End::RolledBack);
}

/// Without `rollback.automatic` nothing but an order or the deadline turns the node back.
#[rstest]
#[case::step(Fault::StopPodsFails)]
#[case::hung(Fault::TargetHangs)]
fn a_rollback_by_hand_ends_rolled_back(#[case] fault: Fault) {
    let mut case = cases::by_hand();
    case.roll_back_by_hand();
    let case = Arc::new(case);
    let sweep = Sweep::new(&case, fault, Others::AbortWhenFailed);
    sweep.sampled(7).parts().ends(End::RolledBack);
}

/// Each step once has its effect and fails all the same. An executor that died meanwhile may not learn of it: what
/// has its effect is done.
#[test]
fn every_step_that_fails_ends_in_one_of_the_two() {
    let case = &by_hand();
    let mut rolled_back = 0;
    for step in 0..case.plan.steps.len() {
        let fault = Fault::StepFails(step);
        let end = end_with(case, fault, Others::Commit, &format!("step {step} fails"));
        rolled_back += usize::from(end == End::RolledBack);
        // With crashes, a sample: they take their time.
        if step % 4 == 1 {
            Sweep::new(case, fault, Others::Commit).sampled(7).run();
        }
    }
    assert!(rolled_back > case.plan.steps.len() / 2);
}

/// What runs is compared with the plan before any pod is stopped.
#[test]
fn an_abort_at_any_step_ends_rolled_back() {
    let case = &by_hand();
    for steps in [0, 4, 12, 18, case.plan.steps.len()] {
        let sweep = Sweep::new(case, Fault::Nothing, Others::Abort(steps))
            .sampled(4)
            .parts();
        assert!(sweep.ends(End::RolledBack) > 10);
    }
}

/// A disk that is full from any one effect on: the node is as before, or, where nothing needed space any more,
/// migrated. Without the reserve the way back could not be journalled.
#[test]
fn a_full_disk_ends_in_one_of_the_two() {
    let rolled_back = rolled_back_when_full(&by_hand(), 14..300);
    assert!(rolled_back > 10, "{rolled_back}");
}

/// How many of the disks that are full from one of these effects on end rolled back; the others end migrated.
fn rolled_back_when_full(case: &Arc<Case>, effects: std::ops::Range<u64>) -> usize {
    effects
        .filter(|from| {
            let end = end_with(
                case,
                Fault::DiskFull(*from),
                Others::Commit,
                &format!("full from {from}"),
            );
            end == End::RolledBack
        })
        .count()
}

/// The end of one life with a fault and without a crash, which must be one of the two.
fn end_with(case: &Arc<Case>, fault: Fault, others: Others, what: &str) -> End {
    let world = begin(case, fault);
    let before = world.tree();
    let ended = live_on(&world, others, false);
    let Ok(Outcome::Ended(end)) = ended else {
        panic!("{what}: {ended:?}")
    };
    check(&world, &before, end, what);
    end
}

/// The executor dies at every effect on every captured host and for every target, and once more at moments that are
/// drawn.
#[test]
fn captured_hosts_end_migrated() {
    for case in &captured() {
        let sweep = Sweep::new(case, Fault::Nothing, Others::Commit).sampled(6);
        sweep.drawn().ends(End::Committed);
    }
}

/// Docker is stopped on the way back, too, as far as pods of the target may run.
#[rstest]
#[case::with_a_commit(Fault::Nothing, Others::Commit, End::Committed)]
#[case::without_one(Fault::Nothing, Others::Nobody, End::RolledBack)]
#[case::that_does_not_start(Fault::TargetRefusesConfig, Others::Nobody, End::RolledBack)]
fn a_containerd_in_the_place_of_dockers_ends_as_it_should(
    #[case] fault: Fault,
    #[case] others: Others,
    #[case] end: End,
) {
    let case = Arc::new(captured::replaced());
    Sweep::new(&case, fault, others).sampled(4).parts().ends(end);
}

/// The pods run on in either direction. A newer version that does not start with the last file stays committed with the file
/// before it.
#[rstest]
#[case::with_a_commit(Fault::Nothing, Others::Commit, End::Committed)]
#[case::without_one(Fault::Nothing, Others::Nobody, End::RolledBack)]
#[case::and_back_after_it(Fault::Nothing, Others::Undo, End::RolledBack)]
#[case::that_refuses_the_last_file(Fault::TargetRefusesConfig, Others::Commit, End::Committed)]
fn an_upgrade_in_place_ends_as_it_should(#[case] fault: Fault, #[case] others: Others, #[case] end: End) {
    let case = Arc::new(captured::upgraded());
    let sweep = Sweep::new(&case, fault, others).parts();
    assert!(sweep.ends(end) > 50);
}

/// The executor dies at every moment of the time between the confirmation and the commit, too.
#[rstest]
#[case::until_it_commits_by_itself(Others::Commit, End::Committed)]
#[case::and_back_meanwhile(Others::BackFromSoak, End::RolledBack)]
fn an_upgrade_that_soaks_ends_as_it_should(#[case] others: Others, #[case] end: End) {
    let mut case = captured::upgraded();
    case.soak(60);
    let case = Arc::new(case);
    let sweep = Sweep::new(&case, Fault::Nothing, others).sampled(2).parts();
    assert!(sweep.ends(end) > 25);
}

/// Neither begins that time again with each boot, nor does a boot end it early.
#[test]
fn boots_lose_at_most_half_of_a_life_of_a_soak() {
    const SOAK: u32 = 600;
    const LIFE: u32 = 7;
    let mut case = captured::upgraded();
    case.soak(SOAK);
    let world = begin(&Arc::new(case), Fault::Nothing);
    let soaks = || world.journal().contains("\"event\":\"soaking\"");
    let life = |secs: u32| live_for(&world, Others::Commit, true, Duration::from_secs(secs.into()));
    let mut before = 0;
    while !soaks() {
        before += 1;
        assert!(
            before < 10 && life(30).is_none(),
            "it does not come to the confirmation"
        );
    }
    let mut lives: u32 = 0;
    let ended = loop {
        lives += 1;
        assert!(lives <= 2 * SOAK / LIFE, "boots begin it again");
        if let Some(ended) = life(LIFE) {
            break ended;
        }
    };
    assert_eq!(ended.unwrap(), Outcome::Ended(End::Committed));
    // Each life is charged with the pause that systemd makes before it.
    assert!(lives >= (SOAK - 30) / (LIFE + 1), "{lives} lives");
}

/// Each step of an upgrade once has its effect and fails all the same, and each call once hangs: after the commit nothing
/// turns the node back.
#[test]
fn an_upgrade_with_a_failure_ends_in_one_of_the_two() {
    let case = &Arc::new(captured::upgraded());
    let switched = case.plan.switched();
    for step in 0..case.plan.steps.len() {
        let end = end_with(
            case,
            Fault::StepFails(step),
            Others::Commit,
            &format!("step {step} fails"),
        );
        assert!(step < switched || end == End::Committed, "step {step}");
    }
    let world = begin(case, Fault::Nothing);
    live_on(&world, Others::Commit, false).unwrap();
    let calls = world.times_called();
    assert!(calls > 20, "{calls}");
    for others in [Others::Commit, Others::Nobody] {
        for at in 1..=calls {
            let what = format!("{others:?}: call {at} of {calls} hangs");
            end_with(case, Fault::CallHangs(at), others, &what);
        }
    }
}

#[test]
fn captured_hosts_end_rolled_back() {
    for fault in [Fault::StopFails, Fault::TargetRefusesConfig] {
        for case in drawn_captured(5) {
            let case = Arc::new(case);
            let sweep = Sweep::new(&case, fault, Others::Nobody).sampled(6);
            sweep.drawn().ends(End::RolledBack);
        }
    }
}

/// One call to systemd or to a runtime hangs until its deadline: each of a whole life in its turn, the way back included.
#[rstest]
#[case::with_a_commit(Others::Commit)]
#[case::without_one(Others::Nobody)]
fn a_call_that_hangs_ends_in_one_of_the_two(#[case] others: Others) {
    let case = by_hand();
    let whole = begin(&case, Fault::Nothing);
    live_on(&whole, others, false).unwrap();
    let calls = whole.times_called();
    assert!(calls > 50, "{calls}");
    let mut committed = 0;
    for at in 1..=calls {
        let what = format!("{others:?}: call {at} of {calls} hangs");
        let end = end_with(&case, Fault::CallHangs(at), others, &what);
        committed += usize::from(end == End::Committed);
    }
    eprintln!("{others:?}: {calls} calls hang, {committed} end committed");
}

/// One call has its effect and loses its answer: each of a whole life in its turn, the way back included.
#[rstest]
#[case::with_a_commit(Others::Commit)]
#[case::without_one(Others::Nobody)]
fn an_answer_that_is_lost_ends_in_one_of_the_two(#[case] others: Others) {
    let case = by_hand();
    let whole = begin(&case, Fault::Nothing);
    live_on(&whole, others, false).unwrap();
    let calls = whole.calls_with_an_effect();
    assert!(calls.len() > 25, "{calls:?}");
    let mut committed = 0;
    for at in &calls {
        let what = format!(
            "{others:?}: the answer to call {at} of {} is lost",
            whole.times_called()
        );
        let end = end_with(&case, Fault::AnswerLost(*at), others, &what);
        committed += usize::from(end == End::Committed);
    }
    eprintln!(
        "{others:?}: {} answers are lost, {committed} end committed",
        calls.len()
    );
}

/// Captured hosts, some of which are drawn: back after the commit.
#[test]
fn captured_hosts_undo_after_the_commit() {
    for case in drawn_captured(2) {
        let case = Arc::new(case);
        let sweep = Sweep::new(&case, Fault::Nothing, Others::Undo).sampled(6);
        sweep.ends(End::RolledBack);
    }
}

/// The same: without `rollback.automatic` an order alone turns them back.
#[test]
fn captured_hosts_end_rolled_back_by_hand() {
    for mut case in drawn_captured(2) {
        case.roll_back_by_hand();
        let case = Arc::new(case);
        let sweep = Sweep::new(&case, Fault::StopPodsFails, Others::AbortWhenFailed).sampled(6);
        sweep.ends(End::RolledBack);
    }
}

/// So many captured hosts with targets, or all where nothing is left out.
fn drawn_captured(many: usize) -> Vec<cases::Case> {
    Random(seed()).some_of(captured::captured(), many)
}
