//! Fetching a file from elsewhere: `file://` and `https://`. What arrives is hashed on its way to the disk.
//!
//! [`credentials`] for a server are those of a file of the host for root alone. Certificates are those that the host trusts. The proxy is named by the caller, never taken from the environment:
//! that of a systemd service is empty.

mod credentials;

pub use credentials::CREDENTIALS;

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest as _, Sha256};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use ureq::{
    config::RedirectAuthHeaders,
    tls::{RootCerts, TlsConfig},
};

use super::files::{Files, NewFile, PIECE};
use crate::plan::{digest::Digest, host_path::HostPath, redaction};

/// Most bytes that are fetched: twenty times what containerd's archives have.
const MOST: u64 = 1 << 30;
/// Longest time for all of it.
const WITHIN: Duration = Duration::from_secs(15 * 60);
/// Longest time for a connection, and without a byte.
const STALLED: Duration = Duration::from_secs(60);
/// Bytes that must stay free on the disk.
pub const RESERVE: u64 = 64 << 20;
/// How many pieces may wait to be written.
const AHEAD: usize = 2;

/// A file that was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It could not be written.
    #[error("cannot {0}")]
    Io(#[from] io::Error),
    /// It could not be read.
    #[error("cannot fetch {url}: {why}")]
    Unreadable {
        /// Where it is, without credentials.
        url: String,
        /// Why.
        why: String,
    },
    /// There is no room for it.
    #[error(
        "{url} has {needed} bytes, and {free} are free at {at}, of which {RESERVE} must stay free; make room"
    )]
    NoSpace {
        /// Where it is, without credentials.
        url: String,
        /// Where it would lie.
        at: HostPath,
        /// Its bytes.
        needed: u64,
        /// Free bytes.
        free: u64,
    },
}

/// Fetches `url` into the new file `into`, and answers the digest of what came.
///
/// # Errors
/// See [`FetchError`]; `into` then holds a part of it, or is not there.
pub async fn fetch(
    files: &Files,
    url: &str,
    proxy: Option<&str>,
    into: &HostPath,
) -> Result<Digest, FetchError> {
    let unreadable = |why: String| FetchError::Unreadable {
        url: redaction::public(url),
        why,
    };
    if let Some(path) = url.strip_prefix("file://") {
        let path = HostPath::new(path).map_err(|error| unreadable(error.to_string()))?;
        let (mut file, length) = files.open(&path).map_err(|error| unreadable(error.to_string()))?;
        let mut incoming = Incoming::new(files, url, into, Some(length))?;
        loop {
            let piece = piece_of(&mut file).map_err(|error| unreadable(error.to_string()))?;
            if piece.is_empty() {
                return incoming.finish();
            }
            incoming.take(&piece)?;
            tokio::task::yield_now().await;
        }
    }
    let host = https_host(url).unwrap_or_default();
    let authorization =
        credentials::authorization(files, host).map_err(|error| unreadable(error.to_string()))?;
    let (sender, mut pieces) = mpsc::channel(AHEAD);
    let (from, proxy) = (url.to_owned(), proxy.map(str::to_owned));
    // Not a task of the runtime, which would wait for it: it ends by itself when nobody listens any more.
    std::thread::Builder::new()
        .name("fetch".to_owned())
        .spawn(move || download(&from, proxy.as_deref(), authorization.as_deref(), &sender))?;
    // Somewhat later than that of the client, which says more.
    let until = Instant::now() + WITHIN + STALLED;
    let mut arrived = async || {
        timeout_at(until, pieces.recv()).await.map_err(|_| {
            unreadable(format!(
                "not all of it came within {} s",
                (WITHIN + STALLED).as_secs()
            ))
        })
    };
    let length = match arrived().await? {
        Some(Arrived::Begins(length)) => length,
        Some(Arrived::Failed(why)) => return Err(unreadable(why)),
        Some(Arrived::Piece(_)) | None => return Err(unreadable("no answer".to_owned())),
    };
    let mut incoming = Incoming::new(files, url, into, length)?;
    loop {
        match arrived().await? {
            Some(Arrived::Piece(piece)) if piece.is_empty() => return incoming.finish(),
            Some(Arrived::Piece(piece)) => incoming.take(&piece)?,
            Some(Arrived::Failed(why)) => return Err(unreadable(why)),
            Some(Arrived::Begins(_)) | None => return Err(unreadable("the connection broke".to_owned())),
        }
    }
}

/// What arrives is written, hashed and counted.
struct Incoming<'a> {
    url: String,
    file: NewFile<'a>,
    hasher: Sha256,
    bytes: u64,
    length: Option<u64>,
    /// Bytes at which the log is told next.
    told: u64,
}

impl<'a> Incoming<'a> {
    fn new(files: &'a Files, url: &str, into: &HostPath, length: Option<u64>) -> Result<Self, FetchError> {
        let url = redaction::public(url);
        let needed = length.unwrap_or_default();
        let free = files.free_bytes(into)?;
        if free < needed.saturating_add(RESERVE) {
            let at = into.clone();
            return Err(FetchError::NoSpace {
                url,
                at,
                needed,
                free,
            });
        }
        tracing::info!(url, ?length, "fetching");
        Ok(Self {
            url,
            file: files.create(into)?,
            hasher: Sha256::new(),
            bytes: 0,
            length,
            told: 0,
        })
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), FetchError> {
        self.bytes += piece.len() as u64;
        if self.bytes > MOST {
            return Err(FetchError::Unreadable {
                url: self.url.clone(),
                why: format!("it has more than {MOST} bytes"),
            });
        }
        self.hasher.update(piece);
        self.file.write(piece)?;
        if self.bytes >= self.told {
            self.told = self.bytes + self.length.unwrap_or(MOST).max(100 << 20) / 10;
            tracing::info!(url = self.url, bytes = self.bytes, of = self.length, "fetched");
        }
        Ok(())
    }

    fn finish(self) -> Result<Digest, FetchError> {
        if self.length.is_some_and(|length| length != self.bytes) {
            return Err(FetchError::Unreadable {
                why: format!("{} of {:?} bytes came", self.bytes, self.length),
                url: self.url,
            });
        }
        self.file.finish(0o600)?;
        Ok(Digest::of_seen(self.hasher))
    }
}

/// What comes over the network.
enum Arrived {
    /// It begins; so many bytes are announced.
    Begins(Option<u64>),
    /// The next bytes; none at the end.
    Piece(Vec<u8>),
    /// It does not come.
    Failed(String),
}

/// The host of an `https://` URL, with its port if it names one.
fn https_host(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("https://")?.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

fn download(url: &str, proxy: Option<&str>, authorization: Option<&str>, to: &mpsc::Sender<Arrived>) {
    // Nobody may listen any more, which is no failure of this side.
    let failed = |why: &dyn std::fmt::Display| {
        let _ = to.blocking_send(Arrived::Failed(redaction::sentence(&why.to_string())));
    };
    let mut response = match request(url, proxy, authorization) {
        Ok(response) => response,
        Err(error) => return failed(&error),
    };
    let body = response.body_mut();
    if to.blocking_send(Arrived::Begins(body.content_length())).is_err() {
        return;
    }
    let mut body = body.with_config().limit(MOST + 1).reader();
    loop {
        match piece_of(&mut body) {
            Ok(piece) => {
                let last = piece.is_empty();
                if to.blocking_send(Arrived::Piece(piece)).is_err() || last {
                    return;
                }
            }
            Err(error) => return failed(&error),
        }
    }
}

fn request(
    url: &str,
    proxy: Option<&str>,
    authorization: Option<&str>,
) -> Result<http::Response<ureq::Body>, ureq::Error> {
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::PlatformVerifier)
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    let agent = ureq::Agent::config_builder()
        .https_only(true)
        .tls_config(tls)
        .proxy(proxy.map(ureq::Proxy::new).transpose()?)
        .timeout_global(Some(WITHIN))
        .timeout_connect(Some(STALLED))
        .timeout_recv_response(Some(STALLED))
        .timeout_per_read(Some(STALLED))
        .redirect_auth_headers(RedirectAuthHeaders::Never)
        .user_agent(concat!("transship/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent();
    let request = agent.get(url);
    match authorization {
        // Where the server sends the client elsewhere they do not go along.
        Some(value) => request.header(http::header::AUTHORIZATION, value).call(),
        None => request.call(),
    }
}

fn piece_of(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE);
    reader.take(PIECE as u64).read_to_end(&mut piece)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The clock goes on only where there is a deadline.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_given_up() {
        let place = tempfile::tempdir().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/archive", silent.local_addr().unwrap());
        let into = HostPath::new("/archive").unwrap();
        let fetched = fetch(&Files::new(place.path()), &url, None, &into).await;
        let error = fetched.unwrap_err().to_string();
        assert!(error.contains("not all of it came within 960 s"), "{error}");
    }
}
