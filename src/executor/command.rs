//! `transship executor`: what systemd and the agent start on the host.

use std::process::ExitCode;

use anyhow::Context as _;

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

/// Carry out a plan on this host.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Carry out the plan in a directory, from where its journal stands.
    Run(At),
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
        let systemd = SystemBus::connect().await?;
        match self {
            Self::Run(At { dir }) => {
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
                unit::install(&files, &systemd, &own_binary()?, &Dir::at(&files, dir)).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
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
