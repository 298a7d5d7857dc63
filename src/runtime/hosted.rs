//! The runtimes of this host: [`Runtimes`] by the real clients.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf, time::Duration};

use super::{
    Health, KubeletHealth, RuntimeError, Runtimes, Stopped,
    cni_del::Network,
    cri::Cri,
    docker::Engine,
    kubelet,
    pods::{Ending, Extent, dockershim, over_cri},
    program, reference, rehearsal, transfer,
};
use crate::{
    api::request::Runtime,
    host::files::Files,
    plan::{
        host_path::HostPath,
        step::{ClearPods, Endpoint, Rehearsal, StopPods},
    },
};

/// How long `ClearPods` tries again to take a sandbox off its network: agents start again under the target.
const PATIENCE: Duration = Duration::from_secs(60);

/// The runtimes of this host.
#[derive(Clone, Debug)]
pub struct HostRuntimes {
    files: Files,
    ctr: OsString,
}

/// One of the runtimes, connected.
enum Connected {
    Docker(Engine),
    Cri(Cri),
}

impl HostRuntimes {
    /// The runtimes whose sockets and files are `files`; containerd's `ctr` is found in `PATH`.
    pub fn new(files: Files) -> Self {
        Self {
            files,
            ctr: "ctr".into(),
        }
    }

    /// The same, with another `ctr`.
    #[must_use]
    pub fn with_ctr(mut self, ctr: impl Into<OsString>) -> Self {
        self.ctr = ctr.into();
        self
    }

    fn socket(&self, socket: &HostPath) -> Result<PathBuf, RuntimeError> {
        self.files
            .real(socket)
            .map_err(|error| RuntimeError(error.to_string()))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Connected, RuntimeError> {
        let socket = self.socket(&to.socket)?;
        match to.runtime {
            Runtime::Dockershim => Engine::connect(&socket).await.map(Connected::Docker),
            Runtime::CriDockerd | Runtime::Containerd | Runtime::CriO => {
                Cri::connect(&socket).await.map(Connected::Cri)
            }
        }
    }

    async fn cri(&self, to: &Endpoint) -> Result<Cri, RuntimeError> {
        match self.connect(to).await? {
            Connected::Cri(cri) => Ok(cri),
            Connected::Docker(_) => Err(RuntimeError(format!(
                "{} at {} has no CRI",
                to.runtime, to.socket
            ))),
        }
    }
}

impl HostRuntimes {
    async fn end_pods(
        &self,
        of: &Endpoint,
        engine: Option<&HostPath>,
        cache: &HostPath,
        bin_dirs: &[HostPath],
        how: Ending,
    ) -> Result<Stopped, RuntimeError> {
        let stopped = match self.connect(of).await? {
            Connected::Docker(engine) => {
                let network = Network {
                    files: &self.files,
                    cache,
                    bin_dirs,
                };
                dockershim::end_pods(&engine, network, how).await
            }
            Connected::Cri(cri) => {
                let engine = match engine {
                    Some(socket) => Some(Engine::connect(&self.socket(socket)?).await?),
                    None => None,
                };
                over_cri::end_pods(&cri, engine.as_ref(), &self.files, of.runtime, how).await
            }
        }?;
        for left in &stopped.left {
            tracing::warn!(runtime = of.runtime.name(), "{left}");
        }
        Ok(stopped)
    }
}

impl Runtimes for HostRuntimes {
    async fn image_names(&self, store: &Endpoint) -> Result<BTreeSet<String>, RuntimeError> {
        let names: Vec<(Vec<String>, Vec<String>)> = match self.connect(store).await? {
            Connected::Docker(engine) => {
                let images = engine.images().await?;
                images
                    .into_iter()
                    .map(|image| (image.repo_tags, image.repo_digests))
                    .collect()
            }
            Connected::Cri(cri) => {
                let images = cri.images().await?;
                images
                    .into_iter()
                    .map(|image| (image.repo_tags, image.repo_digests))
                    .collect()
            }
        };
        Ok(names
            .iter()
            .flat_map(|(tags, digests)| reference::named(tags.iter().chain(digests)))
            .collect())
    }

    async fn carry_image(&self, from: &Endpoint, to: &Endpoint, name: &str) -> Result<u64, RuntimeError> {
        match (self.connect(from).await?, self.connect(to).await?) {
            (Connected::Docker(engine), Connected::Cri(cri)) if to.runtime == Runtime::Containerd => {
                transfer::carry(&engine, &cri, &self.ctr, &reference::full(name)).await
            }
            _ => Err(RuntimeError(format!(
                "images cannot be carried from {} to {}",
                from.runtime, to.runtime
            ))),
        }
    }

    async fn remove_image(&self, store: &Endpoint, name: &str) -> Result<(), RuntimeError> {
        match store.runtime {
            Runtime::Containerd => {
                transfer::remove(&self.cri(store).await?, &self.ctr, &reference::full(name)).await
            }
            other => Err(RuntimeError(format!(
                "images are never removed from the store of {other}"
            ))),
        }
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        rehearsal::rehearse(&self.cri(&rehearsal.cri).await?, rehearsal).await
    }

    async fn end_rehearsal(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        rehearsal::end(&self.cri(&rehearsal.cri).await?).await
    }

    async fn stop_pods(&self, of: &Endpoint, what: &StopPods) -> Result<Stopped, RuntimeError> {
        let shared = what.share_an_engine();
        let forwards = *of == what.source;
        let other = if forwards { &what.target } else { &what.source };
        let extent = if forwards && !shared {
            Extent::Containers
        } else {
            Extent::Everything
        };
        let how = Ending {
            extent,
            limit_secs: what.grace_limit_secs,
            beside: shared.then_some(other.runtime),
            patience: Duration::ZERO,
        };
        let engine = what.engine.as_ref().filter(|_| forwards);
        self.end_pods(of, engine, &what.cni_cache_dir, &what.cni_bin_dirs, how)
            .await
    }

    async fn clear_pods(&self, what: &ClearPods) -> Result<Stopped, RuntimeError> {
        let how = Ending {
            extent: Extent::Everything,
            // They have had their time.
            limit_secs: 0,
            beside: None,
            patience: PATIENCE,
        };
        self.end_pods(&what.source, None, &what.cni_cache_dir, &what.cni_bin_dirs, how)
            .await
    }

    async fn health(&self, of: &Endpoint) -> Result<Health, RuntimeError> {
        Ok(match self.connect(of).await? {
            // The dockershim answers no more and no less than the engine behind it, where it can be asked.
            Connected::Docker(engine) => Health {
                version: engine.version().to_owned(),
                ready: true,
                network_ready: true,
            },
            Connected::Cri(cri) => {
                let about = cri.about().await?;
                Health {
                    version: about.version,
                    ready: about.runtime_ready,
                    network_ready: about.network_ready,
                }
            }
        })
    }

    async fn program_version(&self, program: &HostPath) -> Result<String, RuntimeError> {
        let real = self.files.real(program);
        program::version(&real.map_err(|error| RuntimeError(error.to_string()))?).await
    }

    async fn kubelet(&self, main_pid: u32) -> Result<KubeletHealth, RuntimeError> {
        kubelet::health(&self.files, main_pid).await
    }
}
