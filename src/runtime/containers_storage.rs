//! The store of CRI-O (containers/storage, with its `overlay` driver), as it lies below its graph root. An image comes
//! into it without a copy of its layers: a layer is made of further links to the files of one that another store has.
//! CRI-O's names, sizes, garbage collection and checks treat what was brought so as its own.
//!
//! Its locks are taken as CRI-O takes them, so it may run meanwhile. Everything large is made before, next to its
//! layers, and renamed under the locks, because CRI-O answers no question while somebody else has them. The order is: the
//! trees, durable; their names; the list of layers; configuration and manifests; the list of images. Whoever dies in
//! between leaves at most directories that no list has: CRI-O removes those when it starts, and the next try here.
//!
//! See containers/storage, `layers.go`, `images.go` and `drivers/overlay/overlay.go`.

mod names;
pub(super) mod record;

use std::{io, ops::Range, time::Duration};

use jiff::Timestamp;
pub(super) use names::ImageList;

use super::{
    RuntimeError, tar_split,
    unpacked::{Compression, Image, Layer, TarSplit, hex, layers},
};
use crate::{
    edit::{
        containers_storage::{FoundImage, Images, Layers, NewLayer, file_of},
        parse::ParseError,
    },
    host::files::{Files, OneMount, RecordLock},
    plan::{digest::Digest, host_path::HostPath},
};

/// How long a lock is waited for. A pull holds that of the layers while it unpacks one.
const LOCKED: Duration = Duration::from_secs(300);
/// How often a try begins again because CRI-O changed its layers meanwhile.
const TRIES: u32 = 3;
/// Where trees are made, in the graph root: on its file system, and no part of any list.
const STAGE: &str = ".transship-layers";
/// The layers themselves.
const OVERLAY: &str = "overlay";
/// The directory of their records, and that of the images'.
const LAYERS: &str = "overlay-layers";
const IMAGES: &str = "overlay-images";

/// The store of a CRI-O.
#[derive(Clone, Debug)]
pub(super) struct ContainersStorage {
    files: Files,
    root: HostPath,
}

/// What it took to bring an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    /// Bytes of the layers that were not there.
    pub(super) bytes: u64,
    /// Whether the image was there, under another name or none.
    pub(super) was_there: bool,
}

/// Both locks. That of the images goes first.
#[derive(Debug)]
struct Locks {
    images: RecordLock,
    layers: RecordLock,
}

fn cannot(error: impl Into<io::Error>) -> RuntimeError {
    let error = error.into();
    RuntimeError::caused(format!("cannot {error}"), error)
}

/// The ids of layers, the lowest first: CRI-O shares a layer with what it pulls later by this id. The lowest one has the
/// digest of its archive, all others have one of the id below and that.
fn layer_ids<'a>(diff_ids: impl Iterator<Item = &'a Digest>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for diff_id in diff_ids {
        let diff = hex(diff_id.as_str());
        let id = match ids.last() {
            None => diff.to_owned(),
            Some(below) => hex(Digest::of(format!("{below}+{diff}")).as_str()).to_owned(),
        };
        ids.push(id);
    }
    ids
}

impl ContainersStorage {
    /// The store whose images CRI-O says are at `images` (`<graph root>/overlay-images`).
    ///
    /// # Errors
    /// When its storage driver is not `overlay`, or it is not a store.
    pub(super) fn at(files: &Files, images: &str) -> Result<Self, RuntimeError> {
        let driver = images.rsplit('/').next().unwrap_or_default();
        let root = images.strip_suffix(&format!("/{IMAGES}")).ok_or_else(|| {
            RuntimeError::new(format!(
                "CRI-O keeps its images in {images}: its storage driver is {}, and only layers of overlay can be shared",
                driver.trim_end_matches("-images")
            ))
        })?;
        let store = Self {
            files: files.clone(),
            root: HostPath::new(root).map_err(RuntimeError::of)?,
        };
        for directory in [OVERLAY, LAYERS] {
            let path = store.path(directory)?;
            if !files.exists(&path).map_err(cannot)? {
                return Err(RuntimeError::new(format!("CRI-O's store has no {path}")));
            }
        }
        Ok(store)
    }

    fn path(&self, below: &str) -> Result<HostPath, RuntimeError> {
        self.root.join(below).map_err(RuntimeError::of)
    }

    /// Makes sure that its layers are plain trees, as far as the store shows it.
    fn check_form(&self) -> Result<(), RuntimeError> {
        let mark = self.path(&format!("{OVERLAY}/.has-mount-program"))?;
        let program = self.files.read(&mark).map_err(cannot)?.unwrap_or_default();
        if program.trim_ascii() == b"true" {
            return Err(RuntimeError::new(format!(
                "CRI-O mounts its layers by a program (mount_program; {mark}), so they have another form"
            )));
        }
        let overlay = self.path(OVERLAY)?;
        for layer in self.files.list(&overlay).map_err(cannot)? {
            let composed = self.path(&format!("{OVERLAY}/{layer}/composefs-data"))?;
            if self.files.exists(&composed).map_err(cannot)? {
                return Err(RuntimeError::new(format!(
                    "CRI-O composes its layers (use_composefs; {composed}), so they have another form"
                )));
            }
        }
        Ok(())
    }

    fn list<T>(
        &self,
        of: &str,
        read: impl FnOnce(Option<&[u8]>) -> Result<T, ParseError>,
    ) -> Result<(T, HostPath), RuntimeError> {
        let path = self.path(of)?;
        let text = self.files.read(&path).map_err(cannot)?;
        match read(text.as_deref()) {
            Ok(list) => Ok((list, path)),
            Err(error) => Err(RuntimeError::because(&path, error)),
        }
    }

    fn layers(&self) -> Result<(Layers, HostPath), RuntimeError> {
        self.list(&format!("{LAYERS}/layers.json"), Layers::read)
    }

    fn images(&self) -> Result<(Images, HostPath), RuntimeError> {
        self.list(&format!("{IMAGES}/images.json"), Images::read)
    }

    /// Writes a list; CRI-O answers nothing if it cannot read it, so it was read again before.
    fn write(&self, path: &HostPath, text: Option<Vec<u8>>) -> Result<(), RuntimeError> {
        let text = text.ok_or_else(|| {
            RuntimeError::new(format!(
                "{path} has something in it that would be lost in writing"
            ))
        })?;
        self.files.write(path, &text, 0o600).map_err(cannot)
    }

    /// Takes the locks, in the order in which CRI-O takes them.
    fn lock(&self) -> Result<Locks, RuntimeError> {
        let lock = |name: &str| {
            let path = self.path(name)?;
            let taken = self.files.lock_records(&path, LOCKED).map_err(cannot)?;
            taken.ok_or_else(|| {
                RuntimeError::new(format!(
                    "CRI-O holds the lock {path} for {} s: does it pull an image? Try again when it has",
                    LOCKED.as_secs()
                ))
            })
        };
        let layers = lock(&format!("{LAYERS}/layers.lock"))?;
        let directory = self.path(IMAGES)?;
        self.files.make_private(&directory).map_err(cannot)?;
        let images = lock(&format!("{IMAGES}/images.lock"))?;
        Ok(Locks { images, layers })
    }

    /// Removes what somebody who died made and gave no name.
    ///
    /// # Errors
    /// When some of it is still there.
    pub(super) fn clear(&self) -> Result<(), RuntimeError> {
        self.files.remove_tree(&self.path(STAGE)?).map_err(cannot)
    }

    /// Brings an image under a name (a full reference), which is taken from any other image.
    ///
    /// # Errors
    /// When its layers cannot be shared, or a list cannot be read; what the lists say is then as it was.
    pub(super) fn put(&self, image: &Image, name: &str) -> Result<Put, RuntimeError> {
        self.check_form()?;
        for _ in 0..TRIES {
            self.clear()?;
            let put = self.try_put(image, name)?;
            self.clear()?;
            if let Some(put) = put {
                return Ok(put);
            }
        }
        Err(RuntimeError::new(format!(
            "CRI-O changed the layers of {name} {TRIES} times while they were linked"
        )))
    }

    /// `None` if CRI-O changed the layers meanwhile.
    fn try_put(&self, image: &Image, name: &str) -> Result<Option<Put>, RuntimeError> {
        let ids = layer_ids(image.layers.iter().map(|layer| &layer.diff_id));
        let missing = self.missing(&ids)?;
        let manifests = self.manifests(image)?;
        let (mut staged, mut one) = (Vec::new(), None);
        if !missing.is_empty() {
            let mount = self.mount(&image.layers[missing.clone()])?;
            // What is below a layer that is made here, and what that has in its file.
            let mut below = match missing.start.checked_sub(1) {
                Some(at) => Some(self.stack(&ids[at])?),
                None => None,
            };
            for at in missing.clone() {
                let layer = self.stage(&mount, &image.layers[at], &ids[at], below.as_deref())?;
                below = Some(stacked(&layer.link, below.as_deref()));
                staged.push(layer);
            }
            let stage = mount.path(&self.path(STAGE)?).map_err(cannot)?;
            let synced = mount.files().sync_file_system(&stage);
            synced.map_err(|error| cannot(mount.said(&error)))?;
            one = Some(mount);
        }

        let locks = self.lock()?;
        if self.missing(&ids)? != missing {
            return Ok(None);
        }
        if let Some(mount) = &one {
            let (mut layers, path) = self.layers()?;
            for (layer, at) in staged.iter().zip(missing.clone()) {
                self.publish(mount, layer)?;
                let parent = at.checked_sub(1).map(|below| ids[below].clone());
                layers.add(&layer.record(&image.layers[at], parent));
            }
            self.write(&path, layers.text())?;
        }
        let top = ids.last().map_or("", |top| top);
        let recorded = self.record_image(&image.config, &manifests, top, name)?;
        locks.layers.stamp().map_err(cannot)?;
        locks.images.stamp().map_err(cannot)?;
        Ok(recorded.map(|was_there| Put {
            bytes: image.layers[missing].iter().map(|layer| layer.size).sum(),
            was_there,
        }))
    }

    /// How many of these layers, the lowest first, are in the store.
    ///
    /// # Errors
    /// When the list of layers cannot be read, or has layers without those below them.
    pub(super) fn has<'a>(&self, diff_ids: impl Iterator<Item = &'a Digest>) -> Result<usize, RuntimeError> {
        self.missing(&layer_ids(diff_ids)).map(|missing| missing.start)
    }

    /// Those of the layers with these ids that are not recorded: all above the highest one that is.
    fn missing(&self, ids: &[String]) -> Result<Range<usize>, RuntimeError> {
        let (known, path) = self.layers()?;
        let there = ids.iter().take_while(|id| known.has(id)).count();
        match ids[there..].iter().find(|id| known.has(id)) {
            Some(id) => Err(RuntimeError::new(format!(
                "{path} has layer {id} and not the layers below it"
            ))),
            None => Ok(there..ids.len()),
        }
    }

    /// The mount that has the layers of the store and these.
    fn mount(&self, layers: &[Layer]) -> Result<OneMount, RuntimeError> {
        let overlay = self.path(OVERLAY)?;
        let mut places = vec![&self.root, &overlay];
        places.extend(layers.iter().map(|layer| &layer.directory));
        self.files.one_mount(&places).map_err(cannot)
    }

    /// What a layer on top of the one with this id has in its `lower`.
    fn stack(&self, id: &str) -> Result<String, RuntimeError> {
        let read = |name: &str| {
            let path = self.path(&format!("{OVERLAY}/{id}/{name}"))?;
            let text = self.files.read_text(&path).map_err(cannot)?;
            Ok::<_, RuntimeError>((text, path))
        };
        let (link, path) = read("link")?;
        let link =
            link.ok_or_else(|| RuntimeError::new(format!("CRI-O has layer {id}, and there is no {path}")))?;
        let (lower, _) = read("lower")?;
        Ok(stacked(link.trim(), lower.as_deref().map(str::trim)))
    }

    /// Makes a layer where no list has it.
    fn stage(
        &self,
        mount: &OneMount,
        layer: &Layer,
        id: &str,
        lower: Option<&str>,
    ) -> Result<Staged, RuntimeError> {
        let (files, said) = (mount.files(), |error: io::Error| cannot(mount.said(&error)));
        let place = |below: &str| {
            let path = self.path(&format!("{STAGE}/{id}{below}"))?;
            mount.path(&path).map_err(cannot)
        };
        let tree = place("/tree")?;
        files.make_private(&tree).map_err(said)?;
        for directory in ["diff", "work", "merged"] {
            files
                .make_private(&place(&format!("/tree/{directory}"))?)
                .map_err(said)?;
        }
        let link = link_name(id);
        files
            .write(&place("/tree/link")?, link.as_bytes(), 0o644)
            .map_err(said)?;
        match lower {
            Some(lower) => files.write(&place("/tree/lower")?, lower.as_bytes(), 0o644),
            None => files.make_private(&place("/tree/empty")?),
        }
        .map_err(said)?;
        let from = mount.path(&layer.directory).map_err(cannot)?;
        files.share_layer(&from, &place("/tree/diff")?).map_err(said)?;
        let count = self.files.count_layer(&layer.directory).map_err(cannot)?;
        let data = match &layer.tar_split {
            TarSplit::Kept(path) => self.files.read(path).map_err(cannot)?,
            TarSplit::Made(data) => Some(data.clone()),
            TarSplit::Missing => None,
        };
        let diff_size = match &data {
            Some(data) => {
                files.write(&place("/tar-split")?, data, 0o600).map_err(said)?;
                let length = tar_split::length(&**data);
                length.map_err(|error| {
                    RuntimeError::because(format!("the data of layer {}", layer.diff_id), error)
                })?
            }
            // What its files have: the length of the archive is not known.
            None => count.bytes,
        };
        Ok(Staged {
            id: id.to_owned(),
            link,
            diff_size,
            has_data: data.is_some(),
            uids: count.uids.into_iter().collect(),
            gids: count.gids.into_iter().collect(),
        })
    }

    /// Gives a layer that was made its name among the others. What is there by that name has no record.
    fn publish(&self, mount: &OneMount, layer: &Staged) -> Result<(), RuntimeError> {
        let (files, said) = (mount.files(), |error: io::Error| cannot(mount.said(&error)));
        let place = |below: String| mount.path(&self.path(&below)?).map_err(cannot);
        let id = &layer.id;
        let (tree, to) = (
            place(format!("{STAGE}/{id}/tree"))?,
            place(format!("{OVERLAY}/{id}"))?,
        );
        files.remove_tree(&to).map_err(said)?;
        files.publish(&tree, &to).map_err(said)?;
        let link = mount.path(&self.path(&format!("{OVERLAY}/l"))?).map_err(cannot)?;
        let link = link.join(&layer.link).map_err(RuntimeError::of)?;
        files.put_link(&link, &format!("../{id}/diff")).map_err(said)?;
        let data = self.path(&format!("{LAYERS}/{id}.tar-split.gz"))?;
        self.files.remove(&data).map_err(cannot)?;
        if layer.has_data {
            let staged = self.path(&format!("{STAGE}/{id}/tar-split"))?;
            self.files.publish(&staged, &data).map_err(cannot)?;
        }
        Ok(())
    }

    /// The image of this id, with its layers.
    ///
    /// # Errors
    /// When the store does not hold all of it, naming what is missing.
    pub(super) fn image(&self, id: &str) -> Result<Image, RuntimeError> {
        self.check_form()?;
        let id = hex(id);
        let (images, path) = self.images()?;
        let found: FoundImage = images
            .image(id)
            .ok_or_else(|| RuntimeError::new(format!("{path} has no image {id}")))?;
        let path = self.path(&format!("{IMAGES}/{id}/{}", file_of(&format!("sha256:{id}"))))?;
        let config = self.files.read(&path).map_err(cannot)?;
        let config = config.ok_or_else(|| RuntimeError::new(format!("there is no {path}")))?;
        if hex(Digest::of(&config).as_str()) != id {
            return Err(RuntimeError::new(format!(
                "{path} is damaged: it has a different digest"
            )));
        }
        let (recorded, list) = self.layers()?;
        let chain = recorded.chain(&found.layer).ok_or_else(|| {
            RuntimeError::new(format!("{list} does not have all layers below {}", found.layer))
        })?;
        let named = layers(&config, &path)?;
        let same =
            |(recorded, (diff_id, _)): (&crate::edit::containers_storage::FoundLayer, &(Digest, Digest))| {
                recorded.diff_digest == diff_id.as_str()
            };
        if chain.len() != named.len() || !chain.iter().zip(&named).all(same) {
            return Err(RuntimeError::new(format!(
                "{list} has other layers of image {id} than its configuration names"
            )));
        }
        let mut unpacked = Vec::new();
        for (layer, (diff_id, chain_id)) in chain.into_iter().zip(named) {
            let data = self.path(&format!("{LAYERS}/{}.tar-split.gz", layer.id))?;
            let kept = self.files.exists(&data).map_err(cannot)?;
            unpacked.push(Layer {
                diff_id,
                chain_id,
                size: layer.diff_size,
                directory: self.path(&format!("{OVERLAY}/{}/diff", layer.id))?,
                tar_split: if kept {
                    TarSplit::Kept(data)
                } else {
                    TarSplit::Missing
                },
                compressed: None,
            });
        }
        Ok(Image {
            config,
            manifests: Vec::new(),
            layers: unpacked,
        })
    }
}

/// A layer that was made and has no name among the others yet.
#[derive(Debug)]
struct Staged {
    id: String,
    link: String,
    /// Bytes of its uncompressed archive.
    diff_size: u64,
    /// There are data of tar-split.
    has_data: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
}

impl Staged {
    fn record(&self, layer: &Layer, parent: Option<String>) -> NewLayer {
        let known = layer.compressed.as_ref();
        NewLayer {
            id: self.id.clone(),
            parent,
            created: Timestamp::now().to_string(),
            diff_digest: layer.diff_id.to_string(),
            diff_size: self.diff_size,
            compressed_digest: known.map_or(&layer.diff_id, |known| &known.digest).to_string(),
            compressed_size: known.map_or(Some(self.diff_size), |known| known.size),
            compression: known.map_or(0, |known| number(known.by)),
            uids: self.uids.clone(),
            gids: self.gids.clone(),
        }
    }
}

/// How containers/storage numbers compressions (`pkg/archive`).
const fn number(by: Compression) -> u8 {
    match by {
        Compression::None => 0,
        Compression::Gzip => 2,
        Compression::Zstd => 4,
    }
}

fn stacked(link: &str, lower: Option<&str>) -> String {
    match lower {
        Some(lower) => format!("l/{link}:{lower}"),
        None => format!("l/{link}"),
    }
}

/// The short name of a layer, by which mounts call it: 26 signs as CRI-O draws them, here always the same for one layer,
/// so that a second try takes the place of the first.
fn link_name(id: &str) -> String {
    const SIGNS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let digest = Digest::of(format!("transship {id}"));
    let digits = hex(digest.as_str()).as_bytes().chunks(2).take(26);
    digits
        .map(|pair| {
            let text = std::str::from_utf8(pair).unwrap_or_default();
            let byte = u8::from_str_radix(text, 16).unwrap_or_default();
            char::from(SIGNS[usize::from(byte % 32)])
        })
        .collect()
}

#[cfg(test)]
mod tests;
