//! Files and units that somebody else changes: before a migration, in its middle, and after the confirmation.

use rstest::rstest;
use transship::{
    executor::{
        control::{Dir, Order},
        decide::End,
        run::Outcome,
        unit::{self, UNIT},
    },
    plan::{host_path::HostPath, step::KUBELET_UNIT},
};

use crate::crash_sweep::{
    by_hand, cases,
    checks::{check, differing, files_only},
    lives::{Others, begin, clock, live_on},
    random,
    world::{self, EDITED, Fault},
};

#[rstest]
#[case::a_drop_in(
    Fault::Overridden,
    "LimitNOFILE of containerd.service is 5:5, and 1048576:1048576 was planned"
)]
#[case::an_import(Fault::ImportWins, "SystemdCgroup of the default runtime runc is false")]
fn what_beats_the_plan_is_found_while_the_node_serves(#[case] fault: Fault, #[case] words: &str) {
    let world = begin(&by_hand(), fault);
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::RolledBack)
    );
    check(&world, &before, End::RolledBack, words);
    let journal = world.journal();
    assert!(journal.contains(words), "{journal}");
    let switch = world.case.plan.prepared();
    assert!(
        !journal.contains(&format!("\"event\":\"started\",\"step\":{switch},")),
        "{journal}"
    );
}

/// Every file of the plan, changed by somebody else at moments spread over the whole life: the node is never stuck, and
/// what was replaced on the way back is kept.
#[rstest]
#[case::forwards(Others::Commit)]
#[case::and_back(Others::Nobody)]
fn a_file_that_somebody_else_changed_is_never_in_the_way(#[case] others: Others) {
    let case = &by_hand();
    let whole = begin(case, Fault::Nothing);
    live_on(&whole, others, false).unwrap();
    let (mut edits, mut kept, mut in_place) = (0, 0, 0);
    let every = if random::whole() { 7 } else { 19 };
    for (file, path) in case.all_files().enumerate() {
        for at in (1 + file as u64..whole.effects()).step_by(every) {
            let world = begin(case, Fault::Edited { file, at });
            let before = world.tree();
            let what = format!("{path} is changed before effect {at}");
            let ended = live_on(&world, others, false);
            let Ok(Outcome::Ended(end)) = ended else {
                panic!("{what}: {ended:?}")
            };
            let (mut tree, place) = (world.tree(), std::path::Path::new(path.relative()));
            let changed = tree
                .get(place)
                .is_some_and(|(_, bytes)| bytes.as_deref() == Some(EDITED));
            let aside = world.kept_aside().contains(&EDITED.to_vec());
            edits += 1;
            in_place += usize::from(changed);
            kept += usize::from(aside);
            let runtime = match end {
                End::Committed => case.target(),
                End::RolledBack => {
                    if changed {
                        tree.remove(place);
                        tree.extend(
                            before
                                .get(place)
                                .map(|found| (place.to_path_buf(), found.clone())),
                        );
                    }
                    let (found, before) = (files_only(tree), files_only(before));
                    assert_eq!(differing(&found, &before), [""; 0], "{what}");
                    case.source()
                }
            };
            let state = world.state();
            assert_eq!(
                state.pods.iter().copied().collect::<Vec<_>>(),
                [runtime],
                "{what}"
            );
            assert_eq!(
                state
                    .violations
                    .iter()
                    .find(|what| what.contains("half-switched")),
                None,
                "{what}"
            );
            let kubelet = &state.units[KUBELET_UNIT];
            assert!(kubelet.active, "{what}");
            // Only what was written since the kubelet started is read at its next start.
            let unread = |at: &HostPath| changed && at == path;
            let would = world.would_run_with(&state, KUBELET_UNIT);
            for (at, bytes) in kubelet.runs_with.iter().filter(|(at, _)| !unread(at)) {
                assert_eq!(
                    would.get(at),
                    Some(bytes),
                    "{what}: the kubelet runs with another {at}"
                );
            }
        }
    }
    eprintln!("{others:?}: {edits} edits, {in_place} stay, {kept} are kept aside");
    assert!(in_place > 10 && (others == Others::Commit || kept > 10), "{kept}");
}

/// A file that cannot be changed is found before anything else is done.
#[test]
fn a_directory_in_the_place_of_a_file_is_found_before_the_first_step() {
    let case = &by_hand();
    let world = begin(case, Fault::Nothing);
    let path = HostPath::new("/etc/crictl.yaml").unwrap();
    world.free_files().create_dir_all(&path).unwrap();
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::RolledBack)
    );
    check(&world, &before, End::RolledBack, "a directory");
    let journal = world.journal();
    assert!(
        journal.contains("/etc/crictl.yaml: it is a directory"),
        "{journal}"
    );
    assert!(!journal.contains("\"event\":\"started\""), "{journal}");
}

/// A rollback after the commit that would overwrite what somebody else changed is refused as a whole, with all that is
/// in its way; without that it goes on.
#[test]
fn a_rollback_that_meets_changes_of_somebody_else_is_refused_while_the_target_serves() {
    let case = &by_hand();
    let world = begin(case, Fault::Nothing);
    let kubelet = HostPath::new(world::KUBELET).unwrap();
    let becomes = |version: &str| {
        let program = format!("Kubernetes v{version}\n");
        world
            .free_files()
            .write(&kubelet, program.as_bytes(), 0o755)
            .unwrap();
    };
    becomes("1.23.17");
    let before = world.tree();
    assert_eq!(
        live_on(&world, Others::Commit, false).unwrap(),
        Outcome::Ended(End::Committed)
    );
    let (files, dir) = (world.free_files(), Dir::at(&world.free_files(), case.dir_path()));
    let crictl = HostPath::new("/etc/crictl.yaml").unwrap();
    let config = HostPath::new("/etc/containerd/config.toml").unwrap();
    let ours = [&crictl, &config].map(|path| files.read(path).unwrap().unwrap());
    for path in [&crictl, &config] {
        files.write(path, EDITED, 0o644).unwrap();
    }
    // The package is removed, which the mask hides.
    let docker = HostPath::new("/lib/systemd/system/docker.service").unwrap();
    files.remove(&docker).unwrap();
    // The cluster is upgraded, which is what one leaves dockershim for.
    becomes("1.24.17");
    let committed = world.tree();
    let roll_back = || {
        dir.order(Order::Undo, &case.plan.digest()).unwrap();
        let binary = HostPath::new(cases::BINARY).unwrap();
        world
            .state()
            .units
            .insert(UNIT.to_owned(), world::FakeUnit::default());
        clock(&world)
            .block_on(unit::install(&files, &*world, &binary, &dir))
            .unwrap();
        live_on(&world, Others::Nobody, false).unwrap()
    };
    assert_eq!(roll_back(), Outcome::Ended(End::Committed));
    assert_eq!(differing(&world.tree(), &committed), [""; 0]);
    let journal = world.journal();
    let (_, refused) = journal.rsplit_once("\"event\":\"refused\"").unwrap();
    assert!(
        refused.contains("/etc/crictl.yaml was changed")
            && refused.contains("config.toml was changed")
            && refused.contains("docker.service ran before the switch and does not exist any more")
            && refused.contains("kubelet is 1.24.17 now, and kubelets from 1.24 on have no dockershim"),
        "{refused}"
    );
    assert!(
        !dir.ordered(Order::Undo, &case.plan.digest()).unwrap(),
        "the order is withdrawn"
    );
    assert!(world.state().pods.contains(&case.target()));
    for (path, bytes) in [&crictl, &config].into_iter().zip(&ours) {
        files.write(path, bytes, 0o644).unwrap();
    }
    files.write(&docker, b"", 0o644).unwrap();
    becomes("1.23.17");
    assert_eq!(roll_back(), Outcome::Ended(End::RolledBack));
    check(&world, &before, End::RolledBack, "rolled back after a commit");
}
