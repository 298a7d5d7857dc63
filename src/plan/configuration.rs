//! What a runtime's effective configuration must have, and what of it what its program prints has not.

use serde::{Deserialize, Serialize};

use super::{docker_runtimes, paths::RUNC_SHIM};
use crate::edit::{
    containerd_toml::{self, BINARY, CONFIG_PATH, Carried, Handler},
    crio_conf::{Printed, Runtime},
};

/// What a runtime's effective configuration must have: files that containerd imports beat the file that the plan edits, and so do
/// files that CRI-O reads after the plan's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationWant {
    /// The command that prints it: `containerd --config … config dump`, `crio config`.
    pub command: Vec<String>,
    /// In which form it is printed.
    #[serde(default)]
    pub form: Form,
    /// Containers get their cgroups from systemd.
    pub systemd_cgroup: bool,
    /// The sandbox (pause) image.
    pub sandbox_image: String,
    /// What came along from the runtime that is left.
    #[serde(default)]
    pub carried: Carried,
    /// Runtimes that the plan writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handlers: Vec<Handler>,
}

/// A runtime of CRI-O's: a shim of containerd's by its program, or a program that would be an option of runc's shim.
pub fn handler_of(runtime: &Runtime) -> Handler {
    let kind = docker_runtimes::shim_type(&runtime.path).filter(|_| runtime.vm);
    let config = runtime.config.iter();
    let options = match &kind {
        Some(_) => config
            .map(|path| (CONFIG_PATH.to_owned(), path.clone()))
            .collect(),
        None => vec![(BINARY.to_owned(), runtime.path.clone())],
    };
    Handler {
        name: runtime.name.clone(),
        path: kind.is_some().then(|| runtime.path.clone()),
        kind: kind.unwrap_or_else(|| RUNC_SHIM.to_owned()),
        options,
        without_host_devices: runtime.without_host_devices,
    }
}

/// In which form a program prints its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Form {
    /// `containerd config dump`.
    #[default]
    Containerd,
    /// `crio config`.
    Crio,
}

/// What of it was printed.
struct Found {
    /// What decides about cgroups, and whether it is systemd.
    cgroups: Option<(String, bool)>,
    sandbox_image: Option<String>,
    carried: Carried,
    /// `None` where nothing is said of runtimes.
    handlers: Option<Vec<Handler>>,
}

impl Found {
    fn of(form: Form, printed: &str) -> Self {
        match form {
            Form::Containerd => Self {
                cgroups: containerd_toml::default_runtime(printed)
                    .map(|(name, systemd)| (format!("SystemdCgroup of the default runtime {name}"), systemd)),
                sandbox_image: containerd_toml::sandbox_image(printed),
                carried: containerd_toml::carried_in(printed),
                handlers: containerd_toml::handlers(printed),
            },
            Form::Crio => {
                let printed = Printed::read(printed);
                Self {
                    cgroups: printed
                        .cgroup_manager()
                        .map(|manager| ("cgroup_manager = \"systemd\"".to_owned(), manager == "systemd")),
                    sandbox_image: printed.pause_image(),
                    carried: Carried {
                        root: printed.root(),
                        selinux: printed.selinux(),
                        default_runtime: printed.default_runtime(),
                        auth_file: printed.global_auth_file(),
                        ..Carried::default()
                    },
                    handlers: Some(printed.runtimes().iter().map(handler_of).collect()),
                }
            }
        }
    }
}

/// A setting that is not as planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The setting.
    pub setting: String,
    /// What it is.
    pub found: String,
    /// What was planned.
    pub planned: String,
}

impl ConfigurationWant {
    /// The first setting that is another one in what the command printed. What is not printed is not compared.
    pub fn difference(&self, printed: &str) -> Option<Difference> {
        let found = Found::of(self.form, printed);
        let cgroups = found
            .cgroups
            .filter(|(_, systemd)| *systemd != self.systemd_cgroup)
            .map(|(setting, systemd)| Difference {
                setting,
                found: systemd.to_string(),
                planned: self.systemd_cgroup.to_string(),
            });
        let image = || {
            let image = found.sandbox_image.filter(|image| *image != self.sandbox_image)?;
            Some(Difference {
                setting: "the sandbox image".to_owned(),
                found: image,
                planned: self.sandbox_image.clone(),
            })
        };
        let carried = || {
            let (setting, found, planned) = self.carried.missing_in(&found.carried)?;
            Some(Difference {
                setting: setting.to_owned(),
                found,
                planned,
            })
        };
        let handlers = || {
            let all = found.handlers.as_ref()?;
            let missing =
                |wanted: &Handler| wanted.missing_in(all.iter().find(|found| found.name == wanted.name));
            let (setting, found, planned) = self.handlers.iter().find_map(missing)?;
            Some(Difference {
                setting,
                found,
                planned,
            })
        };
        cgroups.or_else(image).or_else(carried).or_else(handlers)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const PRINTED: &str = r#"
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "a/pause:1"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"#;

    #[rstest]
    #[case::as_planned(true, "a/pause:1", Some("/etc/containerd/certs.d"), None)]
    #[case::registries_are_left(true, "a/pause:1", None, None)]
    #[case::cgroups(false, "a/pause:1", None, Some(("SystemdCgroup of the default runtime runc", "true", "false")))]
    #[case::image(true, "a/pause:2", None, Some(("the sandbox image", "a/pause:1", "a/pause:2")))]
    #[case::registries(true, "a/pause:1", Some("/srv"),
        Some(("config_path of the CRI's registries", "/etc/containerd/certs.d", "/srv")))]
    fn a_setting_that_is_another_one_is_named(
        #[case] systemd_cgroup: bool,
        #[case] sandbox_image: &str,
        #[case] registries: Option<&str>,
        #[case] wanted: Option<(&str, &str, &str)>,
    ) {
        let want = ConfigurationWant {
            command: Vec::new(),
            form: Form::Containerd,
            systemd_cgroup,
            sandbox_image: sandbox_image.to_owned(),
            carried: Carried {
                registries: registries.map(str::to_owned),
                ..Carried::default()
            },
            handlers: Vec::new(),
        };
        let found = want.difference(PRINTED);
        let found = found
            .as_ref()
            .map(|found| (&*found.setting, &*found.found, &*found.planned));
        assert_eq!(found, wanted);
    }

    #[rstest]
    #[case::as_planned("", None)]
    #[case::nothing_is_said("# selinux = true\n", None)]
    #[case::image("[crio.image]\npause_image = \"a/pause:2\"\n",
        Some(("the sandbox image", "a/pause:2", "a/pause:1")))]
    #[case::cgroups("[crio.runtime]\ncgroup_manager = \"cgroupfs\"\n",
        Some(("cgroup_manager = \"systemd\"", "false", "true")))]
    #[case::runtime("[crio.runtime]\ndefault_runtime = \"crun\"\n",
        Some(("default_runtime_name", "crun", "nvidia")))]
    #[case::program("[crio.runtime.runtimes.nvidia]\nruntime_path = \"/other\"\n",
        Some(("BinaryName of the runtime nvidia", "/other", "/usr/bin/nvidia")))]
    fn a_file_that_cri_o_reads_later_is_noticed(
        #[case] later: &str,
        #[case] wanted: Option<(&str, &str, &str)>,
    ) {
        let want = ConfigurationWant {
            command: Vec::new(),
            form: Form::Crio,
            systemd_cgroup: true,
            sandbox_image: "a/pause:1".to_owned(),
            carried: Carried {
                default_runtime: Some("nvidia".to_owned()),
                ..Carried::default()
            },
            handlers: vec![handler_of(&Runtime {
                name: "nvidia".to_owned(),
                path: "/usr/bin/nvidia".to_owned(),
                ..Runtime::default()
            })],
        };
        let ours = "[crio.image]\npause_image = \"a/pause:1\"\n[crio.runtime]\ncgroup_manager = \"systemd\"\n\
                    default_runtime = \"nvidia\"\n[crio.runtime.runtimes.nvidia]\nruntime_path = \"/usr/bin/nvidia\"\n";
        let found = want.difference(&format!("{ours}{later}"));
        let found = found
            .as_ref()
            .map(|found| (&*found.setting, &*found.found, &*found.planned));
        assert_eq!(found, wanted);
    }
}
