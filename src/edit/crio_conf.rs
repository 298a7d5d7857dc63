//! CRI-O's configuration, `crio.conf(5)`: what `crio config` prints of it, and the part that Transship writes, whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use toml_edit::{Array, Item, Value};

use super::parse;

/// What `crio config` prints: what its files say together, with each setting that has its default as a comment
/// (`# key = value`, `internal/config/template.go` of CRI-O).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Printed {
    /// The texts of values, by table and key.
    values: BTreeMap<(String, String), String>,
    /// Tables and keys of values that are no comments.
    changed: BTreeSet<(String, String)>,
}

impl Printed {
    /// Reads what was printed. What is no assignment is passed over.
    pub fn read(text: &str) -> Self {
        let (mut found, mut defaults) = (BTreeMap::new(), BTreeMap::new());
        let mut table = String::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let line = line.trim();
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut table);
                continue;
            }
            let (is_default, assignment) = match line.strip_prefix('#') {
                Some(comment) => (true, comment.trim_start()),
                None => (false, line),
            };
            let Some((key, value)) = assignment.split_once('=') else {
                continue;
            };
            let key = key.trim();
            if key.is_empty() || !key.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
                continue;
            }
            let mut value = value.trim().to_owned();
            if value.starts_with('[') && !value.ends_with(']') {
                for line in lines.by_ref().map(str::trim) {
                    let line = line.strip_prefix('#').unwrap_or(line).trim();
                    value.push_str(line);
                    if line.ends_with(']') {
                        break;
                    }
                }
            }
            let into = if is_default { &mut defaults } else { &mut found };
            into.insert((table.clone(), key.to_owned()), value);
        }
        let changed = found.keys().cloned().collect();
        defaults.extend(found);
        Self {
            values: defaults,
            changed,
        }
    }

    /// Tables and keys whose values are not CRI-O's own; nothing of a release that prints no comments.
    pub fn changed(&self) -> impl Iterator<Item = (&str, &str)> {
        // Nobody changes it.
        let marks = ("crio.runtime".to_owned(), "container_exits_dir".to_owned());
        let all = self
            .changed
            .iter()
            .filter(move |_| !self.changed.contains(&marks));
        all.map(|(table, key)| (table.as_str(), key.as_str()))
    }

    /// The text of a value as it is printed; lists without blanks.
    pub fn written(&self, table: &str, key: &str) -> Option<String> {
        let text = self.values.get(&(table.to_owned(), key.to_owned()))?;
        Some(if text.starts_with('[') {
            text.split_whitespace().collect()
        } else {
            text.clone()
        })
    }

    /// The kind of one of its runtimes (`oci`, `vm`).
    pub fn runtime_type(&self, runtime: &str) -> Option<String> {
        self.text(&format!("crio.runtime.runtimes.{runtime}"), "runtime_type")
    }

    /// Capabilities of containers that ask for none.
    pub fn default_capabilities(&self) -> Vec<String> {
        self.list("crio.runtime", "default_capabilities")
    }

    /// Registries whose certificate is not checked.
    pub fn insecure_registries(&self) -> Vec<String> {
        self.list("crio.image", "insecure_registries")
    }

    fn value(&self, table: &str, key: &str) -> Option<Value> {
        let text = self.values.get(&(table.to_owned(), key.to_owned()))?;
        let document = parse::toml(&format!("value = {text}\n")).ok()?;
        document.get("value").and_then(Item::as_value).cloned()
    }

    fn text(&self, table: &str, key: &str) -> Option<String> {
        let value = self.value(table, key)?;
        value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// A list of texts.
    pub fn list(&self, table: &str, key: &str) -> Vec<String> {
        let value = self.value(table, key);
        let list = value.as_ref().and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Where it keeps images and containers.
    pub fn root(&self) -> Option<String> {
        self.text("crio", "root")
    }

    /// The driver of its store.
    pub fn storage_driver(&self) -> Option<String> {
        self.text("crio", "storage_driver")
    }

    /// The socket of its CRI.
    pub fn listen(&self) -> Option<String> {
        self.text("crio.api", "listen")
    }

    /// The image of sandboxes.
    pub fn pause_image(&self) -> Option<String> {
        self.text("crio.image", "pause_image")
    }

    /// `systemd` or `cgroupfs`.
    pub fn cgroup_manager(&self) -> Option<String> {
        self.text("crio.runtime", "cgroup_manager")
    }

    /// The runtime of pods that name none.
    pub fn default_runtime(&self) -> Option<String> {
        self.text("crio.runtime", "default_runtime")
    }

    /// Whether containers get labels of SELinux.
    pub fn selinux(&self) -> Option<bool> {
        self.value("crio.runtime", "selinux")?.as_bool()
    }

    /// The program of one of its runtimes, if it is named by its path.
    pub fn runtime_path(&self, runtime: &str) -> Option<String> {
        self.text(&format!("crio.runtime.runtimes.{runtime}"), "runtime_path")
    }

    /// The file with the policy of signatures.
    pub fn signature_policy(&self) -> Option<String> {
        self.text("crio.image", "signature_policy")
    }

    /// The directory with policies of signatures for single namespaces.
    pub fn signature_policy_dir(&self) -> Option<String> {
        self.text("crio.image", "signature_policy_dir")
    }

    /// Where it keeps what it pulls until it is unpacked, if that is set.
    pub fn big_files_temporary_dir(&self) -> Option<String> {
        self.text("crio.image", "big_files_temporary_dir")
    }

    /// The file with credentials of registries.
    pub fn global_auth_file(&self) -> Option<String> {
        self.text("crio.image", "global_auth_file")
    }

    /// Its runtimes whose programs are named by their paths.
    pub fn runtimes(&self) -> Vec<Runtime> {
        let tables = self.values.keys().filter(|(_, key)| key == "runtime_path");
        let names = tables.filter_map(|(table, _)| table.strip_prefix("crio.runtime.runtimes."));
        names
            .filter_map(|name| {
                let table = format!("crio.runtime.runtimes.{name}");
                let is_on = |key: &str| self.value(&table, key).and_then(|value| value.as_bool());
                Some(Runtime {
                    name: name.to_owned(),
                    path: self.runtime_path(name)?,
                    root: self.text(&table, "runtime_root").unwrap_or_default(),
                    vm: self.runtime_type(name).as_deref() == Some("vm"),
                    config: self.text(&table, "runtime_config_path"),
                    without_host_devices: is_on("privileged_without_host_devices") == Some(true),
                })
            })
            .collect()
    }

    /// Whether it has a runtime of this name.
    pub fn has_runtime(&self, name: &str) -> bool {
        let table = format!("crio.runtime.runtimes.{name}");
        self.values.keys().any(|(of, _)| *of == table)
    }

    /// Settings of the kernel that every pod gets (`name=value`).
    pub fn default_sysctls(&self) -> Vec<String> {
        self.list("crio.runtime", "default_sysctls")
    }

    /// Limits of containers (`nofile=1024:2048`).
    pub fn default_ulimits(&self) -> Vec<String> {
        self.list("crio.runtime", "default_ulimits")
    }

    /// Where CNI configurations are.
    pub fn network_dir(&self) -> Option<String> {
        self.text("crio.network", "network_dir")
    }

    /// Where CNI plugins are.
    pub fn plugin_dirs(&self) -> Vec<String> {
        self.list("crio.network", "plugin_dirs")
    }
}

/// What CRI-O's configuration must say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Where images and containers are kept, if it is another place than it has.
    pub root: Option<String>,
    /// The image of sandboxes.
    pub pause_image: String,
    /// `systemd` or `cgroupfs`.
    pub cgroup_manager: String,
    /// Where CNI configurations are.
    pub network_dir: String,
    /// Where CNI plugins are.
    pub plugin_dirs: Vec<String>,
    /// Capabilities of containers that ask for none.
    pub default_capabilities: Vec<&'static str>,
    /// Settings of the kernel that every pod gets (`name=value`); none to leave them.
    pub default_sysctls: Vec<String>,
    /// Limits of containers (`nofile=1024:2048`); none to leave them.
    pub default_ulimits: Vec<String>,
    /// The file with the policy of signatures, if it is another one than it has.
    pub signature_policy: Option<String>,
    /// The file with credentials of registries, if it gets one.
    pub global_auth_file: Option<String>,
    /// The runtime of pods that name none, if it is another one than it has.
    pub default_runtime: Option<String>,
    /// Runtimes that it does not have yet.
    pub runtimes: Vec<Runtime>,
    /// Containers get labels of SELinux.
    pub selinux: bool,
    /// How long a pull may make no progress, if it is set.
    pub pull_progress_timeout: Option<String>,
    /// The number of processes of a container is left to the kubelet: CRI-O before 1.26 sets a limit of 1024 itself.
    pub no_pids_limit: bool,
}

/// A runtime of containers (`[crio.runtime.runtimes.NAME]`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Its name: the handler of a `RuntimeClass`.
    pub name: String,
    /// Its program.
    pub path: String,
    /// Where it keeps the state of containers.
    pub root: String,
    /// Its program is a shim of containerd's (`runtime_type = "vm"`).
    pub vm: bool,
    /// The configuration of the shim.
    pub config: Option<String>,
    /// Privileged containers get no devices of the node.
    pub without_host_devices: bool,
}

/// The text of a file for `crio.conf.d`.
pub fn part(wanted: &Wanted) -> String {
    let mut text =
        "# Written by Transship: what the kubelet and its pods had from the runtime before CRI-O.\n"
            .to_owned();
    let mut table = |name: &str, settings: Vec<(&str, Value)>| {
        if settings.is_empty() {
            return;
        }
        let _ = writeln!(text, "[{name}]");
        for (key, value) in settings {
            let _ = writeln!(text, "{key} = {value}");
        }
    };
    let list = |texts: &[String]| Value::Array(texts.iter().collect::<Array>());
    table(
        "crio",
        wanted.root.iter().map(|root| ("root", root.into())).collect(),
    );
    let mut image = vec![("pause_image", Value::from(&wanted.pause_image))];
    image.extend(
        wanted
            .signature_policy
            .iter()
            .map(|path| ("signature_policy", path.into())),
    );
    let auth_file = wanted.global_auth_file.iter();
    image.extend(auth_file.map(|path| ("global_auth_file", path.into())));
    let timeout = wanted.pull_progress_timeout.iter();
    image.extend(timeout.map(|time| ("pull_progress_timeout", time.into())));
    table("crio.image", image);

    let mut runtime = vec![("cgroup_manager", Value::from(&wanted.cgroup_manager))];
    if wanted.cgroup_manager == "cgroupfs" {
        // The only value that CRI-O takes then.
        runtime.push(("conmon_cgroup", "pod".into()));
    }
    runtime.extend(
        wanted
            .default_runtime
            .iter()
            .map(|name| ("default_runtime", name.into())),
    );
    if !wanted.default_capabilities.is_empty() {
        let capabilities = wanted.default_capabilities.iter().copied().collect::<Array>();
        runtime.push(("default_capabilities", Value::Array(capabilities)));
    }
    if !wanted.default_sysctls.is_empty() {
        runtime.push(("default_sysctls", list(&wanted.default_sysctls)));
    }
    if !wanted.default_ulimits.is_empty() {
        runtime.push(("default_ulimits", list(&wanted.default_ulimits)));
    }
    if wanted.selinux {
        runtime.push(("selinux", true.into()));
    }
    if wanted.no_pids_limit {
        runtime.push(("pids_limit", Value::from(-1)));
    }
    table("crio.runtime", runtime);
    for runtime in &wanted.runtimes {
        let mut settings = vec![
            ("runtime_path", Value::from(&runtime.path)),
            ("runtime_root", Value::from(&runtime.root)),
            ("runtime_type", if runtime.vm { "vm" } else { "oci" }.into()),
        ];
        settings.extend(
            runtime
                .config
                .iter()
                .map(|path| ("runtime_config_path", path.into())),
        );
        if runtime.without_host_devices {
            settings.push(("privileged_without_host_devices", true.into()));
        }
        let name = format!("crio.runtime.runtimes.{}", toml_edit::Key::new(&runtime.name));
        table(&name, settings);
    }
    table(
        "crio.network",
        vec![
            ("network_dir", Value::from(&wanted.network_dir)),
            ("plugin_dirs", list(&wanted.plugin_dirs)),
        ],
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = r#"
# The CRI-O configuration file. Options = values are described below.
[crio]

# Path to the "root directory".
# root = "/var/lib/containers/storage"
# storage_driver = ""

[crio.api]
# listen = "/var/run/crio/crio.sock"

[crio.runtime]
# default_sysctls = [
# ]
default_runtime = "runc"
# cgroup_manager = "systemd"

[crio.runtime.runtimes.runc]
runtime_path = "/usr/sbin/runc"

[crio.image]
pause_image = "a/pause:1"

[crio.network]
# plugin_dirs = [
# 	"/opt/cni/bin/",
# 	"/usr/libexec/cni",
# ]
"#;

    #[test]
    fn what_is_printed_is_read_with_the_defaults() {
        let printed = Printed::read(PRINTED);
        assert_eq!(printed.root().unwrap(), "/var/lib/containers/storage");
        assert_eq!(printed.listen().unwrap(), "/var/run/crio/crio.sock");
        assert_eq!(printed.pause_image().unwrap(), "a/pause:1");
        assert_eq!(printed.cgroup_manager().unwrap(), "systemd");
        assert_eq!(printed.default_runtime().unwrap(), "runc");
        assert_eq!(printed.runtime_path("runc").unwrap(), "/usr/sbin/runc");
        assert_eq!(printed.plugin_dirs(), ["/opt/cni/bin/", "/usr/libexec/cni"]);
        assert_eq!((printed.storage_driver(), printed.network_dir()), (None, None));
        assert_eq!(printed.default_sysctls(), Vec::<String>::new());
    }

    /// Of CRI-O 1.34.0 on Debian, with the file of its bundle.
    #[test]
    fn a_whole_configuration_is_read() {
        let printed = Printed::read(include_str!("../../tests/fuzz/crio-conf/printed-1.34.0.toml"));
        assert_eq!(printed.root().unwrap(), "/var/lib/containers/storage");
        assert_eq!(printed.pause_image().unwrap(), "registry.k8s.io/pause:3.10");
        assert_eq!(printed.cgroup_manager().unwrap(), "systemd");
        assert_eq!(printed.runtime_path("crun").unwrap(), "/usr/libexec/crio/crun");
        assert_eq!(printed.network_dir().unwrap(), "/etc/cni/net.d/");
        assert_eq!(printed.plugin_dirs(), ["/opt/cni/bin/"]);
        assert!(printed.has_runtime("runc") && !printed.has_runtime("kata"));
        assert_eq!(printed.storage_driver(), None);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let wanted = Wanted {
            root: Some("/data/containers/storage".to_owned()),
            pause_image: "a/pause:\"1\"".to_owned(),
            cgroup_manager: "cgroupfs".to_owned(),
            network_dir: "/etc/cni/net.d".to_owned(),
            plugin_dirs: vec!["/opt/cni/bin".to_owned(), "/usr/lib/cni".to_owned()],
            default_capabilities: vec!["CHOWN", "NET_RAW"],
            default_sysctls: vec!["net.ipv4.ip_unprivileged_port_start=0".to_owned()],
            default_ulimits: vec!["nofile=1024:-1".to_owned()],
            signature_policy: Some("/etc/crio/policy.json".to_owned()),
            global_auth_file: Some("/etc/crio/auth.json".to_owned()),
            default_runtime: Some("runc".to_owned()),
            runtimes: vec![Runtime {
                name: "runc".to_owned(),
                path: "/usr/sbin/runc".to_owned(),
                root: "/run/runc".to_owned(),
                vm: true,
                config: Some("/etc/kata.toml".to_owned()),
                without_host_devices: true,
            }],
            selinux: true,
            pull_progress_timeout: Some("30m".to_owned()),
            no_pids_limit: true,
        };
        let text = part(&wanted);
        let document = parse::toml(&text).unwrap();
        let runtime = &document["crio"]["runtime"];
        assert_eq!(runtime["conmon_cgroup"].as_str(), Some("pod"));
        assert_eq!(runtime["pids_limit"].as_integer(), Some(-1));
        assert_eq!(runtime["selinux"].as_bool(), Some(true));
        assert_eq!(runtime["default_capabilities"].as_array().unwrap().len(), 2);
        let printed = Printed::read(&text);
        assert_eq!(printed.root(), wanted.root);
        assert_eq!(printed.pause_image().unwrap(), wanted.pause_image);
        assert_eq!(printed.cgroup_manager().unwrap(), "cgroupfs");
        assert_eq!(printed.default_sysctls(), wanted.default_sysctls);
        assert_eq!(printed.default_ulimits(), wanted.default_ulimits);
        assert_eq!(printed.plugin_dirs(), wanted.plugin_dirs);
        assert_eq!(printed.runtime_path("runc").unwrap(), "/usr/sbin/runc");
        assert_eq!(printed.runtimes(), wanted.runtimes);
        assert_eq!(printed.signature_policy(), wanted.signature_policy);
        assert_eq!(printed.global_auth_file(), wanted.global_auth_file);

        let text = part(&Wanted {
            cgroup_manager: "systemd".to_owned(),
            ..Wanted::default()
        });
        assert!(
            !text.contains("conmon_cgroup") && !text.contains("pids_limit"),
            "{text}"
        );
    }

    #[test]
    fn fuzz_printed_configurations() {
        use crate::fuzz::{hold, samples};

        hold(&samples("crio-conf", &[]), |text| {
            let printed = Printed::read(text);
            // What is read is written where another program reads it.
            let wanted = Wanted {
                pause_image: printed.pause_image().unwrap_or_default(),
                plugin_dirs: printed.plugin_dirs(),
                default_sysctls: printed.default_sysctls(),
                ..Wanted::default()
            };
            let again = Printed::read(&part(&wanted));
            assert_eq!(again.plugin_dirs(), wanted.plugin_dirs);
        });
    }
}
