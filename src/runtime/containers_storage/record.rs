//! What is recorded of an image in CRI-O's store.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;

use super::{ContainersStorage, IMAGES, cannot};
use crate::{
    edit::{
        containers_storage::{Item, NewImage, file_of},
        parse,
    },
    host::files::Files,
    plan::digest::Digest,
    runtime::{
        RuntimeError, tar_split,
        unpacked::{Compression, Image, Layer, TarSplit, hex},
    },
};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// The part of an image's configuration that says when it was made.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    created: Option<String>,
}

/// When an image was made, in the form that CRI-O can read: it does not start with another one in its list.
fn created(config: &[u8]) -> String {
    let named = parse::json::<Config>(config)
        .ok()
        .and_then(|config| config.created);
    let read = named.and_then(|named| named.parse::<Timestamp>().ok());
    let written = read.map(|created| created.to_string());
    // RFC 3339 has years of four digits.
    written
        .filter(|text| text.as_bytes().first().is_some_and(u8::is_ascii_digit))
        .unwrap_or_else(|| Timestamp::now().to_string())
}

/// Lengths of the archives of an image's layers.
fn lengths(files: &Files, image: &Image) -> Result<Vec<u64>, RuntimeError> {
    let length = |layer: &Layer| {
        let data = match &layer.tar_split {
            TarSplit::Kept(path) => files.read(path).map_err(cannot)?,
            TarSplit::Made(data) => Some(data.clone()),
            TarSplit::Missing => None,
        };
        match data {
            Some(data) => tar_split::length(&*data).map_err(|error| {
                RuntimeError::because(format!("the data of layer {}", layer.diff_id), error)
            }),
            None => Ok(layer.size),
        }
    };
    image.layers.iter().map(length).collect()
}

/// A layer as a manifest names it: its digest, its length in bytes, and how it is compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::runtime) struct NamedLayer {
    pub(in crate::runtime) digest: String,
    pub(in crate::runtime) size: u64,
    pub(in crate::runtime) by: Compression,
}

/// A manifest for an image whose store keeps none, with the layers as they are.
pub(in crate::runtime) fn manifest(config: &[u8], layers: &[NamedLayer]) -> Vec<u8> {
    let layers = layers.iter().map(|layer| {
        let kind = match layer.by {
            Compression::None => LAYER.to_owned(),
            Compression::Gzip => format!("{LAYER}.gzip"),
            Compression::Zstd => format!("{LAYER}.zstd"),
        };
        json!({"mediaType": kind, "size": layer.size, "digest": layer.digest})
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": CONFIG,
            "size": config.len(),
            "digest": Digest::of(config),
        },
        "layers": layers.collect::<Vec<_>>(),
    });
    manifest.to_string().into_bytes()
}

/// The layers of an image whose store keeps no manifest, uncompressed.
///
/// # Errors
/// When their lengths are not known.
pub(in crate::runtime) fn uncompressed(
    files: &Files,
    image: &Image,
) -> Result<Vec<NamedLayer>, RuntimeError> {
    let lengths = lengths(files, image)?;
    let layers = image.layers.iter().zip(lengths);
    Ok(layers
        .map(|(layer, size)| NamedLayer {
            digest: layer.diff_id.to_string(),
            size,
            by: Compression::None,
        })
        .collect())
}

impl ContainersStorage {
    /// The manifests to be kept of an image, that of this platform last; none if it is recorded and has some.
    pub(super) fn manifests(&self, image: &Image) -> Result<Vec<Vec<u8>>, RuntimeError> {
        let (images, _) = self.images()?;
        let there = images.image(hex(Digest::of(&image.config).as_str()));
        if there.is_some() || !image.manifests.is_empty() {
            return Ok(image.manifests.clone());
        }
        Ok(vec![manifest(&image.config, &uncompressed(&self.files, image)?)])
    }

    /// Records an image whose layers are recorded, under the locks. Returns whether it was there, and nothing if it was
    /// when its manifests were asked for, and is not now.
    pub(super) fn record_image(
        &self,
        config: &[u8],
        manifests: &[Vec<u8>],
        top: &str,
        name: &str,
    ) -> Result<Option<bool>, RuntimeError> {
        let (mut images, path) = self.images()?;
        let digest = Digest::of(config);
        let id = hex(digest.as_str()).to_owned();
        let there = images.image(&id);
        if there.is_none() && manifests.is_empty() {
            return Ok(None);
        }
        let mut items = vec![(digest.to_string(), config.to_vec())];
        for manifest in manifests {
            items.push((format!("manifest-{}", Digest::of(manifest)), manifest.clone()));
        }
        let main = manifests.last().cloned();
        items.extend(main.clone().map(|manifest| ("manifest".to_owned(), manifest)));
        let kept = there.as_ref().map_or(&[][..], |there| &there.items);
        items.retain(|(key, _)| !kept.contains(key));
        if !items.is_empty() {
            let directory = self.path(&format!("{IMAGES}/{id}"))?;
            self.files.make_private(&directory).map_err(cannot)?;
            for (key, bytes) in &items {
                let file = directory.join(&file_of(key)).map_err(RuntimeError::of)?;
                self.files.write(&file, bytes, 0o600).map_err(cannot)?;
            }
        }
        let item = |(key, bytes): &(String, Vec<u8>)| Item {
            key: key.clone(),
            size: bytes.len() as u64,
            digest: Digest::of(bytes).to_string(),
        };
        images.put(&NewImage {
            digest: main
                .map(|manifest| Digest::of(manifest).to_string())
                .unwrap_or_default(),
            name: name.to_owned(),
            layer: top.to_owned(),
            created: created(config),
            items: items.iter().map(item).collect(),
            id,
        });
        self.write(&path, images.text())?;
        Ok(Some(there.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_taken_only_in_a_form_that_cri_o_can_read() {
        for (config, wanted) in [
            (
                r#"{"created":"2024-02-29T01:02:03.123456789+02:00"}"#,
                "2024-02-28T23:02:03.123456789Z",
            ),
            (r#"{"created":"0001-01-01T00:00:00Z"}"#, "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(created(config.as_bytes()), wanted);
        }
        let now = Timestamp::now().to_string();
        for config in [
            r#"{"created":null}"#,
            "{}",
            r#"{"created":"-000009-01-01T00:00:00Z"}"#,
            r#"{"created":"yesterday"}"#,
            r#"{"created":7}"#,
        ] {
            assert!(created(config.as_bytes()) >= now, "{config}");
        }
    }
}
