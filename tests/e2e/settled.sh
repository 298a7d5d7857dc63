# shellcheck shell=bash
# What a node must look like when a migration has ended on it, whichever way: nothing of the other runtime is left.

# unsettled NODE SIDE: prints what is not as it must be on a node whose pods are all under SIDE (docker, containerd, cri-o).
unsettled() {
    local node=$1 side=$2 pods addresses count
    pods=$(k --request-timeout=5s get pods -A --field-selector "spec.nodeName=$node" -o json) || { echo "the API server does not answer"; return; }
    jq -r '.items[] | select(.status.phase != "Succeeded")
        | select([.status.conditions[]? | select(.type == "Ready" and .status == "True")] == [])
        | "pod \(.metadata.namespace)/\(.metadata.name) is not Ready (\(.status.phase))"' <<<"$pods"
    addresses=$(jq -r '[.items[] | select(.spec.hostNetwork != true and .status.phase == "Running") | .status.podIP // empty] | join(" ")' <<<"$pods")
    count=$(jq '[.items[] | select(.status.phase == "Running")] | length' <<<"$pods")
    [[ $(runtime_of "$node") == "$side"://* ]] || echo "the Node says $(runtime_of "$node")"
    ready "$node" || echo "the Node is not Ready"
    schedulable "$node" || echo "the Node is cordoned"
    k get node "$node" -o json | jq -r '
        # What kubeadm kept stays for as long as it may be needed again.
        (.metadata.annotations // {} | keys[] | select(startswith("transship.dev/") and . != "transship.dev/previous-cri-socket") | "annotation \(.)"),
        (.metadata.labels | keys[] | select(contains("transship.dev/")) | "label \(.)"),
        (.spec.taints[]? | select(.key != "node-role.kubernetes.io/control-plane" and .key != "node-role.kubernetes.io/master") | "taint \(.key)")'
    lab exec "$node" bash -s -- "$side" "$count" "$addresses" <<'SH'
side=$1 count=$2 addresses=" $3 "
case $side in
    docker) others='containerd-shim.*-namespace k8s\.io|/conmon -' ;;
    containerd) others='containerd-shim.*-namespace moby|/conmon -' ;;
    cri-o) others='containerd-shim' ;;
esac
known() { [[ $addresses == *" $1 "* ]]; }
for process in /proc/[0-9]*; do
    command=$(tr '\0' ' ' 2>/dev/null <"$process/cmdline") || continue
    [[ ! $command =~ $others ]] || echo "a shim of another runtime runs: $command"
done
# A sandbox of CRI-O has no process, but shared memory for as long as it lives.
if [[ $side == cri-o ]]; then
    sandboxes=$(grep -c '/overlay-containers/[^/]*/userdata/shm ' /proc/1/mounts)
else
    sandboxes=$(pgrep -xc pause)
fi
[[ $sandboxes == "$count" ]] || echo "$sandboxes sandboxes run for $count pods"
if [[ $side != containerd ]]; then
    systemctl is-active --quiet containerd && ctr -n k8s.io containers ls -q 2>/dev/null | sed 's/^/container in containerd: /'
fi
if [[ $side != cri-o ]]; then
    ! systemctl is-active --quiet crio.service || echo "crio.service runs"
    ! nft list tables 2>/dev/null | grep crio || echo "a table of CRI-O is left"
    ls -d /var/lib/containers/storage/overlay-containers/*/ 2>/dev/null | sed 's/^/container in CRI-O: /'
    grep -oP '^\S+ \K\S*/run/(containers|ipcns|utsns)/\S*' /proc/1/mounts | sed 's/^/mount of CRI-O: /'
fi
if [[ $side != docker ]]; then
    ! systemctl is-active --quiet docker.service || echo "docker.service runs"
    # Docker that is killed while it removes a container leaves its file and no layer. It never loads it again ("mount does
    # not exist"), and nobody can remove it through Docker.
    for config in $(grep -l io.kubernetes.pod.name /var/lib/docker/containers/*/config.v2.json 2>/dev/null); do
        id=$(basename "$(dirname "$config")")
        ! ls -d /var/lib/docker/image/*/layerdb/mounts/"$id" >/dev/null 2>&1 || echo "container in Docker: $id"
    done
fi
for lease in /var/lib/cni/networks/*/*.*.*.*; do
    [[ ! -e $lease ]] || known "${lease##*/}" || echo "lease of no pod: $lease"
done
rules=$(iptables-save -t nat 2>/dev/null)
while read -r address; do
    known "$address" || echo "rules for an address of no pod: $address"
done < <(grep -oP '^-A POSTROUTING -s \K[\d.]+(?=/32 .*-j CNI-)|^-A CNI-DN-.*--to-destination \K[\d.]+' <<<"$rules" | sort -u)
while read -r chain; do
    grep -q -- "-j $chain\$" <<<"$rules" || echo "chain that nothing leads to: $chain"
done < <(grep -oP '^:\KCNI-(DN-)?[0-9a-f]+' <<<"$rules")
systemctl list-unit-files --state=masked-runtime --no-legend --plain | sed 's/^/masked until the next boot: /'
for left in /var/lib/transship/hold /etc/systemd/system/transship-executor.service /var/lib/transship/cni/* \
    /etc/crio/crio.conf.d/zzz-transship-until-switch.conf; do
    [[ ! -e $left ]] || echo "left: $left"
done
systemctl is-active --quiet transship-executor && echo "the executor runs"
true
SH
}

# settles NODE SIDE SECONDS: waits until nothing is unsettled; prints what still is when the time is over.
settles() {
    local deadline=$((SECONDS + $3)) found
    while found=$(unsettled "$1" "$2" 2>&1) && [[ -n $found ]]; do
        ((SECONDS < deadline)) || { echo "$found"; return 1; }
        sleep 2
    done
}
