//! What the API server tells that the node cannot know: what kubeadm remembers of the cluster, and whether a node's
//! identity is confined to its own node.

use serde_json::Value;

use crate::{
    edit::{flags, yaml},
    plan::{
        cluster::{ClusterFacts, ConfigMap, KubeadmConfigs, Read},
        codes::kubeadm::{KUBEADM_CONFIG_UNREAD, KUBEADM_WOULD_UNDO, NODE_RESTRICTION_ABSENT},
        facts::{Facts, Layout},
        finding::Finding,
        host_path,
        kubelet_settings::Settings,
        runtime::Runtime,
    },
};

/// The ConfigMap with kubeadm's `ClusterConfiguration`.
pub const KUBEADM_CONFIG: &str = "kubeadm-config";

/// A node of kubeadm's, after the move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Minor version of its kubelet.
    pub minor: u64,
    /// The CRI socket of the target, with its scheme.
    pub endpoint: String,
    /// The cgroup driver of the kubelet's configuration file; absent where a flag decides instead.
    pub cgroup_driver: Option<String>,
    /// kubeadm has a file of its own for the node's endpoint (1.34 and later), which counts for more than its
    /// ConfigMap.
    pub instance_config: bool,
}

impl Node {
    /// The node of `facts` on its way to `target`; nothing where kubeadm has no say.
    pub fn of(facts: &Facts, target: Runtime) -> Option<Self> {
        let kubelet = facts
            .kubelet
            .as_ref()
            .filter(|_| facts.layout == Layout::Kubeadm)?;
        let settings = Settings::of(kubelet, &facts.endpoints()).ok()?;
        if target.is_in_kubelet() {
            return None;
        }
        let found = facts.installed().remove(&target);
        let socket = found.map_or(target.profile().socket, |found| found.endpoint.as_str());
        let by_flag = flags::value(&kubelet.command_line, "cgroup-driver").is_some();
        Some(Self {
            minor: settings.version.minor,
            endpoint: format!("unix://{socket}"),
            cgroup_driver: (!by_flag).then_some(settings.cgroup_driver),
            instance_config: kubelet.instance_config.is_some(),
        })
    }

    /// The names that the ConfigMap with the kubelet's configuration may have, the likelier first.
    pub fn kubelet_configs(&self) -> Vec<String> {
        let (plain, versioned) = (
            "kubelet-config".to_owned(),
            format!("kubelet-config-1.{}", self.minor),
        );
        match self.minor {
            ..=23 => vec![versioned, plain],
            24 => vec![plain, versioned],
            _ => vec![plain],
        }
    }
}

/// Checks of what the API server reports of the node of `facts` on its way to `target`.
pub fn check(facts: &Facts, target: Runtime, cluster: &ClusterFacts) -> Vec<Finding> {
    let configs = Node::of(facts, target).zip(cluster.kubeadm.as_ref());
    let mut findings = configs.map_or_else(Vec::new, |(node, configs)| remembered(&node, configs));
    if cluster.is_unrestricted {
        findings.push(unrestricted());
    }
    findings
}

/// What kubeadm's ConfigMaps would do to a node that has moved.
fn remembered(node: &Node, configs: &KubeadmConfigs) -> Vec<Finding> {
    let of_kubelet = look(&configs.kubelet, |map| kubelet_config(node, map));
    let of_kubeadm = look(&configs.cluster, |map| kubeadm_config(node, map));
    [of_kubelet, of_kubeadm].concat()
}

fn look(read: &Read, judge: impl Fn(&ConfigMap) -> Result<Vec<Finding>, String>) -> Vec<Finding> {
    let judged = match read {
        Ok(map) => judge(map).map_err(|error| format!("{}: {error}", map.name)),
        Err(error) => Err(error.clone()),
    };
    judged.unwrap_or_else(|error| {
        vec![KUBEADM_CONFIG_UNREAD.found(
            format!("kubeadm's memory in kube-system could not be read: {error}"),
            "Look yourself before the next `kubeadm upgrade`: `kubectl -n kube-system get configmaps`.",
        )]
    })
}

/// The configuration that `kubeadm upgrade node` writes over the kubelet's, and `join` gives a new one.
fn kubelet_config(node: &Node, map: &ConfigMap) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for (_, text) in map.data.iter().filter(|(key, _)| key == "kubelet") {
        let config = yaml::parse(text).map_err(|error| error.to_string())?;
        let endpoint = text_of(&config, "containerRuntimeEndpoint");
        if let Some(found) = endpoint.filter(|found| !node.instance_config && !same(found, &node.endpoint)) {
            findings.push(undone(map, "containerRuntimeEndpoint", found, &node.endpoint));
        }
        if let (Some(found), Some(wanted)) = (text_of(&config, "cgroupDriver"), &node.cgroup_driver)
            && found != wanted
        {
            findings.push(undone(map, "cgroupDriver", found, wanted));
        }
    }
    Ok(findings)
}

/// What `kubeadm join` and `upgrade` take for a node where it is written down for all of them.
fn kubeadm_config(node: &Node, map: &ConfigMap) -> Result<Vec<Finding>, String> {
    let mut findings = Vec::new();
    for (_, text) in &map.data {
        let config = yaml::parse(text).map_err(|error| error.to_string())?;
        let Some(registration) = config.get("nodeRegistration") else {
            continue;
        };
        let socket = text_of(registration, "criSocket").map(|found| ("nodeRegistration.criSocket", found));
        let flag = argument(registration, "container-runtime-endpoint").map(|found| {
            (
                "nodeRegistration.kubeletExtraArgs: container-runtime-endpoint",
                found,
            )
        });
        for (field, found) in socket.into_iter().chain(flag) {
            if !same(found, &node.endpoint) {
                findings.push(undone(map, field, found, &node.endpoint));
            }
        }
        let driver = argument(registration, "cgroup-driver");
        if let (Some(found), Some(wanted)) = (driver, &node.cgroup_driver)
            && found != wanted
        {
            let field = "nodeRegistration.kubeletExtraArgs: cgroup-driver";
            findings.push(undone(map, field, found, wanted));
        }
    }
    Ok(findings)
}

fn undone(map: &ConfigMap, field: &str, found: &str, wanted: &str) -> Finding {
    let name = &map.name;
    KUBEADM_WOULD_UNDO.found(
        format!(
            "ConfigMap kube-system/{name} says {field}: {found}; after the move this node has {wanted}, until \
             `kubeadm upgrade node` writes the other back"
        ),
        format!(
            "When all nodes have moved: `kubectl -n kube-system edit configmap {name}`, and set {field} to {wanted}."
        ),
    )
}

fn text_of<'a>(config: &'a Value, field: &str) -> Option<&'a str> {
    config
        .get(field)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// An extra argument of the kubelet: a mapping, and from v1beta4 on a list of names and values.
fn argument<'a>(registration: &'a Value, name: &str) -> Option<&'a str> {
    match registration.get("kubeletExtraArgs")? {
        Value::Array(arguments) => arguments
            .iter()
            .find(|argument| text_of(argument, "name") == Some(name))
            .and_then(|argument| text_of(argument, "value")),
        arguments => text_of(arguments, name),
    }
}

/// Whether two endpoints are the same socket: with or without scheme, below `/run` or `/var/run`.
fn same(one: &str, other: &str) -> bool {
    host_path::socket(one) == host_path::socket(other)
}

/// The server accepts a change that NodeRestriction forbids.
fn unrestricted() -> Finding {
    NODE_RESTRICTION_ABSENT.found(
        "the API server accepted (as a dry run) that this node sets a label below node-restriction.kubernetes.io on \
         itself, which its admission plugin NodeRestriction forbids",
        "Add NodeRestriction to --enable-admission-plugins of every kube-apiserver. Until then the agent's pod, which \
         can read the kubelet's identity, can change other nodes too.",
    )
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn node() -> Node {
        Node {
            minor: 23,
            endpoint: "unix:///run/containerd/containerd.sock".to_owned(),
            cgroup_driver: Some("systemd".to_owned()),
            instance_config: false,
        }
    }

    fn map(name: &str, key: &str, text: &str) -> Read {
        Ok(ConfigMap {
            name: name.to_owned(),
            data: vec![(key.to_owned(), text.to_owned())],
        })
    }

    const CLUSTER: &str = "apiVersion: kubeadm.k8s.io/v1beta3\nkind: ClusterConfiguration\nnetworking:\n  podSubnet: \
        10.0.0.0/16\n";

    #[rstest]
    #[case::of_1_23("cgroupDriver: systemd\nkind: KubeletConfiguration\n", CLUSTER, &[])]
    #[case::empty_from_1_34("containerRuntimeEndpoint: \"\"\ncgroupDriver: systemd\n", CLUSTER, &[])]
    #[case::target_by_its_other_name(
        "containerRuntimeEndpoint: unix:///var/run/containerd/containerd.sock\n", CLUSTER, &[]
    )]
    #[case::source(
        "containerRuntimeEndpoint: unix:///var/run/cri-dockerd.sock\n", CLUSTER,
        &["containerRuntimeEndpoint: unix:///var/run/cri-dockerd.sock"]
    )]
    #[case::driver("cgroupDriver: cgroupfs\n", CLUSTER, &["cgroupDriver: cgroupfs"])]
    #[case::registration(
        "", "nodeRegistration:\n  criSocket: /var/run/dockershim.sock\n",
        &["nodeRegistration.criSocket: /var/run/dockershim.sock"]
    )]
    #[case::arguments(
        "", "nodeRegistration:\n  kubeletExtraArgs:\n    container-runtime-endpoint: /run/cri-dockerd.sock\n",
        &["container-runtime-endpoint: /run/cri-dockerd.sock"]
    )]
    #[case::arguments_of_v1beta4(
        "", "nodeRegistration:\n  kubeletExtraArgs:\n  - name: cgroup-driver\n    value: cgroupfs\n",
        &["cgroup-driver: cgroupfs"]
    )]
    fn what_would_undo_the_move_is_named(
        #[case] kubelet: &str,
        #[case] kubeadm: &str,
        #[case] expected: &[&str],
    ) {
        let kubelet = map("kubelet-config-1.23", "kubelet", kubelet);
        let cluster = map(KUBEADM_CONFIG, "ClusterConfiguration", kubeadm);
        let findings = remembered(&node(), &KubeadmConfigs { kubelet, cluster });
        assert_eq!(findings.len(), expected.len(), "{findings:?}");
        for (finding, expected) in findings.iter().zip(expected) {
            assert_eq!(finding.code, KUBEADM_WOULD_UNDO.name);
            assert!(finding.message.contains(expected), "{}", finding.message);
            assert!(
                finding
                    .remedy
                    .contains("kubectl -n kube-system edit configmap kube")
            );
        }
    }

    #[test]
    fn what_a_flag_or_kubeadms_own_file_decides_is_not_undone() {
        let node = Node {
            cgroup_driver: None,
            instance_config: true,
            ..node()
        };
        let text = "containerRuntimeEndpoint: unix:///var/run/cri-dockerd.sock\ncgroupDriver: cgroupfs\n";
        let kubelet = map("kubelet-config", "kubelet", text);
        let cluster = map(KUBEADM_CONFIG, "ClusterConfiguration", CLUSTER);
        assert_eq!(remembered(&node, &KubeadmConfigs { kubelet, cluster }), []);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let kubelet = Err("kubelet-config-1.23 is forbidden".to_owned());
        let cluster = map(KUBEADM_CONFIG, "ClusterConfiguration", "{ not: yaml");
        let findings = remembered(&node(), &KubeadmConfigs { kubelet, cluster });
        let codes: Vec<_> = findings.iter().map(|finding| finding.code.as_str()).collect();
        assert_eq!(codes, [KUBEADM_CONFIG_UNREAD.name; 2]);
        assert!(findings[0].message.contains("is forbidden"));
    }

    #[test]
    fn the_name_of_the_config_map_follows_the_version() {
        let names = |minor| Node { minor, ..node() }.kubelet_configs();
        assert_eq!(names(23), ["kubelet-config-1.23", "kubelet-config"]);
        assert_eq!(names(24), ["kubelet-config", "kubelet-config-1.24"]);
        assert_eq!(names(36), ["kubelet-config"]);
    }
}
