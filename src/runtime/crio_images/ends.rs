//! The two ends of an image's way into CRI-O's store.

use crate::runtime::{
    RuntimeError,
    cri::{self, Cri},
    docker::Engine,
    transfer::{self, noticed},
    unpacked::hex,
};

/// Who has the images that go into CRI-O's store.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Docker Engine.
    Docker(&'a Engine),
    /// containerd.
    Containerd(&'a transfer::Store),
}

/// The id with its `sha256:`.
pub(super) fn full_id(id: &str) -> String {
    format!("sha256:{}", hex(id))
}

/// Does what takes its time on the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RuntimeError> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RuntimeError::of)?
}

/// The image that CRI-O has under a name.
pub(super) async fn image(cri: &Cri, name: &str) -> Result<Option<cri::Image>, RuntimeError> {
    if name.contains('@') {
        // CRI-O looks for the manifest of a digest, which Docker does not keep, until it has listed its images.
        cri.images().await?;
    }
    cri.image(name).await
}

/// Makes sure that CRI-O has the image of this id under a name.
pub(super) async fn proven(to: &Cri, name: &str, wanted: &str) -> Result<(), RuntimeError> {
    if name.contains('@') {
        to.images().await?;
    }
    let id = noticed(to, name, |id| id == Some(hex(wanted))).await?;
    if id.as_deref() == Some(hex(wanted)) {
        return Ok(());
    }
    Err(RuntimeError::new(format!(
        "CRI-O has {} under this name afterwards, and it should be {wanted}",
        id.as_deref().unwrap_or("no image")
    )))
}
