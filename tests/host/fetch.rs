//! Fetching over HTTPS from a real server: its certificate must be one that the host trusts, and what comes is what the
//! server has, or an error that says why. The host's certificates are those of `SSL_CERT_FILE` here, which a process
//! reads once; so every fetch is a process of its own.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use transship::{
    host::{fetch, files::Files},
    plan::{digest::Digest, host_path::HostPath},
};

/// What the process that fetches is told.
const URL: &str = "TRANSSHIP_TEST_URL";
const PROXY: &str = "TRANSSHIP_TEST_PROXY";
const ROOT: &str = "TRANSSHIP_TEST_ROOT";

fn archive() -> Vec<u8> {
    (0..3_000_000u32).flat_map(u32::to_le_bytes).collect()
}

/// What the process does that fetches.
fn fetch_once(url: &str) {
    let proxy = std::env::var(PROXY).ok();
    let files = Files::new(std::env::var(ROOT).unwrap());
    let clock = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let into = HostPath::new("/archive").unwrap();
    // Once a part has come the clock goes on only to the deadline.
    let skip = async {
        while !url.ends_with("/stalls") || files.read(&into).unwrap().is_none_or(|bytes| bytes.is_empty()) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        tokio::time::pause();
        std::future::pending::<()>().await;
    };
    let fetched = clock.block_on(async {
        tokio::select! {
            fetched = fetch::fetch(&files, url, proxy.as_deref(), &into) => fetched,
            () = skip => unreachable!("it waits without end"),
        }
    });
    match fetched {
        Ok(digest) => println!("fetched {digest}"),
        Err(error) => println!("error: {error}"),
    }
}

/// A server with a certificate for 127.0.0.1 of an authority of its own.
struct Server {
    port: u16,
    authority: tempfile::NamedTempFile,
    proxied: Arc<AtomicU32>,
}

impl Server {
    fn start() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let mut authority = tempfile::NamedTempFile::new().unwrap();
        authority.write_all(issuer.pem().as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .unwrap();
        let config = Arc::new(config);
        let port = listen(move |stream, port| {
            let connection = ServerConnection::new(config.clone()).unwrap();
            serve(StreamOwned::new(connection, stream), port);
        });
        Self {
            port,
            authority,
            proxied: Arc::default(),
        }
    }

    /// A proxy that tunnels to whatever it is asked for.
    fn proxy(&self) -> u16 {
        let count = self.proxied.clone();
        listen(move |mut stream, _| {
            let request = head(&mut stream);
            let to = request
                .strip_prefix("CONNECT ")
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert!(request.contains("Basic bWU6cHc="), "{request}");
            let mut server = TcpStream::connect(to).unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let (mut there, mut back) = (server.try_clone().unwrap(), stream.try_clone().unwrap());
            thread::spawn(move || std::io::copy(&mut stream, &mut there));
            let _ = std::io::copy(&mut server, &mut back);
        })
    }

    /// Fetches in a process that trusts the authority, or not.
    fn fetch(&self, url: &str, trusted: bool, proxy: Option<&str>) -> (String, tempfile::TempDir) {
        self.fetch_into(tempfile::tempdir().unwrap(), url, trusted, proxy)
    }

    fn fetch_into(
        &self,
        root: tempfile::TempDir,
        url: &str,
        trusted: bool,
        proxy: Option<&str>,
    ) -> (String, tempfile::TempDir) {
        let nobody = tempfile::NamedTempFile::new().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "fetch::what_the_server_has_arrives", "--nocapture"])
            .env(URL, url)
            .env(ROOT, root.path())
            .env_remove("SSL_CERT_DIR")
            .env(
                "SSL_CERT_FILE",
                if trusted {
                    self.authority.path()
                } else {
                    nobody.path()
                },
            );
        if let Some(proxy) = proxy {
            command.env(PROXY, proxy);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        (said, root)
    }

    fn url(&self, path: &str) -> String {
        format!("https://127.0.0.1:{}{path}", self.port)
    }
}

/// Serves every connection on a thread of its own.
fn listen(serve: impl Fn(TcpStream, u16) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream.unwrap(), port));
        }
    });
    port
}

/// The head of a request.
fn head(stream: &mut impl std::io::Read) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn serve(mut stream: StreamOwned<ServerConnection, TcpStream>, port: u16) {
    let request = head(&mut stream);
    let (body, cut, stalls) = (archive(), request.contains("/cut "), request.contains("/stalls "));
    let authorized = request
        .to_ascii_lowercase()
        .contains("authorization: basic bwu6chc=");
    let length = body.len();
    let answer = match request.split(' ').nth(1).unwrap_or_default() {
        "/moved" => format!(
            "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{port}/archive\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        "/plain" => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/archive\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            .to_owned(),
        "/private" | "/private-moved" if !authorized => {
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned()
        }
        "/private-moved" => format!(
            "HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:{port}/public\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        ),
        "/public" if authorized => "HTTP/1.1 500 They came along\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        "/archive" | "/cut" | "/stalls" | "/private" | "/public" => {
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
        }
        "/large" => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 50),
        _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
    };
    // One that trusts nobody does not ask.
    if stream.write_all(answer.as_bytes()).is_ok() && answer.contains("close") {
        if answer.starts_with("HTTP/1.1 200") {
            let _ = stream.write_all(if cut || stalls { &body[..length / 2] } else { &body });
        }
        if stalls {
            let _ = stream.flush();
            thread::park();
        }
        stream.conn.send_close_notify();
        let _ = stream.flush();
    }
}

fn is_there(root: &Path) -> bool {
    std::fs::read(root.join("archive")).is_ok_and(|bytes| bytes == archive())
}

#[test]
fn what_the_server_has_arrives() {
    if let Ok(url) = std::env::var(URL) {
        return fetch_once(&url);
    }
    let server = Server::start();
    let wanted = format!("fetched {}", Digest::of(archive()));
    for path in ["/archive", "/moved"] {
        let (said, root) = server.fetch(&server.url(path), true, None);
        assert!(said.contains(&wanted) && is_there(root.path()), "{path}: {said}");
    }
    let proxy = format!("http://me:pw@127.0.0.1:{}", server.proxy());
    let (said, root) = server.fetch(&server.url("/archive"), true, Some(&proxy));
    assert!(said.contains(&wanted) && is_there(root.path()), "{said}");
    assert_eq!(server.proxied.load(Ordering::SeqCst), 1);
}

#[test]
fn credentials_of_the_node_go_to_their_server_alone() {
    let server = Server::start();
    let wanted = format!("fetched {}", Digest::of(archive()));
    let with = |path: &str, machine: &str, mode| {
        let root = tempfile::tempdir().unwrap();
        let entry = format!("machine {machine} login me password pw\n");
        Files::new(root.path())
            .write(
                &HostPath::new(fetch::CREDENTIALS).unwrap(),
                entry.as_bytes(),
                mode,
            )
            .unwrap();
        server.fetch_into(root, &server.url(path), true, None).0
    };
    for path in ["/private", "/private-moved"] {
        let said = with(path, "127.0.0.1", 0o600);
        assert!(said.contains(&wanted), "{path}: {said}");
        let said = with(path, "elsewhere", 0o600);
        assert!(said.contains("401"), "{path}: {said}");
    }
    let said = with("/private", "127.0.0.1", 0o644);
    assert!(said.contains("chmod 600") && !said.contains("pw"), "{said}");
}

#[test]
fn what_does_not_arrive_is_said() {
    let server = Server::start();
    for (path, trusted, reason) in [
        ("/archive", false, "certificate"),
        ("/none?sig=secret", true, "/none: http status: 404"),
        ("/plain", true, "https"),
        ("/cut", true, "error: cannot fetch"),
        ("/large", true, "make room"),
        ("/stalls", true, "not all of it came within 960 s"),
    ] {
        let (said, root) = server.fetch(&server.url(path), trusted, None);
        let said = said.to_lowercase();
        assert!(
            said.contains("error: ") && said.contains(reason),
            "{path}: {said}"
        );
        assert!(
            !said.contains("secret") && !is_there(root.path()),
            "{path}: {said}"
        );
    }
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let (said, _) = server.fetch(&format!("https://127.0.0.1:{closed}/a"), true, None);
    assert!(said.contains("error: cannot fetch https://127.0.0.1"), "{said}");
}
