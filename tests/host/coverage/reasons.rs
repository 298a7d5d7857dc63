//! Why a check has no mark for a move.

use std::collections::BTreeSet;

use transship::api::request::Runtime;

use super::Pair;

/// Pairs by the names of their runtimes; `*` is any, and an upgrade is meant by its one name alone.
type Reason = (&'static [&'static str], &'static [&'static str], &'static str);

const REASONS: &[Reason] = &[
    // What a pair has no use for.
    (
        &["step `Link`"],
        &[
            "dockershim to *",
            "cri-dockerd to *",
            "cri-o to *",
            "containerd to cri-dockerd",
            "containerd",
        ],
        "Links lead CRI-O to containerd's certificates of registries. containerd names files where they lie, CRI-O reads Docker's directory, \
         and Docker's settings are the user's.",
    ),
    (
        &[
            "step `Images`, layers linked",
            "step `Images`, layers streamed",
            "step `Rehearse`, in the pod network",
            "step `ClearPods`",
            "Docker's settings translated",
            "changes that pods see are told",
            "`containers`: containers that are not Kubernetes'",
            "`pod_environment`: logs of pods shrink, grow or move",
            "`registries`: a registry has certificates that the target does not read",
            "`settings`: a setting of Docker's that cannot come along",
            "`storage`: the disk is full",
        ],
        &["dockershim to cri-dockerd"],
        "Docker stays, with its images, settings and other containers; only what stands in front of it changes.",
    ),
    (
        &[
            "step `RehearseDaemon`",
            "steps `Tasks` and `Shims`",
            "`upgrade`: a container's process is outside of its cgroup",
        ],
        &["* to *"],
        "Only an upgrade restarts a runtime under pods that run on.",
    ),
    (
        &[
            "step `Images`, layers linked",
            "step `Images`, layers streamed",
            "step `Rehearse`, in the pod network",
            "step `StopPods`",
            "step `ClearPods`",
            "step `Kubelet`",
            "Docker's settings translated",
            "changes that pods see are told",
            "`configuration`: crictl's configuration is broken",
            "`containers`: a pod mounts the runtime's socket",
            "`containers`: containers that are not Kubernetes'",
            "`drain`: a pod would be lost in the drain",
            "`drain`: pods are to run on",
            "`images`: an image of pods that stay is missing",
            "`network`: a plugin of CNI is missing",
            "`pod_environment`: logs of pods shrink, grow or move",
            "`registries`: a registry has certificates that the target does not read",
            "`settings`: a setting of Docker's that cannot come along",
            "pods of the source ended over its API",
            "pods of the target ended without it",
            "sandboxes that stay keep no node from its source",
        ],
        &["containerd"],
        "Pods, kubelet, images and network run on in an upgrade, and its endpoint stays.",
    ),
    (
        &["step `Images`, layers linked"],
        &["* to cri-dockerd"],
        "Docker takes images only as archives.",
    ),
    (
        &["effective configuration of the target compared"],
        &["* to cri-dockerd"],
        "cri-dockerd has no file of configuration: its unit is compared.",
    ),
    (
        &["effective configuration of the target compared"],
        &["containerd"],
        "The new program is tried with its configuration (`RehearseDaemon`).",
    ),
    (
        &[
            "a target that is installed",
            "a target from a package",
            "`runtimes`: the target is not installed",
        ],
        &["containerd"],
        "An upgrade in place brings an archive: a package would replace the program before its turn.",
    ),
    (
        &["`runtimes`: its release does not fit the kubelet"],
        &["containerd"],
        "A release that is older than the one in use is no upgrade.",
    ),
    (
        &["`runtimes`: its release does not fit the kubelet"],
        &["dockershim to cri-dockerd"],
        "Every release of cri-dockerd goes with the kubelets that have a dockershim.",
    ),
    (
        &["`runtimes`: its unit is masked"],
        &["* to cri-dockerd", "* to cri-o"],
        "The plan unmasks a unit that is masked, as an earlier plan leaves it.",
    ),
    (
        &["`crio`: CRI-O is not ready to serve"],
        &["* to containerd", "* to cri-dockerd", "containerd"],
        "Only CRI-O calls nft.",
    ),
    (
        &["`registries`: a registry has certificates that the target does not read"],
        &["dockershim to *", "cri-dockerd to *", "cri-o to containerd"],
        "Certificates of Docker and CRI-O are translated, or read where they are.",
    ),
    (
        &["`registries`: a registry has certificates that the target does not read"],
        &["cri-o to cri-dockerd"],
        "Both read /etc/docker/certs.d.",
    ),
    (
        &["`containers`: containers that are not Kubernetes'"],
        &["containerd to *", "cri-o to *"],
        "containerd runs on after it is left, and nothing but pods depends on CRI-O.",
    ),
    (
        &["`pod_environment`: logs of pods shrink, grow or move"],
        &["containerd to cri-o", "cri-o to containerd"],
        "The kubelet keeps the logs of both in the same way.",
    ),
    // What is left to be done.
    (
        &[
            "Docker's settings translated",
            "`settings`: a setting of Docker's that cannot come along",
        ],
        &["containerd to *", "cri-o to *"],
        "Settings of containerd and CRI-O have findings of their own (`SettingCarried`, `SettingNotCarried`).",
    ),
    (
        &["changes that pods see are told"],
        &["cri-o to containerd"],
        "What pods get there that CRI-O did not give them is told with its setting (`SettingApproximated`).",
    ),
    (
        &["step `Images`, layers streamed"],
        &["* to cri-o"],
        "The stores of the captured hosts lie on one file system; into CRI-O's store on a different one layers are copied (`LayersNotLinked`).",
    ),
    (
        &["step `Images`, layers streamed"],
        &["* to containerd"],
        "The stores of the captured hosts lie on one file system.",
    ),
    (
        &["a worker"],
        &[
            "dockershim to cri-dockerd",
            "containerd to cri-dockerd",
            "containerd to cri-o",
        ],
        "The captured hosts that go this way are control plane nodes; the plan of a worker has the same steps.",
    ),
    (
        &["a control plane node"],
        &[
            "dockershim to cri-o",
            "cri-dockerd to *",
            "cri-o to *",
            "containerd",
        ],
        "The captured hosts that go this way are workers; the plan of a control plane node has the same steps, with longer deadlines.",
    ),
    (
        &["walked with an archive and with a package"],
        &["containerd"],
        "The step that brings an archive is swept for itself, and is the same.",
    ),
    (
        &[
            "the same, back by an order alone",
            "the same, with runtimes that come up late",
            "each fault of the target and of the node",
            "the disk is full from some effect on",
        ],
        &["containerd"],
        "An upgrade is swept with and without a commit, with a soak, with steps that fail and calls that hang; what is swept here does not look at the recipe.",
    ),
    (
        &["each fault, and killed at moments that are drawn"],
        &[
            "dockershim to cri-dockerd",
            "cri-dockerd to *",
            "containerd to *",
            "containerd",
        ],
        "Faults alone and crashes alone are tried for every pair, both at once for one source or target of each kind.",
    ),
    // Real nodes.
    (
        &[
            "a worker moves",
            "a control plane node moves",
            "by the operator",
            "from a shell",
            "back after the commit",
            "through a boot under the target",
            "power cuts in the middle",
            "faults of the node or of the target in the middle",
            "Kubespray's layout",
        ],
        &["dockershim to cri-o"],
        "A worker was moved to CRI-O 1.23.0 and back by hand; the lab has no release of CRI-O for kubelets with a dockershim.",
    ),
    (
        &[
            "by the operator",
            "from a shell",
            "through a boot under the target",
        ],
        &["* to *", "containerd"],
        "Whether the operator or a shell begins a plan, and what a boot starts under a target, does not depend on the runtime before it.",
    ),
    (
        &["faults of the node or of the target in the middle"],
        &["* to *", "containerd"],
        "The executor carries out every pair in the same way; the crash sweep has these faults for every pair.",
    ),
    (
        &["Kubespray's layout"],
        &["* to *", "containerd"],
        "The layout is one of the kubelet and of Docker's unit, which these moves edit in the same way.",
    ),
    (
        &["power cuts in the middle"],
        &["dockershim to cri-dockerd"],
        "Not tried on real nodes yet: power cuts of this pair are swept on files and a model of systemd.",
    ),
    (
        &["a control plane node moves"],
        &["cri-dockerd to cri-o", "cri-o to cri-dockerd"],
        "Tried on a real node by hand, and in no scenario: a worker moves this way, and control plane nodes move between other pairs.",
    ),
    (
        &["a control plane node moves"],
        &["dockershim to cri-dockerd", "cri-dockerd to containerd"],
        "Not tried on real nodes yet: a worker moves this way, and control plane nodes move between other pairs.",
    ),
];

/// The reasons, and which of their checks and pairs were needed.
#[derive(Default)]
pub(super) struct Reasons(BTreeSet<(usize, &'static str)>);

impl Reasons {
    /// The reason of a hole.
    pub(super) fn of(&mut self, row: &str, pair: Pair) -> Option<&'static str> {
        REASONS
            .iter()
            .enumerate()
            .find_map(|(at, (rows, pairs, reason))| {
                let row = rows.iter().find(|known| **known == row)?;
                let pattern = pairs.iter().find(|pattern| matches(pattern, pair))?;
                self.0.extend([(at, *row), (at, *pattern)]);
                Some(*reason)
            })
    }

    /// Checks and pairs that no hole needs.
    pub(super) fn idle(&self) -> impl Iterator<Item = String> {
        let all = REASONS
            .iter()
            .enumerate()
            .flat_map(|(at, (rows, pairs, reason))| {
                let words = rows.iter().chain(*pairs);
                words.map(move |word| (at, *word, *reason))
            });
        all.filter(|(at, word, _)| !self.0.contains(&(*at, *word)))
            .map(|(_, word, reason)| format!("{word}: {reason}"))
    }
}

fn matches(pattern: &str, (source, target): Pair) -> bool {
    let is = |name: &str, runtime: Runtime| name == "*" || name == runtime.name();
    match pattern.split_once(" to ") {
        Some((from, to)) => source != target && is(from, source) && is(to, target),
        None => source == target && pattern == source.name(),
    }
}
