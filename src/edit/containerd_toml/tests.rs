//! What an edit makes of the files that hosts have.

use proptest::prelude::*;

use super::*;

pub(super) fn wanted() -> Wanted {
    Wanted {
        systemd_cgroup: true,
        sandbox_image: "registry.k8s.io/pause:3.6".into(),
        cni_bin_dir: "/opt/cni/bin".into(),
        cni_conf_dir: "/etc/cni/net.d".into(),
        bin_dirs: false,
        newest_version: 3,
        unprivileged: false,
        unprivileged_by_default: false,
        pull_progress_timeout: None,
        carried: Carried::default(),
        credentials: Vec::new(),
        handlers: Vec::new(),
    }
}

pub(super) const NEW: &str = r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/opt/cni/bin"
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = true
"#;

#[test]
fn no_file_becomes_a_small_one() {
    assert_eq!(edit(None, &wanted()).unwrap(), NEW);
    assert_eq!(edit(Some(NEW), &wanted()).unwrap(), NEW, "idempotent");
}

#[test]
fn the_file_of_containerd_io_becomes_version_2() {
    let shipped =
        "#   Copyright\n\n# comment\ndisabled_plugins = [\"cri\"]\n\n#root = \"/var/lib/containerd\"\n";
    let edited = edit(Some(shipped), &wanted()).unwrap();
    assert!(
        edited.starts_with("#   Copyright\n\n# comment\nversion = 2\ndisabled_plugins = []\n"),
        "{edited}"
    );
    assert!(edited.contains("#root = \"/var/lib/containerd\"\n"), "{edited}");
    assert!(disables_cri(shipped).unwrap() && !disables_cri(&edited).unwrap());
    assert_eq!(edit(Some(&edited), &wanted()).unwrap(), edited, "idempotent");
}

#[test]
fn a_file_of_version_2_keeps_what_is_not_concerned() {
    let text = "version = 2 # the version\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.internal.v1.opt\"]\n\n[plugins]\n  # our CRI\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n    sandbox_image = \"old\" # pause\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\n      runtime_type = \"io.containerd.kata.v2\"\n    [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.fast]\n      runtime_type = \"io.containerd.runc.v2\"\n";
    let edited = edit(Some(text), &wanted()).unwrap();
    assert!(edited.contains("version = 2 # the version"));
    assert!(
        edited.contains("disabled_plugins = [ \"io.containerd.internal.v1.opt\"]"),
        "{edited}"
    );
    assert!(
        edited.contains("sandbox_image = \"registry.k8s.io/pause:3.6\" # pause\n"),
        "{edited}"
    );
    assert!(edited.contains("  # our CRI\n"));
    assert!(
        edited.contains("runtimes.fast.options]\nSystemdCgroup = true"),
        "{edited}"
    );
    assert!(!edited.contains("runtimes.kata.options"), "{edited}");
}

/// As Kubespray up to 2.25 spells the options: to containerd a second key would be the same one.
#[test]
fn an_option_keeps_its_spelling() {
    let table = "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc";
    let text = format!(
        "version = 2\n[{table}]\nruntime_type = \"io.containerd.runc.v2\"\n[{table}.options]\nsystemdCgroup = false\n\
         binaryName = \"/usr/local/bin/runc\"\n"
    );
    let edited = edit(Some(&text), &wanted()).unwrap();
    assert!(
        edited.contains("systemdCgroup = true") && !edited.contains("SystemdCgroup"),
        "{edited}"
    );
    let runtimes = handlers(&edited).unwrap();
    assert_eq!(runtimes[0].program(), Some("/usr/local/bin/runc"));
}

#[test]
fn a_file_of_version_3_gets_its_own_names() {
    let wanted = Wanted {
        bin_dirs: true,
        ..wanted()
    };
    let edited = edit(Some("version = 3\n"), &wanted).unwrap();
    assert!(
        edited.contains("[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = "),
        "{edited}"
    );
    assert!(edited.contains("bin_dirs = [\"/opt/cni/bin\"]"), "{edited}");
    let old = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\nbin_dir = '/x'\n";
    let edited = edit(Some(old), &wanted).unwrap();
    assert!(
        edited.contains("bin_dir = \"/opt/cni/bin\"") && !edited.contains("bin_dirs"),
        "{edited}"
    );
}

#[test]
fn pods_may_bind_low_ports_where_the_file_does_not_say_so() {
    let cri = "version = 2\n[plugins.'io.containerd.grpc.v1.cri']\nenable_unprivileged_ports = false\n";
    let runtime =
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\nenable_unprivileged_ports = false\n";
    for (text, by_default, ports, pings) in [
        ("", false, true, true),
        ("version = 2\n", false, true, true),
        ("version = 2\n", true, false, false),
        (cri, false, true, true),
        // Only what says otherwise is changed.
        (cri, true, true, false),
        (runtime, true, true, false),
    ] {
        let wanted = Wanted {
            unprivileged: true,
            unprivileged_by_default: by_default,
            ..wanted()
        };
        let edited = edit(Some(text), &wanted).unwrap();
        let has = |key: &str| edited.contains(&format!("{key} = true\n"));
        let found = (has("enable_unprivileged_ports"), has("enable_unprivileged_icmp"));
        assert_eq!(found, (ports, pings), "{edited}");
        assert!(!edited.contains("enable_unprivileged_ports = false"), "{edited}");
        assert_eq!(edit(Some(&edited), &wanted).unwrap(), edited, "idempotent");
    }
}

#[test]
fn a_pull_without_progress_is_given_its_time() {
    let wanted = Wanted {
        pull_progress_timeout: Some("30m0s".into()),
        ..wanted()
    };
    let key = "image_pull_progress_timeout = \"30m0s\"\n";
    let second = edit(None, &wanted).unwrap();
    let third = edit(Some("version = 3\n"), &wanted).unwrap();
    assert!(second.contains(key) && third.contains(key), "{second}{third}");
    let (_, images) = third
        .split_once("[plugins.\"io.containerd.cri.v1.images\"]\n")
        .unwrap();
    assert!(images.starts_with(key), "{third}");
    assert_eq!(pull_progress_timeout(&second).as_deref(), Some("30m0s"));
    assert_eq!(pull_progress_timeout(&third).as_deref(), Some("30m0s"));
}

#[test]
fn as_many_layers_are_downloaded_as_docker_does() {
    for (text, plugin) in [
        ("version = 2\n", CRI),
        ("version = 3\n", CRI_IMAGES),
        (
            "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_concurrent_downloads = 9\n",
            CRI,
        ),
    ] {
        for (max_downloads, found) in [(Some(6), Some("6")), (Some(0), Some("0"))] {
            let wanted = Wanted {
                newest_version: 3,
                carried: Carried {
                    max_downloads,
                    ..Carried::default()
                },
                ..wanted()
            };
            let edited = edit(Some(text), &wanted).unwrap();
            let leaves = leaves(&parse(&edited).unwrap());
            let key = format!("plugins.{plugin}.max_concurrent_downloads");
            assert_eq!(leaves.get(&key).map(String::as_str), found, "{edited}");
        }
    }
}

/// What `sed s/systemd_cgroup = false/systemd_cgroup = true/` makes of a default configuration.
#[test]
fn the_key_with_which_the_cri_does_not_load_is_switched_off() {
    let text = format!("version = 2\n[plugins.'{CRI}']\nsystemd_cgroup = true # yes\n");
    let edited = edit(Some(&text), &wanted()).unwrap();
    assert!(edited.contains("systemd_cgroup = false # yes\n"), "{edited}");
    assert!(misuses_systemd_cgroup(&text) && !misuses_systemd_cgroup(&edited));
}

#[test]
fn refuses_what_it_does_not_understand() {
    let error = |text| edit(Some(text), &wanted()).unwrap_err();
    assert!(matches!(
        error("a = 1\nb = [\n"),
        ContainerdTomlError::Syntax(ParseError { line: 2 | 3, .. })
    ));
    assert_eq!(
        error("[plugins.cri]\nsandbox_image = 'x'\n"),
        ContainerdTomlError::VersionOne
    );
    assert_eq!(error("version = 9\n"), ContainerdTomlError::UnknownVersion(9));
    assert_eq!(
        error("version = 4\n"),
        ContainerdTomlError::TooNew { found: 4, newest: 3 }
    );
    assert!(matches!(
        error("version = 2\ndisabled_plugins = ['aufs']\n"),
        ContainerdTomlError::ShortName { .. }
    ));
    assert!(matches!(
        error("version = 2\nplugins = 3\n"),
        ContainerdTomlError::WrongType { .. }
    ));
}

fn lines() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("# a comment".to_owned()),
        Just(String::new()),
        "root = '/[a-z]{1,6}'",
        "oom_score = [0-9]{1,3} # why",
        "disabled_plugins = \\[('cri', )?'io\\.x\\.v1\\.[a-z]{1,4}'\\]",
    ]
}

proptest! {
    #[test]
    fn changes_only_its_own_keys(
        head in prop::collection::vec(lines(), 0..5),
        tail in prop::sample::select(vec![
            "", "[grpc]\naddress = '/x' # socket\n", "[debug]\n# level\nlevel = 'info'\n[metrics]\naddress = ''\n",
        ]),
        versioned in any::<bool>(), systemd_cgroup in any::<bool>(),
    ) {
        let version = if versioned { "version = 2\n" } else { "" };
        let text = format!("{version}{}\n{tail}", head.join("\n"));
        let wanted = Wanted { systemd_cgroup, ..wanted() };
        // Two lines with the same key are no TOML.
        let Ok(edited) = edit(Some(&text), &wanted) else { return Ok(()) };
        prop_assert_eq!(&edit(Some(&edited), &wanted).unwrap(), &edited, "idempotent");
        prop_assert!(!disables_cri(&edited).unwrap());
        for comment in text.lines().filter_map(|line| line.find('#').map(|at| &line[at..])) {
            prop_assert!(edited.contains(comment), "{} lost in {}", comment, edited);
        }
        for key in ["root", "oom_score", "grpc.address", "debug.level", "metrics.address"] {
            let find = |text: &str| leaves(&parse(text).unwrap()).get(key).cloned();
            prop_assert_eq!(find(&edited), find(&text));
        }
    }
}
