//! systemd's watchdog (`WatchdogSec=`): whoever does not report in time is killed and started again.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{ffi::OsStrExt as _, net::SocketAddr, net::UnixDatagram},
    },
};

/// Where systemd listens for the signs of life of this process; absent where it does not (`sd_notify(3)`).
#[derive(Debug, Default)]
pub struct Watchdog {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Watchdog {
    /// The watchdog of this process.
    pub fn of_this_process() -> Self {
        let named = std::env::var_os("NOTIFY_SOCKET");
        let socket = named.and_then(|name| {
            connect(&name)
                .inspect_err(|error| tracing::warn!(%error, "systemd's watchdog cannot be reached"))
                .ok()
        });
        Self { socket }
    }

    /// Reports that this process works. It is called by the loop that does the work and on its thread, so that a loop
    /// that is stuck, in a call that blocks too, reports nothing.
    pub fn alive(&self) {
        if let Some((socket, address)) = &self.socket {
            // A report that is lost is followed by the next one.
            let _ = socket.send_to_addr(b"WATCHDOG=1", address);
        }
    }
}

fn connect(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
        None => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_reaches_either_kind_of_socket() {
        let place = tempfile::tempdir().unwrap();
        let hidden = format!("transship-watchdog-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&hidden).unwrap();
        let path = place.path().join("notify");
        for (name, listener) in [
            (path.as_os_str().to_owned(), UnixDatagram::bind(&path).unwrap()),
            (
                OsString::from(format!("@{hidden}")),
                UnixDatagram::bind_addr(&abstract_address).unwrap(),
            ),
        ] {
            let watchdog = Watchdog {
                socket: Some(connect(&name).unwrap()),
            };
            watchdog.alive();
            listener.set_nonblocking(true).unwrap();
            let mut said = [0; 32];
            let length = listener.recv(&mut said).unwrap();
            assert_eq!(&said[..length], b"WATCHDOG=1", "{name:?}");
        }
        Watchdog::default().alive();
    }
}
