//! A store of CRI-O in a temporary directory, and an image of two layers with the data of its archives.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::StreamExt as _;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;
use crate::{
    host::files::Effect,
    runtime::{docker_archive, unpacked::Compressed},
};

const NAME: &str = "docker.io/library/app:1";
const ROOT: &str = "/containers/storage";

struct World {
    root: TempDir,
    image: Image,
    archives: Vec<Vec<u8>>,
}

fn path(text: &str) -> HostPath {
    HostPath::new(text).unwrap()
}

fn archive_of(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        builder
            .append_data(&mut header, name, content.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}

impl World {
    /// In memory, where it can be: one that is on a disk makes durable what all others write there.
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() {
            TempDir::new_in(memory).unwrap()
        } else {
            TempDir::new().unwrap()
        };
        let at = |name: &str| root.path().join(name);
        let store = |name: &str| at(ROOT.trim_start_matches('/')).join(name);
        for directory in ["overlay/l", LAYERS, IMAGES] {
            fs::create_dir_all(store(directory)).unwrap();
        }
        fs::write(store("overlay/.has-mount-program"), "false").unwrap();
        let layers_json = r#"[{"id":"other","created":"2020-01-01T00:00:00Z","new-key":7}]"#;
        fs::write(store(&format!("{LAYERS}/layers.json")), layers_json).unwrap();
        let images_json = json!([{"id": "old", "names": [NAME], "layer": "other", "new-key": [1], "created": "2020-01-01T00:00:00Z"}]);
        fs::write(store(&format!("{IMAGES}/images.json")), images_json.to_string()).unwrap();

        let contents = [
            &[("etc/a", "one"), ("usr/big", "content")][..],
            &[("usr/top", "")],
        ];
        let (mut layers, mut archives, mut diff_ids) = (Vec::new(), Vec::new(), Vec::new());
        let mut chain: Option<Digest> = None;
        for (number, files) in contents.iter().enumerate() {
            let archive = archive_of(files);
            let directory = format!("/docker/overlay2/{number}/diff");
            for (name, content) in *files {
                let file = at(&directory[1..]).join(name);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            let mode = fs::Permissions::from_mode(0o555);
            fs::set_permissions(at(&directory[1..]), mode).unwrap();
            let (data, _) = tar_split::describe(&*archive).unwrap().unwrap();
            let kept = format!("/docker/{number}.gz");
            fs::write(at(&kept[1..]), data).unwrap();
            let diff_id = Digest::of(&archive);
            let chain_id = chain.map_or_else(
                || diff_id.clone(),
                |below| Digest::of(format!("{below} {diff_id}")),
            );
            chain = Some(chain_id.clone());
            layers.push(Layer {
                diff_id: diff_id.clone(),
                chain_id,
                size: 10,
                directory: path(&directory),
                tar_split: TarSplit::Kept(path(&kept)),
                compressed: (number == 0).then(|| Compressed {
                    digest: Digest::of("packed"),
                    size: None,
                    by: Compression::Gzip,
                }),
            });
            diff_ids.push(diff_id);
            archives.push(archive);
        }
        let config = json!({"created": "2024-01-02T03:04:05.6Z", "rootfs": {"diff_ids": diff_ids}});
        let image = Image {
            config: config.to_string().into_bytes(),
            manifests: Vec::new(),
            layers,
        };
        Self {
            root,
            image,
            archives,
        }
    }

    fn files(&self) -> Files {
        Files::new(self.root.path())
    }

    fn store(&self) -> ContainersStorage {
        ContainersStorage::at(&self.files(), &format!("{ROOT}/{IMAGES}")).unwrap()
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(ROOT.trim_start_matches('/')).join(name)
    }

    fn json(&self, name: &str) -> Vec<Value> {
        serde_json::from_slice(&fs::read(self.at(name)).unwrap()).unwrap()
    }

    fn id(&self) -> String {
        hex(Digest::of(&self.image.config).as_str()).to_owned()
    }

    /// All that is in the store but times, links' numbers and locks.
    fn seen(&self) -> BTreeMap<PathBuf, String> {
        let mut seen = BTreeMap::new();
        for entry in walkdir::WalkDir::new(self.at("")) {
            let entry = entry.unwrap();
            let (path, data) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let text = if path.extension().is_some_and(|end| end == "lock") {
                String::new()
            } else if data.is_file() {
                let text = fs::read(path).unwrap();
                // The time at which a layer was recorded.
                let text = String::from_utf8_lossy(&text).into_owned();
                match serde_json::from_str::<Vec<Value>>(&text) {
                    Ok(mut list) => {
                        list.iter_mut().for_each(|object| object["created"] = Value::Null);
                        json!(list).to_string()
                    }
                    Err(_) => text,
                }
            } else if data.is_symlink() {
                fs::read_link(path).unwrap().display().to_string()
            } else {
                String::new()
            };
            seen.insert(
                path.strip_prefix(self.at("")).unwrap().to_owned(),
                format!("{:o} {text}", data.mode()),
            );
        }
        seen
    }

    /// What CRI-O depends on at any moment: the lists can be read, and what they name is there.
    fn check(&self) {
        for layer in self.json(&format!("{LAYERS}/layers.json")) {
            let id = layer["id"].as_str().unwrap();
            if id == "other" {
                assert_eq!(layer["new-key"], 7);
                continue;
            }
            let tree = self.at(&format!("overlay/{id}"));
            let link = fs::read_to_string(tree.join("link")).unwrap();
            let target = fs::read_link(self.at(&format!("overlay/l/{link}"))).unwrap();
            assert_eq!(target, Path::new(&format!("../{id}/diff")));
            assert!(tree.join("diff/usr").is_dir());
            assert!(self.at(&format!("{LAYERS}/{id}.tar-split.gz")).is_file());
        }
        let images = self.json(&format!("{IMAGES}/images.json"));
        let (layers, _) = self.store().layers().unwrap();
        let mut names = Vec::new();
        for image in images {
            names.extend(image["names"].as_array().unwrap().clone());
            if image["id"] == "old" {
                assert_eq!(image["new-key"], json!([1]));
                continue;
            }
            assert_eq!(layers.chain(image["layer"].as_str().unwrap()).unwrap().len(), 2);
            for (key, digest) in image["big-data-digests"].as_object().unwrap() {
                let file = self.at(&format!(
                    "{IMAGES}/{}/{}",
                    image["id"].as_str().unwrap(),
                    file_of(key)
                ));
                assert_eq!(Digest::of(fs::read(file).unwrap()).as_str(), digest);
            }
        }
        assert_eq!(names, [NAME], "a name is of one image");
    }
}

#[test]
fn an_image_is_linked_and_recorded_as_cri_o_does() {
    let world = World::new();
    let store = world.store();
    let put = store.put(&world.image, NAME).unwrap();
    assert_eq!(
        put,
        Put {
            bytes: 20,
            was_there: false
        }
    );
    world.check();
    let layers = world.json(&format!("{LAYERS}/layers.json"));
    let [_, base, top] = &layers[..] else {
        panic!("{layers:?}")
    };
    let first = hex(world.image.layers[0].diff_id.as_str());
    let second = hex(world.image.layers[1].diff_id.as_str());
    assert_eq!(base["id"], first);
    assert_eq!(top["id"], hex(Digest::of(format!("{first}+{second}")).as_str()));
    assert_eq!((&top["parent"], base.get("parent")), (&base["id"], None));
    assert_eq!(base["diff-size"], world.archives[0].len());
    assert_eq!(base["compressed-diff-digest"], Digest::of("packed").as_str());
    assert_eq!(
        (&base["compression"], base.get("compressed-size")),
        (&json!(2), None)
    );
    assert_eq!(top["compressed-diff-digest"], top["diff-digest"]);
    assert_eq!((&top["uidset"], top.get("compression")), (&json!([0]), None));
    let link = |layer: &Value| {
        let file = world.at(&format!("overlay/{}/link", layer["id"].as_str().unwrap()));
        fs::read_to_string(file).unwrap()
    };
    let of =
        |layer: &Value, name: &str| world.at(&format!("overlay/{}/{name}", layer["id"].as_str().unwrap()));
    assert!(link(base).len() == 26 && link(base) != link(top));
    assert_eq!(
        fs::read_to_string(of(top, "lower")).unwrap(),
        format!("l/{}", link(base))
    );
    assert!(of(base, "empty").is_dir() && !of(base, "lower").exists() && !of(top, "empty").exists());
    assert_eq!(fs::metadata(of(base, "diff")).unwrap().mode() & 0o7777, 0o555);
    assert_eq!(fs::metadata(of(base, "work")).unwrap().mode() & 0o7777, 0o700);
    // Not in etc, which is copied.
    let shared = |at: PathBuf| fs::metadata(at).unwrap().nlink();
    assert_eq!(shared(of(base, "diff/usr/big")), 2);
    let images = world.json(&format!("{IMAGES}/images.json"));
    assert_eq!(images[1]["created"], "2024-01-02T03:04:05.6Z");
    let manifest: Value =
        serde_json::from_slice(&fs::read(world.at(&format!("{IMAGES}/{}/manifest", world.id()))).unwrap())
            .unwrap();
    assert_eq!(manifest["layers"][1]["size"], world.archives[1].len());
    assert_eq!(
        fs::metadata(world.at(&format!("{IMAGES}/images.lock")))
            .unwrap()
            .len(),
        64
    );
    assert!(!world.at(STAGE).exists());

    // Another name, with the manifest by which registries know it.
    let mut pinned = world.image.clone();
    pinned.manifests = vec![b"{}".to_vec()];
    let name = "docker.io/library/app@sha256:d";
    let put = store.put(&pinned, name).unwrap();
    assert_eq!(
        put,
        Put {
            bytes: 0,
            was_there: true
        }
    );
    let images = world.json(&format!("{IMAGES}/images.json"));
    assert_eq!(images[1]["names"], json!([NAME, name]));
    let key = format!("manifest-{}", Digest::of("{}"));
    assert_eq!(images[1]["big-data-sizes"][&key], 2);
    let kept = fs::read(world.at(&format!("{IMAGES}/{}/manifest", world.id()))).unwrap();
    assert_ne!(kept, b"{}", "what is there stays");

    let list = ImageList::at(&world.files(), &format!("{ROOT}/{IMAGES}")).unwrap();
    let lock = |name: &str| fs::read(world.at(name)).unwrap();
    let before = lock(&format!("{IMAGES}/images.lock"));
    assert!(list.name("old", NAME, None).unwrap() && !list.name("gone", NAME, None).unwrap());
    assert_ne!(before, lock(&format!("{IMAGES}/images.lock")), "CRI-O sees it");
    assert_eq!(
        world.json(&format!("{IMAGES}/images.json"))[0]["names"],
        json!([NAME])
    );
    assert!(list.has_name(NAME).unwrap() && list.has_name(name).unwrap());
    assert!(list.name("old", "docker.io/library/new:1", Some(name)).unwrap());
    assert!(!list.has_name(name).unwrap(), "one goes as the other comes");
    let found = list.image("old").unwrap().unwrap();
    assert_eq!(found.names, [NAME, "docker.io/library/new:1"]);
}

#[test]
fn what_is_mounted_onto_itself_is_linked_into() {
    let world = World::new();
    let overlay = world.at("overlay");
    if mount(
        Some(&overlay),
        &overlay,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .is_err()
    {
        return;
    }
    let put = world.store().put(&world.image, NAME);
    let seen = overlay
        .join(hex(world.image.layers[0].diff_id.as_str()))
        .join("diff/etc/a")
        .exists();
    umount2(&overlay, MntFlags::MNT_DETACH).unwrap();
    assert!(put.is_ok() && seen, "{put:?}");
}

/// Dies before each effect on the disk: whoever looks finds lists that hold, and the next try ends as the first would.
#[test]
fn a_store_holds_whenever_its_writer_dies() {
    let whole = World::new();
    let effects = Arc::new(AtomicUsize::new(0));
    let counting = {
        let effects = Arc::clone(&effects);
        let hook = Arc::new(move |_: Effect<'_>| {
            effects.fetch_add(1, Ordering::SeqCst);
            Ok(())
        });
        ContainersStorage::at(&whole.files().with_hook(hook), &format!("{ROOT}/{IMAGES}")).unwrap()
    };
    counting.put(&whole.image, NAME).unwrap();
    let wanted = whole.seen();
    let effects = effects.load(Ordering::SeqCst);
    assert!(effects > 40, "{effects}");
    for death in 0..effects {
        let world = World::new();
        let count = AtomicUsize::new(0);
        let hook = Arc::new(move |_: Effect<'_>| {
            if count.fetch_add(1, Ordering::SeqCst) >= death {
                return Err(io::Error::other("dead"));
            }
            Ok(())
        });
        let dying =
            ContainersStorage::at(&world.files().with_hook(hook), &format!("{ROOT}/{IMAGES}")).unwrap();
        let error = dying.put(&world.image, NAME).unwrap_err().to_string();
        assert!(error.contains("dead"), "{error}");
        world.check();
        world.store().put(&world.image, NAME).unwrap();
        world.check();
        assert_eq!(world.seen(), wanted, "after a death before effect {death}");
    }
}

#[test]
fn the_locks_are_taken_in_cri_os_order_and_after_the_trees() {
    let world = World::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noting = Arc::clone(&seen);
    let hook = Arc::new(move |effect: Effect<'_>| {
        let text = match effect {
            Effect::Change(path) => path.display().to_string(),
            Effect::SyncFileSystem(_) => "syncfs".to_owned(),
            Effect::SyncFile(_) | Effect::SyncDirectory(_) => return Ok(()),
        };
        let ends = [
            "syncfs",
            "layers.lock",
            "images.lock",
            "layers.json",
            "images.json",
        ];
        if let Some(end) = ends.into_iter().find(|end| text.ends_with(end)) {
            noting.lock().unwrap().push(end);
        }
        Ok(())
    });
    let store = ContainersStorage::at(&world.files().with_hook(hook), &format!("{ROOT}/{IMAGES}")).unwrap();
    store.put(&world.image, NAME).unwrap();
    let mut order = seen.lock().unwrap().clone();
    order.dedup();
    let wanted = [
        "syncfs",
        "layers.lock",
        "images.lock",
        "layers.json",
        "images.json",
        "layers.lock",
        "images.lock",
    ];
    assert_eq!(order, wanted);
}

#[test]
fn a_list_that_cannot_be_read_and_a_layer_of_another_form_are_refused_and_nothing_changes() {
    for (file, text, wanted) in [
        (format!("{LAYERS}/layers.json"), "[{", "layers.json: "),
        (format!("{IMAGES}/images.json"), "{}", "images.json: "),
        ("overlay/.has-mount-program".to_owned(), "true", "mount_program"),
        ("overlay/x/composefs-data".to_owned(), "", "use_composefs"),
    ] {
        let world = World::new();
        fs::create_dir_all(world.at("overlay/x")).unwrap();
        fs::write(world.at(&file), text).unwrap();
        let before = world.seen();
        let error = world.store().put(&world.image, NAME).unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(world.seen(), before, "{file}");
    }
    let world = World::new();
    let other = ContainersStorage::at(&world.files(), "/containers/storage/vfs-images").unwrap_err();
    assert!(other.to_string().contains("is vfs,"), "{other}");
    assert!(ContainersStorage::at(&world.files(), "/none/overlay-images").is_err());
}

#[tokio::test]
async fn the_archive_of_an_image_is_made_again() {
    let world = World::new();
    let store = world.store();
    store.put(&world.image, NAME).unwrap();
    let image = store.image(&format!("sha256:{}", world.id())).unwrap();
    assert_eq!(image.config, world.image.config);
    let chains =
        |image: &Image| -> Vec<Digest> { image.layers.iter().map(|layer| layer.chain_id.clone()).collect() };
    assert_eq!(chains(&image), chains(&world.image));
    docker_archive::check(&image).unwrap();
    let mut pieces = Box::pin(docker_archive::archive(&world.files(), image.clone(), NAME));
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(&*bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        io::Read::read_to_end(&mut entry, &mut content).unwrap();
        members.insert(entry.path().unwrap().display().to_string(), content);
    }
    let manifest: Value = serde_json::from_slice(&members["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!([NAME]));
    assert_eq!(members[manifest[0]["Config"].as_str().unwrap()], image.config);
    for (name, archive) in manifest[0]["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .zip(&world.archives)
    {
        assert!(&members[name.as_str().unwrap()] == archive);
    }

    let data = world.at(&format!(
        "{LAYERS}/{}.tar-split.gz",
        hex(image.layers[0].diff_id.as_str())
    ));
    fs::remove_file(data).unwrap();
    let image = store.image(&world.id()).unwrap();
    let error = docker_archive::check(&image).unwrap_err().to_string();
    assert!(error.contains(image.layers[0].diff_id.as_str()), "{error}");
    let file = world.at(&format!(
        "{IMAGES}/{}/{}",
        world.id(),
        file_of(&format!("sha256:{}", world.id()))
    ));
    fs::write(file, "{}").unwrap();
    let error = store.image(&world.id()).unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
    assert!(
        store
            .image("gone")
            .unwrap_err()
            .to_string()
            .contains("has no image")
    );
}
