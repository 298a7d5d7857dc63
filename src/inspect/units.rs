//! Units as systemd describes them on the system bus.

use std::time::Duration;

use tokio::time::timeout;

use super::Notes;
use crate::{
    edit::unit_file,
    host::{
        bus::SystemBus,
        files::Files,
        systemd::{Systemd, SystemdError, UnitProperties},
    },
    plan::facts::UnitFacts,
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

    /// Hands a unit over; one that systemd did not describe has `load` = `not-found`.
    pub(super) fn take(&mut self, name: &str) -> UnitFacts {
        match self.found.iter().position(|unit| unit.name == name) {
            Some(at) => self.found.swap_remove(at),
            None => UnitFacts {
                name: name.to_owned(),
                load: "not-found".to_owned(),
                ..Default::default()
            },
        }
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
            .filter_map(|(path, _)| notes.text(files, path.as_str()))
            .collect(),
        exec_start,
        main_pid: said.unit.main_pid,
        bound_to: said.bound_to,
        needed_by: said.needed_by,
        active_since_micros: said.active_since_micros,
        limit_nofile: said.limits.get("LimitNOFILE").copied().unwrap_or_default(),
    }
}
