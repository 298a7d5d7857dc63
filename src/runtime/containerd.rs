//! containerd's own API, in the namespace of Kubernetes: the image store that its CRI shows to the kubelet. Names of
//! images, blobs and snapshots are kept alive by references; what nothing refers to is removed by containerd's
//! garbage collection. A lease keeps what is being made until it is referred to.
//!
//! See containerd's `docs/garbage-collection.md` and `docs/content-flow.md`.

mod content;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use containerd_client::{
    services::v1::{
        AbortRequest, CreateImageRequest, CreateRequest, DeleteContainerRequest, DeleteImageRequest,
        DeleteRequest, GetContainerRequest, GetImageRequest, Image, ListContainersRequest, ListImagesRequest,
        ListNamespacesRequest, Plugin, PluginsRequest, UpdateImageRequest, UpdateRequest, WriteAction,
        WriteContentRequest,
        containers_client::ContainersClient,
        content_client::ContentClient,
        images_client::ImagesClient,
        introspection_client::IntrospectionClient,
        leases_client::LeasesClient,
        namespaces_client::NamespacesClient,
        sandbox::{StoreDeleteRequest, store_client::StoreClient},
        snapshots::{
            CommitSnapshotRequest, Kind, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest,
            snapshots_client::SnapshotsClient,
        },
    },
    types::{Descriptor, Mount},
};
use jiff::{SignedDuration, Timestamp};
use prost_types::FieldMask;
use tokio::time::timeout;
use tonic::{Code, Request, Response, Status, metadata::MetadataValue, transport::Channel};

use super::{RuntimeError, grpc};
use crate::plan::{digest::Digest, host_path::HostPath};

/// The namespace that the CRI plugin looks into; what lies in another is invisible to the kubelet.
const NAMESPACE: &str = "k8s.io";
/// The snapshotter whose layers have the form of Docker's `overlay2`.
const SNAPSHOTTER: &str = "overlayfs";
/// The one lease: only one plan is carried out on a host at a time.
const LEASE: &str = "transship";
/// When a lease that nobody ended is void, in hours.
const LEASE_HOURS: i64 = 2;
/// How long a request may take; one that waits for the garbage collection too.
const WITHIN: Duration = Duration::from_secs(120);

/// containerd.
#[derive(Clone, Debug)]
pub struct Containerd {
    socket: PathBuf,
    channel: Channel,
    leased: bool,
}

impl Containerd {
    /// Connects to containerd behind a unix socket, the one at which it serves its CRI too.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, RuntimeError> {
        let channel = grpc::connect(socket).await.map_err(|cause| {
            RuntimeError::because(
                format_args!("containerd at {} does not answer", socket.display()),
                cause,
            )
        })?;
        Ok(Self {
            socket: socket.to_path_buf(),
            channel,
            leased: false,
        })
    }

    /// The same, with a lease: what is made stays until [`Containerd::end_lease`], or until somebody refers to it.
    /// What an earlier lease kept that nobody refers to is removed before.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn lease(&self) -> Result<Self, RuntimeError> {
        self.end_lease().await?;
        let expires = Timestamp::now() + SignedDuration::from_hours(LEASE_HOURS);
        let request = CreateRequest {
            id: LEASE.to_owned(),
            labels: HashMap::from([("containerd.io/gc.expire".to_owned(), expires.to_string())]),
        };
        let mut client = LeasesClient::new(self.channel.clone());
        self.ask("make a lease", client.create(self.request(request)))
            .await?;
        Ok(Self {
            leased: true,
            ..self.clone()
        })
    }

    /// Ends the lease, and waits until everything is removed that nobody refers to.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn end_lease(&self) -> Result<(), RuntimeError> {
        let request = DeleteRequest {
            id: LEASE.to_owned(),
            sync: true,
        };
        let mut client = LeasesClient::new(self.channel.clone());
        let asked = self.ask_found("end the lease", client.delete(self.request(request)));
        asked.await.map(drop)
    }

    /// What a name stands for; nothing when there is no image of that name.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn target(&self, name: &str) -> Result<Option<Descriptor>, RuntimeError> {
        let request = GetImageRequest {
            name: name.to_owned(),
        };
        let mut client = ImagesClient::new(self.channel.clone());
        let found = self
            .ask_found(
                &format!("look up image {name}"),
                client.get(self.request(request)),
            )
            .await?;
        Ok(found
            .and_then(|answer| answer.image)
            .and_then(|image| image.target))
    }

    /// Gives an image a name, which is taken from any other image that has it.
    ///
    /// # Errors
    /// When it does not have it.
    pub async fn name(&self, name: &str, target: Descriptor) -> Result<(), RuntimeError> {
        let image = Some(Image {
            name: name.to_owned(),
            target: Some(target),
            ..Default::default()
        });
        let mut client = ImagesClient::new(self.channel.clone());
        let request = self.request(CreateImageRequest {
            image: image.clone(),
            ..Default::default()
        });
        let verb = format!("name an image {name}");
        if self.ask_new(&verb, client.create(request)).await?.is_none() {
            let request = self.request(UpdateImageRequest {
                image,
                ..Default::default()
            });
            self.ask(&verb, client.update(request)).await?;
        }
        Ok(())
    }

    /// Removes a name, and waits until everything is removed that nobody refers to. One that is not there is removed.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn remove_name(&self, name: &str) -> Result<(), RuntimeError> {
        let request = DeleteImageRequest {
            name: name.to_owned(),
            sync: true,
            ..Default::default()
        };
        let mut client = ImagesClient::new(self.channel.clone());
        let verb = format!("remove image {name}");
        let asked = self.ask_found(&verb, client.delete(self.request(request)));
        asked.await.map(drop)
    }

    /// Whether there is a complete snapshot of this name.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn has_snapshot(&self, name: &Digest) -> Result<bool, RuntimeError> {
        let request = StatSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: name.to_string(),
        };
        let mut client = SnapshotsClient::new(self.channel.clone());
        let found = self
            .ask_found(
                &format!("look up snapshot {name}"),
                client.stat(self.request(request)),
            )
            .await?;
        Ok(found
            .and_then(|answer| answer.info)
            .is_some_and(|info| info.kind() == Kind::Committed))
    }

    /// Begins the snapshot `name` on top of `parent`, and returns the empty directory to be filled. One that was
    /// begun before is thrown away. Nothing when somebody else has completed that snapshot.
    ///
    /// # Errors
    /// When it cannot be begun, or has no such directory.
    pub async fn begin_snapshot(
        &self,
        name: &Digest,
        parent: Option<&Digest>,
    ) -> Result<Option<HostPath>, RuntimeError> {
        let verb = format!("begin snapshot {name}");
        let mut client = SnapshotsClient::new(self.channel.clone());
        let request = self.request(RemoveSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: begun(name),
        });
        self.ask_found(&verb, client.remove(request)).await?;
        let request = self.request(PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            key: begun(name),
            parent: parent.map(Digest::to_string).unwrap_or_default(),
            labels: HashMap::from([("containerd.io/snapshot.ref".to_owned(), name.to_string())]),
        });
        let Some(prepared) = self.ask_new(&verb, client.prepare(request)).await? else {
            return Ok(None);
        };
        let directory = upper(&prepared.mounts).and_then(|path| HostPath::new(path).ok());
        directory.map(Some).ok_or_else(|| {
            self.said(
                &verb,
                &format!("{SNAPSHOTTER} gives no directory: {:?}", prepared.mounts),
            )
        })
    }

    /// Completes a snapshot that was begun; from here on others build on it.
    ///
    /// # Errors
    /// When it is not complete.
    pub async fn complete_snapshot(&self, name: &Digest) -> Result<(), RuntimeError> {
        let request = CommitSnapshotRequest {
            snapshotter: SNAPSHOTTER.to_owned(),
            name: name.to_string(),
            key: begun(name),
            labels: HashMap::new(),
        };
        let mut client = SnapshotsClient::new(self.channel.clone());
        let verb = format!("complete snapshot {name}");
        let asked = self.ask_new(&verb, client.commit(self.request(request)));
        asked.await.map(drop)
    }

    /// Writes a blob with labels and returns its descriptor. One that is there already gets the labels.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn write(
        &self,
        media_type: &str,
        bytes: Vec<u8>,
        labels: &[(String, String)],
    ) -> Result<Descriptor, RuntimeError> {
        let digest = Digest::of(&bytes);
        let size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        let labels: HashMap<String, String> = labels.iter().cloned().collect();
        let verb = format!("write blob {digest}");
        let mut client = ContentClient::new(self.channel.clone());
        let reference = format!("{LEASE}-{digest}");
        // What a containerd that died has received of it.
        let leftover = self.request(AbortRequest {
            r#ref: reference.clone(),
        });
        self.ask_found(&verb, client.abort(leftover)).await?;
        let message = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: reference,
            total: size,
            expected: digest.to_string(),
            offset: 0,
            data: bytes,
            labels: labels.clone(),
        };
        let request = self.request(futures::stream::iter([message]));
        let writing = async {
            // The answer to the commit ends the stream.
            let mut answers = client.write(request).await?.into_inner();
            while answers.message().await?.is_some() {}
            Ok(Response::new(()))
        };
        if self.ask_new(&verb, writing).await?.is_none() {
            let update_mask = Some(FieldMask {
                paths: labels.keys().map(|label| format!("labels.{label}")).collect(),
            });
            let info = Some(containerd_client::services::v1::Info {
                digest: digest.to_string(),
                labels,
                ..Default::default()
            });
            let request = self.request(UpdateRequest { info, update_mask });
            self.ask(&verb, client.update(request)).await?;
        }
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest: digest.to_string(),
            size,
            annotations: HashMap::new(),
        })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
        if self.leased {
            metadata.insert("containerd-lease", MetadataValue::from_static(LEASE));
        }
        request
    }

    /// Ids of the deprecated features that were used since containerd started, each once; empty before 1.6.27 and 1.7.12.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn deprecations(&self) -> Result<Vec<String>, RuntimeError> {
        let mut client = IntrospectionClient::new(self.channel.clone());
        let answer = self.ask("list deprecated features", client.server(())).await?;
        let mut ids: Vec<String> = answer
            .deprecations
            .into_iter()
            .map(|warning| warning.id)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }

    /// The OCI runtime specification in the record of a sandbox; `None` if there is no record.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn specification_of(&self, sandbox: &str) -> Result<Option<Vec<u8>>, RuntimeError> {
        let mut client = ContainersClient::new(self.channel.clone());
        let request = self.request(GetContainerRequest {
            id: sandbox.to_owned(),
        });
        let verb = format!("look up container {sandbox}");
        let found = self.ask_found(&verb, client.get(request)).await?;
        let container = found.and_then(|answer| answer.container);
        Ok(container
            .and_then(|container| container.spec)
            .map(|specification| specification.value))
    }

    /// Removes the record of a sandbox that has ended; its snapshot goes with the next garbage collection. One that is not there
    /// is removed.
    ///
    /// # Errors
    /// When it is still there.
    pub async fn forget_sandbox(&self, sandbox: &str) -> Result<(), RuntimeError> {
        let verb = format!("remove the record of sandbox {sandbox}");
        let mut store = StoreClient::new(self.channel.clone());
        let request = self.request(StoreDeleteRequest {
            sandbox_id: sandbox.to_owned(),
        });
        // containerd 1.6 has no records of sandboxes apart from those of their containers.
        let deleting = unless(Code::Unimplemented, async {
            unless(Code::NotFound, store.delete(request)).await
        });
        self.ask(&verb, deleting).await?;
        let mut client = ContainersClient::new(self.channel.clone());
        let request = self.request(DeleteContainerRequest {
            id: sandbox.to_owned(),
        });
        self.ask_found(&verb, client.delete(request)).await.map(drop)
    }

    /// Names of the images of Kubernetes with a label, whatever its value is.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn images_with_label(&self, label: &str) -> Result<Vec<String>, RuntimeError> {
        let filters = vec![format!("labels.{label:?}")];
        let mut client = ImagesClient::new(self.channel.clone());
        let request = self.request(ListImagesRequest { filters });
        let answer = self.ask("list the images", client.list(request)).await?;
        let images = answer.images.into_iter();
        Ok(images
            .filter(|image| image.labels.contains_key(label))
            .map(|image| image.name)
            .collect())
    }

    /// Namespace, id and runtime of every container whose runtime is not `usual`, in all namespaces.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn records_of_other_runtimes(
        &self,
        usual: &str,
    ) -> Result<Vec<(String, String, String)>, RuntimeError> {
        let mut client = NamespacesClient::new(self.channel.clone());
        let request = ListNamespacesRequest::default();
        let answer = self.ask("list the namespaces", client.list(request)).await?;
        let mut found = Vec::new();
        for namespace in answer.namespaces {
            let verb = format!("list the containers of namespace {}", namespace.name);
            let value = MetadataValue::try_from(&namespace.name)
                .map_err(|_| self.said(&verb, "its name is not ASCII"))?;
            // A list of all containers, each with its specification, is longer than a message may be.
            let filters = vec![format!("runtime.name!={usual:?}")];
            let mut request = Request::new(ListContainersRequest { filters });
            request.metadata_mut().insert("containerd-namespace", value);
            let mut client = ContainersClient::new(self.channel.clone());
            let listing = async {
                let mut answers = client.list_stream(request).await?.into_inner();
                let mut records = Vec::new();
                while let Some(answer) = answers.message().await? {
                    records.extend(answer.container);
                }
                Ok(Response::new(records))
            };
            for record in self.ask(&verb, listing).await? {
                let runtime = record.runtime.unwrap_or_default().name;
                if runtime != usual {
                    found.push((namespace.name.clone(), record.id, runtime));
                }
            }
        }
        Ok(found)
    }

    /// Why the CRI plugin did not load, in containerd's words; `None` if it did, or is switched off.
    ///
    /// # Errors
    /// When containerd does not answer.
    pub async fn cri_problem(&self) -> Result<Option<String>, RuntimeError> {
        let request = PluginsRequest { filters: Vec::new() };
        let mut client = IntrospectionClient::new(self.channel.clone());
        let answer = self.ask("list the plugins", client.plugins(request)).await?;
        let is_cri = |plugin: &Plugin| plugin.id == "cri" || plugin.r#type == "io.containerd.cri.v1";
        let mut failed = answer
            .plugins
            .into_iter()
            .filter(is_cri)
            .filter_map(|plugin| plugin.init_err);
        Ok(failed.next().map(|status| status.message))
    }

    async fn ask<T>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        match timeout(WITHIN, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                let sentence = format!("{}: {}", self.could_not(verb), status.message());
                Err(RuntimeError::caused(sentence, status))
            }
            Err(_) => Err(self.said(verb, &format!("no answer within {} s", WITHIN.as_secs()))),
        }
    }

    /// The answer, or nothing when the object is not there.
    async fn ask_found<T>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, RuntimeError> {
        self.ask(verb, unless(Code::NotFound, call)).await
    }

    /// The answer, or nothing when the object is there already.
    async fn ask_new<T>(
        &self,
        verb: &str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, RuntimeError> {
        self.ask(verb, unless(Code::AlreadyExists, call)).await
    }

    fn said(&self, verb: &str, cause: &str) -> RuntimeError {
        RuntimeError::new(format!("{}: {cause}", self.could_not(verb)))
    }

    fn could_not(&self, verb: &str) -> String {
        format!("containerd at {} could not {verb}", self.socket.display())
    }
}

/// An answer, or nothing when it is this code.
async fn unless<T>(
    code: Code,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<Option<T>>, Status> {
    match call.await {
        Ok(answer) => Ok(answer.map(Some)),
        Err(status) if status.code() == code => Ok(Response::new(None)),
        Err(status) => Err(status),
    }
}

/// The key of a snapshot until it is complete.
fn begun(name: &Digest) -> String {
    format!("{LEASE}-{name}")
}

/// The directory of a snapshot that takes what is written: the upper directory of an overlay, or, where nothing is
/// below it, what is bound.
fn upper(mounts: &[Mount]) -> Option<&str> {
    let [mount] = mounts else { return None };
    match &*mount.r#type {
        "overlay" => mount
            .options
            .iter()
            .find_map(|option| option.strip_prefix("upperdir=")),
        "bind" => Some(&mount.source),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_snapshot_is_in_its_mount() {
        let mount = |kind: &str, source: &str, options: &[&str]| Mount {
            r#type: kind.to_owned(),
            source: source.to_owned(),
            target: String::new(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
        };
        let first = mount("bind", "/snapshots/1/fs", &["rw", "rbind"]);
        let second = mount(
            "overlay",
            "overlay",
            &[
                "index=off",
                "workdir=/snapshots/2/work",
                "upperdir=/snapshots/2/fs",
                "lowerdir=/snapshots/1/fs",
            ],
        );
        assert_eq!(upper(std::slice::from_ref(&first)), Some("/snapshots/1/fs"));
        assert_eq!(upper(std::slice::from_ref(&second)), Some("/snapshots/2/fs"));
        assert_eq!(upper(&[mount("ext4", "/dev/mapper/snap", &[])]), None);
        assert_eq!(upper(&[first, second]), None);
    }
}
