//! What becomes of all settings of the runtime that is left.

use crate::{
    edit::containerd_toml::Handler,
    plan::kubelet_settings::LogLimits,
    planner::{
        context::View,
        docker_settings,
        setting::{Given, RegistryFile, Setting},
    },
};

/// What becomes of all settings of a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// Each setting, in the order of their names.
    pub settings: Vec<Setting>,
}

impl Translation {
    /// What becomes of Docker's settings where Docker is left; nothing otherwise.
    pub fn of(view: &View<'_>) -> Self {
        let mut settings = docker_settings::settings(view);
        if let Some(takes) = view.takes() {
            settings.extend((takes.registries)(view).settings);
        }
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        Self { settings }
    }

    fn given(&self) -> impl Iterator<Item = &Given> {
        self.settings.iter().filter_map(|setting| setting.fate.given())
    }

    /// Proxies as `NAME=value`.
    pub fn proxies(&self) -> &[String] {
        let mut found = self.given().filter_map(|given| match given {
            Given::Proxies(proxies) => Some(proxies.as_slice()),
            _ => None,
        });
        found.next().unwrap_or_default()
    }

    /// How many layers of an image are downloaded at the same time.
    pub fn downloads(&self) -> Option<u32> {
        self.given().find_map(|given| match given {
            Given::Downloads(number) => Some(*number),
            _ => None,
        })
    }

    /// Whether containers get labels of SELinux.
    pub fn selinux(&self) -> bool {
        self.given().any(|given| *given == Given::Selinux)
    }

    /// The directory with the settings of registries.
    pub fn registries(&self) -> Option<&'static str> {
        self.given().find_map(|given| match given {
            Given::Registries { directory, .. } => Some(*directory),
            _ => None,
        })
    }

    /// The files with the settings of registries.
    pub fn registry_files(&self) -> impl Iterator<Item = &RegistryFile> {
        self.given().flat_map(|given| match given {
            Given::Registries { files, .. } => files.as_slice(),
            _ => &[],
        })
    }

    /// Runtimes beside runc.
    pub fn handlers(&self) -> impl Iterator<Item = &Handler> {
        self.given().filter_map(|given| match given {
            Given::Handler(handler) => Some(handler),
            _ => None,
        })
    }

    /// How much of a container's log the kubelet keeps.
    pub fn logs(&self) -> Option<&LogLimits> {
        self.given().find_map(|given| match given {
            Given::Logs(limits) => Some(limits),
            _ => None,
        })
    }

    /// How much of a container's log the kubelet keeps after the switch.
    pub fn logs_kept(&self, view: &View<'_>) -> LogLimits {
        self.logs().unwrap_or(&view.settings.logs).clone()
    }

    /// The runtime of pods that name none, where it is not runc.
    pub fn default_handler(&self) -> Option<&str> {
        self.given().find_map(|given| match given {
            Given::DefaultHandler(name) => Some(name.as_str()),
            _ => None,
        })
    }
}
