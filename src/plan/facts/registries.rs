//! The directories that runtimes read the settings of registries from.

use std::collections::BTreeMap;

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
    /// Where those of its files lead that are links of Transship's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub links: BTreeMap<String, String>,
}

/// What a file with certificates of a registry has. Nothing of it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pem {
    /// A certificate.
    pub certificate: bool,
    /// A private key.
    pub key: bool,
}

impl RegistryDirectory {
    /// The registry's name, if the directory lies in `parent`.
    pub fn below(&self, parent: &str) -> Option<&str> {
        self.path.as_str().strip_prefix(parent)?.strip_prefix('/')
    }
}
