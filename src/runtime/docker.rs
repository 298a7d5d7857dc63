//! Docker Engine over its unix socket: what inspection, image transfer and the end of pods need of it.

use std::{collections::HashMap, io, path::Path, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, Docker,
    errors::Error,
    models::{
        ContainerInspectResponse, ContainerSummary, ImageInspect, ImageSummary, SystemInfo, SystemVersion,
    },
    query_parameters::{
        ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveContainerOptions,
        RemoveImageOptions, StopContainerOptions, TagImageOptions,
    },
};
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use tokio::time::{sleep, timeout};

use super::{Cause, RuntimeError, reference};

/// How long a request may take; ending a container has its grace period on top.
const WITHIN: Duration = Duration::from_secs(30);
/// No such container or image.
const NOT_FOUND: u16 = 404;
/// The container is being removed already.
const CONFLICT: u16 = 409;
/// The engine could not do it now.
const SERVER_ERROR: u16 = 500;
/// How often the removal of a container is tried that the engine cannot remove now, and the pause between two tries. A process
/// whose shim has just died is a zombie until somebody reaps it, and the engine refuses to remove its container meanwhile.
const REMOVALS: (u32, Duration) = (5, Duration::from_secs(1));

/// A Docker Engine.
#[derive(Debug)]
pub struct Engine {
    client: Docker,
    socket: String,
    version: SystemVersion,
}

impl Engine {
    /// Connects to the engine behind a unix socket and asks for its version.
    ///
    /// # Errors
    /// When nobody answers there, or not in time.
    pub async fn connect(socket: &Path) -> Result<Self, RuntimeError> {
        let name = socket.display().to_string();
        let say =
            |cause: Cause| RuntimeError::because(format!("Docker Engine at {name} does not answer"), cause);
        // The version is a formality: this client asks at paths without one, which every engine answers with the
        // newest API that it has.
        let client = Docker::connect_with_unix(&name, WITHIN.as_secs(), API_DEFAULT_VERSION)
            .map_err(|error| say(error.into()))?;
        match timeout(WITHIN, client.version()).await {
            Ok(Ok(version)) => Ok(Self {
                client,
                socket: name,
                version,
            }),
            Ok(Err(error)) => Err(say(error.into())),
            Err(_) => Err(say(format!("no answer within {} s", WITHIN.as_secs()).into())),
        }
    }

    /// Its version (`20.10.24+dfsg1`).
    pub fn version(&self) -> &str {
        self.version.version.as_deref().unwrap_or_default()
    }

    /// What it says of itself.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn info(&self) -> Result<SystemInfo, RuntimeError> {
        self.ask("say how it is set up", WITHIN, self.client.info()).await
    }

    /// Its containers, running or not, that bear all of these labels (`name` or `name=value`).
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn containers(&self, labels: &[&str]) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let labels: Vec<String> = labels.iter().map(|&label| label.to_owned()).collect();
        let filters = (!labels.is_empty()).then(|| HashMap::from([("label".to_owned(), labels)]));
        let options = ListContainersOptions {
            all: true,
            filters,
            ..Default::default()
        };
        self.ask(
            "list its containers",
            WITHIN,
            self.client.list_containers(Some(options)),
        )
        .await
    }

    /// A container, or nothing when there is none of that id.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn container(&self, id: &str) -> Result<Option<ContainerInspectResponse>, RuntimeError> {
        let verb = format!("describe container {id}");
        self.ask(&verb, WITHIN, async {
            unless(NOT_FOUND, self.client.inspect_container(id, None).await)
        })
        .await
    }

    /// The name of the signal that a container ends on (`SIGTERM`, `QUIT`, `3`), its image's own where it has one.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn stop_signal(&self, id: &str) -> Result<String, RuntimeError> {
        let config = self.container(id).await?.and_then(|container| container.config);
        let named = config.and_then(|config| config.stop_signal);
        Ok(named
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "SIGTERM".to_owned()))
    }

    /// Its images that have a name.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn images(&self) -> Result<Vec<ImageSummary>, RuntimeError> {
        let options = ListImagesOptions {
            digests: true,
            ..Default::default()
        };
        self.ask("list its images", WITHIN, self.client.list_images(Some(options)))
            .await
    }

    /// An image, or nothing when there is none of that name.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn image(&self, name: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        let verb = format!("describe image {name}");
        self.ask(&verb, WITHIN, async {
            unless(NOT_FOUND, self.client.inspect_image(name).await)
        })
        .await
    }

    /// The id of an image: the digest of its configuration, or, on containerd's image store, of its manifest.
    ///
    /// # Errors
    /// When there is no such image, or no answer in time.
    pub async fn image_id(&self, name: &str) -> Result<String, RuntimeError> {
        let image = self.image(name).await?;
        image
            .and_then(|image| image.id)
            .ok_or_else(|| RuntimeError::new(format!("Docker Engine at {} has no image {name}", self.socket)))
    }

    /// Takes images from an archive as the engine makes it (`docker load`), with the names in it.
    ///
    /// # Errors
    /// When it did not take all of it in time.
    pub async fn load(
        &self,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
        within: Duration,
    ) -> Result<(), RuntimeError> {
        // The client's own time-out covers the whole archive.
        let client = self.client.clone().with_timeout(within);
        let options = ImportImageOptions {
            quiet: true,
            ..Default::default()
        };
        let loading = async {
            let mut answers = std::pin::pin!(client.import_image_stream(options, archive, None));
            while let Some(answer) = answers.next().await {
                answer?;
            }
            Ok(())
        };
        self.ask("load an image", within, loading).await
    }

    /// Gives an image a name with a tag, which is taken from any other image that has it.
    ///
    /// # Errors
    /// When it does not have it.
    pub async fn tag(&self, id: &str, name: &str) -> Result<(), RuntimeError> {
        let (repo, tag) = reference::repository_and_tag(name);
        let options = TagImageOptions {
            repo: Some(repo.to_owned()),
            tag: Some(tag.to_owned()),
        };
        let verb = format!("name an image {name}");
        self.ask(&verb, WITHIN, self.client.tag_image(id, Some(options)))
            .await
    }

    /// Removes a name, and the image when that was the last one. One that is not there is removed.
    ///
    /// # Errors
    /// When it is still there: a container runs on it.
    pub async fn remove_name(&self, name: &str) -> Result<(), RuntimeError> {
        // By force: containers that have ended do not need it.
        let options = RemoveImageOptions {
            force: true,
            ..Default::default()
        };
        let removing = async {
            unless(
                NOT_FOUND,
                self.client.remove_image(name, Some(options), None).await,
            )
        };
        self.ask(&format!("remove image {name}"), WITHIN, removing)
            .await
            .map(drop)
    }

    /// The archive of an image as the engine makes it, chunk by chunk (`docker save`).
    pub fn export(&self, name: &str) -> impl Stream<Item = Result<impl AsRef<[u8]>, RuntimeError>> {
        let (socket, name) = (self.socket.clone(), name.to_owned());
        self.client.export_image(&name).map(move |chunk| {
            chunk.map_err(|error| {
                RuntimeError::because(
                    format_args!("Docker Engine at {socket} could not export {name}"),
                    error,
                )
            })
        })
    }

    /// Ends a container: its stop signal, `grace_secs` to obey, then SIGKILL. One that has ended or is gone is
    /// ended.
    ///
    /// # Errors
    /// When it still runs, or the engine does not answer.
    pub async fn stop(&self, id: &str, grace_secs: u32) -> Result<(), RuntimeError> {
        let within = WITHIN + Duration::from_secs(grace_secs.into());
        // The client's own time-out covers the engine's whole wait.
        let client = self.client.clone().with_timeout(within);
        let options = StopContainerOptions {
            t: i32::try_from(grace_secs).ok(),
            signal: None,
        };
        let stopping = async { unless(NOT_FOUND, client.stop_container(id, Some(options)).await) };
        self.ask(&format!("stop container {id}"), within, stopping)
            .await
            .map(|_| ())
    }

    /// Kills a container if it still runs and removes it; its volumes stay. One that is gone is removed.
    ///
    /// # Errors
    /// When it is still there, or the engine does not answer.
    pub async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let options = RemoveContainerOptions {
            v: false,
            force: true,
            link: false,
        };
        let removing = async {
            let mut tries = 1;
            loop {
                let removed = self.client.remove_container(id, Some(options.clone())).await;
                match unless(NOT_FOUND, removed) {
                    // Whoever is removing it will; the caller counts what is left.
                    Err(Error::DockerResponseServerError {
                        status_code: CONFLICT,
                        ..
                    }) => return Ok(None),
                    Err(Error::DockerResponseServerError {
                        status_code: SERVER_ERROR,
                        message,
                    }) if tries < REMOVALS.0 => {
                        tracing::warn!(container = id, message, "a container is not removed yet");
                        tries += 1;
                        sleep(REMOVALS.1).await;
                    }
                    removed => return removed,
                }
            }
        };
        self.ask(&format!("remove container {id}"), WITHIN, removing)
            .await
            .map(|_| ())
    }

    async fn ask<T>(
        &self,
        verb: &str,
        within: Duration,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, RuntimeError> {
        let say = |cause: Cause| {
            RuntimeError::because(
                format_args!("Docker Engine at {} could not {verb}", self.socket),
                cause,
            )
        };
        match timeout(within, request).await {
            Ok(answer) => answer.map_err(|error| say(error.into())),
            Err(_) => Err(say(format!("no answer within {} s", within.as_secs()).into())),
        }
    }
}

/// An answer, or nothing when the engine answered with this status.
fn unless<T>(status: u16, answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::DockerResponseServerError { status_code, .. }) if status_code == status => Ok(None),
        Err(error) => Err(error),
    }
}
