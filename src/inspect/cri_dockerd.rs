//! cri-dockerd: its units, and what its CRI says of itself.

use super::{
    cri,
    notes::{Host, Notes},
    programs,
    units::Units,
};
use crate::{
    edit::flags,
    plan::{
        facts::CriDockerd,
        host_path::{self, HostPath},
        kubelet_arguments,
        kubelet_settings::ENDPOINT_FLAG,
        paths::CRI_DOCKERD_SOCKET,
    },
};

/// What the packages call the units, and what Kubespray does.
const NAMES: [&str; 2] = ["cri-docker", "cri-dockerd"];

/// Names of the units that are looked at.
pub(super) fn units() -> impl Iterator<Item = String> {
    NAMES
        .into_iter()
        .flat_map(|name| [format!("{name}.service"), format!("{name}.socket")])
}

/// Looks at cri-dockerd; nothing when there is no unit for it.
pub(super) async fn inspect(host: &Host, units: &Units, notes: &Notes) -> Option<CriDockerd> {
    let found: Vec<_> = NAMES
        .into_iter()
        .map(|name| {
            let service = units.named(&format!("{name}.service"));
            (name, service, units.named(&format!("{name}.socket")))
        })
        .collect();
    let (name, service, socket) = found
        .into_iter()
        .find(|(_, service, _)| service.load != "not-found" && !service.load.is_empty())?;
    let command = kubelet_arguments::command(&service);
    let version = match command.first() {
        Some(program) if host.live => notes.output(program, &["--version"]).await,
        _ => None,
    };
    let endpoint = notes.keep(HostPath::new(endpoint(&command)))?;
    let cri = match notes.keep(host.files.real(&endpoint)) {
        // Connecting to the socket of a stopped service would start it.
        Some(path) if service.active == "active" => cri::facts(&path).await.ok(),
        _ => None,
    };
    Some(CriDockerd {
        version: version.as_deref().map(programs::version_in).unwrap_or_default(),
        drop_in: notes.maybe(
            &host.files,
            &format!("/etc/systemd/system/{name}.service.d/zz-transship.conf"),
        )?,
        endpoint,
        cri,
        service,
        socket,
    })
}

/// The socket that the service serves. `fd://` is that of the socket unit.
fn endpoint(arguments: &[String]) -> String {
    let value = flags::value(arguments, ENDPOINT_FLAG);
    let path = value.and_then(|value| value.strip_prefix("unix:"));
    host_path::plain(path.unwrap_or(CRI_DOCKERD_SOCKET))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_where_the_service_says() {
        for (line, wanted) in [
            (
                "/usr/bin/cri-dockerd --container-runtime-endpoint fd://",
                CRI_DOCKERD_SOCKET,
            ),
            ("cri-dockerd", CRI_DOCKERD_SOCKET),
            (
                "cri-dockerd --container-runtime-endpoint=unix:///run/x.sock",
                "/run/x.sock",
            ),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(endpoint(&words), wanted);
        }
    }
}
