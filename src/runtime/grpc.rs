//! gRPC over a unix socket: the way to a CRI and to containerd's own API.

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::transport::{Channel, Endpoint};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to who listens at `socket`.
///
/// # Errors
/// When nobody does; the cause.
pub(super) async fn connect(socket: &Path) -> Result<Channel, String> {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The host of this address becomes `:authority`, which must not be empty.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT);
    match timeout(CONNECT, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => connected.map_err(|error| chain(&error)),
        Err(_) => Err(format!("no answer within {} s", CONNECT.as_secs())),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
