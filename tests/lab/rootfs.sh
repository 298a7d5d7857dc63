# shellcheck shell=bash
# The root file system of a node: a base made once, and a copy for each node.

# Part of the base's name in the cache: raise it when build_root changes.
ROOT_REVISION=2
ROOT_PACKAGES=(systemd systemd-sysv dbus iproute2 iptables kmod procps ca-certificates
    docker.io containerd runc containernetworking-plugins conntrack ethtool socat jq curl
    conmon crun nftables)    # for CRI-O
# They wait for, or fight over, devices that the nodes do not have.
MASKED_UNITS=(getty.target console-getty.service getty@.service serial-getty@.service
    systemd-networkd-wait-online.service systemd-logind.service cni-dhcp.service
    cni-dhcp.socket apt-daily.timer apt-daily-upgrade.timer e2scrub_reap.service
    systemd-udevd.service systemd-udevd-kernel.socket systemd-udevd-control.socket
    systemd-sysctl.service systemd-modules-load.service
    sys-kernel-debug.mount sys-kernel-tracing.mount)

# Debian as it comes, plus what every node of every cluster shares.
build_root() {
    local unit
    debootstrap --variant=minbase --include="$(IFS=,; echo "${ROOT_PACKAGES[*]}")" bookworm root
    rm -rf root/var/cache/apt/archives/*.deb root/var/lib/apt/lists/*
    for unit in "${MASKED_UNITS[@]}"; do
        ln -sf /dev/null "root/etc/systemd/system/$unit"
    done
    # Clusters have the CNI plugins where the kubelet looks by default, and not
    # where Debian puts them.
    mkdir -p root/opt/cni
    mv root/usr/lib/cni root/opt/cni/bin
}

base_root() { part "root-bookworm-$ROOT_REVISION/root"; }

# make_root NODE: the node's own copy, with Kubernetes on it.
make_root() {
    local node=$1 root
    root=$(root_of "$node")
    rm -rf "$root"
    mkdir -p "${root%/*}"
    cp -a --reflink=auto "$(base_root)" "$root"
    install -m 755 -t "$root/usr/bin" "$(part "kubernetes-$KUBERNETES")"/{kubelet,kubeadm,kubectl}
    install -D -m 755 "$LAB/runc" "$root/usr/local/sbin/runc"
    write_identity "$node" "$root"
    write_kubelet_units "$root"
    case $(runtime_of "$node") in
        dockershim) write_docker_config "$root" ;;
        cri-dockerd) write_docker_config "$root"; install_cri_dockerd "$root" ;;
        containerd) install_containerd "$root" ;;
    esac
    write_cni_config "$node" "$root"
    # What init.sh demands to see before it starts systemd.
    echo "$node" >"$root/.transship-lab-node"
}

# The runtime that the node is made with; a test may have changed it since.
runtime_of() {
    if [[ $1 == "$CONTROL_PLANE" ]]; then echo "$CONTROL_PLANE_RUNTIME"; else echo "$WORKER_RUNTIME"; fi
}
# The endpoint that kubeadm is told; dockershim it finds by itself.
endpoint_of() {
    case $(runtime_of "$1") in
        containerd) echo unix:///var/run/containerd/containerd.sock ;;
        cri-dockerd) echo unix:///var/run/cri-dockerd.sock ;;
    esac
}

write_identity() {
    local node=$1 root=$2 other
    echo "$node" >"$root/etc/hostname"
    md5sum <<<"transship-lab $CLUSTER $node" | cut -c-32 >"$root/etc/machine-id"
    {
        echo '127.0.0.1 localhost'
        for other in "${NODES[@]}"; do
            echo "$(address_of "$other") $other"
        done
    } >"$root/etc/hosts"
    echo '# The lab has no name server.' >"$root/etc/resolv.conf"
}

# The layout of the Kubernetes project's own Debian packages.
write_kubelet_units() {
    local root=$1
    cat >"$root/lib/systemd/system/kubelet.service" <<'UNIT'
[Unit]
Description=kubelet: The Kubernetes Node Agent
Documentation=https://kubernetes.io/docs/home/
Wants=network-online.target
After=network-online.target

[Service]
ExecStart=/usr/bin/kubelet
Restart=always
StartLimitInterval=0
RestartSec=10

[Install]
WantedBy=multi-user.target
UNIT
    mkdir -p "$root/$KUBELET_DROP_INS"
    cat >"$root/$KUBELET_DROP_INS/10-kubeadm.conf" <<'UNIT'
[Service]
Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf"
Environment="KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml"
# Written by "kubeadm init" and "kubeadm join".
EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env
# For the user's own flags; they win, because they come last.
EnvironmentFile=-/etc/default/kubelet
ExecStart=
ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS
UNIT
    echo 'KUBELET_EXTRA_ARGS=' >"$root/etc/default/kubelet"
    ln -sf /lib/systemd/system/kubelet.service \
        "$root/etc/systemd/system/multi-user.target.wants/kubelet.service"
}

# What the Kubernetes documentation told users of Docker to write.
write_docker_config() {
    mkdir -p "$1/etc/docker"
    cat >"$1/etc/docker/daemon.json" <<'JSON'
{
  "exec-opts": ["native.cgroupdriver=systemd"],
  "log-driver": "json-file",
  "log-opts": {"max-size": "100m"},
  "storage-driver": "overlay2"
}
JSON
}

# By its package, as a user of Debian does.
install_cri_dockerd() {
    local root=$1
    cp "$(package cri-dockerd)" "$root/cri-dockerd.deb"
    chroot "$root" dpkg -i /cri-dockerd.deb
    rm "$root/cri-dockerd.deb"
}

# What containerd's own guide leads to: its archive unpacked in /usr/local, its
# unit, and its default configuration with the systemd cgroup driver and the
# sandbox image that kubeadm names. It hides Debian's containerd, whose package
# stays with that of Docker, which is switched off.
install_containerd() {
    local root=$1 pause
    chroot "$root" systemctl --quiet disable docker.service docker.socket
    tar -xzf "$(archive containerd)" -C "$root/usr/local"
    mkdir -p "$root/usr/local/lib/systemd/system" "$root/etc/containerd"
    cat >"$root/usr/local/lib/systemd/system/containerd.service" <<'UNIT'
[Unit]
Description=containerd container runtime
Documentation=https://containerd.io
After=network.target dbus.service

[Service]
ExecStartPre=-/sbin/modprobe overlay
ExecStart=/usr/local/bin/containerd
Type=notify
Delegate=yes
KillMode=process
Restart=always
RestartSec=5
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-999

[Install]
WantedBy=multi-user.target
UNIT
    chroot "$root" systemctl --quiet enable containerd.service
    pause=$(cluster_images | grep /pause:)
    chroot "$root" /usr/local/bin/containerd config default |
        sed -e 's/SystemdCgroup = false/SystemdCgroup = true/' \
            -e "s|sandbox = '.*'|sandbox = '$pause'|" >"$root/etc/containerd/config.toml"
    [[ $(grep -cE "SystemdCgroup = true|sandbox = '$pause'" "$root/etc/containerd/config.toml") == 2 ]] ||
        die "containerd's default configuration is not as the lab knows it"
}

write_cni_config() {
    mkdir -p "$2/etc/cni/net.d"
    cat >"$2/etc/cni/net.d/10-lab.conflist" <<JSON
{
  "cniVersion": "0.3.1",
  "name": "lab",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "hairpinMode": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "$(pod_range_of "$1")"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
JSON
}
