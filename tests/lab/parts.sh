# shellcheck shell=bash
# What the nodes are made of: built or downloaded once, kept in the cache.
#
# A part is a directory NAME-VERSION in the cache. It is made beside its place
# and renamed when it is complete, so its existence is its own stamp: what was
# interrupted is done again, what is there is never touched. Labs share the cache.

HELM=3.22.0
CONTAINERD=2.4.2
CONTAINERD_1=1.7.35          # the last line of 1.x, which nodes are upgraded from
CRIO=1.34.0
# No GnuPG, no btrfs, no device mapper; and a static program needs Go's own name and user look-ups.
CRIO_TAGS="containers_image_openpgp exclude_graphdriver_btrfs exclude_graphdriver_devicemapper seccomp netgo osusergo"
CRI_DOCKERD=0.4.3            # what the stand-in says to be
NEXT_KUBELET=1.24.17         # the first minor version without dockershim
DEBIAN_GO=1.19               # of Debian, for what is as old
MODERN_GO=1.26.6             # fetched when the host has no Go this new

part() { echo "$CACHE/$1"; }

# make_part NAME FUNCTION: the function runs in the empty directory it fills.
make_part() {
    local place
    place=$(part "$1")
    [[ -d $place ]] && return 0
    mkdir -p "$CACHE/locks"
    (
        flock -w 3600 8 || die "another lab has been building $1 for an hour"
        [[ -d $place ]] || build_part "$@"
    ) 8>"$CACHE/locks/$1"
}
build_part() {
    local place building log
    place=$(part "$1") building=$place.building log=$CACHE/$1.log
    say "building $1"
    local began=$SECONDS
    rm -rf "$building"
    mkdir -p "$building"
    # A subshell of its own under `set -e`: in an `if` it would be switched off.
    set +e
    (set -e; cd "$building"; renice -n 10 "$BASHPID"; "$2") >"$log" 2>&1 8>&- 9>&-
    local status=$?
    set -e
    if ((status)); then
        tail -n 30 "$log" >&2
        die "building $1 failed; everything it said is in $log"
    fi
    mv "$building" "$place"
    say "built $1 in $((SECONDS - began)) s"
}

# What the nodes and their cluster need.
make_parts() {
    local runtime
    mkdir -p "$CACHE"
    need_packages ca-certificates curl debootstrap gcc iproute2 iptables jq libc6-dev \
        libseccomp-dev rsync unzip util-linux "golang-$DEBIAN_GO-go"
    make_part "root-bookworm-$ROOT_REVISION" build_root
    make_part "kubernetes-$KUBERNETES" build_kubernetes
    make_part "etcd-$ETCD" "build_etcd_$ETCD_FROM"
    for runtime in "$CONTROL_PLANE_RUNTIME" "$WORKER_RUNTIME"; do
        case $runtime in
            containerd | cri-dockerd) make_archive "$runtime" ;;
        esac
    done
    make_part "$(images_part)" build_images
    make_part "prometheus-bookworm" build_prometheus
    make_part "registry-bookworm" build_registry
    make_part "helm-$HELM" build_helm
}

# --- Go ---------------------------------------------------------------------

# What all builds have in common: the Go that the function prints, nothing else
# fetched to build with, and programs that run on any node.
use_go() {
    local go
    go=$("$1")
    export PATH=${go%/go}:$PATH GOTOOLCHAIN=local GOWORK=off CGO_ENABLED=0
    export GOFLAGS='-mod=mod -buildvcs=false -trimpath'
}

debian_go() { echo "/usr/lib/go-$DEBIAN_GO/bin/go"; }

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
    proxy=$("$(debian_go)" env GOPROXY | sed 's/[,|].*//')
    curl -fsSL --retry 3 -o go.zip "$proxy/golang.org/toolchain/@v/$toolchain.zip"
    unzip -q go.zip
    mv "golang.org/toolchain@$toolchain"/* .
    rm -r go.zip golang.org
    chmod -R +x bin pkg/tool
}

# --- Kubernetes -------------------------------------------------------------

# kubernetes_source VERSION: the source in ./source, so that it can be built. The
# module of Kubernetes finds its staging modules by relative paths that exist only
# in its repository; the same modules are published as v0.MINOR.PATCH.
kubernetes_source() {
    local module path
    module=$(go mod download -json "k8s.io/kubernetes@v$1" | jq -r .Dir)
    cp -r --no-preserve=mode "$module" source
    (
        cd source
        go mod edit -json |
            jq -r '.Replace[] | select(.New.Path | startswith("./staging/")) | .Old.Path' |
            while read -r path; do
                go mod edit -replace "$path=$path@v0.${1#1.}"
            done
    )
}

build_kubernetes() {
    use_go "$KUBERNETES_GO"
    kubernetes_source "$KUBERNETES"
    # Newer modules have it.
    [[ -e source/pkg/generated/openapi/zz_generated.openapi.go ]] || (cd source && generate_openapi)
    build_programs "$KUBERNETES" kubelet kubeadm kubectl kube-apiserver kube-controller-manager \
        kube-scheduler kube-proxy
}
build_next_kubelet() {
    use_go debian_go
    kubernetes_source "$NEXT_KUBELET"
    build_programs "$NEXT_KUBELET" kubelet
}

# build_programs VERSION PROGRAM…: of Kubernetes, from ./source, which goes.
build_programs() {
    local programs=("${@:2}") version
    version=(-X "k8s.io/component-base/version.gitVersion=v$1"
        -X "k8s.io/component-base/version.gitMajor=1"
        -X "k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<<"$1")"
        -X "k8s.io/component-base/version.gitTreeState=clean"
        -X "k8s.io/client-go/pkg/version.gitVersion=v$1")
    (cd source && go build -ldflags "-s -w ${version[*]}" -o ../ "${programs[@]/#/./cmd/}")
    rm -rf source
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
build_etcd_debian() { debian_file etcd-server usr/bin/etcd; }
build_prometheus() { debian_file prometheus usr/bin/promtool; }
build_registry() { debian_file docker-registry usr/bin/docker-registry; }

build_etcd_module() {
    use_go modern_go
    cp "$LAB/etcd/main.go" .
    go mod init transship.dev/lab/etcd
    go get "go.etcd.io/etcd/server/v3@v$ETCD"
    go mod tidy
    go build -ldflags '-s -w' -o etcd .
}

build_helm() {
    use_go modern_go
    GOBIN=$PWD go install \
        -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$HELM" \
        "helm.sh/helm/v3/cmd/helm@v$HELM"
}

# --- Archives ---------------------------------------------------------------

# Runtimes as their projects publish them: an archive, and its SHA-256 beside it.
# Nodes of some clusters are made from them, and tests install them.
make_archives() {
    make_archive containerd
    make_archive containerd-1
    make_archive cri-dockerd
    make_archive cri-o
}
make_archive() {
    case $1 in
        containerd) make_part "$(archive_part "$1")" build_containerd ;;
        containerd-1) make_part "$(archive_part "$1")" build_containerd_1 ;;
        cri-dockerd)
            [[ -x ${TRANSSHIP_LAB_CRI_DOCKERD:-/} ]] ||
                die "TRANSSHIP_LAB_CRI_DOCKERD names no program: $TRANSSHIP_LAB_CRI_DOCKERD"
            make_part "$(archive_part "$1")" build_cri_dockerd
            ;;
        cri-o)
            make_part "root-bookworm-$ROOT_REVISION" build_root
            make_part "$(archive_part "$1")" build_crio
            ;;
        *) die "no archive $1; there are: containerd containerd-1 cri-dockerd cri-o" ;;
    esac
}
archive() {
    make_archive "$1"
    find "$(part "$(archive_part "$1")")" -name '*.t*gz'
}
# The same as a package of Debian; only cri-dockerd, because Debian has containerd's.
package() {
    [[ $1 == cri-dockerd ]] || die "no package $1; there is: cri-dockerd"
    make_archive "$1"
    find "$(part "$(archive_part "$1")")" -name '*.deb'
}
# The kubelet that a node of 1.23 is upgraded to.
next_kubelet() {
    make_part "kubelet-$NEXT_KUBELET" build_next_kubelet >&2
    echo "$(part "kubelet-$NEXT_KUBELET")/kubelet"
}
archive_part() {
    local given=${TRANSSHIP_LAB_CRI_DOCKERD:-} sources
    case $1 in
        containerd) echo "containerd-$CONTAINERD" ;;
        containerd-1) echo "containerd-$CONTAINERD_1" ;;
        cri-o)
            sources=$(cat "$LAB/runc" "$LAB"/cri-o/* | sha256sum)
            echo "cri-o-$CRIO-$ROOT_REVISION-${sources:0:8}"
            ;;
        cri-dockerd)
            # Named after what it is made from, too.
            sources=$(find ${given:+"$given"} "$LAB/cri-dockerd" -type f -print0 | sort -z | xargs -0 cat | sha256sum)
            if [[ $given ]]; then
                echo "cri-dockerd-given-${sources:0:8}"
            else
                echo "cri-dockerd-$CRI_DOCKERD-${sources:0:8}"
            fi
            ;;
    esac
}

build_containerd() {
    local package=github.com/containerd/containerd/v2
    use_go modern_go
    GOBIN=$PWD/bin go install -ldflags "-s -w -X $package/version.Version=v$CONTAINERD" \
        "$package/cmd/"{containerd,containerd-shim-runc-v2,ctr}"@v$CONTAINERD"
    pack "containerd-$CONTAINERD-linux-amd64.tar.gz" bin
}
# In a module of our own: its own one excludes versions of others, with which nothing can be installed from outside.
build_containerd_1() {
    local package=github.com/containerd/containerd
    use_go modern_go
    go mod init transship.dev/lab/containerd
    go get "$package@v$CONTAINERD_1"
    go build -ldflags "-s -w -X $package/version.Version=v$CONTAINERD_1" -o bin/ \
        "$package/cmd/"{containerd,containerd-shim-runc-v2,ctr}
    pack "containerd-$CONTAINERD_1-linux-amd64.tar.gz" bin
}

# With crio-load, with which the lab loads images. The layout of upstream's static bundle (github.com/cri-o/packaging, templates/latest/cri-o/bundle); its own files are in cri-o/.
# What of it is missing or bent is in README.md.
build_crio() {
    local package=github.com/cri-o/cri-o module program
    use_go modern_go
    module=$(go mod download -json "$package@v$CRIO" | jq -r .Dir)
    mkdir -p cri-o/{bin,contrib,etc,completions,cni-plugins}
    go mod init transship.dev/lab/cri-o
    # With its own sums: no checksum database has two of them.
    install -m 644 "$module/go.sum" .
    go get "$package@v$CRIO"
    CGO_ENABLED=1 go build -tags "$CRIO_TAGS" -ldflags '-s -w -extldflags=-static' -o cri-o/bin/ "$package/cmd/crio"
    cp "$LAB/cri-o/load.go" .
    CGO_ENABLED=1 go build -tags "$CRIO_TAGS" -ldflags '-s -w -extldflags=-static' -o crio-load ./load.go
    gcc -std=c99 -Os -static -s -o cri-o/bin/pinns "$module"/pinns/src/*.c
    install -m 755 "$(base_root)/usr/bin/conmon" cri-o/bin/
    for program in crun runc; do install -m 755 "$LAB/runc" "cri-o/bin/$program"; done
    install -m 755 -t cri-o/cni-plugins "$(base_root)"/opt/cni/bin/*
    install -m 644 -t cri-o/etc "$LAB/cri-o/10-crio.conf" "$module"/{crictl.yaml,crio-umount.conf,contrib/sysconfig/crio}
    install -m 644 -t cri-o/contrib "$LAB"/cri-o/{10-crio-bridge.conflist.disabled,crio.service,policy.json,registries.conf}
    cp -r --no-preserve=mode "$module/completions" cri-o/
    install -m 644 -t cri-o "$module/LICENSE"
    pack "cri-o.amd64.v$CRIO.tar.gz" cri-o
}

# The stand-in needs the module of Kubernetes that still has dockershim.
build_cri_dockerd() {
    mkdir cri-dockerd
    if [[ ${TRANSSHIP_LAB_CRI_DOCKERD:-} ]]; then
        install "$TRANSSHIP_LAB_CRI_DOCKERD" cri-dockerd/cri-dockerd
    else
        use_go debian_go
        kubernetes_source 1.23.17
        cp -r "$LAB/cri-dockerd" source/cmd/
        cd source
        gofmt -l cmd/cri-dockerd | (! grep .)
        go vet ./cmd/cri-dockerd
        go build -ldflags "-s -w -X main.version=$CRI_DOCKERD" -o ../cri-dockerd/ ./cmd/cri-dockerd
        cd ..
        rm -rf source
    fi
    local version
    version=$(cri-dockerd/cri-dockerd --version | cut -d' ' -f2)
    pack "cri-dockerd-$version.amd64.tgz" cri-dockerd
    package_cri_dockerd "$version"
}

package_cri_dockerd() { # VERSION
    local units=deb/lib/systemd/system script
    mkdir -p deb/DEBIAN deb/usr/bin "$units"
    cp cri-dockerd/cri-dockerd deb/usr/bin/
    cp "$LAB"/cri-dockerd/package/cri-docker.{service,socket} "$units/"
    for script in postinst prerm postrm; do
        install -m 755 "$LAB/cri-dockerd/package/$script" deb/DEBIAN/
    done
    cat >deb/DEBIAN/control <<TEXT
Package: cri-dockerd
Version: $1~3-0~debian-bookworm
Architecture: amd64
Maintainer: nobody <nobody@localhost>
Depends: init-system-helpers
Description: CRI for Docker Engine
TEXT
    dpkg-deb --root-owner-group --build deb "cri-dockerd_$1.3-0.debian-bookworm_amd64.deb"
    rm -r deb
}

# pack ARCHIVE DIRECTORY: the same bytes for the same content.
pack() {
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -c "$2" | gzip -n >"$1"
    sha256sum "$1" >"$1.sha256sum"
}
