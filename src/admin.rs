//! The HTTP server that probes and Prometheus ask: `/healthz`, `/readyz`, `/metrics`. It shows nothing else.
//!
//! Everybody on the network can reach it. So a connection serves one request, has a deadline and small buffers, and
//! their number is limited: the oldest gives way to a new one, so that connections that say nothing keep no probe out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::metrics::Metrics;

/// Most connections at a time.
const CONNECTIONS: usize = 64;
/// How long a client may take to send the header of its request.
const HEADER_TIME: Duration = Duration::from_secs(5);
/// How long a connection may last.
const LIFETIME: Duration = Duration::from_secs(15);
/// Most bytes of a request's header, and of what is buffered.
const BUFFER: usize = 8 * 1024;
/// Most fields of a request's header.
const FIELDS: usize = 32;
/// How long no connection is accepted after the system refused one.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether the process can do its work; shared between the one who knows and the server.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Says whether the process can do its work.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, ready: Ready, metrics: Metrics) -> std::convert::Infallible {
    let router = router(ready, metrics);
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS);
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client is gone already, or descriptors have run out.
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let connection = tokio::spawn(connection(stream, router.clone()));
        open.push_back(connection.abort_handle());
    }
}

/// Serves one request of a connection.
async fn connection(stream: TcpStream, router: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(BUFFER)
        .max_headers(FIELDS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(LIFETIME, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(_) => tracing::debug!("a connection lasted too long"),
    }
}

fn router(ready: Ready, metrics: Metrics) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(readyz).with_state(ready))
        .route("/metrics", get(text).with_state(metrics))
}

async fn readyz(State(ready): State<Ready>) -> (StatusCode, &'static str) {
    if ready.get() {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready yet")
    }
}

async fn text(State(metrics): State<Metrics>) -> Response {
    match metrics.text() {
        Ok(text) => ([(header::CONTENT_TYPE, Metrics::content_type())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tower::ServiceExt as _;

    async fn status(router: &Router, path: &str) -> StatusCode {
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap().status()
    }

    #[tokio::test]
    async fn readiness_follows_the_one_who_knows() {
        let ready = Ready::default();
        let router = router(ready.clone(), Metrics::new().unwrap());
        assert_eq!(status(&router, "/healthz").await, StatusCode::OK);
        assert_eq!(status(&router, "/readyz").await, StatusCode::SERVICE_UNAVAILABLE);
        ready.set(true);
        assert_eq!(status(&router, "/readyz").await, StatusCode::OK);
        assert_eq!(status(&router, "/metrics").await, StatusCode::OK);
        assert_eq!(status(&router, "/anything").await, StatusCode::NOT_FOUND);
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        // A reset ends what was refused.
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn silent_and_unfinished_connections_keep_no_probe_out() {
        const PROBE: &str = "GET /healthz HTTP/1.1\r\nHost: node\r\n\r\n";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Ready::default(), Metrics::new().unwrap()));
        let mut attack = Vec::new();
        for number in 0..1000 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 0 {
                stream
                    .write_all(b"GET /metrics HTTP/1.1\r\nX-Unfinished: ")
                    .await
                    .unwrap();
            }
            attack.push(stream);
        }
        assert!(ask(address, PROBE).await.starts_with("HTTP/1.1 200 OK"));
        // Those that had to give way are closed.
        let mut closed = 0;
        for stream in &mut attack {
            let mut byte = [0];
            let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
            closed += usize::from(read.is_ok());
        }
        assert!(closed >= 1000 - CONNECTIONS, "{closed} of 1000 are closed");
        // A header without an end is refused long before it fills the memory.
        let endless = format!("GET /metrics HTTP/1.1\r\nX-Endless: {}", "x".repeat(64 * BUFFER));
        assert!(!ask(address, &endless).await.contains("200 OK"));
        let many = format!(
            "GET /metrics HTTP/1.1\r\n{}\r\n",
            "X-Many: 1\r\n".repeat(FIELDS + 1)
        );
        assert!(ask(address, &many).await.starts_with("HTTP/1.1 431"));
        assert!(ask(address, PROBE).await.starts_with("HTTP/1.1 200 OK"));
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_does_not_end_is_waited_for_a_while_only() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Ready::default(), Metrics::new().unwrap()));
        let begun = tokio::time::Instant::now();
        assert!(
            !ask(address, "GET /healthz HTTP/1.1\r\nX-Unfinished: ")
                .await
                .contains("200 OK")
        );
        assert!(begun.elapsed() < LIFETIME);
        server.abort();
    }
}
