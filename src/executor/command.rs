//! `transship executor`: what systemd and the agent start on the host.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    control::Dir,
    run::{self, Outcome},
    standby, unit,
};
use crate::{
    host::{bus::SystemBus, files::Files},
    plan::host_path::{HostPath, NotAHostPath},
    runtime::hosted::HostRuntimes,
};

/// How long a sandbox that is rehearsed may run.
const REHEARSED_WITHIN: Duration = Duration::from_secs(600);

/// Carry out a plan on this host.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Carry out the plan in a directory, from where its journal stands.
    Run(At),
    /// Wait: the process of a sandbox that is rehearsed.
    #[command(hide = true)]
    Pause,
    /// Write, enable and start the service that carries out the plan in a directory.
    Install(At),
}

/// Which migration.
#[derive(Clone, Debug, clap::Args)]
pub struct At {
    /// Directory of the migration, such as /var/lib/transship/hand-1700000000.
    #[arg(long, value_parser = host_path)]
    dir: HostPath,
}

fn host_path(text: &str) -> Result<HostPath, NotAHostPath> {
    HostPath::new(text)
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// When it could not be done; for `run`, the host is then as the journal says.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        match self {
            Self::Pause => pause().await,
            Self::Run(At { dir }) => {
                let systemd = SystemBus::connect().await?;
                let dir = Dir::at(&files, dir);
                let runtimes = HostRuntimes::new(files.clone());
                let what = loop {
                    match run::run(&files, &dir, &systemd, &runtimes).await {
                        Ok(Outcome::Prepared) => standby::wait(&dir).await?,
                        Ok(Outcome::Ended(_)) => return Ok(ExitCode::SUCCESS),
                        Ok(Outcome::Broken(what)) => break what,
                        Err(error) if error.is_lasting() => break error.to_string(),
                        Err(error) => return Err(error.into()),
                    }
                };
                tracing::error!(%what, "a person has to help");
                Ok(ExitCode::from(unit::NEEDS_A_PERSON))
            }
            Self::Install(At { dir }) => {
                let systemd = SystemBus::connect().await?;
                unit::install(&files, &systemd, &own_binary()?, &Dir::at(&files, dir)).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}

/// Waits for SIGTERM, and no longer than a rehearsal may take: whatever becomes of those who end it, it does not stay.
async fn pause() -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let _ = timeout(REHEARSED_WITHIN, terminate.recv()).await;
    Ok(ExitCode::SUCCESS)
}

/// Where this binary lies.
///
/// # Errors
/// When the kernel does not say.
pub fn own_binary() -> anyhow::Result<HostPath> {
    let path = std::env::current_exe().context("finding this program's own file")?;
    let text = path.to_str().context("this program's path is not UTF-8")?;
    Ok(HostPath::new(text)?)
}
