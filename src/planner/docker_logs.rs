//! How much of a container's log is kept: by Docker now, and by the kubelet afterwards.

use crate::{
    edit::{
        flags::{self, Change},
        yaml::{self, YamlError},
    },
    plan::{
        kubelet_arguments,
        kubelet_settings::{LOG_FILES as FILES, LOG_SIZE as SIZE, LogLimits},
        lists, quantity,
    },
    planner::{
        context::View,
        setting::{Fate, Given, Setting},
    },
};

const SETTING: &str = "log-opts";
/// The kubelet does not start with fewer files (`pkg/kubelet/apis/config/validation`).
const LEAST_FILES: u64 = 2;

/// What Docker keeps of a container's log; `None` without a limit.
pub fn docker_keeps(view: &View<'_>) -> Option<LogLimits> {
    let options = view.daemon.get(SETTING).and_then(serde_json::Value::as_object);
    let docker = view.docker?;
    let command = kubelet_arguments::command(&docker.service);
    let flags = flags::values(&command, "log-opt");
    let value = |name: &str| -> Option<String> {
        let pairs = flags.iter().filter_map(|text| text.split_once('='));
        let in_flags = pairs.rev().find(|(key, _)| *key == name);
        let in_file = || options?.get(name)?.as_str();
        in_flags
            .map(|(_, value)| value)
            .or_else(in_file)
            .map(str::to_owned)
    };
    Some(LogLimits {
        file_bytes: quantity::decimal(&value("max-size")?)?,
        files: value("max-file")
            .and_then(|files| files.parse().ok())
            .unwrap_or(1),
    })
}

/// What becomes of Docker's limits, if the user asks that the kubelet keeps as much (`target.keepLogLimits`).
pub fn setting(view: &View<'_>) -> Option<Setting> {
    let driver = view.engine.map(|engine| engine.logging_driver.as_str());
    let in_files = matches!(driver, Some("json-file" | ""));
    let docker = docker_keeps(view).filter(|_| in_files && view.request.target.keep_log_limits)?;
    Some(Setting::new(SETTING, fate(view, &docker)))
}

fn fate(view: &View<'_>, docker: &LogLimits) -> Fate {
    let (before, kubelet) = (in_words(docker), in_words(&view.settings.logs));
    if view.settings.logs_are_set {
        return Fate::Approximated(
            None,
            format!(
                "it keeps {before} per container. The kubelet has limits of its own, {kubelet}, which stay as they are"
            )
            .into(),
        );
    }
    let after = if docker.files < LEAST_FILES {
        LogLimits {
            file_bytes: (docker.file_bytes / LEAST_FILES).max(1),
            files: LEAST_FILES,
        }
    } else {
        docker.clone()
    };
    let how = format!(
        "{} = {} and {} = {} of the kubelet. `kubeadm upgrade` takes them away again unless the ConfigMap kubelet-config has \
         them, too",
        SIZE.0,
        written(after.file_bytes),
        FILES.0,
        after.files
    );
    if after == *docker {
        Fate::Carried(Given::Logs(after), how.into())
    } else {
        let how = format!(
            "{before} become {}, as the kubelet keeps two files or more: {how}",
            in_words(&after)
        );
        Fate::Approximated(Some(Given::Logs(after)), how.into())
    }
}

/// A kubelet's configuration with these limits.
///
/// # Errors
/// A text that cannot be edited safely.
pub fn in_configuration(text: &str, limits: &LogLimits) -> Result<String, YamlError> {
    let text = yaml::set(text, SIZE.0, written(limits.file_bytes))?;
    yaml::set(&text, FILES.0, limits.files)
}

/// The same as flags, for a kubelet without a configuration file.
pub fn as_flags(limits: &LogLimits) -> [Change; 2] {
    let set = |name: &str, value: String| Change::Set {
        name: name.to_owned(),
        value,
    };
    [
        set(SIZE.1, written(limits.file_bytes)),
        set(FILES.1, limits.files.to_string()),
    ]
}

/// A number of bytes as the kubelet reads it.
fn written(bytes: u64) -> String {
    match bytes {
        _ if bytes.is_multiple_of(1 << 20) => format!("{}Mi", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}Ki", bytes >> 10),
        _ if bytes.is_multiple_of(1_000_000) => format!("{}M", bytes / 1_000_000),
        _ => bytes.to_string(),
    }
}

/// Limits for people: `3 files of 10 MiB`.
pub fn in_words(limits: &LogLimits) -> String {
    let files = lists::count(usize::try_from(limits.files).unwrap_or(usize::MAX), "file");
    format!("{files} of {}", quantity::words(limits.file_bytes))
}
