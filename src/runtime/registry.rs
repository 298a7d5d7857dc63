//! A registry that has one image, at a loopback address, for as long as CRI-O pulls that image: the way into a store whose
//! layers cannot be links. It answers what a pull asks (opencontainers/distribution-spec, `spec.md`) and nothing else.
//!
//! The image has a name of its own there, so that no pull of the node is led elsewhere meanwhile, and nothing that is left by
//! a crash can lead one astray. The name has a secret in it, for everybody on the node can reach the address. It is TLS with a
//! certificate of its own, which CRI-O finds in the directory of that host and port at once (containers/image,
//! `docker/docker_client.go`, `dockerCertDir`). Up to 1.34 it would take HTTP at loopback addresses too; from 1.35 on it does so
//! only where `registries.conf` says so (cri-o/cri-o#9511).

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, TryStreamExt as _};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rcgen::CertifiedKey;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde::Deserialize;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{RuntimeError, docker_archive::Pieces, unpacked::hex};
use crate::{
    edit::parse,
    host::files::Files,
    plan::{digest::Digest, host_path::HostPath, paths::CONTAINERS_CERTIFICATES},
};

/// Where it listens.
const ADDRESS: &str = "127.0.0.1";
/// What the names of images begin with in it.
const REPOSITORY: &str = "transship/";
/// The tag.
const TAG: &str = "carried";
/// Its certificate there. No link that a plan makes has this name: a write and a removal would reach what that leads to.
const CERTIFICATE: &str = "transship-carried.crt";
/// Most connections at a time: a pull has one for each of six layers, and a few more.
const CONNECTIONS: usize = 64;
/// How long a client may take for the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client may take to send the header of its next request.
const HEADER_TIME: Duration = Duration::from_secs(60);
/// Most bytes of a request's header, and of what is buffered.
const BUFFER: usize = 64 * 1024;
/// How long no connection is accepted after the system refused one.
const PAUSE: Duration = Duration::from_millis(100);

/// An image to be pulled.
#[derive(Debug)]
pub(super) struct Offer {
    /// Its manifests; the first one is asked for by the tag.
    pub(super) manifests: Vec<Vec<u8>>,
    /// Its configuration and its layers by their digests.
    pub(super) blobs: BTreeMap<String, Blob>,
}

/// Bytes that have a digest.
pub(super) struct Blob {
    /// How many.
    pub(super) length: u64,
    /// Begins to read them.
    pub(super) open: Box<dyn Fn() -> Pieces + Send + Sync>,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blob").field(&self.length).finish()
    }
}

/// The part of a manifest that says of which kind it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<serde::de::IgnoredAny>>,
}

/// The kind of a manifest; those of OCI need not name it.
fn kind(manifest: &[u8]) -> String {
    match parse::json::<Kind>(manifest) {
        Ok(kind) if !kind.media_type.is_empty() => kind.media_type,
        Ok(Kind {
            manifests: Some(_), ..
        }) => "application/vnd.oci.image.index.v1+json".to_owned(),
        _ => "application/vnd.oci.image.manifest.v1+json".to_owned(),
    }
}

/// What the connections share.
struct Served {
    /// The path of the image's repository.
    repository: String,
    offer: Offer,
    sent: AtomicU64,
    trouble: Mutex<Option<String>>,
}

/// A registry that serves until it is dropped.
#[derive(Debug)]
pub(super) struct Registry {
    files: Files,
    served: Arc<Served>,
    name: String,
    certificate: HostPath,
    /// Directories that were made for the certificate, the uppermost first.
    made: Vec<HostPath>,
    _server: JoinSet<()>,
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served")
            .field("offer", &self.offer)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Serves an image, and leaves the certificate where CRI-O looks for it.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate cannot be written.
    pub(super) async fn open(files: &Files, offer: Offer) -> Result<Self, RuntimeError> {
        let say = |error: io::Error| RuntimeError::because(format!("a registry at {ADDRESS}"), error);
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed([ADDRESS.to_owned()]).map_err(RuntimeError::of)?;
        let key = signing_key.serialize_der();
        // Nobody else has the key.
        let secret = hex(Digest::of(&key).as_str()).to_owned();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(RuntimeError::of)?
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key)),
            )
            .map_err(RuntimeError::of)?;
        let listener = TcpListener::bind((ADDRESS, 0)).await.map_err(say)?;
        let host = listener.local_addr().map_err(say)?.to_string();
        let directory =
            HostPath::new(format!("{CONTAINERS_CERTIFICATES}/{host}")).map_err(RuntimeError::of)?;
        let made = files.missing_dirs(&directory).map_err(RuntimeError::of)?;
        let certificate = directory.join(CERTIFICATE).map_err(RuntimeError::of)?;
        let written = files.write(&certificate, cert.pem().as_bytes(), 0o644);
        written.map_err(|error| RuntimeError::because("the certificate of a registry", error))?;
        let served = Arc::new(Served {
            repository: format!("{REPOSITORY}{secret}"),
            offer,
            sent: AtomicU64::new(0),
            trouble: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&served));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, TlsAcceptor::from(Arc::new(config)), router));
        Ok(Self {
            files: files.clone(),
            name: format!("{host}/{}:{TAG}", served.repository),
            served,
            certificate,
            made,
            _server: server,
        })
    }

    /// The name of the image in it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A text without what must not be told of the name.
    pub(super) fn public(&self, text: &str) -> String {
        text.replace(&self.served.repository, &format!("{REPOSITORY}…"))
    }

    /// How many bytes of blobs it has sent.
    pub(super) fn sent(&self) -> u64 {
        self.served.sent.load(Ordering::Relaxed)
    }

    /// Why it could not send all of a blob, if there is such a one.
    pub(super) fn trouble(&self) -> Option<String> {
        let trouble = self.served.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the certificate away, and ends.
    ///
    /// # Errors
    /// When it is still there.
    pub(super) fn close(self) -> Result<(), RuntimeError> {
        self.files.remove(&self.certificate).map_err(RuntimeError::of)?;
        for directory in self.made.iter().rev() {
            self.files.remove_empty_dir(directory).map_err(RuntimeError::of)?;
        }
        Ok(())
    }
}

/// Whether this is a name of an image in such a registry.
pub(super) fn is_name(name: &str) -> bool {
    let host = name.strip_prefix(ADDRESS).and_then(|rest| rest.strip_prefix(':'));
    let rest = host.map(|host| host.trim_start_matches(|c: char| c.is_ascii_digit()));
    let repository = rest
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.strip_prefix(REPOSITORY));
    repository.is_some_and(|rest| rest.strip_suffix(TAG).is_some_and(|rest| rest.ends_with(':')))
}

/// Takes away the certificates of those that died.
///
/// # Errors
/// When one is still there.
pub(super) fn clear(files: &Files) -> Result<(), RuntimeError> {
    let directory = HostPath::new(CONTAINERS_CERTIFICATES).map_err(RuntimeError::of)?;
    if !files.exists(&directory).map_err(RuntimeError::of)? {
        return Ok(());
    }
    // Directories of others are none of its business.
    let is_ours = |host: &String| {
        host.strip_prefix(ADDRESS)
            .is_some_and(|rest| rest.starts_with(':'))
    };
    let hosts = files.list(&directory).map_err(RuntimeError::of)?;
    for host in hosts.into_iter().filter(is_ours) {
        let of_host = directory.join(&host).map_err(RuntimeError::of)?;
        let certificate = of_host.join(CERTIFICATE).map_err(RuntimeError::of)?;
        if files.exists(&certificate).map_err(RuntimeError::of)? {
            files.remove(&certificate).map_err(RuntimeError::of)?;
            files.remove_empty_dir(&of_host).map_err(RuntimeError::of)?;
        }
    }
    Ok(())
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, router: Router) {
    let mut open = JoinSet::new();
    loop {
        while open.try_join_next().is_some() {}
        if open.len() >= CONNECTIONS {
            open.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(open.spawn(connection(stream, acceptor.clone(), router.clone()))),
            // The client is gone already, or descriptors have run out.
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router) {
    let stream = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a handshake failed"),
        Err(_) => return tracing::debug!("a handshake did not end"),
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(State(served): State<Arc<Served>>, request: Request) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return unknown(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED");
    }
    let path = request.uri().path();
    if path.trim_end_matches('/') == "/v2" {
        return StatusCode::OK.into_response();
    }
    let below = path
        .strip_prefix("/v2/")
        .and_then(|rest| rest.strip_prefix(&*served.repository))
        .and_then(|rest| rest.strip_prefix('/'));
    let Some((sort, which)) = below.and_then(|below| below.split_once('/')) else {
        return unknown(StatusCode::NOT_FOUND, "NAME_UNKNOWN");
    };
    match sort {
        "manifests" => served.manifest(which),
        "blobs" => served.blob(which, request.method() == Method::HEAD),
        _ => unknown(StatusCode::NOT_FOUND, "UNSUPPORTED"),
    }
}

impl Served {
    fn manifest(&self, which: &str) -> Response {
        let mut manifests = self.offer.manifests.iter();
        let found = if which == TAG {
            manifests.next()
        } else {
            manifests.find(|manifest| Digest::of(manifest).as_str() == which)
        };
        let Some(manifest) = found else {
            return unknown(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN");
        };
        let headers = [
            (header::CONTENT_TYPE.as_str(), kind(manifest)),
            ("docker-content-digest", Digest::of(manifest).to_string()),
        ];
        (headers, manifest.clone()).into_response()
    }

    fn blob(self: &Arc<Self>, which: &str, head: bool) -> Response {
        let Some(blob) = self.offer.blobs.get(which) else {
            return unknown(StatusCode::NOT_FOUND, "BLOB_UNKNOWN");
        };
        let body = if head {
            Body::empty()
        } else {
            let (served, failing) = (Arc::clone(self), Arc::clone(self));
            let digest = which.to_owned();
            let counted = (blob.open)()
                .inspect_ok(move |piece| {
                    served.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
                })
                .map_err(move |error| {
                    let mut trouble = failing.trouble.lock().unwrap_or_else(PoisonError::into_inner);
                    trouble.get_or_insert_with(|| format!("{digest}: {error}"));
                    error
                });
            Body::from_stream(counted.boxed())
        };
        let headers = [
            (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
            (header::CONTENT_LENGTH, blob.length.to_string()),
        ];
        (headers, body).into_response()
    }
}

/// How registries say that there is no such thing.
fn unknown(status: StatusCode, code: &str) -> Response {
    let errors = serde_json::json!({"errors": [{"code": code, "message": "it is not here"}]});
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, errors.to_string()).into_response()
}

#[cfg(test)]
mod tests;
