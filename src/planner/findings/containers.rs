//! What runs under Docker, and what depends on Docker itself.

use crate::{
    plan::{
        codes::containers::{
            CRI_SOCKET_MOUNTED, DOCKER_BOUND_TO_CONTAINERD, DOCKER_CONFIG_MOUNTED, DOCKER_HAS_NO_PODS,
            DOCKER_SOCKET_MOUNTED, DOCKER_SOCKET_REACHABLE, ETCD_IN_DOCKER, FOREIGN_CONTAINERS, LIVE_RESTORE,
            LOGGING_DRIVER,
        },
        facts::{Container, Docker, Engine, Store},
        finding::{Code, Finding},
        lists,
    },
    planner::{context::View, docker_binding},
};

/// Docker's configuration, with the certificates of registries.
const DOCKER_CONFIG: &str = "/etc/docker";
/// Checks of what runs under the source, most of them where that is Docker and is left.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = cri_users(view).into_iter().collect();
    let Some((docker, engine)) = view.docker_left() else {
        return findings;
    };
    findings.extend(foreign(view, engine));
    findings.extend(mounts(view, docker, engine));
    if engine.live_restore {
        findings.push(LIVE_RESTORE.found(
            "daemon.json sets live-restore",
            "Pods are ended by the plan itself. Stop other containers by hand if they should not run on.",
        ));
    }
    if !matches!(&*engine.logging_driver, "json-file" | "") {
        findings.push(LOGGING_DRIVER.found(
            format!("Docker logs to {}", engine.logging_driver),
            "Let the log agent read /var/log/pods in the CRI's format.",
        ));
    }
    let target = &view.target.unit;
    if docker_binding::loosened(docker, target).is_none() {
        findings.push(DOCKER_BOUND_TO_CONTAINERD.found(
            format!("docker.service or docker.socket requires or binds to {target}"),
            "Newer Docker packages only want it. Weaken `Requires=` or `BindsTo=` to `Wants=` in the unit, run `systemctl daemon-reload`, and plan again.",
        ));
    }
    findings
}

/// Running containers that Kubernetes does not know, and what ends them.
fn foreign(view: &View<'_>, engine: &Engine) -> Vec<Finding> {
    let (end, instead) = if view.docker_ends() {
        (
            "would end with Docker",
            "keep Docker for them with `source.keep: true`",
        )
    } else if view.replaces_docker_containerd() {
        (
            "would stop during a rollback, because Docker is stopped until the older containerd is in its place again",
            "use the containerd that is installed",
        )
    } else {
        return Vec::new();
    };
    let running =
        (engine.store.containers.iter()).filter(|container| container.pod.is_none() && container.running);
    let (etcd, others): (Vec<&Container>, Vec<&Container>) =
        running.partition(|container| is_etcd(container, engine));
    let named = |code: &Code, containers: &[&Container], what: &str, lost: &str, remedy: String| {
        let names: Vec<String> = containers
            .iter()
            .map(|container| container.name.clone())
            .collect();
        let what = format!("{} {what} and {end}{lost}", are(names.len(), "container"));
        (!names.is_empty()).then(|| code.found(format!("{what}: {}", lists::many(&names)), remedy))
    };
    let etcd = named(
        &ETCD_IN_DOCKER,
        &etcd,
        "etcd outside of Kubernetes",
        ", and the cluster would lose a member of etcd",
        format!(
            "Let etcd run as a service or as a static pod first (Kubespray: `etcd_deployment_type: host` in the inventory, and a \
             play of cluster.yml), leave this node out, or {instead}."
        ),
    );
    let others = named(
        &FOREIGN_CONTAINERS,
        &others,
        "not Kubernetes'",
        "",
        format!("Move them elsewhere, {instead}, or accept it with `preflight.allow: [ForeignContainers]`."),
    );
    etcd.into_iter().chain(others).collect()
}

/// Whether a container's name (`etcd1`) or the name of its image (`coreos-etcd`) has the word etcd.
fn is_etcd(container: &Container, engine: &Engine) -> bool {
    let word = |name: &str| {
        let mut words = name.split(|c: char| !c.is_ascii_alphanumeric());
        words.any(|word| word.trim_end_matches(|c: char| c.is_ascii_digit()) == "etcd")
    };
    let image = engine
        .store
        .images
        .iter()
        .find(|image| image.id == container.image_id);
    // Where an image comes from says nothing of what it is, and neither does a tag.
    let last = |reference: &String| {
        let name = reference.rsplit('/').next().unwrap_or_default();
        word(name.split([':', '@']).next().unwrap_or_default())
    };
    let mut images = image
        .into_iter()
        .flat_map(|image| image.names.iter().chain(&image.digests));
    word(&container.name) || images.any(last)
}

fn are(number: usize, noun: &str) -> String {
    format!(
        "{} {}",
        lists::count(number, noun),
        if number == 1 { "is" } else { "are" }
    )
}

/// How near a mounted path is to those that are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Inside,
    Around,
    Nothing,
}

fn reach(mount: &str, wanted: &[String]) -> Reach {
    let mount = normal(mount);
    let below = |path: &str, dir: &str| {
        path == dir || path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
    };
    if wanted.iter().any(|path| below(&mount, path)) {
        Reach::Inside
    } else if mount == "/" || wanted.iter().any(|path| below(path, &mount)) {
        Reach::Around
    } else {
        Reach::Nothing
    }
}

/// Without a trailing slash, and below `/run`.
fn normal(path: &str) -> String {
    let path = if path.len() > 1 {
        path.trim_end_matches('/')
    } else {
        path
    };
    match path.strip_prefix("/var/run") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("/run{rest}"),
        _ => path.to_owned(),
    }
}

/// The pods of running containers that are like this, in the order of their names.
fn pods(store: &Store, like: impl Fn(&Container) -> bool) -> Vec<String> {
    let containers = store.containers.iter();
    let mut pods: Vec<String> = containers
        .filter(|container| container.running && like(container))
        .filter_map(|container| container.pod.as_ref())
        .map(|pod| format!("{}/{}", pod.namespace, pod.name))
        .collect();
    pods.sort_unstable();
    pods.dedup();
    pods
}

/// Pods that speak to the source's CRI themselves, as agents for logs and metrics do.
fn cri_users(view: &View<'_>) -> Option<Finding> {
    let source = &view.source;
    // After an upgrade the same socket serves the same pods.
    if view.upgrades() {
        return None;
    }
    // Its images and health are asked of the engine.
    let socket = if source.runtime.is_in_kubelet() {
        source.runtime.profile().socket
    } else {
        source.cri.socket.as_str()
    };
    let wanted = [normal(socket)];
    let users = pods(source.store, |container| {
        let mut mounts = container.mounts.iter();
        mounts.any(|mount| reach(mount, &wanted) == Reach::Inside)
    });
    (!users.is_empty()).then(|| {
        CRI_SOCKET_MOUNTED.found(
            format!(
                "{} {socket}, the CRI socket of {}: {}",
                mount_verb(users.len()),
                source.runtime,
                lists::some(&users)
            ),
            "Point these workloads to the target's socket when the node has moved.",
        )
    })
}

/// Pods that use Docker itself: its socket, or the logs and other files in its data root. They see no pods afterwards,
/// even if Docker is kept.
fn mounts(view: &View<'_>, docker: &Docker, engine: &Engine) -> Vec<Finding> {
    let (socket, data) = (
        normal(docker.endpoint.as_str()),
        normal(engine.data_root.as_str()),
    );
    let users = |wanted: &[String], at: Reach| {
        pods(&engine.store, |container| {
            let mut reaches = container.mounts.iter().map(|mount| reach(mount, wanted));
            match at {
                Reach::Inside => reaches.any(|reach| reach == Reach::Inside),
                other => nearest(reaches) == other,
            }
        })
    };
    let mut findings = Vec::new();
    let of_socket = users(std::slice::from_ref(&socket), Reach::Inside);
    let of_data = users(std::slice::from_ref(&data), Reach::Inside);
    let ends = view.docker_ends();
    if !of_socket.is_empty() {
        let users = format!(
            "{} {socket}: {}",
            mount_verb(of_socket.len()),
            lists::some(&of_socket)
        );
        findings.push(if ends {
            DOCKER_SOCKET_MOUNTED.found(
                format!("{users}; nothing listens there after the switch"),
                "Change these workloads first, or accept it with `preflight.allow: [DockerSocketMounted]`. \
                 `source.keep: true` helps only those that start containers of their own there (builds), for \
                 Docker has no pods any more.",
            )
        } else {
            DOCKER_HAS_NO_PODS.found(
                format!("{users}; Docker is kept and lists no pods after the switch"),
                "Point these workloads to the target's socket, unless they start containers of their own under Docker.",
            )
        });
    }
    if !of_data.is_empty() {
        let users = format!(
            "{} {data} or files in it: {}",
            mount_verb(of_data.len()),
            lists::some(&of_data)
        );
        findings.push(if ends {
            DOCKER_SOCKET_MOUNTED.found(
                format!("{users}; no pod writes there after the switch"),
                "Let log agents read /var/log/pods in the CRI's format, then accept it with `preflight.allow: \
                 [DockerSocketMounted]`. Keeping Docker does not help: no logs of pods are written there.",
            )
        } else {
            DOCKER_HAS_NO_PODS.found(
                format!("{users}; Docker is kept, and no pod writes there after the switch"),
                "Let log agents read /var/log/pods in the CRI's format.",
            )
        });
    }
    let around = users(&[socket, data], Reach::Around);
    if !around.is_empty() {
        findings.push(DOCKER_SOCKET_REACHABLE.found(
            format!(
                "{} a directory that holds Docker's socket or data: {}",
                mount_verb(around.len()),
                lists::some(&around)
            ),
            "Make sure that these workloads do not use Docker.",
        ));
    }
    let target = view.target.runtime.profile();
    let config = users(&[DOCKER_CONFIG.to_owned()], Reach::Inside);
    if !config.is_empty() {
        findings.push(DOCKER_CONFIG_MOUNTED.found(
            format!(
                "{} {DOCKER_CONFIG} or files in it, which {} does not read: {}",
                mount_verb(config.len()),
                view.target.runtime,
                lists::some(&config)
            ),
            format!(
                "Let these workloads write certificates of registries to {}/<host>{} too, before the switch.",
                target.certificates,
                if target.certificates_are_named {
                    " (with a hosts.toml)"
                } else {
                    ""
                }
            ),
        ));
    }
    findings
}

/// The nearest of some.
fn nearest(reaches: impl Iterator<Item = Reach>) -> Reach {
    let reaches: Vec<Reach> = reaches.collect();
    [Reach::Inside, Reach::Around]
        .into_iter()
        .find(|reach| reaches.contains(reach))
        .unwrap_or(Reach::Nothing)
}

fn mount_verb(number: usize) -> String {
    format!(
        "{} {}",
        lists::count(number, "pod"),
        if number == 1 { "mounts" } else { "mount" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_found_behind_its_other_name_and_from_above() {
        let docker = ["/run/docker.sock".to_owned(), "/var/lib/docker".to_owned()];
        for (mount, wanted) in [
            ("/var/run/docker.sock", Reach::Inside),
            ("/var/lib/docker/containers", Reach::Inside),
            ("/var/run/", Reach::Around),
            ("/", Reach::Around),
            ("/var/lib", Reach::Around),
            ("/var/lib/dockershim", Reach::Nothing),
            ("/var/runner", Reach::Nothing),
        ] {
            assert_eq!(reach(mount, &docker), wanted, "{mount}");
        }
    }
}
