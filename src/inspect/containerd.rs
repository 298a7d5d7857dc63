//! containerd: its unit and configuration, and what its CRI says of itself.

use toml_edit::Item;

use super::{Host, Notes, cri};
pub(super) use crate::plan::runtimes::containerd::{CONFIG, DROP_IN, ENVIRONMENT_FILE};
use crate::{
    edit::parse,
    plan::{
        facts::{Containerd, UnitFacts},
        host_path::HostPath,
        runtimes::containerd::SOCKET,
    },
};

/// Looks at containerd; nothing when there is no unit for it.
pub(super) async fn inspect(host: &Host, service: UnitFacts, notes: &Notes) -> Option<Containerd> {
    if service.load == "not-found" {
        return None;
    }
    let path = config_path(&service.exec_start);
    let dump = ["--config", path.as_str(), "config", "dump"];
    let (version, effective) = match service.exec_start.first() {
        Some(program) if host.live => {
            tokio::join!(
                notes.output(program, &["--version"]),
                notes.output(program, &dump)
            )
        }
        _ => (None, None),
    };
    let document = effective.as_ref().and_then(|text| parse::toml(text).ok());
    let socket = document
        .as_ref()
        .and_then(|document| text(document.as_item(), &["grpc", "address"]));
    let endpoint = notes.keep(HostPath::new(socket.unwrap_or(SOCKET)))?;
    let (cri, store) = match notes.keep(host.files.real(&endpoint)) {
        // That it does not answer is a fact and no failure: many packages switch the CRI plugin off.
        Some(socket) if service.active == "active" => {
            let (cri, store) = tokio::join!(cri::facts(&socket), cri::store(&socket));
            (cri.ok(), store.ok())
        }
        _ => (None, None),
    };
    Some(Containerd {
        // `containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1`
        version: version
            .and_then(|text| {
                text.split_whitespace()
                    .nth(2)
                    .map(|word| word.trim_start_matches('v').to_owned())
            })
            .unwrap_or_default(),
        config: notes.maybe(&host.files, &path)?,
        effective,
        endpoint,
        cri,
        store,
        drop_in: notes.maybe(&host.files, DROP_IN)?,
        service,
    })
}

fn config_path(arguments: &[String]) -> String {
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = match argument.split_once('=') {
            Some(("--config" | "-config" | "-c", value)) => Some(value.to_owned()),
            None if matches!(argument.as_str(), "--config" | "-config" | "-c") => rest.next().cloned(),
            _ => None,
        };
        if let Some(value) = value {
            return value;
        }
    }
    CONFIG.to_owned()
}

/// A text in a TOML document.
fn text<'a>(item: &'a Item, keys: &[&str]) -> Option<&'a str> {
    keys.iter().try_fold(item, |item, key| item.get(key))?.as_str()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_configuration_is_where_the_unit_says() {
        for (line, wanted) in [
            ("/usr/bin/containerd", super::CONFIG),
            ("containerd --config /etc/c.toml", "/etc/c.toml"),
            ("containerd -l debug -c=/srv/c.toml", "/srv/c.toml"),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(super::config_path(&words), wanted);
        }
    }
}
