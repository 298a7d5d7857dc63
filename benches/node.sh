# shellcheck shell=bash disable=SC2153 # the benchmark sets $PODS
# What the benchmarks on a node have in common: as many pods as wanted on it, and rows of two numbers.

NODE=w1
RUNS=${RUNS:-5}

# pods_on_node COUNT: so many of the $PODS ignore SIGTERM; a third of those are a DaemonSet's, which a drain leaves.
# The pods of the workload count, too. They may still be on their way from or to the node: the rest makes up for them.
pods_on_node() {
    local deaf=$1 daemons=$(($1 / 3))
    remove_bench_pods
    wait_until 90 "the pods of an earlier run to end" no_bench_pods
    bench_pods Deployment bench 0 "$SERVER"
    for ((i = 0; i < daemons; i++)); do bench_pods DaemonSet "deaf-$i" "" "$SLEEP"; done
    bench_pods Deployment deaf $((deaf - daemons)) "$SLEEP"
    wait_until 300 "$PODS pods to be Ready" all_pods_ready "$deaf"
}
remove_bench_pods() { k -n lab delete deployment,daemonset -l bench=yes --ignore-not-found --wait >/dev/null; }
no_bench_pods() { [[ -z $(k -n lab get pods -l bench=yes --no-headers) ]]; }
# all_pods_ready DEAF: $PODS on the node, all Ready and none ending, twice in a row; gives the Deployment its number.
all_pods_ready() {
    local pods others
    for _ in 1 2; do
        pods=$(k get pods -A --field-selector "spec.nodeName=$NODE" -o json)
        others=$(jq '[.items[] | select(.metadata.labels.bench != "yes" and .metadata.deletionTimestamp == null)] | length' <<<"$pods")
        k -n lab scale deployment bench --replicas=$((PODS - others - $1)) >/dev/null
        jq -e --argjson wanted "$PODS" '
            ([.items[] | select(.metadata.deletionTimestamp)] == []) and
            ([.items[] | select(.status.conditions[]? | .type == "Ready" and .status == "True")] | length == $wanted) and
            (.items | length == $wanted)' <<<"$pods" >/dev/null || return 1
        sleep 1
    done
}
SERVER='{"containers": [{"name": "server", "image": "transship.dev/lab/server:1", "imagePullPolicy": "Never"}]}'
# The node's own `sleep`, which has no handler for any signal.
SLEEP='{"containers": [{"name": "sleep", "image": "transship.dev/lab/server:1", "imagePullPolicy": "Never",
    "command": ["/usr/bin/sleep", "1000000"], "volumeMounts": [{"name": "usr", "mountPath": "/usr", "readOnly": true},
        {"name": "lib", "mountPath": "/lib", "readOnly": true}, {"name": "lib64", "mountPath": "/lib64", "readOnly": true}]}],
  "volumes": [{"name": "usr", "hostPath": {"path": "/usr"}}, {"name": "lib", "hostPath": {"path": "/usr/lib"}},
    {"name": "lib64", "hostPath": {"path": "/usr/lib64"}}]}'
# bench_pods KIND NAME REPLICAS SPEC: pods of that specification on the node; a DaemonSet has no number of replicas.
bench_pods() {
    jq -n --arg kind "$1" --arg name "$2" --argjson replicas "${3:-null}" --arg node "$NODE" \
        --argjson spec "$4" '
        {apiVersion: "apps/v1", kind: $kind, metadata: {name: $name, namespace: "lab", labels: {bench: "yes"}},
         spec: ({selector: {matchLabels: {app: $name}},
                 template: {metadata: {labels: {app: $name, bench: "yes"}},
                            spec: ($spec + {nodeSelector: {"kubernetes.io/hostname": $node}})}}
                + (if $replicas == null then {} else {replicas: $replicas} end))}' |
        k apply -f - >/dev/null
}

# measured NUMBER NUMBER: of one run of the row that is being measured.
measured() {
    runs+=("[$1, $2]")
    say "$(printf '%-48s %10.2f %14.2f' "$what" "$1" "$2")"
}
# row COMMAND…: the median, the least and the most of RUNS runs of the command.
rows=()
row() {
    local runs=() what
    for ((run = 1; run <= RUNS; run++)); do "$@"; done
    rows+=("$(printf '%-44s' "$what")$(jq -nr --argjson runs "[$(IFS=,; echo "${runs[*]}")]" '
        def two: . * 100 | round / 100 | tostring;
        def pad: (" " * (24 - length)) + .;
        [0, 1] | map(. as $which | [$runs[][$which]] | sort
            | "\(.[length / 2 | floor] | two) (\(first | two) to \(last | two))" | pad) | add')")
}
