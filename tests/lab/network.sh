# shellcheck shell=bash
# The network of the cluster: a bridge in a network namespace of its own, one
# namespace per node, a route per node's pod range. This host's addresses,
# routes and packet filter stay as they are.
#
# The namespaces are files under $STATE/net, and not `ip netns` names, because
# `ip netns` leaves a mount on /run/netns behind.

BRIDGE=lab0

netns() { echo "$STATE/net/$1"; }
in_netns() { local file; file=$(netns "$1"); shift; nsenter --net="$file" "$@"; }

# A node's number is its place in the cluster, from 1.
number_of() {
    local number
    for number in "${!NODES[@]}"; do
        [[ ${NODES[number]} == "$1" ]] && echo $((number + 1)) && return
    done
    die "no node $1; the nodes are: ${NODES[*]}"
}
address_of() { echo "$NODE_NETWORK.$((10 + $(number_of "$1")))"; }
pod_range_of() { echo "$POD_NETWORK.$(number_of "$1").0/24"; }

make_netns() {
    local file
    file=$(netns "$1")
    mkdir -p "$STATE/net"
    touch "$file"
    unshare --net="$file" true
    in_netns "$1" ip link set lo up
}

drop_netns() {
    local file
    file=$(netns "$1")
    [[ -e $file ]] || return 0
    # Links go with their namespace, but only once the last process has left.
    umount "$file" 2>/dev/null || true
    rm -f "$file"
}

make_bridge() {
    mountpoint -q "$(netns lab)" 2>/dev/null && return 0
    drop_netns lab
    make_netns lab
    in_netns lab ip link add "$BRIDGE" type bridge
    in_netns lab ip address add "$NODE_NETWORK.1/24" dev "$BRIDGE"
    in_netns lab ip link set "$BRIDGE" up
}

# A node gets a new namespace at each boot: a real one forgets its addresses,
# routes and packet filter when its power goes, too.
make_node_network() {
    local node=$1 other
    drop_netns "$node"
    in_netns lab ip link delete "$node" 2>/dev/null || true
    make_netns "$node"
    in_netns lab ip link add "$node" type veth peer name eth0 netns "$(netns "$node")"
    in_netns lab ip link set "$node" master "$BRIDGE" up
    in_netns "$node" ip address add "$(address_of "$node")/24" dev eth0
    in_netns "$node" ip link set eth0 up
    in_netns "$node" ip route add default via "$NODE_NETWORK.1"
    for other in "${NODES[@]}"; do
        [[ $other == "$node" ]] ||
            in_netns "$node" ip route add "$(pod_range_of "$other")" via "$(address_of "$other")"
    done
    # Both switches belong to the network namespace.
    in_netns "$node" sh -c '
        echo 1 >/proc/sys/net/ipv4/ip_forward
        if [ -d /proc/sys/net/bridge ]; then
            echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables
        fi'
}
