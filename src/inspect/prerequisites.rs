//! What pods need of the kernel, and what sets it at boot.

use std::collections::BTreeSet;

use super::notes::Notes;
use crate::{host::files::Files, plan::facts::Prerequisites};

/// Where settings and modules of the next boot are named (sysctl.d(5), modules-load.d(5)).
const SYSCTL_DIRS: [&str; 4] = [
    "/etc/sysctl.d",
    "/run/sysctl.d",
    "/usr/local/lib/sysctl.d",
    "/usr/lib/sysctl.d",
];
const SYSCTL_CONF: &str = "/etc/sysctl.conf";
const MODULE_DIRS: [&str; 4] = [
    "/etc/modules-load.d",
    "/run/modules-load.d",
    "/usr/local/lib/modules-load.d",
    "/usr/lib/modules-load.d",
];
const MODULES: &str = "/etc/modules";

/// Looks at them.
pub(super) fn inspect(files: &Files, notes: &Notes) -> Prerequisites {
    let text = |path: &str| notes.text(files, path).map(|file| file.text).unwrap_or_default();
    let setting = |path: &str| match text(path).trim() {
        "" => None,
        value => Some(value != "0"),
    };
    let named = |dirs: &[&str], file: &str| -> Vec<String> {
        let in_dirs = dirs.iter().flat_map(|dir| {
            let names = notes.list(files, dir).into_iter();
            names
                .filter(|name| name.ends_with(".conf"))
                .map(move |name| format!("{dir}/{name}"))
        });
        in_dirs.chain([file.to_owned()]).map(|path| text(&path)).collect()
    };
    let mut at_boot = BTreeSet::new();
    for text in named(&SYSCTL_DIRS, SYSCTL_CONF) {
        at_boot.extend(settings_on(&text));
    }
    for text in named(&MODULE_DIRS, MODULES) {
        at_boot.extend(lines(&text).map(str::to_owned));
    }
    Prerequisites {
        overlay: text("/proc/filesystems")
            .lines()
            .any(|line| line.trim_start_matches("nodev").trim() == "overlay"),
        ip_forward: setting("/proc/sys/net/ipv4/ip_forward").unwrap_or_default(),
        bridge_nf_call_iptables: setting("/proc/sys/net/bridge/bridge-nf-call-iptables"),
        // The first line is the heading.
        swap: text("/proc/swaps").lines().count() > 1,
        at_boot,
    }
}

/// Lines without comments and blanks.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(['#', ';']))
}

/// Names of the settings that are switched on, with dots: `-` before one means that a failure does not matter, and
/// slashes may stand for dots.
fn settings_on(text: &str) -> impl Iterator<Item = String> {
    lines(text)
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !matches!(value.trim(), "0" | ""))
        .map(|(name, _)| name.trim().trim_start_matches('-').trim().replace('/', "."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host_path::HostPath;

    #[test]
    fn what_is_set_now_and_what_at_boot() {
        let root = tempfile::tempdir().unwrap();
        let files = Files::new(root.path());
        for (path, text) in [
            ("/proc/filesystems", "nodev\tsysfs\n\text4\nnodev\toverlay\n"),
            ("/proc/sys/net/ipv4/ip_forward", "1\n"),
            (
                "/proc/swaps",
                "Filename\tType\tSize\tUsed\tPriority\n/dev/vda2 partition 1 0 -2\n",
            ),
            (
                "/etc/sysctl.d/k8s.conf",
                "# pods\nnet/bridge/bridge-nf-call-iptables = 1\n-net.ipv4.ip_forward=0\n",
            ),
            ("/etc/sysctl.d/README", "net.ipv4.ip_forward=1\n"),
            ("/etc/modules-load.d/k8s.conf", "overlay\n;none\nbr_netfilter\n"),
        ] {
            files
                .write(&HostPath::new(path).unwrap(), text.as_bytes(), 0o644)
                .unwrap();
        }
        let notes = Notes::default();
        let found = inspect(&files, &notes);
        assert!(found.overlay && found.ip_forward && found.swap);
        assert_eq!(found.bridge_nf_call_iptables, None, "the module is not loaded");
        let names: Vec<&str> = found.at_boot.iter().map(String::as_str).collect();
        assert_eq!(
            names,
            ["br_netfilter", "net.bridge.bridge-nf-call-iptables", "overlay"]
        );
        assert_eq!(notes.0.take(), Vec::<String>::new());
    }

    #[test]
    fn fuzz_settings() {
        use crate::fuzz::{hold, samples};

        hold(&samples("sysctl", &[]), |text| {
            assert!(settings_on(text).all(|name| !name.contains(['/', '\n'])));
        });
    }
}
