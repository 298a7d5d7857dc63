//! The rest: name, operating system, kernel, and what manages the kubelet.

use super::{
    kubelet::Flags,
    notes::{Notes, exists},
};
use crate::{
    host::files::Files,
    plan::facts::{Kubelet, Layout, Os},
};

/// What is known of the system itself.
#[derive(Debug)]
pub(super) struct System {
    pub(super) node: String,
    pub(super) machine_id: String,
    pub(super) os: Os,
    pub(super) kernel: String,
    pub(super) arch: String,
    pub(super) cgroup_version: u8,
    pub(super) docker_group: Option<bool>,
}

impl System {
    pub(super) fn of(files: &Files, flags: &Flags, notes: &Notes) -> Self {
        let line = |path: &str| {
            notes
                .text(files, path)
                .map(|file| file.text.trim().to_owned())
                .unwrap_or_default()
        };
        let host = || line("/proc/sys/kernel/hostname").to_lowercase();
        // The first is a link to the second on most systems, and missing on some.
        let release = ["/etc/os-release", "/usr/lib/os-release"]
            .iter()
            .find_map(|path| notes.text(files, path));
        let release = release.map(|file| file.text).unwrap_or_default();
        Self {
            node: flags.get("hostname-override").map_or_else(host, str::to_owned),
            machine_id: line("/etc/machine-id"),
            os: Os {
                id: value(&release, "ID"),
                version: value(&release, "VERSION_ID"),
            },
            kernel: line("/proc/sys/kernel/osrelease"),
            arch: match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .to_owned(),
            // Only the root of a version 2 hierarchy has this file.
            cgroup_version: if exists(files, "/sys/fs/cgroup/cgroup.controllers") {
                2
            } else {
                1
            },
            docker_group: notes
                .text(files, "/etc/group")
                .map(|file| file.text.lines().any(|line| line.starts_with("docker:"))),
        }
    }
}

/// A value in os-release (os-release(5)): `NAME=value`, the value perhaps in quotes.
fn value(release: &str, name: &str) -> String {
    let line = release
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_default()
        .trim()
        .trim_matches(['"', '\''])
        .to_owned()
}

/// What manages the kubelet.
pub(super) fn layout(files: &Files, kubelet: Option<&Kubelet>, os: &str) -> Layout {
    match os {
        "talos" => return Layout::Talos,
        "bottlerocket" => return Layout::Bottlerocket,
        "cos" => return Layout::ContainerOptimizedOs,
        "rhcos" | "scos" => return Layout::OpenShift,
        _ => {}
    }
    // A kubelet of its own that runs beats what another installer has left behind.
    let unit = kubelet.map(|kubelet| &kubelet.unit);
    let runs = unit.is_some_and(|unit| unit.main_pid != 0);
    let whole = [
        ("/var/lib/rancher/rke2/agent", Layout::Rke2),
        ("/var/lib/rancher/k3s/agent", Layout::K3s),
        ("/var/lib/k0s/bin", Layout::K0s),
        ("/var/snap/microk8s/current", Layout::Microk8s),
    ];
    if let Some((_, layout)) = whole.iter().find(|(path, _)| !runs && exists(files, path)) {
        return *layout;
    }
    let Some(unit) = unit else { return Layout::Unknown };
    let reads = |name: &str| {
        let texts = unit.drop_ins.iter().map(|file| &file.text);
        texts.into_iter().any(|text| text.contains(name))
            || unit
                .environment_files
                .iter()
                .any(|file| file.path.as_str().ends_with(name))
    };
    if reads("kubeadm-flags.env") {
        Layout::Kubeadm
    } else {
        Layout::PlainUnit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::host_path::HostPath;

    #[test]
    fn values_lose_their_quotes() {
        let release = "PRETTY_NAME=\"Debian 12\"\nVERSION_ID=\"12\"\nID=debian\nID_LIKE=x\n";
        assert_eq!(
            (value(release, "ID"), value(release, "VERSION_ID")),
            ("debian".into(), "12".into())
        );
        assert_eq!(value(release, "BUILD_ID"), "");
    }

    #[test]
    fn distributions_that_bring_their_own_kubelet_are_recognised() {
        for (path, wanted) in [
            ("/var/lib/rancher/k3s/agent/kubelet.kubeconfig", Layout::K3s),
            ("/var/lib/rancher/rke2/agent/kubelet.kubeconfig", Layout::Rke2),
            ("/var/lib/k0s/bin/kubelet", Layout::K0s),
            ("/var/snap/microk8s/current/args/kubelet", Layout::Microk8s),
            ("/etc/none", Layout::Unknown),
        ] {
            let root = tempfile::tempdir().unwrap();
            let files = Files::new(root.path());
            files.write(&HostPath::new(path).unwrap(), b"", 0o600).unwrap();
            assert_eq!(layout(&files, None, "debian"), wanted, "{path}");
            assert_eq!(layout(&files, None, "talos"), Layout::Talos);
            assert_eq!(layout(&files, None, "cos"), Layout::ContainerOptimizedOs);
            assert_eq!(layout(&files, None, "rhcos"), Layout::OpenShift);
        }
    }

    #[test]
    fn fuzz_os_release() {
        use crate::fuzz::{hold, samples};

        hold(&samples("os-release", &[]), |text| {
            for name in ["ID", "VERSION_ID", ""] {
                assert!(!value(text, name).contains('\n'), "a value is one line");
            }
        });
    }
}
