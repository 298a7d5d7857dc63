# shellcheck shell=bash
# The cluster on the nodes: made by kubeadm, as its users make theirs.

# Nodes whose part in the cluster is complete; the others are made anew.
is_complete() { [[ -f $(home_of "$1")/complete ]]; }

cluster_up() {
    local node since joining=() returning=()
    mkdir -p "$STATE/nodes"
    if ! is_complete "$CONTROL_PLANE"; then
        # What the workers have is of no use with another control plane.
        for node in "${NODES[@]}"; do forget_node "$node"; done
    fi
    for node in "${NODES[@]}"; do
        if is_complete "$node"; then
            is_running "$node" || returning+=("$node")
            continue
        fi
        [[ $node == "$CONTROL_PLANE" ]] || joining+=("$node")
        forget_node "$node"
        say "making the root of $node"
        make_root "$node"
    done
    since=$(now)
    # One boot is waiting most of the time: all at once.
    make_bridge
    for node in "${NODES[@]}"; do boot "$node" & done
    wait
    for node in "${NODES[@]}"; do is_running "$node" || die "$node did not boot"; done

    if ! is_complete "$CONTROL_PLANE"; then
        load_cluster_images "$CONTROL_PLANE" kube-apiserver kube-controller-manager \
            kube-scheduler etcd kube-proxy pause server
        init_control_plane
    fi
    if ((${#joining[@]})); then join_workers "${joining[@]}"; fi
    for node in "${returning[@]}"; do
        wait_for 120 "$node to be Ready" ready_since "$node" "$since"
    done
    wait_for 180 "all nodes to be Ready" all_ready
}

forget_node() {
    local home
    home=$(home_of "$1")
    power_cut "$1"
    make_mutable "$home/root"
    rm -rf "$home"
}

# load_cluster_images NODE NAME…
load_cluster_images() {
    local node=$1 name
    shift
    say "loading images into $node"
    for name; do
        load_image "$(part "$(images_part)")/$name.tar" "$node" >/dev/null 2>"$(home_of "$node")/load.log" || {
            cat "$(home_of "$node")/load.log" >&2
            die "$node could not load $name"
        }
    done
}

init_control_plane() {
    say "kubeadm init on $CONTROL_PLANE"
    local log
    log=$(home_of "$CONTROL_PLANE")/kubeadm.log
    kubeadm_config | node_exec "$CONTROL_PLANE" sh -c 'cat >/root/kubeadm.yaml'
    # CoreDNS is left out: nothing in the lab resolves names.
    node_exec "$CONTROL_PLANE" timeout 300 kubeadm init --config /root/kubeadm.yaml \
        --ignore-preflight-errors=all --skip-phases=addon/coredns >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        node_exec "$CONTROL_PLANE" journalctl -u kubelet -n 20 --no-pager >&2
        die "kubeadm init failed"
    }
    touch "$(home_of "$CONTROL_PLANE")/complete"
}

kubeadm_config() {
    cat <<YAML
apiVersion: kubeadm.k8s.io/$KUBEADM_API
kind: InitConfiguration
localAPIEndpoint:
  advertiseAddress: $(address_of "$CONTROL_PLANE")
nodeRegistration:
  name: $CONTROL_PLANE
$(registration "$CONTROL_PLANE")
---
apiVersion: kubeadm.k8s.io/$KUBEADM_API
kind: ClusterConfiguration
clusterName: lab
kubernetesVersion: v$KUBERNETES
networking:
  podSubnet: $POD_NETWORK.0.0/16
  serviceSubnet: $SERVICE_RANGE
---
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
$(kubelet_settings)
# The nodes share the host's disk: how full that is must not evict their pods.
evictionHard:
  nodefs.available: 0%
  nodefs.inodesFree: 0%
  imagefs.available: 0%
imageGCHighThresholdPercent: 100
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
conntrack:
  maxPerCore: 0
YAML
}

registration() {
    local endpoint
    endpoint=$(endpoint_of "$1")
    [[ -z $endpoint ]] || echo "  criSocket: $endpoint"
    # Without workers the control plane takes pods.
    ((${#WORKERS[@]})) || echo '  taints: []'
}

# Kubelets that know the setting refuse cgroup v1 without it.
kubelet_settings() {
    [[ $KUBEADM_API == v1beta3 ]] || echo 'failCgroupV1: false'
}

join_workers() {
    local node join pids=() failed=0
    join=$(node_exec "$CONTROL_PLANE" kubeadm token create --print-join-command 2>/dev/null)
    for node; do
        kubectl delete node "$node" --ignore-not-found >/dev/null
        join_worker "$node" "$join" &
        pids+=($!)
    done
    for node in "${pids[@]}"; do wait "$node" || failed=1; done
    ((failed == 0)) || die "not all workers could join"
}

join_worker() {
    local node=$1 log endpoint
    log=$(home_of "$node")/kubeadm.log
    endpoint=$(endpoint_of "$node")
    load_cluster_images "$node" kube-proxy pause server
    say "kubeadm join on $node"
    # shellcheck disable=SC2086 # the command comes as one line of words
    node_exec "$node" timeout 300 $2 ${endpoint:+--cri-socket "$endpoint"} \
        --ignore-preflight-errors=all >"$log" 2>&1 || {
        tail -n 40 "$log" >&2
        node_exec "$node" journalctl -u kubelet -n 20 --no-pager >&2
        die "kubeadm join failed on $node"
    }
    touch "$(home_of "$node")/complete"
}

# --- The API from this host -------------------------------------------------

kubeconfig() { echo "$(root_of "$CONTROL_PLANE")/etc/kubernetes/admin.conf"; }

# Runs a command of this host inside the lab's network.
run_inside() {
    PATH=$(part "kubernetes-$KUBERNETES"):$(part "helm-$HELM"):$(part prometheus-bookworm):$(part registry-bookworm):$PATH \
        KUBECONFIG=$(kubeconfig) in_netns lab "$@"
}
kubectl() { run_inside kubectl "$@"; }

all_ready() {
    local node listed
    listed=$(kubectl --request-timeout=5s get nodes) || { echo "$listed"; return 1; }
    for node in "${NODES[@]}"; do
        grep -qE "^$node +Ready" <<<"$listed" || { echo "$listed"; return 1; }
    done
}

# The API says Ready for 40 seconds after a node has died, so only what the
# kubelet has told since the boot counts.
now() { date -u +%FT%TZ; }
boot_until_ready() {
    local since
    since=$(now)
    boot "$1"
    wait_for 120 "$1 to be Ready" ready_since "$1" "$since"
}
ready_since() {
    kubectl --request-timeout=5s get node "$1" -o json | jq -er --arg since "$2" '
        .status.conditions[] | select(.type == "Ready")
        | if .status == "True" and .lastHeartbeatTime >= $since then "Ready"
          else "Ready is \(.status), told at \(.lastHeartbeatTime)" | halt_error end'
}

status() {
    local node pid
    for node in "${NODES[@]}"; do
        if pid=$(pid_of "$node"); then
            printf '%-5s %-15s running, systemd is process %s\n' "$node" "$(address_of "$node")" "$pid"
        else
            printf '%-5s %-15s off\n' "$node" "$(address_of "$node")"
        fi
    done
    is_running "$CONTROL_PLANE" || return 0
    kubectl --request-timeout=5s get nodes -o wide
}
