//! A plan that brings containerd along in an archive, swept as the others are: whatever the schedule, the directory is
//! there wholly or not at all, and nothing else is left of it.

use std::sync::Arc;

use crate::archives::{Tar, containerd_says, program};
use rstest::rstest;
use transship::{
    executor::decide::End,
    plan::{
        digest::Digest,
        document::{PlannedStep, Section},
        host_path::HostPath,
        step::{Archive, InstallStep, Step},
    },
};

use crate::crash_sweep::{
    cases::{self, Case},
    drawn_captured,
    lives::Others,
    rolled_back_when_full,
    sweep::Sweep,
    world::Fault,
};

const DIR: &str = "/opt/transship/containerd-2.4.2-0123456789ab";
const PACKED: &str = "/srv/archive.tar.gz";

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// The case with an archive at the head of its plan.
fn with_an_archive(mut case: Case, packed: Vec<u8>, sha256: Digest) -> Case {
    let program_at = path(&format!("{DIR}/bin/containerd"));
    case.unpacked = vec![
        (
            path(&format!("{DIR}/bin/containerd-shim-runc-v2")),
            0o755,
            b"the shim".to_vec(),
        ),
        (program_at.clone(), 0o755, program(&containerd_says("2.4.2"))),
    ];
    case.files.push((path(PACKED), 0o644, packed));
    let step = Step::Install(InstallStep::Archive(Archive {
        url: format!("file://{PACKED}"),
        proxy: None,
        sha256,
        dir: path(DIR),
        program: program_at,
        version: "2.4.2".to_owned(),
    }));
    case.plan.steps.insert(
        0,
        PlannedStep {
            section: Section::Prepare,
            does: step,
        },
    );
    case.digest = case.plan.digest();
    case
}

/// The host and the plan by hand without what the archive has nothing to do with: it is swept the more densely.
fn case(name: &str, packed: Vec<u8>, sha256: Digest) -> Arc<Case> {
    let mut case = cases::by_hand();
    case.name = name.to_owned();
    case.plan.steps.retain(|planned| match &planned.does {
        Step::File(file) => ["-hold.conf", "flags.env"]
            .iter()
            .any(|end| file.path.as_str().ends_with(end)),
        Step::Unit(unit) => unit.unit == case.target_unit && unit.active.is_some(),
        Step::Images(_) | Step::Rehearse(_) | Step::RehearseDaemon(_) => false,
        _ => true,
    });
    for planned in &mut case.plan.steps {
        if let Step::Unit(unit) = &mut planned.does {
            // Its drop-in is among what the archive has nothing to do with.
            unit.effective = None;
        }
    }
    case.images.clear();
    Arc::new(with_an_archive(case, packed, sha256))
}

fn sound() -> Arc<Case> {
    let packed = Tar::containerd("2.4.2").packed();
    let digest = Digest::of(&packed);
    case("from an archive", packed, digest)
}

/// Archives of which each is refused at another point: before it is read, while it is looked through, and after it
/// was unpacked.
fn bad() -> [Arc<Case>; 3] {
    let packed = || Tar::containerd("2.4.2").packed();
    let out = Tar::containerd("2.4.2").file("../../x", 0o644, b"x").packed();
    let older = Tar::containerd("2.4.1").packed();
    let digests = (Digest::of(&out), Digest::of(&older));
    [
        case("another archive", packed(), Digest::of("another")),
        case("an archive that leads out", out, digests.0),
        case("an older archive", older, digests.1),
    ]
}

#[test]
fn every_crash_with_an_archive_ends_migrated() {
    let case = sound();
    let schedules = Sweep::new(&case, Fault::Nothing, Others::Commit)
        .again(250)
        .ends(End::Committed);
    assert!(schedules > 150, "{schedules}");
}

#[test]
fn every_crash_with_an_archive_and_without_a_commit_ends_rolled_back() {
    let case = sound();
    let schedules = Sweep::new(&case, Fault::Nothing, Others::Nobody)
        .again(250)
        .ends(End::RolledBack);
    assert!(schedules > 150, "{schedules}");
}

/// The way back begins right after the archive was unpacked.
#[test]
fn an_abort_behind_the_archive_ends_rolled_back() {
    let case = sound();
    for steps in [0, 1] {
        let sweep = Sweep::new(&case, Fault::Nothing, Others::Abort(steps)).again(20);
        assert!(sweep.ends(End::RolledBack) > 20);
    }
}

#[test]
fn every_crash_with_a_bad_archive_ends_rolled_back() {
    for case in &bad() {
        let sweep = Sweep::new(case, Fault::Nothing, Others::Commit).again(20);
        let schedules = sweep.ends(End::RolledBack);
        assert!(schedules > 20, "{schedules}");
    }
}

/// As for the plan without an archive; here all effects of fetching and unpacking are among those that find it full.
#[test]
fn a_disk_that_fills_while_unpacking_ends_in_one_of_the_two() {
    let rolled_back = rolled_back_when_full(&sound(), 14..80);
    assert!(rolled_back > 30, "{rolled_back}");
}

/// The same on captured hosts with their whole plans, some of which are drawn.
#[rstest]
#[case::with_a_commit(Others::Commit, End::Committed)]
#[case::without_one(Others::Nobody, End::RolledBack)]
fn captured_hosts_with_an_archive_end_as_the_others_say(#[case] others: Others, #[case] end: End) {
    let packed = Tar::containerd("2.4.2").packed();
    for captured in drawn_captured(2) {
        let digest = Digest::of(&packed);
        let mut case = with_an_archive(captured, packed.clone(), digest);
        case.name = format!("{}, with an archive", case.name);
        let case = Arc::new(case);
        Sweep::new(&case, Fault::Nothing, others).sampled(8).ends(end);
    }
}
