//! Who else acts on the runtimes of this host: units that start Docker, jobs of cron, and agents of configuration
//! management. What cannot be read here is passed over: it is no part of the plan.

use super::units::Units;
use crate::{
    host::files::Files,
    plan::{facts::Rivals, host_path::HostPath},
};

/// Services of agents that write files back.
const AGENTS: [&str; 6] = [
    "bashible.service",
    "cfengine3.service",
    "chef-client.service",
    "puppet.service",
    "puppet-agent.service",
    "salt-minion.service",
];

/// Services that write files at every boot, and are over afterwards (EKS' AL2023).
const AT_BOOT: [&str; 2] = ["nodeadm-config.service", "nodeadm-run.service"];

/// Directories with units and jobs of the administrator. Units of packages are those of Docker itself.
const DIRECTORIES: [&str; 9] = [
    "/etc/systemd/system",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/monit/conf.d",
    "/etc/monit/conf-enabled",
    "/etc/monit.d",
    "/var/spool/cron",
    "/var/spool/cron/crontabs",
];
const CRONTAB: &str = "/etc/crontab";
/// Longest text that is read, in bytes: a script of a watchdog is short, and a program is none.
const SCRIPT: u64 = 64 << 10;

/// Names of the units that are looked at.
pub(super) fn units() -> impl Iterator<Item = String> {
    AGENTS.into_iter().chain(AT_BOOT).map(str::to_owned)
}

/// Looks for them.
pub(super) fn inspect(files: &Files, units: &Units) -> Rivals {
    let agents = AGENTS
        .into_iter()
        .filter(|name| units.named(name).active == "active")
        .chain(
            AT_BOOT
                .into_iter()
                .filter(|name| units.named(name).boot == "enabled"),
        )
        .map(str::to_owned)
        .collect();
    let names = |directory: &&str| -> Vec<String> {
        let path = HostPath::new(*directory).ok();
        let names = path.and_then(|path| files.list(&path).ok()).unwrap_or_default();
        names
            .into_iter()
            .map(|name| format!("{directory}/{name}"))
            .collect()
    };
    let paths = DIRECTORIES.iter().flat_map(names).chain([CRONTAB.to_owned()]);
    let mut starters = Vec::new();
    for path in paths {
        let Some(text) = text(files, &path).filter(|_| !is_of_docker(&path)) else {
            continue;
        };
        let scripts = programs(&text).filter_map(|program| self::text(files, program));
        if starts_docker(&text) || scripts.into_iter().any(|script| starts_docker(&script)) {
            starters.extend(HostPath::new(path).ok());
        }
    }
    Rivals { starters, agents }
}

/// The units of Docker themselves, and of what Transship puts in front of it.
fn is_of_docker(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    let own = ["docker.service", "docker.socket", "cri-docker", "transship"];
    own.iter().any(|start| name.starts_with(start))
}

/// A short text; `None` for a program, a directory, or a file that is not there.
pub(super) fn text(files: &Files, path: &str) -> Option<String> {
    let path = HostPath::new(path).ok()?;
    let bytes = files.read_at_most(&path, SCRIPT).ok()??;
    String::from_utf8(bytes).ok()
}

/// The programs that a unit or a job starts, as far as they are named by their paths.
fn programs(text: &str) -> impl Iterator<Item = &str> {
    let commands = text.lines().filter_map(|line| {
        let line = line.trim();
        let unit = line.strip_prefix("ExecStart=");
        unit.or_else(|| line.starts_with(['*', '@']).then_some(line))
    });
    commands
        .flat_map(str::split_whitespace)
        .map(|word| word.trim_start_matches(['-', '@', ':', '+', '!']))
        .filter(|word| word.starts_with('/'))
}

/// Whether a line of it starts Docker: `systemctl restart docker`, `service docker start`, a check of monit.
fn starts_docker(text: &str) -> bool {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.any(|line| {
        let words: Vec<&str> = line
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';' | '&' | '|' | '(' | ')'))
            .filter(|word| !word.is_empty())
            .collect();
        let docker = |word: &&str| matches!(*word, "docker" | "docker.service" | "docker.socket");
        let starts = |word: &&str| matches!(*word, "start" | "restart" | "try-restart" | "reload-or-restart");
        words.windows(3).any(|three| {
            let program = three[0].rsplit('/').next();
            match program {
                Some("systemctl") => starts(&three[1]) && docker(&three[2]),
                Some("service") => docker(&three[1]) && starts(&three[2]),
                _ => false,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_starts_docker_again_is_found() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for (path, text) in [
            (
                "/etc/systemd/system/docker-monitor.service",
                "[Service]\nExecStart=/opt/health-monitor.sh container-runtime\n",
            ),
            (
                "/opt/health-monitor.sh",
                "#!/bin/sh\n# watch\nif ! timeout 60 docker ps >/dev/null; then systemctl restart docker; fi\n",
            ),
            ("/etc/cron.d/docker", "*/5 * * * * root service docker start\n"),
            ("/etc/cron.d/prune", "0 3 * * * root docker system prune -f\n"),
            (
                "/etc/systemd/system/docker.service",
                "[Service]\nExecStart=/usr/bin/dockerd\n",
            ),
            ("/etc/crontab", "# systemctl start docker\n"),
        ] {
            files
                .write(&HostPath::new(path).unwrap(), text.as_bytes(), 0o644)
                .unwrap();
        }
        let found = inspect(&files, &Units::default());
        let starters: Vec<&str> = found.starters.iter().map(HostPath::as_str).collect();
        assert_eq!(
            starters,
            ["/etc/systemd/system/docker-monitor.service", "/etc/cron.d/docker"]
        );
        assert!(found.agents.is_empty());
    }

    #[test]
    fn fuzz_scripts() {
        use crate::fuzz::{hold, samples};

        hold(&samples("scripts", &[]), |text| {
            starts_docker(text);
            assert!(programs(text).all(|program| program.starts_with('/')));
        });
    }
}
