//! The runtimes of this host: [`Runtimes`] by the real clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::PathBuf,
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use super::{
    Carried, Health, Images, KubeletHealth, Quiet, RuntimeError, Runtimes, Stopped, Tasks,
    cni_del::Network,
    containerd::Containerd,
    cri::Cri,
    crio_images,
    docker::Engine,
    kubelet,
    pods::{Ending, Extent, bundles, conmon, dockershim, orphans, over_cri, process::Processes, stuck},
    program, quiet, reference, rehearsal, restore,
    running::{self, RunningPod},
    sandbox_image, tasks, transfer,
};
use crate::{
    host::files::Files,
    plan::{
        host_path::HostPath,
        paths::DOCKER_SOCKET,
        runtime,
        shims::ShimUse,
        step::{ClearPods, Direction, Endpoint, ImagesStep, Rehearsal, ShimsStep, StopPods},
    },
};

/// How long `ClearPods` tries again to take a sandbox off its network: agents start again under the target.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pause between two tries of [`PATIENCE`].
const PAUSE: Duration = Duration::from_secs(1);

/// How long a runtime may take to answer its first call where there is another way, or to name a reason.
const ANSWERS: Duration = Duration::from_secs(5);

/// The runtimes of this host.
#[derive(Clone, Debug)]
pub struct HostRuntimes {
    files: Files,
}

/// One of the runtimes, connected.
enum Connected {
    Docker(Engine),
    Cri(Cri),
}

/// Who keeps the images of a runtime, connected.
enum Store {
    Docker(Engine),
    Containerd(transfer::Store),
    CriO(Cri),
}

impl HostRuntimes {
    /// The runtimes whose sockets and files are `files`.
    pub const fn new(files: Files) -> Self {
        Self { files }
    }

    fn socket(&self, socket: &HostPath) -> Result<PathBuf, RuntimeError> {
        self.files.real(socket).map_err(RuntimeError::of)
    }

    async fn connect(&self, to: &Endpoint) -> Result<Connected, RuntimeError> {
        let socket = self.socket(&to.socket)?;
        // The kubelet's own CRI is away with the kubelet; what it stands on answers for it.
        if to.runtime.is_in_kubelet() {
            Engine::connect(&socket).await.map(Connected::Docker)
        } else {
            Cri::connect(&socket).await.map(Connected::Cri)
        }
    }

    /// Who keeps the images of a runtime: for cri-dockerd, as for the dockershim, that is the engine.
    async fn store(&self, of: &Endpoint, ctr: Option<&HostPath>) -> Result<Store, RuntimeError> {
        let socket = self.socket(&of.socket)?;
        Ok(match of.runtime.profile().store {
            runtime::Store::Docker => Store::Docker(Engine::connect(&socket).await?),
            runtime::Store::CriO => Store::CriO(Cri::connect(&socket).await?),
            runtime::Store::Containerd => Store::Containerd(transfer::Store {
                cri: Cri::connect(&socket).await?,
                api: Containerd::connect(&socket).await?,
                ctr: self.ctr(ctr)?,
            }),
        })
    }

    /// containerd's client: the one that is named, or, where that is not there, the one in `PATH`.
    fn ctr(&self, named: Option<&HostPath>) -> Result<OsString, RuntimeError> {
        let real = named.map(|ctr| self.socket(ctr)).transpose()?;
        Ok(real
            .filter(|ctr| ctr.exists())
            .map_or_else(|| "ctr".into(), OsString::from))
    }

    async fn ask_health(&self, of: &Endpoint) -> Result<Health, RuntimeError> {
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

    /// The error, with containerd's own reason if its CRI plugin did not load.
    async fn with_reason(&self, of: &Endpoint, error: RuntimeError) -> RuntimeError {
        let reason = async {
            let containerd = Containerd::connect(&self.socket(&of.socket).ok()?).await.ok()?;
            containerd.cri_problem().await.ok()?
        };
        // It may have answered nothing because it hangs.
        match timeout(ANSWERS, reason).await {
            Ok(Some(reason)) => RuntimeError::caused(format!("{error}: {reason}"), error),
            Ok(None) | Err(_) => error,
        }
    }

    async fn cri(&self, to: &Endpoint) -> Result<Cri, RuntimeError> {
        match self.connect(to).await? {
            Connected::Cri(cri) => Ok(cri),
            Connected::Docker(_) => Err(RuntimeError::new(format!(
                "{} at {} has no CRI",
                to.runtime, to.socket
            ))),
        }
    }
}

impl HostRuntimes {
    /// The pods of a runtime with a CRI that have a sandbox that is ready.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn running_pods(&self, of: &Endpoint) -> Result<Vec<RunningPod>, RuntimeError> {
        running::running(&self.cri(of).await?.hurried()).await
    }

    /// How a container of a runtime with a CRI has ended; empty if it is gone or runs.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub async fn why_ended(&self, of: &Endpoint, container: &str) -> Result<String, RuntimeError> {
        running::why_ended(&self.cri(of).await?.hurried(), container).await
    }

    async fn end_pods(
        &self,
        of: &Endpoint,
        engine: Option<&HostPath>,
        cache: &HostPath,
        bin_dirs: &[HostPath],
        how: Ending,
        hurried: bool,
    ) -> Result<Stopped, RuntimeError> {
        let mut stopped = match self.connect(of).await? {
            Connected::Docker(engine) => {
                let network = Network {
                    files: &self.files,
                    cache,
                    bin_dirs,
                };
                dockershim::end_pods(&engine, of.runtime, network, how).await
            }
            Connected::Cri(cri) => {
                let cri = if hurried { cri.hurried() } else { cri };
                let engine = match engine {
                    Some(socket) => Some(Engine::connect(&self.socket(socket)?).await?),
                    None => None,
                };
                over_cri::end_pods(&cri, engine.as_ref(), &self.files, of.runtime, how).await
            }
        }?;
        if of.runtime.profile().store == runtime::Store::CriO && how.extent == Extent::Everything {
            stopped.left.extend(conmon::forget_host_ports(&self.files).await);
        }
        for left in stopped.left.iter().chain(stopped.stuck.values()) {
            tracing::warn!(runtime = of.runtime.name(), "{left}");
        }
        Ok(stopped)
    }

    /// Ends the pods of a target that could not end them itself, without it.
    async fn end_pods_without(
        &self,
        what: &StopPods,
        how: Ending,
        error: RuntimeError,
    ) -> Result<Stopped, RuntimeError> {
        let of = &what.target;
        let network = self.network(what);
        tracing::warn!(runtime = of.runtime.name(), %error, "its pods end without it");
        match of.runtime.profile().store {
            runtime::Store::Containerd => bundles::end_pods(network, Processes(&self.files), how).await,
            runtime::Store::Docker if !of.runtime.is_in_kubelet() => {
                let engine = self.docker(what).await?;
                dockershim::end_pods(&engine, of.runtime, network, how).await
            }
            runtime::Store::CriO => conmon::end_pods(network, Processes(&self.files), how).await,
            runtime::Store::Docker => Err(error),
        }
    }

    /// Ends the shims that Docker Engine lost, as soon as it answers. Returns a sentence for each one that is still there.
    async fn end_lost_in_time(&self, of: &Endpoint) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.end_lost(of).await {
                Ok(left) => return left,
                Err(error) if Instant::now() < until => {
                    tracing::warn!(%error, "shims without a container could not be looked for; it is tried again");
                    sleep(PAUSE).await;
                }
                Err(error) => {
                    return vec![format!(
                        "shims that Docker Engine lost, if there are any, run until the next boot: they could not be \
                         looked for within {} s: {error}",
                        PATIENCE.as_secs()
                    )];
                }
            }
        }
    }

    const fn network<'a>(&'a self, what: &'a StopPods) -> Network<'a> {
        Network {
            files: &self.files,
            cache: &what.cni_cache_dir,
            bin_dirs: what.cni_bin_dirs.as_slice(),
        }
    }

    /// The Docker Engine that the target stands on.
    async fn docker(&self, what: &StopPods) -> Result<Engine, RuntimeError> {
        let socket = what.engine.clone().map_or_else(docker_socket, Ok)?;
        Engine::connect(&self.socket(&socket)?).await
    }
}

/// Where Docker Engine listens by default.
fn docker_socket() -> Result<HostPath, RuntimeError> {
    HostPath::new(DOCKER_SOCKET).map_err(RuntimeError::of)
}

/// Of two stores between which nothing carries images.
fn not_carried(step: &ImagesStep) -> RuntimeError {
    RuntimeError::new(format!(
        "images cannot be carried from {} to {}",
        step.from.runtime, step.to.runtime
    ))
}

/// How the pods of the target end on the way back.
fn of_target(what: &StopPods) -> Ending {
    Ending {
        extent: Extent::Everything,
        limit_secs: what.grace_limit_secs,
        beside: what.share_an_engine().then_some(what.source.runtime),
        patience: Duration::ZERO,
        may_stick: true,
    }
}

impl Runtimes for HostRuntimes {
    async fn images(&self, store: &Endpoint) -> Result<Images, RuntimeError> {
        let listed: Vec<(Vec<String>, String)> = match self.store(store, None).await? {
            Store::Docker(engine) => {
                let images = engine.images().await?.into_iter();
                images
                    .map(|image| ([image.repo_tags, image.repo_digests].concat(), image.id))
                    .collect()
            }
            Store::Containerd(transfer::Store { cri, .. }) => {
                let images = cri.images().await?.into_iter();
                images
                    .map(|image| ([image.repo_tags, image.repo_digests].concat(), image.id))
                    .collect()
            }
            Store::CriO(cri) => crio_images::images(&cri).await?,
        };
        let named = |(names, id): &(Vec<String>, String)| {
            let id = id.clone();
            reference::named(names)
                .map(move |name| (name, id.clone()))
                .collect::<Vec<_>>()
        };
        Ok(listed.iter().flat_map(named).collect())
    }

    async fn carry_image(&self, step: &ImagesStep, name: &str) -> Result<Carried, RuntimeError> {
        let ctr = step.ctr.as_ref();
        let name = reference::full(name);
        // Each way is a future of its own: all of them in one would be large, and it lies on the stack.
        match (
            self.store(&step.from, ctr).await?,
            self.store(&step.to, ctr).await?,
        ) {
            (Store::Docker(engine), Store::Containerd(containerd)) => {
                Box::pin(transfer::into_containerd(
                    &self.files,
                    &engine,
                    &containerd,
                    &step.layers,
                    &name,
                ))
                .await
            }
            (Store::Containerd(containerd), Store::Docker(engine)) => {
                Box::pin(transfer::into_docker(&containerd, &engine, &name)).await
            }
            (from, Store::CriO(cri)) => {
                let from = match &from {
                    Store::Docker(engine) => crio_images::Source::Docker(engine),
                    Store::Containerd(containerd) => crio_images::Source::Containerd(containerd),
                    Store::CriO(_) => return Err(not_carried(step)),
                };
                Box::pin(crio_images::into_cri_o(&self.files, from, &cri, step, &name)).await
            }
            (Store::CriO(cri), Store::Containerd(containerd)) => {
                Box::pin(crio_images::into_containerd(
                    &self.files,
                    &cri,
                    &containerd,
                    &step.layers,
                    &name,
                ))
                .await
            }
            (Store::CriO(cri), Store::Docker(engine)) => {
                Box::pin(crio_images::into_docker(&self.files, &cri, &engine, &name)).await
            }
            (Store::Docker(_), Store::Docker(_)) | (Store::Containerd(_), Store::Containerd(_)) => {
                Err(not_carried(step))
            }
        }
    }

    async fn restore_images(
        &self,
        store: &Endpoint,
        before: &BTreeMap<String, Option<String>>,
    ) -> Result<(), RuntimeError> {
        match self.store(store, None).await? {
            Store::Containerd(containerd) => restore::in_containerd(&containerd, before).await,
            Store::Docker(engine) => restore::in_docker(&engine, before).await,
            Store::CriO(cri) => crio_images::restore(&self.files, &cri, before).await,
        }
    }

    async fn bring_sandbox_image(
        &self,
        store: &Endpoint,
        ctr: &HostPath,
        scratch: &HostPath,
        name: &str,
    ) -> Result<(), RuntimeError> {
        let ctr = self.socket(ctr)?;
        sandbox_image::bring(&self.files, &self.cri(store).await?, &ctr, scratch, name).await
    }

    async fn rehearse(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        rehearsal::rehearse(&self.files, &self.cri(&rehearsal.cri).await?, rehearsal).await
    }

    async fn end_rehearsal(&self, rehearsal: &Rehearsal) -> Result<(), RuntimeError> {
        rehearsal::end(&self.cri(&rehearsal.cri).await?.hurried()).await
    }

    async fn stop_pods(&self, what: &StopPods, direction: Direction) -> Result<Stopped, RuntimeError> {
        let shared = what.share_an_engine();
        let (of, forwards) = (what.ending(direction), direction == Direction::Forwards);
        let how = if forwards {
            Ending {
                extent: if shared {
                    Extent::Everything
                } else {
                    Extent::Containers
                },
                limit_secs: what.grace_limit_secs,
                beside: shared.then_some(what.target.runtime),
                patience: Duration::ZERO,
                // Those that hold ports of the node have to go.
                may_stick: false,
            }
        } else {
            of_target(what)
        };
        let engine = what.engine.as_ref().filter(|_| forwards);
        let (cache, bin_dirs) = (&what.cni_cache_dir, &what.cni_bin_dirs);
        match self.end_pods(of, engine, cache, bin_dirs, how, !forwards).await {
            Err(error) if !forwards => self.end_pods_without(what, how, error).await,
            ended => ended,
        }
    }

    async fn stop_pods_without(&self, what: &StopPods, error: RuntimeError) -> Result<Stopped, RuntimeError> {
        self.end_pods_without(what, of_target(what), error).await
    }

    async fn clear_pods(&self, what: &ClearPods) -> Result<Stopped, RuntimeError> {
        let how = Ending {
            extent: Extent::Everything,
            // They have had their time.
            limit_secs: 0,
            beside: None,
            patience: PATIENCE,
            may_stick: true,
        };
        let (cache, bin_dirs) = (&what.cni_cache_dir, &what.cni_bin_dirs);
        let mut cleared = self
            .end_pods(&what.source, None, cache, bin_dirs, how, false)
            .await?;
        cleared
            .left
            .extend(std::mem::take(&mut cleared.stuck).into_values());
        cleared.left.extend(self.end_lost_in_time(&what.source).await);
        Ok(cleared)
    }

    async fn quiet(&self, of: &Endpoint, quiet: Quiet) -> Result<(), RuntimeError> {
        match self.connect(of).await? {
            Connected::Cri(cri) => quiet::wait(&self.files, &cri, quiet).await,
            Connected::Docker(engine) => quiet::wait(&self.files, &engine, quiet).await,
        }
    }

    async fn repair_tasks(&self) -> Result<Vec<String>, RuntimeError> {
        tasks::repair(&self.files)
    }

    async fn tasks(&self) -> Result<Tasks, RuntimeError> {
        Ok(tasks::running(&self.files))
    }

    async fn check_tasks(&self, of: &Endpoint, noted: &Tasks) -> Result<Vec<String>, RuntimeError> {
        tasks::check::check(&self.files, &self.cri(of).await?, noted).await
    }

    async fn end_newer_pods(&self, what: &ShimsStep) -> Result<Vec<String>, RuntimeError> {
        tasks::newer::end(&self.files, &self.cri(&what.cri).await?, what).await
    }

    async fn runs_on(&self, path: &HostPath) -> Result<bool, RuntimeError> {
        Ok(tasks::runs_on(&self.files, path))
    }

    async fn shims(&self) -> Result<Vec<ShimUse>, RuntimeError> {
        Ok(tasks::shims::in_use(&self.files))
    }

    async fn end_lost(&self, of: &Endpoint) -> Result<Vec<String>, RuntimeError> {
        if !of.runtime.runs_on_docker() {
            return Ok(Vec::new());
        }
        let socket = if of.runtime.is_in_kubelet() {
            of.socket.clone()
        } else {
            docker_socket()?
        };
        let engine = Engine::connect(&self.socket(&socket)?).await?;
        orphans::end(&engine, Processes(&self.files)).await
    }

    async fn remove_stuck(&self, what: &StopPods, stuck: &BTreeSet<String>) -> BTreeMap<String, String> {
        let records = async {
            Ok(match what.target.runtime.profile().store {
                runtime::Store::Docker => stuck::Records::Docker(Box::new(self.docker(what).await?)),
                runtime::Store::Containerd => {
                    let socket = self.socket(&what.target.socket)?;
                    stuck::Records::Containerd(Containerd::connect(&socket).await?)
                }
                runtime::Store::CriO => stuck::Records::CriO,
            })
        };
        stuck::remove(self.network(what), Processes(&self.files), records.await, stuck).await
    }

    async fn answers(&self, of: &Endpoint) -> Result<(), RuntimeError> {
        let asked = async {
            match self.connect(of).await? {
                // It was asked for its version.
                Connected::Docker(_) => Ok(()),
                Connected::Cri(cri) => cri.version().await.map(drop),
            }
        };
        timeout(ANSWERS, asked).await.unwrap_or_else(|_| {
            Err(RuntimeError::new(format!(
                "{} at {} does not answer within {} s",
                of.runtime,
                of.socket,
                ANSWERS.as_secs()
            )))
        })
    }

    async fn health(&self, of: &Endpoint) -> Result<Health, RuntimeError> {
        let asked = self.ask_health(of).await;
        match asked {
            Err(error) if of.runtime.profile().store == runtime::Store::Containerd => {
                Err(self.with_reason(of, error).await)
            }
            asked => asked,
        }
    }

    async fn program_version(&self, program: &HostPath) -> Result<String, RuntimeError> {
        let real = self.files.real(program);
        program::version(&real.map_err(RuntimeError::of)?).await
    }

    async fn configuration(&self, command: &[String]) -> Result<String, RuntimeError> {
        let (program, arguments) = command
            .split_first()
            .ok_or_else(|| RuntimeError::new("there is no command for the configuration".to_owned()))?;
        program::output(program.as_ref(), arguments).await
    }

    async fn kubelet(&self, main_pid: u32) -> Result<KubeletHealth, RuntimeError> {
        kubelet::health(&self.files, main_pid).await
    }
}
