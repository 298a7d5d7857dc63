//! Docker's runtimes other than runc: handlers of the same names under the target.

use crate::{
    edit::containerd_toml::{BINARY, CONFIG_PATH, Handler},
    plan::{
        docker_runtimes::{self, DockerRuntime, RUNSC_SHIM},
        facts::{Docker, Engine},
        paths::RUNC_SHIM,
    },
    planner::{
        context::{Takes, View},
        setting::{Fate, Given, Setting},
    },
};

/// The key of the default runtime.
const DEFAULT: &str = "default-runtime";
/// Options of shims that containerd passes on (`api/types/runtimeoptions/v1`, and runc's).
const OPTIONS: [&str; 4] = [BINARY, "ConfigPath", "Root", "TypeUrl"];

/// What becomes of them, and of the default runtime if it is not runc.
pub fn settings(view: &View<'_>, docker: &Docker, engine: &Engine) -> Vec<Setting> {
    let Some(takes) = view.takes() else {
        return Vec::new();
    };
    let target = view.target.runtime.store();
    let default = engine.default_runtime.as_str();
    let default = Some(default).filter(|name| !docker_runtimes::is_runc(name));
    let mut all = docker_runtimes::configured(&docker.service, view.daemon);
    // Docker takes the type of a shim for the name of a runtime, too.
    if let Some(name) = default.filter(|name| name.starts_with("io.containerd.")) {
        all.push(DockerRuntime::of_shim(name));
    }
    let (mut settings, mut has_default) = (Vec::new(), false);
    for runtime in &all {
        let is_default = default == Some(runtime.name.as_str());
        // dockershim, a part of the kubelet, gives all pods the default runtime.
        let is_used = is_default || view.source.runtime.profile().in_kubelet_before.is_none();
        let fate = match handler(view, takes, docker, runtime) {
            _ if (takes.has_runtime)(view, &runtime.name) => {
                Fate::Inherent(format!("{target}'s configuration has a runtime of this name already").into())
            }
            Ok(handler) => handler_fate(target, runtime.options.get(CONFIG_PATH), handler),
            Err(why) if is_used => Fate::NotCarried(why.into()),
            Err(_) => Fate::SourcesOwn,
        };
        has_default |= is_default && !matches!(fate, Fate::NotCarried(_));
        settings.push(Setting::new(format!("runtimes.{}", runtime.name), fate));
    }
    settings.extend(default.map(|name| {
        let fate = if has_default {
            let how = format!("{} = {name:?} in {target}'s configuration", takes.default_runtime);
            Fate::Carried(Given::DefaultHandler(name.to_owned()), how.into())
        } else {
            let what = format!(
                "Pods would run with runc and not with {name}. Give {target} a runtime of this name, and plan again; or leave \
                 such nodes out with a selector."
            );
            Fate::NotCarried(what.into())
        };
        Setting::new(DEFAULT, fate)
    }));
    settings
}

/// What becomes of a runtime that the target is given, of which the source has given `config` to the shim.
pub fn handler_fate(target: &str, config: Option<&String>, handler: Handler) -> Fate {
    let options: Vec<String> = handler
        .options
        .iter()
        .map(|(key, value)| format!(", {key} {value}"))
        .collect();
    let how = format!(
        "a handler of this name in {target}'s configuration: {}{}",
        handler.kind,
        options.concat()
    );
    let is_given = |config: &String| handler.options.iter().any(|(_, value)| value == config);
    match config.filter(|config| !is_given(config)) {
        Some(config) => {
            let how = format!(
                "{how}. {target} calls it without {config}, which was its shim's: let a small program add its settings as flags, and \
                 name that program"
            );
            Fate::Approximated(Some(Given::Handler(handler)), how.into())
        }
        None => Fate::Carried(Given::Handler(handler), how.into()),
    }
}

/// The handler for a runtime, or why there can be none.
fn handler(
    view: &View<'_>,
    takes: Takes,
    docker: &Docker,
    runtime: &DockerRuntime,
) -> Result<Handler, String> {
    let kind = runtime.kind();
    let target = view.target.runtime.store();
    if !runtime.arguments.is_empty() {
        return Err(format!(
            "It has runtimeArgs, which {target} cannot give to a runtime: let a small program add them, and name that \
             program in daemon.json."
        ));
    }
    if runtime.has_other_options || runtime.options.keys().any(|key| !OPTIONS.contains(&key.as_str())) {
        return Err(format!(
            "Its shim has options that are not translated: give {} a runtime of this name, and plan again.",
            view.target.runtime
        ));
    }
    if kind.starts_with('/') {
        return Err(format!(
            "containerd takes a shim by its type: put {kind} where programs are looked for, name its type as runtimeType in \
             daemon.json, and plan again."
        ));
    }
    let mut options: Vec<(String, String)> = runtime.options.clone().into_iter().collect();
    let mut path = None;
    let calls_program = |shim: &str| takes.calls_runsc && shim == RUNSC_SHIM;
    if let Some(needs) = runtime.needs().filter(|_| !calls_program(kind)) {
        let Some(program) = docker.runtime_programs.get(&needs) else {
            return Err(format!(
                "{target} needs {needs} for it, which is not on this node: install it, and plan again."
            ));
        };
        if needs == runtime.program {
            options.push((BINARY.to_owned(), program.to_string()));
        } else if kind != RUNC_SHIM {
            path = Some(program.to_string());
        }
    }
    let handler = Handler {
        name: runtime.name.clone(),
        kind: kind.to_owned(),
        options,
        path,
        without_host_devices: false,
    };
    (takes.handler)(view, &handler)
}
