//! CRI-O: its unit and configuration, what its CRI says of itself, and the programs that it calls.

use std::collections::BTreeMap;

use super::{
    cri,
    notes::{Host, Notes},
    programs,
    units::Units,
};
use crate::{
    edit::{
        containerd_toml::{self, CONFIG_PATH},
        crio_conf::Printed,
    },
    host::files::Files,
    plan::{
        docker_runtimes,
        facts::{Containerd, Crio, TextFile},
        host_path::{self, HostPath},
        kubelet_arguments,
        paths::{
            CONTAINERS_POLICY, CRIO_CONFIG, CRIO_CREDENTIALS, CRIO_DROP_IN, CRIO_ROOT, CRIO_SOCKET, PULLED,
            RUNC_SHIM,
        },
    },
};

/// Its unit, and the one that removes its images at boot.
pub(super) const UNITS: [&str; 2] = ["crio.service", "crio-wipe.service"];
/// Programs that it calls: the monitor of containers, what makes their namespaces, the runtimes, and what sets ports of the node
/// up.
const CALLED: [&str; 5] = ["conmon", "crun", "nft", "pinns", "runc"];

/// root's own policy of signatures, which comes before that of the system.
const ROOTS_POLICY: &str = "/root/.config/containers/policy.json";
/// Where policies for single namespaces are unless its configuration names another directory.
const POLICIES: &str = "/etc/crio/policies";

/// Looks at CRI-O; nothing when there is no unit for it.
pub(super) async fn inspect(host: &Host, units: &Units, notes: &Notes) -> Option<Crio> {
    let [service, wipe] = UNITS.map(|name| units.named(name));
    if service.load == "not-found" || service.load.is_empty() {
        return None;
    }
    let command = kubelet_arguments::command(&service);
    let (version, effective) = match command.split_first() {
        Some((program, arguments)) if host.live => {
            let mut config: Vec<&str> = arguments.iter().map(String::as_str).collect();
            config.push("config");
            tokio::join!(
                notes.output(program, &["--version"]),
                notes.output(program, &config)
            )
        }
        _ => (None, None),
    };
    let printed = effective.as_deref().map(Printed::read).unwrap_or_default();
    let socket = printed.listen().unwrap_or_else(|| CRIO_SOCKET.to_owned());
    let endpoint = notes.keep(HostPath::new(host_path::socket(&socket)))?;
    let (cri, store) = match notes.keep(host.files.real(&endpoint)) {
        Some(socket) if service.active == "active" => {
            let (cri, store) = tokio::join!(cri::facts(&socket), cri::store(&socket));
            (cri.ok(), store.ok())
        }
        _ => (None, None),
    };
    Some(Crio {
        version: version.as_deref().map(programs::version_in).unwrap_or_default(),
        effective,
        endpoint,
        cri,
        store,
        config: notes.maybe(&host.files, CRIO_CONFIG)?,
        drop_in: notes.maybe(&host.files, CRIO_DROP_IN)?,
        policy: policy(&host.files, &printed, notes),
        namespace_policies: namespace_policies(&host.files, &printed, notes),
        service,
        wipe,
    })
}

/// The policy of signatures that it reads (`defaultPolicyPath` in containers/image, `signature/policy_config.go`).
fn policy(files: &Files, printed: &Printed, notes: &Notes) -> Option<TextFile> {
    match printed.signature_policy() {
        Some(path) => notes.text(files, &path),
        None => [ROOTS_POLICY, CONTAINERS_POLICY]
            .into_iter()
            .find_map(|path| notes.text(files, path)),
    }
}

/// The policies of single namespaces.
fn namespace_policies(files: &Files, printed: &Printed, notes: &Notes) -> Vec<TextFile> {
    let directory = printed.signature_policy_dir();
    let directory = directory.map_or_else(|| POLICIES.to_owned(), |directory| host_path::plain(&directory));
    let names = notes.list(files, &directory).into_iter();
    names
        .filter(|name| name.ends_with(".json"))
        .filter_map(|name| notes.text(files, &format!("{directory}/{name}")))
        .collect()
}

/// Where it keeps what it pulls until it is unpacked.
pub(super) fn pull_directory(crio: Option<&Crio>) -> String {
    let directory = crio.and_then(|crio| crio.printed().big_files_temporary_dir());
    directory.map_or_else(|| PULLED.to_owned(), |directory| host_path::plain(&directory))
}

/// Where the programs are that it calls, and the shims of containerd's further runtimes, with their configurations.
pub(super) fn called(
    files: &Files,
    containerd: Option<&Containerd>,
    crio: Option<&Crio>,
) -> BTreeMap<String, HostPath> {
    let text = containerd.and_then(|containerd| containerd.effective.as_deref());
    let handlers = text.and_then(containerd_toml::handlers).unwrap_or_default();
    let shims = handlers
        .into_iter()
        .filter(|handler| !["", RUNC_SHIM].contains(&handler.kind.as_str()));
    let of_shims = shims.flat_map(|handler| {
        let configs = handler
            .options
            .into_iter()
            .filter(|(key, path)| key == CONFIG_PATH && path.starts_with('/'));
        let configs: Vec<String> = configs.map(|(_, path)| path).collect();
        let runsc = (handler.kind == docker_runtimes::RUNSC_SHIM).then(|| docker_runtimes::RUNSC.to_owned());
        [docker_runtimes::shim_program(&handler.kind)]
            .into_iter()
            .chain(runsc)
            .chain(handler.path)
            .chain(configs)
    });
    let own = crio.map(|crio| crio.printed().runtimes()).unwrap_or_default();
    let own = own
        .iter()
        .filter_map(|runtime| docker_runtimes::own_shim(&runtime.path));
    let found = |name: String| Some((name.clone(), programs::find(files, &name)?));
    CALLED
        .map(str::to_owned)
        .into_iter()
        .chain(of_shims)
        .chain(own.map(docker_runtimes::shim_program))
        .filter_map(found)
        .collect()
}

/// Where it keeps images and containers.
pub(super) fn root(crio: Option<&Crio>) -> String {
    let root = crio.and_then(|crio| crio.printed().root());
    root.map_or_else(|| CRIO_ROOT.to_owned(), |root| host_path::plain(&root))
}

/// The file with its credentials of registries, where somebody has named one.
pub(super) fn auth_file(crio: Option<&Crio>) -> Option<String> {
    let named = host_path::plain(&crio?.printed().global_auth_file()?);
    (named != CRIO_CREDENTIALS).then_some(named)
}

/// The directories in which it looks for CNI plugins.
pub(super) fn cni_bin_dirs(crio: Option<&Crio>) -> Vec<String> {
    crio.map_or_else(Vec::new, |crio| crio.printed().plugin_dirs())
}
