//! A CRI behind a real unix socket, with state.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use futures::stream;
use k8s_cri::v1::{
    image_service_server::{ImageService, ImageServiceServer},
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
    *,
};
use serde_json::json;
use tokio::net::UnixListener;
use tonic::{Request, Response, Status, transport::Server};

use super::containerd_api::{Images, Leases};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) sandboxes: Vec<(PodSandbox, NamespaceMode)>,
    pub(crate) containers: Vec<Container>,
    /// The sandbox with a port of the node.
    pub(crate) host_port: String,
    /// What a new sandbox is at once.
    pub(crate) new_state: NewSandbox,
    pub(crate) network_ready: bool,
    /// The process of every sandbox.
    pub(crate) process: u32,
    /// The sandbox that ends, and cannot leave its network.
    pub(crate) sticks: String,
    pub(crate) log: Vec<String>,
}

/// A sandbox that stays ready, or ends at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum NewSandbox {
    #[default]
    Stays,
    Ends,
}

#[derive(Clone, Debug)]
pub(crate) struct Containerd {
    pub(crate) world: Arc<Mutex<World>>,
    /// The file that is the image store.
    images: PathBuf,
}

impl Containerd {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            world: Arc::default(),
            images: root.join("images"),
        }
    }

    /// Serves at the socket.
    pub(crate) fn serve(&self, socket: &Path) {
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(socket).unwrap();
        let incoming = stream::unfold(listener, |listener| async {
            let accepted = listener.accept().await.map(|(stream, _)| stream);
            Some((accepted, listener))
        });
        let server = Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .add_service(Images(self.clone()))
            .add_service(Leases(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
    }

    /// The names and ids in the store.
    pub(crate) fn records(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(&self.images).unwrap_or_default();
        text.lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .collect()
    }

    pub(crate) fn record(&self, name: &str, id: &str) {
        let mut records = self.records();
        records.push((name.to_owned(), id.to_owned()));
        self.keep(&records);
    }

    pub(crate) fn forget(&self, name: &str) {
        let mut records = self.records();
        records.retain(|(one, _)| one != name);
        self.keep(&records);
    }

    fn keep(&self, records: &[(String, String)]) {
        let lines: Vec<String> = records
            .iter()
            .map(|(name, id)| format!("{name} {id}\n"))
            .collect();
        std::fs::write(&self.images, lines.concat()).unwrap();
    }

    fn image(&self, id: &str) -> Image {
        let names = self
            .records()
            .into_iter()
            .filter(|(name, of)| of == id && name != id)
            .map(|(name, _)| name);
        let (repo_digests, repo_tags) = names.partition(|name| name.contains('@'));
        Image {
            id: id.to_owned(),
            repo_tags,
            repo_digests,
            ..Default::default()
        }
    }
}

/// Implements the service: what is given in braces, and `Unimplemented` for the rest.
macro_rules! runtime_service {
    ({ $($served:tt)* } $($name:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl RuntimeService for Containerd {
            type GetContainerEventsStream = stream::Empty<Result<ContainerEventResponse, Status>>;
            $($served)*
            $(async fn $name(&self, _: Request<$request>) -> Answer<$response> {
                Err(Status::unimplemented(stringify!($name)))
            })*
            async fn get_container_events(
                &self,
                _: Request<GetEventsRequest>,
            ) -> Answer<Self::GetContainerEventsStream> {
                Err(Status::unimplemented("get_container_events"))
            }
        }
    };
}

runtime_service! {
    {
        async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
            Ok(Response::new(VersionResponse {
                version: "0.1.0".into(),
                runtime_name: "containerd".into(),
                runtime_version: "1.6.20~ds1".into(),
                runtime_api_version: "v1".into(),
            }))
        }

        async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
            let condition = |name: &str, status| RuntimeCondition { r#type: name.into(), status, ..Default::default() };
            let network = self.world.lock().unwrap().network_ready;
            let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
            Ok(Response::new(StatusResponse { status: Some(RuntimeStatus { conditions }), ..Default::default() }))
        }

        async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
            let config = request.into_inner().config.unwrap();
            let mut world = self.world.lock().unwrap();
            if world.sandboxes.iter().any(|(one, _)| one.metadata == config.metadata) {
                return Err(Status::unknown("name is reserved"));
            }
            let linux = config.linux.unwrap();
            world.log.push(format!("run in {}", linux.cgroup_parent));
            let mode = linux.security_context.unwrap().namespace_options.unwrap().network();
            let id = format!("sandbox-{}", world.log.len());
            let state = match world.new_state {
                NewSandbox::Stays => PodSandboxState::SandboxReady,
                NewSandbox::Ends => PodSandboxState::SandboxNotready,
            };
            let metadata = config.metadata;
            let sandbox = PodSandbox { id: id.clone(), metadata, state: state.into(), ..Default::default() };
            world.sandboxes.push((sandbox, mode));
            Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id: id }))
        }

        async fn list_pod_sandbox(&self, _: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
            let items = self.world.lock().unwrap().sandboxes.iter().map(|(one, _)| one.clone()).collect();
            Ok(Response::new(ListPodSandboxResponse { items }))
        }

        async fn pod_sandbox_status(
            &self,
            request: Request<PodSandboxStatusRequest>,
        ) -> Answer<PodSandboxStatusResponse> {
            let PodSandboxStatusRequest { pod_sandbox_id: id, verbose } = request.into_inner();
            let world = self.world.lock().unwrap();
            let Some((one, mode)) = world.sandboxes.iter().find(|(one, _)| one.id == id) else {
                return Err(Status::not_found(id));
            };
            let options = Some(NamespaceOption { network: (*mode).into(), ..Default::default() });
            let linux = Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) });
            let status = Some(PodSandboxStatus { id: id.clone(), state: one.state, linux, ..Default::default() });
            let port = if world.host_port == one.id { 8888 } else { 0 };
            let config = json!({"pid": world.process, "config": {"port_mappings": [{"container_port": 8080, "host_port": port}]}});
            let info = verbose.then(|| ("info".to_owned(), config.to_string()));
            Ok(Response::new(PodSandboxStatusResponse { status, info: info.into_iter().collect(), ..Default::default() }))
        }

        async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
            let id = request.into_inner().pod_sandbox_id;
            let mut world = self.world.lock().unwrap();
            world.log.push(format!("stop sandbox {id}"));
            if world.sticks == id {
                let these = world.sandboxes.iter_mut().filter(|(one, _)| one.id == id);
                these.for_each(|(one, _)| one.set_state(PodSandboxState::SandboxNotready));
                return Err(Status::unknown("plugin type=\"calico\" failed (delete): connection refused"));
            }
            Ok(Response::new(Default::default()))
        }

        async fn remove_pod_sandbox(
            &self,
            request: Request<RemovePodSandboxRequest>,
        ) -> Answer<RemovePodSandboxResponse> {
            let id = request.into_inner().pod_sandbox_id;
            let mut world = self.world.lock().unwrap();
            world.log.push(format!("remove sandbox {id}"));
            world.sandboxes.retain(|(one, _)| one.id != id);
            Ok(Response::new(Default::default()))
        }

        async fn list_containers(&self, _: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
            let containers = self.world.lock().unwrap().containers.clone();
            Ok(Response::new(ListContainersResponse { containers }))
        }

        async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
            let id = request.into_inner().container_id;
            let world = self.world.lock().unwrap();
            let Some(state) = world.containers.iter().find(|one| one.id == id).map(|one| one.state) else {
                return Err(Status::not_found(id));
            };
            let mut status = ContainerStatus { state, ..Default::default() };
            status.mounts.push(Mount { host_path: format!("/srv/{id}"), ..Default::default() });
            if status.state() == ContainerState::ContainerExited {
                (status.exit_code, status.reason) = (128, "StartError".into());
                status.message = "no such runtime\nexit status 1".into();
            }
            let status = Some(ContainerStatus { id, ..status });
            Ok(Response::new(ContainerStatusResponse { status, ..Default::default() }))
        }

        async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
            let request = request.into_inner();
            let mut world = self.world.lock().unwrap();
            world.log.push(format!("stop {} within {}", request.container_id, request.timeout));
            let stopped = world.containers.iter_mut().find(|one| one.id == request.container_id);
            stopped.unwrap().set_state(ContainerState::ContainerExited);
            Ok(Response::new(Default::default()))
        }

        async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
            let id = request.into_inner().container_id;
            let mut world = self.world.lock().unwrap();
            world.log.push(format!("remove {id}"));
            world.containers.retain(|one| one.id != id);
            Ok(Response::new(Default::default()))
        }
    }
    create_container(CreateContainerRequest) -> CreateContainerResponse;
    start_container(StartContainerRequest) -> StartContainerResponse;
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    exec(ExecRequest) -> ExecResponse;
    attach(AttachRequest) -> AttachResponse;
    port_forward(PortForwardRequest) -> PortForwardResponse;
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
}

#[tonic::async_trait]
impl ImageService for Containerd {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let mut ids: Vec<String> = self.records().into_iter().map(|(_, id)| id).collect();
        ids.sort();
        ids.dedup();
        let images = ids.iter().map(|id| self.image(id)).collect();
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let wanted = request.into_inner().image.unwrap().image;
        let found = self
            .records()
            .into_iter()
            .find(|(name, id)| *name == wanted || *id == wanted);
        let image = found.map(|(_, id)| self.image(&id));
        Ok(Response::new(ImageStatusResponse {
            image,
            ..Default::default()
        }))
    }

    async fn pull_image(&self, _: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        Err(Status::unimplemented("there is no registry"))
    }

    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Answer<RemoveImageResponse> {
        Err(Status::internal("would remove every name of the image"))
    }

    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Answer<ImageFsInfoResponse> {
        Err(Status::unimplemented("image_fs_info"))
    }
}
