//! Files, sockets and names of the runtimes and of the kubelet that more than one room names: the collector of facts reads
//! them, planners write them.

/// The drop-in that keeps the kubelet from starting while [`HOLD_FILE`](super::step::HOLD_FILE) exists.
pub const HOLD_DROP_IN: &str = "/etc/systemd/system/kubelet.service.d/zz-transship-hold.conf";

/// Where systemd looks for programs (`systemd-path search-binaries-default`).
pub const PROGRAM_DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Where an administrator's files of units are, and the masks.
pub const OWN_UNITS: &str = "/etc/systemd/system/";

/// Where archives are unpacked, each into a directory of its own.
pub const ARCHIVES: &str = "/opt/transship";

/// containerd's configuration unless its unit names another.
pub const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";

/// The drop-in of containerd's unit that Transship writes.
pub const CONTAINERD_DROP_IN: &str = "/etc/systemd/system/containerd.service.d/zz-transship.conf";

/// The environment file for containerd's unit that Transship writes: systemd reads only files in the directory whose names end
/// in `.conf` as drop-ins.
pub const CONTAINERD_ENVIRONMENT: &str = "/etc/systemd/system/containerd.service.d/transship.env";

/// What containerd has until the next boot, unless its configuration names another directory.
pub const CONTAINERD_STATE: &str = "/run/containerd";

/// Where containerd 2.x has imported files by default.
pub const CONTAINERD_CONF_D: &str = "/etc/containerd/conf.d";

/// Where plugins of NRI are, each of which containerd 2.x starts.
pub const NRI_PLUGINS: &str = "/opt/nri/plugins";

/// Name of the runtime with runc's shim.
pub const RUNC_SHIM: &str = "io.containerd.runc.v2";

/// containerd's socket unless its configuration names another.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// The drop-in of cri-dockerd's unit that Transship writes for a unit that it writes itself.
pub const CRI_DOCKERD_DROP_IN: &str = "/etc/systemd/system/cri-docker.service.d/zz-transship.conf";

/// cri-dockerd's socket unless its service names another.
pub const CRI_DOCKERD_SOCKET: &str = "/run/cri-dockerd.sock";

/// CRI-O's socket unless its configuration names another.
pub const CRIO_SOCKET: &str = "/run/crio/crio.sock";

/// The part of CRI-O's configuration that Transship writes: CRI-O reads the files of this directory in the order of their names,
/// and the last one wins.
pub const CRIO_CONFIG: &str = "/etc/crio/crio.conf.d/zz-transship.conf";

/// The part that Transship writes for the time in which CRI-O runs next to a runtime that has pods. It is read after all others.
pub const CRIO_UNTIL_SWITCH: &str = "/etc/crio/crio.conf.d/zzz-transship-until-switch.conf";

/// Where CRI-O finds the pod network in that time.
pub const CRIO_NETWORK_DIRECTORY: &str = "/var/lib/transship/cni";

/// The configuration there.
pub const CRIO_NETWORK: &str = "/var/lib/transship/cni/10-until-switch.conflist";

/// The drop-in of CRI-O's unit that Transship writes.
pub const CRIO_DROP_IN: &str = "/etc/systemd/system/crio.service.d/zz-transship.conf";

/// The environment file for CRI-O's unit that Transship writes.
pub const CRIO_ENVIRONMENT: &str = "/etc/systemd/system/crio.service.d/transship.env";

/// Where CRI-O, as all tools of containers/image, has its settings of registries, file by file in the order of their names.
pub const CRIO_REGISTRIES_DIRECTORY: &str = "/etc/containers/registries.conf.d";

/// The credentials of registries for CRI-O that Transship writes.
pub const CRIO_CREDENTIALS: &str = "/etc/crio/transship-auth.json";

/// Where the kubelet looks for credentials of registries, which it sends along with each pull.
pub const KUBELET_CREDENTIALS: &str = "/var/lib/kubelet/config.json";

/// The file that is read before that directory.
pub const REGISTRIES_CONF: &str = "/etc/containers/registries.conf";

/// CRI-O's directories of registries' certificates, by host and port (containers-certs.d(5)); where a registry has none there, CRI-O
/// reads Docker's.
pub const CONTAINERS_CERTIFICATES: &str = "/etc/containers/certs.d";

/// What the names of the links begin with that Transship makes in a registry's directory there.
pub const OWN_LINKS: &str = "transship";

/// The file of that directory that Transship writes.
pub const CRIO_REGISTRIES: &str = "/etc/containers/registries.conf.d/zz-transship.conf";

/// Where CRI-O's own bundle has its policy of signatures.
pub const CRIO_POLICY: &str = "/etc/crio/policy.json";

/// The policy of signatures that CRI-O uses unless its configuration names another; it cannot pull an image without one.
pub const CONTAINERS_POLICY: &str = "/etc/containers/policy.json";

/// Where tools of containers/image keep what they pull until it is unpacked, if nobody has set another directory
/// (`internal/tmpdir/tmpdir.go`).
pub const PULLED: &str = "/var/tmp";

/// Where CRI-O keeps images and containers, unless its configuration names another directory.
pub const CRIO_ROOT: &str = "/var/lib/containers/storage";

/// Docker's service and the socket unit that starts it.
pub const DOCKER_UNITS: [&str; 2] = ["docker.service", "docker.socket"];

/// Docker Engine's socket unless the kubelet or cri-dockerd names another.
pub const DOCKER_SOCKET: &str = "/var/run/docker.sock";

/// Docker's data root unless its configuration names another.
pub const DOCKER_DATA_ROOT: &str = "/var/lib/docker";

/// Docker's configuration.
pub const DAEMON_JSON: &str = "/etc/docker/daemon.json";

/// Docker's directory of registries' certificates: `<host:port>/ca.crt`, `client.cert`, `client.key`.
pub const DOCKER_CERTIFICATES: &str = "/etc/docker/certs.d";

/// containerd's directory of registries' certificates, if `config_path` names it: `<host:port>/hosts.toml`, or files as Docker has them.
pub const CONTAINERD_CERTIFICATES: &str = "/etc/containerd/certs.d";

/// The same, where the usual directory holds files that nothing has read so far.
pub const OWN_CERTIFICATES: &str = "/etc/containerd/transship-certs.d";

/// crictl's configuration.
pub const CRICTL: &str = "/etc/crictl.yaml";

/// What a daemon that is only tried keeps on disk.
pub const REHEARSAL_ROOT: &str = "/var/lib/transship-rehearsal";

/// What a daemon that is only tried has until the next boot. Its socket is in it, so the path is short.
pub const REHEARSAL_STATE: &str = "/run/transship-rehearsal";
