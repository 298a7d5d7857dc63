# shellcheck shell=bash
# A registry with a certificate of its own authority and a password, which holds one image.

# start_registry NODE: on a node that runs Docker; sets $registry to its address and $ca to the certificate of its authority.
start_registry() {
    local address hash
    address=$(address_of "$1")
    registry=$address:5000
    # shellcheck disable=SC2016 # a bcrypt salt
    hash=$(perl -e 'print crypt("lab-password", q($2b$05$abcdefghijklmnopqrstuu))')
    # One that an earlier run left.
    lab exec "$1" systemctl stop private-registry plain-registry 2>/dev/null || true
    lab exec "$1" sh -c 'cat >/usr/local/bin/docker-registry && chmod 755 /usr/local/bin/docker-registry' \
        <"$(lab run sh -c 'command -v docker-registry')"
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" bash -euc '
        registry=$1 address=$2
        mkdir -p /root/registry /etc/docker/certs.d/$registry
        cd /root/registry
        echo "lab:$3" >passwords
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 -subj "/CN=lab authority" \
            -addext "subjectAltName=IP:$address" -keyout key.pem -out ca.pem 2>/dev/null
        cp ca.pem "/etc/docker/certs.d/$registry/ca.crt"
        cat >config.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: /root/registry/images}}
http: {addr: "$registry", tls: {certificate: /root/registry/ca.pem, key: /root/registry/key.pem}}
auth: {htpasswd: {realm: lab, path: /root/registry/passwords}}
YAML
        systemd-run --quiet --collect --unit=private-registry /usr/local/bin/docker-registry serve /root/registry/config.yml
        for try in 1 2 3 4 5; do
            ! echo lab-password | docker login -u lab --password-stdin "$registry" >/dev/null 2>&1 || break
            sleep 1
        done
        docker tag transship.dev/lab/server:1 "$registry/lab/server:1"
        docker push --quiet "$registry/lab/server:1"' - "$registry" "$address" "$hash" || fail "the registry on $1 takes no image"
    # shellcheck disable=SC2034 # the scenario gives it to containerd
    ca=$(lab exec "$1" cat /root/registry/ca.pem)
}
# start_plain_registry NODE: where start_registry ran: the same images without TLS and without a password; sets $plain to its
# address.
start_plain_registry() {
    # shellcheck disable=SC2034 # the scenario names it
    plain=${registry%:*}:5001
    lab exec "$1" systemctl stop plain-registry 2>/dev/null || true
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" bash -euc '
        cat >/root/registry/plain.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: /root/registry/images}}
http: {addr: "$1"}
YAML
        systemd-run --quiet --collect --unit=plain-registry /usr/local/bin/docker-registry serve /root/registry/plain.yml
        for try in 1 2 3 4 5; do
            ! curl -fsS "http://$1/v2/" >/dev/null 2>&1 || exit 0
            sleep 1
        done
        exit 1' - "$plain" || fail "the registry without TLS on $1 does not answer"
}
# push_own_image NODE: where start_registry ran: one more image, lab/own:1, with an ID that no other image has: a kubelet that has pulled
# an image takes no other name of its ID for one that is there (kubelet 1.35 and later, `KubeletEnsureSecretPulledImages`).
push_own_image() {
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" bash -euc '
        id=$(docker create transship.dev/lab/server:1)
        docker commit "$id" "$1/lab/own:1" >/dev/null
        docker rm "$id" >/dev/null
        docker push --quiet "$1/lab/own:1"
        docker rmi "$1/lab/own:1" >/dev/null' - "$registry" || fail "the registry on $1 does not take one more image"
}
# start_strict_registry NODE: where start_registry ran: the same images for clients that show a certificate of its authority; sets
# $strict to its address. A boot of the node ends it.
start_strict_registry() {
    strict=${registry%:*}:5002
    lab exec "$1" systemctl stop strict-registry 2>/dev/null || true
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" bash -euc '
        cd /root/registry
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=node" -keyout client.key -out client.csr 2>/dev/null
        openssl x509 -req -days 30 -in client.csr -CA ca.pem -CAkey key.pem -CAcreateserial -out client.pem 2>/dev/null
        cat >strict.yml <<YAML
version: 0.1
storage: {filesystem: {rootdirectory: /root/registry/images}}
http: {addr: "$1", tls: {certificate: /root/registry/ca.pem, key: /root/registry/key.pem, clientcas: [/root/registry/ca.pem]}}
YAML
        systemd-run --quiet --collect --unit=strict-registry /usr/local/bin/docker-registry serve /root/registry/strict.yml
        asks() { curl -fsS --cacert ca.pem "$@" >/dev/null 2>&1; }
        for try in 1 2 3 4 5; do
            ! asks --cert client.pem --key client.key "https://$1/v2/" || break
            sleep 1
        done
        asks --cert client.pem --key client.key "https://$1/v2/"
        ! asks "https://$1/v2/"' - "$strict" || fail "the registry on $1 does not ask for certificates of clients"
}
# tell_containerd NODE: where the strict registry is, containerd has its authority, and what it wants to be shown.
tell_containerd() {
    # shellcheck disable=SC2016 # expanded in the node
    lab exec "$1" sh -euc 'mkdir -p "/etc/containerd/certs.d/$1" && cd "/etc/containerd/certs.d/$1" && cp /root/registry/ca.pem own.crt &&
        cat /root/registry/client.pem /root/registry/client.key >client.pem && chmod 600 client.pem && cat >hosts.toml' - "$strict" <<TOML
server = "https://$strict"
ca = "own.crt"
client = "client.pem"
TOML
}
# pulled NODE NAME IMAGE: a pod that has to ask the registry for its image starts.
pulled() {
    make_pod "$1" "pulled-$2" "$3" "imagePullPolicy: Always"
    wait_until 60 "the image $3 to be pulled on $1" pod_is_ready "pulled-$2"
}
pod_is_ready() { [[ $(k -n lab get pod "$1" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}') == True ]]; }
