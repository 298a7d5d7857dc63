//! Versions as packages write them: `1.6.20~ds1`, `20.10.24+dfsg1`, `1.7.24-0ubuntu1~22.04.1`, `v1.23.17`.

use semver::{Prerelease, Version, VersionReq};

/// The upstream version at the head of `text`, without what a distribution added; missing numbers are 0.
pub fn upstream(text: &str) -> Option<Version> {
    let text = text.trim().trim_start_matches('v');
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let mut numbers = text[..end]
        .trim_end_matches('.')
        .split('.')
        .map(|number| number.parse().ok());
    let major = numbers.next()??;
    let minor = numbers.next().unwrap_or(Some(0))?;
    let patch = numbers.next().unwrap_or(Some(0))?;
    Some(Version::new(major, minor, patch))
}

/// How the part begins that makes a version a candidate; any other is a distribution's.
const CANDIDATES: [&str; 3] = ["alpha", "beta", "rc"];

/// The upstream version with what makes it a candidate (`2.5.0-rc.1`, in Debian `2.5.0~rc.1-1`), which is older than the version itself.
pub fn release(text: &str) -> Option<Version> {
    let mut version = upstream(text)?;
    let rest = text.trim().trim_start_matches('v');
    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let part = rest.strip_prefix(['-', '~']).unwrap_or_default();
    if CANDIDATES.iter().any(|candidate| part.starts_with(candidate)) {
        let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '.');
        let part = &part[..end.unwrap_or(part.len())];
        version.pre = Prerelease::new(part).unwrap_or_default();
    }
    Some(version)
}

/// Whether a version is the one that `wanted` asks for, see [`requirement`]. A candidate is not the version itself.
///
/// # Errors
/// If `wanted` is neither a version nor a range.
pub fn is_as_asked(found: &str, wanted: &str) -> Result<bool, semver::Error> {
    let requirement = requirement(wanted)?;
    if exact(wanted).is_some() {
        let found = release(found);
        return Ok(found.is_some() && found == release(wanted));
    }
    Ok(upstream(found).is_some_and(|found| requirement.matches(&found)))
}

/// A whole version (`2.4.2`, `v2.5.0-rc.1`), without its `v`; nothing for a part of one or a range.
pub fn exact(text: &str) -> Option<&str> {
    let plain = text.trim();
    let plain = plain.strip_prefix('v').unwrap_or(plain);
    Version::parse(plain).is_ok().then_some(plain)
}

/// What `target.version` asks for: a whole version is meant exactly, a part of one (`1.7`) as all that begin with
/// it, anything else as a semver range.
pub fn requirement(text: &str) -> Result<VersionReq, semver::Error> {
    let text = text.trim();
    let plain = text.trim_start_matches('v');
    if !plain.is_empty() && plain.chars().all(|c| c.is_ascii_digit() || c == '.') {
        VersionReq::parse(&format!("={plain}"))
    } else {
        VersionReq::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_of_distributions_are_dropped() {
        for (text, version) in [
            ("1.6.20~ds1", Version::new(1, 6, 20)),
            ("20.10.24+dfsg1", Version::new(20, 10, 24)),
            ("1.7.24-0ubuntu1~22.04.1", Version::new(1, 7, 24)),
            ("v1.23.17", Version::new(1, 23, 17)),
            ("2.0", Version::new(2, 0, 0)),
        ] {
            assert_eq!(upstream(text), Some(version), "{text}");
        }
        assert_eq!(upstream("devel"), None);
        assert_eq!(upstream(""), None);
    }

    #[test]
    fn a_candidate_is_older_than_its_version() {
        let ordered = [
            "2.4.2",
            "v2.5.0-beta.0",
            "2.5.0~rc.1-1",
            "2.5.0-rc.2",
            "2.5.0-0ubuntu1~22.04.1",
            "2.5.1~ds1-1+b1",
        ];
        assert!(
            ordered.map(release).is_sorted_by(|a, b| a < b),
            "{:?}",
            ordered.map(release)
        );
        let asked = |wanted: &str, found| is_as_asked(found, wanted).unwrap();
        assert!(asked("2.5.0-rc.1", "2.5.0~rc.1-1") && asked("v2.5.0", "2.5.0+ds1"));
        for other in ["2.5.0-rc.2", "2.5.0", "2.6.0"] {
            assert!(
                !asked("2.5.0-rc.1", other) && !asked(other, "2.5.0-rc.1"),
                "{other}"
            );
        }
        assert!(asked(">=2", "2.5.0-rc.1") && asked("2.5", "2.5.0-rc.1"));
    }

    #[test]
    fn a_part_of_a_version_is_not_a_whole_one() {
        assert_eq!(exact("v2.4.2"), Some("2.4.2"));
        assert_eq!(exact("2.5.0-rc.1"), Some("2.5.0-rc.1"));
        assert!(
            [">=2.4.2", "2.4", "", "newest", "2.4.2/..", "vv2.4.2"]
                .map(exact)
                .iter()
                .all(Option::is_none)
        );
    }

    #[test]
    fn a_version_is_meant_exactly_and_a_range_as_a_range() {
        let matches = |wanted: &str, found| requirement(wanted).unwrap().matches(&upstream(found).unwrap());
        assert!(matches("1.6.20", "1.6.20~ds1") && !matches("1.6.20", "1.6.21"));
        assert!(matches("1.7", "1.7.28") && !matches("1.7", "1.8.0"));
        assert!(matches(">=1.6, <2", "1.7.28") && !matches(">=1.6, <2", "2.0.1"));
        assert!(requirement("newest").is_err());
    }
}
