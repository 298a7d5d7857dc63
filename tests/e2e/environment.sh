# shellcheck shell=bash
# What containers see before and after a switch: the reports of the workload's `sees` pod, compared with the explicit list
# of what may differ (environment-differences). docs/pod-environment.md says why each of them does.

DIFFERENCES=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/environment-differences

# sees NODE: the facts of both containers, as root and as another user: CONTAINER NAME VALUE.
sees() {
    local pod container
    pod=$(k -n lab get pods -l app=sees --field-selector "spec.nodeName=$1,status.phase=Running" -o jsonpath='{.items[0].status.podIP}')
    for container in root:8080 user:80; do
        lab exec "$1" curl -fsS -m 5 "http://$pod:${container#*:}" | sed "s/^/${container%:*} /"
    done
}
# sees_as_expected NODE BEFORE FROM TO: what differs from the file BEFORE is what may differ from runtime FROM to TO.
sees_as_expected() {
    wait_until 90 "the pod that reports what it sees" sees "$1"
    sees "$1" >"$2.after"
    diff <(sort "$2") <(sort "$2.after") | grep '^[<>]' >"$2.diff" || true
    cat "$2.diff"
    local name unexpected=()
    while read -r name; do
        sed 's/ *#.*//' "$DIFFERENCES" | grep -qxF -- "$3 $4 $name" || unexpected+=("$name")
    done < <(sed 's/^[<>] [a-z]* \([^ ]*\).*/\1/' "$2.diff" | sort -u)
    ((${#unexpected[@]} == 0)) || fail "containers on $1 see something else under $4 than under $3: ${unexpected[*]}"
}
