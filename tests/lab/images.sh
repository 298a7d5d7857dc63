# shellcheck shell=bash
# Images without a registry: archives in the format of `docker save`, made from
# a directory, loaded into the runtimes of the nodes.

SERVER_IMAGE=transship.dev/lab/server

# make_image FILE.tar DIRECTORY ENTRYPOINT NAME…: a Docker archive with one layer.
# The same directory gives the same image id everywhere: no time, owner or order
# of the making host is in it. An empty ENTRYPOINT is none.
make_image() {
    local file=$1 directory=$2 entrypoint=$3 work layer
    shift 3
    work=$(mktemp -d)
    mkdir "$work/layer"
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
        -cf "$work/layer/layer.tar" -C "$directory" .
    layer=$(sha256sum "$work/layer/layer.tar" | cut -d' ' -f1)
    jq -n --arg layer "sha256:$layer" --arg entrypoint "$entrypoint" '{
        architecture: "amd64", os: "linux", created: "1970-01-01T00:00:00Z",
        config: {
            Env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            Entrypoint: ($entrypoint | split(" ") | if . == [] then null else . end)
        },
        rootfs: {type: "layers", diff_ids: [$layer]},
        history: [{created: "1970-01-01T00:00:00Z", comment: "made by the lab"}]
    }' >"$work/config.json"
    jq -n '[{Config: "config.json", RepoTags: $ARGS.positional, Layers: ["layer/layer.tar"]}]' \
        --args "$@" >"$work/manifest.json"
    tar -cf "$file" -C "$work" manifest.json config.json layer
    rm -rf "$work"
}

# load_image FILE.tar NODE…: into the store of the runtime that the kubelet uses now.
load_image() {
    local file=$1 node
    shift
    for node; do
        case $(endpoint_now "$node") in
            *containerd.sock*) node_exec "$node" timeout 300 ctr --namespace k8s.io images import - <"$file" ;;
            *crio.sock*) load_into_crio "$file" "$node" ;;
            *) node_exec "$node" timeout 300 docker load --quiet <"$file" ;;
        esac
    done
}

# CRI has no call for it, so the program is the lab's own. It lies in the node's memory and goes with it.
load_into_crio() { # FILE.tar NODE
    # shellcheck disable=SC2016 # the node's shell expands it
    node_exec "$2" sh -c 'cat >/run/crio-load && chmod 755 /run/crio-load' <"$(part "$(archive_part cri-o)")/crio-load"
    # shellcheck disable=SC2016 # the same
    node_exec "$2" sh -c 'cat >/run/image.tar && timeout 300 /run/crio-load /run/image.tar && rm /run/image.tar' <"$1"
}

# The endpoint that the kubelet has been told: on its command line, else in its configuration.
endpoint_now() {
    local endpoint
    # shellcheck disable=SC2016 # the node's shell expands it
    endpoint=$(node_exec "$1" sh -c '{
        tr "\0" "\n" <"/proc/$(pgrep -xo kubelet)/cmdline"
        cat /var/lib/kubelet/config.yaml
    } 2>/dev/null | sed -nE "s/^(--container-runtime-endpoint=|containerRuntimeEndpoint: *)//p"') || true
    # Before kubeadm has been there it will be what the node was made with; a
    # kubelet that names none has dockershim.
    echo "${endpoint:-$(endpoint_of "$1")}"
}

# --- The cluster's own images -----------------------------------------------

# Their part in the cache is named after all that they are made from.
images_part() {
    local sources
    sources=$(cat "$LAB/images.sh" "$LAB/pause.c" "$LAB"/server/*.go <(echo "$ETCD" "${SANDBOX_IMAGES[@]}") | sha256sum)
    echo "images-$KUBERNETES-$ROOT_REVISION-${sources:0:8}"
}

cluster_images() {
    "$(part "kubernetes-$KUBERNETES")/kubeadm" config images list --kubernetes-version "v$KUBERNETES"
}

build_images() {
    local bin name names image
    bin=$(part "kubernetes-$KUBERNETES")
    while read -r image; do
        name=${image##*/} name=${name%:*}
        names=("$image")
        mkdir "$name"
        case $name in
            coredns) rm -r "$name"; continue ;;
            kube-proxy) fill_proxy "$name" ;;
            kube-*) install -D -t "$name/usr/local/bin" "$bin/$name" ;;
            etcd) put_program "$name" "$(part "etcd-$ETCD")/etcd" ;;
            pause)
                gcc -O2 -static -s -o "$name/pause" "$LAB/pause.c"
                names+=("${SANDBOX_IMAGES[@]}")
                ;;
            *) die "the lab does not know how to make $image" ;;
        esac
        make_image "$name.tar" "$name" "$([[ $name != pause ]] || echo /pause)" "${names[@]}"
        rm -r "$name"
    done < <(cluster_images)
    mkdir server
    GOTOOLCHAIN=local GO111MODULE=off CGO_ENABLED=0 "$(debian_go)" build -trimpath -ldflags '-s -w' -o server/server "$LAB"/server/*.go
    # The second name is there for workloads that only Docker's store can serve.
    make_image server.tar server /server "$SERVER_IMAGE:1" "$SERVER_IMAGE:only-here"
    rm -r server
}

# put_program DIRECTORY PROGRAM: with its dynamic linker and libraries, if it
# is not static.
put_program() {
    install -D -t "$1/usr/sbin" "$2"
    "$(root_libraries)/ld-linux-x86-64.so.2" --verify "$2" || return 0
    install -D -t "$1/lib64" "$(root_libraries)/ld-linux-x86-64.so.2"
    put_libraries "$@"
}

# put_libraries DIRECTORY OBJECT…: the libraries that the linker will ask for,
# all of the nodes' own root.
put_libraries() {
    local directory=$1 libraries object library
    libraries=$(root_libraries)
    shift
    for object; do
        "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --list "$object" |
            sed -n 's/.* => \(\/[^ ]*\) .*/\1/p'
    done | sort -u | while read -r library; do
        install -D -t "$directory/usr/lib/x86_64-linux-gnu" "$library"
    done
}
root_libraries() { echo "$(base_root)/usr/lib/x86_64-linux-gnu"; }

# kube-proxy calls iptables in the variant that the nodes themselves use.
fill_proxy() {
    local directory=$1 root name
    root=$(base_root)
    put_program "$directory" "$root/usr/sbin/xtables-nft-multi"
    put_program "$directory" "$root/usr/sbin/conntrack"
    for name in iptables ip6tables; do
        ln -s xtables-nft-multi "$directory/usr/sbin/$name"
        ln -s xtables-nft-multi "$directory/usr/sbin/$name-save"
        ln -s xtables-nft-multi "$directory/usr/sbin/$name-restore"
    done
    cp -a "$(root_libraries)/xtables" "$directory/usr/lib/x86_64-linux-gnu/"
    put_libraries "$directory" "$(root_libraries)"/xtables/*.so
    install -D -t "$directory/usr/local/bin" "$(part "kubernetes-$KUBERNETES")/kube-proxy"
}
