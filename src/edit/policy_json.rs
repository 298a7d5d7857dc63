//! The policy of signatures of CRI-O and of all tools of containers/image: `policy.json` (containers-policy.json(5)).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::parse::{self, ParseError};

/// The requirement that an image without any signature meets.
const ANYTHING: &str = "insecureAcceptAnything";

/// A policy.
#[derive(Clone, Debug, Deserialize)]
pub struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Requirement {
    #[serde(rename = "type")]
    kind: String,
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// See [`ParseError`].
    pub fn read(text: &str) -> Result<Self, ParseError> {
        parse::json(text)
    }

    /// Whether an image of this full reference that has no signature may be pulled and run: all requirements of the scope that fits
    /// best have to allow it (`requirementsForImageRef` in `signature/policy_eval.go`).
    pub fn takes_unsigned(&self, reference: &str) -> bool {
        let scopes = self.transports.get("docker");
        let fits = scopes.and_then(|found| scopes_of(reference).iter().find_map(|scope| found.get(scope)));
        let requirements = fits.unwrap_or(&self.default);
        !requirements.is_empty() && requirements.iter().all(|one| one.kind == ANYTHING)
    }
}

/// The scopes of a reference, the narrowest one first: itself, its repository and what that lies below, the domains above the host,
/// and all (`docker/policyconfiguration/naming.go`).
fn scopes_of(reference: &str) -> Vec<String> {
    let mut name = reference.split('@').next().unwrap_or_default();
    if let Some((before, tag)) = name.rsplit_once(':')
        && !tag.contains('/')
    {
        name = before;
    }
    let mut scopes = vec![reference.to_owned(), name.to_owned()];
    while let Some((above, _)) = name.rsplit_once('/') {
        name = above;
        scopes.push(name.to_owned());
    }
    let mut host = name.split(':').next().unwrap_or_default();
    while let Some((_, domain)) = host.split_once('.') {
        host = domain;
        scopes.push(format!("*.{domain}"));
    }
    scopes.push(String::new());
    scopes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_decides() {
        let policy = Policy::read(include_str!("../../tests/fuzz/policy-json/signed.json")).unwrap();
        for name in [
            "registry.k8s.io/pause:3.10",
            "registry.k8s.io/kube-proxy@sha256:0123",
            "a.b.example.com:5000/x/y:1",
        ] {
            assert!(policy.takes_unsigned(name), "{name}");
        }
        for name in [
            "docker.io/library/nginx:1.25",
            "registry.redhat.io/ubi9:1",
            "registry.k8s.io:443/pause:3.10",
            "quay.io/team/app:1",
            "example.com/x:1",
            "127.0.0.1:5000/x:1",
        ] {
            assert!(!policy.takes_unsigned(name), "{name}");
        }
        assert_eq!(
            scopes_of("127.0.0.1:80/a/b:1"),
            [
                "127.0.0.1:80/a/b:1",
                "127.0.0.1:80/a/b",
                "127.0.0.1:80/a",
                "127.0.0.1:80",
                "*.0.0.1",
                "*.0.1",
                "*.1",
                ""
            ]
        );
        let all = Policy::read(r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).unwrap();
        assert!(all.takes_unsigned("docker.io/library/nginx:1.25"));
        let none = Policy::read(r#"{"default": []}"#).unwrap();
        assert!(!none.takes_unsigned("docker.io/library/nginx:1.25"));
        Policy::read(r#"{"transports": {}}"#).unwrap_err();
    }

    #[test]
    fn fuzz_policies() {
        use crate::fuzz::{hold, samples};

        hold(&samples("policy-json", &[]), |text| {
            if let Ok(policy) = Policy::read(text) {
                let _ = policy.takes_unsigned("docker.io/library/nginx:1.25");
            }
        });
    }
}
