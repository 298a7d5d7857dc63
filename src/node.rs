//! The commands for one node and a shell, without any cluster: the same code that the agent uses.

mod commit;
mod confirm;
pub mod follow;
pub mod inspect;
pub mod orders;
mod output;
pub mod plan;
pub mod pods;
pub mod switch;
mod unfinished;

use std::process::ExitCode;

/// `transship node …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what is found on this node: kubelet, runtimes, containers, images, network. Changes nothing.
    Inspect(inspect::Args),
    /// Show what a switch would do to this node, and what stands in its way. Changes nothing.
    Plan(plan::Args),
    /// Switch this node, and go back if it does not become healthy.
    Switch(switch::Args),
    /// Take a switch back, after its commit too.
    Rollback(orders::Which),
    /// Keep a switch that waits for it.
    Commit(commit::Commit),
    /// Show how far a switch is.
    Status(orders::Status),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// What the command says of itself.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Inspect(args) => args.run().await,
            Self::Plan(args) => args.run().await,
            Self::Switch(args) => args.run().await,
            Self::Rollback(which) => which.rollback().await,
            Self::Commit(args) => args.run().await,
            Self::Status(status) => status.run().await,
        }
    }
}
