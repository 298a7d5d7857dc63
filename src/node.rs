//! The commands for one node and a shell, without any cluster: the same code that the agent uses.

pub mod inspect;
mod output;
pub mod plan;

use std::process::ExitCode;

/// `transship node …`
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Show what is found on this node: kubelet, runtimes, containers, images, network. Changes nothing.
    Inspect(inspect::Args),
    /// Show what a switch would do to this node, and what stands in its way. Changes nothing.
    Plan(plan::Args),
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
        }
    }
}
