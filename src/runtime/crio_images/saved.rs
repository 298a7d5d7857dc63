//! An image as `docker save` gives it, whatever Docker keeps it in: an archive of the archives of its layers. Their order in it
//! is not that of the image, so it is spooled.

use std::{collections::BTreeMap, io, io::Read as _};

use serde::Deserialize;

use crate::{
    edit::parse,
    host::files::Spool,
    plan::digest::Digest,
    runtime::{
        RuntimeError,
        containers_storage::record::NamedLayer,
        unpacked::{Compression, layers},
    },
};

/// Most members of an archive, and longest chain of links in it.
const MOST_MEMBERS: usize = 10_000;
const MOST_LINKS: usize = 8;
/// The longest configuration, and list of images, in bytes.
const LONGEST: u64 = 16 << 20;
/// The list of the images in it.
const LIST: &str = "manifest.json";

/// An image in the list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    config: String,
    #[serde(default)]
    layers: Vec<String>,
}

/// Where a member is, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) length: u64,
}

/// An image that was saved.
#[derive(Debug)]
pub(super) struct Saved {
    /// Its configuration.
    pub(super) config: Vec<u8>,
    /// Its layers, the lowest first, and where they are.
    pub(super) layers: Vec<(NamedLayer, Place)>,
}

#[derive(Default)]
struct Members {
    files: BTreeMap<String, Place>,
    links: BTreeMap<String, String>,
}

/// The name of a member, as other members call it: without `.`, and `..` gone up.
fn plain(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

impl Members {
    fn of(spool: &Spool) -> io::Result<Self> {
        let mut members = Self::default();
        let mut archive = tar::Archive::new(spool.whole()?);
        for entry in archive.entries_with_seek()? {
            let entry = entry?;
            if members.files.len() + members.links.len() > MOST_MEMBERS {
                return Err(io::Error::other("the archive has too many members"));
            }
            let name = plain(&String::from_utf8_lossy(&entry.path_bytes()));
            if entry.header().entry_type().is_file() {
                let place = Place {
                    at: entry.raw_file_position(),
                    length: entry.size(),
                };
                members.files.insert(name, place);
            } else if let Some(target) = entry.link_name_bytes() {
                let target = String::from_utf8_lossy(&target).into_owned();
                let above = name.rsplit_once('/').map_or("", |(above, _)| above);
                let target = if entry.header().entry_type().is_symlink() {
                    plain(&format!("{above}/{target}"))
                } else {
                    plain(&target)
                };
                members.links.insert(name, target);
            }
        }
        Ok(members)
    }

    /// The file of this name. Docker before 25 has a link for a layer that is in the archive already.
    fn file(&self, name: &str) -> Result<Place, RuntimeError> {
        let mut at = plain(name);
        for _ in 0..MOST_LINKS {
            if let Some(place) = self.files.get(&at) {
                return Ok(*place);
            }
            match self.links.get(&at) {
                Some(target) => at.clone_from(target),
                None => break,
            }
        }
        Err(RuntimeError::new(format!("Docker's archive has no {name}")))
    }
}

fn bytes(spool: &Spool, place: Place) -> Result<Vec<u8>, RuntimeError> {
    if place.length > LONGEST {
        return Err(RuntimeError::new("a document in Docker's archive is too long"));
    }
    let mut bytes = Vec::new();
    let read = spool.part(place.at, place.length).read_to_end(&mut bytes);
    read.map_err(|error| RuntimeError::because("Docker's archive", error))?;
    Ok(bytes)
}

/// The image in an archive that has one.
///
/// # Errors
/// When it is not an archive of one image, or not all of it is there.
pub(super) fn saved(spool: &Spool) -> Result<Saved, RuntimeError> {
    let members = Members::of(spool).map_err(|error| RuntimeError::because("Docker's archive", error))?;
    let list = bytes(spool, members.file(LIST)?)?;
    let list: Vec<Listed> = parse::json(list)
        .map_err(|error| RuntimeError::because(format!("{LIST} in Docker's archive"), error))?;
    let [image] = list.as_slice() else {
        return Err(RuntimeError::new(format!(
            "Docker's archive has {} images, and should have one",
            list.len()
        )));
    };
    let config = bytes(spool, members.file(&image.config)?)?;
    let named = layers(&config, &image.config)?;
    if named.len() != image.layers.len() {
        return Err(RuntimeError::new(format!(
            "Docker's archive has {} layers, and {} names {}",
            image.layers.len(),
            image.config,
            named.len()
        )));
    }
    let mut found = Vec::new();
    for ((diff_id, _), name) in named.iter().zip(&image.layers) {
        let place = members.file(name)?;
        let by = Compression::of(&bytes(
            spool,
            Place {
                length: place.length.min(4),
                ..place
            },
        )?);
        // Docker on containerd's image store gives a layer as it was pulled, under its digest.
        let digest = match by {
            Compression::None => Some(diff_id.clone()),
            _ => Digest::from_hex(name.rsplit('/').next().unwrap_or_default()),
        };
        let digest = digest.ok_or_else(|| {
            RuntimeError::new(format!("{name} in Docker's archive is not called by its digest"))
        })?;
        let layer = NamedLayer {
            digest: digest.to_string(),
            size: place.length,
            by,
        };
        found.push((layer, place));
    }
    Ok(Saved {
        config,
        layers: found,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tar::{Builder, EntryType, Header};

    use super::*;
    use crate::{host::files::Files, plan::host_path::HostPath};

    enum Member<'a> {
        File(&'a str, &'a [u8]),
        Link(&'a str, &'a str),
    }

    fn spool(members: &[Member<'_>]) -> Spool {
        let mut builder = Builder::new(Vec::new());
        for member in members {
            let mut header = Header::new_gnu();
            match member {
                Member::File(name, content) => {
                    header.set_size(content.len() as u64);
                    builder.append_data(&mut header, name, *content).unwrap();
                }
                Member::Link(name, target) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_size(0);
                    builder.append_link(&mut header, name, target).unwrap();
                }
            }
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("store")).unwrap();
        let spool = Files::new(root.path())
            .spool(&HostPath::new("/store").unwrap())
            .unwrap();
        spool.write(&builder.into_inner().unwrap()).unwrap();
        spool
    }

    /// Docker before 25 calls layers by ids of its own, with links for those that are there twice; 25 and later by digests; on
    /// containerd's image store they are compressed.
    #[test]
    fn the_layers_of_all_forms_are_found() {
        let (one, two) = (Digest::of("one"), Digest::of("two"));
        let config = json!({"rootfs": {"diff_ids": [one, two, one]}}).to_string();
        let hex = |digest: &Digest| digest.as_str()[7..].to_owned();
        let list = |layers: [&str; 3]| {
            json!([{"Config": "c.json", "RepoTags": ["a:1"], "Layers": layers}]).to_string()
        };
        let old = list(["1/layer.tar", "2/layer.tar", "3/layer.tar"]);
        let found = saved(&spool(&[
            Member::File("1/layer.tar", b"one"),
            Member::File("2/layer.tar", b"two"),
            Member::Link("3/layer.tar", "../1/layer.tar"),
            Member::File("c.json", config.as_bytes()),
            Member::File("manifest.json", old.as_bytes()),
        ]));
        let found = found.unwrap();
        assert_eq!(found.config, config.as_bytes());
        let named: Vec<_> = found
            .layers
            .iter()
            .map(|(layer, _)| (&*layer.digest, layer.by))
            .collect();
        let plain = Compression::None;
        assert_eq!(
            named,
            [
                (one.as_str(), plain),
                (two.as_str(), plain),
                (one.as_str(), plain)
            ]
        );
        assert_eq!(found.layers[0].1, found.layers[2].1);

        let packed = [&[0x1f, 0x8b][..], b"packed"].concat();
        let blob = format!("blobs/sha256/{}", hex(&Digest::of(&packed)));
        let new = list([&blob, &blob, &blob]);
        let found = saved(&spool(&[
            Member::File(&format!("./{blob}"), &packed),
            Member::File("c.json", config.as_bytes()),
            Member::File("manifest.json", new.as_bytes()),
        ]));
        let layer = &found.unwrap().layers[1].0;
        assert_eq!(
            (&*layer.digest, layer.by),
            (Digest::of(&packed).as_str(), Compression::Gzip)
        );
    }

    #[test]
    fn what_is_missing_in_an_archive_is_said() {
        let config = json!({"rootfs": {"diff_ids": [Digest::of("one")]}}).to_string();
        let list = |config: &str, layers: &[&str]| json!([{"Config": config, "Layers": layers}]).to_string();
        for (list, wanted) in [
            (list("c.json", &["1/layer.tar"]), "no 1/layer.tar"),
            (list("d.json", &[]), "no d.json"),
            (list("c.json", &[]), "0 layers"),
            (list("c.json", &["loop"]), "no loop"),
            ("[]".to_owned(), "0 images"),
            ("{".to_owned(), "manifest.json"),
        ] {
            let spool = spool(&[
                Member::File("c.json", config.as_bytes()),
                Member::File("manifest.json", list.as_bytes()),
                Member::Link("loop", "loop"),
            ]);
            let error = saved(&spool).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let error = saved(&spool(&[])).unwrap_err().to_string();
        assert!(error.contains("manifest.json"), "{error}");
    }
}
