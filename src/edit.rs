//! Other people's configuration: text in, text out (pure). Every editor changes exactly the keys that it is asked
//! to change; comments, order and unknown keys survive. The result is parsed again and compared with the original
//! before it is returned, and what cannot be printed again safely is refused.
//!
//! - [`parse`]: YAML, JSON and TOML as data; no error quotes the text.
//! - [`env_file`]: systemd environment files; [`flags`]: the command line words inside their values.
//! - [`containers_storage`]: the lists of CRI-O's store.
//! - [`containerd_toml`]: containerd's `config.toml`; [`containerd_toml::upgrade`]: what 2.x needs of the file of 1.x.
//! - [`hosts_toml`]: containerd's files for registries, written whole.
//! - [`yaml`]: top-level scalars of the kubelet's and crictl's files; [`json`]: the same where they are JSON.
//! - [`crio_conf`]: what CRI-O prints of its configuration, and the part of it that is written.
//! - [`registries_conf`], [`policy_json`]: what tools of containers/image read of registries and of signatures.
//! - [`registry_auth`]: credentials of registries in the form of Docker's `config.json`, written whole.
//! - [`daemon_json`]: Docker's `daemon.json`, to which the cgroup driver is added.
//! - [`unit_file`]: drop-ins for systemd units, written whole.

pub mod containerd_toml;
pub mod containers_storage;
pub mod crio_conf;
pub mod daemon_json;
pub mod env_file;
pub mod flags;
pub mod hosts_toml;
pub mod json;
pub mod parse;
pub mod policy_json;
pub mod registries_conf;
pub mod registry_auth;
pub mod unit_file;
pub mod yaml;

#[cfg(test)]
mod tests;
