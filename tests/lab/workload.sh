# shellcheck shell=bash
# The test workload: what a switch of the runtime must carry over.

workload_up() {
    manifests | kubectl apply -f - >/dev/null
    say "waiting for the workload"
    wait_for 180 "the workload to be ready" workload_ready
    plain_container "${SERVING[-1]}"
    wait_for 60 "the Services to answer" services_answer
    say "the workload serves"
}

# What is tied to a node by its name goes to the first one that takes pods.
manifests() {
    local file
    for file in namespace docker nodes sees services state; do
        echo ---
        sed "s|kubernetes.io/hostname: w1|kubernetes.io/hostname: ${SERVING[0]}|" "$LAB/workload/$file.yaml"
    done
}

workload_ready() {
    kubectl -n lab get deployments,statefulsets,daemonsets -o json | jq -er '
        [.items[]
            | {name: "\(.kind) \(.metadata.name)",
               wanted: (.status.desiredNumberScheduled // .spec.replicas),
               ready: (.status.numberReady // .status.readyReplicas // 0),
               current: (.status.observedGeneration == .metadata.generation)}
            | select(.current and .wanted == .ready | not)
            | "\(.name): \(.ready) of \(.wanted)"]
        | if . == [] then "all ready" else join("\n") | halt_error end'
}

# From each node through the Service, so across nodes, and on the host port.
services_answer() {
    local node service
    for node in "${NODES[@]}"; do
        for service in web graceful api; do
            node_exec "$node" curl -fsS -m 2 "http://$(kubectl -n lab get service "$service" \
                -o jsonpath='{.spec.clusterIP}')" || return 1
        done
    done
    for node in "${SERVING[@]}"; do
        in_netns lab curl -fsS -m 2 "http://$(address_of "$node"):8888" || return 1
    done
}

# A container that Kubernetes does not know: a switch must not lose it silently.
plain_container() {
    # On a node that has left Docker there is nothing to put it in.
    node_exec "$1" systemctl --quiet is-active docker || return 0
    node_exec "$1" docker inspect plain >/dev/null 2>&1 ||
        node_exec "$1" docker run --detach --name plain --restart always --publish 9999:8080 \
            "$SERVER_IMAGE:1" >/dev/null
    wait_for 20 "the plain container on $1" node_exec "$1" curl -fsS -m 2 http://127.0.0.1:9999
}
