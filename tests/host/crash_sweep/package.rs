//! A plan that brings containerd along as a package, swept as the others are. apt and dpkg are stand-ins (see
//! `apt.sh`), so that they can be killed at every moment; `tests/host/packages.rs` has the real ones.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use transship::{
    executor::decide::End,
    plan::{
        document::{PlannedStep, Section},
        host_path::HostPath,
        step::{InstallStep, Package, PackageManager, Step},
    },
};

use crate::crash_sweep::{
    cases::{self, Case},
    lives::Others,
    rolled_back_when_full,
    sweep::Sweep,
    world::Fault,
};

const UNIT: &str = "containerd.service";
const UNIT_FILE: &str = "/usr/lib/systemd/system/containerd.service";
const RUNC: &str = "name runc\nversion 1.2.5-1\nfile usr/bin/runc runc 1.2.5\n";
const CONTAINERD: &str = "name containerd\nversion 1.7.28-1\nneeds runc\nunit containerd.service\n\
    file usr/lib/systemd/system/containerd.service [Service]\n\
    conffile etc/containerd/config.toml disabled_plugins = [\"cri\"]\n";

/// A program that another thread has just written cannot be run while a child of a third still has it open.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

/// The host and the plan by hand, without containerd, and with the package before the first file of its unit.
fn case() -> Arc<Case> {
    let mut case = cases::by_hand();
    case.name = "from a package".to_owned();
    for program in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
        let text = include_bytes!("apt.sh").to_vec();
        case.files
            .push((path(&format!("/usr/bin/{program}")), 0o755, text));
    }
    for (name, text) in [("containerd", CONTAINERD), ("runc", RUNC)] {
        let at = path(&format!("/srv/repository/{name}.deb"));
        case.files.push((at, 0o644, text.into()));
    }
    for other in [
        "/usr/lib/systemd/system/other.service",
        "/var/lib/dpkg/state/other",
        "/var/lib/dpkg/info/other",
    ] {
        case.files
            .push((path(other), 0o644, b"of another package\n".to_vec()));
    }
    case.units.retain(|(name, ..)| name != UNIT);
    case.packaged = vec![(UNIT.to_owned(), path(UNIT_FILE))];
    case.unpacked = [
        ("/usr/bin/runc", "runc 1.2.5\n"),
        (UNIT_FILE, "[Service]\n"),
        ("/var/lib/dpkg/info/runc", RUNC),
        ("/var/lib/dpkg/info/containerd", CONTAINERD),
        ("/var/lib/dpkg/state/runc", "installed 1.2.5-1\n"),
        ("/var/lib/dpkg/state/containerd", "installed 1.7.28-1\n"),
    ]
    .map(|(at, text)| (path(at), 0o644, text.into()))
    .into();
    case.plan.steps.retain(|planned| match &planned.does {
        Step::File(file) => ["config.toml", "zz-transship.conf", "-hold.conf", "flags.env"]
            .iter()
            .any(|end| file.path.as_str().ends_with(end)),
        Step::Unit(unit) => unit.unit == UNIT,
        Step::Images(_) | Step::Rehearse(_) | Step::RehearseDaemon(_) => false,
        _ => true,
    });
    case.images.clear();
    // The bracket of its unit opens behind the package, which keeps the configuration that is there.
    case.plan.steps.swap(0, 1);
    let does = Step::Install(InstallStep::Package(Package {
        manager: PackageManager::Apt,
        name: "containerd".to_owned(),
        version: "1.7.28".to_owned(),
        units: vec![UNIT.to_owned()],
    }));
    let section = Section::Prepare;
    case.plan.steps.insert(1, PlannedStep { section, does });
    case.digest = case.plan.digest();
    Arc::new(case)
}

#[test]
fn every_crash_with_a_package_ends_migrated() {
    let (_alone, case) = (alone(), case());
    let schedules = Sweep::new(&case, Fault::Nothing, Others::Commit).ends(End::Committed);
    assert!(schedules > 250, "{schedules}");
}

#[test]
fn an_abort_behind_the_package_ends_rolled_back() {
    let (_alone, case) = (alone(), case());
    let sweep = Sweep::new(&case, Fault::Nothing, Others::Abort(2)).again(200);
    let schedules = sweep.ends(End::RolledBack);
    assert!(schedules > 150, "{schedules}");
}

/// The way back begins at a package of which dpkg has unpacked a part, or has run the script.
#[test]
fn every_crash_with_a_package_that_fails_ends_rolled_back() {
    let (_alone, case) = (alone(), case());
    for fault in [Fault::UnpackingDies("containerd"), Fault::ScriptFails] {
        let schedules = Sweep::new(&case, fault, Others::Commit).ends(End::RolledBack);
        assert!(schedules > 100, "{schedules}");
    }
}

#[test]
fn a_disk_that_fills_while_a_package_is_installed_ends_in_one_of_the_two() {
    let _alone = alone();
    let rolled_back = rolled_back_when_full(&case(), 14..160);
    assert!(rolled_back > 30, "{rolled_back}");
}
