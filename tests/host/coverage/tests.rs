//! Tests that exist, and the pairs of the cases that they go over.

use std::fs;

use transship::api::request::Runtime;

use super::{Pair, Row, pairs, repository};
use crate::crash_sweep::{
    captured,
    cases::{self, Case},
    cri_o,
};

/// The cases that a test goes over.
enum Over {
    /// Every captured host; some are drawn where not everything is swept.
    Captured,
    /// The host and the plan by hand.
    ByHand,
    /// The upgrade of a captured host.
    Upgrade,
    /// These of the captured hosts.
    Named(&'static [&'static str]),
    /// Every pair that leaves this runtime.
    From(Runtime),
    /// Every pair that goes to this runtime.
    To(Runtime),
}

/// A test by its file and its name.
type Test = (&'static str, &'static str, Over);

const SWEEP: &str = "tests/host/crash_sweep.rs";
const CRI_O: &str = "tests/host/crash_sweep/cri_o.rs";
const EVERY: &str = "tests/host/crash_sweep/every_pair.rs";
const WALK: &str = "tests/host/crash_sweep/walk/hosts.rs";
const PODS: &str = "tests/host/runtimes/pods.rs";

const CHECKS: &[(&str, &[Test])] = &[
    (
        "walked to any step and back, each undo included",
        &[
            (WALK, "every_plan_can_be_walked_there_and_back", Over::Captured),
            (SWEEP, "an_upgrade_in_place_ends_as_it_should", Over::Upgrade),
        ],
    ),
    (
        "walked with an archive and with a package",
        &[(WALK, "archives_and_packages_are_walked_too", Over::Captured)],
    ),
    (
        "killed and cut off before every effect: migrated",
        &[
            (SWEEP, "captured_hosts_end_migrated", Over::Captured),
            (SWEEP, "an_upgrade_in_place_ends_as_it_should", Over::Upgrade),
        ],
    ),
    (
        "the same, without a commit: as before",
        &[
            (SWEEP, "captured_hosts_end_rolled_back", Over::Captured),
            (SWEEP, "an_upgrade_in_place_ends_as_it_should", Over::Upgrade),
        ],
    ),
    (
        "the same, back after the commit",
        &[
            (SWEEP, "captured_hosts_undo_after_the_commit", Over::Captured),
            (SWEEP, "an_upgrade_in_place_ends_as_it_should", Over::Upgrade),
        ],
    ),
    (
        "the same, back by an order alone",
        &[(SWEEP, "captured_hosts_end_rolled_back_by_hand", Over::Captured)],
    ),
    (
        "the same, with runtimes that come up late",
        &[(
            SWEEP,
            "runtimes_that_come_up_in_any_order_change_no_end",
            Over::Captured,
        )],
    ),
    (
        "each fault of the target and of the node",
        &[(EVERY, "every_fault_ends_in_one_of_the_two", Over::Captured)],
    ),
    (
        "each fault, and killed at moments that are drawn",
        &[
            (SWEEP, "every_fault_ends_rolled_back", Over::ByHand),
            (CRI_O, "every_fault_ends_rolled_back", Over::Named(&cri_o::FAULTS)),
        ],
    ),
    (
        "each step fails",
        &[
            (
                EVERY,
                "every_step_that_fails_ends_in_one_of_the_two",
                Over::Captured,
            ),
            (
                SWEEP,
                "an_upgrade_with_a_failure_ends_in_one_of_the_two",
                Over::Upgrade,
            ),
        ],
    ),
    (
        "a call hangs, or its answer is lost",
        &[
            (
                EVERY,
                "calls_that_hang_or_lose_their_answers_end_in_one_of_the_two",
                Over::Captured,
            ),
            (
                SWEEP,
                "an_upgrade_with_a_failure_ends_in_one_of_the_two",
                Over::Upgrade,
            ),
        ],
    ),
    (
        "the disk is full from some effect on",
        &[(EVERY, "a_full_disk_ends_in_one_of_the_two", Over::Captured)],
    ),
    (
        "sandboxes that stay keep no node from its source",
        &[(
            EVERY,
            "sandboxes_that_stay_keep_no_node_from_its_source_after_the_commit",
            Over::Captured,
        )],
    ),
    (
        "pods of the source ended over its API",
        &[
            (
                PODS,
                "containers_of_the_dockershim_end_and_the_rest_is_cleared_later",
                Over::From(Runtime::Dockershim),
            ),
            (
                PODS,
                "beside_the_dockershim_the_pods_of_cri_dockerd_end_alone",
                Over::From(Runtime::CriDockerd),
            ),
            (
                PODS,
                "pods_behind_a_cri_end_agents_and_control_plane_last",
                Over::From(Runtime::Containerd),
            ),
            (
                PODS,
                "pods_behind_a_cri_end_agents_and_control_plane_last",
                Over::From(Runtime::CriO),
            ),
        ],
    ),
    (
        "pods of the target ended without it",
        &[
            (
                "src/runtime/pods/bundles.rs",
                "pods_end_without_their_containerd_and_other_containers_stay",
                Over::To(Runtime::Containerd),
            ),
            (
                "src/runtime/pods/conmon.rs",
                "pods_end_without_their_cri_o_and_monitors_and_other_containers_stay",
                Over::To(Runtime::CriO),
            ),
            (
                PODS,
                "pods_of_a_target_that_is_not_there_end_without_it",
                Over::To(Runtime::CriDockerd),
            ),
        ],
    ),
];

pub(super) fn rows() -> Vec<Row> {
    let captured = captured::captured();
    let pair = |case: &Case| (case.source(), case.target());
    let of = |over: &Over| -> Vec<Pair> {
        let moves = || pairs().into_iter().filter(|(source, target)| source != target);
        match over {
            Over::Captured => captured.iter().map(pair).collect(),
            Over::ByHand => vec![pair(&cases::by_hand())],
            Over::Upgrade => vec![pair(&captured::upgraded())],
            Over::Named(names) => {
                let named = captured.iter().filter(|case| names.contains(&&*case.name));
                let named: Vec<Pair> = named.map(pair).collect();
                assert_eq!(named.len(), names.len(), "{names:?}");
                named
            }
            Over::From(runtime) => moves().filter(|(source, _)| source == runtime).collect(),
            Over::To(runtime) => moves().filter(|(_, target)| target == runtime).collect(),
        }
    };
    let checks = CHECKS.iter().map(|(what, tests)| {
        let found = tests.iter().flat_map(|(file, name, over)| {
            assert!(is_test(file, name), "there is no test {name} in {file}");
            of(over)
        });
        Row::of(what, found)
    });
    checks.collect()
}

/// Whether a file has a test of this name.
fn is_test(file: &str, name: &str) -> bool {
    let text = fs::read_to_string(repository(file)).unwrap();
    let Some((before, _)) = text.split_once(&format!("fn {name}(")) else {
        return false;
    };
    let attributes = before.rsplit_once("\n\n").map_or(before, |(_, last)| last);
    ["#[test]", "#[rstest]", "#[tokio::test"]
        .iter()
        .any(|attribute| attributes.contains(attribute))
}
