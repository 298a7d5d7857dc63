//! gRPC over a unix socket: the way to a CRI and to containerd's own API.

use std::{path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};
use tonic::transport::{Channel, Endpoint};

use super::RuntimeError;
use crate::plan::causes;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Connects to who listens at `socket`.
///
/// # Errors
/// When nobody does; the cause.
pub(super) async fn connect(socket: &Path) -> Result<Channel, RuntimeError> {
    let path = socket.to_path_buf();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The host of this address becomes `:authority`, which must not be empty.
    let endpoint = Endpoint::from_static("http://localhost").connect_timeout(CONNECT);
    match timeout(CONNECT, endpoint.connect_with_connector(connector)).await {
        Ok(connected) => connected.map_err(|error| RuntimeError::caused(causes::in_one_line(&error), error)),
        Err(_) => Err(RuntimeError::new(format!(
            "no answer within {} s",
            CONNECT.as_secs()
        ))),
    }
}
