//! The two lists in which CRI-O's libraries record what its store holds: `layers.json` and `images.json`. What is changed
//! is one object, or the names in some; all other objects, and keys that are not named here, stay as they are. CRI-O
//! answers nothing and does not start while one of the two cannot be read.
//!
//! See containers/storage, `layers.go` and `images.go`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::parse::{self, ParseError};

/// The largest number of layers that overlayfs stacks; a longer chain is a circle.
const MOST_LAYERS: usize = 500;
/// The key of a layer that somebody has begun and not completed: CRI-O removes it.
const INCOMPLETE: &str = "incomplete";

/// `layers.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Layers(Vec<Map<String, Value>>);

/// `images.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Images(Vec<Map<String, Value>>);

/// A layer to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewLayer {
    /// Its id, without `sha256:`.
    pub id: String,
    /// The id of the layer below it.
    pub parent: Option<String>,
    /// When it was made, by RFC 3339.
    pub created: String,
    /// Digest of its uncompressed archive.
    pub diff_digest: String,
    /// Bytes of that.
    pub diff_size: u64,
    /// Digest of the archive by which registries know it; for one that is not known, that of the uncompressed one.
    pub compressed_digest: String,
    /// Bytes of that; absent if they are not known.
    pub compressed_size: Option<u64>,
    /// How that is compressed, in the numbers of containers/storage.
    pub compression: u8,
    /// The users who own something in it.
    pub uids: Vec<u32>,
    /// The groups that own something in it.
    pub gids: Vec<u32>,
}

/// A layer that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundLayer {
    /// Its id.
    pub id: String,
    /// Digest of its uncompressed archive; empty if it is not recorded.
    pub diff_digest: String,
    /// Bytes of that; 0 if they are not recorded.
    pub diff_size: u64,
}

/// An image to be recorded, or one to which names are added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// The digest of its configuration, without `sha256:`.
    pub id: String,
    /// Digest of its manifest.
    pub digest: String,
    /// Its name: a full reference with a tag or a digest.
    pub name: String,
    /// The id of its uppermost layer.
    pub layer: String,
    /// When it was made, by RFC 3339.
    pub created: String,
    /// Its configuration and manifests.
    pub items: Vec<Item>,
}

/// What is kept of an image in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is called in `images.json`.
    pub key: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub digest: String,
}

/// An image that is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundImage {
    /// The digest of its configuration, without `sha256:`.
    pub id: String,
    /// The id of its uppermost layer; empty for an image without layers.
    pub layer: String,
    /// Its names.
    pub names: Vec<String>,
    /// The keys of what is kept of it.
    pub items: Vec<String>,
}

/// The name of the file of an item, in the directory of its image.
pub fn file_of(key: &str) -> String {
    let plain = |c: char| c == '.' || c.is_ascii_digit() || c.is_ascii_lowercase();
    if key.chars().all(plain) {
        key.to_owned()
    } else {
        format!("={}", STANDARD.encode(key))
    }
}

/// The objects of a list. A store that has none yet has no file, an empty one, or `null` in it.
fn read(text: Option<&[u8]>) -> Result<Vec<Map<String, Value>>, ParseError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return Ok(Vec::new());
    };
    Ok(parse::json::<Option<Vec<Map<String, Value>>>>(text)?.unwrap_or_default())
}

/// The list as a text; `None` if that would read as another one: then something in it cannot be kept.
fn write(objects: &[Map<String, Value>]) -> Option<Vec<u8>> {
    let text = json!(objects).to_string().into_bytes();
    let again = read(Some(&text)).ok()?;
    (again == objects).then_some(text)
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn texts(object: &Map<String, Value>, key: &str) -> Vec<String> {
    let list = object.get(key).and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|value| value.as_str().map(str::to_owned))
        .collect()
}

fn found<'a>(objects: &'a [Map<String, Value>], id: &str) -> Option<&'a Map<String, Value>> {
    objects.iter().find(|object| text(object, "id") == id)
}

impl Layers {
    /// Reads the list.
    ///
    /// # Errors
    /// When it is not a list of objects.
    pub fn read(text: Option<&[u8]>) -> Result<Self, ParseError> {
        read(text).map(Self)
    }

    /// The list as it is written to the file. It has been read again; `None` if it reads as another list.
    pub fn text(&self) -> Option<Vec<u8>> {
        write(&self.0)
    }

    /// Whether a complete layer of this id is recorded.
    pub fn has(&self, id: &str) -> bool {
        let begun = |layer: &Map<String, Value>| {
            let flags = layer.get("flags").and_then(Value::as_object);
            flags.is_some_and(|flags| flags.contains_key(INCOMPLETE))
        };
        found(&self.0, id).is_some_and(|layer| !begun(layer))
    }

    /// Whether there is any record of this id.
    pub fn names(&self, id: &str) -> bool {
        found(&self.0, id).is_some()
    }

    /// Records a layer after all others, in the place of one of the same id that is not complete.
    pub fn add(&mut self, layer: &NewLayer) {
        self.0.retain(|other| text(other, "id") != layer.id);
        let mut object = Map::new();
        let mut set = |key: &str, value: Value| object.insert(key.to_owned(), value);
        set("id", json!(layer.id));
        if let Some(parent) = &layer.parent {
            set("parent", json!(parent));
        }
        set("created", json!(layer.created));
        set("compressed-diff-digest", json!(layer.compressed_digest));
        if let Some(size) = layer.compressed_size {
            set("compressed-size", json!(size));
        }
        set("diff-digest", json!(layer.diff_digest));
        set("diff-size", json!(layer.diff_size));
        if layer.compression > 0 {
            set("compression", json!(layer.compression));
        }
        set("uidset", json!(layer.uids));
        set("gidset", json!(layer.gids));
        self.0.push(object);
    }

    /// A layer and those below it, the lowest first; `None` if one of them is not recorded as complete.
    pub fn chain(&self, top: &str) -> Option<Vec<FoundLayer>> {
        let (mut chain, mut next) = (Vec::new(), top);
        while !next.is_empty() {
            let layer = found(&self.0, next).filter(|_| self.has(next) && chain.len() < MOST_LAYERS)?;
            chain.push(FoundLayer {
                id: next.to_owned(),
                diff_digest: text(layer, "diff-digest").to_owned(),
                diff_size: layer.get("diff-size").and_then(Value::as_u64).unwrap_or_default(),
            });
            next = text(layer, "parent");
        }
        chain.reverse();
        Some(chain)
    }
}

impl Images {
    /// Reads the list.
    ///
    /// # Errors
    /// When it is not a list of objects.
    pub fn read(text: Option<&[u8]>) -> Result<Self, ParseError> {
        read(text).map(Self)
    }

    /// The list as it is written to the file. It has been read again; `None` if it reads as another list.
    pub fn text(&self) -> Option<Vec<u8>> {
        write(&self.0)
    }

    /// The image of this id.
    pub fn image(&self, id: &str) -> Option<FoundImage> {
        found(&self.0, id).map(|image| FoundImage {
            id: id.to_owned(),
            layer: text(image, "layer").to_owned(),
            names: texts(image, "names"),
            items: texts(image, "big-data-names"),
        })
    }

    /// Whether an image has this name.
    pub fn has_name(&self, name: &str) -> bool {
        let has = |image: &Map<String, Value>| texts(image, "names").iter().any(|other| other == name);
        self.0.iter().any(has)
    }

    /// Gives an image a name, which is taken from any other one. Returns whether there is an image of this id.
    pub fn name(&mut self, id: &str, name: &str) -> bool {
        if found(&self.0, id).is_none() {
            return false;
        }
        for image in &mut self.0 {
            let mut names = texts(image, "names");
            let (is_it, has) = (text(image, "id") == id, names.iter().any(|other| other == name));
            if is_it == has {
                continue;
            }
            if is_it {
                names.push(name.to_owned());
            } else {
                names.retain(|other| other != name);
            }
            image.insert("names".to_owned(), json!(names));
        }
        true
    }

    /// Takes a name from whatever image has it, and from those that it had.
    pub fn unname(&mut self, name: &str) {
        for image in &mut self.0 {
            for key in ["names", "names-history"] {
                let mut names = texts(image, key);
                if names.iter().any(|other| other == name) {
                    names.retain(|other| other != name);
                    image.insert(key.to_owned(), json!(names));
                }
            }
        }
    }

    /// Records an image, or adds to the record of that id its name and what is not kept of it yet.
    pub fn put(&mut self, image: &NewImage) {
        if found(&self.0, &image.id).is_none() {
            let object = json!({
                "id": image.id, "digest": image.digest, "names": [], "layer": image.layer, "metadata": "{}",
                "big-data-names": [], "big-data-sizes": {}, "big-data-digests": {}, "created": image.created,
            });
            self.0.extend(object.as_object().cloned());
        }
        for object in self.0.iter_mut().filter(|object| text(object, "id") == image.id) {
            let mut keys = texts(object, "big-data-names");
            for item in &image.items {
                if keys.contains(&item.key) {
                    continue;
                }
                keys.push(item.key.clone());
                for (of, value) in [
                    ("big-data-sizes", json!(item.size)),
                    ("big-data-digests", json!(item.digest)),
                ] {
                    let map = object.entry(of).or_insert_with(|| json!({}));
                    if !map.is_object() {
                        *map = json!({});
                    }
                    if let Some(map) = map.as_object_mut() {
                        map.insert(item.key.clone(), value);
                    }
                }
            }
            object.insert("big-data-names".to_owned(), json!(keys));
        }
        self.name(&image.id, &image.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{hold, quiet, samples};

    fn layer(id: &str, parent: Option<&str>) -> NewLayer {
        NewLayer {
            id: id.to_owned(),
            parent: parent.map(str::to_owned),
            created: "2026-01-02T03:04:05Z".to_owned(),
            diff_digest: format!("sha256:{id}"),
            diff_size: 1 << 40,
            compressed_digest: "sha256:z".to_owned(),
            compressed_size: None,
            compression: 2,
            uids: vec![0, 7],
            gids: vec![0],
        }
    }

    fn image(id: &str, name: &str, keys: &[&str]) -> NewImage {
        let item = |key: &&str| Item {
            key: (*key).to_owned(),
            size: 3,
            digest: "sha256:d".to_owned(),
        };
        NewImage {
            id: id.to_owned(),
            digest: "sha256:d".to_owned(),
            name: name.to_owned(),
            layer: "b".to_owned(),
            created: "2026-01-02T03:04:05Z".to_owned(),
            items: keys.iter().map(item).collect(),
        }
    }

    #[test]
    fn layers_are_added_and_all_others_stay() {
        let foreign = r#"[{"id":"x","created":"2020-01-01T00:00:00Z","big":18446744073709551615,"new-key":{"a":[1.5,null]}},{"id":"a","flags":{"incomplete":true}}]"#;
        let mut layers = Layers::read(Some(foreign.as_bytes())).unwrap();
        assert!(layers.has("x") && layers.names("a") && !layers.has("a"));
        assert_eq!(layers.chain("a"), None, "it is not complete");
        layers.add(&layer("a", None));
        layers.add(&layer("b", Some("a")));
        let text = String::from_utf8(layers.text().unwrap()).unwrap();
        assert!(text.starts_with(r#"[{"id":"x","created":"2020-01-01T00:00:00Z","big":18446744073709551615,"new-key":{"a":[1.5,null]}},{"id":"a","created""#), "{text}");
        assert!(
            !text.contains("flags") && !text.contains("compressed-size"),
            "{text}"
        );
        let layers = Layers::read(Some(text.as_bytes())).unwrap();
        let chain = layers.chain("b").unwrap();
        let ids: Vec<&str> = chain.iter().map(|layer| &*layer.id).collect();
        assert_eq!((ids, chain[0].diff_size), (vec!["a", "b"], 1 << 40));
        let circle = Layers::read(Some(br#"[{"id":"a","parent":"b"},{"id":"b","parent":"a"}]"#)).unwrap();
        assert_eq!(circle.chain("a"), None);
        for empty in [None, Some(&b""[..]), Some(b"null"), Some(b"[]\n")] {
            assert_eq!(Layers::read(empty).unwrap().text().unwrap(), b"[]");
        }
        for broken in ["{}", "[1]", "[{}", "[{},", "nul"] {
            assert!(Layers::read(Some(broken.as_bytes())).is_err(), "{broken}");
        }
    }

    #[test]
    fn a_name_is_of_one_image_and_the_data_of_an_image_are_merged() {
        let text = br#"[{"id":"old","names":["r/a:1","r/a:2"],"names-history":["r/a:1"],"created":"x"},{"id":"none"}]"#;
        let mut images = Images::read(Some(text)).unwrap();
        images.put(&image("new", "r/a:1", &["sha256:new", "manifest"]));
        images.put(&image("new", "r/a@sha256:d", &["manifest-sha256:d", "manifest"]));
        let new = images.image("new").unwrap();
        assert_eq!(new.names, ["r/a:1", "r/a@sha256:d"]);
        assert_eq!(new.items, ["sha256:new", "manifest", "manifest-sha256:d"]);
        assert_eq!(images.image("old").unwrap().names, ["r/a:2"]);
        let text = String::from_utf8(images.text().unwrap()).unwrap();
        assert!(
            text.contains(r#""names-history":["r/a:1"],"created":"x"},{"id":"none"}"#),
            "{text}"
        );
        assert!(images.name("old", "r/a:1"));
        assert_eq!(images.image("new").unwrap().names, ["r/a@sha256:d"]);
        assert!(!images.name("gone", "r/a:1"));
        assert!(images.has_name("r/a@sha256:d") && !images.has_name("r/a"));
        assert_eq!(images.image("old").unwrap().names, ["r/a:2", "r/a:1"]);
        images.unname("r/a:1");
        let text = String::from_utf8(images.text().unwrap()).unwrap();
        assert!(
            text.contains(r#""names-history":[]"#) && !text.contains("r/a:1"),
            "{text}"
        );
    }

    #[test]
    fn items_have_the_files_that_cri_o_reads() {
        assert_eq!(file_of("manifest"), "manifest");
        let id = "sha256:8a2a1fce0dc493dfebdf93301c2ab749a027786700ade633266c82d37dc7e6ad";
        let real = "=c2hhMjU2OjhhMmExZmNlMGRjNDkzZGZlYmRmOTMzMDFjMmFiNzQ5YTAyNzc4NjcwMGFkZTYzMzI2NmM4MmQzN2RjN2U2YWQ=";
        assert_eq!(file_of(id), real);
    }

    #[test]
    fn fuzz_the_lists_of_a_store() {
        hold(&samples("crio-store", &[]), |text| {
            if let Some(mut layers) = quiet(Layers::read(Some(text.as_bytes()))) {
                let before = layers.0.len();
                let top = layers.0.last().map(|layer| super::text(layer, "id").to_owned());
                drop(layers.chain(&top.unwrap_or_default()));
                layers.add(&layer("new", None));
                if let Some(written) = layers.text() {
                    let again = Layers::read(Some(&written)).unwrap();
                    assert!(again.has("new") && again.0.len() >= before);
                }
            }
            if let Some(mut images) = quiet(Images::read(Some(text.as_bytes()))) {
                images.put(&image("new", "r/a:1", &["manifest"]));
                if let Some(written) = images.text() {
                    let again = Images::read(Some(&written)).unwrap();
                    assert_eq!(again.image("new").unwrap().names, ["r/a:1"]);
                }
            }
        });
    }
}
