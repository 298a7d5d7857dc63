//! Carries an image into CRI-O's store where its layers cannot be links: CRI-O pulls it, as it pulls from any registry, from one
//! that has this image alone ([`registry`]), and it is given its names afterwards. So it may be any store with any storage driver,
//! and CRI-O checks the digest of all that comes.

use std::{collections::BTreeMap, io, pin::pin, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::timeout;

use super::{
    documents::documents,
    ends::{Source, blocking, full_id, image, proven},
    saved::saved,
};
use crate::{
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath},
    runtime::{
        Carried, Means, RuntimeError,
        containerd::Containerd,
        containers_storage::{
            ImageList,
            record::{manifest, uncompressed},
        },
        cri::Cri,
        docker::Engine,
        docker_archive::{self, Pieces, layer_archive, read_out},
        overlay2,
        registry::{self, Blob, Offer, Registry},
        transfer::{NAMED, STALLED, UNPACK},
        unpacked::Compression,
    },
};

/// Docker's storage driver whose layers can be read where they are.
const OVERLAY2: &str = "overlay2";
/// How Docker says that it keeps images in containerd (`DriverStatus`; moby's `daemon/containerd/service.go`).
const SNAPSHOTTERS: &str = "io.containerd.snapshotter.v1";
/// The longest that a pull may take, however well it gets on.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How many times as long a layer is unpacked, about.
const TIMES_COMPRESSED: u64 = 3;
/// Bytes that stay free.
const RESERVE: u64 = 256 << 20;

/// What is offered to CRI-O.
struct Offered {
    offer: Offer,
    /// The digest of the configuration, by which CRI-O will call the image.
    id: String,
    sizes: Sizes,
}

/// What an image takes of the disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sizes {
    /// Until it is unpacked.
    pulled: u64,
    /// In the store.
    unpacked: u64,
}

impl Sizes {
    fn add(&mut self, length: u64, by: Compression) {
        let times = if by == Compression::None {
            1
        } else {
            TIMES_COMPRESSED
        };
        self.pulled = self.pulled.saturating_add(length);
        self.unpacked = self.unpacked.saturating_add(length.saturating_mul(times));
    }
}

/// Lets CRI-O pull the image of this name, which has the id `wanted` where it comes from. `instead` is why its layers are not
/// links, if they should have been.
pub(super) async fn copied(
    files: &Files,
    from: Source<'_>,
    to: &Cri,
    name: &str,
    wanted: &str,
    instead: Option<String>,
    pulled: &HostPath,
) -> Result<Carried, RuntimeError> {
    let list = ImageList::at(files, &to.image_store().await?)?;
    if is_there(&list, from, name, wanted).await? && list.name(wanted, name, None)? {
        proven(to, name, wanted).await?;
        return Ok(NAMED);
    }
    forget(files, to).await?;
    let offered = match from {
        Source::Docker(engine) => of_docker(files, engine, &list, name, wanted, pulled).await?,
        Source::Containerd(containerd) => of_containerd(&containerd.api, name, wanted).await?,
    };
    if image(to, name)
        .await?
        .is_some_and(|image| full_id(&image.id) == offered.id)
    {
        return Ok(NAMED);
    }
    room(files, list.directory(), pulled, offered.sizes)?;
    let registry = Registry::open(files, offered.offer).await?;
    let pulled = async {
        pull(to, &registry).await?;
        let there = to.image(registry.name()).await?.map(|image| full_id(&image.id));
        if there.as_ref() != Some(&offered.id) {
            return Err(RuntimeError::new(format!(
                "CRI-O pulled {} from the registry at loopback, and it should be {}",
                there.as_deref().unwrap_or("no image"),
                offered.id
            )));
        }
        if !list.name(&offered.id, name, Some(registry.name()))? {
            return Err(RuntimeError::new(
                "CRI-O's list of images does not have what it pulled",
            ));
        }
        proven(to, name, &offered.id).await
    };
    let pulled = pulled.await;
    let bytes = registry.sent();
    let closed = registry.close();
    if pulled.is_err() {
        forget(files, to).await?;
    }
    pulled?;
    closed?;
    Ok(Carried {
        bytes,
        means: Means::Streamed { instead },
    })
}

/// Whether CRI-O has all that this name needs.
async fn is_there(
    list: &ImageList,
    from: Source<'_>,
    name: &str,
    wanted: &str,
) -> Result<bool, RuntimeError> {
    let Some(found) = list.image(wanted)? else {
        return Ok(false);
    };
    let manifest = match from {
        // It keeps no manifests.
        Source::Docker(_) => return Ok(true),
        Source::Containerd(containerd) => containerd.api.target(name).await?,
    };
    Ok(manifest.is_some_and(|manifest| found.items.contains(&format!("manifest-{}", manifest.digest))))
}

/// Takes away what those left who died while CRI-O pulled from them.
pub(super) async fn forget(files: &Files, cri: &Cri) -> Result<(), RuntimeError> {
    registry::clear(files)?;
    for image in cri.images().await? {
        for name in image.repo_tags.iter().filter(|name| registry::is_name(name)) {
            cri.remove_image(name).await?;
        }
    }
    Ok(())
}

/// Lets CRI-O pull, as long as it gets on.
async fn pull(to: &Cri, registry: &Registry) -> Result<(), RuntimeError> {
    let mut pulling = pin!(to.pull_image(registry.name(), LONGEST));
    let mut sent = registry.sent();
    loop {
        match timeout(UNPACK, &mut pulling).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => {
                let said = registry.public(error.sentence());
                let trouble = registry.trouble().map(|trouble| format!("; {trouble}"));
                // Its cause would tell the name.
                return Err(RuntimeError::new(format!(
                    "{said}{}",
                    trouble.unwrap_or_default()
                )));
            }
            Err(_) if registry.sent() > sent => sent = registry.sent(),
            Err(_) => {
                return Err(RuntimeError::new(format!(
                    "CRI-O took nothing from the registry at loopback for {} s",
                    UNPACK.as_secs()
                )));
            }
        }
    }
}

/// Makes sure that an image has room.
fn room(files: &Files, store: &HostPath, pulled: &HostPath, sizes: Sizes) -> Result<(), RuntimeError> {
    let shared = files
        .on_one_file_system(pulled, store)
        .map_err(RuntimeError::of)?;
    let needs = if shared {
        vec![(store, sizes.unpacked.saturating_add(sizes.pulled))]
    } else {
        vec![(store, sizes.unpacked), (pulled, sizes.pulled)]
    };
    for (at, needed) in needs {
        let free = files.free_bytes(at).map_err(RuntimeError::of)?;
        if free < needed.saturating_add(RESERVE) {
            return Err(RuntimeError::new(format!(
                "it takes up to {} MiB below {at}, which has {} MiB free, of which {} MiB have to stay",
                needed >> 20,
                free >> 20,
                RESERVE >> 20
            )));
        }
    }
    Ok(())
}

/// A blob whose bytes are in memory.
fn held(bytes: Vec<u8>) -> Blob {
    let bytes = Bytes::from(bytes);
    Blob {
        length: bytes.len() as u64,
        open: Box::new(move || {
            let bytes = bytes.clone();
            stream::once(async move { Ok(bytes) }).boxed()
        }),
    }
}

/// An image of Docker's: of the layers where they are, or else of the archive that Docker makes.
async fn of_docker(
    files: &Files,
    engine: &Engine,
    list: &ImageList,
    name: &str,
    wanted: &str,
    pulled: &HostPath,
) -> Result<Offered, RuntimeError> {
    let info = engine.info().await?;
    if info.driver.as_deref() == Some(OVERLAY2) {
        let root = HostPath::new(info.docker_root_dir.unwrap_or_default()).map_err(RuntimeError::of);
        let (own, id) = (files.clone(), wanted.to_owned());
        let found = blocking(move || of_layers(&own, &root?, &id)).await;
        match found {
            Ok(offered) => return Ok(offered),
            Err(error) => tracing::warn!(image = name, %error, "Docker is asked for the archive of an image"),
        }
    }
    // On containerd's image store Docker calls an image by its manifest.
    let status = info.driver_status.unwrap_or_default();
    let by_manifest = status.iter().flatten().any(|said| said == SNAPSHOTTERS);
    let wanted = Some(wanted).filter(|_| !by_manifest);
    of_archive(files, engine, list, name, wanted, pulled).await
}

/// An image of Docker's `overlay2`.
fn of_layers(files: &Files, root: &HostPath, id: &str) -> Result<Offered, RuntimeError> {
    let image = overlay2::image(files, root, id)?;
    docker_archive::check(&image)?;
    let (mut sizes, mut blobs) = (Sizes::default(), BTreeMap::new());
    let named = uncompressed(files, &image)?;
    for (layer, named) in image.layers.iter().zip(&named) {
        sizes.add(named.size, named.by);
        let (files, layer) = (files.clone(), layer.clone());
        let blob = Blob {
            length: named.size,
            open: Box::new(move || layer_archive(&files, layer.clone())),
        };
        blobs.insert(named.digest.clone(), blob);
    }
    let manifests = vec![manifest(&image.config, &named)];
    blobs.insert(id.to_owned(), held(image.config));
    Ok(Offered {
        offer: Offer { manifests, blobs },
        id: id.to_owned(),
        sizes,
    })
}

/// An image as Docker saves it, with this digest of its configuration if it is known.
async fn of_archive(
    files: &Files,
    engine: &Engine,
    list: &ImageList,
    name: &str,
    wanted: Option<&str>,
    pulled: &HostPath,
) -> Result<Offered, RuntimeError> {
    let found = engine.image(name).await?;
    let size = found
        .and_then(|image| image.size)
        .and_then(|size| u64::try_from(size).ok());
    let size = size.unwrap_or_default();
    // The archive, and the image.
    let sizes = Sizes {
        pulled: size,
        unpacked: size.saturating_mul(2),
    };
    room(files, list.directory(), pulled, sizes)?;
    let spool = files.spool(list.directory()).map_err(RuntimeError::of)?;
    let mut archive = pin!(engine.export(name));
    let stalled = || RuntimeError::new(format!("Docker stood still for {} s", STALLED.as_secs()));
    while let Some(piece) = timeout(STALLED, archive.next()).await.map_err(|_| stalled())? {
        let (piece, spool) = (piece?.as_ref().to_vec(), spool.clone());
        blocking(move || spool.write(&piece).map_err(RuntimeError::of)).await?;
    }
    let reading = spool.clone();
    let saved = blocking(move || saved(&reading)).await?;
    let id = Digest::of(&saved.config).to_string();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != id) {
        return Err(RuntimeError::new(format!(
            "Docker saved {id}, and it should be {wanted}"
        )));
    }
    let (mut sizes, mut blobs) = (Sizes::default(), BTreeMap::new());
    let mut named = Vec::new();
    for (layer, place) in saved.layers {
        sizes.add(layer.size, layer.by);
        let spool = spool.clone();
        let blob = Blob {
            length: place.length,
            open: Box::new(move || read_out(spool.part(place.at, place.length))),
        };
        blobs.insert(layer.digest.clone(), blob);
        named.push(layer);
    }
    let manifests = vec![manifest(&saved.config, &named)];
    blobs.insert(id.clone(), held(saved.config));
    Ok(Offered {
        offer: Offer { manifests, blobs },
        id,
        sizes,
    })
}

/// An image of containerd's, as it was pulled.
async fn of_containerd(from: &Containerd, name: &str, wanted: &str) -> Result<Offered, RuntimeError> {
    let documents = documents(from, name, wanted).await?;
    let (mut sizes, mut blobs) = (Sizes::default(), BTreeMap::new());
    for layer in &documents.layers {
        let mut first = None;
        if let Some(mut blob) = from.blob(&layer.digest).await? {
            first = blob.next().await?;
        }
        let first = first.ok_or_else(|| {
            RuntimeError::new(format!(
                "containerd has no archive of layer {}: it was discarded or linked; pull the image into containerd",
                layer.digest
            ))
        })?;
        sizes.add(layer.size, Compression::of(&first));
        let (from, digest) = (from.clone(), layer.digest.clone());
        let blob = Blob {
            length: layer.size,
            open: Box::new(move || kept(from.clone(), digest.clone())),
        };
        blobs.insert(layer.digest.clone(), blob);
    }
    blobs.insert(wanted.to_owned(), held(documents.config));
    Ok(Offered {
        offer: Offer {
            manifests: documents.manifests,
            blobs,
        },
        id: wanted.to_owned(),
        sizes,
    })
}

/// A blob of containerd's.
fn kept(from: Containerd, digest: String) -> Pieces {
    let begun = async move {
        let blob = from.blob(&digest).await?;
        let blob = blob.ok_or_else(|| RuntimeError::new(format!("containerd has lost {digest}")))?;
        Ok(stream::try_unfold(blob, |mut blob| async {
            Ok(blob.next().await?.map(|piece| (piece, blob)))
        }))
    };
    stream::once(begun)
        .try_flatten()
        .map_err(|error: RuntimeError| io::Error::other(error.to_string()))
        .boxed()
}
