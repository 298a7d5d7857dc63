//! What containerd 2.x makes of each key of a 1.x file, tried on 2.4.2, and what the translation makes of it.

mod registries;

use super::*;

const SHIM: &str = "/var/lib/transship/shims/1/containerd-shim-runc-v1";
const CERTS: &str = "/etc/containerd/certs.d";
const CRI_TABLE: &str = "plugins.\"io.containerd.grpc.v1.cri\"";

/// Debian's defaults, as far as they matter.
const DUMP: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
enable_unprivileged_icmp = false
enable_unprivileged_ports = false
sandbox_image = "registry.k8s.io/pause:3.6"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_path = ""
runtime_type = "io.containerd.runc.v2"
"#;

/// What the translation adds to an empty file of version 2.
const DEFAULTS: &str = r#"version = 2

[plugins."io.containerd.grpc.v1.cri"]
enable_unprivileged_ports = false
enable_unprivileged_icmp = false
sandbox_image = "registry.k8s.io/pause:3.6"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"#;

fn of(text: &str, imported: &[(&str, &str)]) -> Result<Translation, Vec<Problem>> {
    let imported: Vec<(String, String)> = imported
        .iter()
        .map(|(path, text)| ((*path).to_owned(), in_full(text)))
        .collect();
    translate(&old(&in_full(text), &imported), &new())
}

fn old<'a>(text: &'a str, imported: &'a [(String, String)]) -> Old<'a> {
    Old {
        text: Some(text),
        imported,
        effective: Some(DUMP),
        first: true,
    }
}

fn new() -> New<'static> {
    New {
        shim: SHIM,
        from_2_1: true,
        registries: CERTS,
    }
}

/// `CRI` stands for the table of the plugin.
fn in_full(text: &str) -> String {
    text.replace("CRI", CRI_TABLE)
}

fn good(text: &str) -> Translation {
    of(text, &[]).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

/// What became of the keys, without those that every small file gets.
fn notes(translation: &Translation) -> Vec<String> {
    let usual = [
        "enable_unprivileged",
        ".sandbox_image:",
        ".cni.bin_dir:",
        ".runc.runtime_type: written",
        ".disable:",
    ];
    let shown = translation
        .keys
        .iter()
        .map(|key| key.to_string().replace(CRI_TABLE, "CRI"));
    shown
        .filter(|line| !usual.iter().any(|part| line.contains(part)))
        .collect()
}

/// A file, what stands in its translation, and what is noted.
#[test]
fn each_key_that_2_x_loses_is_translated() {
    for (text, wanted, noted) in [
        // A short name with which 2.x switches the CRI off or exits.
        (
            "disabled_plugins = ['cri']\n",
            "disabled_plugins = []\n",
            "disabled_plugins.cri: dropped, the kubelet needs the CRI",
        ),
        (
            "version = 2\ndisabled_plugins = ['cri', 'io.containerd.internal.v1.restart']\n",
            "disabled_plugins = [ 'io.containerd.internal.v1.restart']\n",
            "disabled_plugins.cri: dropped, the kubelet needs the CRI",
        ),
        (
            "version = 2\nrequired_plugins = ['io.containerd.snapshotter.v1.aufs']\n",
            "required_plugins = []\n",
            "required_plugins.\"io.containerd.snapshotter.v1.aufs\": dropped, containerd 2.x does not have this plugin",
        ),
        // 2.x drops the table with BinaryName and SystemdCgroup.
        (
            "version = 2\n[CRI.containerd.default_runtime]\nruntime_type = 'io.containerd.runc.v2'\n\
             [CRI.containerd.default_runtime.options]\nBinaryName = '/usr/bin/nvidia-container-runtime'\n",
            "[CRI.containerd.runtimes.default.options]\nBinaryName = '/usr/bin/nvidia-container-runtime'\n",
            "CRI.containerd.default_runtime: translated to CRI.containerd.runtimes.default",
        ),
        (
            "version = 2\n[CRI.containerd.default_runtime]\nruntime_type = 'io.containerd.runc.v2'\n",
            "default_runtime_name = \"default\"\n",
            "CRI.containerd.default_runtime: translated to CRI.containerd.runtimes.default",
        ),
        (
            "version = 2\n[CRI.containerd.untrusted_workload_runtime]\nruntime_type = 'io.containerd.kata.v2'\n",
            "[CRI.containerd.runtimes.untrusted]\nruntime_type = 'io.containerd.kata.v2'\n",
            "CRI.containerd.untrusted_workload_runtime: translated to CRI.containerd.runtimes.untrusted",
        ),
        (
            "version = 2\n[CRI.containerd.runtimes.old]\nruntime_type = 'io.containerd.runc.v1' # shim\n",
            "runtime_type = \"io.containerd.runc.v2\" # shim\n",
            "CRI.containerd.runtimes.old.runtime_type: translated to io.containerd.runc.v2",
        ),
        (
            "version = 2\n[CRI.containerd.runtimes.x]\nruntime_type = 'io.containerd.runtime.v1.linux'\n\
             # which runc\nruntime_engine = '/opt/runc'\n",
            "[CRI.containerd.runtimes.x.options]\n# which runc\nBinaryName = \"/opt/runc\"\n",
            "CRI.containerd.runtimes.x.runtime_type: translated to io.containerd.runc.v2|\
             CRI.containerd.runtimes.x.runtime_engine: translated to CRI.containerd.runtimes.x.options.BinaryName",
        ),
        (
            "version = 2\n[CRI.containerd.runtimes.x]\nruntime_type = 'io.containerd.runc.v2'\nruntime_root = '/run/r'\n",
            "[CRI.containerd.runtimes.x.options]\nRoot = \"/run/r\"\n",
            "CRI.containerd.runtimes.x.runtime_root: translated to CRI.containerd.runtimes.x.options.Root",
        ),
        // Without a table `runtimes` in the file 2.x drops the snapshotter.
        (
            "version = 2\n[CRI.containerd]\nsnapshotter = 'native'\n",
            "[CRI.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n",
            "",
        ),
        (
            "version = 2\n[CRI]\nenable_cdi = true\n",
            "enable_cdi = true\n",
            "CRI.enable_cdi: dropped, CDI is always on",
        ),
        (
            "version = 2\n[CRI.containerd.runtimes.runc.options]\nCriuPath = '/opt/criu'\n",
            "CriuPath = '/opt/criu'\n",
            "CRI.containerd.runtimes.runc.options.CriuPath: dropped, containerd 2.x looks for criu in its PATH",
        ),
        // What stays as it is, without a word.
        (
            "version = 2\n[CRI.containerd.runtimes.runc.options]\nSystemdCgroup = true\n",
            "SystemdCgroup = true\n",
            "",
        ),
        (
            "version = 2\n[CRI.containerd.runtimes.x]\nruntime_type = 'io.containerd.kata.v2'\n",
            "kata",
            "",
        ),
        (
            "version = 2\n[CRI]\nmax_concurrent_downloads = 9\n",
            "max_concurrent_downloads = 9\n",
            "",
        ),
        (
            "version = 2\n[CRI]\nenable_unprivileged_ports = true\n",
            "enable_unprivileged_ports = true\n",
            "",
        ),
        (
            "version = 2\n['plugins'.'io.containerd.nri.v1.nri']\ndisable = false\n",
            "disable = false\n",
            "",
        ),
        (
            "version = 2\n[CRI.cni]\nbin_dir = '/opt/cni/bin'\n",
            "bin_dir = '/opt/cni/bin'\n",
            "",
        ),
        (
            "version = 2\n[CRI]\nsandbox_image = 'a/pause:1'\n",
            "sandbox_image = 'a/pause:1'\n",
            "",
        ),
        (
            "version = 2\n[debug]\nlevel = 'info'\n[metrics]\naddress = ''\n",
            "[debug]\nlevel = 'info'\n",
            "",
        ),
        (
            "version = 2\n[CRI.containerd.default_runtime]\nruntime_type = ''\n",
            "default_runtime]\n",
            "",
        ),
        (
            "version = 2\n[CRI.registry.configs.'a:5000'.auth]\npassword = 'zq7'\n[CRI.registry]\nconfig_path = '/c'\n",
            "[CRI.registry.configs.'a:5000'.auth]\npassword = 'zq7'\n",
            "",
        ),
    ] {
        let found = good(text);
        assert!(
            found.settled.contains(&in_full(wanted)),
            "{wanted} not in:\n{}",
            found.settled
        );
        assert_eq!(notes(&found).join("|"), noted, "{text}");
        held(&found, text);
    }
}

/// The result is translated to itself, differs from the soak by the shim alone, and shows no secret.
fn held(found: &Translation, text: &str) {
    for (again, wanted) in [(&found.soak, &found.soak), (&found.settled, &found.settled)] {
        let twice = translate(&old(again, &[]), &new()).unwrap();
        let same = if again == &found.soak {
            twice.soak
        } else {
            twice.settled
        };
        assert_eq!(&same, wanted, "translated twice: {text}");
        assert!(twice.registries.is_empty());
    }
    let without: Vec<&str> = (found.soak.lines()).filter(|line| !line.contains(SHIM)).collect();
    let settled: Vec<&str> = (found.settled.lines())
        .filter(|line| line.trim() != "runtime_path = ''")
        .collect();
    assert_eq!(without, settled, "{text}");
    for key in &found.keys {
        assert!(!key.to_string().contains("zq7"), "{key}");
    }
}

#[test]
fn built_in_defaults_of_the_old_program_are_written_out() {
    let found = good("version = 2\n");
    assert_eq!(found.settled, DEFAULTS);
    assert!(
        found.soak.contains(&format!("runtime_path = \"{SHIM}\"\n")),
        "{}",
        found.soak
    );
    held(&found, "defaults");
    assert_eq!(good("").settled, DEFAULTS);
    let missing = translate(
        &Old {
            text: None,
            ..old("", &[])
        },
        &new(),
    );
    assert_eq!(missing.unwrap().settled, DEFAULTS);
    // A program that did not print them.
    for effective in [None, Some("version = 2\n")] {
        let old = Old {
            effective,
            ..old("version = 2\n", &[])
        };
        let unknown = translate(&old, &new()).unwrap_err();
        let wanted =
            ["sandbox_image", "cni.bin_dir"].map(|key| Problem::DefaultUnknown(format!("{CRI_TABLE}.{key}")));
        assert_eq!(unknown, wanted);
    }
    // 1.7 has NRI, and somebody switched it on.
    let on = format!("{DUMP}[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = false\n");
    let old = Old {
        effective: Some(&on),
        ..old("version = 2\n", &[])
    };
    assert!(
        translate(&old, &new())
            .unwrap()
            .settled
            .contains("disable = false\n")
    );
}

#[test]
fn every_handler_of_runc_starts_with_the_old_shim_until_the_commit() {
    let text = "version = 2\n[CRI.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'\nruntime_path = ''\n\
        [CRI.containerd.runtimes.nvidia]\nruntime_type = 'io.containerd.runc.v2'\n\
        [CRI.containerd.runtimes.own]\nruntime_type = 'io.containerd.runc.v2'\nruntime_path = '/opt/shim'\n\
        [CRI.containerd.runtimes.kata]\nruntime_type = 'io.containerd.kata.v2'\n";
    let found = good(text);
    assert_eq!(found.soak.matches(SHIM).count(), 2, "{}", found.soak);
    assert_eq!(
        found.settled.matches("runtime_path = ''\n").count(),
        1,
        "{}",
        found.settled
    );
    assert_eq!(
        notes(&found),
        [format!(
            "CRI.containerd.runtimes.own.runtime_path: kept, {}",
            handlers::OWN_SHIM
        )]
    );
    held(&found, text);
    // A handler of an imported file gets its path in the main file.
    let handler = "version = 2\n[plugins.\"io.containerd.grpc.v1.other\"]\na = 1\n[CRI.containerd.runtimes.gpu]\nruntime_type = 'io.containerd.runc.v2'\n";
    let found = of(
        "version = 2\nimports = ['/etc/gpu.toml']\n",
        &[("/etc/gpu.toml", handler)],
    )
    .unwrap();
    let wanted = format!("{CRI_TABLE}.containerd.runtimes.gpu]\nruntime_path = \"{SHIM}\"\n");
    assert!(found.soak.contains(&wanted), "{}", found.soak);
    assert!(!found.settled.contains("gpu]"), "{}", found.settled);
}

#[test]
fn what_cannot_be_translated_blocks() {
    let mirror = "[CRI.registry.mirrors.'a']\nendpoint = ['https://b']\n";
    let directories = "[CRI.registry]\nconfig_path = '/c'\n";
    let drop_in = |text: &str| {
        (
            "version = 2\nimports = ['d/*.toml']\n".to_owned(),
            text.to_owned(),
        )
    };
    let main = |text: &str| (text.to_owned(), String::new());
    for ((text, imported), wanted) in [
        (
            main("version = 2\n[CRI.containerd]\nsnapshotter = 'aufs'\n"),
            "snapshotter is \"aufs\"",
        ),
        (
            main(&format!("version = 2\n{directories}{mirror}")),
            "registry.mirrors stands next to config_path",
        ),
        (
            main("version = 2\n[CRI.registry]\nconfig_path = '/c:/d'\n"),
            "registry.config_path is a list",
        ),
        (
            main(&format!(
                "version = 2\n{directories}[CRI.registry.configs.'b'.tls]\nca_file = '/c'\n"
            )),
            "registry.configs has tls next to config_path",
        ),
        (
            main("version = 2\n[CRI]\nsystemd_cgroup = true\n"),
            "systemd_cgroup is on",
        ),
        (
            main(
                "version = 2\n[CRI.containerd.runtimes.runc]\nruntime_type = 'io.containerd.runtime.v1.linux'\n",
            ),
            "runc.runtime_type is the runtime of containerd 1.1",
        ),
        (main("version = 3\n"), "version is newer than 2"),
        (
            main("version = 2\nimports = ['/etc/gone.toml']\n"),
            "imports names /etc/gone.toml, which does not exist",
        ),
        (
            main("version = 2\n[CRI.registry.mirrors.'a']\nendpoint = ['https://b']\nrewrite = 'x'\n"),
            "mirrors.a has a key that containerd does not have",
        ),
        (
            main("version = 2\n[CRI.registry.mirrors.'a']\nendpoint = ['ftp://b']\n"),
            "endpoint is not a list of URLs",
        ),
        (
            main("version = 2\n[CRI.registry.configs.'b'.tls]\ncert_file = '/c'\n"),
            "tls needs both cert_file and key_file",
        ),
        (main("version = 2\nplugins = 3\n"), "plugins is not a table"),
        (main("["), "line 1"),
        (
            drop_in("version = 3\n"),
            "/d/a.toml has version 3, which containerd 1.x cannot read",
        ),
        (
            drop_in("version = 2\n[CRI.registry.configs.'b'.tls]\nca_file = '/c'\n"),
            "/d/a.toml has",
        ),
        (
            drop_in(
                "version = 2\n[CRI.containerd.default_runtime]\nruntime_type = 'io.containerd.runc.v2'\n",
            ),
            "default_runtime, which containerd 2.x drops",
        ),
        (
            drop_in("version = 2\n[CRI]\nsystemd_cgroup = true\n"),
            "systemd_cgroup in /d/a.toml is on",
        ),
        (
            drop_in(
                "version = 2\n[CRI.containerd.runtimes.x]\nruntime_type = 'io.containerd.runc.v2'\nruntime_path = ''\n",
            ),
            "/d/a.toml has an empty",
        ),
        (drop_in("a = ["), "/d/a.toml: line 1"),
    ] {
        let imported = [("/d/a.toml", &*imported)];
        let imported = if imported[0].1.is_empty() {
            &[]
        } else {
            &imported[..]
        };
        let problems = of(&text, imported).unwrap_err();
        let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(
            shown.iter().any(|line| line.contains(wanted)),
            "{wanted} not in {shown:?}"
        );
        assert!(!shown.concat().contains("zq7"));
    }
}

/// containerd 1.x takes the table of a plugin from the last file alone, 2.x merges the tables.
#[test]
fn a_key_that_an_imported_file_hid_stays_hidden() {
    let main = "version = 2\nimports = ['d/*.toml']\n[CRI]\nsandbox_image = 'main/pause:1'\nmax_concurrent_downloads = 9\n\
        [CRI.registry.mirrors.'a']\nendpoint = ['https://b']\n[debug]\nlevel = 'info'\n";
    let one = "version = 2\n[CRI]\nenable_selinux = true\n";
    let found = of(main, &[("/d/a.toml", one)]).unwrap();
    let settled = found.settled.as_str();
    assert!(
        settled.contains("sandbox_image = \"registry.k8s.io/pause:3.6\"\n"),
        "{settled}"
    );
    assert!(
        !settled.contains("max_concurrent") && !settled.contains("https://b"),
        "{settled}"
    );
    assert!(settled.contains("level = 'info'\n"), "{settled}");
    assert!(found.registries.is_empty());
    let overlap = of(main, &[("/d/a.toml", one), ("/d/b.toml", one)]).unwrap_err();
    assert!(
        overlap[0]
            .to_string()
            .starts_with("/d/a.toml and /d/b.toml both configure"),
        "{overlap:?}"
    );
}

/// 2.x drops these keys of a file without a table `runtimes`; the main file has one.
#[test]
fn the_snapshotter_of_an_imported_file_is_written_to_the_main_file() {
    let one = "version = 2\n[CRI.containerd]\nsnapshotter = 'native'\n";
    let found = of("version = 2\nimports = ['d/*.toml']\n", &[("/d/a.toml", one)]).unwrap();
    assert!(
        found.settled.contains("snapshotter = 'native'\n"),
        "{}",
        found.settled
    );
    assert_eq!(
        notes(&found),
        ["CRI.containerd.snapshotter: written out as 'native', as /d/a.toml has it"]
    );
}

#[test]
fn a_file_without_a_version_keeps_its_names() {
    let text = "# mine\n[plugins.cri]\nsandbox_image = 'a/pause:1' # ours\n[plugins.cri.containerd.default_runtime]\n\
        runtime_type = 'io.containerd.runc.v1'\n";
    let found = good(text);
    for line in [
        "# mine\n",
        "sandbox_image = 'a/pause:1' # ours\n",
        "[plugins.cri.containerd.runtimes.default]\nruntime_type = \"io.containerd.runc.v2\"\n",
        "[plugins.cri.cni]\nbin_dir = \"/usr/lib/cni\"\n",
        "[plugins.\"io.containerd.nri.v1.nri\"]\ndisable = true\n",
    ] {
        assert!(found.settled.contains(line), "{line} not in\n{}", found.settled);
    }
    assert!(!found.settled.contains("version"), "{}", found.settled);
    assert_eq!(found.soak.matches(SHIM).count(), 2, "{}", found.soak);
    held(&found, text);
}

/// From 2.x on only the pause image, the directory of plugins and the shim are written.
#[test]
fn a_newer_release_of_2_x_gets_its_names() {
    let text = "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n# ours\nbin_dir = '/opt/x'\n";
    let dump =
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = 'r/pause:3.10'\n";
    let old = Old {
        text: Some(text),
        imported: &[],
        effective: Some(dump),
        first: false,
    };
    let found = translate(&old, &new()).unwrap();
    assert_eq!(
        found.settled,
        "version = 3\n[plugins.'io.containerd.cri.v1.runtime'.cni]\n# ours\nbin_dirs = [\"/opt/x\"]\n\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
         [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"r/pause:3.10\"\n"
    );
    assert!(found.soak.contains(SHIM), "{}", found.soak);
}
