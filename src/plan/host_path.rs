//! Absolute paths on the host, before any root prefix is put in front of them.

use serde::{Deserialize, Serialize};

/// An absolute path on the host without `.` or `..` parts, such as `/etc/containerd/config.toml`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct HostPath(String);

/// A path as programs understand it: without slashes that are repeated or stand at its end, and without `.` parts.
/// `..` stays, for a link may stand before it.
pub fn plain(path: &str) -> String {
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .collect();
    let root = if path.starts_with('/') { "/" } else { "" };
    format!("{root}{}", parts.join("/"))
}

/// The path of a unix socket without its scheme, under `/run`, to which `/var/run` is a link. The scheme may have one
/// slash (`unix:/run/x.sock`) or stand there twice, as kubeadm 1.24.0 wrote it.
pub fn socket(endpoint: &str) -> String {
    let path = plain(endpoint.rsplit("unix:").next().unwrap_or_default());
    match path.strip_prefix("/var/run/") {
        Some(rest) => format!("/run/{rest}"),
        None => path,
    }
}

/// A text that is no absolute, plain path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an absolute path without `.` and `..`")]
pub struct NotAHostPath(String);

impl HostPath {
    /// Checks that `path` is absolute and has no empty, `.` or `..` parts.
    pub fn new(path: impl Into<String>) -> Result<Self, NotAHostPath> {
        let path = path.into();
        let plain = path.strip_prefix('/').is_some_and(|rest| {
            !rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
        });
        if plain {
            Ok(Self(path))
        } else {
            Err(NotAHostPath(path))
        }
    }

    /// The path as text, with its leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without its leading slash, to be joined under a root prefix.
    pub fn relative(&self) -> &str {
        &self.0[1..]
    }

    /// The path of `name` in this directory.
    pub fn join(&self, name: &str) -> Result<Self, NotAHostPath> {
        Self::new(format!("{}/{name}", self.0))
    }

    /// The directory that holds this path, unless that is `/`.
    pub fn parent(&self) -> Option<Self> {
        self.0
            .rsplit_once('/')
            .filter(|(parent, _)| !parent.is_empty())
            .map(|(parent, _)| Self(parent.to_owned()))
    }
}

impl std::fmt::Display for HostPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_programs_read_them() {
        for (text, wanted) in [
            ("/opt/cni/bin/", "/opt/cni/bin"),
            ("//opt//cni/./bin", "/opt/cni/bin"),
            ("/a/../b/", "/a/../b"),
            ("/", "/"),
            ("a/b/", "a/b"),
            ("", ""),
        ] {
            assert_eq!(plain(text), wanted);
        }
        for endpoint in [
            "unix:///var/run/x.sock",
            "unix:/run/x.sock",
            "/run/x.sock",
            "unix://unix:///run/x.sock",
            "/var/run//x.sock",
        ] {
            assert_eq!(socket(endpoint), "/run/x.sock", "{endpoint}");
        }
    }
}
