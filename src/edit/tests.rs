//! Every reader and editor of this room against real files, odd ones, and broken variants of both.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use toml_edit::DocumentMut;

use super::{
    containerd_toml::{
        self, Wanted,
        upgrade::{self, New, Old},
    },
    daemon_json, env_file,
    flags::{self, Change},
    json, parse, unit_file, yaml,
};
use crate::fuzz::{hold, quiet, samples};

fn wanted(newest_version: i64) -> Wanted {
    Wanted {
        systemd_cgroup: true,
        sandbox_image: "registry.example/pause:3.6".into(),
        cni_bin_dir: "/opt/cni/bin".into(),
        cni_conf_dir: "/etc/cni/net.d".into(),
        bin_dirs: newest_version > 2,
        newest_version,
        unprivileged: true,
        unprivileged_by_default: newest_version > 2,
        pull_progress_timeout: (newest_version > 2).then(|| "30m0s".to_owned()),
        carried: containerd_toml::Carried {
            registries: (newest_version > 2).then(|| "/etc/containerd/certs.d".to_owned()),
            selinux: (newest_version > 2).then_some(true),
            ..containerd_toml::Carried::default()
        },
        credentials: Vec::new(),
        handlers: Vec::new(),
    }
}

/// The file without what the editor may change.
fn not_ours(text: &str) -> Vec<(String, String)> {
    let document: DocumentMut = parse::toml(text).unwrap();
    let other = |key: &str| !["version", "disabled_plugins", "plugins"].contains(&key);
    let mut found: Vec<(String, String)> = document
        .iter()
        .filter(|(key, _)| other(key))
        .map(|(key, item)| (key.to_owned(), item.to_string()))
        .collect();
    let plugins = document.get("plugins").and_then(|item| item.as_table_like());
    for (key, item) in plugins.into_iter().flat_map(|plugins| plugins.iter()) {
        if !key.starts_with("io.containerd.grpc.v1.cri") && !key.starts_with("io.containerd.cri.v1.") {
            found.push((format!("plugins.{key}"), item.to_string()));
        }
    }
    found
}

/// What the old program has by itself.
const DUMP: &str = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nsandbox_image = 'r/pause:3.6'\n\
    [plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir = '/usr/lib/cni'\n";

/// A text as the main file of 1.x and of 2.x, and as a file that the main file imports.
#[test]
fn fuzz_containerd_upgrade() {
    let new = New {
        shim: "/opt/shim/containerd-shim-runc-v1",
        from_2_1: true,
        registries: "/etc/containerd/certs.d",
    };
    hold(&samples("containerd-toml", &["config.toml"]), |text| {
        let imported = [("/d/a.toml".to_owned(), text.to_owned())];
        for (main, imported, first) in [
            (text, &[][..], true),
            (text, &[], false),
            ("version = 2\n", &imported, true),
        ] {
            let old = |main| Old {
                text: Some(main),
                imported,
                effective: Some(DUMP),
                first,
            };
            let found = match upgrade::translate(&old(main), &new) {
                Ok(found) => found,
                Err(problems) => {
                    assert!(!problems.is_empty());
                    continue;
                }
            };
            let foreign = |text: &str| {
                let ours = [
                    "plugins.io.containerd.nri.v1.nri",
                    "plugins.cri",
                    "required_plugins",
                ];
                let mut found = not_ours(text);
                found.retain(|(key, _)| !ours.contains(&key.as_str()));
                found
            };
            assert_eq!(foreign(main), foreign(&found.soak));
            // An imported file hides what the first translation wrote.
            if imported.is_empty() {
                let soak = upgrade::translate(&old(&found.soak), &new).unwrap().soak;
                assert_eq!(soak, found.soak, "translated twice");
                let settled = upgrade::translate(&old(&found.settled), &new).unwrap().settled;
                assert_eq!(settled, found.settled, "translated twice");
            }
            for file in &found.registries {
                assert!(parse::toml(&file.text).is_ok(), "{}", file.text);
                assert!(file.path.starts_with("/etc/containerd/certs.d/"), "{}", file.path);
                assert!(!file.path.contains("/../"), "{}", file.path);
            }
        }
    });
}

#[test]
fn fuzz_containerd_toml() {
    hold(&samples("containerd-toml", &["config.toml"]), |text| {
        quiet(parse::toml(text));
        quiet(containerd_toml::disables_cri(text));
        quiet(containerd_toml::imports(text));
        quiet(containerd_toml::snapshots(text));
        containerd_toml::sandbox_image(text);
        containerd_toml::pull_progress_timeout(text);
        containerd_toml::registry_directories(text);
        containerd_toml::misuses_systemd_cgroup(text);
        containerd_toml::socket(text);
        containerd_toml::cni(text);
        for newest in [2, 4] {
            let wanted = wanted(newest);
            let Some(edited) = quiet(containerd_toml::edit(Some(text), &wanted)) else {
                continue;
            };
            assert_eq!(
                containerd_toml::edit(Some(&edited), &wanted).as_ref(),
                Ok(&edited),
                "edited twice"
            );
            assert_eq!(not_ours(text), not_ours(&edited));
            assert!(!containerd_toml::disables_cri(&edited).unwrap());
            assert_eq!(
                containerd_toml::sandbox_image(&edited),
                Some(wanted.sandbox_image)
            );
        }
    });
}

#[test]
fn fuzz_daemon_json() {
    hold(&samples("daemon-json", &["daemon.json"]), |text| {
        let before = quiet(daemon_json::parse(text));
        let Some(edited) = quiet(daemon_json::set_cgroup_driver(Some(text), "systemd")) else {
            return;
        };
        let mut after = daemon_json::parse(&edited).unwrap();
        assert!(after.remove("exec-opts").is_some());
        assert_eq!(before, Some(after));
        assert!(
            daemon_json::set_cgroup_driver(Some(&edited), "systemd").is_err(),
            "edited twice"
        );
    });
}

#[test]
fn fuzz_environment_files() {
    const NAME: &str = "KUBELET_KUBEADM_ARGS";
    let ends = [
        "kubeadm-flags.env",
        "kubelet.env",
        "/default/kubelet",
        "/default/docker",
        "/sysconfig/kubelet",
    ];
    hold(&samples("env", &ends), |text| {
        quiet(env_file::get(text, NAME));
        for value in ["", "--a=b --c='d e'", "x\\\"$`"] {
            let Some(edited) = quiet(env_file::set(text, NAME, value)) else {
                continue;
            };
            assert_eq!(env_file::get(&edited, NAME).unwrap().as_deref(), Some(value));
            assert_eq!(
                env_file::set(&edited, NAME, value).as_ref(),
                Ok(&edited),
                "edited twice"
            );
            let names: BTreeSet<&str> = text
                .lines()
                .filter_map(|line| line.split_once('='))
                .map(|(name, _)| name.trim())
                .collect();
            for name in names.into_iter().filter(|name| *name != NAME) {
                assert_eq!(env_file::get(text, name), env_file::get(&edited, name), "{name}");
            }
        }
    });
}

#[test]
fn fuzz_flags() {
    let changes = [
        Change::Set {
            name: "container-runtime-endpoint".into(),
            value: "unix:///run/containerd/containerd.sock".into(),
        },
        Change::Remove {
            name: "network-plugin".into(),
        },
    ];
    hold(&samples("flags", &[]), |text| {
        let Some(words) = quiet(flags::words(text)) else {
            return;
        };
        let Some(edited) = quiet(flags::change(text, &changes)) else {
            return;
        };
        let after = flags::words(&edited).unwrap();
        assert_eq!(
            flags::value(&after, "container-runtime-endpoint"),
            Some("unix:///run/containerd/containerd.sock")
        );
        assert!(flags::values(&after, "network-plugin").is_empty());
        assert_eq!(flags::change_words(&words, &changes), after);
        assert_eq!(
            flags::change(&edited, &changes).as_ref(),
            Ok(&edited),
            "edited twice"
        );
    });
}

#[test]
fn fuzz_yaml() {
    const KEY: &str = "containerRuntimeEndpoint";
    let ends = [
        "config.yaml",
        "kubelet-config.yaml",
        "kubelet.yaml",
        "crictl.yaml",
    ];
    hold(&samples("yaml", &ends), |text| {
        quiet(parse::yaml::<Value>(text));
        quiet(parse::yaml::<Map<String, Value>>(text));
        quiet(parse::lenient_yaml::<Value>(text));
        let before = quiet(yaml::parse(text));
        quiet(yaml::get(text, KEY));
        let Some(edited) = quiet(yaml::set(text, KEY, "unix:///run/x.sock")) else {
            return;
        };
        assert_eq!(
            yaml::get(&edited, KEY).unwrap().as_deref(),
            Some("unix:///run/x.sock")
        );
        assert_eq!(
            yaml::set(&edited, KEY, "unix:///run/x.sock").as_ref(),
            Ok(&edited),
            "edited twice"
        );
        let (Some(Value::Object(mut before)), Ok(Value::Object(mut after))) = (before, yaml::parse(&edited))
        else {
            panic!("what was edited is not a mapping");
        };
        before.remove(KEY);
        after.remove(KEY);
        assert_eq!(before, after);
    });
}

#[test]
fn fuzz_json() {
    hold(
        &samples("daemon-json", &["daemon.json", ".conflist", ".conf"]),
        |text| {
            quiet(parse::json::<Value>(text));
            quiet(parse::json::<Map<String, Value>>(text));
            quiet(parse::json::<Vec<String>>(text));
            let Some(edited) = json::set(text, "data-root", "/x") else {
                return;
            };
            assert_eq!(
                json::set(&edited, "data-root", "/x").as_ref(),
                Some(&edited),
                "edited twice"
            );
            let (mut before, mut after) = (json::parse(text).unwrap(), json::parse(&edited).unwrap());
            assert_eq!(after.remove("data-root"), Some(Value::from("/x")));
            before.remove("data-root");
            assert_eq!(before, after);
        },
    );
}

#[test]
fn fuzz_units() {
    hold(&samples("unit", &[".conf", ".service"]), |text| {
        let words = unit_file::exec_start(text).unwrap_or_default();
        let written: Vec<String> = words.iter().map(|word| unit_file::word(word)).collect();
        assert!(
            written.iter().all(|word| !word.contains('\n')),
            "a word breaks its line: {written:?}"
        );
        assert!(
            !unit_file::environment(text).contains('\n'),
            "an assignment breaks its line"
        );
    });
}
