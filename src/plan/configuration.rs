//! What a runtime's effective configuration must have, and what of it what its program prints has not.

use serde::{Deserialize, Serialize};

use crate::edit::containerd_toml::{self, Carried};

/// What containerd's effective configuration must have: files that it imports beat the file that the plan edits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationWant {
    /// The command that prints it: `containerd --config … config dump`.
    pub command: Vec<String>,
    /// `SystemdCgroup` of the default runtime.
    pub systemd_cgroup: bool,
    /// The sandbox (pause) image.
    pub sandbox_image: String,
    /// What came along from the runtime that is left.
    #[serde(default)]
    pub carried: Carried,
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
        let cgroups = containerd_toml::default_runtime(printed)
            .filter(|(_, systemd)| *systemd != self.systemd_cgroup)
            .map(|(name, systemd)| Difference {
                setting: format!("SystemdCgroup of the default runtime {name}"),
                found: systemd.to_string(),
                planned: self.systemd_cgroup.to_string(),
            });
        let image = || {
            containerd_toml::sandbox_image(printed)
                .filter(|image| *image != self.sandbox_image)
                .map(|image| Difference {
                    setting: "the sandbox image".to_owned(),
                    found: image,
                    planned: self.sandbox_image.clone(),
                })
        };
        let carried = || {
            let (setting, found, planned) = self.carried.missing_in(&containerd_toml::carried_in(printed))?;
            Some(Difference {
                setting: setting.to_owned(),
                found,
                planned,
            })
        };
        cgroups.or_else(image).or_else(carried)
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
            systemd_cgroup,
            sandbox_image: sandbox_image.to_owned(),
            carried: Carried {
                registries: registries.map(str::to_owned),
                ..Carried::default()
            },
        };
        let found = want.difference(PRINTED);
        let found = found
            .as_ref()
            .map(|found| (&*found.setting, &*found.found, &*found.planned));
        assert_eq!(found, wanted);
    }
}
