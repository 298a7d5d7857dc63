//! `transship node commit`.

use std::{process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    confirm::{self, Waiting},
    follow::{self, Confirm},
    orders::Which,
};
use crate::{
    console,
    executor::{
        control::{Dir, Order},
        progress::State,
    },
    host::files::Files,
    plan::document::Plan,
};

/// How long `commit` waits for pods that start. A switch is confirmed right after it, too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Keep a switch that waits for it.
#[derive(Debug, clap::Args)]
pub struct Commit {
    #[command(flatten)]
    which: Which,
    /// Keep it although pods that ran before do not run
    #[arg(long)]
    force: bool,
}

impl Commit {
    /// Runs the command. The exit code is [`console::REFUSED`] when pods that ran before do not run.
    ///
    /// # Errors
    /// When none waits for it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let files = Files::new("/");
        let (dir, plan, progress) = self.which.find(&files)?;
        let order = match progress.state {
            State::Committed | State::Finishing => {
                println!("It is committed already.");
                return Ok(ExitCode::SUCCESS);
            }
            State::Soaking { .. } => Order::EndSoak,
            State::AwaitingCommit { .. } => {
                if !self.force && !pods_run(&files, &dir, &plan).await? {
                    return Ok(ExitCode::from(console::REFUSED));
                }
                Order::Commit
            }
            _ => anyhow::bail!("there is nothing to confirm: see `transship node status`"),
        };
        dir.order(order, &plan.digest())?;
        follow::start(&files, &dir, Confirm::Manual).await
    }
}

/// Waits for the pods that ran before, as long as the switch waits for its confirmation; says which ones do not run.
async fn pods_run(files: &Files, dir: &Dir, plan: &Plan) -> anyhow::Result<bool> {
    let mut waiting = Waiting::new(files, dir, plan)?;
    let until = Instant::now() + PATIENCE;
    loop {
        if waiting.is_over().await {
            return Ok(true);
        }
        let Some(State::AwaitingCommit { .. }) = dir.progress()?.map(|progress| progress.state) else {
            anyhow::bail!(
                "the switch does not wait for its confirmation any more: see `transship node status`"
            );
        };
        let deadline = confirm::deadline(&dir.journal()?);
        if Instant::now() >= until {
            println!(
                "\nNot confirmed: {}\n{}",
                waiting.reason(),
                confirm::choices(deadline)
            );
            return Ok(false);
        }
        waiting.say(deadline);
        sleep(confirm::LOOK).await;
    }
}
