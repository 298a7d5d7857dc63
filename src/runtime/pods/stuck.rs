//! Sandboxes of the target that ended during a rollback and could not leave their network: a CNI plugin may need an API server
//! that runs on this node. Once the source serves, they leave it by libcni's cache, and what keeps a record of them removes it. The
//! target's CRI is not asked: its configuration is undone by then.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use nix::mount::{MntFlags, umount2};

use super::{PLUGINS_AT_ONCE, bundles, conmon, process::Processes};
use crate::{
    host::files::Files,
    plan::host_path::HostPath,
    runtime::{
        RuntimeError,
        cni_del::{Attachment, Network, attachments_everywhere},
        containerd::Containerd,
        docker::Engine,
    },
};

/// Where runtimes mount the network namespaces of sandboxes, under both of its names.
const NETWORKS: [&str; 2] = ["/run/netns/", "/var/run/netns/"];

/// What keeps records of sandboxes.
#[derive(Debug)]
pub enum Records {
    /// containerd, apart from its CRI.
    Containerd(Containerd),
    /// Docker Engine, for which a sandbox is a container.
    Docker(Box<Engine>),
    /// CRI-O, which is away, and removes its records of sandboxes that are gone when it starts again.
    CriO,
}

impl Records {
    /// The network namespace of a sandbox, if it is there.
    async fn netns_of(&self, files: &Files, sandbox: &str) -> Result<Option<HostPath>, RuntimeError> {
        Ok(match self {
            Self::Containerd(containerd) => {
                let specification = containerd.specification_of(sandbox).await?;
                specification.and_then(|text| bundles::netns_in(files, &text))
            }
            Self::CriO => conmon::netns_of(files, sandbox),
            // It is that of a process, which has ended.
            Self::Docker(_) => None,
        })
    }

    async fn forget(&self, sandbox: &str) -> Result<(), RuntimeError> {
        match self {
            Self::Containerd(containerd) => containerd.forget_sandbox(sandbox).await,
            Self::Docker(engine) => engine.remove(sandbox).await,
            Self::CriO => Ok(()),
        }
    }
}

/// Takes these sandboxes off their network and removes their records. Returns those of which something is left, with the reason.
/// May be called again.
pub async fn remove(
    network: Network<'_>,
    processes: Processes<'_>,
    records: Result<Records, RuntimeError>,
    stuck: &BTreeSet<String>,
) -> BTreeMap<String, String> {
    let shims = processes.shims(bundles::OWN);
    let (attachments, _) = attachments_everywhere(network.files);
    let (records, shims, attachments) = (&records, &shims, &attachments);
    let removals = stuck.iter().map(|sandbox| async move {
        let why = if shims.contains_key(sandbox) {
            Err("its shim runs".to_owned())
        } else {
            let attached = attachments.get(sandbox).map_or(&[][..], Vec::as_slice);
            remove_one(network, records, attached, sandbox).await
        };
        why.err().map(|why| {
            let why = format!("sandbox {sandbox} has ended and could not be removed: {why}");
            (sandbox.clone(), why)
        })
    });
    let removed = stream::iter(removals).buffer_unordered(PLUGINS_AT_ONCE);
    let left: Vec<Option<(String, String)>> = removed.collect().await;
    left.into_iter().flatten().collect()
}

async fn remove_one(
    network: Network<'_>,
    records: &Result<Records, RuntimeError>,
    attachments: &[Attachment],
    sandbox: &str,
) -> Result<(), String> {
    let netns = match records {
        Ok(records) => records
            .netns_of(network.files, sandbox)
            .await
            .map_err(|error| error.to_string())?,
        Err(_) => None,
    };
    for attachment in attachments {
        let path = netns.as_ref().map_or("", HostPath::as_str);
        network.detach(attachment, path).await?;
    }
    if let Some(netns) = &netns {
        unmount(network, netns);
    }
    match records {
        Ok(records) => records.forget(sandbox).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Removes a network namespace in which nothing runs any more. Without this it stays until the next boot, and holds nothing.
fn unmount(network: Network<'_>, netns: &HostPath) {
    if !NETWORKS
        .iter()
        .any(|networks| netns.as_str().starts_with(networks))
    {
        return;
    }
    let unmounted = network.files.real(netns).and_then(|real| {
        umount2(&real, MntFlags::MNT_DETACH)?;
        network.files.remove(netns)
    });
    if let Err(error) = unmounted {
        tracing::warn!(%netns, %error, "a network namespace is left");
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use base64::Engine as _;
    use serde_json::json;

    use super::*;
    use crate::runtime::pods::bundles::tests::write;

    /// A plugin that asks for something that is away, until it is there.
    const PLUGIN: &str =
        "#!/bin/sh\n[ -e \"${0%/*}/up\" ] || { echo '{\"msg\":\"no API server answers\"}'; exit 1; }\n";

    /// What the network holds is given back as soon as its plugin can, also where nobody answers for the record; that is named.
    #[tokio::test]
    async fn a_sandbox_leaves_its_network_once_what_its_plugin_asks_is_there() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let config = r#"{"name":"lab","cniVersion":"1.0.0","plugins":[{"type":"asks"}]}"#;
        let attachment = json!({
            "containerId": "stuck", "ifName": "eth0", "networkName": "lab",
            "config": base64::engine::general_purpose::STANDARD.encode(config),
        });
        let cached = "var/lib/cni/results/lab-stuck-eth0";
        write(root, cached, &attachment.to_string());
        write(root, "opt/cni/bin/asks", PLUGIN);
        fs::set_permissions(root.join("opt/cni/bin/asks"), fs::Permissions::from_mode(0o755)).unwrap();
        let files = Files::new(root);
        let (cache, bin_dir) = (
            HostPath::new("/var/lib/cni").unwrap(),
            HostPath::new("/opt/cni/bin").unwrap(),
        );
        let network = Network {
            files: &files,
            cache: &cache,
            bin_dirs: &[bin_dir],
        };
        let stuck = BTreeSet::from(["stuck".to_owned()]);
        let remove = async || {
            let away = Err(RuntimeError::new("containerd does not answer"));
            remove(network, Processes(&files), away, &stuck).await
        };
        let left = remove().await;
        assert!(left["stuck"].contains("no API server answers"), "{left:?}");
        assert!(root.join(cached).exists());
        write(root, "opt/cni/bin/up", "");
        let left = remove().await;
        assert!(left["stuck"].ends_with("containerd does not answer"), "{left:?}");
        assert!(!root.join(cached).exists());
    }

    /// The record of a sandbox that has a shim may be that of a pod that runs.
    #[tokio::test]
    async fn a_sandbox_whose_shim_runs_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let pid = bundles::tests::shim(place.path(), bundles::OWN.namespace, "stuck");
        let files = Files::new(place.path());
        let cache = HostPath::new("/var/lib/cni").unwrap();
        let network = Network {
            files: &files,
            cache: &cache,
            bin_dirs: &[],
        };
        let away = Err(RuntimeError::new("nobody is asked"));
        let stuck = BTreeSet::from(["stuck".to_owned()]);
        let left = remove(network, Processes(&files), away, &stuck).await;
        assert!(left["stuck"].ends_with("its shim runs"), "{left:?}");
        bundles::tests::kill(&[pid]);
    }
}
