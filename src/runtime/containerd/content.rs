//! What containerd has of an image: blobs, and the directories of its snapshots.

use std::collections::HashMap;

use bytes::Bytes;
use containerd_client::{
    services::v1::{
        ReadContentRequest,
        content_client::ContentClient,
        snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest, snapshots_client::SnapshotsClient},
    },
    types::Mount,
};
use tokio::time::timeout;
use tonic::{Code, Response, Streaming};

use super::{Containerd, LEASE, SNAPSHOTTER, WITHIN, unless};
use crate::{
    plan::{digest::Digest, host_path::HostPath},
    runtime::RuntimeError,
};

/// The longest configuration or manifest that is read, in bytes.
const LONGEST: usize = 16 << 20;

/// A blob as it comes.
pub(crate) struct Blob {
    answers: Streaming<containerd_client::services::v1::ReadContentResponse>,
    from: Containerd,
    digest: String,
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Blob").field(&self.digest).finish()
    }
}

impl Blob {
    /// The next bytes of it; `None` at its end.
    ///
    /// # Errors
    /// When it does not come in time. A blob that is not there has no bytes, and no error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, RuntimeError> {
        let verb = format!("read blob {}", self.digest);
        let next = async { self.answers.message().await.map(Response::new) };
        let next = self.from.ask(&verb, unless(Code::NotFound, next)).await?;
        Ok(next.flatten().map(|answer| Bytes::from(answer.data)))
    }
}

impl Containerd {
    /// Begins to read a blob; `None` if there is none.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub(crate) async fn blob(&self, digest: &str) -> Result<Option<Blob>, RuntimeError> {
        let request = ReadContentRequest {
            digest: digest.to_owned(),
            ..Default::default()
        };
        let mut client = ContentClient::new(self.channel.clone());
        let verb = format!("read blob {digest}");
        let begun = self.ask_found(&verb, client.read(self.request(request))).await?;
        Ok(begun.map(|answers| Blob {
            answers,
            from: self.clone(),
            digest: digest.to_owned(),
        }))
    }

    /// A configuration or a manifest, of which the digest is checked; `None` if there is none.
    ///
    /// # Errors
    /// When it is damaged, too long, or does not come in time.
    pub(crate) async fn document(&self, digest: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        let Some(mut blob) = self.blob(digest).await? else {
            return Ok(None);
        };
        let verb = format!("read blob {digest}");
        let mut bytes = Vec::new();
        let reading = async {
            while let Some(more) = blob.next().await? {
                bytes.extend_from_slice(&more);
                if bytes.len() > LONGEST {
                    return Err(self.said(&verb, "it is too long"));
                }
            }
            Ok(())
        };
        match timeout(WITHIN, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(self.said(&verb, &format!("no end within {} s", WITHIN.as_secs()))),
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        if Digest::of(&bytes).as_str() != digest {
            return Err(self.said(&verb, "it has a different digest"));
        }
        Ok(Some(bytes))
    }

    /// The directories of a snapshot and of those below it, the lowest first, each with one layer. To be asked under a
    /// lease, which keeps them.
    ///
    /// # Errors
    /// When there is no such snapshot, or its directories cannot be told.
    pub(crate) async fn snapshot_directories(&self, name: &Digest) -> Result<Vec<HostPath>, RuntimeError> {
        let verb = format!("show snapshot {name}");
        let key = format!("{LEASE}-view-{name}");
        let mut client = SnapshotsClient::new(self.channel.clone());
        let leftover = RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: key.clone(),
        };
        self.ask_found(&verb, client.remove(self.request(leftover)))
            .await?;
        let view = ViewSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key,
            parent: name.to_string(),
            labels: HashMap::new(),
        };
        let shown = self.ask(&verb, client.view(self.request(view))).await?;
        let directories = lower(&shown.mounts).and_then(|paths| {
            let paths = paths.into_iter().map(HostPath::new);
            paths.collect::<Result<Vec<_>, _>>().ok()
        });
        directories.ok_or_else(|| {
            self.said(
                &verb,
                &format!("{SNAPSHOTTER} gives no directories: {:?}", shown.mounts),
            )
        })
    }
}

/// The directories that a mount to read from has, the lowest first: an overlay lists the uppermost first; where there
/// is one, it is bound.
fn lower(mounts: &[Mount]) -> Option<Vec<String>> {
    let [mount] = mounts else { return None };
    match &*mount.r#type {
        "overlay" => {
            let mut options = mount.options.iter();
            let listed = options.find_map(|option| option.strip_prefix("lowerdir="))?;
            Some(listed.rsplit(':').map(str::to_owned).collect())
        }
        "bind" => Some(vec![mount.source.clone()]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directories_of_a_view_are_in_its_mount() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            r#type: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let one = mount("bind", "/s/1/fs", &["ro", "rbind"]);
        let two = mount("overlay", "overlay", &["index=off", "lowerdir=/s/2/fs:/s/1/fs"]);
        assert_eq!(lower(std::slice::from_ref(&one)).unwrap(), ["/s/1/fs"]);
        assert_eq!(lower(std::slice::from_ref(&two)).unwrap(), ["/s/1/fs", "/s/2/fs"]);
        assert_eq!(lower(&[one, two]), None);
        assert_eq!(lower(&[mount("ext4", "/dev/x", &[])]), None);
    }
}
