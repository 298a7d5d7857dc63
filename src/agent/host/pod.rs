//! The host as a pod reaches it: `/var/lib/transship` mounted at its own path, and the host's system bus. What
//! has to see the whole host (facts, the executor's unit) is done there by the same binary, which the pod brings
//! along and starts as a transient unit of the host's systemd.

use std::time::Duration;

use tokio::sync::OnceCell;

use super::{Host, HostError, Planned, Run};
use crate::{
    api::node_migration::NodeMigrationSpec,
    executor::{
        control::{ControlError, Dir, Order, STATE},
        unit,
    },
    host::{
        bus::SystemBus,
        files::Files,
        systemd::{Systemd as _, SystemdError},
    },
    plan::{
        digest::Digest,
        document::Plan,
        findings::kubeadm,
        host_path::{HostPath, NotAHostPath},
        planner::{self, Request},
        words,
    },
    runtime::kubelet,
};

/// The running binary, as this process sees it.
const SELF: &str = "/proc/self/exe";
/// How long the collection of facts may take.
const INSPECT: Duration = Duration::from_secs(120);
/// How long the installation of the executor's unit may take.
const INSTALL: Duration = Duration::from_secs(60);

/// The host of a pod.
#[derive(Debug)]
pub struct PodHost {
    files: Files,
    bus: OnceCell<SystemBus>,
    binary: OnceCell<HostPath>,
}

impl From<ControlError> for HostError {
    fn from(error: ControlError) -> Self {
        Self(error.to_string())
    }
}

impl From<SystemdError> for HostError {
    fn from(error: SystemdError) -> Self {
        Self(error.to_string())
    }
}

impl From<std::io::Error> for HostError {
    fn from(error: std::io::Error) -> Self {
        Self(format!("cannot {error}"))
    }
}

impl From<NotAHostPath> for HostError {
    fn from(error: NotAHostPath) -> Self {
        Self(error.to_string())
    }
}

impl PodHost {
    /// The host whose `/var/lib/transship` is among `files`.
    pub fn new(files: Files) -> Self {
        Self {
            files,
            bus: OnceCell::new(),
            binary: OnceCell::new(),
        }
    }

    async fn bus(&self) -> Result<&SystemBus, HostError> {
        Ok(self.bus.get_or_try_init(SystemBus::connect).await?)
    }

    /// Where this binary is on the host; it is brought there if it is not.
    async fn binary(&self) -> Result<&HostPath, HostError> {
        self.binary.get_or_try_init(async || bring(&self.files)).await
    }

    /// Runs this binary on the host and waits for its end.
    async fn on_host(&self, unit: &str, arguments: &[&str], within: Duration) -> Result<(), HostError> {
        let binary = self.binary().await?;
        let argv = [&[binary.as_str()], arguments].concat();
        let exit = self.bus().await?.run_transient(unit, &argv, within).await?;
        if exit.is_success() {
            Ok(())
        } else {
            Err(HostError(format!(
                "`transship {}` ended with {} on the host; `journalctl -u {unit}` there says why",
                arguments.join(" "),
                exit.status
            )))
        }
    }
}

/// Copies the running binary to `/var/lib/transship/bin/<digest>/transship` and says where that is.
fn bring(files: &Files) -> Result<HostPath, HostError> {
    let bytes = files
        .read(&HostPath::new(SELF)?)?
        .ok_or_else(|| HostError(format!("{SELF} is gone; the agent's image was removed under it")))?;
    let digest = Digest::of(&bytes);
    let hex = digest.as_str().trim_start_matches("sha256:");
    let path = HostPath::new(format!("{STATE}/bin/{hex}/transship"))?;
    if files.read(&path)?.as_deref() != Some(&bytes) {
        files.write(&path, &bytes, 0o755)?;
    }
    Ok(path)
}

impl Host for PodHost {
    async fn look(&self, run: &str) -> Result<Option<Run>, HostError> {
        let dir = Dir::new(&self.files, run)?;
        let Some(plan) = dir.plan()? else { return Ok(None) };
        let digest = plan.digest();
        let begun = !dir.journal()?.is_empty();
        let unit = self.bus().await?.unit(unit::UNIT).await?;
        Ok(Some(Run {
            words: plan.words(),
            progress: if begun { dir.progress()? } else { None },
            go: dir.ordered(Order::Go, &digest)?,
            commit: dir.ordered(Order::Commit, &digest)?,
            abort: dir.ordered(Order::Abort, &digest)?,
            executor_running: matches!(unit.active.as_str(), "active" | "activating" | "reloading"),
            plan,
        }))
    }

    async fn plan(
        &self,
        run: &str,
        spec: &NodeMigrationSpec,
        own_images: Vec<String>,
    ) -> Result<Planned, HostError> {
        let dir = Dir::new(&self.files, run)?;
        let output = dir.path().join("facts.json")?;
        let arguments = ["node", "inspect", "--format", "json", "--output", output.as_str()];
        self.on_host("transship-inspect.service", &arguments, INSPECT)
            .await?;
        let facts = dir
            .facts()?
            .ok_or_else(|| HostError(format!("`transship node inspect` left no facts in {output}")))?;
        let request = Request {
            migration: run.to_owned(),
            target: spec.target.clone(),
            drain: spec.drain.clone(),
            images: spec.images.clone(),
            preflight: spec.preflight.clone(),
            rollback: spec.rollback.clone(),
            own_images,
        };
        let outcome = planner::plan(&facts, &request);
        let plan = outcome.plan();
        Ok(Planned {
            words: plan.map(Plan::words).unwrap_or_default(),
            diff: plan.map(|plan| words::diff(plan, &facts)).unwrap_or_default(),
            kubeadm: kubeadm::Node::of(&facts, spec.target.runtime),
            outcome,
        })
    }

    async fn install(&self, run: &str, plan: &Plan) -> Result<(), HostError> {
        let dir = Dir::new(&self.files, run)?;
        if dir.plan()?.as_ref() != Some(plan) {
            dir.write_plan(plan)?;
        }
        let arguments = ["executor", "install", "--dir", dir.path().as_str()];
        self.on_host("transship-install.service", &arguments, INSTALL)
            .await
    }

    async fn start_executor(&self) -> Result<(), HostError> {
        Ok(self.bus().await?.start(unit::UNIT).await?)
    }

    async fn order(&self, run: &str, order: Order, plan: &Digest) -> Result<(), HostError> {
        Ok(Dir::new(&self.files, run)?.order(order, plan)?)
    }

    async fn kubelet_health(&self, run: &str) -> Result<(), HostError> {
        // The plan changes neither port nor address of the health endpoint, so the facts from before still hold.
        let facts = Dir::new(&self.files, run)?.facts()?;
        let found = facts.as_ref().and_then(|facts| facts.kubelet.as_ref());
        let flags = found
            .map(|kubelet| kubelet.command_line.as_slice())
            .unwrap_or_default();
        let config = found
            .and_then(|kubelet| kubelet.config.as_ref())
            .map(|file| file.text.as_str());
        if kubelet::answers(flags, config).await {
            Ok(())
        } else {
            Err(HostError("its health endpoint does not answer `ok`".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_brought_once_and_repaired() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        files
            .write(&HostPath::new(SELF).unwrap(), b"\x7fELF", 0o755)
            .unwrap();
        let path = bring(&files).unwrap();
        let digest = Digest::of(b"\x7fELF");
        assert_eq!(
            path.as_str(),
            format!("{STATE}/bin/{}/transship", &digest.as_str()[7..])
        );
        assert_eq!(files.read(&path).unwrap().as_deref(), Some(&b"\x7fELF"[..]));
        assert_eq!(files.attributes(&path).unwrap().unwrap().mode, 0o755);
        files.write(&path, b"torn", 0o755).unwrap();
        assert_eq!(bring(&files).unwrap(), path);
        assert_eq!(files.read(&path).unwrap().as_deref(), Some(&b"\x7fELF"[..]));
    }
}
