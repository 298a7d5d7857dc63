# shellcheck shell=bash
# What Docker is told of on a node: registries (one with an authority of its own and a password, one without TLS, a mirror of Docker
# Hub), another runtime, limits of logs. After a switch all of it must hold. It needs common.sh, private-registry.sh with registries
# that run, and the directory $work.

# tell_docker NODE: Docker reads it all without a restart, and so do pods that start from here on.
tell_docker() {
    lab exec "$1" sh -c 'cat >/usr/local/sbin/counting-runtime && chmod 755 /usr/local/sbin/counting-runtime' <<'SH'
#!/bin/sh
case " $* " in *" create "*) echo "$*" >>/root/counted ;; esac
exec /usr/local/sbin/runc "$@"
SH
    # shellcheck disable=SC2016,SC2154 # expanded in the node; start_registry sets them
    lab exec "$1" sh -c 'mkdir -p "/etc/docker/certs.d/$1" && cat >"/etc/docker/certs.d/$1/ca.crt"' - "$registry" <<<"$ca"
    # shellcheck disable=SC2154 # start_plain_registry sets it
    lab exec "$1" cat /etc/docker/daemon.json |
        jq --arg plain "$plain" '. + {"insecure-registries": [$plain], "registry-mirrors": ["http://\($plain)"],
            "runtimes": {"counting": {"path": "counting-runtime"}}, "default-runtime": "counting",
            "log-opts": {"max-size": "20m", "max-file": "3"}}' >"$work/daemon.json"
    # With its old time: Docker has read the new settings, too.
    lab exec "$1" sh -c 'cd /etc/docker && cp -a daemon.json daemon.json.lab && cat >daemon.json && systemctl reload docker &&
        touch -r daemon.json.lab daemon.json' <"$work/daemon.json"
    jq -n --arg registry "$registry" --arg auth "$(printf lab:lab-password | base64)" '{auths: {($registry): {auth: $auth}}}' |
        lab exec "$1" sh -c 'umask 077; cat >/var/lib/kubelet/config.json && systemctl restart kubelet'
    wait_until 60 "$1 to be Ready" ready "$1"
}
# pulls NODE NAME: the node asks its registries for an image, with the password that the kubelet has for the first one.
pulls() {
    pulled "$1" "private-$2" "$registry/lab/server:1"
    pulled "$1" "insecure-$2" "$plain/lab/server:1"
    pulled "$1" "mirror-$2" docker.io/lab/server:1
    k -n lab delete pod "pulled-private-$2" "pulled-insecure-$2" "pulled-mirror-$2" --grace-period=1 >/dev/null
}
# under_own_runtime NODE BUNDLES: a pod of the RuntimeClass, and all others, were made by the runtime that Docker was told of; what
# calls it on this node keeps its containers' bundles in BUNDLES.
under_own_runtime() {
    k apply -f - >/dev/null <<YAML
apiVersion: node.k8s.io/v1
kind: RuntimeClass
metadata: { name: counting }
handler: counting
---
apiVersion: v1
kind: Pod
metadata: { name: of-class, namespace: lab }
spec:
  nodeName: $1
  runtimeClassName: counting
  containers: [{ name: server, image: "transship.dev/lab/server:1", imagePullPolicy: Never }]
YAML
    wait_until 60 "a pod of the RuntimeClass" pod_is_ready of-class
    # Each container of Kubernetes, and its sandbox.
    local made
    made=$(lab exec "$1" grep -c "$2" /root/counted) || true
    ((made >= 10)) || fail "the runtime that Docker was told of has made $made containers with bundles in $2"
    say "$made containers were made by the runtime that Docker was told of"
    k -n lab delete pod of-class --grace-period=1 >/dev/null
    k delete runtimeclass counting >/dev/null
}
# log_limits NODE: what the kubelet has in effect of the limits of logs.
log_limits() {
    k get --raw "/api/v1/nodes/$1/proxy/configz" |
        jq -r '.kubeletconfig | "\(.containerLogMaxSize) \(.containerLogMaxFiles)"'
}
