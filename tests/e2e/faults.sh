# shellcheck shell=bash
# Faults that the scenarios inject, and what a node must look like after it went back.

# The text of everything that a switch may touch on a node, and the states of its units: equal before and after. Docker
# makes its key at its first start, and a boot forgets that a unit failed.
fingerprint() {
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" sh -c '
        find /etc /var/lib/kubelet -maxdepth 3 -type f \( -path "/etc/*" -o -name "*.env" -o -name "*.yaml" \) \
            ! -path "/etc/mtab" ! -path "/etc/resolv.conf" ! -path "/etc/docker/key.json" -exec sha256sum {} + | sort -k 2
        find /etc/systemd/system -type l -printf "%p -> %l\n" | sort
        for unit in kubelet containerd docker.service docker.socket cri-docker.service cri-docker.socket \
            cri-dockerd.service cri-dockerd.socket crio.service transship-executor; do
            systemctl show "$unit" -p Id -p LoadState -p ActiveState -p UnitFileState
        done | sed s/^ActiveState=failed/ActiveState=inactive/'
}

# as_before NODE FINGERPRINT [RUNTIME]: Ready on it again (docker unless another is named), and byte for byte as the
# fingerprint in the file.
as_before() {
    local node=$1 before=$2 runtime=${3:-docker}
    wait_until 180 "$node to be Ready on $runtime again" on_runtime "$node" "$runtime"
    wait_until 60 "the executor of $node to end" executor_ended "$node"
    fingerprint "$node" | diff "$before" - || fail "$node is not as it was (< before, > after)"
    [[ $runtime == containerd || -z $(lab exec "$node" ctr -n k8s.io containers ls -q 2>/dev/null) ]] || fail "$node has pods in containerd too"
    [[ $runtime == cri-o ]] || ! lab exec "$node" pgrep -a conmon || fail "$node has containers of CRI-O too"
}
executor_ended() { ! lab exec "$1" systemctl is-active --quiet transship-executor; }

# containerd that starts with the configuration that it has, and with no other that enables systemd cgroups:
# what a node with a damaged installation looks like to a migration.
break_containerd() {
    lab exec "$1" sh -c '
        mkdir -p /etc/systemd/system/containerd.service.d
        printf "[Service]\nExecStartPre=/bin/sh -c \"! grep -q SystemdCgroup /etc/containerd/config.toml\"\n" \
            >/etc/systemd/system/containerd.service.d/10-fault.conf
        systemctl daemon-reload'
}

mend_containerd() { lab exec "$1" sh -c 'rm /etc/systemd/system/containerd.service.d/10-fault.conf && systemctl daemon-reload'; }

# In the critical section, so after the last image check: the image of the agent disappears from containerd.
lose_agent_image() {
    lab exec "$1" systemd-run --quiet --collect --unit=fault-lose-image sh -c "
        until [ -e /var/lib/transship/hold ]; do sleep 0.05; done
        ctr -n k8s.io images rm --sync $IMAGE:$VERSION"
}

# A CNI plugin whose DEL fails while the API server does not answer.
# The plugin stands last in the chain, so that it is the first one to be asked at DEL.
asks_api() { # NODE
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" sh -c '
        cat >/opt/cni/bin/asks-api <<"SH"
#!/bin/sh
input=$(cat)
case $CNI_COMMAND in
    VERSION) echo "{\"cniVersion\":\"0.3.1\",\"supportedVersions\":[\"0.3.0\",\"0.3.1\",\"0.4.0\"]}" ;;
    ADD) printf "%s" "$input" | jq -c .prevResult ;;
    DEL)
        url=$(sed -n "s/^ *server: //p" /etc/kubernetes/kubelet.conf)
        curl -ksS -m 3 -o /dev/null "$url/healthz" || { echo "{\"cniVersion\":\"0.3.1\",\"code\":11,\"msg\":\"the API server does not answer\"}"; exit 1; }
        ;;
esac
SH
        chmod 755 /opt/cni/bin/asks-api
        for file in /etc/cni/net.d/*.conflist; do
            jq ".plugins += [{type: \"asks-api\"}]" "$file" >/tmp/conflist && cat /tmp/conflist >"$file"
        done'
}
# The rule of iptables that keeps a node from its API server.
rule_without_api() { # NODE
    local api
    api=$(lab exec "$1" sed -n 's|^ *server: https://\([^:/]*\).*|\1|p' /etc/kubernetes/kubelet.conf)
    echo "OUTPUT -p tcp -d $api --dport 6443 -j REJECT"
}
