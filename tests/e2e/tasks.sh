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

# Clients on a node that is not touched ask fifty times a second each: a Service, a pod on NODE, and the host port of a worker.
begin_asking() { # NODE
    local from=cp1 pods=host-port pod urls node counts
    asked=$1
    [[ $asked != cp1 ]] || from=w1 pods=per-node
    pod=$(k -n lab get pods -l app=$pods --field-selector "spec.nodeName=$asked" -o jsonpath='{.items[0].status.podIP}')
    urls=("service=http://$(k -n lab get service graceful -o jsonpath='{.spec.clusterIP}')" "pod=http://$pod:8080")
    [[ $asked == cp1 ]] ||
        urls+=("port=http://$(address_of "$asked"):8888")
    asked_from=$from asked_urls=${#urls[@]}
    # On a busy machine a packet gets lost now and then, and is sent again after a second.
    ask asking "$from" 8091 20 3s "${urls[@]}"
    wait_until 60 "the clients to ask" answers_counted
    # What was changed before, as by a boot, may still be on its way to the Service. A request that met a pod's old address leaves
    # an entry without an answer for two minutes, which a later request from the same port follows.
    for node in "$from" "$asked"; do lab exec "$node" conntrack -D -p tcp --state SYN_SENT >/dev/null 2>&1 || true; done
    wait_until 60 "all requests to be answered for a while" all_are_answered
    counts=$(answers_counted)
    lost_before=$(lost_of "$counts") lost_by_the_pod=$(lost_of "$counts" 2)
}
all_are_answered() {
    local before
    before=$(lost_of "$(answers_counted)")
    sleep 4
    [[ $(lost_of "$(answers_counted)") == "$before" ]]
}
# lost_of COUNTS [CLIENT]: requests that all clients lost, or the one of this number.
lost_of() { awk -F= -v client="${2:-0}" 'client == 0 || NR == client { sum += $3 } END { print sum + 0 }' <<<"$1"; }
answers_counted() {
    local number
    for ((number = 0; number < asked_urls; number++)); do
        lab exec "$asked_from" curl -fsS -m 2 "http://127.0.0.1:$((8091 + number))" || return 1
    done
}
# all_answered: since begin_asking the pod lost no request. Those that a node translates the address of (to the Service and to the
# host port) may lose three: seen before anything was switched, at a rate of one in some thousands.
all_answered() {
    local counts lost
    counts=$(answers_counted)
    lost=$(($(lost_of "$counts") - lost_before))
    say "$asked: requests to a Service, a pod and a host port: ${counts//$'\n'/, }"
    # A line for each request that was lost, with its time.
    ((lost == 0)) || k -n lab logs asking --all-containers --prefix | grep -v ' ok=' || true
    if ((lost > 3)) || [[ $(lost_of "$counts" 2) != "$lost_by_the_pod" ]]; then
        fail "requests to $asked were lost: ${counts//$'\n'/, }"
    fi
}

# ready_since NODE: when the Ready condition of the Node last changed.
ready_since() { k get node "$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].lastTransitionTime}'; }

# network_state NODE: what its pods have of the network, in numbers.
network_state() {
    # shellcheck disable=SC2016
    lab exec "$1" sh -c 'echo "$(ls /var/lib/cni/networks/*/ | grep -c "^[0-9]") leases, $(iptables-save -t nat | grep -c "^:CNI-") chains, $(ls /run/netns | wc -l) namespaces, $(pgrep -c containerd-shim) shims"'
}

# traces NODE: what a trial could leave behind, in numbers.
traces() {
    network_state "$1"
    # shellcheck disable=SC2016
    lab exec "$1" sh -c 'echo "$(wc -l </proc/1/mounts) mounts, $(find /sys/fs/cgroup -type d \( -path "*kubepods*" -o -path "*rehearsal*" \) | sort -u | wc -l) cgroups, $(find /run -type s | wc -l) sockets"'
}

# count_in_the_log NODE: a new pod on it prints numbers, twenty a second.
count_in_the_log() {
    k -n lab delete pod counting --ignore-not-found --wait >/dev/null
    make_pod "$1" counting transship.dev/lab/server:1 "args: [count, '50']"
    wait_until 60 "the pod that counts to run" log_goes_on 0
}
log_goes_on() { (($(k -n lab logs counting --tail=1) > $1)); } # NUMBER
# log_is_whole: no number is missing in the log, and it goes on.
log_is_whole() {
    local last
    k -n lab logs counting | awk '$1 != NR { print "line " NR " is " $1; exit 1 }' || fail "the log of a container has a gap"
    last=$(k -n lab logs counting --tail=1)
    wait_until 5 "the log of a container to go on after $last" log_goes_on "$last"
}

# pods_meanwhile NODE MOMENT: when the switch that begins next reaches it (journal-reaches.pl), ten pods are made there within
# two seconds. pods_arrived: each of them came up at its first start.
pods_meanwhile() {
    local number
    perl "$ROOT/tests/e2e/journal-reaches.pl" "$(lab root "$1")" "$2" 0 120 || fail "the switch of $1 did not come to $2"
    for number in 1 2 3 4 5 6 7 8 9 10; do
        make_pod "$1" "meanwhile-$number" transship.dev/lab/server:1 &
        sleep 0.2
    done
    wait
}
pods_arrived() { # NODE
    local restarted
    await_pods "$1" "the pods that were made meanwhile to be Ready"
    restarted=$(k -n lab get pods -l app=meanwhile -o json | jq -r '.items[] | select(.status.containerStatuses[0].restartCount > 0) | .metadata.name')
    [[ -z $restarted ]] || fail "made meanwhile, and restarted: $restarted"
    k -n lab delete pods -l app=meanwhile --wait >/dev/null
}

# What a client of the CRI sees of a restart: a program on the node asks for its sandboxes, a hundred times a second at most,
# and writes down in milliseconds when an answer came.
begin_asking_cri() { # NODE
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" systemd-run --quiet --collect --unit=asks-cri sh -c '
        printf "\0\0\0\0\0" >/run/asks-cri.request # a gRPC message of no bytes
        while sleep 0.01; do
            size=$(curl -s --http2-prior-knowledge --unix-socket /run/containerd/containerd.sock -m 1 -o /dev/null -w "%{size_download}" \
                -H "content-type: application/grpc" -H "te: trailers" --data-binary @/run/asks-cri.request \
                http://localhost/runtime.v1.RuntimeService/ListPodSandbox)
            [ "$size" -lt 6 ] || date +%s%3N
        done >/run/asks-cri.answers'
    sleep 1
}
# cri_away NODE: the longest time in milliseconds without an answer since begin_asking_cri.
cri_away() {
    sleep 1
    lab exec "$1" systemctl stop asks-cri
    # shellcheck disable=SC2016 # awk's own
    lab exec "$1" awk 'NR > 1 && $1 - last > most { most = $1 - last } { last = $1 } END { if (NR < 50) exit 1; print most }' /run/asks-cri.answers
}

# A program on NODE asks the API server of cp1 whether it is well, fifty times a second; api_answered: each time it was.
begin_asking_api() { # NODE
    lab exec "$1" systemd-run --quiet --collect --unit=asks-api sh -c "
        while sleep 0.02; do
            curl -kfsS -m 1 -o /dev/null https://$(address_of cp1):6443/readyz 2>&1 && echo ok
        done >/run/asks-api.answers"
}
api_answered() { # NODE
    local ok others
    lab exec "$1" systemctl stop asks-api
    ok=$(lab exec "$1" grep -cx ok /run/asks-api.answers)
    others=$(lab exec "$1" sh -c 'grep -vx ok /run/asks-api.answers || true')
    [[ -z $others ]] || fail "the API server did not answer: $others"
    say "the API server answered $ok times"
}
