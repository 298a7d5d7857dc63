//! `transship node inspect`: the facts of a node.

use std::{fmt::Write as _, iter, path::PathBuf, process::ExitCode};

use anyhow::Context as _;

use super::output::{Format, size};
use crate::{
    console,
    executor::control::Dir,
    host::files::Files,
    inspect::{Host, inspect},
    plan::{
        facts::{Docker, Engine, Facts, Kubelet, UnitFacts},
        host_path::HostPath,
        installed::Installed,
        runtime::Runtime,
    },
};

/// Show what is found on this node.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Form of the result; json and yaml hold the text of every file that may be edited, with its secrets
    #[arg(short = 'o', long = "format", value_enum, default_value_t)]
    format: Format,
    /// Look at the files below this directory instead of this host's; systemd is then not asked
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Write the result to this file (mode 0600, replaced at once and durably) instead of standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Args {
    /// Runs the command.
    ///
    /// # Errors
    /// When the result cannot be written; what cannot be read is a part of the result.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let host = Host {
            live: self.root.as_os_str() == "/",
            files: Files::new(self.root),
        };
        let result = self.format.render(&look(&host).await, summary)?;
        match self.output {
            Some(file) => {
                let path = std::path::absolute(&file).with_context(|| format!("find {}", file.display()))?;
                let path = HostPath::new(path.to_string_lossy())?;
                Files::new("/").write(&path, result.as_bytes(), 0o600)?;
            }
            None => console::print(&result)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The facts of a host, with what Transship itself has left there.
pub(super) async fn look(host: &Host) -> Facts {
    let mut facts = inspect(host).await;
    match Dir::open_attempts(&host.files) {
        Ok(attempts) => facts.attempts = attempts,
        Err(error) => facts.unreadable.push(error.to_string()),
    }
    facts
}

/// The facts in a page, without secrets: no text of a file, no environment, no command line.
fn summary(facts: &Facts) -> String {
    let mut page = Page(String::new());
    page.line("node", &facts.node);
    page.line(
        "system",
        &format!(
            "{} {}, kernel {}, {}",
            facts.os.id, facts.os.version, facts.kernel, facts.arch
        ),
    );
    page.line(
        "systemd",
        &format!("{}, cgroup v{}", facts.systemd_version, facts.cgroup_version),
    );
    page.line("layout", &format!("{:?}", facts.layout));
    kubelet(&mut page, facts.kubelet.as_ref());
    docker(&mut page, facts.docker.as_ref());
    let mut installed = facts.installed();
    for runtime in Runtime::ALL {
        match installed.remove(&runtime) {
            Some(found) => with_units(&mut page, runtime, &found),
            // Others are a part of the kubelet.
            None if runtime.profile().is_target => page.line(runtime.name(), "not installed"),
            None => {}
        }
    }
    let names: Vec<&str> = facts.cni.configs.iter().map(|file| file.path.as_str()).collect();
    page.line(
        "CNI",
        &if names.is_empty() {
            "not configured".to_owned()
        } else {
            names.join(", ")
        },
    );
    for directory in &facts.cni.bin_dirs {
        page.more(&format!(
            "{} plugins in {}",
            directory.plugins.len(),
            directory.path
        ));
    }
    for disk in &facts.disks {
        let (free, total) = (size(disk.free), size(disk.total));
        page.line(
            "disk",
            &format!("{}: {}, {free} of {total} free", disk.path, disk.kind),
        );
    }
    for note in &facts.unreadable {
        page.line("not read", note);
    }
    page.0
}

/// Lines with a heading in front.
struct Page(String);

impl Page {
    fn line(&mut self, heading: &str, text: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{heading:<12}{text}");
    }

    fn more(&mut self, text: &str) {
        self.line("", text);
    }
}

fn unit(unit: &UnitFacts) -> String {
    match unit.load.as_str() {
        "loaded" => format!("{} is {}, {}", unit.name, unit.active, unit.boot),
        load => format!("{} is {load}", unit.name),
    }
}

fn kubelet(page: &mut Page, kubelet: Option<&Kubelet>) {
    let Some(kubelet) = kubelet else {
        return page.line("kubelet", "not found");
    };
    page.line(
        "kubelet",
        &format!("{}, {}", kubelet.version, unit(&kubelet.unit)),
    );
    let files = kubelet
        .unit
        .drop_ins
        .iter()
        .chain(&kubelet.unit.environment_files)
        .chain(&kubelet.config);
    for file in files
        .chain(&kubelet.config_drop_ins)
        .chain(&kubelet.instance_config)
    {
        page.more(file.path.as_str());
    }
}

fn docker(page: &mut Page, docker: Option<&Docker>) {
    let Some(docker) = docker else {
        return page.line("Docker", "not installed");
    };
    let version = docker
        .engine
        .as_ref()
        .map_or("not running", |engine| &engine.version);
    page.line(
        "Docker",
        &format!("{version}, {}, {}", unit(&docker.service), unit(&docker.socket)),
    );
    if let Some(engine) = &docker.engine {
        engine_lines(page, engine);
    }
}

fn engine_lines(page: &mut Page, engine: &Engine) {
    page.more(&format!(
        "cgroup driver {}, storage {} in {}, logs {}",
        engine.cgroup_driver, engine.storage_driver, engine.data_root, engine.logging_driver
    ));
    let pods: std::collections::BTreeSet<&str> = engine
        .store
        .containers
        .iter()
        .filter_map(|one| one.pod.as_ref().map(|pod| pod.uid.as_str()))
        .collect();
    let others: Vec<&str> = engine
        .store
        .containers
        .iter()
        .filter(|one| one.pod.is_none())
        .map(|one| one.name.as_str())
        .collect();
    let bytes = engine.store.images.iter().map(|image| image.size).sum();
    page.more(&format!(
        "{} pods in {} containers, {} images ({})",
        pods.len(),
        engine.store.containers.len() - others.len(),
        engine.store.images.len(),
        size(bytes)
    ));
    if !others.is_empty() {
        page.more(&format!(
            "containers that are not Kubernetes': {}",
            others.join(", ")
        ));
    }
}

fn with_units(page: &mut Page, runtime: Runtime, found: &Installed<'_>) {
    let units: Vec<String> = iter::once(found.service).chain(found.socket).map(unit).collect();
    let version = if found.version.is_empty() {
        "version unknown"
    } else {
        found.version
    };
    page.line(runtime.name(), &format!("{version}, {}", units.join(", ")));
    if let Some(config) = found.config {
        let missing = if config.file.is_some() {
            ""
        } else {
            " (no such file)"
        };
        page.more(&format!("{}{missing}", config.path));
    }
    page.more(&match found.cri {
        Some(cri) => format!(
            "CRI {} at {}: runtime {}, network {}",
            cri.api_version,
            found.endpoint,
            if cri.runtime_ready { "ready" } else { "not ready" },
            if cri.network_ready { "ready" } else { "not ready" },
        ),
        None => format!("CRI at {} does not answer", found.endpoint),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_runtime_of_the_node_is_shown() {
        let facts = include_str!("../../tests/hosts/debian12-kubeadm-1.36-cri-dockerd/facts.json");
        let facts: Facts = serde_json::from_str(facts).unwrap();
        let page = summary(&facts);
        let shown = |name: &str| {
            let line = page.lines().find(|line| line.split(' ').next() == Some(name));
            line.unwrap_or_default()
                .split_whitespace()
                .nth(1)
                .unwrap_or_default()
                .to_owned()
        };
        for (runtime, found) in facts.installed() {
            assert_eq!(shown(runtime.name()), format!("{},", found.version), "{page}");
        }
        assert_eq!(shown("cri-dockerd"), "0.4.3,");
        assert_eq!(shown("cri-o"), "not", "{page}");
        let none = Facts {
            cri_dockerd: None,
            ..facts
        };
        assert!(
            summary(&none).contains("cri-dockerd not installed"),
            "{}",
            summary(&none)
        );
    }
}
