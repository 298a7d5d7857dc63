//! Docker's proxies, and what gives them to another unit.

use serde_json::{Map, Value};

use crate::{
    edit::{env_file, flags, unit_file},
    plan::{
        environment,
        facts::{Docker, UnitFacts},
        kubelet_arguments,
    },
};

/// Variables that carry a proxy, in the spellings that Go programs read.
const PROXIES: [&str; 6] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Docker's proxies as `NAME=value`: those of `daemon.json` and of flags (23.0 and later) win over the unit's environment.
pub fn proxies(docker: &Docker, daemon: &Map<String, Value>) -> Vec<String> {
    let mut found = proxies_in(&docker.service);
    let given = daemon.get("proxies").and_then(Value::as_object);
    let command = kubelet_arguments::command(&docker.service);
    for (key, name) in [
        ("http-proxy", "HTTP_PROXY"),
        ("https-proxy", "HTTPS_PROXY"),
        ("no-proxy", "NO_PROXY"),
    ] {
        let is_set = |value: &&str| !value.is_empty();
        let in_file = given.and_then(|proxies| proxies.get(key)).and_then(Value::as_str);
        let in_flag = flags::value(&command, key);
        if let Some(value) = in_file.filter(is_set).or(in_flag).filter(is_set) {
            found.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
            found.push((name, value.to_owned()));
        }
    }
    found
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// The proxies of a unit's environment as `NAME=value`.
pub fn proxies_of(unit: &UnitFacts) -> Vec<String> {
    proxies_in(unit)
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

fn proxies_in(unit: &UnitFacts) -> Vec<(&'static str, String)> {
    let value = |name| variable(unit, name).filter(|value| !value.is_empty());
    PROXIES
        .into_iter()
        .filter_map(|name| Some((name, value(name)?)))
        .collect()
}

/// A variable of a unit's environment. A file that cannot be read has a finding of its own.
fn variable(unit: &UnitFacts, name: &str) -> Option<String> {
    environment::values(unit, name).find_map(|(_, value)| value.ok())
}

/// What gives a unit Docker's proxies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForUnit {
    /// Lines of the section `[Service]` of a drop-in.
    pub lines: Vec<String>,
    /// Text of the environment file with the proxies, if one of them holds credentials: systemd shows the
    /// `Environment=` of a unit to everybody on D-Bus, whatever the mode of the drop-in.
    pub environment: Option<String>,
}

/// What gives containerd's unit these proxies, `NAME=value`; nothing when it has them already. In a drop-in that is written
/// whole, everything is said again. `environment_file` is where the environment file will be.
pub fn for_unit(proxies: &[String], unit: &UnitFacts, whole: bool, environment_file: &str) -> ForUnit {
    let missing = |assignment: &&String| {
        let (name, value) = assignment.split_once('=').unwrap_or_default();
        whole || variable(unit, name).as_deref() != Some(value)
    };
    let missing: Vec<&String> = proxies.iter().filter(missing).collect();
    let (mut lines, mut environment) = (Vec::new(), None);
    if missing.iter().any(|proxy| proxy.contains('@')) {
        let pairs = proxies.iter().filter_map(|proxy| proxy.split_once('='));
        let head = "# Written by Transship: the proxies of the runtime before, for root alone.\n".to_owned();
        environment = pairs
            .map(Ok)
            .try_fold(head, |text, pair| {
                let (name, value) = pair?;
                env_file::set(&text, name, value)
            })
            .ok();
    }
    if environment.is_some() {
        lines.push(format!("EnvironmentFile={environment_file}"));
    } else {
        let plain = missing.iter().filter(|proxy| !proxy.contains('@'));
        lines.extend(plain.map(|proxy| unit_file::environment(proxy)));
    }
    ForUnit { lines, environment }
}
