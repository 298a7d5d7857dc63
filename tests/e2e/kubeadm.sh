# shellcheck shell=bash
# Migrations of clusters that a current kubeadm made.

migrate() { # NAME NODES TARGET
    k apply -f - <<YAML
apiVersion: transship.dev/v1alpha1
kind: RuntimeMigration
metadata: {name: $1}
spec:
  mode: Apply
  nodeSelector: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$2]}]}
  target: $3
  drain: {force: true, deleteEmptyDirData: true}
  preflight: {allow: [DockerSocketMounted, ForeignContainers]}
YAML
}
# kubeadm patches config.yaml with instance-config.yaml at every upgrade: both must name the endpoint.
kubeadm_keeps() { # NODE ENDPOINT
    local file
    for file in config.yaml instance-config.yaml; do
        lab exec "$1" grep -q "containerRuntimeEndpoint: *\"\?$2" "/var/lib/kubelet/$file" || fail "$file of $1 names another endpoint"
    done
    [[ -z $(annotation_of "$1") ]] || fail "$1 got an annotation that kubeadm of this version removes"
}
