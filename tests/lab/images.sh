# shellcheck shell=bash
# Images without a registry: archives in the format of `docker save`, made from
# a directory, loaded into the Docker of the nodes.

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

# load_image FILE.tar NODE…
load_image() {
    local file=$1 node
    shift
    for node; do
        node_exec "$node" timeout 300 docker load --quiet <"$file"
    done
}

# --- The cluster's own images -----------------------------------------------

# In the cache, by cluster: they depend on its Kubernetes version.
build_images() {
    local bin name image
    bin=$(part "kubernetes-$KUBERNETES")
    while read -r image; do
        name=${image##*/} name=${name%:*}
        mkdir "$name"
        case $name in
            coredns) rm -r "$name"; continue ;;
            kube-proxy) fill_proxy "$name" ;;
            kube-*) install -D -t "$name/usr/local/bin" "$bin/$name" ;;
            etcd) put_program "$name" "$(part etcd-bookworm)/etcd" ;;
            pause) install -D -t "$name" "$(part pause-1)/pause" ;;
            *) die "the lab does not know how to make $image" ;;
        esac
        make_image "$name.tar" "$name" "$([[ $name != pause ]] || echo /pause)" "$image"
        rm -r "$name"
    done < <("$bin/kubeadm" config images list --kubernetes-version "v$KUBERNETES")
    mkdir server
    install -D -t server "$(part server-1)/server"
    # The second name is there for workloads that only Docker's store can serve.
    make_image server.tar server /server "$SERVER_IMAGE:1" "$SERVER_IMAGE:only-here"
    rm -r server
}

# put_program DIRECTORY PROGRAM: with the libraries that its linker asks for,
# all of the nodes' own root.
put_program() {
    local directory=$1 program=$2 libraries library
    libraries=$(part "root-bookworm-$ROOT_REVISION")/root/usr/lib/x86_64-linux-gnu
    install -D -t "$directory/usr/sbin" "$program"
    install -D -t "$directory/lib64" "$libraries/ld-linux-x86-64.so.2"
    "$libraries/ld-linux-x86-64.so.2" --library-path "$libraries" --list "$program" |
        sed -n 's/.* => \(\/[^ ]*\) .*/\1/p' |
        while read -r library; do
            install -D -t "$directory/usr/lib/x86_64-linux-gnu" "$library"
        done
}

# kube-proxy calls iptables in the variant that the nodes themselves use.
fill_proxy() {
    local directory=$1 root name
    root=$(part "root-bookworm-$ROOT_REVISION")/root
    put_program "$directory" "$root/usr/sbin/xtables-nft-multi"
    put_program "$directory" "$root/usr/sbin/conntrack"
    for name in iptables ip6tables; do
        ln -s xtables-nft-multi "$directory/usr/sbin/$name"
        ln -s xtables-nft-multi "$directory/usr/sbin/$name-save"
        ln -s xtables-nft-multi "$directory/usr/sbin/$name-restore"
    done
    cp -a "$root/usr/lib/x86_64-linux-gnu/xtables" "$directory/usr/lib/x86_64-linux-gnu/"
    install -D -t "$directory/usr/local/bin" "$(part "kubernetes-$KUBERNETES")/kube-proxy"
}
