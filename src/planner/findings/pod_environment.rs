//! What pods have under the source and not under the target, apart from their own specification. `docs/pod-environment.md`
//! lists everything.

use crate::{
    plan::{
        codes::pod_environment::{
            LOCALHOST_CHANGES, LOG_SPACE, LOGS_GROW, LOGS_MOVE, LOGS_SHRINK, PULL_DEADLINE, ULIMITS_CARRIED,
            ULIMITS_LOST, UNPRIVILEGED_PORTS, UNPRIVILEGED_PORTS_LOST,
        },
        facts::{Engine, SANDBOX},
        finding::Finding,
        kubelet_settings::LogLimits,
        lists, quantity,
    },
    planner::{
        context::View,
        docker_limits, docker_logs, layers, pod_environment, pod_network,
        releases::{self, UnprivilegedPorts},
    },
};

const NOTHING: &str = "Nothing is to be done.";
/// Where the logs of pods lie under a CRI.
const POD_LOGS: &str = "/var/log/pods";

/// Checks of what pods have.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.extend(unprivileged(view));
    findings.extend(localhost(view));
    findings.extend(pull_deadline(view));
    findings.extend(ulimits(view));
    if let Some((_, engine)) = view.docker_left() {
        findings.extend(logs(view, engine));
        findings.extend(log_space(view, engine));
    }
    findings.extend(logs_grow(view));
    findings
}

fn unprivileged(view: &View<'_>) -> Option<Finding> {
    if !pod_environment::unprivileged(view) {
        return None;
    }
    let target = &view.target;
    let source = view.source.runtime.store();
    let under = format!("under {source} every process may bind ports under 1024 and send pings");
    let target_is = format!("{} {}", target.runtime, target.version);
    match releases::unprivileged_ports(target.runtime, &target.version)? {
        UnprivilegedPorts::Allowed => None,
        UnprivilegedPorts::Settings(settings) => Some(UNPRIVILEGED_PORTS.found(
            format!("{under}; {target_is} allows it with {settings}, which the plan sets"),
            NOTHING,
        )),
        UnprivilegedPorts::Later(first) => Some(UNPRIVILEGED_PORTS_LOST.found(
            format!("{under}; {target_is} cannot allow it"),
            format!(
                "Use {first} or later, or give such pods the sysctl net.ipv4.ip_unprivileged_port_start."
            ),
        )),
    }
}

fn localhost(view: &View<'_>) -> Option<Finding> {
    if !(view.leaves_docker() || view.enters_docker()) || pod_network::has_ipv6(view) {
        return None;
    }
    let (source, target) = (view.source.runtime, view.target.runtime);
    Some(if view.leaves_docker() {
        LOCALHOST_CHANGES.found(
            format!(
                "the pod network has no IPv6: Docker switches IPv6 off in its pods, {target} leaves ::1 to them, and \
                 `localhost` in /etc/hosts is ::1 too"
            ),
            "Probes and clients that use `localhost` may get ::1 first: a program that listens on 127.0.0.1 alone \
             refuses them (connection refused). Let it listen on [::1] too, or name 127.0.0.1.",
        )
    } else {
        LOCALHOST_CHANGES.found(
            format!(
                "the pod network has no IPv6: {source} leaves ::1 to its pods, and Docker switches IPv6 off in them"
            ),
            "A program that listens on ::1 alone does not start (cannot assign requested address). Let it listen on \
             127.0.0.1.",
        )
    })
}

fn pull_deadline(view: &View<'_>) -> Option<Finding> {
    let deadline = pod_environment::pull_deadline(view)?;
    let target = &view.target;
    let lacks = releases::lacks_pull_deadline(target.runtime, &target.version);
    let (message, remedy) = if let Some(later) = lacks {
        (
            format!(
                "{} cancels a pull that makes no progress for {deadline}; {} {} has no such deadline and waits",
                view.source.runtime, target.runtime, target.version
            ),
            format!("Nothing is to be done; {later}."),
        )
    } else {
        (
            format!(
                "{} cancels a pull that makes no progress for {deadline}; {} gets the same deadline",
                view.source.runtime, target.runtime
            ),
            NOTHING.to_owned(),
        )
    };
    Some(PULL_DEADLINE.found(message, remedy))
}

fn ulimits(view: &View<'_>) -> Vec<Finding> {
    let Some(((docker, _), takes)) = view.docker_left().zip(view.takes()) else {
        return Vec::new();
    };
    let (mut lines, mut lost) = (Vec::new(), Vec::new());
    for ulimit in docker_limits::ulimits(docker, view.daemon) {
        match docker_limits::taken(&ulimit, takes) {
            Some(line) => lines.push(line),
            None => lost.push(ulimit.to_string()),
        }
    }
    let (unit, lines) = (&view.target.unit, lines.join(", "));
    let carried = match takes.ulimits {
        Some(setting) => (
            format!(
                "Docker's default-ulimits: {setting} of {} has {lines}",
                view.target.runtime.store()
            ),
            NOTHING.to_owned(),
        ),
        None => (
            format!("Docker's default-ulimits: {unit} gets {lines}, which its pods inherit"),
            format!(
                "Check that the limits are enough for {} itself, to which they apply too.",
                view.target.runtime
            ),
        ),
    };
    let mut findings = Vec::new();
    if !lines.is_empty() {
        findings.push(ULIMITS_CARRIED.found(carried.0, carried.1));
    }
    if !lost.is_empty() {
        findings.push(ULIMITS_LOST.found(
            format!(
                "Docker's default-ulimits {} are not carried over: pods get what {unit} has instead, which is infinity unless \
                 somebody has set it",
                lost.join(", ")
            ),
            "They would stop the runtime itself as limits of its unit, or are no limits that it reads. Set them in the images of \
             the pods that need them, or in a file of your own that base_runtime_spec of containerd names (docs/docker-settings.md).",
        ));
    }
    findings
}

fn whole(limits: &LogLimits) -> u64 {
    limits.file_bytes.saturating_mul(limits.files)
}

fn logs(view: &View<'_>, engine: &Engine) -> Option<Finding> {
    if !matches!(&*engine.logging_driver, "json-file" | "") {
        return None;
    }
    let kubelet = view.logs_kept();
    let docker = docker_logs::docker_keeps(view);
    let shrinks = docker
        .as_ref()
        .is_none_or(|docker| whole(docker) > whole(kubelet));
    let before = docker.as_ref().map_or_else(
        || "without a limit of its own".to_owned(),
        |docker| format!("in {} per container", docker_logs::in_words(docker)),
    );
    let rules: Vec<String> = view.facts.log_rules.iter().map(ToString::to_string).collect();
    let rules = if rules.is_empty() {
        String::new()
    } else {
        format!("; {} rotates nothing any more", lists::some(&rules))
    };
    let code = if shrinks { &LOGS_SHRINK } else { &LOGS_MOVE };
    Some(code.found(
        format!(
            "Docker keeps logs in {}/containers {before}; under {} the kubelet keeps them in {POD_LOGS} in {} per \
             container, {} in all, and `kubectl logs` shows the newest file{rules}",
            engine.data_root,
            view.target.runtime,
            docker_logs::in_words(kubelet),
            quantity::words(whole(kubelet))
        ),
        if shrinks {
            "If that is not enough, set target.keepLogLimits (--keep-log-limits), with which the plan gives the kubelet Docker's \
             limits, or raise containerLogMaxSize and containerLogMaxFiles. Let log agents read /var/log/pods."
        } else {
            "Let log agents read /var/log/pods."
        },
    ))
}

/// Docker cannot reopen a log, which the kubelet's rotation asks of a runtime (`ReopenContainerLog` in cri-dockerd's
/// `core/container_log.go`): `log-opts` alone limit it.
fn logs_grow(view: &View<'_>) -> Option<Finding> {
    if !view.enters_docker() {
        return None;
    }
    let driver = view.daemon.get("log-driver").and_then(serde_json::Value::as_str);
    if !matches!(driver, None | Some("json-file")) {
        return None;
    }
    let (kubelet, docker) = (&view.settings.logs, docker_logs::docker_keeps(view));
    let grows = docker
        .as_ref()
        .is_none_or(|docker| whole(docker) > whole(kubelet));
    let limit = docker.as_ref().map_or_else(
        || "without a limit".to_owned(),
        |docker| format!("in {} per container", docker_logs::in_words(docker)),
    );
    grows.then(|| {
        LOGS_GROW.found(
            format!(
                "under {} the kubelet keeps logs in {} per container; under {} Docker keeps them in its data root {limit}",
                view.source.runtime,
                docker_logs::in_words(kubelet),
                view.target.runtime
            ),
            "Set max-size and max-file in the log-opts of Docker's daemon.json before the switch; restart Docker if it runs.",
        )
    })
}

fn log_space(view: &View<'_>, engine: &Engine) -> Option<Finding> {
    let logs = layers::disk(view.facts, POD_LOGS)?;
    let of_pods = (engine.store.containers.iter()).filter(|container| {
        let pod = container.pod.as_ref();
        container.running && pod.is_some_and(|pod| pod.container != SANDBOX)
    });
    let containers = of_pods.count();
    let needed = whole(view.logs_kept()).saturating_mul(u64::try_from(containers).unwrap_or(u64::MAX));
    let docker = layers::disk(view.facts, engine.data_root.as_str());
    let smaller = docker.filter(|docker| docker.device != logs.device && docker.total > logs.total);
    if smaller.is_none() && logs.free >= needed {
        return None;
    }
    let before = smaller.map_or_else(String::new, |docker| {
        format!(
            "; Docker's logs had {} of {}",
            quantity::words(docker.free),
            quantity::words(docker.total)
        )
    });
    Some(LOG_SPACE.found(
        format!(
            "the file system of {} has {} of {} free, and the logs of {} may need {}{before}",
            logs.path,
            quantity::words(logs.free),
            quantity::words(logs.total),
            lists::count(containers, "container"),
            quantity::words(needed)
        ),
        "Make /var/log larger, mount a larger file system at /var/log/pods, or lower containerLogMaxSize and \
         containerLogMaxFiles.",
    ))
}
