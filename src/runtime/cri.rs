//! A runtime's CRI (`runtime.v1`) over its unix socket. Every call has a deadline.

use std::{path::Path, path::PathBuf, time::Duration};

pub use k8s_cri::v1::Image;
use k8s_cri::v1::{
    CgroupDriver, Container, ContainerState, ContainerStatus, ContainerStatusRequest, ImageFsInfoRequest,
    ImageSpec, ImageStatusRequest, ListContainersRequest, ListImagesRequest, ListPodSandboxRequest,
    PodSandbox, PodSandboxConfig, PodSandboxStatus, PodSandboxStatusRequest, PodSandboxStatusResponse,
    PullImageRequest, RemoveContainerRequest, RemoveImageRequest, RemovePodSandboxRequest,
    RunPodSandboxRequest, RuntimeConfigRequest, StatusRequest, StopContainerRequest, StopPodSandboxRequest,
    VersionRequest, VersionResponse, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

use super::{RuntimeError, grpc};

/// How long a runtime may take to say how it is: whoever asks that asks again.
const ABOUT: Duration = Duration::from_secs(10);
/// How long questions and requests may take.
#[derive(Clone, Copy, Debug)]
struct Deadlines {
    /// A question.
    question: Duration,
    /// To make, stop or remove a sandbox or a container: its CNI plugins run in it.
    sandbox: Duration,
}
/// What kubelets allow (`runtimeRequestTimeout`).
const PATIENT: Deadlines = Deadlines {
    question: Duration::from_secs(120),
    sandbox: Duration::from_secs(120),
};
/// Where the node does not serve, and there is another way.
const HURRIED: Deadlines = Deadlines {
    question: Duration::from_secs(20),
    sandbox: Duration::from_secs(30),
};
/// Longest answer, in bytes: the kubelet's own limit.
const LONGEST: usize = 16 * 1024 * 1024;

/// What a runtime says of itself over CRI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// `RuntimeName`.
    pub name: String,
    /// `RuntimeVersion`.
    pub version: String,
    /// `RuntimeApiVersion`.
    pub api_version: String,
    /// Condition `RuntimeReady`.
    pub runtime_ready: bool,
    /// Condition `NetworkReady`.
    pub network_ready: bool,
    /// The cgroup driver that `RuntimeConfig` names; absent where the runtime does not know the call.
    pub cgroup_driver: Option<CgroupDriver>,
}

/// A runtime's CRI.
#[derive(Clone, Debug)]
pub struct Cri {
    socket: PathBuf,
    deadlines: Deadlines,
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    /// Connects to the CRI behind a unix socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path) -> Result<Self, RuntimeError> {
        let channel = grpc::connect(socket).await.map_err(|cause| {
            RuntimeError::because(format_args!("no CRI answers at {}", socket.display()), cause)
        })?;
        Ok(Self {
            socket: socket.to_path_buf(),
            deadlines: PATIENT,
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(LONGEST),
            images: ImageServiceClient::new(channel).max_decoding_message_size(LONGEST),
        })
    }

    /// The same CRI for a caller that cannot wait, and has another way.
    #[must_use]
    pub const fn hurried(mut self) -> Self {
        self.deadlines = HURRIED;
        self
    }

    /// `Version`, `Status` and `RuntimeConfig`.
    ///
    /// # Errors
    /// When it does not answer in time, or does not serve `runtime.v1`.
    pub async fn about(&self) -> Result<About, RuntimeError> {
        let version = self.version().await?;
        let mut same = self.runtime.clone();
        let status = self
            .ask("Status", ABOUT, same.status(StatusRequest::default()))
            .await?;
        let mut same = self.runtime.clone();
        let asked = same.runtime_config(RuntimeConfigRequest::default());
        // A new call (KEP-4033): runtimes that do not know it say `Unimplemented`, and that is an answer.
        let config = match timeout(ABOUT, asked).await {
            Ok(Ok(answer)) => answer.into_inner().linux,
            Ok(Err(_)) | Err(_) => None,
        };
        let conditions = status.status.unwrap_or_default().conditions;
        let holds = |name: &str| {
            conditions
                .iter()
                .any(|condition| condition.r#type == name && condition.status)
        };
        Ok(About {
            name: version.runtime_name,
            version: version.runtime_version,
            api_version: version.runtime_api_version,
            runtime_ready: holds("RuntimeReady"),
            network_ready: holds("NetworkReady"),
            cgroup_driver: config.map(|linux| linux.cgroup_driver()),
        })
    }

    /// `Version`: the call that needs least of the runtime.
    ///
    /// # Errors
    /// When it does not answer in time, or does not serve `runtime.v1`.
    pub async fn version(&self) -> Result<VersionResponse, RuntimeError> {
        let mut client = self.runtime.clone();
        let asked = client.version(VersionRequest::default());
        self.ask("Version", ABOUT, asked).await
    }

    /// All sandboxes, ready or not.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn sandboxes(&self) -> Result<Vec<PodSandbox>, RuntimeError> {
        let mut client = self.runtime.clone();
        let asked = client.list_pod_sandbox(ListPodSandboxRequest::default());
        Ok(self
            .ask("ListPodSandbox", self.deadlines.question, asked)
            .await?
            .items)
    }

    /// What is known of a sandbox; nothing when it is gone.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn sandbox(&self, id: &str) -> Result<Option<PodSandboxStatus>, RuntimeError> {
        let answer = self.sandbox_status(id, false).await?;
        Ok(answer.and_then(|answer| answer.status))
    }

    /// The same with what the runtime tells of it beyond the CRI.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn describe_sandbox(&self, id: &str) -> Result<Option<PodSandboxStatusResponse>, RuntimeError> {
        self.sandbox_status(id, true).await
    }

    async fn sandbox_status(
        &self,
        id: &str,
        verbose: bool,
    ) -> Result<Option<PodSandboxStatusResponse>, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose,
        };
        let verb = format!("PodSandboxStatus {id}");
        self.ask_found(&verb, self.deadlines.question, client.pod_sandbox_status(request))
            .await
    }

    /// All containers, running or not.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn containers(&self) -> Result<Vec<Container>, RuntimeError> {
        let mut client = self.runtime.clone();
        let asked = client.list_containers(ListContainersRequest::default());
        Ok(self
            .ask("ListContainers", self.deadlines.question, asked)
            .await?
            .containers)
    }

    async fn container_status(&self, id: &str) -> Result<Option<ContainerStatus>, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let verb = format!("ContainerStatus {id}");
        let answer = self
            .ask_found(&verb, self.deadlines.question, client.container_status(request))
            .await?;
        Ok(answer.and_then(|answer| answer.status))
    }

    /// The paths on the host of a container's bind mounts; empty if it is gone.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn mounts(&self, id: &str) -> Result<Vec<String>, RuntimeError> {
        let status = self.container_status(id).await?.unwrap_or_default();
        Ok(status.mounts.into_iter().map(|mount| mount.host_path).collect())
    }

    /// How a container ended: its exit code, and the reason and the message that its runtime gives (`StartError`); nothing while it
    /// runs, or if it is gone.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn ended(&self, id: &str) -> Result<Option<(i32, String, String)>, RuntimeError> {
        let status = self.container_status(id).await?;
        let ended = status.filter(|status| status.state() == ContainerState::ContainerExited);
        Ok(ended.map(|status| (status.exit_code, status.reason, status.message)))
    }

    /// Makes a sandbox and returns its id.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn run_sandbox(&self, config: PodSandboxConfig) -> Result<String, RuntimeError> {
        let mut client = self.runtime.clone();
        let request = RunPodSandboxRequest {
            config: Some(config),
            runtime_handler: String::new(),
        };
        Ok(self
            .ask(
                "RunPodSandbox",
                self.deadlines.sandbox,
                client.run_pod_sandbox(request),
            )
            .await?
            .pod_sandbox_id)
    }

    /// Ends what runs in a sandbox and takes it off the network (CNI DEL); one that is gone is stopped.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn stop_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = StopPodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.ask_found(
            &format!("StopPodSandbox {id}"),
            self.deadlines.sandbox,
            client.stop_pod_sandbox(request),
        )
        .await?;
        Ok(())
    }

    /// Removes a sandbox with its containers; one that is gone is removed.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn remove_sandbox(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = RemovePodSandboxRequest {
            pod_sandbox_id: id.to_owned(),
        };
        self.ask_found(
            &format!("RemovePodSandbox {id}"),
            self.deadlines.sandbox,
            client.remove_pod_sandbox(request),
        )
        .await?;
        Ok(())
    }

    /// Ends a container: its stop signal, `grace_secs` to obey, then SIGKILL. One that is gone has ended.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn stop_container(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let within = self.deadlines.sandbox + Duration::from_secs(grace_secs.into());
        let request = StopContainerRequest {
            container_id: id.to_owned(),
            timeout: grace_secs.into(),
        };
        self.ask_found(
            &format!("StopContainer {id}"),
            within,
            client.stop_container(request),
        )
        .await?;
        Ok(())
    }

    /// Removes a container; one that is gone is removed.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn remove_container(&self, id: &str) -> Result<(), RuntimeError> {
        let mut client = self.runtime.clone();
        let request = RemoveContainerRequest {
            container_id: id.to_owned(),
        };
        self.ask_found(
            &format!("RemoveContainer {id}"),
            self.deadlines.sandbox,
            client.remove_container(request),
        )
        .await?;
        Ok(())
    }

    /// All images.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn images(&self) -> Result<Vec<Image>, RuntimeError> {
        let mut client = self.images.clone();
        Ok(self
            .ask(
                "ListImages",
                self.deadlines.question,
                client.list_images(ListImagesRequest::default()),
            )
            .await?
            .images)
    }

    /// The image that a name or an id stands for: what the kubelet asks before it starts a container.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let mut client = self.images.clone();
        let image = Some(ImageSpec {
            image: name.to_owned(),
            ..Default::default()
        });
        let request = ImageStatusRequest {
            image,
            verbose: false,
        };
        let verb = format!("ImageStatus {name}");
        Ok(self
            .ask_found(&verb, self.deadlines.question, client.image_status(request))
            .await?
            .and_then(|answer| answer.image))
    }

    /// Lets the runtime pull an image, for which nobody has to log in.
    ///
    /// # Errors
    /// The runtime's own words; or when it has not pulled it in time.
    pub async fn pull_image(&self, name: &str, within: Duration) -> Result<(), RuntimeError> {
        let mut client = self.images.clone();
        let image = Some(ImageSpec {
            image: name.to_owned(),
            ..Default::default()
        });
        let request = PullImageRequest {
            image,
            ..Default::default()
        };
        self.ask(&format!("PullImage {name}"), within, client.pull_image(request))
            .await?;
        Ok(())
    }

    /// Where the runtime keeps its images (`ImageFsInfo`): a path of the host, in the form that the runtime gives it.
    ///
    /// # Errors
    /// When it does not answer in time, or names no place.
    pub async fn image_store(&self) -> Result<String, RuntimeError> {
        let mut client = self.images.clone();
        let asked = client.image_fs_info(ImageFsInfoRequest::default());
        let answer = self.ask("ImageFsInfo", self.deadlines.question, asked).await?;
        let places = answer.image_filesystems.into_iter();
        let mut named = places.filter_map(|place| place.fs_id).map(|id| id.mountpoint);
        named.find(|place| !place.is_empty()).ok_or_else(|| {
            RuntimeError::new(format!(
                "ImageFsInfo at {}: it names no place of the images",
                self.socket.display()
            ))
        })
    }

    /// Removes a name of an image, and the image with its last one, or the image of this id; what is not there is removed.
    ///
    /// # Errors
    /// The runtime's own words.
    pub async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let mut client = self.images.clone();
        let image = Some(ImageSpec {
            image: name.to_owned(),
            ..Default::default()
        });
        let verb = format!("RemoveImage {name}");
        let asked = client.remove_image(RemoveImageRequest { image });
        self.ask_found(&verb, self.deadlines.question, asked).await?;
        Ok(())
    }

    /// The socket, for the tools of the runtime.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    async fn ask<T>(
        &self,
        verb: &str,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RuntimeError> {
        let missing = || RuntimeError::new(format!("{} at {}: not found", verb, self.socket.display()));
        self.ask_found(verb, within, call).await?.ok_or_else(missing)
    }

    /// The answer, or nothing when the object is not there.
    async fn ask_found<T>(
        &self,
        verb: &str,
        within: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<Option<T>, RuntimeError> {
        let failed = format!("{verb} at {}", self.socket.display());
        match timeout(within, call).await {
            Ok(Ok(answer)) => Ok(Some(answer.into_inner())),
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
            Ok(Err(status)) => {
                let why = match status.code() {
                    Code::Unimplemented => {
                        "the runtime does not serve CRI runtime.v1; its CRI plugin is disabled or did not load"
                    }
                    _ => status.message(),
                };
                Err(RuntimeError::caused(format!("{failed}: {why}"), status))
            }
            Err(_) => Err(RuntimeError::new(format!(
                "{failed}: no answer within {} s",
                within.as_secs()
            ))),
        }
    }
}
