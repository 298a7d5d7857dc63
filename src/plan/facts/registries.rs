//! The directories that runtimes read the settings of registries from.

use serde::{Deserialize, Serialize};

use crate::{
    edit::hosts_toml::Said,
    plan::{digest::Digest, host_path::HostPath},
};

/// The directory of one registry, below `/etc/docker/certs.d` or a directory of containerd's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryDirectory {
    /// Its path, which ends in the name of the registry.
    pub path: HostPath,
    /// Names of the files in it, without those that end in `.crt` and have no certificate.
    #[serde(default)]
    pub files: Vec<String>,
    /// Digest of its `hosts.toml`, which may hold credentials; absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosts: Option<Digest>,
    /// What its `hosts.toml` says, without credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub said: Option<Said>,
}

impl RegistryDirectory {
    /// The registry's name, if the directory lies in `parent`.
    pub fn below(&self, parent: &str) -> Option<&str> {
        self.path.as_str().strip_prefix(parent)?.strip_prefix('/')
    }
}
