//! Brings an image from another store into containerd's without copying it: the layers of Docker's `overlay2` and of
//! CRI-O's `overlay` have the form of containerd's snapshots, so a snapshot is made of further links to the files of the
//! layer. What
//! containerd has afterwards is what it has of an image that it pulled with `discard_unpacked_layers`: the
//! configuration, a manifest, the snapshots, and no archives of layers. It cannot be pushed from the node.
//!
//! Everything is made under a lease, and the name comes last: whoever dies in the middle leaves nothing that anybody
//! refers to, and the lease takes it away.

use std::io;

use serde_json::json;

use super::{
    RuntimeError,
    containerd::Containerd,
    unpacked::{Image, Layer},
};
use crate::{
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath},
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// Links an image into containerd under this name, and returns the bytes of its layers.
///
/// # Errors
/// When it cannot be linked, with the reason. Nothing of it is left then.
pub(super) async fn link(
    files: &Files,
    image: &Image,
    to: &Containerd,
    name: &str,
) -> Result<u64, RuntimeError> {
    let leased = to.lease().await?;
    let named = lay(files, &leased, image, name).await;
    // Also after a failure: what was made in part goes with it.
    let ended = to.end_lease().await;
    named.and(ended)?;
    Ok(image.layers.iter().map(|layer| layer.size).sum())
}

async fn lay(files: &Files, to: &Containerd, image: &Image, name: &str) -> Result<(), RuntimeError> {
    let mut below = None;
    for layer in &image.layers {
        snapshot(files, to, layer, below).await?;
        below = Some(&layer.chain_id);
    }
    let top = below.map(Digest::to_string).unwrap_or_default();
    // The names of containerd's own labels, by which its garbage collection finds what belongs together.
    let keeps_snapshots = ("containerd.io/gc.ref.snapshot.overlayfs".to_owned(), top);
    let config = to.write(CONFIG, image.config.clone(), &[keeps_snapshots]).await?;
    let layers = image
        .layers
        .iter()
        .map(|layer| json!({"mediaType": LAYER, "digest": layer.diff_id, "size": layer.size}));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config.digest, "size": config.size},
        "layers": layers.collect::<Vec<_>>(),
    });
    let keeps_config = (
        "containerd.io/gc.ref.content.config".to_owned(),
        config.digest.clone(),
    );
    let manifest = to
        .write(MANIFEST, manifest.to_string().into_bytes(), &[keeps_config])
        .await?;
    to.name(name, manifest).await
}

/// The snapshot of a layer; one that is there is left.
async fn snapshot(
    files: &Files,
    to: &Containerd,
    layer: &Layer,
    below: Option<&Digest>,
) -> Result<(), RuntimeError> {
    if to.has_snapshot(&layer.chain_id).await? {
        return Ok(());
    }
    let Some(directory) = to.begin_snapshot(&layer.chain_id, below).await? else {
        return Ok(());
    };
    let (files, from) = (files.clone(), layer.directory.clone());
    let filling = tokio::task::spawn_blocking(move || {
        share(&files, &from, &directory)?;
        // A complete snapshot is never looked into again: whoever unpacks an image with the same layer takes it as
        // it is. So it must not outlive a power cut that its files do not outlive, and is made durable before it is
        // complete. containerd does no more for what it unpacks itself.
        files.sync_file_system(&directory)
    });
    let filled = filling.await.map_err(RuntimeError::of)?;
    filled.map_err(|error| RuntimeError::caused(format!("cannot {error}"), error))?;
    to.complete_snapshot(&layer.chain_id).await
}

/// Fills a directory with links to a layer, through the mount that has both: a store may be mounted onto itself.
fn share(files: &Files, from: &HostPath, to: &HostPath) -> io::Result<()> {
    let mount = files.one_mount(&[from, to])?;
    let shared = mount.files().share_layer(&mount.path(from)?, &mount.path(to)?);
    shared.map_err(|error| mount.said(&error))
}
