use std::{fs, io::Read as _, path::PathBuf, time::Instant};

use bytes::Bytes;
use futures::stream;
use tempfile::TempDir;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::*;

const PIECE: usize = 1 << 16;
const PIECES: usize = 100;

fn blob(length: usize, pieces: Vec<Result<Vec<u8>, String>>) -> Blob {
    Blob {
        length: length as u64,
        open: Box::new(move || {
            let pieces = pieces.clone();
            let pieces = pieces
                .into_iter()
                .map(|piece| piece.map(Bytes::from).map_err(io::Error::other));
            stream::iter(pieces).boxed()
        }),
    }
}

fn offer() -> Offer {
    let blobs = [
        ("sha256:config", blob(2, vec![Ok(b"{}".to_vec())])),
        (
            "sha256:layer",
            blob(PIECES * PIECE, vec![Ok(vec![7; PIECE]); PIECES]),
        ),
        ("sha256:empty", blob(0, vec![])),
        (
            "sha256:broken",
            blob(
                2 * PIECE,
                vec![Ok(vec![7; PIECE]), Err("the disk is gone".to_owned())],
            ),
        ),
    ];
    Offer {
        manifests: vec![
            br#"{"manifests":[]}"#.to_vec(),
            br#"{"mediaType":"application/x"}"#.to_vec(),
            b"{}".to_vec(),
        ],
        blobs: blobs.map(|(digest, blob)| (digest.to_owned(), blob)).into(),
    }
}

struct World {
    root: TempDir,
    registry: Registry,
}

/// What came: status, length in its header, kind, body or the error of reading it.
#[derive(Debug)]
struct Came {
    status: u16,
    length: String,
    kind: String,
    digest: String,
    body: Result<Vec<u8>, String>,
}

impl World {
    async fn new() -> Self {
        let root = TempDir::new().unwrap();
        let registry = Registry::open(&Files::new(root.path()), offer()).await.unwrap();
        Self { root, registry }
    }

    fn certificates(&self) -> Vec<PathBuf> {
        let files = walkdir::WalkDir::new(self.root.path())
            .into_iter()
            .map(Result::unwrap);
        files
            .filter(|file| file.file_type().is_file())
            .map(|file| file.into_path())
            .collect()
    }

    fn host(&self) -> String {
        self.registry.name().split('/').next().unwrap().to_owned()
    }

    /// The path of a part of the image.
    fn path(&self, part: &str) -> String {
        let name = self.registry.name().strip_suffix(":carried").unwrap();
        format!("/v2/{}/{part}", name.split_once('/').unwrap().1)
    }

    /// Asks as CRI-O does: it trusts the certificate of the host's directory.
    async fn ask(&self, method: &'static str, path: String) -> Came {
        let at = format!("etc/containers/certs.d/{}/transship-carried.crt", self.host());
        let certificate = Certificate::from_pem(&fs::read(self.root.path().join(at)).unwrap()).unwrap();
        let url = format!("https://{}{path}", self.host());
        tokio::task::spawn_blocking(move || {
            let tls = TlsConfig::builder()
                .root_certs(RootCerts::new_with_certs(&[certificate]))
                .unversioned_rustls_crypto_provider(Arc::new(ring::default_provider()))
                .build();
            let agent = ureq::Agent::config_builder()
                .tls_config(tls)
                .http_status_as_error(false)
                .build()
                .new_agent();
            let asked = match method {
                "HEAD" => agent.head(&url).call(),
                "POST" => agent.post(&url).send(""),
                _ => agent.get(&url).call(),
            };
            let mut answer = asked.unwrap();
            let header = |name: &str| {
                let value = answer.headers().get(name).map(|value| value.to_str().unwrap());
                value.unwrap_or_default().to_owned()
            };
            let (length, kind) = (header("content-length"), header("content-type"));
            let digest = header("docker-content-digest");
            let mut body = Vec::new();
            let read = answer.body_mut().as_reader().read_to_end(&mut body);
            Came {
                status: answer.status().as_u16(),
                length,
                kind,
                digest,
                body: read.map(|_| body).map_err(|error| error.to_string()),
            }
        })
        .await
        .unwrap()
    }
}

#[tokio::test]
async fn a_pull_gets_what_it_asks_for() {
    let world = World::new().await;
    assert!(is_name(world.registry.name()), "{}", world.registry.name());
    assert_eq!(world.ask("GET", "/v2/".to_owned()).await.status, 200);
    for (which, kind) in [
        ("carried".to_owned(), "application/vnd.oci.image.index.v1+json"),
        (
            Digest::of(r#"{"mediaType":"application/x"}"#).to_string(),
            "application/x",
        ),
        (
            Digest::of("{}").to_string(),
            "application/vnd.oci.image.manifest.v1+json",
        ),
    ] {
        let came = world.ask("GET", world.path(&format!("manifests/{which}"))).await;
        assert_eq!((came.status, &*came.kind), (200, kind));
        let body = came.body.unwrap();
        assert_eq!(came.digest, Digest::of(&body).as_str());
        assert_eq!(came.length, body.len().to_string());
    }
    let sent = world.registry.sent();
    for _ in 0..2 {
        let came = world.ask("GET", world.path("blobs/sha256:layer")).await;
        assert_eq!((came.status, &*came.length), (200, "6553600"));
        assert_eq!(came.body.unwrap(), vec![7; PIECES * PIECE]);
    }
    assert_eq!(world.registry.sent() - sent, 2 * 6_553_600);
    let came = world.ask("HEAD", world.path("blobs/sha256:layer")).await;
    assert_eq!((came.status, &*came.length), (200, "6553600"));
    assert_eq!(came.body.unwrap(), b"");
    let came = world.ask("GET", world.path("blobs/sha256:empty")).await;
    assert_eq!((came.status, came.body.unwrap()), (200, vec![]));
    assert_eq!(world.registry.trouble(), None);
}

/// Everybody on the node reaches the address: nothing is given to who does not know the name, and nothing is taken.
#[tokio::test]
async fn nothing_else_is_answered() {
    let world = World::new().await;
    for path in [
        "/".to_owned(),
        "/v2/_catalog".to_owned(),
        "/v2/transship/manifests/carried".to_owned(),
        "/v2/transship/0000/blobs/sha256:config".to_owned(),
        world.path("tags/list"),
        world.path("manifests/latest"),
        world.path("manifests/sha256:config"),
        world.path("blobs/sha256:other"),
        world.path("blobs/../../etc/passwd"),
    ] {
        let came = world.ask("GET", path.clone()).await;
        assert_eq!((came.status, &*came.kind), (404, "application/json"), "{path}");
        assert!(
            String::from_utf8(came.body.unwrap()).unwrap().contains("errors"),
            "{path}"
        );
    }
    let came = world.ask("POST", world.path("blobs/uploads")).await;
    assert_eq!(came.status, 405);
    assert!(world.host().starts_with("127.0.0.1:"));
    // Who does not speak TLS.
    let mut stream = TcpStream::connect(world.host()).await.unwrap();
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    stream
        .write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_blob_that_breaks_off_is_no_whole_one_and_the_reason_is_kept() {
    let world = World::new().await;
    let came = world.ask("GET", world.path("blobs/sha256:broken")).await;
    assert!(came.body.is_err(), "{came:?}");
    let trouble = world.registry.trouble().unwrap();
    assert!(
        trouble.contains("sha256:broken") && trouble.contains("the disk is gone"),
        "{trouble}"
    );
}

#[tokio::test]
async fn it_ends_with_its_certificate() {
    let world = World::new().await;
    let host = world.host();
    assert_eq!(world.certificates().len(), 1);
    let World { root, registry } = world;
    registry.close().unwrap();
    assert_eq!(
        fs::read_dir(root.path()).unwrap().count(),
        0,
        "no directory is left"
    );
    let begun = Instant::now();
    while TcpStream::connect(&host).await.is_ok() {
        assert!(begun.elapsed() < Duration::from_secs(10));
        sleep(Duration::from_millis(10)).await;
    }
}

/// A crash leaves a certificate of a port at which nobody listens; those of others stay.
#[tokio::test]
async fn what_a_crash_left_is_cleared() {
    let world = World::new().await;
    let files = Files::new(world.root.path());
    let other = world.root.path().join("etc/containers/certs.d/r.example:5000");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("ca.crt"), "").unwrap();
    assert_eq!(world.certificates().len(), 2);
    for _ in 0..2 {
        clear(&files).unwrap();
        assert_eq!(world.certificates(), [other.join("ca.crt")]);
    }
    clear(&Files::new(world.root.path().join("nothing"))).unwrap();
}

/// A plan gives CRI-O links to the certificates of other registries.
#[test]
fn what_others_have_there_stays() {
    let root = tempfile::tempdir().unwrap();
    let files = Files::new(root.path());
    let path = |text: &str| HostPath::new(text).unwrap();
    let own = path("/etc/pki/own.crt");
    files.write(&own, b"certificate", 0o644).unwrap();
    let mut links = Vec::new();
    for host in ["r.example:5000", "127.0.0.1:5000", "127.0.0.10"] {
        for name in ["transship.crt", CERTIFICATE] {
            // Of this name it has the places at its own address alone.
            if name == "transship.crt" || !host.contains("1:") {
                links.push(path(&format!("{CONTAINERS_CERTIFICATES}/{host}/{name}")));
            }
        }
    }
    for link in &links {
        files.put_link(link, own.as_str()).unwrap();
    }
    clear(&files).unwrap();
    for link in links {
        assert!(files.read_link(&link).unwrap().is_some(), "{link}");
    }
    assert_eq!(files.read_text(&own).unwrap().unwrap(), "certificate");
}

#[test]
fn only_its_own_names_are_known() {
    assert!(is_name("127.0.0.1:40000/transship/00ff:carried"));
    for name in [
        "127.0.0.1:5000/transship/app:1",
        "127.0.0.1:5000/app:carried",
        "127.0.0.1/transship/00ff:carried",
        "r.example:5000/transship/00ff:carried",
        "docker.io/transship/00ff:carried",
    ] {
        assert!(!is_name(name), "{name}");
    }
}
