# shellcheck shell=bash
# What the end-to-end scenarios have in common: the lab, Transship in it, waiting, counting failed requests.

set -euo pipefail
ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
BINARY=${TRANSSHIP_BINARY:-${CARGO_TARGET_DIR:-$ROOT/target}/$(uname -m)-unknown-linux-gnu/release/transship}
SYSTEM=transship-system
IMAGE=transship.dev/transship
VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)

# Scenarios that run at the same time have labs of their own (tests/e2e.rs).
[[ -z ${TRANSSHIP_LANE:-} ]] || export TRANSSHIP_LAB=/var/lib/transship-lab-${TRANSSHIP_CLUSTER:-k123}$TRANSSHIP_LANE

lab() { "$ROOT/tests/lab/lab" "$@"; }
k() { lab kubectl "$@"; }
step() { printf '\n\033[1m--- %s\033[0m\n' "$*"; }
say() { printf '%4ds  %s\n' "$SECONDS" "$*"; }
# The causes of all failures of a run are printed at its end (tests/e2e.rs).
cause() { [[ -z ${TRANSSHIP_CAUSES:-} ]] || printf '%s: %s\n' "$(basename "$0")" "$*" >>"$TRANSSHIP_CAUSES"; }
set -E
trap 'cause "line $LINENO: exit status $? of $BASH_COMMAND"' ERR
# The cause is printed last too: after what a person would look at first it is out of sight.
fail() {
    cause "$*"
    printf 'FAILED: %s\n' "$*" >&2
    diagnose >&2 || true
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# What a person would look at first.
diagnose() {
    k get nodes -o wide
    k get runtimemigrations,nodemigrations -o wide
    k get nodemigrations -o jsonpath='{range .items[*]}{.metadata.name}: {.status.phase}: {.status.message} {.status.lastError}{"\n"}{end}'
    k -n "$SYSTEM" get pods -o wide
    k -n "$SYSTEM" logs -l app.kubernetes.io/component=controller --tail=15
    pods_not_ready
    local node
    for node in $(k get nodes -o jsonpath='{.items[*].metadata.name}'); do
        echo "journal of $node:"
        lab exec "$node" sh -c 'journalctl -u "transship-*" -o cat --no-pager -n 25; systemctl is-active docker containerd crio kubelet; journalctl -u kubelet -o cat --no-pager -n 5 -p 3'
    done
}

# Why pods are not Ready: what they say of themselves, what their containers wait for, and what was last told of them.
pods_not_ready() {
    local namespace pod
    k get pods -A -o json | jq -r '.items[] | select(.status.phase != "Succeeded")
        | select([.status.conditions[]? | select(.type == "Ready" and .status == "True")] == [])
        | "\(.metadata.namespace) \(.metadata.name)"' |
        while read -r namespace pod; do
            k -n "$namespace" get pod "$pod" -o json </dev/null | jq -r '"pod \(.metadata.namespace)/\(.metadata.name) on \(.spec.nodeName) is \(.status.phase) \(.status.reason // "")",
                (.status.conditions[]? | select(.status != "True") | "  \(.type) is \(.status) since \(.lastTransitionTime): \(.reason // "") \(.message // "")"),
                (.status | .initContainerStatuses[]?, .containerStatuses[]? | select(.ready | not)
                    | "  \(.name), started \(.restartCount + 1) times: \(.state) before: \(.lastState)")' || true
            k -n "$namespace" get events --field-selector "involvedObject.name=$pod" --sort-by=.lastTimestamp --no-headers </dev/null | tail -n 6 | sed 's/^/  /'
        done
}

# wait_until SECONDS WHAT COMMAND…: tries the command until it succeeds.
wait_until() {
    local seconds=$1 what=$2 deadline=$((SECONDS + $1))
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || { "$@" || fail "waited ${seconds}s for $what"; return; }
        sleep 1
    done
}

runtime_of() { k get node "$1" -o jsonpath='{.status.nodeInfo.containerRuntimeVersion}'; }
ready() { [[ $(k get node "$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]]; }
schedulable() { [[ -z $(k get node "$1" -o jsonpath='{.spec.unschedulable}') ]]; }
phase_of() { k get nodemigration "$1" -o jsonpath='{.status.phase}'; }

address_of() { k get node "$1" -o jsonpath='{.status.addresses[?(@.type=="InternalIP")].address}'; }

# make_pod NODE NAME IMAGE [FIELDS]: a pod of one container, with these fields and the label `app` that its name begins with.
make_pod() {
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $2, namespace: lab, labels: {app: ${2%%-*}}}
spec:
  nodeName: $1
  containers: [{name: server, image: "$3"${4:+, $4}}]
YAML
}

# The image is a directory with one static binary; there is no registry, so it is loaded into Docker of every node.
load_transship() {
    local work
    work=$(mktemp -d)
    install -D -m 0755 "$BINARY" "$work/root/usr/local/bin/transship"
    lab make-image "$work/transship.tar" "$IMAGE:$VERSION" "$work/root" /usr/local/bin/transship
    lab load-image "$work/transship.tar"
    rm -rf "$work"
}

# install_transship [HELM ARGUMENTS…]
# shellcheck disable=SC2120
install_transship() {
    lab run helm upgrade --install transship "$ROOT/charts/transship" --namespace "$SYSTEM" --create-namespace \
        --set image.repository="$IMAGE" --set image.tag="$VERSION" --set image.pullPolicy=IfNotPresent "$@" \
        --wait --timeout 3m
}

# The chart refuses to go while a node is switching; the CRDs stay by their policy and are removed here.
remove_transship() {
    if k get crd runtimemigrations.transship.dev >/dev/null 2>&1; then
        k delete --cascade=foreground runtimemigrations --all --timeout=180s
        # Those of a migration that was deleted before, too.
        k delete nodemigrations --all --timeout=300s
    fi
    [[ -z $(lab run helm list --namespace "$SYSTEM" --all --short) ]] ||
        lab run helm uninstall transship --namespace "$SYSTEM" --wait --timeout 2m ||
        { k -n "$SYSTEM" logs job/transship-uninstall-guard; fail "Transship could not be uninstalled; the log of its guard is above"; }
    k delete crd runtimemigrations.transship.dev nodemigrations.transship.dev --ignore-not-found --timeout=60s
}

# A cluster that serves, both workers on Docker, without Transship: what every scenario begins with. Workers get the
# disk back that they had before the first scenario, and their Nodes what the API remembers of them.
clean_cluster() {
    lab up
    # Pods of an earlier scenario that nothing would start again: a drain would stop at them.
    ! k get namespace lab >/dev/null 2>&1 || k -n lab get pods -o json |
        jq -r '.items[] | select(.metadata.ownerReferences == null) | .metadata.name' |
        while read -r pod; do k -n lab delete pod "$pod" --grace-period=0 --force --ignore-not-found </dev/null >/dev/null 2>&1; done
    remove_transship
    local node
    for node in w1 w2; do
        ! has_snapshot "$node" || lab restore "$node" clean
        k uncordon "$node" >/dev/null
        k annotate node "$node" --overwrite kubeadm.alpha.kubernetes.io/cri-socket=/var/run/dockershim.sock >/dev/null
    done
    lab workload
    for node in w1 w2; do
        has_snapshot "$node" || lab snapshot "$node" clean
    done
    lab workload
}
has_snapshot() { lab snapshots "$1" | grep -qx clean; }

# follow MIGRATION COUNT: prints what the nodes tell, until the migration says that it succeeded with COUNT of them.
follow() {
    local migration=$1 count=$2 begun=$SECONDS phase node now
    local -A told=()
    while true; do
        while read -r node now; do
            [[ -z $node || ${told[$node]:-} == "$now" ]] || { say "$node  ${now:0:150}"; told[$node]=$now; }
        done < <(k get nodemigrations --no-headers -o custom-columns=N:.metadata.name,P:.status.phase,M:.status.message 2>/dev/null)
        # A status that speaks of an older spec says nothing. The API server may be away for moments.
        phase=$(k --request-timeout=5s get runtimemigration "$migration" -o json 2>/dev/null |
            jq -r 'if .status.observedGeneration == .metadata.generation then .status.phase else "" end') || phase=''
        case $phase in
            Running | Planning | Pending | '') ;;
            Succeeded) (($(k get nodemigrations -o json | jq --arg name "$migration" \
                '[.items[] | select(.spec.migration.name == $name and .status.phase == "Succeeded")] | length') == count)) && break ;;
            *) fail "the migration is $phase: $(k get runtimemigration "$migration" -o jsonpath='{.status.message}')" ;;
        esac
        ((SECONDS - begun < 600)) || fail "the migration did not end within 10 minutes"
        sleep 2
    done
    say "$migration took $((SECONDS - begun)) s"
    k get nodes -o wide
    k get runtimemigrations,nodemigrations
    k get nodemigrations -o jsonpath='{range .items[*]}{.metadata.name}: kubelet down {.status.kubeletDowntimeMillis} ms, {.status.imageBytes} bytes of images carried{"\n"}{end}'
}

# arrived NODE RUNTIME: it runs on RUNTIME (the scheme of the Node's runtime version), serves, and Transship leaves it:
# the label goes after the migration has said that it succeeded.
arrived() {
    [[ $(runtime_of "$1") == "$2"://* ]] || fail "$1 is on $(runtime_of "$1")"
    ready "$1" || fail "$1 is not Ready"
    schedulable "$1" || fail "$1 is still cordoned"
    wait_until 30 "the agent's label to go from $1" agent_left "$1"
}
agent_left() { [[ -z $(k get node "$1" -o jsonpath='{.metadata.labels.transship\.node-restriction\.kubernetes\.io/agent}') ]]; }
# ended NODE UNIT…: no such unit runs any more on the node.
ended() {
    local unit
    for unit in "${@:2}"; do
        ! lab exec "$1" systemctl is-active --quiet "$unit" || fail "$unit still runs on $1"
    done
}
# pods_ready NODE: all pods of the node are Ready.
pods_ready() {
    [[ -z $(k get pods -A --field-selector "spec.nodeName=$1" -o json |
        jq -r '.items[] | select([.status.conditions[]? | select(.type == "Ready" and .status == "True")] == []) | .metadata.name') ]]
}
# await_pods NODE [WHAT]: until all its pods are Ready. A kubelet that could not reach the API server tries to mount a token again
# after up to two minutes, and on a node that reaches it through a pod of its own that is so after each boot.
await_pods() { wait_until 300 "${2:-the pods of $1 to be Ready}" pods_ready "$1"; }
# drained NODE: its pods were moved before the switch, and not restarted with it.
drained() {
    local mode
    mode=$(k get nodemigration "$1" -o jsonpath='{.spec.drain.mode}')
    [[ $mode == Evict ]] || fail "$1 was not drained, but switched with its pods: drain.mode is $mode"
}
annotation_of() { k get node "$1" -o jsonpath='{.metadata.annotations.kubeadm\.alpha\.kubernetes\.io/cri-socket}'; }

# Each program of the control plane runs once on the node; twice is what a switch that forgets the old ones leaves.
control_plane_runs_once() {
    local program count
    for program in etcd kube-apiserver kube-controller-manager kube-scheduler; do
        count=$(lab exec "$1" pgrep -fc "^$program " || true)
        [[ $count == 1 ]] || { echo "$count times $program on $1"; return 1; }
    done
}

# Two clients on a node that is not migrated (cp1 unless another is named) ask a Service of the workload twenty times a
# second each: web, whose server exits at once when it is told to, and graceful, which is asked as long as it can be.
begin_counting() {
    counter=${1:-cp1}
    local service asked=()
    for service in web graceful; do
        asked+=("$service=http://$(k -n lab get service "$service" -o jsonpath='{.spec.clusterIP}')")
    done
    ask client "$counter" 8081 50 1s "${asked[@]}"
    wait_until 60 "the clients to count" counted
}
# ask POD NODE PORT MILLISECONDS TIMEOUT NAME=URL…: clients on the node ask so often; each counts on a port of its own, from
# PORT on.
ask() {
    k -n lab delete pod "$1" --ignore-not-found --grace-period=0 --force >/dev/null 2>&1 || true
    local one clients='' port=$3
    for one in "${@:6}"; do
        clients+="
    - name: ${one%%=*}
      image: transship.dev/lab/server:1
      env: [{name: ADDRESS, value: ':$((port++))'}, {name: TIMEOUT, value: $5}]
      args: [client, '${one#*=}', '$4']"
    done
    k apply -f - >/dev/null <<YAML
apiVersion: v1
kind: Pod
metadata: {name: $1, namespace: lab}
spec:
  nodeName: $2
  hostNetwork: true
  tolerations: [{operator: Exists}]
  containers:$clients
YAML
}
counted() {
    echo "web $(lab exec "$counter" curl -fsS -m 2 http://127.0.0.1:8081), graceful $(lab exec "$counter" curl -fsS -m 2 http://127.0.0.1:8082)"
}
# lost SERVICE COUNTS: how many requests the service did not answer.
lost() { grep -oP "$1 ok=\d+ failed=\K\d+" <<<"$2"; }

# put_archive RUNTIME NODE: the archive that the lab made of its parts, on the node; sets $archive and $sha256.
# shellcheck disable=SC2034 # the scenarios use them
put_archive() {
    local file
    file=$(lab archive "$1")
    archive=/opt/$(basename "$file")
    sha256=$(sha256sum "$file" | cut -d' ' -f1)
    lab exec "$2" sh -c "cat >$archive" <"$file"
}
# put_binary NODE: Transship for a shell on the node.
put_binary() { lab exec "$1" sh -c 'cat >/usr/local/bin/transship && chmod 0755 /usr/local/bin/transship' <"$BINARY"; }
# on_runtime NODE RUNTIME: Ready on it (the scheme of the Node's runtime version).
on_runtime() { ready "$1" && [[ $(runtime_of "$1") == "$2"://* ]]; }
# endpoint_is NODE ENDPOINT: of the running kubelet, by its command line.
endpoint_is() {
    local flags
    # shellcheck disable=SC2016
    flags=$(lab exec "$1" sh -c 'tr "\0" "\n" <"/proc/$(pidof kubelet)/cmdline"')
    grep -qx -- "--container-runtime-endpoint=$2" <<<"$flags" || fail "the kubelet of $1 uses another endpoint than $2: $flags"
}
