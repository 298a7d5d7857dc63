//! A signal that reaches the process it is meant for, or none: a process ID belongs to another process as soon as the
//! first one has exited and was waited for.

use std::{io, os::fd::OwnedFd};

use nix::{errno::Errno, sys::signal, unistd};
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};

/// A process, by a descriptor that never comes to mean another one (`pidfd_open(2)`, Linux 5.3).
#[derive(Debug)]
pub struct HeldProcess(Hold);

#[derive(Debug)]
enum Hold {
    Descriptor(OwnedFd),
    /// On an older kernel (CentOS 7 has 3.10, Ubuntu 18.04 has 4.15), where the ID is all there is.
    Id(unistd::Pid),
}

impl HeldProcess {
    /// The process that has this ID now; `None` if there is none. Whoever looks for the right process looks at
    /// `/proc/PID` afterwards: what it finds is then of this process, or of one that no signal reaches from here.
    ///
    /// # Errors
    /// If the kernel refuses it, for want of descriptors for example.
    pub fn open(pid: u32) -> io::Result<Option<Self>> {
        let Some(id) = rustix::process::Pid::from_raw(pid.cast_signed()) else {
            return Ok(None);
        };
        match pidfd_open(id, PidfdFlags::empty()) {
            Ok(descriptor) => Ok(Some(Self(Hold::Descriptor(descriptor)))),
            Err(rustix::io::Errno::NOSYS) => {
                Ok(Some(Self(Hold::Id(unistd::Pid::from_raw(pid.cast_signed())))))
            }
            Err(rustix::io::Errno::SRCH) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends a signal. A process that has exited needs none.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn signal(&self, signal: signal::Signal) -> io::Result<()> {
        match &self.0 {
            Hold::Descriptor(descriptor) => {
                let Some(signal) = rustix::process::Signal::from_named_raw(signal as i32) else {
                    return Err(io::ErrorKind::InvalidInput.into());
                };
                match pidfd_send_signal(descriptor, signal) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Hold::Id(id) => match signal::kill(*id, signal) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(error) => Err(error.into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    use nix::sys::signal::Signal;

    use super::*;

    #[test]
    fn a_signal_reaches_the_process_and_nobody_once_it_is_gone() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let held = HeldProcess::open(child.id()).unwrap().unwrap();
        assert!(
            matches!(held.0, Hold::Descriptor(_)),
            "the kernel of this machine knows descriptors of processes"
        );
        for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL)) {
            assert!(
                rustix::process::Signal::from_named_raw(signal as i32).is_some(),
                "{signal}"
            );
        }
        held.signal(Signal::SIGTERM).unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        // Waited for: the ID is free now, and the descriptor stands for nobody.
        held.signal(Signal::SIGKILL).unwrap();
        assert!(HeldProcess::open(child.id()).unwrap().is_none());
        assert!(HeldProcess::open(0).unwrap().is_none());
    }
}
