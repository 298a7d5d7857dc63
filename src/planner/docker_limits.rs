//! The limits (setrlimit(2)) that containers have under Docker, and how a target gives them to its pods: in a setting of its own,
//! or as lines of its unit, whose limits pods inherit.
//!
//! A container has the limits of `default-ulimits`; all others it inherits from the program that starts it. That is
//! containerd: its own service, or, if Docker does not use one, a child of Docker.
//!
//! containerd's only setting of its own is a whole specification of containers (`base_runtime_spec`), which is never written:
//! the file takes the place of the specification that each release of containerd makes itself
//! (`internal/cri/server/service.go`, `runtimeSpec`), and would stay as it is at its next upgrade.

use serde_json::{Map, Value, json};

use crate::{
    edit::flags,
    plan::{
        facts::{Containerd, Docker, Limits, UnitFacts},
        host_path, kubelet_arguments, paths,
    },
    planner::{
        context::{Takes, View},
        setting::Ulimit,
    },
};

/// Limits by their names in Docker, and the directive of systemd.exec(5) for each that does no harm to containerd
/// itself, to which it applies too.
const LIMITS: [(&str, Option<&str>); 15] = [
    ("core", Some("LimitCORE")),
    ("cpu", None),
    ("data", None),
    ("fsize", None),
    ("locks", Some("LimitLOCKS")),
    ("memlock", Some("LimitMEMLOCK")),
    ("msgqueue", Some("LimitMSGQUEUE")),
    ("nice", Some("LimitNICE")),
    ("nofile", Some("LimitNOFILE")),
    ("nproc", Some("LimitNPROC")),
    ("rss", None),
    ("rtprio", Some("LimitRTPRIO")),
    ("rttime", None),
    ("sigpending", Some("LimitSIGPENDING")),
    ("stack", Some("LimitSTACK")),
];

/// The line for the target's unit; `None` if the target itself could not work with it, or systemd does not know it.
fn line_of(ulimit: &Ulimit) -> Option<String> {
    let (_, directive) = LIMITS.iter().find(|(name, _)| *name == ulimit.name)?;
    Some(line((*directive)?, ulimit.limits))
}

/// As Docker and CRI-O read it (`nofile=1024:2048`); `None` if they do not: CRI-O ends at such a limit
/// (`internal/config/ulimits/ulimits.go`).
fn option_of(ulimit: &Ulimit) -> Option<String> {
    let reads =
        LIMITS.iter().any(|(name, _)| *name == ulimit.name) && ulimit.limits.soft <= ulimit.limits.hard;
    reads.then(|| ulimit.to_string())
}

/// The number of open files as a line of a unit.
pub fn nofile(limits: Limits) -> String {
    line("LimitNOFILE", limits)
}

/// Limits as `daemon.json` has them.
pub fn in_json(name: &str, limits: Limits) -> Value {
    let number = |limit: u64| i64::try_from(limit).unwrap_or(-1);
    json!({ "Name": name, "Soft": number(limits.soft), "Hard": number(limits.hard) })
}

/// Limits as Docker's flag and CRI-O's configuration have them (`nofile=1024:2048`); what is none is passed over.
pub fn read<T: AsRef<str>>(texts: &[T]) -> Vec<Ulimit> {
    let one = |text: &T| {
        let (name, limits) = text.as_ref().split_once('=')?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Some(Ulimit {
            name: name.to_ascii_lowercase(),
            limits: Limits {
                soft: limit(soft.parse().ok()?),
                hard: limit(hard.parse().ok()?),
            },
        })
    };
    texts.iter().filter_map(one).collect()
}

/// How a target takes one of `default-ulimits`: the line or the entry that carries it; `None` where it cannot.
pub fn taken(ulimit: &Ulimit, takes: Takes) -> Option<String> {
    match takes.ulimits {
        Some(_) => option_of(ulimit),
        None => line_of(ulimit),
    }
}

/// `default-ulimits` of `daemon.json` and of the command line, in the order of their names.
pub fn ulimits(docker: &Docker, daemon: &Map<String, Value>) -> Vec<Ulimit> {
    let given = daemon.get("default-ulimits").and_then(Value::as_object);
    let in_file = given.into_iter().flatten().filter_map(|(name, value)| {
        let number = |wanted: &str| {
            let fields = value.as_object()?.iter();
            // Docker reads the keys of JSON without regard to case.
            let mut found = fields.filter(|(key, _)| key.eq_ignore_ascii_case(wanted));
            found.next().and_then(|(_, value)| value.as_i64())
        };
        Some(Ulimit {
            name: name.to_ascii_lowercase(),
            limits: Limits {
                soft: limit(number("Soft")?),
                hard: limit(number("Hard")?),
            },
        })
    });
    let command = kubelet_arguments::command(&docker.service);
    let in_flags = read(&flags::values(&command, "default-ulimit"));
    let mut found: Vec<Ulimit> = in_file.chain(in_flags).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Docker writes infinity as -1.
fn limit(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The entries for the target's setting of limits, where it has one.
pub fn entries(view: &View<'_>) -> Vec<String> {
    let given = view.docker_left().zip(view.takes());
    let given = given.filter(|(_, takes)| takes.ulimits.is_some());
    let all = given.map(|((docker, _), _)| ulimits(docker, view.daemon));
    all.iter().flatten().filter_map(option_of).collect()
}

/// The lines for the target's `unit` that give pods the limits that they had under the source; empty if it gives them
/// already. In a drop-in that is written `whole`, every limit is written.
pub fn lines(view: &View<'_>, unit: &UnitFacts, whole: bool) -> Vec<String> {
    let has_setting = view.takes().is_some_and(|takes| takes.ulimits.is_some());
    let (ulimits, inherited) = match view.docker_left() {
        Some((docker, _)) => {
            let starter = starter(docker, view.containerd);
            let differs = starter.name != unit.name && starter.limit_nofile != Limits::default();
            (
                ulimits(docker, view.daemon),
                Some(starter.limit_nofile).filter(|_| differs),
            )
        }
        None => (view.translation.ulimits().to_vec(), view.translation.inherited()),
    };
    let mut lines: Vec<String> = ulimits
        .iter()
        .filter(|ulimit| whole || !ulimit.is_nofile() || ulimit.limits != unit.limit_nofile)
        .filter(|_| !has_setting)
        .filter_map(line_of)
        .collect();
    let is_given = ulimits.iter().any(Ulimit::is_nofile);
    let inherited = inherited.filter(|limits| !is_given && (whole || *limits != unit.limit_nofile));
    lines.extend(inherited.map(nofile));
    lines
}

/// The unit whose limits Docker's containers inherit.
pub fn starter<'a>(docker: &'a Docker, containerd: Option<&'a Containerd>) -> &'a UnitFacts {
    containerd
        .filter(|containerd| starts_containers(docker, containerd))
        .map_or(&docker.service, |containerd| &containerd.service)
}

/// Whether Docker's containers are started by `containerd.service`, and inherit its limits: dockerd uses the socket of
/// `--containerd`, else the usual one if something listens there, else it starts a containerd of its own.
pub fn starts_containers(docker: &Docker, containerd: &Containerd) -> bool {
    let command = kubelet_arguments::command(&docker.service);
    let named = flags::value(&command, "containerd").filter(|socket| !socket.is_empty());
    let socket = named.unwrap_or(paths::CONTAINERD_SOCKET);
    let found = containerd.endpoint.as_str();
    containerd.service.active == "active" && host_path::socket(socket) == host_path::socket(found)
}

fn line(directive: &str, limits: Limits) -> String {
    if limits.soft == limits.hard {
        // The only form that systemd 219 reads.
        return format!("{directive}={}", number(limits.hard));
    }
    format!("{directive}={}:{}", number(limits.soft), number(limits.hard))
}

fn number(limit: u64) -> String {
    if limit == u64::MAX {
        "infinity".to_owned()
    } else {
        limit.to_string()
    }
}
