//! The executor's unit, where systemd cannot start it.

use rstest::rstest;
use transship::{
    executor::{
        control::Dir,
        journal::{self, Event, Journal},
        unit,
    },
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath},
};

use crate::{crash_sweep::captured, fixtures, no_units::NoUnits};

/// With a full `/run` systemd refuses to reload. A unit that stayed enabled would begin the switch at the next boot.
#[rstest]
#[case::not_begun(false, false, false)]
#[case::runs_all_the_same(false, true, true)]
#[case::has_to_go_on(true, false, true)]
#[tokio::test]
async fn of_an_executor_that_cannot_be_started_nothing_stays(
    #[case] begun: bool,
    #[case] all_run: bool,
    #[case] stays: bool,
) {
    let root = tempfile::tempdir().unwrap();
    let files = Files::new(root.path());
    let path = |text: &str| HostPath::new(text).unwrap();
    let binary = path("/var/lib/transship/bin/0/transship");
    files.write(&binary, b"#!/bin/true\n", 0o755).unwrap();
    let dir = Dir::at(&files, path("/var/lib/transship/hand-1"));
    let systemd = NoUnits {
        refuses_reload: true,
        all_run,
        ..NoUnits::default()
    };
    if begun {
        let opened = Event::Opened {
            format: journal::FORMAT,
            plan: Digest::of("plan"),
            binary: "0".to_owned(),
            nth: 1,
        };
        files.create_dir_all(dir.path()).unwrap();
        let mut journal = Journal::open(&files, &path("/var/lib/transship/hand-1/journal")).unwrap();
        journal.append(opened).unwrap();
    }
    if all_run {
        unit::install(&files, &NoUnits::default(), &binary, &dir)
            .await
            .unwrap();
    }
    let error = unit::install(&files, &systemd, &binary, &dir).await.unwrap_err();
    assert!(error.to_string().contains("not enough space"), "{error}");
    let file = path("/etc/systemd/system/transship-executor.service");
    assert_eq!(files.exists(&file).unwrap(), stays);
}

/// `transship node commit` orders, and starts the executor, which may have obeyed and gone by then.
#[rstest]
#[case::it_is_over(true)]
#[case::it_is_not(false)]
#[tokio::test]
async fn an_executor_that_obeys_at_once_leaves_no_unit_to_start(#[case] obeys: bool) {
    let root = tempfile::tempdir().unwrap();
    let files = Files::new(root.path());
    let path = |text: &str| HostPath::new(text).unwrap();
    let binary = path("/var/lib/transship/bin/0/transship");
    files.write(&binary, b"#!/bin/true\n", 0o755).unwrap();
    let dir = Dir::new(&files, "hand-1").unwrap();
    let facts = fixtures::named("debian12-kubeadm-1.36-cri-dockerd");
    let plan = captured::accepted(&facts, fixtures::request()).unwrap();
    dir.write_plan(&plan).unwrap();
    let journal = path("/var/lib/transship/hand-1/journal");
    let opened = Event::Opened {
        format: journal::FORMAT,
        plan: plan.digest(),
        binary: "0".to_owned(),
        nth: 1,
    };
    Journal::open(&files, &journal).unwrap().append(opened).unwrap();
    unit::install(&files, &NoUnits::default(), &binary, &dir)
        .await
        .unwrap();
    let place = root.path().to_owned();
    let ends = move || {
        let files = Files::new(&place);
        let unit = HostPath::new("/etc/systemd/system/transship-executor.service").unwrap();
        files.remove(&unit).unwrap();
        if obeys {
            let mut journal = Journal::open(&files, &journal).unwrap();
            journal.append(Event::RolledBack).unwrap();
        }
    };
    let systemd = NoUnits {
        before_no_start: Some(Box::new(ends)),
        ..NoUnits::default()
    };
    let placed = unit::install(&files, &systemd, &binary, &dir).await;
    assert_eq!(placed.is_ok(), obeys, "{placed:?}");
    let link = path("/etc/systemd/system/multi-user.target.wants/transship-executor.service");
    assert_eq!(files.read_link(&link).unwrap().is_some(), !obeys);
}
