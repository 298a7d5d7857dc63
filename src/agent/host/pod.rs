//! The host as a pod reaches it: `/var/lib/transship` mounted at its own path, and the host's system bus. What
//! has to see the whole host (facts, the executor's unit) is done there by the same binary, which the pod brings
//! along and starts as a transient unit of the host's systemd.

use std::time::Duration;

use tokio::sync::OnceCell;

use super::{Attempt, Host, HostError, Run};
use crate::{
    executor::{
        control::{Dir, Order, STATE},
        unit,
    },
    host::{bus::SystemBus, files::Files, own_binary, systemd::Systemd as _},
    plan::{
        baseline::Baseline, digest::Digest, document::Plan, facts::Facts, host_path::HostPath, redaction,
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
        self.binary
            .get_or_try_init(async || Ok(own_binary::settle(&self.files, &HostPath::new(SELF)?)?))
            .await
    }

    /// Runs this binary on the host and waits for its end.
    async fn on_host(&self, unit: &str, arguments: &[&str], within: Duration) -> Result<(), HostError> {
        let binary = self.binary().await?;
        let error_file = HostPath::new(format!("{STATE}/{unit}.error"))?;
        self.files.remove(&error_file)?;
        let told = ["--error-file", error_file.as_str()];
        let argv = [&[binary.as_str()], arguments, &told].concat();
        let exit = self.bus().await?.run_transient(unit, &argv, within).await?;
        if exit.is_success() {
            return Ok(());
        }
        let cause = self.files.read_text(&error_file).ok().flatten();
        Err(HostError::Answer(failure(
            unit,
            arguments,
            exit.status,
            cause.as_deref(),
        )))
    }
}

/// What is reported of a command that failed on the host. Its own words say more than where to find them.
fn failure(unit: &str, arguments: &[&str], status: i32, cause: Option<&str>) -> String {
    let command = arguments.join(" ");
    match cause.map(str::trim).filter(|cause| !cause.is_empty()) {
        Some(cause) => format!(
            "`transship {command}` failed on the host: {}",
            redaction::sentence(cause)
        ),
        None => format!(
            "`transship {command}` ended with {status} on the host; `journalctl -u {unit}` there says why"
        ),
    }
}

/// UID, generation and number of the attempt with this name. A UID of Kubernetes has 36 characters, dashes among them.
fn parts(run: &str) -> (&str, i64, u32) {
    const UID: usize = 36;
    let whole = run
        .get(..UID)
        .zip(run.get(UID..).and_then(|rest| rest.strip_prefix('-')));
    let (uid, rest) = whole.or_else(|| run.split_once('-')).unwrap_or((run, ""));
    let (generation, number) = rest.split_once('-').unwrap_or((rest, ""));
    (uid, generation.parse().unwrap_or(0), number.parse().unwrap_or(0))
}

/// The attempt in a directory; `None` if there is no plan.
fn attempt(dir: &Dir) -> Result<Option<Attempt>, HostError> {
    let Some(plan) = dir.plan()? else { return Ok(None) };
    let begun = !dir.journal()?.is_empty();
    let state = dir.progress()?.filter(|_| begun).map(|progress| progress.state);
    let (migration, generation, number) = parts(&plan.migration);
    Ok(Some(Attempt {
        run: plan.migration.clone(),
        migration: migration.to_owned(),
        migration_name: plan.migration_name.clone(),
        generation,
        number,
        state,
        ordered: dir.ordered(Order::Go, &plan.digest())?,
        endpoint: plan.target_endpoint(),
    }))
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
            baseline: dir.baseline()?.unwrap_or_default(),
            go: dir.ordered(Order::Go, &digest)?,
            commit: dir.ordered(Order::Commit, &digest)?,
            abort: dir.ordered(Order::Abort, &digest)?,
            executor_running: matches!(unit.active.as_str(), "active" | "activating" | "reloading"),
            plan,
        }))
    }

    async fn attempts(&self) -> Result<Vec<Attempt>, HostError> {
        let mut attempts = Vec::new();
        for dir in Dir::all(&self.files)? {
            match attempt(&dir) {
                Ok(attempt) => attempts.extend(attempt),
                // Of another version, or damaged; it must not keep this migration from its end.
                Err(error) => tracing::warn!(%error, "an attempt on this host cannot be read"),
            }
        }
        Ok(attempts)
    }

    async fn facts(&self, run: &str) -> Result<Facts, HostError> {
        let dir = Dir::new(&self.files, run)?;
        let output = dir.path().join("facts.json")?;
        let arguments = ["node", "inspect", "--format", "json", "--output", output.as_str()];
        self.on_host("transship-inspect.service", &arguments, INSPECT)
            .await?;
        dir.facts()?
            .ok_or_else(|| HostError::Answer(format!("`transship node inspect` left no facts in {output}")))
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

    async fn record(&self, run: &str, baseline: &Baseline) -> Result<(), HostError> {
        Ok(Dir::new(&self.files, run)?.write_baseline(baseline)?)
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
            Err(HostError::Answer(
                "its health endpoint does not answer `ok`".to_owned(),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_attempt_names_its_migration() {
        let uid = "f0631a52-9f8c-4c1e-8a55-3f7a2c9be001";
        assert_eq!(parts(&format!("{uid}-12")), (uid, 12, 0));
        assert_eq!(parts(&format!("{uid}-12-3")), (uid, 12, 3));
        assert_eq!(parts("hand-1700000000"), ("hand", 1_700_000_000, 0));
        assert_eq!(parts("odd"), ("odd", 0, 0));
    }

    #[test]
    fn a_command_that_fails_on_the_host_says_why_itself() {
        let arguments = ["executor", "install"];
        let busy = "the migration in /var/lib/transship/m0-1 is not over on this host\n";
        assert_eq!(
            failure("u.service", &arguments, 1, Some(busy)),
            "`transship executor install` failed on the host: the migration in /var/lib/transship/m0-1 is not over on \
             this host"
        );
        for nothing in [None, Some("\n")] {
            let said = failure("u.service", &arguments, 137, nothing);
            assert!(
                said.ends_with("ended with 137 on the host; `journalctl -u u.service` there says why"),
                "{said}"
            );
        }
    }
}
