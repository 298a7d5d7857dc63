# shellcheck shell=bash
# What the nodes are made of: built or downloaded once, kept in the cache.
#
# A part is a directory NAME-VERSION in the cache. It is made beside its place
# and renamed when it is complete, so its existence is its own stamp: what was
# interrupted is done again, what is there is never touched.

HELM=3.22.0
MODERN_GO=1.26.0             # fetched when the host has no Go new enough for helm

part() { echo "$CACHE/$1"; }

# make_part NAME FUNCTION: the function runs in the empty directory it fills.
make_part() {
    local place building log
    place=$(part "$1") building=$place.building log=$CACHE/$1.log
    [[ -d $place ]] && return 0
    say "building $1"
    local began=$SECONDS
    rm -rf "$building"
    mkdir -p "$building"
    # A subshell of its own under `set -e`: in an `if` it would be switched off.
    set +e
    (set -e; cd "$building"; "$2") >"$log" 2>&1 9>&-
    local status=$?
    set -e
    if ((status)); then
        tail -n 30 "$log" >&2
        die "building $1 failed; everything it said is in $log"
    fi
    mv "$building" "$place"
    say "built $1 in $((SECONDS - began)) s"
}

make_parts() {
    mkdir -p "$CACHE"
    need_packages ca-certificates curl debootstrap gcc iproute2 iptables jq libc6-dev \
        rsync unzip util-linux "golang-$KUBERNETES_GO-go"
    make_part "root-bookworm-$ROOT_REVISION" build_root
    make_part "kubernetes-$KUBERNETES" build_kubernetes
    make_part "etcd-bookworm" build_etcd
    make_part "$(images_part)" build_images
    make_part "prometheus-bookworm" build_prometheus
    make_part "helm-$HELM" build_helm
}

# --- Kubernetes -------------------------------------------------------------

# The module of Kubernetes finds its staging modules by relative paths that
# exist only in its repository. The same modules are published as v0.MINOR.PATCH.
build_kubernetes() {
    local source=$PWD/source staged=v0.${KUBERNETES#1.} module path
    export PATH=/usr/lib/go-$KUBERNETES_GO/bin:$PATH
    export GOFLAGS='-mod=mod -buildvcs=false' GOTOOLCHAIN=local CGO_ENABLED=0
    module=$(go mod download -json "k8s.io/kubernetes@v$KUBERNETES" | jq -r .Dir)
    cp -r --no-preserve=mode "$module" "$source"
    cd "$source"
    go mod edit -json |
        jq -r '.Replace[] | select(.New.Path | startswith("./staging/")) | .Old.Path' |
        while read -r path; do
            go mod edit -replace "$path=$path@$staged"
        done

    generate_openapi
    local version=(-X "k8s.io/component-base/version.gitVersion=v$KUBERNETES"
        -X "k8s.io/component-base/version.gitMajor=1"
        -X "k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES")"
        -X "k8s.io/component-base/version.gitTreeState=clean"
        -X "k8s.io/client-go/pkg/version.gitVersion=v$KUBERNETES")
    go build -trimpath -ldflags "-s -w ${version[*]}" -o ../ ./cmd/kubelet ./cmd/kubeadm \
        ./cmd/kubectl ./cmd/kube-apiserver ./cmd/kube-controller-manager \
        ./cmd/kube-scheduler ./cmd/kube-proxy
    cd ..
    rm -rf "$source"
}

# The API server needs OpenAPI definitions that upstream generates at build
# time and leaves out of the module.
generate_openapi() {
    local target=pkg/generated/openapi inputs
    inputs=$(
        go list -deps -f '{{.ImportPath}} {{.Dir}}' ./cmd/kube-apiserver |
            while read -r package directory; do
                if [[ $package == k8s.io/* ]] &&
                    grep -qs '+k8s:openapi-gen=' "$directory"/*.go; then
                    echo "$package"
                fi
            done | paste -sd,
    )
    go run k8s.io/kube-openapi/cmd/openapi-gen -i "$inputs" -p "k8s.io/kubernetes/$target" \
        -O zz_generated.openapi -h /dev/null -r violations --output-base generated
    mv "generated/k8s.io/kubernetes/$target/zz_generated.openapi.go" "$target/"
    rm -rf generated
}

# --- The rest ---------------------------------------------------------------

# debian_file PACKAGE PATH: one file of a Debian package that is not installed.
debian_file() {
    # The download is done by a user of apt's own, who may not write here.
    (cd /tmp && mkdir -p "lab-$$" && cd "lab-$$" && apt-get download "$1")
    dpkg -x "/tmp/lab-$$/$1"_*.deb package
    rm -r "/tmp/lab-$$"
    mv "package/$2" .
    rm -r package
}
build_etcd() { debian_file "$ETCD_PACKAGE" usr/bin/etcd; }
build_prometheus() { debian_file prometheus usr/bin/promtool; }

build_helm() {
    local go
    go=$(modern_go)
    GOBIN=$PWD CGO_ENABLED=0 GOTOOLCHAIN=local "$go" install -trimpath \
        -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM" \
        "helm.sh/helm/v3/cmd/helm@v$HELM"
}

# The host's Go if it is new enough, else one from the Go module proxy, where
# toolchains are modules too. Debian's Go is too old to fetch it by itself.
modern_go() {
    local present
    present=$(go version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p') || true
    if [[ $(printf '%s\n' "$MODERN_GO" "${present:-0}" | sort -V | head -n 1) == "$MODERN_GO" ]]; then
        command -v go
        return
    fi
    make_part "go-$MODERN_GO" fetch_go >&2
    echo "$(part "go-$MODERN_GO")/bin/go"
}
fetch_go() {
    local proxy toolchain=v0.0.1-go$MODERN_GO.linux-amd64
    proxy=$("/usr/lib/go-$KUBERNETES_GO/bin/go" env GOPROXY | sed 's/[,|].*//')
    curl -fsSL --retry 3 -o go.zip "$proxy/golang.org/toolchain/@v/$toolchain.zip"
    unzip -q go.zip
    mv "golang.org/toolchain@$toolchain"/* .
    rm -r go.zip golang.org
    chmod -R +x bin pkg/tool
}
