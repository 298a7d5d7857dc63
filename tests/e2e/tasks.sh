# shellcheck shell=bash
# An upgrade of containerd in place: which tasks run on a node, whether they are the same afterwards, and what is asked of them
# meanwhile.

# tasks NODE: a line for each task that lives: its namespace and id, process and the time at which that has started.
tasks() {
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" sh -c '
        for bundle in /run/containerd/io.containerd.runtime.v2.task/*/*/; do
            process=$(cat "$bundle/init.pid" 2>/dev/null) || continue
            # What comes after the name of the program, which may have blanks: the state is the first, the start the twentieth.
            set -- $(sed "s/.*) //" "/proc/$process/stat" 2>/dev/null)
            [ $# = 0 ] || [ "$1" = Z ] || echo "$(basename "$(dirname "$bundle")")/$(basename "$bundle") $process ${20}"
        done' | sort
}
# same_tasks NODE BEFORE: every task of the file lives, and is the same process.
same_tasks() {
    local gone
    gone=$(tasks "$1" | comm -23 "$2" -)
    [[ -z $gone ]] || fail "tasks of $1 ended: $gone"
    say "$1: $(wc -l <"$2") tasks have the same process as before"
}
# shims NODE: how many bundles name which shim.
shims() {
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" sh -c 'for file in /run/containerd/io.containerd.runtime.v2.task/k8s.io/*/shim-binary-path; do echo "$(cat "$file")"; done | sort | uniq -c'
}
# restarts NODE: the restarts of each container of the node's pods.
restarts() {
    k get pods -A --field-selector "spec.nodeName=$1" -o json |
        jq -r '.items[] | .metadata.uid as $uid | .status.containerStatuses[]? | "\($uid) \(.name) \(.restartCount)"' | sort
}
# same_restarts NODE BEFORE: no container of those in the file has restarted.
same_restarts() {
    restarts "$1" | comm -13 "$2" - | while read -r uid name count; do
        ! grep -q "^$uid $name " "$2" || fail "a container of $1 restarted: $name ($count)"
    done
}

# Clients on a node that is not touched ask fifty times a second each: a Service, the host port of NODE, and a pod on it.
begin_asking() { # NODE
    local pod service address
    asked=$1
    pod=$(k -n lab get pods -l app=host-port --field-selector "spec.nodeName=$1" -o jsonpath='{.items[0].status.podIP}')
    service=$(k -n lab get service graceful -o jsonpath='{.spec.clusterIP}')
    address=$(k get node "$1" -o jsonpath='{.status.addresses[0].address}')
    ask asking cp1 20 "service=http://$service" "port=http://$address:8888" "pod=http://$pod:8080"
    wait_until 60 "the clients to ask" answers_counted
}
answers_counted() {
    local port
    for port in 8081 8082 8083; do lab exec cp1 curl -fsS -m 2 "http://127.0.0.1:$port" || return 1; done
}
# all_answered [MOST]: of the requests since begin_asking each client lost none, or at most so many.
all_answered() {
    local counts most=${1:-0} lost
    counts=$(answers_counted | tr '\n' ' ')
    say "$asked: requests through Service, host port and pod address: $counts"
    while read -r lost; do
        ((lost <= most)) || fail "requests to $asked were lost: $counts"
    done < <(grep -oP 'failed=\K\d+' <<<"$counts")
}

# Whether the Node was anything but Ready, from begin_watching to stayed_ready.
begin_watching() { # NODE FILE
    k get node "$1" --watch -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}{"\n"}' >"$2" 2>/dev/null &
    watching=$!
}
stayed_ready() { # FILE
    kill "$watching" 2>/dev/null || true
    wait "$watching" 2>/dev/null || true
    ! grep -qvx True "$1"
}

# network_state NODE: what its pods have of the network, in numbers.
network_state() {
    # shellcheck disable=SC2016
    lab exec "$1" sh -c 'echo "$(ls /var/lib/cni/networks/*/ | grep -c "^[0-9]") leases, $(iptables-save -t nat | grep -c "^:CNI-") chains, $(ls /run/netns | wc -l) namespaces, $(pgrep -c containerd-shim) shims"'
}

# cri_away NODE: milliseconds from the restart of containerd, in the switch, to its answer, by the journal of the last plan.
cri_away() {
    local directory
    # shellcheck disable=SC2012 # the names are UIDs
    directory=$(ls -td "$(lab root "$1")"/var/lib/transship/*/journal | sed -n 1p | xargs dirname)
    jq -rs --slurpfile plan "$directory/plan.json" '
        def millis: (.at | sub("\\.[0-9]*Z"; "Z") | fromdate * 1000) + (.at | capture("\\.(?<part>[0-9]{3})").part | tonumber);
        ($plan[0].steps | map(.section == "switch" and .does.step == "unit" and .does.restart == "forwards") | index(true)) as $restart
        | ([.[] | select(.event == "done" and .step == $restart + 1)][0] | millis)
            - ([.[] | select(.event == "started" and .step == $restart)][0] | millis)' "$directory/journal"
}
