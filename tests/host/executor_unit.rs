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

use crate::no_units::NoUnits;

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
