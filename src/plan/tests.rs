//! The small readers of this room against real texts, odd ones, and broken variants of both.

use super::{
    host_path::{self, HostPath},
    quantity, redaction, reference, version,
};
use crate::fuzz::{SECRET, hold, samples};

#[test]
fn fuzz_versions() {
    hold(&samples("versions", &[]), |text| {
        version::upstream(text);
        drop(version::requirement(text));
        if let Some(exact) = version::exact(text) {
            assert!(
                semver::Version::parse(exact).is_ok() && version::requirement(exact).is_ok(),
                "{exact}"
            );
        }
    });
}

#[test]
fn fuzz_quantities() {
    hold(&samples("quantities", &[]), |text| {
        if let Some(bytes) = quantity::bytes(text) {
            assert!(!quantity::words(bytes).is_empty());
        }
    });
}

#[test]
fn fuzz_names_of_images() {
    hold(&samples("images", &[]), |text| {
        let full = reference::full(text);
        if !full.contains('@') {
            let (repository, tag) = reference::repository_and_tag(&full);
            assert_eq!(format!("{repository}:{tag}"), full);
        }
        let (name, digest) = text.split_once('@').unwrap_or((text, ""));
        let valid = |c: char| c.is_ascii_alphanumeric() || ".:/-".contains(c);
        let parts: Vec<&str> = name.split('/').collect();
        // A port in the first part, a tag in the last one.
        let colons = parts
            .iter()
            .enumerate()
            .all(|(index, part)| match part.matches(':').count() {
                0 => !part.is_empty(),
                1 => index == 0 || index + 1 == parts.len(),
                _ => false,
            });
        if colons && name.chars().chain(digest.chars()).all(valid) {
            assert_eq!(reference::full(&full), full, "a full reference stands for itself");
        }
    });
}

#[test]
fn fuzz_paths() {
    hold(&samples("archives", &[]), |text| {
        host_path::plain(text);
        host_path::socket(text);
        if let Ok(path) = HostPath::new(text) {
            assert!(path.as_str().starts_with('/') && !path.as_str().split('/').any(|part| part == ".."));
        }
        let inside = HostPath::new("/a").unwrap().join(text);
        assert!(
            inside.is_ok_and(|path| path.as_str().starts_with("/a"))
                || text.is_empty()
                || HostPath::new(format!("/a/{text}")).is_err()
        );
    });
}

/// Whatever stands around it: the line of a foreign file shows no value that it does not know.
#[test]
fn fuzz_redaction() {
    let ends = [
        "config.toml",
        "config.yaml",
        "daemon.json",
        ".env",
        ".conf",
        ".conflist",
    ];
    for kind in ["containerd-toml", "yaml", "daemon-json", "env", "flags", "unit"] {
        hold(&samples(kind, &ends), |text| {
            for line in text.lines() {
                redaction::public(line);
                redaction::flags(line);
                redaction::line(line);
            }
            redaction::sentence(text);
            let hidden = redaction::sentence(&format!("{text} https://me:{SECRET}pw@host/"));
            assert!(!hidden.contains("zq7pw"), "{hidden}");
        });
    }
}
