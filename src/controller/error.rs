//! What can go wrong in the controller.

use std::net::SocketAddr;

use crate::api::outage;

/// What the controller cannot go on with, or tries again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("{doing}: {cause}")]
    Api {
        /// What it was for.
        doing: String,
        /// Why it failed.
        cause: Box<kube::Error>,
    },
    /// The admin server could not listen or serve.
    #[error("serving on {address}: {cause}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The metrics could not be made.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Nodes are under way.
    #[error(
        "nodes are under way: {0}. Wait until they have ended, or delete their RuntimeMigration, which waits for them; \
         then try again"
    )]
    Busy(String),
    /// A watch ended before its first list was complete.
    #[error("a watch ended before its first list was complete")]
    WatchEnded,
}

impl Error {
    /// Another writer was faster; what was seen is old.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api { cause, .. }
            if matches!(&**cause, kube::Error::Api(status) if status.code == 409))
    }

    /// See [`outage::may_pass`].
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Api { cause, .. } => outage::may_pass(cause),
            Self::Listen { .. } | Self::Metrics(_) | Self::Busy(_) | Self::WatchEnded => false,
        }
    }

    /// A bounded label for metrics.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Api { .. } if self.is_conflict() => "conflict",
            Self::Api { cause, .. } => match &**cause {
                kube::Error::Api(status) if status.code == 403 => "forbidden",
                kube::Error::Api(_) => "refused",
                cause if outage::may_pass(cause) => "unreachable",
                _ => "internal",
            },
            Self::Listen { .. } | Self::Metrics(_) | Self::Busy(_) | Self::WatchEnded => "internal",
        }
    }
}

pub(super) trait IntoError<T> {
    /// Names what the request was for.
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> IntoError<T> for Result<T, kube::Error> {
    fn during(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|cause| Error::Api {
            doing: doing(),
            cause: Box::new(cause),
        })
    }
}
