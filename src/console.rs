//! Standard output, and what a command answers to the one who started it: its exit code.

use std::io::Write as _;

/// A command that failed; standard error says why.
pub const FAILED: u8 = 1;
/// `transship node plan`: a finding blocks.
pub const BLOCKED: u8 = 2;
/// `transship node plan`, `switch` and `status`: a switch of this node waits for its confirmation, is under way, or is
/// broken. `plan` and `switch`: or soaks, and no other may begin meanwhile.
pub const UNFINISHED: u8 = 3;
/// `transship node rollback`: the rollback was refused, and the target serves. `transship node commit`: pods that ran before do not
/// run, and the switch is not confirmed.
pub const REFUSED: u8 = 4;
/// The command line could not be understood (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;

/// Writes a result to standard output. A reader that has seen enough (`| head`) is no error.
///
/// # Errors
/// When it cannot be written.
pub fn print(result: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(result.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
