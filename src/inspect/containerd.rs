//! containerd: its unit and configuration, and what its CRI says of itself.

use super::{
    cri,
    notes::{Host, Notes},
    units::{self, Units},
};
use crate::{
    edit::containerd_toml,
    host::files::Files,
    plan::{
        facts::{Containerd, TextFile, UpgradeFacts},
        host_path::{self, HostPath},
        kubelet_arguments,
        paths::{CONTAINERD_CONFIG, CONTAINERD_DROP_IN, CONTAINERD_SOCKET},
    },
    runtime,
};

/// Its unit.
pub(super) const UNIT: &str = "containerd.service";

/// Looks at containerd; nothing when there is no unit for it.
pub(super) async fn inspect(host: &Host, units: &Units, notes: &Notes) -> Option<Containerd> {
    let service = units.named(UNIT);
    if service.load == "not-found" {
        return None;
    }
    // The variables of the unit name the file on some systems.
    let command = kubelet_arguments::command(&service);
    let path = host_path::plain(&config_path(&command));
    let dump = ["--config", path.as_str(), "config", "dump"];
    let (version, effective) = match command.first() {
        Some(program) if host.live => {
            tokio::join!(
                notes.output(program, &["--version"]),
                notes.output(program, &dump)
            )
        }
        _ => (None, None),
    };
    let config = notes.maybe(&host.files, &path)?;
    let written = config.file.as_ref().map(|file| file.text.as_str());
    let imported = imported(&host.files, &path, written.unwrap_or_default(), notes);
    let socket = effective.as_deref().or(written).and_then(containerd_toml::socket);
    let endpoint = notes.keep(HostPath::new(socket.map_or_else(
        || CONTAINERD_SOCKET.to_owned(),
        |socket| host_path::plain(&socket),
    )))?;
    let (cri, store) = match notes.keep(host.files.real(&endpoint)) {
        // That it does not answer is a fact and no failure: many packages switch the CRI plugin off.
        Some(socket) if service.active == "active" => {
            let (cri, store) = tokio::join!(cri::facts(&socket), cri::store(&socket));
            (cri.ok(), store.ok())
        }
        _ => (None, None),
    };
    let cri_problem = match notes.keep(host.files.real(&endpoint)) {
        Some(socket) if service.active == "active" && cri.is_none() => problem(&socket).await,
        _ => None,
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
        config,
        effective,
        endpoint,
        cri,
        cri_problem,
        store,
        drop_in: notes.maybe(&host.files, CONTAINERD_DROP_IN)?,
        service,
        imported,
        upgrade: UpgradeFacts::default(),
    })
}

/// The directories in which its CRI looks for CNI plugins, as it says itself.
pub(super) fn cni_bin_dirs(containerd: Option<&Containerd>) -> Vec<String> {
    let effective = containerd.and_then(|containerd| containerd.effective.as_deref());
    effective.map(containerd_toml::cni).unwrap_or_default().bin_dirs
}

/// The files that a configuration imports. The last part of a path may have wildcards, and a path that does not begin
/// at the root begins in the directory of the configuration.
fn imported(files: &Files, config: &str, text: &str, notes: &Notes) -> Vec<TextFile> {
    let (directory, _) = config.rsplit_once('/').unwrap_or_default();
    let mut found = Vec::<TextFile>::new();
    for entry in containerd_toml::imports(text).unwrap_or_default() {
        let path = if entry.starts_with('/') {
            entry
        } else {
            format!("{directory}/{}", entry.trim_start_matches("./"))
        };
        let Some(path) = notes.keep(HostPath::new(host_path::plain(&path))) else {
            continue;
        };
        for path in units::matching(files, &path, notes) {
            let file = notes.text(files, &path);
            found.extend(file.filter(|file| found.iter().all(|known| known.path != file.path)));
        }
    }
    found
}

/// Why the CRI plugin of a running containerd did not load, if it says.
async fn problem(socket: &std::path::Path) -> Option<String> {
    let containerd = runtime::containerd::Containerd::connect(socket).await.ok()?;
    containerd.cri_problem().await.ok()?
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
    CONTAINERD_CONFIG.to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Files, HostPath, Notes};
    use crate::plan::{facts::UnitFacts, paths::CONTAINERD_CONFIG};

    #[test]
    fn imports_are_read_in_the_order_of_containerd() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for (path, text) in [
            ("conf.d/b.toml", "b"),
            ("conf.d/a.toml", "a"),
            ("conf.d/c.conf", "c"),
            ("x.toml", "x"),
        ] {
            let path = HostPath::new(format!("/etc/containerd/{path}")).unwrap();
            files.write(&path, text.as_bytes(), 0o644).unwrap();
        }
        let notes = Notes::default();
        let text = "imports = ['x.toml', '/etc/containerd/conf.d/*.toml', './x.toml', '/etc/gone.toml']\n";
        let found = super::imported(&files, CONTAINERD_CONFIG, text, &notes);
        let texts: Vec<&str> = found.iter().map(|file| file.text.as_str()).collect();
        assert_eq!(texts, ["x", "a", "b"]);
        assert_eq!(notes.0.take(), Vec::<String>::new());
    }

    #[test]
    fn the_configuration_is_where_the_unit_says() {
        for (line, wanted) in [
            ("/usr/bin/containerd", CONTAINERD_CONFIG),
            ("containerd --config /etc/c.toml", "/etc/c.toml"),
            ("containerd -l debug -c=/srv/c.toml", "/srv/c.toml"),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(super::config_path(&words), wanted);
        }
    }

    /// Flatcar's unit names the file by a variable.
    #[test]
    fn a_variable_of_the_unit_may_name_the_configuration() {
        let unit = UnitFacts {
            exec_start: ["/usr/bin/containerd", "--config", "${CONTAINERD_CONFIG}"]
                .map(str::to_owned)
                .into(),
            environment: vec!["CONTAINERD_CONFIG=/usr/share/containerd/config.toml".to_owned()],
            ..UnitFacts::default()
        };
        let words = crate::plan::kubelet_arguments::command(&unit);
        assert_eq!(super::config_path(&words), "/usr/share/containerd/config.toml");
    }
}
