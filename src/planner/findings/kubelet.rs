//! The kubelet: how it is installed, whether it runs, what it depends on.

use crate::{
    edit::flags,
    plan::{
        codes::kubelet::{
            CONTROL_PLANE_NODE, KUBECONFIG_ELSEWHERE, KUBELET_ARGUMENTS_DIFFER, KUBELET_FLAG_ENDS,
            KUBELET_FLAG_UNKNOWN, KUBELET_FLAGS_REMOVED, KUBELET_NOT_RUNNING, KUBELET_RUNS_DOCKER,
            KUBELET_STARTED_BY_SCRIPT, LOG_LINKS_REMAIN, NO_KUBELET, STATIC_PODS, UNREADABLE,
            UNSUPPORTED_LAYOUT,
        },
        facts::{Facts, Kubelet, Layout},
        finding::Finding,
        kubelet_arguments, lists, redaction,
        runtime::starts_containers,
        version,
    },
    planner::{context::View, findings::bindings, kubelet_endpoint},
};

/// Flags about runtimes that kubelets have lost, with the minor version of the first one that does not know it
/// (`cmd/kubelet/app/options` of each version). A kubelet does not start with a flag that it does not know.
const LOST_FLAGS: [(&str, u64); 23] = [
    ("redirect-container-streaming", 22),
    ("network-plugin", 24),
    ("network-plugin-mtu", 24),
    ("cni-conf-dir", 24),
    ("cni-bin-dir", 24),
    ("cni-cache-dir", 24),
    ("docker-endpoint", 24),
    ("image-pull-progress-deadline", 24),
    ("experimental-dockershim-root-directory", 24),
    ("non-masquerade-cidr", 24),
    ("dynamic-config-dir", 24),
    ("docker", 24),
    ("docker-root", 24),
    ("docker-env-metadata-whitelist", 24),
    ("docker-only", 24),
    ("docker-tls", 24),
    ("docker-tls-ca", 24),
    ("docker-tls-cert", 24),
    ("docker-tls-key", 24),
    ("container-runtime", 27),
    ("keep-terminated-pod-volumes", 31),
    ("register-schedulable", 34),
    ("pod-infra-container-image", 35),
];
/// Flags that `kubeadm upgrade` itself takes out of its file in time.
const KUBEADMS: [&str; 2] = ["container-runtime", "pod-infra-container-image"];

/// Whether an image is that of an API server or of etcd.
fn is_of_control_plane(image: &str) -> bool {
    let last = image.rsplit('/').next().unwrap_or_default();
    let name = last.split([':', '@']).next().unwrap_or_default();
    ["kube-apiserver", "etcd", "hyperkube"]
        .iter()
        .any(|program| name == *program || name.starts_with(&format!("{program}-")))
}

/// A kubelet that is a container of a runtime: its unit starts one, or (RKE1) Docker has a container of that name.
fn in_container(facts: &Facts) -> Option<String> {
    let unit = facts.kubelet.as_ref().map(|kubelet| &kubelet.unit);
    let program = unit.and_then(|unit| unit.exec_start.first());
    if let Some(program) = program.filter(|program| starts_containers(program)) {
        return Some(format!("kubelet.service starts it with {program}"));
    }
    let runs_itself = facts
        .kubelet
        .as_ref()
        .is_some_and(|kubelet| !kubelet.command_line.is_empty());
    let engine = facts.docker.as_ref().and_then(|docker| docker.engine.as_ref());
    let named = engine
        .into_iter()
        .flat_map(|engine| &engine.store.containers)
        .any(|container| container.pod.is_none() && container.running && container.name == "kubelet");
    (named && !runs_itself).then(|| "Docker runs a container called kubelet".to_owned())
}

/// What stops every plan: a layout that is not ours to change, or no running kubelet. The kubelet is returned
/// when there is one whose settings can be read.
pub fn ground(facts: &Facts) -> Result<&Kubelet, Finding> {
    if let Some(how) = in_container(facts) {
        return Err(UNSUPPORTED_LAYOUT.found(
            format!(
                "{}: the kubelet is a container itself ({how}; RKE1 and Typhoon do so), and would stop with the runtime",
                facts.node
            ),
            "Run the kubelet as a service of the host first, or replace the node by one that does.",
        ));
    }
    if let Some(why) = refused(facts.layout) {
        return Err(UNSUPPORTED_LAYOUT.found(format!("{}: {why}", facts.node), "This node is left as it is."));
    }
    let kubelet = facts.kubelet.as_ref().ok_or_else(|| {
        NO_KUBELET.found(
            format!(
                "{}: there is neither a kubelet process nor a kubelet.service",
                facts.node
            ),
            "Run Transship on a node of a cluster.",
        )
    })?;
    if kubelet.command_line.is_empty() {
        if let Some(unknown) = unknown_flags(kubelet) {
            return Err(unknown);
        }
        return Err(KUBELET_NOT_RUNNING.found(
            format!("kubelet.service is {}", if kubelet.unit.active.is_empty() { "not there" } else { &kubelet.unit.active }),
            "Start it and look at `journalctl -u kubelet`; a node that does not serve now could not be brought back either.",
        ));
    }
    Ok(kubelet)
}

/// Why a layout is refused.
const fn refused(layout: Layout) -> Option<&'static str> {
    match layout {
        Layout::Kubeadm | Layout::PlainUnit => None,
        Layout::K3s => Some(
            "the kubelet runs inside the k3s process, which writes its containerd's configuration at every start; drop `--docker` from k3s' own configuration instead",
        ),
        Layout::Rke2 => Some("the kubelet runs inside the rke2 process, which brings its own containerd"),
        Layout::K0s => {
            Some("the kubelet is a child of k0s; its runtime is chosen by `--cri-socket` of `k0s worker`")
        }
        Layout::Microk8s => Some("the kubelet is part of a snap, which brings its own containerd"),
        Layout::Talos => Some("Talos Linux is immutable and brings its own containerd"),
        Layout::Bottlerocket => Some("Bottlerocket is immutable and brings its own containerd"),
        Layout::ContainerOptimizedOs => Some(
            "Container-Optimized OS makes /etc from its image at every boot, so nothing that is changed there lasts; let GKE bring nodes with an image of the runtime (`cos_containerd`)",
        ),
        Layout::OpenShift => Some(
            "OpenShift's Machine Config Operator owns the files of this node, and writes them back; it has no runtime but CRI-O",
        ),
        Layout::Windows => Some("Windows nodes are not supported"),
        Layout::Unknown => Some("no kubelet of a known kind was recognised"),
    }
}

/// What could not be read, one finding each.
pub fn unreadable(facts: &Facts) -> impl Iterator<Item = Finding> {
    facts.unreadable.iter().map(|what| {
        UNREADABLE.found(
            what.clone(),
            "Make it readable, or accept the finding if it does not matter here.",
        )
    })
}

/// Checks of the kubelet of a pair that can be planned.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let kubelet = view.kubelet;
    if view.upgrades() {
        // Neither the kubelet nor a static pod stops, and no file of the kubelet is changed.
        return unknown_flags(kubelet)
            .into_iter()
            .chain(kubeconfig(kubelet))
            .collect();
    }
    let mut findings = Vec::new();
    let (control_plane, others): (Vec<String>, Vec<String>) = kubelet
        .static_pod_images
        .iter()
        .cloned()
        .partition(|image| is_of_control_plane(image));
    if control_plane.is_empty() && !others.is_empty() {
        findings.push(STATIC_PODS.found(
            format!("static pods run here: {}", lists::some(&others)),
            "Nothing is to be done: the kubelet starts them again from its directory.",
        ));
    }
    if !control_plane.is_empty() {
        findings.push(CONTROL_PLANE_NODE.found(
            format!(
                "static pods of a control plane run here: {}",
                lists::some(&control_plane)
            ),
            "Where this is the only API server, nothing answers between the kubelet's stop and its pods' start; kubeadm's files on the node are changed by the plan, and its annotation by the agent.",
        ));
    }
    findings.extend(bindings::check(view));
    if !kubelet.docker_users.is_empty() && view.docker_ends() {
        findings.push(KUBELET_RUNS_DOCKER.found(
            format!("kubelet.service uses Docker when it starts: {}", lists::some(&kubelet.docker_users)),
            "Remove the commands from the unit (an empty `ExecStartPre=` in a drop-in removes all of them), run `systemctl daemon-reload`, and plan again; keep Docker with `source.keep`; or accept it with `preflight.allow: [KubeletRunsDocker]`.",
        ));
    }
    findings.extend(started_by_script(kubelet));
    if view.settings.version.minor < 22 && view.docker_left().is_some() {
        findings.push(LOG_LINKS_REMAIN.found(
            format!(
                "kubelet {} begins every pod's logs at 0.log again, where a link to Docker's file lies",
                view.settings.version
            ),
            "Upgrade the cluster to 1.22 or 1.23 first; this version does not remove the links.",
        ));
    }
    // The plan may take such a flag out, but going back would put it in again.
    findings.extend(unknown_flags(kubelet));
    findings.extend(arguments(kubelet));
    findings.extend(flags_that_end(view));
    findings.extend(kubeconfig(kubelet));
    findings
}

/// A kubeconfig that the agent's pod does not mount by default (`agent.hostPaths` of the chart).
fn kubeconfig(kubelet: &Kubelet) -> Option<Finding> {
    let mounted = kubelet.kubeconfig.as_ref().is_some_and(|path| {
        path.as_str() == "/etc/kubernetes/kubelet.conf" || path.as_str().starts_with("/var/lib/kubelet/pki/")
    });
    if mounted {
        return None;
    }
    let place = kubelet
        .kubeconfig
        .as_ref()
        .map_or("not named on its command line".to_owned(), |path| {
            format!("{path}")
        });
    Some(KUBECONFIG_ELSEWHERE.found(
        format!("the kubelet's kubeconfig is {place}"),
        "Name it in agent.kubeconfig of the chart, and what it needs in agent.hostPaths.",
    ))
}

/// A lost flag in words.
fn gone((name, lost): &(&str, u64)) -> String {
    format!("--{name} (gone since 1.{lost})")
}

/// Flags of the files that this kubelet does not know, such as `--network-plugin` after an upgrade to 1.24. One that
/// runs was started before they came there.
fn unknown_flags(kubelet: &Kubelet) -> Option<Finding> {
    let minor = version::upstream(&kubelet.version)?.minor;
    let words = kubelet_arguments::compose(&kubelet.unit).ok()?;
    let unknown: Vec<String> = LOST_FLAGS
        .iter()
        .filter(|(name, lost)| *lost <= minor && flags::value(&words, name).is_some())
        .map(gone)
        .collect();
    (!unknown.is_empty()).then(|| {
        KUBELET_FLAG_UNKNOWN.found(
            format!("kubelet {} does not have {}", kubelet.version, lists::some(&unknown)),
            "Remove it from the kubelet's flags (kubeadm-flags.env, /etc/default/kubelet, /etc/sysconfig/kubelet, the unit), and restart the kubelet.",
        )
    })
}

/// Flags with which later kubelets do not start: those that the plan leaves, and those that it takes out.
fn flags_that_end(view: &View<'_>) -> Vec<Finding> {
    let minor = view.settings.version.minor;
    let before = &view.kubelet.command_line;
    let after = kubelet_endpoint::command_line(view, before);
    let has = |words: &[String], name: &str| flags::value(words, name).is_some();
    let stays_long = |name: &str| view.facts.layout != Layout::Kubeadm || !KUBEADMS.contains(&name);
    let ending = |which: &dyn Fn(&str) -> bool| -> Vec<String> {
        let ending = LOST_FLAGS
            .iter()
            .filter(|(name, lost)| *lost > minor && which(name));
        ending.map(gone).collect()
    };
    let stays = ending(&|name| has(&after, name) && stays_long(name));
    let goes = ending(&|name| has(before, name) && !has(&after, name));
    let mut findings = Vec::new();
    if !stays.is_empty() {
        findings.push(KUBELET_FLAG_ENDS.found(
            format!(
                "later kubelets do not start with {}, which the plan leaves",
                lists::many(&stays)
            ),
            "Remove each flag before the kubelet's upgrade to that version.",
        ));
    }
    if !goes.is_empty() {
        findings.push(KUBELET_FLAGS_REMOVED.found(
            format!("later kubelets do not start with {}, which the plan removes", lists::many(&goes)),
            "Upgrade the kubelet after the switch, not before it. A rollback brings the flags back, so it needs a kubelet that knows them.",
        ));
    }
    findings
}

/// A unit whose program is a script, or a shell, that starts the kubelet with flags of its own. One that hands its own words
/// on is no obstacle.
fn started_by_script(kubelet: &Kubelet) -> Option<Finding> {
    let files = kubelet_arguments::compose(&kubelet.unit).ok()?;
    let (program, flags) = kubelet.command_line.split_first()?;
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let starter = files.first().filter(|starter| name(starter) != name(program))?;
    let hands_on = !flags.is_empty() && files.ends_with(flags);
    (!hands_on).then(|| {
        KUBELET_STARTED_BY_SCRIPT.found(
            format!("kubelet.service starts {starter}, and {program} runs with flags that are not in the unit"),
            "Let the unit start the kubelet itself, with its flags in the unit or in an environment file; run `systemctl daemon-reload`, restart the kubelet, and plan again.",
        )
    })
}

/// Flags of the process that its files would not give it now, and the other way round.
fn arguments(kubelet: &Kubelet) -> Option<Finding> {
    let files = kubelet_arguments::compose(&kubelet.unit).ok()?;
    let only = |these: &[String], those: &[String]| -> Vec<String> {
        these
            .iter()
            .skip(1)
            .filter(|word| !those.contains(word))
            .map(|word| redaction::flags(word))
            .collect()
    };
    let (running, written) = (
        only(&kubelet.command_line, &files),
        only(&files, &kubelet.command_line),
    );
    (!running.is_empty() || !written.is_empty()).then(|| {
        let list = |words: &[String]| if words.is_empty() { "nothing".to_owned() } else { lists::some(words) };
        KUBELET_ARGUMENTS_DIFFER.found(
            format!("only the running kubelet has {}; only its files have {}", list(&running), list(&written)),
            "Its files were edited after its start: the switch will bring their flags into effect. Restart the kubelet first if that is not meant.",
        )
    })
}
