//! What CRI-O has set where it is left.

use super::{credentials, settings::CAPABILITIES};
use crate::{
    edit::{crio_conf::Printed, registries_conf::RegistriesConf},
    plan::{
        configuration::handler_of,
        facts::Limits,
        lists,
        paths::{CONTAINERS_POLICY, CRIO_POLICY},
    },
    planner::{
        context::View,
        docker_limits, docker_proxies,
        docker_registries::{INSECURE, MIRRORS, MOVED},
        pod_environment,
        setting::{Left, What},
    },
};

/// The tables of settings for pods; the others are CRI-O's own.
const RUNTIME: &str = "crio.runtime";
const IMAGE: &str = "crio.image";

/// Devices that pods may ask for by an annotation: of older releases, and of 1.30 and later.
const ALLOWED_DEVICES: &[&str] = &["[\"/dev/fuse\",]", "[\"/dev/fuse\",\"/dev/net/tun\",]", "[]"];

/// Settings on which pods depend and that another runtime has no counterpart for, with what CRI-O does by itself
/// (`pkg/config/config.go`); `true` if pods may fail without them.
const TOLD: [(&str, &str, &[&str], bool); 19] = [
    (RUNTIME, "additional_devices", &["[]"], true),
    (RUNTIME, "allowed_devices", ALLOWED_DEVICES, false),
    (RUNTIME, "apparmor_profile", &["\"crio-default\"", "\"\""], false),
    (RUNTIME, "bind_mount_prefix", &["\"\""], true),
    (
        RUNTIME,
        "cdi_spec_dirs",
        &["[\"/etc/cdi\",\"/var/run/cdi\",]", "[]"],
        false,
    ),
    (RUNTIME, "default_env", &["[]"], true),
    (RUNTIME, "default_mounts_file", &["\"\""], true),
    (
        RUNTIME,
        "device_ownership_from_security_context",
        &["false"],
        true,
    ),
    (RUNTIME, "gid_mappings", &["\"\""], true),
    (
        RUNTIME,
        "hooks_dir",
        &["[\"/usr/share/containers/oci/hooks.d\",]", "[]"],
        true,
    ),
    (RUNTIME, "log_size_max", &["-1"], false),
    (RUNTIME, "pids_limit", &["-1", "0"], false),
    (RUNTIME, "privileged_seccomp_profile", &["\"\""], false),
    (RUNTIME, "read_only", &["false"], false),
    (RUNTIME, "seccomp_profile", &["\"\""], true),
    (RUNTIME, "timezone", &["\"\""], false),
    (RUNTIME, "uid_mappings", &["\"\""], true),
    (IMAGE, "pinned_images", &["[]"], false),
    (IMAGE, "image_volumes", &["\"mkdir\""], false),
];

/// What CRI-O's packages allow pods: tracing of system calls, by a hook that they do not bring.
const OF_PACKAGES: [&str; 1] = ["io.containers.trace-syscall"];

/// Settings that concern CRI-O itself, that a finding or a planner of their own looks at, or that mean the same everywhere.
const OWN: [&str; 45] = [
    "absent_mount_sources_to_reject",
    "add_inheritable_capabilities",
    "auto_reload_registries",
    "big_files_temporary_dir",
    "blockio_config_file",
    "blockio_reload",
    "cgroup_manager",
    "conmon",
    "conmon_cgroup",
    "conmon_env",
    "container_attach_socket_dir",
    "container_exits_dir",
    "ctr_stop_timeout",
    "decryption_keys_path",
    "default_capabilities",
    "default_runtime",
    "default_sysctls",
    "default_transport",
    "default_ulimits",
    "disable_hostport_mapping",
    "drop_infra_ctr",
    "enable_criu_support",
    "enable_pod_events",
    "global_auth_file",
    "hostnetwork_disable_selinux",
    "infra_ctr_cpuset",
    "insecure_registries",
    "irqbalance_config_file",
    "irqbalance_config_restore_file",
    "log_filter",
    "log_level",
    "log_to_journald",
    "minimum_mappable_gid",
    "minimum_mappable_uid",
    "namespaces_dir",
    "no_pivot",
    "oci_artifact_mount_support",
    "pause_command",
    "pause_image",
    "pause_image_auth_file",
    "pinns_path",
    "pull_progress_timeout",
    "rdt_config_file",
    "selinux",
    "shared_cpuset",
];

/// Its settings on which pods may depend.
pub(super) fn settings(view: &View<'_>) -> Vec<Left> {
    let Some(crio) = &view.facts.crio else {
        return Vec::new();
    };
    let printed = &view.crio_conf;
    let target = view.target.runtime.store();
    let mut found = Vec::new();
    let proxies = docker_proxies::proxies_of(&crio.service);
    if !proxies.is_empty() {
        found.push(Left::new("proxies", What::Proxies(proxies)));
    }
    let ulimits = docker_limits::read(&printed.default_ulimits());
    if crio.service.limit_nofile != Limits::default() && !ulimits.iter().any(|ulimit| ulimit.is_nofile()) {
        found.push(Left::new(
            "LimitNOFILE",
            What::Inherited(crio.service.limit_nofile),
        ));
    }
    if !ulimits.is_empty() {
        found.push(Left::new("default_ulimits", What::Ulimits(ulimits)));
    }
    if printed.selinux() == Some(true) {
        found.push(Left::new("selinux", What::Selinux));
    }
    sysctls(printed, target, &mut found);
    capabilities(printed, target, &mut found);
    handlers(printed, &mut found);
    registries(view, printed, target, &mut found);
    credentials::left(view, printed, target, &mut found);
    told(printed, target, &mut found);
    told_of_runtimes(printed, target, &mut found);
    found
}

/// Settings of the kernel in every pod.
fn sysctls(printed: &Printed, target: &str, found: &mut Vec<Left>) {
    let mut all = printed.default_sysctls();
    let ours: Vec<String> = pod_environment::UNPRIVILEGED_SYSCTLS
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if ours.iter().all(|setting| all.contains(setting)) {
        all.retain(|setting| !ours.contains(setting));
        found.push(Left::new("default_sysctls", What::Unprivileged));
    }
    if !all.is_empty() {
        let what = format!(
            "{target} sets nothing of the kernel in every pod: give pods {} as sysctls of their securityContext.",
            lists::many(&all)
        );
        found.push(Left::new("default_sysctls", What::Lost(what)));
    }
}

/// Containers that ask for none get those of Docker and containerd afterwards.
fn capabilities(printed: &Printed, target: &str, found: &mut Vec<Left>) {
    let has = printed.default_capabilities();
    if has.is_empty() {
        return;
    }
    let plain = |name: &str| name.trim_start_matches("CAP_").to_owned();
    let has: Vec<String> = has.iter().map(|name| plain(name)).collect();
    let more: Vec<String> = CAPABILITIES
        .into_iter()
        .filter(|name| !has.iter().any(|other| other == name))
        .map(str::to_owned)
        .collect();
    let fewer: Vec<String> = has
        .iter()
        .filter(|name| !CAPABILITIES.contains(&name.as_str()))
        .cloned()
        .collect();
    if !fewer.is_empty() {
        let what = format!(
            "{target} does not give {} to containers that do not ask for it: let pods that need it name it in \
             capabilities.add.",
            lists::many(&fewer)
        );
        found.push(Left::new("default_capabilities", What::Lost(what)));
    } else if !more.is_empty() {
        let how = format!(
            "CRI-O gives containers that ask for none {} capabilities, and {target} gives them {}: {} come along",
            has.len(),
            CAPABILITIES.len(),
            lists::many(&more)
        );
        found.push(Left::new("default_capabilities", What::Near(how)));
    }
}

/// Runtimes beside runc, and the default one. crun is what CRI-O's packages bring, and runc takes its place.
fn handlers(printed: &Printed, found: &mut Vec<Left>) {
    for runtime in printed.runtimes() {
        if ["runc", "crun"].contains(&runtime.name.as_str()) {
            continue;
        }
        let name = format!("runtimes.{}", runtime.name);
        // A `vm` is a shim of containerd by its program; a `pod` has another monitor than the others, and the same programs.
        found.push(Left::new(name, What::Handler(handler_of(&runtime))));
    }
    if let Some(name) = printed
        .default_runtime()
        .filter(|name| !["runc", "crun"].contains(&name.as_str()))
    {
        found.push(Left::new("default_runtime", What::DefaultHandler(name)));
    }
}

/// Registries of `registries.conf`, of its directory, and of CRI-O's own configuration.
fn registries(view: &View<'_>, printed: &Printed, target: &str, found: &mut Vec<Left>) {
    let mut read = RegistriesConf::default();
    for file in &view.facts.registries_conf {
        read.read(&file.text);
    }
    read.insecure.extend(printed.insecure_registries());
    read.insecure.sort_unstable();
    read.insecure.dedup();
    for (registry, urls) in read.mirrors {
        found.push(Left::new(MIRRORS, What::Mirrors { registry, urls }));
    }
    for (registry, url) in read.moved {
        found.push(Left::new(MOVED, What::Moved { registry, url }));
    }
    if !read.insecure.is_empty() {
        found.push(Left::new(INSECURE, What::Insecure(read.insecure)));
    }
    if !read.other.is_empty() {
        let what = format!(
            "{target} has no counterpart. {}; and accept this.",
            read.other.join("; ")
        );
        found.push(Left::new(MOVED, What::Lost(what)));
    }
    if read.search.first().is_some_and(|first| first != "docker.io") {
        let how = format!(
            "images without a registry in their name are looked for in {}, and are docker.io's under {target}",
            lists::many(&read.search)
        );
        found.push(Left::new("unqualified-search-registries", What::Near(how)));
    }
    if !read.aliases.is_empty() {
        let how = format!(
            "names of images without a registry ({}) stand for images of other registries, and are docker.io's under {target}",
            lists::some(&read.aliases)
        );
        found.push(Left::new("aliases", What::Near(how)));
    }
}

/// What pods have instead.
fn instead(key: &str, target: &str) -> String {
    match key {
        "log_size_max" => {
            "the kubelet limits logs by containerLogMaxSize (10Mi) and containerLogMaxFiles (5)".to_owned()
        }
        "pids_limit" => {
            format!("{target} sets none, and the kubelet's podPidsLimit counts, which is none by itself")
        }
        "allowed_devices" => format!("{target} gives no pod a device for an annotation"),
        _ => format!("{target} continues with what it does by itself"),
    }
}

/// What of a runtime is told: pods with one of these annotations, or with a profile of its own.
fn told_of_runtimes(printed: &Printed, target: &str, found: &mut Vec<Left>) {
    for runtime in printed.runtimes() {
        let table = format!("crio.runtime.runtimes.{}", runtime.name);
        let annotations = printed.list(&table, "allowed_annotations");
        let annotations: Vec<String> = annotations
            .into_iter()
            .filter(|name| !OF_PACKAGES.contains(&name.as_str()))
            .collect();
        let name = |key: &str| format!("runtimes.{}.{key}", runtime.name);
        if !annotations.is_empty() {
            let how = format!(
                "annotations of pods have no meaning under {target}: {}",
                lists::many(&annotations)
            );
            found.push(Left::new(name("allowed_annotations"), What::Near(how)));
        }
        let written = |key: &str| printed.written(&table, key).filter(|text| text.len() > 2);
        if let Some(profile) = written("seccomp_profile") {
            let what = format!(
                "Pods with the seccomp profile RuntimeDefault get {target}'s own, and not {profile}: name it as Localhost in pods that \
                 need it."
            );
            found.push(Left::new(name("seccomp_profile"), What::Lost(what)));
        }
        for key in ["default_annotations", "exec_cpu_affinity", "runtime_pull_image"] {
            if written(key).is_some_and(|text| text != "false") {
                let how = format!("{target} has nothing like it");
                found.push(Left::new(name(key), What::Near(how)));
            }
        }
    }
}

/// What else is set.
fn told(printed: &Printed, target: &str, found: &mut Vec<Left>) {
    for (table, key, defaults, weighs) in TOLD {
        let Some(value) = printed.written(table, key) else {
            continue;
        };
        if defaults.contains(&value.as_str()) {
            continue;
        }
        // Variables may hold what nobody is to read.
        let shown = if value.starts_with('[') {
            String::new()
        } else {
            format!(" = {value}")
        };
        found.push(Left::new(key, if weighs {
            What::Lost(format!("{key}{shown} in CRI-O's configuration has no counterpart that {target} is given: find out whether pods depend on it."))
        } else {
            What::Near(format!("{key}{shown} in CRI-O's configuration; {}", instead(key, target)))
        }));
    }
    let policy = printed.signature_policy();
    if let Some(policy) = policy.filter(|path| ![CRIO_POLICY, CONTAINERS_POLICY].contains(&path.as_str())) {
        let how = format!("{target} checks no signatures of images, as {policy} may say");
        found.push(Left::new("signature_policy", What::Near(how)));
    }
    for (table, key) in printed.changed() {
        let is_known = OWN.contains(&key)
            || TOLD.iter().any(|(_, known, ..)| *known == key)
            || key.starts_with("signature_policy");
        let name = match table.strip_prefix("crio.runtime.workloads.") {
            Some(workload) => format!("workloads.{workload}"),
            None if [RUNTIME, IMAGE].contains(&table) && !is_known => key.to_owned(),
            None => continue,
        };
        if found.iter().any(|left| left.name == name) {
            continue;
        }
        let how = format!("Transship has no translation for it; {target} continues without");
        found.push(Left::new(name, What::Near(how)));
    }
}
