//! The images of a CRI-O whose storage driver shares no layers, and images on their way to it: it pulls as CRI-O does, over TLS
//! with the certificate of the host, and checks every digest.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use futures::stream;
use k8s_cri::v1::{
    image_service_server::{ImageService, ImageServiceServer},
    *,
};
use serde_json::Value;
use tar::{Builder, Header};
use tokio::net::UnixListener;
use tonic::{Request, Response, Status, transport::Server};
use transship::plan::digest::Digest;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::*;

type Answer<T> = Result<Response<T>, Status>;

const IMAGES: &str = "var/lib/containers/storage/vfs-images";

#[derive(Clone, Debug)]
struct CriO {
    root: PathBuf,
    /// Why it pulls nothing.
    refuses: Arc<Mutex<Option<String>>>,
    pulls: Arc<Mutex<Vec<String>>>,
}

impl CriO {
    fn serve(root: &Path) -> Self {
        let crio = Self {
            root: root.to_owned(),
            refuses: Arc::default(),
            pulls: Arc::default(),
        };
        fs::create_dir_all(root.join(IMAGES)).unwrap();
        let socket = root.join("run/crio/crio.sock");
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = Server::builder().add_service(ImageServiceServer::new(crio.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        crio
    }

    fn list(&self) -> Vec<Value> {
        let text = fs::read(self.root.join(IMAGES).join("images.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    fn keep(&self, list: &[Value]) {
        fs::write(
            self.root.join(IMAGES).join("images.json"),
            json!(list).to_string(),
        )
        .unwrap();
    }

    fn names(&self) -> Vec<String> {
        let lists = self.list().into_iter().map(|image| image["names"].clone());
        lists
            .flat_map(|names| serde_json::from_value::<Vec<String>>(names).unwrap())
            .collect()
    }

    /// Gives an image that is pulled its name.
    fn record(&self, id: &str, name: &str, manifest: &str) {
        let mut list = self.list();
        if !list.iter().any(|image| image["id"] == id) {
            list.push(json!({"id": id, "names": [], "big-data-names": [format!("manifest-{manifest}")]}));
        }
        for image in &mut list {
            if image["id"] == id {
                image["names"].as_array_mut().unwrap().push(json!(name));
            }
        }
        self.keep(&list);
    }

    fn pull(&self, name: &str) -> Result<(), String> {
        let (host, rest) = name.split_once('/').unwrap();
        let (repository, tag) = rest.rsplit_once(':').unwrap();
        let directory = self.root.join("etc/containers/certs.d").join(host);
        let pem = fs::read(directory.join("transship-carried.crt")).map_err(|error| error.to_string())?;
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[Certificate::from_pem(&pem).unwrap()]))
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let agent = ureq::Agent::config_builder().tls_config(tls).build().new_agent();
        let get = |part: &str| {
            let mut answer = agent
                .get(&format!("https://{host}/v2/{part}"))
                .call()
                .map_err(|error| error.to_string())?;
            answer.body_mut().read_to_vec().map_err(|error| error.to_string())
        };
        get("")?;
        let manifest = get(&format!("{repository}/manifests/{tag}"))?;
        let read: Value = serde_json::from_slice(&manifest).unwrap();
        let config = read["config"]["digest"].as_str().unwrap().to_owned();
        let layers = read["layers"].as_array().unwrap();
        for blob in layers.iter().chain([&read["config"]]) {
            let digest = blob["digest"].as_str().unwrap();
            let bytes = get(&format!("{repository}/blobs/{digest}"))?;
            assert_eq!(
                (Digest::of(&bytes).as_str(), json!(bytes.len())),
                (digest, blob["size"].clone())
            );
        }
        self.record(
            config.trim_start_matches("sha256:"),
            name,
            Digest::of(&manifest).as_str(),
        );
        Ok(())
    }

    fn found(&self, wanted: &str) -> Option<Image> {
        let list = self.list();
        let named = |image: &&Value| {
            image["id"] == wanted || image["names"].as_array().unwrap().contains(&json!(wanted))
        };
        list.iter().find(named).map(image)
    }
}

fn image(record: &Value) -> Image {
    let names: Vec<String> = serde_json::from_value(record["names"].clone()).unwrap();
    let (repo_digests, repo_tags) = names.into_iter().partition(|name| name.contains('@'));
    Image {
        id: record["id"].as_str().unwrap().to_owned(),
        repo_tags,
        repo_digests,
        ..Default::default()
    }
}

#[tonic::async_trait]
impl ImageService for CriO {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = self.list().iter().map(image).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let wanted = request.into_inner().image.unwrap().image;
        Ok(Response::new(ImageStatusResponse {
            image: self.found(&wanted),
            ..Default::default()
        }))
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let name = request.into_inner().image.unwrap().image;
        self.pulls.lock().unwrap().push(name.clone());
        if let Some(why) = self.refuses.lock().unwrap().clone() {
            return Err(Status::unknown(format!("{name}: {why}")));
        }
        let own = self.clone();
        let pulled = tokio::task::spawn_blocking(move || own.pull(&name))
            .await
            .unwrap();
        pulled.map_err(Status::unknown)?;
        Ok(Response::new(PullImageResponse::default()))
    }

    async fn remove_image(&self, request: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        let wanted = request.into_inner().image.unwrap().image;
        let mut list = self.list();
        for image in &mut list {
            image["names"]
                .as_array_mut()
                .unwrap()
                .retain(|name| *name != json!(wanted));
        }
        list.retain(|image| image["id"] != wanted && !image["names"].as_array().unwrap().is_empty());
        self.keep(&list);
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        let fs_id = FilesystemIdentifier {
            mountpoint: format!("/{IMAGES}"),
        };
        let usage = FilesystemUsage {
            fs_id: Some(fs_id),
            ..Default::default()
        };
        Ok(Response::new(ImageFsInfoResponse {
            image_filesystems: vec![usage],
            ..Default::default()
        }))
    }
}

/// An image as Docker saves it: its id, and the archive.
fn saved() -> (String, Vec<u8>) {
    let layers = [b"the lower layer".to_vec(), vec![7; 3 << 20]];
    let diff_ids: Vec<Digest> = layers.iter().map(Digest::of).collect();
    let config = json!({"rootfs": {"type": "layers", "diff_ids": diff_ids}}).to_string();
    let list = json!([{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "2/layer.tar"]}]);
    let mut archive = Builder::new(Vec::new());
    for (name, content) in [
        // In no order.
        ("2/layer.tar", &layers[1][..]),
        ("1/layer.tar", &layers[0]),
        ("c.json", config.as_bytes()),
        ("manifest.json", list.to_string().as_bytes()),
    ] {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
    }
    (Digest::of(&config).to_string(), archive.into_inner().unwrap())
}

struct Way {
    host: Host,
    crio: CriO,
    id: String,
}

impl Way {
    fn new() -> Self {
        let (id, archive) = saved();
        let host = Host::new(|engine| {
            engine.image_id.clone_from(&id);
            engine.saved = archive;
        });
        let crio = CriO::serve(host.root.path());
        Self { host, crio, id }
    }

    fn step(layers: Layers) -> ImagesStep {
        ImagesStep {
            to: Endpoint {
                runtime: Runtime::CriO,
                socket: path("/run/crio/crio.sock"),
            },
            ..into_containerd(layers)
        }
    }

    async fn carry(&self, name: &str) -> Result<Carried, String> {
        let why = "CRI-O's storage driver is vfs".to_owned();
        let step = Self::step(Layers::Streamed { why });
        let carried = self.host.runtimes.carry_image(&step, name).await;
        carried.map_err(|error| error.to_string())
    }

    /// Nothing is left of the registry.
    fn is_clean(&self) -> bool {
        !self.host.root.path().join("etc/containers").exists()
            && self.crio.names().iter().all(|name| !name.starts_with("127."))
    }
}

const PINNED: &str = "docker.io/library/app@sha256:bbbb";

#[tokio::test]
async fn an_image_is_pulled_from_the_node_itself_and_has_its_own_names_alone() {
    let way = Way::new();
    let carried = way.carry("app:1").await.unwrap();
    assert_eq!(carried.means, Means::Streamed { instead: None });
    assert!(carried.bytes > 3 << 20, "{carried:?}");
    assert_eq!(way.crio.names(), [APP]);
    assert!(way.is_clean());
    // Other names cost nothing.
    for (name, names) in [(APP, &[APP][..]), (PINNED, &[APP, PINNED])] {
        let carried = way.carry(name).await.unwrap();
        assert_eq!((carried.bytes, carried.means), (0, Means::Named));
        assert_eq!(way.crio.names(), names);
    }
    assert_eq!(way.crio.pulls.lock().unwrap().len(), 1);
    let to = Way::step(Layers::Streamed { why: String::new() }).to;
    assert_eq!(
        way.host.images(&to).await,
        [named(APP, &way.id), named(PINNED, &way.id)]
    );
    for (name, names) in [(APP, &[PINNED][..]), (APP, &[PINNED]), (PINNED, &[])] {
        way.host.remove(&to, name).await;
        assert_eq!(way.crio.names(), names);
    }
    assert_eq!(way.crio.list(), [] as [Value; 0]);
    assert!(way.is_clean());
}

#[tokio::test]
async fn a_tag_is_taken_from_the_image_that_had_it_and_given_back() {
    let way = Way::new();
    way.crio.record("00d1", APP, "sha256:m");
    way.carry(APP).await.unwrap();
    let to = Way::step(Layers::Streamed { why: String::new() }).to;
    assert_eq!(way.host.images(&to).await, [named(APP, &way.id)]);
    way.host.restore(&to, APP, Some("sha256:00d1")).await;
    assert_eq!(way.host.images(&to).await, [named(APP, "sha256:00d1")]);
    assert_eq!(way.crio.list().len(), 1);
}

#[tokio::test]
async fn an_image_that_should_have_been_linked_is_copied_with_the_reason() {
    let way = Way::new();
    let data_root = Some(path("/var/lib/docker"));
    let step = Way::step(Layers::Linked { data_root });
    let carried = way.host.runtimes.carry_image(&step, APP).await.unwrap();
    let Means::Streamed { instead: Some(why) } = carried.means else {
        panic!("{carried:?}");
    };
    assert!(why.contains("vfs"), "{why}");
}

#[tokio::test]
async fn what_cri_o_says_is_told_and_nothing_is_left() {
    let way = Way::new();
    *way.crio.refuses.lock().unwrap() = Some("rejected by policy".to_owned());
    let error = way.carry(APP).await.unwrap_err();
    assert!(
        error.contains("rejected by policy") && error.contains(APP),
        "{error}"
    );
    assert!(
        error.contains("/transship/…:carried"),
        "the secret is not told: {error}"
    );
    assert!(way.is_clean());
    *way.crio.refuses.lock().unwrap() = None;
    way.carry(APP).await.unwrap();
}

/// Killed before the image had its name, and after.
#[tokio::test]
async fn what_a_crash_left_goes_with_the_next_try_and_with_the_way_back() {
    let left = "127.0.0.1:40000/transship/00ff:carried";
    let certificate = "etc/containers/certs.d/127.0.0.1:40000/transship-carried.crt";
    let to = Way::step(Layers::Streamed { why: String::new() }).to;
    for goes_on in [true, false] {
        let way = Way::new();
        way.crio.record("other", left, "sha256:m");
        way.crio.record("00d1", "docker.io/library/old:1", "sha256:n");
        way.crio
            .record("00d1", left.replace("00ff", "00aa").as_str(), "sha256:n");
        way.host.write(certificate, "");
        let mut names = vec!["docker.io/library/old:1"];
        if goes_on {
            way.carry(APP).await.unwrap();
            names.push(APP);
        } else {
            way.host.remove(&to, APP).await;
        }
        assert_eq!(way.crio.names(), names);
        assert!(!way.host.root.path().join(certificate).exists());
    }
}
