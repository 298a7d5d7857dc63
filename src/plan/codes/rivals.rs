//! Who else acts on the runtimes of this node: units and scripts that start Docker again, and agents that write files back.

use crate::plan::finding::Code;

/// Docker without a unit of its own.
pub const DOCKER_NOT_A_SERVICE: Code = Code::block_unless_allowed(
    "DockerNotAService",
    "Docker runs, but not as docker.service (a snap, for example): it is not stopped, and its settings are not known",
);
/// Units that need Docker.
pub const UNITS_NEED_DOCKER: Code = Code::warn(
    "UnitsNeedDocker",
    "Units of this host require or want docker.service, which is stopped and kept from starting",
);
/// Scripts that start Docker.
pub const DOCKER_STARTED_ELSEWHERE: Code = Code::warn(
    "DockerStartedElsewhere",
    "A script, timer or watchdog of this host starts Docker again",
);
/// Agents of configuration management.
pub const FILES_MANAGED: Code = Code::warn(
    "FilesManaged",
    "An agent of configuration management runs here, or a file of the plan says that one writes it: it may write the old text back",
);
/// Kubespray's inventory.
pub const KUBESPRAY_WOULD_UNDO: Code = Code::warn(
    "KubesprayWouldUndo",
    "The kubelet is laid out as Kubespray does it: its next play writes the files for the runtime of its inventory again",
);
/// Installers that write their files at every start.
pub const INSTALLER_WOULD_UNDO: Code = Code::warn(
    "InstallerWouldUndo",
    "The kubelet is laid out by minikube or kOps: their next start, or the node's next boot, writes the files for the runtime of their own settings again",
);

/// All codes of this module.
pub const CODES: &[Code] = &[
    DOCKER_NOT_A_SERVICE,
    UNITS_NEED_DOCKER,
    DOCKER_STARTED_ELSEWHERE,
    FILES_MANAGED,
    KUBESPRAY_WOULD_UNDO,
    INSTALLER_WOULD_UNDO,
];
