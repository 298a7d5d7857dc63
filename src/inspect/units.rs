//! Units as systemd describes them on the system bus.

use std::time::Duration;

use tokio::time::timeout;

use super::notes::Notes;
use crate::{
    edit::unit_file,
    host::{
        bus::SystemBus,
        files::Files,
        systemd::{Systemd, SystemdError, UnitProperties},
    },
    plan::{facts::UnitFacts, host_path::HostPath},
};

/// How long systemd may take for all that is asked.
const WITHIN: Duration = Duration::from_secs(15);

/// What systemd said.
#[derive(Debug, Default)]
pub(super) struct Units {
    /// Its version number, 0 when it does not answer.
    pub(super) version: u32,
    found: Vec<UnitFacts>,
}

impl Units {
    /// Asks systemd for these units.
    pub(super) async fn ask(files: &Files, names: &[String], notes: &Notes) -> Self {
        let all = async {
            let bus = SystemBus::connect().await?;
            let version = bus.version().await?;
            let mut found = Vec::new();
            for name in names {
                found.push(facts(files, name, bus.describe(name).await?, notes));
            }
            Result::<_, SystemdError>::Ok(Self { version, found })
        };
        match timeout(WITHIN, all).await {
            Ok(asked) => notes.keep(asked).unwrap_or_default(),
            Err(_) => {
                notes.add(format!(
                    "systemd does not answer on the system bus within {} s",
                    WITHIN.as_secs()
                ));
                Self::default()
            }
        }
    }

    /// A unit; one that systemd did not describe has `load` = `not-found`.
    pub(super) fn named(&self, name: &str) -> UnitFacts {
        let found = self.found.iter().find(|unit| unit.name == name).cloned();
        found.unwrap_or_else(|| UnitFacts {
            name: name.to_owned(),
            load: "not-found".to_owned(),
            ..Default::default()
        })
    }
}

/// Where packages put units, in systemd's order.
const VENDORS: [&str; 3] = [
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// The command of a masked unit, of which systemd says nothing: that of the file that the mask hides.
fn hidden_command(files: &Files, name: &str, notes: &Notes) -> Vec<String> {
    let hidden = VENDORS
        .iter()
        .find_map(|dir| notes.text(files, &format!("{dir}/{name}")));
    hidden
        .and_then(|file| unit_file::exec_start(&file.text))
        .unwrap_or_default()
}

/// The files that a path of `EnvironmentFile=` stands for, in systemd's order: its last part may have wildcards
/// (systemd.exec(5)).
pub(super) fn matching(files: &Files, path: &HostPath, notes: &Notes) -> Vec<String> {
    let text = path.as_str();
    let Some((directory, pattern)) = text
        .rsplit_once('/')
        .filter(|(_, last)| last.contains(['*', '?']))
    else {
        return vec![text.to_owned()];
    };
    let names = notes.list(files, directory).into_iter();
    names
        .filter(|name| !name.starts_with('.') || pattern.starts_with('.'))
        .filter(|name| is_like(name.as_bytes(), pattern.as_bytes()))
        .map(|name| format!("{directory}/{name}"))
        .collect()
}

/// Whether a name is like a pattern with `*` and `?` (glob(7)).
fn is_like(name: &[u8], pattern: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|from| is_like(&name[from..], rest)),
        (Some((b'?', rest)), Some((_, left))) => is_like(left, rest),
        (Some((want, rest)), Some((has, left))) => want == has && is_like(left, rest),
        _ => false,
    }
}

fn facts(files: &Files, name: &str, said: UnitProperties, notes: &Notes) -> UnitFacts {
    let exec_start = match said.unit.load.as_str() {
        "masked" => hidden_command(files, name, notes),
        _ => said.exec_start,
    };
    UnitFacts {
        name: name.to_owned(),
        load: said.unit.load,
        active: said.unit.active,
        boot: said.unit.boot,
        fragment: said.fragment,
        drop_ins: said
            .drop_ins
            .iter()
            .filter_map(|path| notes.text(files, path.as_str()))
            .collect(),
        environment: said.environment,
        environment_files: said
            .environment_files
            .iter()
            .flat_map(|(path, _)| matching(files, path, notes))
            .filter_map(|path| notes.text(files, &path))
            .collect(),
        exec_start,
        main_pid: said.unit.main_pid,
        bound_to: said.bound_to,
        needed_by: said.needed_by,
        active_since_micros: said.active_since_micros,
        limit_nofile: said.limits.get("LimitNOFILE").copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_file_may_stand_for_many() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        let path = |text: &str| HostPath::new(text).unwrap();
        for (name, text) in [
            ("20-b.env", "B=2\n"),
            ("10-a.env", "A=1\n"),
            ("x.conf", "C=3\n"),
            (".hidden.env", "D=4\n"),
        ] {
            let at = path(&format!("/etc/kubelet.d/{name}"));
            files.write(&at, text.as_bytes(), 0o644).unwrap();
        }
        let notes = Notes::default();
        let said = |at: &str| UnitProperties {
            environment_files: vec![(path(at), true)],
            ..UnitProperties::default()
        };
        let read = |at: &str| -> Vec<String> {
            let found = facts(&files, "kubelet.service", said(at), &notes).environment_files;
            found.into_iter().map(|file| file.text).collect()
        };
        assert_eq!(read("/etc/kubelet.d/*.env"), ["A=1\n", "B=2\n"]);
        assert_eq!(read("/etc/kubelet.d/??-b.e*v"), ["B=2\n"]);
        assert_eq!(read("/etc/kubelet.d/x.conf"), ["C=3\n"]);
        assert_eq!(read("/etc/none.d/*.env"), [""; 0]);
    }
}
