//! What containerd keeps of an image besides its layers: manifests and the configuration.

use containerd_client::types::Descriptor;
use serde::Deserialize;

use crate::{
    edit::parse,
    runtime::{RuntimeError, containerd::Containerd},
};

/// What a manifest or an index names.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Named>,
    config: Option<Named>,
    #[serde(default)]
    layers: Vec<Named>,
}

/// A blob as a manifest names it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Named {
    /// Its digest.
    pub(super) digest: String,
    /// Its length in bytes.
    #[serde(default)]
    pub(super) size: u64,
}

/// Manifests and configuration of an image.
#[derive(Clone, Debug)]
pub(super) struct Documents {
    /// The manifests, that of this platform last; the first one has the digest that the name stands for.
    pub(super) manifests: Vec<Vec<u8>>,
    /// The layers that the last one names, the lowest first.
    pub(super) layers: Vec<Named>,
    /// The configuration.
    pub(super) config: Vec<u8>,
}

fn read(document: &[u8], digest: &str) -> Result<Manifest, RuntimeError> {
    parse::json(document).map_err(|error| RuntimeError::because(format!("manifest {digest}"), error))
}

/// That containerd does not have something.
pub(super) fn missing(what: &str) -> RuntimeError {
    RuntimeError::new(format!("containerd does not have {what}"))
}

/// The documents of the image of this name and id in containerd's store.
///
/// # Errors
/// When one of them is not there, or they are of another image.
pub(super) async fn documents(
    from: &Containerd,
    name: &str,
    wanted: &str,
) -> Result<Documents, RuntimeError> {
    let target: Descriptor = from
        .target(name)
        .await?
        .ok_or_else(|| missing(&format!("an image {name}")))?;
    let document = from.document(&target.digest).await?;
    let document = document.ok_or_else(|| missing(&format!("the manifest {}", target.digest)))?;
    let mut manifest = read(&document, &target.digest)?;
    let mut manifests = vec![document];
    let is_wanted = |manifest: &Manifest| {
        manifest
            .config
            .as_ref()
            .is_some_and(|config| config.digest == wanted)
    };
    if !manifest.manifests.is_empty() {
        // An index. The CRI has chosen one of its manifests; most of the others are not on the node.
        let mut chosen = None;
        for named in &manifest.manifests {
            let Some(document) = from.document(&named.digest).await? else {
                continue;
            };
            if let Some(manifest) = read(&document, &named.digest).ok().filter(is_wanted) {
                chosen = Some((document, manifest));
                break;
            }
        }
        let (document, of_platform) = chosen
            .ok_or_else(|| missing(&format!("the manifest of {wanted} that {} names", target.digest)))?;
        manifests.push(document);
        manifest = of_platform;
    }
    if !is_wanted(&manifest) {
        return Err(RuntimeError::new(format!(
            "manifest {} is of another image than {wanted}",
            target.digest
        )));
    }
    let config = from.document(wanted).await?;
    Ok(Documents {
        manifests,
        layers: manifest.layers,
        config: config.ok_or_else(|| missing(&format!("the configuration {wanted}")))?,
    })
}
