//! Where containerd keeps its snapshots.

use super::facts::Containerd;
use crate::edit::containerd_toml::{self, Snapshots};

/// Where containerd keeps the snapshots of containers: as it says itself, else as its file does, else as it does by
/// itself. A configuration that cannot be read has a finding of its own.
pub fn snapshots(containerd: Option<&Containerd>) -> Snapshots {
    containerd
        .and_then(|containerd| containerd_toml::snapshots(containerd.configuration()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::facts::Facts;

    #[test]
    fn what_containerd_says_of_its_store_counts_more_than_its_file() {
        let facts = include_str!("../../tests/hosts/debian12-kubeadm-1.30-containerd/facts.json");
        let facts: Facts = serde_json::from_str(facts).unwrap();
        let mut containerd = facts.containerd.unwrap();
        let file = containerd.config.file.as_mut().unwrap();
        file.text = "root = \"/of/the/file\"\n".to_owned();
        containerd.effective = Some("root = \"/in/effect\"\n".to_owned());
        assert_eq!(snapshots(Some(&containerd)).directory, "/in/effect");
        containerd.effective = None;
        assert_eq!(snapshots(Some(&containerd)).directory, "/of/the/file");
        assert_eq!(snapshots(None).directory, "/var/lib/containerd");
    }
}
