//! Which versions are upgraded to, and what is said of the others.

use super::*;

const AT: &str = "https://downloads.example.org";

/// What is said of a node on a version that gets another one from an archive or a package: `AlreadyThere`, the version it goes to,
/// or what blocks.
fn answer(runs: &str, from: &str, wanted: Option<&str>) -> String {
    let mut facts = node();
    let found = containerd(&mut facts);
    found.version = runs.into();
    found.cri.as_mut().unwrap().version = runs.into();
    let mut request = match from {
        "package" => fixtures::from_package(Runtime::Containerd),
        _ => fixtures::from_archive(Runtime::Containerd),
    };
    request.target.version = wanted.map(str::to_owned);
    if let Origin::Archive(archive) = &mut request.target.from {
        archive.url = format!("{AT}/{from}");
    }
    let outcome = plan(&facts, &request);
    if outcome.verdict == Verdict::AlreadyThere {
        return "AlreadyThere".to_owned();
    }
    let target = outcome.plan().map(|plan| plan.target.version.clone());
    let blocks = outcome
        .findings
        .into_iter()
        .find(|finding| finding.severity == Severity::Block);
    blocks.map(|finding| finding.code).or(target).unwrap_or_default()
}

#[rstest]
#[case::patch("1.7.34", "containerd-1.7.35-linux-amd64.tar.gz", None, "1.7.35")]
#[case::of_debian("1.6.20~ds1-1+b1", "containerd-2.4.2-linux-amd64.tar.gz", None, "2.4.2")]
#[case::of_ubuntu(
    "1.7.24-0ubuntu1~22.04.1",
    "containerd-1.7.24-linux-amd64.tar.gz",
    None,
    "AlreadyThere"
)]
#[case::minor("2.3.0", "containerd-2.4.2-linux-amd64.tar.gz", None, "2.4.2")]
#[case::equal("2.4.2", "containerd-2.4.2-linux-amd64.tar.gz", None, "AlreadyThere")]
#[case::equal_from_a_nameless_archive("2.4.2", "blob", Some("2.4.2"), "AlreadyThere")]
#[case::older("2.4.2", "containerd-2.4.1-linux-amd64.tar.gz", None, "TargetVersionOlder")]
#[case::in_the_range("2.3.0", "containerd-2.4.2-linux-amd64.tar.gz", Some(">=2"), "AlreadyThere")]
#[case::not_in_the_range("1.7.35", "containerd-2.4.2-linux-amd64.tar.gz", Some(">=2"), "2.4.2")]
#[case::equal_and_not_in_the_range(
    "2.4.2",
    "containerd-2.4.2-linux-amd64.tar.gz",
    Some(">=3"),
    "ArchiveVersionMismatch"
)]
#[case::newer_and_not_in_the_range(
    "1.7.35",
    "containerd-2.4.2-linux-amd64.tar.gz",
    Some(">=3"),
    "ArchiveVersionMismatch"
)]
#[case::nameless("1.7.35", "blob", None, "ArchiveVersionUnknown")]
#[case::nameless_in_a_range("1.7.35", "blob", Some(">=2"), "ArchiveVersionUnknown")]
#[case::nameless_with_its_version("1.7.35", "blob", Some("2.4.2"), "2.4.2")]
#[case::of_another_machine("1.7.35", "containerd-2.4.2-linux-arm64.tar.gz", None, "ArchiveArchitecture")]
#[case::to_a_candidate("2.4.2", "containerd-2.5.0-rc.1-linux-amd64.tar.gz", None, "2.5.0-rc.1")]
#[case::between_candidates("2.5.0-rc.1", "containerd-2.5.0-rc.2-linux-amd64.tar.gz", None, "2.5.0-rc.2")]
#[case::from_a_candidate("2.5.0-rc.1", "containerd-2.5.0-linux-amd64.tar.gz", None, "2.5.0")]
#[case::back_to_a_candidate(
    "2.5.0",
    "containerd-2.5.0-rc.1-linux-amd64.tar.gz",
    None,
    "TargetVersionOlder"
)]
#[case::package("1.7.35", "package", Some("2.4.2"), "PackageWouldReplace")]
#[case::package_that_is_there("2.4.2", "package", Some("2.4.2"), "AlreadyThere")]
fn each_version_has_its_answer(
    #[case] runs: &str,
    #[case] from: &str,
    #[case] wanted: Option<&str>,
    #[case] is: &str,
) {
    assert_eq!(answer(runs, from, wanted), is);
}
