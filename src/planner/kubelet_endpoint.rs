//! Every place that says which runtime the kubelet uses: its flags, its configuration files, kubeadm's
//! `instance-config.yaml`, and crictl's file. All of them are changed together, by what this version of the kubelet
//! knows: an unknown flag would keep it from starting. What the kubelet is given of Docker's settings is written with them.

use crate::{
    edit::{
        flags::{self, Change},
        yaml::{self, YamlError},
    },
    plan::{
        codes::configuration::{CRICTL_CONFIG_BROKEN, KUBELET_CONFIG_BROKEN},
        facts::TextFile,
        finding::Finding,
        kubelet_arguments,
        kubelet_settings::{ENDPOINT_FIELD, ENDPOINT_FLAG},
        paths::CRICTL,
        step::Step,
    },
    planner::{
        context::View,
        docker_logs, refusals,
        steps::{file, path},
    },
};

/// The field beside [`ENDPOINT_FIELD`], which is empty where images come from the same endpoint.
const IMAGE_FIELD: &str = "imageServiceEndpoint";

/// Flags that mean nothing, or are fatal, without dockershim.
const DOCKERSHIM_FLAGS: [&str; 19] = [
    "network-plugin",
    "network-plugin-mtu",
    "cni-conf-dir",
    "cni-bin-dir",
    "cni-cache-dir",
    "docker-endpoint",
    "image-pull-progress-deadline",
    "experimental-dockershim-root-directory",
    "redirect-container-streaming",
    "non-masquerade-cidr",
    "docker",
    "docker-root",
    "docker-env-metadata-whitelist",
    "docker-only",
    "docker-tls",
    "docker-tls-ca",
    "docker-tls-cert",
    "docker-tls-key",
    // Without it the kubelet asks the runtime's endpoint for images too.
    "image-service-endpoint",
];

/// Minor version of the first kubelet whose configuration can name the endpoint; it knows `--container-runtime` no
/// more.
const FIELD_SINCE: u64 = 27;
/// Minor version of the last kubelet to which `--container-runtime` means something: its default is `docker`.
const KIND_UNTIL: u64 = 23;
/// Minor versions of the last kubelet that spares the image of `--pod-infra-container-image` when it collects
/// garbage, and of the last one that knows the flag.
const SANDBOX_FLAG_USED_UNTIL: u64 = 33;
const SANDBOX_FLAG_KNOWN_UNTIL: u64 = 34;

/// A step for each file that must change.
pub(super) fn files(view: &View<'_>) -> Result<Vec<Step>, Finding> {
    let facts = view.facts;
    let flagged = is_flagged(view)?;
    let mut steps = Vec::new();
    let logs = view.translation.logs();
    let mut changes = changes(view, flagged);
    if let Some(limits) = logs.filter(|_| view.kubelet.config.is_none()) {
        changes.extend(docker_logs::as_flags(limits));
    }
    let edits = kubelet_arguments::change(&view.kubelet.unit, &changes)
        .map_err(|error| refusals::arguments(&error))?;
    for edit in edits {
        steps.extend(file(&edit.path, facts.text_at(&edit.path), edit.text, 0o644));
    }
    for (old, must_name) in configs(view, flagged)? {
        let limits = logs.filter(|_| view.kubelet.config.as_ref() == Some(old));
        let text = configured(view, old, must_name).and_then(|text| match limits {
            Some(limits) => docker_logs::in_configuration(&text, limits),
            None => Ok(text),
        });
        let text = text.map_err(|error| {
            KUBELET_CONFIG_BROKEN.found(
                format!("{}: {error}", old.path),
                "Edit it by hand, and plan again.",
            )
        })?;
        steps.extend(file(&old.path, Some(old), text, old.mode));
    }
    if !comes_with_package(view) {
        steps.extend(crictl(view)?);
    }
    Ok(steps)
}

/// What changes before the target's package is installed, so that the package manager keeps what the plan wrote, and the way back
/// writes what was there after the package has gone with its files.
pub(super) fn before_package(view: &View<'_>) -> Result<Option<Step>, Finding> {
    if comes_with_package(view) {
        crictl(view)
    } else {
        Ok(None)
    }
}

/// Whether the plan installs a package with a file for crictl in it.
fn comes_with_package(view: &View<'_>) -> bool {
    view.target.is_packaged() && view.parts.1.packaged.contains(&CRICTL)
}

/// What the plan makes of the kubelet's command line `words`. Nothing changes where its files cannot be read, which refuses
/// the plan.
pub(super) fn command_line(view: &View<'_>, words: &[String]) -> Vec<String> {
    let flagged = is_flagged(view);
    flagged.map_or_else(
        |_| words.to_vec(),
        |flagged| flags::change_words(words, &changes(view, flagged)),
    )
}

/// Whether the endpoint is, or must be, a flag: where it is one now, where the configuration cannot name it, and
/// where there is no configuration.
fn is_flagged(view: &View<'_>) -> Result<bool, Finding> {
    let words =
        kubelet_arguments::compose(&view.kubelet.unit).map_err(|error| refusals::arguments(&error))?;
    Ok(flags::value(&words, ENDPOINT_FLAG).is_some()
        || view.settings.version.minor < FIELD_SINCE
        || view.kubelet.config.is_none())
}

/// The configuration files, each with whether it must name the endpoint. The kubelet's own must where nothing else
/// does; kubeadm's patch always, for the next `kubeadm upgrade` takes the endpoint from there.
fn configs<'a>(view: &View<'a>, flagged: bool) -> Result<Vec<(&'a TextFile, bool)>, Finding> {
    let kubelet = view.kubelet;
    let mut found = Vec::new();
    let mut named = flagged;
    for file in kubelet.config_drop_ins.iter().chain(&kubelet.config) {
        named |= names(file, ENDPOINT_FIELD)?;
    }
    found.extend(kubelet.config.iter().map(|file| (file, !named)));
    found.extend(kubelet.config_drop_ins.iter().map(|file| (file, false)));
    found.extend(kubelet.instance_config.iter().map(|file| (file, true)));
    Ok(found)
}

fn names(file: &TextFile, field: &str) -> Result<bool, Finding> {
    let value = yaml::get(&file.text, field).map_err(|error| {
        KUBELET_CONFIG_BROKEN.found(
            format!("{}: {error}", file.path),
            "Correct it; the kubelet itself would not start with it.",
        )
    })?;
    Ok(value.is_some_and(|endpoint| !endpoint.is_empty()))
}

/// The file with the target's endpoint in every field that names one, and where it must.
fn configured(view: &View<'_>, old: &TextFile, must_name: bool) -> Result<String, YamlError> {
    [(ENDPOINT_FIELD, must_name), (IMAGE_FIELD, false)]
        .into_iter()
        .try_fold(old.text.clone(), |text, (key, must_name)| {
            let named = yaml::get(&text, key)?.is_some_and(|endpoint| !endpoint.is_empty());
            if named || must_name {
                yaml::set(&text, key, view.target.cri.url())
            } else {
                Ok(text)
            }
        })
}

fn crictl(view: &View<'_>) -> Result<Option<Step>, Finding> {
    let crictl = path(CRICTL)?;
    let old = view.facts.text_at(&crictl);
    let text = ["runtime-endpoint", "image-endpoint"].into_iter().try_fold(
        old.map_or(String::new(), |file| file.text.clone()),
        |text, key| yaml::set(&text, key, view.target.cri.url()),
    );
    let text = text.map_err(|error| {
        CRICTL_CONFIG_BROKEN.found(
            format!("{CRICTL}: {error}"),
            "Correct or remove it, and plan again.",
        )
    })?;
    Ok(file(&crictl, old, text, 0o644))
}

/// The kubelet's flags under the target. The sandbox image is named so that the kubelet's image garbage collection
/// spares it.
fn changes(view: &View<'_>, flagged: bool) -> Vec<Change> {
    let minor = view.settings.version.minor;
    let set = |name: &str, value: &str| Change::Set {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let remove = |name: &str| Change::Remove {
        name: name.to_owned(),
    };
    let mut changes: Vec<Change> = DOCKERSHIM_FLAGS.into_iter().map(remove).collect();
    if minor <= KIND_UNTIL {
        changes.push(set("container-runtime", "remote"));
    } else if minor >= FIELD_SINCE {
        changes.push(remove("container-runtime"));
    }
    if flagged {
        changes.push(set(ENDPOINT_FLAG, &view.target.cri.url()));
    }
    if minor <= SANDBOX_FLAG_USED_UNTIL {
        changes.push(set("pod-infra-container-image", &view.carried.sandbox));
    } else if minor > SANDBOX_FLAG_KNOWN_UNTIL {
        changes.push(remove("pod-infra-container-image"));
    }
    let cgroup = view.settings.runtime_cgroups.as_ref();
    if let Some((parent, _)) = cgroup
        .and_then(|cgroup| cgroup.rsplit_once('/'))
        .filter(|(_, unit)| *unit == view.source.unit)
    {
        changes.push(set("runtime-cgroups", &format!("{parent}/{}", view.target.unit)));
    }
    changes
}
