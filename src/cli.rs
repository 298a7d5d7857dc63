//! The command line. Each role has its arguments and its `run` in its own module; this one parses, starts logging
//! and the asynchronous runtime, and turns the result into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use tokio::runtime::{Builder, Runtime};

use crate::{
    agent,
    api::crd::{self, Cel},
    console::{self, FAILED, USAGE},
    controller, executor,
    host::files::Files,
    node,
    plan::{
        causes,
        host_path::{HostPath, NotAHostPath},
    },
    telemetry::{self, LogFormat, Role},
};

/// Switches the container runtime of running Kubernetes nodes, and can always go back.
#[derive(Debug, clap::Parser)]
#[command(name = "transship", version, propagate_version = true)]
struct Cli {
    /// How log lines are written to standard error [default: json for a service without a terminal, else text]
    #[arg(long, global = true, value_enum, env = "TRANSSHIP_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Write the error to this file, too, if the command fails
    #[arg(long, global = true, hide = true, value_name = "FILE", value_parser = host_path)]
    error_file: Option<HostPath>,
    #[command(subcommand)]
    command: Command,
}

fn host_path(text: &str) -> Result<HostPath, NotAHostPath> {
    HostPath::new(text)
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Look at this node, plan and carry out a switch by hand, without any cluster.
    #[command(subcommand)]
    Node(node::Command),
    /// Print the custom resource definitions as YAML.
    Crds {
        /// Leave out the validation rules in CEL, for servers up to 1.24
        #[arg(long)]
        no_cel: bool,
    },
    /// Bring a migration to its node: the pod of the chart's DaemonSet.
    Agent(agent::service::Args),
    /// Decide which node moves when; runs in the cluster.
    Controller(controller::Args),
    /// Carry out a plan on this host; started by the agent and by systemd.
    #[command(subcommand)]
    Executor(executor::command::Command),
}

impl Command {
    fn role(&self) -> Role {
        match self {
            Self::Node(_) | Self::Crds { .. } => Role::Command,
            Self::Agent(_) | Self::Controller(_) | Self::Executor(_) => Role::Service,
        }
    }

    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Crds { no_cel } => print_crds(if no_cel { Cel::Without } else { Cel::With }),
            Self::Controller(args) => {
                service_runtime()?.block_on(controller::run(args))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Agent(args) => {
                service_runtime()?.block_on(agent::service::run(args))?;
                Ok(ExitCode::SUCCESS)
            }
            Self::Node(command) => host_runtime()?.block_on(command.run()),
            Self::Executor(command) => host_runtime()?.block_on(command.run()),
        }
    }
}

/// Parses the command line and runs the role that it names.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Nobody is left to tell when standard error is closed.
            let _ = message.print();
            return if message.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    telemetry::start(cli.command.role(), cli.log_format);
    cli.command.run().unwrap_or_else(|error| {
        let sentence = causes::in_one_line(error.as_ref());
        telemetry::complain(&sentence);
        if let Some(file) = cli.error_file {
            // Whoever reads it publishes it: the reader hides secrets.
            let written = Files::new("/").write(&file, sentence.as_bytes(), 0o600);
            if let Err(error) = written {
                telemetry::complain(&format_args!("cannot {error}"));
            }
        }
        ExitCode::from(FAILED)
    })
}

fn print_crds(cel: Cel) -> anyhow::Result<ExitCode> {
    console::print(&crd::yaml(cel)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The asynchronous runtime of work on a host: one thread, so that nothing needs to be `Send` and memory stays
/// small.
///
/// # Errors
/// When the kernel refuses its event queue.
fn host_runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// The asynchronous runtime of the controller and the agent. Two threads: by default there would be one for each
/// of perhaps 128 cores.
///
/// # Errors
/// When the kernel refuses its event queue or its threads.
fn service_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
