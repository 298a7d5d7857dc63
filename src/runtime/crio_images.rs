//! Carries images into CRI-O's store and out of it. Into it their layers are linked, while CRI-O runs, or CRI-O pulls them where
//! they cannot be links; out of it they are linked into containerd's, or the archive is made again that Docker Engine and `ctr`
//! read. CRI-O's own answer is the proof.
//!
//! CRI-O calls an image by the digest of its configuration without `sha256:`.

mod copied;
mod documents;
mod ends;
mod saved;

use std::{collections::BTreeMap, io};

use bollard::models::ImageInspect;
use bytes::Bytes;
use futures::TryStreamExt as _;
use tokio::{
    sync::mpsc::{Receiver, channel},
    time::timeout,
};

use documents::{Documents, documents, missing};
pub use ends::Source;
use ends::{blocking, full_id, image, proven};

use super::{
    Carried, Means, RuntimeError,
    containerd::Containerd,
    containers_storage::{ContainersStorage, ImageList},
    cri::{self, Cri},
    docker::Engine,
    docker_archive::{self, Pieces},
    link::link,
    overlay2, reference,
    restore::in_order,
    tar_split,
    transfer::{self, NAMED, STALLED, UNPACK, data_root_of, take},
    unpacked::{Compressed, Compression, Image, Layer, TarSplit, hex, layers},
};
use crate::{
    host::files::Files,
    plan::{
        digest::Digest,
        host_path::HostPath,
        paths::PULLED,
        step::{ImagesStep, Layers},
    },
};

/// Parts of a blob that wait for who reads it.
const AHEAD: usize = 8;

/// What CRI-O lists: names, and the id of the image as the other stores call it.
///
/// # Errors
/// When it does not answer in time.
pub async fn images(cri: &Cri) -> Result<Vec<(Vec<String>, String)>, RuntimeError> {
    let images = cri.images().await?.into_iter();
    Ok(images
        .map(|image| ([image.repo_tags, image.repo_digests].concat(), full_id(&image.id)))
        .collect())
}

/// The store of a CRI-O that runs.
async fn store(files: &Files, cri: &Cri) -> Result<ContainersStorage, RuntimeError> {
    ContainersStorage::at(files, &cri.image_store().await?)
}

/// Carries the image of this name (a full reference) into CRI-O.
///
/// # Errors
/// When CRI-O does not have it afterwards under this name and with the id of the source; the cause that was given.
pub async fn into_cri_o(
    files: &Files,
    from: Source<'_>,
    to: &Cri,
    step: &ImagesStep,
    name: &str,
) -> Result<Carried, RuntimeError> {
    let usual = HostPath::new(PULLED).map_err(RuntimeError::of)?;
    let pulled = step.pull_directory.as_ref().unwrap_or(&usual);
    let say = |error: RuntimeError| {
        RuntimeError::because(format_args!("image {name} was not carried into CRI-O"), error)
    };
    let wanted = match from {
        Source::Docker(engine) => engine.image_id(name).await?,
        Source::Containerd(containerd) => {
            let image = containerd.cri.image(name).await?;
            let missing = || say(RuntimeError::new("containerd's CRI does not list it"));
            image.ok_or_else(missing)?.id
        }
    };
    if image(to, name)
        .await?
        .is_some_and(|image| full_id(&image.id) == wanted)
    {
        return Ok(NAMED);
    }
    let linking = match &step.layers {
        Layers::Linked { data_root } => {
            let linking = Box::pin(linked(files, from, to, data_root.as_ref(), name, &wanted));
            linking.await.map_err(|error| Some(error.to_string()))
        }
        Layers::Streamed { .. } => Err(None),
    };
    match linking {
        Ok(carried) => Ok(carried),
        Err(instead) => {
            if let Some(error) = &instead {
                tracing::warn!(image = name, error, "copying an image that cannot be linked");
            }
            let copying = Box::pin(copied::copied(files, from, to, name, &wanted, instead, pulled));
            copying.await.map_err(say)
        }
    }
}

/// Lays the image of this name and id into CRI-O's store, with links for layers.
async fn linked(
    files: &Files,
    from: Source<'_>,
    to: &Cri,
    data_root: Option<&HostPath>,
    name: &str,
    wanted: &str,
) -> Result<Carried, RuntimeError> {
    let store = store(files, to).await?;
    let lay = |image: Image| {
        let (store, name) = (store.clone(), name.to_owned());
        blocking(move || store.put(&image, &name))
    };
    let put = match from {
        Source::Docker(engine) => {
            let root = data_root_of(engine, data_root).await?;
            lay(overlay2::image(files, &root, wanted)?).await?
        }
        Source::Containerd(containerd) => {
            // It keeps the snapshots, and the views of them, until they are linked.
            let leased = containerd.api.lease().await?;
            let put = async { lay(unpacked(&leased, &store, name, wanted).await?).await };
            let put = put.await;
            let ended = leased.end_lease().await;
            let put = put?;
            ended?;
            put
        }
    };
    proven(to, name, wanted).await?;
    Ok(Carried {
        bytes: put.bytes,
        means: if put.was_there {
            Means::Named
        } else {
            Means::Linked
        },
    })
}

/// The image of this name and id in containerd's store, with its directories under the lease. What is not read of layers
/// that `to` has is not needed.
async fn unpacked(
    from: &Containerd,
    to: &ContainersStorage,
    name: &str,
    wanted: &str,
) -> Result<Image, RuntimeError> {
    let Documents {
        manifests,
        layers: blobs,
        config,
    } = documents(from, name, wanted).await?;
    let named = layers(&config, wanted)?;
    let top = named.last().map(|(_, chain_id)| chain_id);
    let top = top.ok_or_else(|| missing("any layer"))?;
    let directories = from.snapshot_directories(top).await?;
    if directories.len() != named.len() || blobs.len() != named.len() {
        return Err(RuntimeError::new(format!(
            "containerd has {} directories for the {} layers of {wanted}, of which its manifest names {}",
            directories.len(),
            named.len(),
            blobs.len()
        )));
    }
    let known = to.has(named.iter().map(|(diff_id, _)| diff_id))?;
    let mut unpacked = Vec::new();
    let parts = named.into_iter().zip(directories).zip(blobs);
    for (at, (((diff_id, chain_id), directory), blob)) in parts.enumerate() {
        let (tar_split, by) = if at < known {
            (TarSplit::Missing, None)
        } else {
            describe(from, &blob.digest).await?
        };
        let made = match &tar_split {
            TarSplit::Made(data) => tar_split::length(&**data).map_err(RuntimeError::of)?,
            _ => blob.size,
        };
        let digest = Digest::from_hex(hex(&blob.digest));
        let compressed = digest.map(|digest| Compressed {
            digest,
            size: Some(blob.size),
            by: by.unwrap_or(Compression::None),
        });
        unpacked.push(Layer {
            diff_id,
            chain_id,
            size: made,
            directory,
            tar_split,
            compressed: compressed.filter(|_| by.is_some()),
        });
    }
    Ok(Image {
        config,
        manifests,
        layers: unpacked,
    })
}

/// The data of `tar-split` of a layer, made of its archive, and how that is compressed; nothing where containerd has
/// discarded the archive or never had one.
async fn describe(from: &Containerd, digest: &str) -> Result<(TarSplit, Option<Compression>), RuntimeError> {
    let Some(mut blob) = from.blob(digest).await? else {
        return Ok((TarSplit::Missing, None));
    };
    let Some(first) = blob.next().await? else {
        return Ok((TarSplit::Missing, None));
    };
    let by = Compression::of(&first);
    if by == Compression::Zstd {
        return Ok((TarSplit::Missing, Some(by)));
    }
    let (to, parts) = channel(AHEAD);
    let received = Received { parts, at: first };
    let describing = blocking(move || {
        let described = match by {
            Compression::Gzip => tar_split::describe(flate2::read::MultiGzDecoder::new(received)),
            _ => tar_split::describe(received),
        };
        described.map_err(RuntimeError::of)
    });
    let pouring = async {
        while let Some(part) = blob.next().await? {
            let sent = timeout(STALLED, to.send(part)).await;
            // Whoever reads has seen enough.
            if !matches!(sent, Ok(Ok(()))) {
                break;
            }
        }
        drop(to);
        Ok(())
    };
    let (described, poured): (_, Result<(), RuntimeError>) = futures::join!(describing, pouring);
    poured?;
    Ok(match described {
        Ok(Some((data, _))) => (TarSplit::Made(data), Some(by)),
        Ok(None) => (TarSplit::Missing, Some(by)),
        Err(error) => {
            tracing::warn!(digest, %error, "an archive of a layer cannot be described");
            (TarSplit::Missing, Some(by))
        }
    })
}

/// A blob for who reads it in another thread.
struct Received {
    parts: Receiver<Bytes>,
    at: Bytes,
}

impl io::Read for Received {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.at = part,
                None => return Ok(0),
            }
        }
        let count = self.at.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.at.split_to(count));
        Ok(count)
    }
}

/// The image that CRI-O has under a name, as it lies in its store, and its id as the other stores call it.
async fn kept(files: &Files, from: &Cri, name: &str) -> Result<(Image, String), RuntimeError> {
    let found = image(from, name).await?;
    let id = found
        .ok_or_else(|| RuntimeError::new("CRI-O does not list it"))?
        .id;
    let store = store(files, from).await?;
    let wanted = full_id(&id);
    Ok((blocking(move || store.image(&id)).await?, wanted))
}

/// The archive of an image, or the error why there is none, at the place of its first bytes.
fn archive(files: &Files, image: Image, name: &str) -> Result<Pieces, RuntimeError> {
    docker_archive::check(&image)?;
    Ok(docker_archive::archive(files, image, name))
}

/// Carries the image of this name (a full reference) from CRI-O into containerd.
///
/// # Errors
/// When containerd's CRI does not list it afterwards under this name and with CRI-O's image id; the cause that was given.
pub async fn into_containerd(
    files: &Files,
    from: &Cri,
    to: &transfer::Store,
    layers: &Layers,
    name: &str,
) -> Result<Carried, RuntimeError> {
    let say = |error| {
        RuntimeError::because(
            format_args!("image {name} was not carried into containerd"),
            error,
        )
    };
    let (image, wanted) = kept(files, from, name).await.map_err(say)?;
    if to.cri.image(name).await?.is_some_and(|there| there.id == wanted) {
        return Ok(NAMED);
    }
    let linking = async {
        match layers {
            Layers::Linked { .. } => link(files, &image, &to.api, name).await.map(Some),
            Layers::Streamed { .. } => Ok(None),
        }
    };
    let poured = futures::stream::once(async { archive(files, image.clone(), name) })
        .map_ok(|archive| archive.map_err(|error| RuntimeError::because(format_args!("image {name}"), error)))
        .try_flatten();
    take(to, name, &wanted, Box::pin(linking), Box::pin(poured)).await
}

/// Carries the image of this name (a full reference with a tag) from CRI-O into Docker Engine.
///
/// # Errors
/// When the engine does not have it afterwards under this name and with CRI-O's image id; the cause that was given.
pub async fn into_docker(
    files: &Files,
    from: &Cri,
    to: &Engine,
    name: &str,
) -> Result<Carried, RuntimeError> {
    let say = |error| RuntimeError::because(format_args!("image {name} was not carried into Docker"), error);
    let (image, wanted) = kept(files, from, name).await.map_err(say)?;
    let layers: Vec<String> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    // On containerd's image store the engine calls an image by the manifest that it makes of the archive.
    let has = |there: &ImageInspect| {
        let of_same_layers = || there.root_fs.as_ref().and_then(|tree| tree.layers.as_ref()) == Some(&layers);
        there.id.as_ref() == Some(&wanted) || (there.descriptor.is_some() && of_same_layers())
    };
    if to.image(name).await?.is_some_and(|there| has(&there)) {
        return Ok(NAMED);
    }
    let bytes = image.layers.iter().map(|layer| layer.size).sum();
    if to.image(&wanted).await?.is_none() {
        let archive = archive(files, image, name).map_err(say)?;
        to.load(archive, UNPACK).await.map_err(say)?;
    }
    let mut now = to.image(name).await?;
    let known = to.image(&wanted).await?.is_some();
    if !now.as_ref().is_some_and(has) && known && !name.contains('@') {
        to.tag(&wanted, name).await?;
        now = to.image(name).await?;
    }
    if !now.as_ref().is_some_and(has) {
        let id = now.and_then(|image| image.id);
        return Err(say(RuntimeError::new(format!(
            "Docker has {} under this name afterwards, and it should be {wanted}",
            id.as_deref().unwrap_or("no image")
        ))));
    }
    Ok(Carried {
        bytes,
        means: Means::Streamed { instead: None },
    })
}

/// Gives names in CRI-O's store back to the images of these ids, those without an id to none; an image that has no name
/// then goes. Removes what a carry that was interrupted left. An image that somebody has removed meanwhile cannot have its
/// name back, which is logged.
///
/// # Errors
/// When a name is not as it was.
pub async fn restore(
    files: &Files,
    cri: &Cri,
    before: &BTreeMap<String, Option<String>>,
) -> Result<(), RuntimeError> {
    let place = cri.image_store().await?;
    let list = ImageList::at(files, &place)?;
    for (name, id) in in_order(before) {
        let known = image(cri, name).await?;
        match id {
            // One that is found by its digest, under another name, would lose that.
            None if known.is_none() || !list.has_name(name)? => continue,
            None => cri.remove_image(name).await?,
            Some(id) if known.as_ref().is_some_and(|known| full_id(&known.id) == *id) => continue,
            Some(id) => {
                let (list, id, name) = (list.clone(), id.clone(), name.clone());
                let (image, of) = (name.clone(), id.clone());
                if !blocking(move || list.name(&id, &name, None)).await? {
                    tracing::warn!(image, id = of, "the image that had this name before is gone");
                    continue;
                }
            }
        }
        let now = image(cri, name).await?.map(|image| full_id(&image.id));
        let restored = match id {
            None => !list.has_name(name)?,
            Some(_) => now == *id,
        };
        if !restored {
            return Err(RuntimeError::new(match id {
                None => format!("image {name} is still in CRI-O's store"),
                Some(id) => format!("image {name} is {now:?} in CRI-O's store, and was {id}"),
            }));
        }
        let Some(known) = known else { continue };
        let left = cri.image(&known.id).await?;
        let names = |image: &cri::Image| {
            reference::named(&[&image.repo_tags[..], &image.repo_digests].concat()).count()
        };
        if left.is_some_and(|left| names(&left) == 0) {
            cri.remove_image(&known.id).await?;
        }
    }
    copied::forget(files, cri).await?;
    // Another store has nothing of ours.
    match ContainersStorage::at(files, &place) {
        Ok(store) => blocking(move || store.clear()).await,
        Err(_) => Ok(()),
    }
}
