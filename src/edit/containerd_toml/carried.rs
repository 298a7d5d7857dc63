//! What containerd is given of the settings of the runtime that is left.

use serde::{Deserialize, Serialize};

pub(super) const MAX_DOWNLOADS: &str = "max_concurrent_downloads";
pub(super) const SELINUX: &str = "enable_selinux";

/// Settings that come along, where there are any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Carried {
    /// Where images and containers are kept (`root`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
    /// Directory with the settings of registries (`config_path`, 1.5 and later).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries: Option<String>,
    /// How many layers of an image are downloaded at the same time, 0 for all. With any other number than 3, containerd 2.1
    /// and later pull without their transfer service (`internal/cri/config/config.go`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_downloads: Option<u32>,
    /// Containers get labels of SELinux (`enable_selinux`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux: Option<bool>,
    /// The runtime of pods that name none (`default_runtime_name`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_runtime: Option<String>,
    /// The file with credentials of registries (`global_auth_file` of CRI-O).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_file: Option<String>,
}

impl Carried {
    /// The first of these settings that `found` has not: its name, what is found, and what is wanted.
    pub fn missing_in(&self, found: &Self) -> Option<(&'static str, String, String)> {
        fn differs<T: PartialEq + ToString>(
            name: &'static str,
            wanted: Option<&T>,
            found: Option<&T>,
        ) -> Option<(&'static str, String, String)> {
            let wanted = wanted.filter(|wanted| found != Some(wanted))?;
            let found = found.map_or_else(|| "nothing".to_owned(), T::to_string);
            Some((name, found, wanted.to_string()))
        }
        differs(
            "config_path of the CRI's registries",
            self.registries.as_ref(),
            found.registries.as_ref(),
        )
        .or_else(|| differs("root", self.root.as_ref(), found.root.as_ref()))
        .or_else(|| {
            differs(
                MAX_DOWNLOADS,
                self.max_downloads.as_ref(),
                found.max_downloads.as_ref(),
            )
        })
        .or_else(|| differs(SELINUX, self.selinux.as_ref(), found.selinux.as_ref()))
        .or_else(|| {
            let (wanted, found) = (self.default_runtime.as_ref(), found.default_runtime.as_ref());
            differs("default_runtime_name", wanted, found)
        })
        .or_else(|| {
            let (wanted, found) = (self.auth_file.as_ref(), found.auth_file.as_ref());
            differs("global_auth_file", wanted, found)
        })
    }
}

/// A runtime beside runc.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handler {
    /// Its name: the handler of a `RuntimeClass`.
    pub name: String,
    /// The type of its shim.
    pub kind: String,
    /// Options of the shim.
    pub options: Vec<(String, String)>,
    /// The program of the shim, where it is named by its path (`runtime_path`, 1.6 and later).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Privileged containers get no devices of the node (`privileged_without_host_devices`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub without_host_devices: bool,
}

/// The option with the configuration of a shim that is not runc's.
pub const CONFIG_PATH: &str = "ConfigPath";

/// The option with the program of runc's shim.
pub const BINARY: &str = "BinaryName";

impl Handler {
    /// Its program, where it is an option of runc's shim.
    pub fn program(&self) -> Option<&str> {
        let mut programs = self.options.iter().filter(|(key, _)| key == BINARY);
        programs.next().map(|(_, program)| program.as_str())
    }

    /// What of it `found`, the runtime of the same name, has not: its name, what is found, and what is wanted.
    pub fn missing_in(&self, found: Option<&Self>) -> Option<(String, String, String)> {
        let nothing = || "nothing".to_owned();
        let kind = found.map_or_else(nothing, |found| found.kind.clone());
        if kind != self.kind {
            return Some((format!("the runtime {}", self.name), kind, self.kind.clone()));
        }
        let path = found.and_then(|found| found.path.clone());
        if let Some(wanted) = self.path.as_ref().filter(|wanted| path.as_ref() != Some(*wanted)) {
            let setting = format!("the shim of the runtime {}", self.name);
            return Some((setting, path.unwrap_or_else(nothing), wanted.clone()));
        }
        let has = |key: &str| {
            let mut options = found?.options.iter();
            let (_, value) = options.find(|(name, _)| name == key)?;
            Some(value.clone())
        };
        let differs = |(key, wanted): &(String, String)| {
            let found = has(key).unwrap_or_else(nothing);
            let setting = format!("{key} of the runtime {}", self.name);
            (found != *wanted).then(|| (setting, found, wanted.clone()))
        };
        self.options.iter().find_map(differs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edit::containerd_toml::{
        CRI, CRI_RUNTIME, Wanted, carried_in, edit, handlers, has_runtime, tests::wanted,
    };

    #[test]
    fn what_is_written_is_read_back_in_the_names_of_each_version() {
        let given = Carried {
            root: Some("/data/containerd".to_owned()),
            registries: Some("/etc/containerd/certs.d".to_owned()),
            max_downloads: Some(6),
            selinux: Some(true),
            default_runtime: Some("nvidia".to_owned()),
            auth_file: None,
        };
        let handler = |name: &str, kind: &str, key: &str, value: &str| Handler {
            name: name.to_owned(),
            kind: kind.to_owned(),
            options: vec![(key.to_owned(), value.to_owned())],
            ..Handler::default()
        };
        let kata = handler("kata", "io.containerd.kata.v2", "ConfigPath", "/etc/kata.toml");
        let nvidia = handler(
            "nvidia",
            "io.containerd.runc.v2",
            "BinaryName",
            "/usr/bin/nvidia-container-runtime",
        );
        let wanted = Wanted {
            carried: given.clone(),
            handlers: vec![kata, nvidia],
            ..wanted()
        };
        for (text, plugin) in [("version = 2\n", CRI), ("version = 3\n", CRI_RUNTIME)] {
            let edited = edit(Some(text), &wanted).unwrap();
            assert_eq!(carried_in(&edited), given, "{edited}");
            let found = handlers(&edited).unwrap();
            for handler in &wanted.handlers {
                let found = found.iter().find(|found| found.name == handler.name);
                assert_eq!(handler.missing_in(found), None, "{edited}");
            }
            assert!(has_runtime(&edited, "nvidia") && !has_runtime(&edited, "crun"));
            let table = format!("[plugins.\"{plugin}\".containerd.runtimes.nvidia.options]\n");
            let (_, options) = edited.split_once(&table).unwrap();
            assert!(
                options.starts_with(
                    "BinaryName = \"/usr/bin/nvidia-container-runtime\"\nSystemdCgroup = true\n"
                ),
                "{edited}"
            );
            let table = format!("[plugins.\"{plugin}\".containerd.runtimes.kata.options]\n");
            let (_, options) = edited.split_once(&table).unwrap();
            assert!(
                options.starts_with("ConfigPath = \"/etc/kata.toml\"\n"),
                "{edited}"
            );
            assert!(
                !options.starts_with("ConfigPath = \"/etc/kata.toml\"\nSystemdCgroup"),
                "{edited}"
            );
            assert_eq!(edit(Some(&edited), &wanted).unwrap(), edited, "twice is once");
        }
    }

    #[test]
    fn a_runtime_that_is_missing_or_another_one_is_named_with_both_values() {
        let wanted = Handler {
            name: "kata".to_owned(),
            kind: "io.containerd.kata.v2".to_owned(),
            options: vec![("ConfigPath".to_owned(), "/a.toml".to_owned())],
            ..Handler::default()
        };
        let missing = |found: Option<Handler>| wanted.missing_in(found.as_ref());
        let named = |setting: &str, found: &str, wanted: &str| {
            Some((setting.to_owned(), found.to_owned(), wanted.to_owned()))
        };
        assert_eq!(missing(Some(wanted.clone())), None);
        let kind = "io.containerd.kata.v2";
        assert_eq!(missing(None), named("the runtime kata", "nothing", kind));
        let other = Handler {
            kind: "io.containerd.runc.v2".to_owned(),
            ..wanted.clone()
        };
        assert_eq!(
            missing(Some(other)),
            named("the runtime kata", "io.containerd.runc.v2", kind)
        );
        let bare = Handler {
            options: Vec::new(),
            ..wanted.clone()
        };
        assert_eq!(
            missing(Some(bare)),
            named("ConfigPath of the runtime kata", "nothing", "/a.toml")
        );
    }

    #[test]
    fn a_setting_that_is_missing_is_named_with_both_values() {
        let wanted = Carried {
            max_downloads: Some(6),
            selinux: Some(true),
            ..Carried::default()
        };
        let with = |downloads, selinux| Carried {
            max_downloads: downloads,
            selinux,
            registries: Some("/elsewhere".to_owned()),
            root: Some("/var/lib/containerd".to_owned()),
            default_runtime: Some("runc".to_owned()),
            auth_file: None,
        };
        let missing = |found: Carried| wanted.missing_in(&found);
        let named = |name, found: &str, wanted: &str| Some((name, found.to_owned(), wanted.to_owned()));
        assert_eq!(missing(with(Some(6), Some(true))), None);
        assert_eq!(missing(with(Some(3), Some(true))), named(MAX_DOWNLOADS, "3", "6"));
        assert_eq!(missing(with(Some(6), None)), named(SELINUX, "nothing", "true"));
    }
}
