//! The `transship` binary: every role is a subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    transship::cli::main()
}
