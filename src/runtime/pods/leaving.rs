//! Sandboxes leave their network without their server, by libcni's cache: a few plugins at a time, and within a limit, for the node
//! does not serve meanwhile.

use std::{collections::BTreeMap, time::Duration};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

use super::PLUGINS_AT_ONCE;
use crate::runtime::cni_del::{Attachment, Network, attachments_everywhere};

/// How long the network of all pods together may take.
const WITHIN: Duration = Duration::from_secs(60);

/// What sandboxes have of their network.
#[derive(Debug)]
pub(super) struct Leaving<'a> {
    network: Network<'a>,
    attachments: BTreeMap<String, Vec<Attachment>>,
    /// Files of the cache that are no attachments, in sentences.
    pub(super) wrong: Vec<String>,
    plugins: Semaphore,
    /// Until when plugins may run.
    until: Instant,
}

impl<'a> Leaving<'a> {
    /// What stands in libcni's cache now.
    pub(super) fn new(network: Network<'a>) -> Self {
        let (attachments, wrong) = attachments_everywhere(network.files);
        Self {
            network,
            attachments,
            wrong,
            plugins: Semaphore::new(PLUGINS_AT_ONCE),
            until: Instant::now() + WITHIN,
        }
    }

    /// Whether a sandbox is in a network.
    pub(super) fn is_attached(&self, sandbox: &str) -> bool {
        self.attachments.contains_key(sandbox)
    }

    /// Takes a sandbox off its networks. `netns` is its network namespace, empty when it is gone. Returns a sentence for each
    /// network that it could not leave.
    pub(super) async fn leave(&self, sandbox: &str, netns: &str) -> Vec<String> {
        let mut left = Vec::new();
        for attachment in self.attachments.get(sandbox).into_iter().flatten() {
            let detached = async {
                let _permit = self.plugins.acquire().await;
                self.network.detach(attachment, netns).await
            };
            let detached = timeout_at(self.until, detached).await.unwrap_or_else(|_| {
                Err(format!(
                    "sandbox {sandbox} was not taken off its network within {} s",
                    WITHIN.as_secs()
                ))
            });
            left.extend(detached.err());
        }
        left
    }
}
