//! Which releases of a runtime serve which kubelets, as data. A kubelet refuses a runtime that does not serve the
//! version of the CRI that it speaks; everything else that the projects do not list together is only untested.

use semver::Version;

use crate::plan::{runtime::Runtime, version};

/// Major, minor and patch number.
type Number = (u64, u64, u64);

/// What is known of a runtime's releases.
#[derive(Debug)]
struct Releases {
    runtime: Runtime,
    /// The first one that was made for kubelets from 1.20 on.
    oldest: Number,
    /// The first one with the CRI v1, in the form that kubelets without v1alpha2 need.
    v1: Number,
    /// Releases with the CRI v1alpha2: from the first of each pair to before the second.
    v1alpha2: &'static [(Number, Number)],
    /// The first one that tells the kubelet its cgroup driver (`RuntimeConfig`, KEP-4033).
    tells_driver: Number,
    /// Releases that refuse a CNI configuration without a version: from the first to before the second ("troubleshooting
    /// CNI plugin-related errors" on kubernetes.io).
    refuses_unversioned_cni: Option<(Number, Number)>,
    /// The first one that gives up a pull that makes no progress, and its setting for it; `None` if all do.
    pull_deadline: Option<(Number, &'static str)>,
    /// How pods may bind ports under 1024 and send pings without privileges; `None` if another program decides it.
    unprivileged: Option<Unprivileged>,
    /// The first one that calls cgroup v1 deprecated.
    deprecates_cgroup_v1: Option<Number>,
    /// By the minor version of the first kubelet for which it holds: the first tested release of each line that is
    /// supported with it. Empty where the project publishes no such list.
    supported: &'static [(u64, &'static [Number])],
}

/// Since when pods may bind ports under 1024 and send pings without privileges.
#[derive(Debug)]
struct Unprivileged {
    /// The settings that allow it.
    settings: &'static str,
    /// The first release with these settings.
    since: Number,
    /// The first one that allows it by itself.
    by_default: Number,
}

/// containerd's `RELEASES.md`, "Kubernetes Support", and `docs/containerd-2.0.md`; for cri-dockerd `core/` and
/// `backend/` of its tags; for CRI-O its README, "Compatibility matrix": its minor release is that of the kubelet.
const RELEASES: [Releases; 3] = [
    Releases {
        runtime: Runtime::Containerd,
        oldest: (1, 5, 0),
        v1: (1, 6, 15),
        v1alpha2: &[((0, 0, 0), (2, 0, 0))],
        tells_driver: (2, 0, 0),
        refuses_unversioned_cni: Some(((1, 6, 0), (1, 6, 4))),
        pull_deadline: Some(((1, 7, 0), "image_pull_progress_timeout (5m)")),
        unprivileged: Some(Unprivileged {
            settings: "enable_unprivileged_ports and enable_unprivileged_icmp",
            since: (1, 6, 0),
            by_default: (2, 0, 0),
        }),
        deprecates_cgroup_v1: Some((2, 2, 0)),
        supported: &[
            (20, &[(1, 5, 0)]),
            (26, &[(1, 6, 15), (1, 7, 0)]),
            (32, &[(1, 6, 36), (1, 7, 24), (2, 0, 1), (2, 1, 0)]),
            (33, &[(1, 6, 36), (1, 7, 24), (2, 0, 4), (2, 1, 0)]),
            (34, &[(1, 6, 39), (1, 7, 28), (2, 0, 6), (2, 1, 3)]),
            (35, &[(1, 7, 28), (2, 1, 5), (2, 2, 0)]),
            (36, &[(2, 2, 0), (2, 3, 0)]),
        ],
    },
    Releases {
        runtime: Runtime::CriDockerd,
        oldest: (0, 2, 0),
        v1: (0, 3, 0),
        v1alpha2: &[((0, 0, 0), (0, 3, 22)), ((0, 4, 0), (0, 4, 3))],
        tells_driver: (0, 3, 17),
        refuses_unversioned_cni: None,
        pull_deadline: None,
        unprivileged: None,
        deprecates_cgroup_v1: None,
        supported: &[],
    },
    Releases {
        runtime: Runtime::CriO,
        oldest: (1, 20, 0),
        v1: (1, 23, 0),
        v1alpha2: &[((0, 0, 0), (1, 26, 0))],
        tells_driver: (1, 28, 0),
        refuses_unversioned_cni: None,
        pull_deadline: Some(((1, 31, 0), "pull_progress_timeout (no limit by default)")),
        unprivileged: Some(Unprivileged {
            settings: "default_sysctls",
            since: (1, 17, 0),
            by_default: (u64::MAX, 0, 0),
        }),
        deprecates_cgroup_v1: None,
        supported: &[
            (20, &[(1, 20, 0)]),
            (21, &[(1, 21, 0)]),
            (22, &[(1, 22, 0)]),
            (23, &[(1, 23, 0)]),
            (24, &[(1, 24, 0)]),
            (25, &[(1, 25, 0)]),
            (26, &[(1, 26, 0)]),
            (27, &[(1, 27, 0)]),
            (28, &[(1, 28, 0)]),
            (29, &[(1, 29, 0)]),
            (30, &[(1, 30, 0)]),
            (31, &[(1, 31, 0)]),
            (32, &[(1, 32, 0)]),
            (33, &[(1, 33, 0)]),
            (34, &[(1, 34, 0)]),
            (35, &[(1, 35, 0)]),
            (36, &[(1, 36, 0)]),
            (37, &[(1, 37, 0)]),
        ],
    },
];

/// Minor version of the last kubelet that speaks the CRI v1alpha2 alone, and of the first one that speaks v1 alone
/// (`pkg/kubelet/cri/remote`).
const V1ALPHA2_ALONE_UNTIL: u64 = 22;
const V1_ALONE_SINCE: u64 = 26;

/// Why a release and a kubelet do not go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The kubelet would not start, or nobody knows the version; why.
    Refused(String),
    /// It is not among those that were tested together; which are.
    Unsupported(String),
}

/// Why the release `found` of a runtime does not go with a kubelet; nothing where it does, or is not known to.
pub fn misfit(runtime: Runtime, found: &str, kubelet: &Version) -> Option<Misfit> {
    let releases = of(runtime)?;
    let refused = |why: String| Some(Misfit::Refused(why));
    let Some(version) = version::upstream(found) else {
        return refused("the runtime's version is not understood".to_owned());
    };
    let is = (version.major, version.minor, version.patch);
    let mut v1alpha2 = releases.v1alpha2.iter();
    if kubelet.minor <= V1ALPHA2_ALONE_UNTIL && !v1alpha2.any(|(from, to)| (*from..*to).contains(&is)) {
        let dropped: Vec<String> = releases.v1alpha2.iter().map(|(_, to)| text(*to)).collect();
        return refused(format!(
            "the kubelet speaks the CRI v1alpha2 alone, which {runtime} dropped in {}",
            dropped.join(" and ")
        ));
    }
    if kubelet.minor >= V1_ALONE_SINCE && is < releases.v1 {
        return refused(format!(
            "the kubelet speaks the CRI v1 alone, which takes {runtime} {} or later",
            text(releases.v1)
        ));
    }
    if is < releases.oldest {
        return refused(format!("it takes {runtime} {} or later", text(releases.oldest)));
    }
    let rows = releases.supported.iter();
    let (_, lines) = rows.rev().find(|(since, _)| *since <= kubelet.minor)?;
    let line = lines.iter().find(|line| (line.0, line.1) == (is.0, is.1));
    let newest = lines.last()?;
    let supported = || {
        lines
            .iter()
            .map(|line| format!("{}+", text(*line)))
            .collect::<Vec<_>>()
    };
    (is < *line.unwrap_or(newest)).then(|| Misfit::Unsupported(supported().join(", ")))
}

/// The first release of a runtime that tells the kubelet its cgroup driver, if `found` is an earlier one.
pub fn tells_driver_later(runtime: Runtime, found: &str) -> Option<String> {
    let first = of(runtime)?.tells_driver;
    let tells =
        version::upstream(found).is_some_and(|found| (found.major, found.minor, found.patch) >= first);
    (!tells).then(|| text(first))
}

/// The first release that takes a CNI configuration without a version again, if `found` refuses it.
pub fn refuses_unversioned_cni(runtime: Runtime, found: &str) -> Option<String> {
    let (from, to) = of(runtime)?.refuses_unversioned_cni?;
    let found = number(&version::upstream(found)?);
    (from..to).contains(&found).then(|| text(to))
}

/// If a release waits for a pull that makes no progress, however long: what later ones have, in words.
pub fn lacks_pull_deadline(runtime: Runtime, found: &str) -> Option<String> {
    let (first, setting) = of(runtime)?.pull_deadline?;
    (!is_since(found, first)).then(|| format!("{runtime} {} and later have {setting}", line(first)))
}

/// What a release needs so that pods may bind ports under 1024 and send pings without privileges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnprivilegedPorts {
    /// Nothing: it allows it by itself.
    Allowed,
    /// These settings.
    Settings(&'static str),
    /// This release, or a later one.
    Later(String),
}

/// The same of one release; `None` for a runtime under which another program decides it.
pub fn unprivileged_ports(runtime: Runtime, found: &str) -> Option<UnprivilegedPorts> {
    let known = of(runtime)?.unprivileged.as_ref()?;
    Some(if is_since(found, known.by_default) {
        UnprivilegedPorts::Allowed
    } else if is_since(found, known.since) {
        UnprivilegedPorts::Settings(known.settings)
    } else {
        UnprivilegedPorts::Later(format!("{runtime} {}", line(known.since)))
    })
}

/// Whether a release calls cgroup v1 deprecated.
pub fn deprecates_cgroup_v1(runtime: Runtime, found: &str) -> bool {
    let first = of(runtime).and_then(|releases| releases.deprecates_cgroup_v1);
    first.is_some_and(|first| is_since(found, first))
}

/// Minor releases of containerd in their order.
const LINES: [(u64, u64); 9] = [
    (1, 5),
    (1, 6),
    (1, 7),
    (2, 0),
    (2, 1),
    (2, 2),
    (2, 3),
    (2, 4),
    (2, 5),
];
/// Releases with long support between which an upgrade is promised (`RELEASES.md`).
const LONG_SUPPORT: ((u64, u64), (u64, u64)) = ((1, 7), (2, 3));

/// Whether containerd's project supports the upgrade from one release to another: within a minor release, to the next
/// one, and between those with long support.
pub fn is_promised(from: &str, to: &str) -> bool {
    let line = |text: &str| {
        let version = version::upstream(text)?;
        Some((version.major, version.minor))
    };
    let (Some(from), Some(to)) = (line(from), line(to)) else {
        return false;
    };
    let next = LINES.windows(2).any(|pair| pair == [from, to]);
    from == to || next || (from, to) == LONG_SUPPORT
}

const fn number(version: &Version) -> Number {
    (version.major, version.minor, version.patch)
}

fn of(runtime: Runtime) -> Option<&'static Releases> {
    RELEASES.iter().find(|releases| releases.runtime == runtime)
}

/// Whether a release is this one or a later one.
fn is_since(found: &str, first: Number) -> bool {
    version::upstream(found).is_some_and(|found| number(&found) >= first)
}

/// The line of a release (`1.7`).
fn line((major, minor, _): Number) -> String {
    format!("{major}.{minor}")
}

fn text((major, minor, patch): Number) -> String {
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::of_debian("1.6.20~ds1", "1.23.17", true)]
    #[case::newer_than_listed("2.1.0", "1.23.17", true)]
    #[case::v1alpha2("1.7.28", "1.22.0", true)]
    #[case::v1alpha2_is_gone("2.0.0", "1.22.0", false)]
    #[case::v1("1.6.15", "1.26.0", true)]
    #[case::no_v1("1.6.8", "1.26.0", false)]
    #[case::too_old("1.4.13", "1.21.0", false)]
    #[case::no_version("devel", "1.23.0", false)]
    fn the_cri_decides_which_containerd_serves(
        #[case] containerd: &str,
        #[case] kubelet: &str,
        #[case] serves: bool,
    ) {
        let kubelet = version::upstream(kubelet).unwrap();
        let misfit = misfit(Runtime::Containerd, containerd, &kubelet);
        assert_eq!(misfit.is_none(), serves, "{misfit:?}");
        assert!(!matches!(misfit, Some(Misfit::Unsupported(_))));
    }

    #[rstest]
    #[case("0.4.3", "1.36.3", true)]
    #[case("0.2.6", "1.26.0", false)]
    #[case("0.3.21", "1.22.0", true)]
    #[case("0.3.22", "1.22.0", false)]
    #[case("0.4.1", "1.22.0", true)]
    #[case("0.4.3", "1.22.0", false)]
    #[case("", "1.23.0", false)]
    fn the_cri_decides_which_cri_dockerd_serves(
        #[case] shim: &str,
        #[case] kubelet: &str,
        #[case] serves: bool,
    ) {
        let kubelet = version::upstream(kubelet).unwrap();
        assert_eq!(misfit(Runtime::CriDockerd, shim, &kubelet).is_none(), serves);
    }

    #[rstest]
    #[case::line_too_old("1.6.20~ds1", 36, Some("2.2.0+, 2.3.0+"))]
    #[case::last_of_1_x("1.7.28", 35, None)]
    #[case::not_with_1_36("1.7.30", 36, Some("2.2.0+, 2.3.0+"))]
    #[case::line_between("2.0.9", 35, Some("1.7.28+, 2.1.5+, 2.2.0+"))]
    #[case::patch_too_old("2.1.4", 35, Some("1.7.28+, 2.1.5+, 2.2.0+"))]
    #[case::newer_line("2.4.2", 36, None)]
    #[case::later_kubelet("2.1.9", 40, Some("2.2.0+, 2.3.0+"))]
    #[case::long_ago("1.6.15", 31, None)]
    #[case::of_1_32("1.6.35", 32, Some("1.6.36+, 1.7.24+, 2.0.1+, 2.1.0+"))]
    fn what_was_not_tested_together_is_known(
        #[case] containerd: &str,
        #[case] minor: u64,
        #[case] listed: Option<&str>,
    ) {
        assert_eq!(
            misfit(Runtime::Containerd, containerd, &Version::new(1, minor, 0)),
            listed.map(|listed| Misfit::Unsupported(listed.to_owned()))
        );
    }

    #[rstest]
    #[case("1.7.20", "1.7.35", true)]
    #[case("1.7.35", "2.0.9", true)]
    #[case("1.7.35", "2.3.1", true)]
    #[case("1.7.35", "2.4.2", false)]
    #[case("1.6.20~ds1", "1.7.35", true)]
    #[case("1.6.20~ds1", "2.3.0", false)]
    #[case("2.3.0", "2.4.2", true)]
    #[case("2.1.0", "2.4.2", false)]
    #[case("devel", "2.4.2", false)]
    fn what_the_project_promises_to_upgrade(#[case] from: &str, #[case] to: &str, #[case] promised: bool) {
        assert_eq!(is_promised(from, to), promised);
    }

    #[test]
    fn the_driver_is_told_from_some_release_on() {
        let later = |runtime, found| tells_driver_later(runtime, found);
        assert_eq!(later(Runtime::Containerd, "1.7.28").as_deref(), Some("2.0.0"));
        assert_eq!(later(Runtime::Containerd, "2.0.0"), None);
        assert_eq!(later(Runtime::CriDockerd, "0.3.16").as_deref(), Some("0.3.17"));
        assert_eq!(later(Runtime::CriDockerd, "0.4.3"), None);
    }
}
