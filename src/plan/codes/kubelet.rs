//! The kubelet: how it is installed, whether it runs, what it depends on.

use crate::plan::finding::Code;

/// The kubelet is managed by something that rewrites its files.
pub const UNSUPPORTED_LAYOUT: Code = Code::block(
    "UnsupportedLayout",
    "The kubelet is managed in a way that Transship does not change",
);
/// There is no kubelet.
pub const NO_KUBELET: Code = Code::block("NoKubelet", "There is no kubelet on this host");
/// The kubelet does not run.
pub const KUBELET_NOT_RUNNING: Code = Code::block(
    "KubeletNotRunning",
    "The kubelet does not run, so its settings in effect are not known",
);
/// Static pods make it a control plane.
pub const CONTROL_PLANE_NODE: Code = Code::info(
    "ControlPlaneNode",
    "The node runs an API server or etcd as a static pod: they stop last, their images are always carried, and they are away until the kubelet has started them again",
);
/// Static pods that are no control plane.
pub const STATIC_PODS: Code = Code::info(
    "StaticPods",
    "The node runs static pods: they stop last, and their images are always carried",
);
/// The kubelet's unit stops with one of the source's.
pub const KUBELET_BOUND_TO_SOURCE: Code = Code::block(
    "KubeletBoundToSource",
    "The kubelet's unit cannot run without a unit of the source, which is stopped after the switch",
);
/// The kubelet's unit starts one of the source's.
pub const KUBELET_STARTS_SOURCE: Code = Code::warn(
    "KubeletStartsSource",
    "The kubelet's unit wants a unit of the source, which cannot be masked and starts again with the kubelet",
);
/// The kubelet's unit runs Docker when it starts.
pub const KUBELET_RUNS_DOCKER: Code = Code::block_unless_allowed(
    "KubeletRunsDocker",
    "The kubelet's unit uses Docker before or after it starts the kubelet, which would not start again at the next boot",
);
/// The kubelet's flags come from a script.
pub const KUBELET_STARTED_BY_SCRIPT: Code = Code::block(
    "KubeletStartedByScript",
    "The kubelet's unit starts another program, which gives the kubelet flags that stand in no file",
);
/// Kubelets before 1.22 write new logs through old links.
pub const LOG_LINKS_REMAIN: Code = Code::block(
    "LogLinksRemain",
    "A kubelet before 1.22 would write new logs through links to those of Docker's containers, which are gone",
);
/// The process was started with other flags.
pub const KUBELET_ARGUMENTS_DIFFER: Code = Code::warn(
    "KubeletArgumentsDiffer",
    "The kubelet runs with other flags than its files would give it now",
);
/// A flag keeps the kubelet from starting.
pub const KUBELET_FLAG_UNKNOWN: Code = Code::block(
    "KubeletFlagUnknown",
    "The kubelet's files give it a flag that its version does not have; it would not start with them",
);
/// A flag that later kubelets do not know.
pub const KUBELET_FLAG_ENDS: Code = Code::warn(
    "KubeletFlagEnds",
    "The kubelet keeps a flag with which a later version will not start",
);
/// Flags that later kubelets do not know, and that the plan takes out.
pub const KUBELET_FLAGS_REMOVED: Code = Code::info(
    "KubeletFlagsRemoved",
    "The plan removes flags with which a later version of the kubelet does not start",
);
/// `kubectl exec` fails.
pub const EXEC_FAILS: Code = Code::warn(
    "ExecFails",
    "`kubectl exec` and `attach` fail with cri-dockerd on kubelets from 1.36 on, which want its streaming address to have a scheme",
);
/// Pods are refused.
pub const NO_NEW_PRIVILEGES_REFUSED: Code = Code::block_unless_allowed(
    "NoNewPrivilegesRefused",
    "Pods run here with `allowPrivilegeEscalation: false`; under cri-dockerd this kubelet starts no new ones",
);
/// Pods would be refused.
pub const NO_NEW_PRIVILEGES_UNSUPPORTED: Code = Code::warn(
    "NoNewPrivilegesUnsupported",
    "Kubelets up to 1.23 start no pod with `allowPrivilegeEscalation: false` under cri-dockerd 0.3 or later, whose API version they cannot read",
);
/// The agent cannot see the kubeconfig.
pub const KUBECONFIG_ELSEWHERE: Code = Code::warn(
    "KubeconfigElsewhere",
    "The kubelet's kubeconfig is not a file that the agent mounts by default",
);
/// Something could not be read.
pub const UNREADABLE: Code = Code::block_unless_allowed(
    "Unreadable",
    "Something that the plan depends on could not be read",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    UNSUPPORTED_LAYOUT,
    NO_KUBELET,
    KUBELET_NOT_RUNNING,
    CONTROL_PLANE_NODE,
    STATIC_PODS,
    KUBELET_BOUND_TO_SOURCE,
    KUBELET_STARTS_SOURCE,
    KUBELET_RUNS_DOCKER,
    KUBELET_STARTED_BY_SCRIPT,
    LOG_LINKS_REMAIN,
    KUBELET_ARGUMENTS_DIFFER,
    KUBELET_FLAG_UNKNOWN,
    KUBELET_FLAG_ENDS,
    KUBELET_FLAGS_REMOVED,
    EXEC_FAILS,
    NO_NEW_PRIVILEGES_REFUSED,
    NO_NEW_PRIVILEGES_UNSUPPORTED,
    KUBECONFIG_ELSEWHERE,
    UNREADABLE,
];
