//! Versions as packages write them: `1.6.20~ds1`, `20.10.24+dfsg1`, `1.7.24-0ubuntu1~22.04.1`, `v1.23.17`.

use semver::{Version, VersionReq};

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
