# shellcheck shell=bash
# Installs what building and testing Transship needs on a Debian machine; sourced by `tests/demo` and `tests/all`.
# What the lab needs it installs itself.

ROOT=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
TRIPLE=$(uname -m)-unknown-linux-gnu
# The static binary that is shipped.
BINARY=${CARGO_TARGET_DIR:-$ROOT/target}/$TRIPLE/release/transship

step() { printf '\n\033[1m=== %s\033[0m\n' "$*"; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

setup() {
    [[ $(id -u) == 0 ]] || die "root is needed: the lab makes namespaces, mounts and cgroups"
    command -v apt-get >/dev/null || die "this command installs Debian packages, and there is no apt-get here"
    step "What the build needs"
    local missing=() package
    for package in build-essential ca-certificates createrepo-c curl dnf git gnupg jq protobuf-compiler rpm shellcheck; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
    done
    if ((${#missing[@]})); then
        echo "installing Debian packages: ${missing[*]}"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    fi
    PATH=$PATH:$HOME/.cargo/bin
    if ! command -v cargo >/dev/null; then
        echo "installing Rust with rustup"
        curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path
    fi
    (cd "$ROOT" && cargo --version) || die "the toolchain named in rust-toolchain.toml is not there: run 'rustup toolchain install'"
}

# The static binary that is shipped: it runs on every distribution's host, whatever its C library.
build_static() {
    step "Building the static binary (release)"
    (cd "$ROOT" && RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$TRIPLE")
    ls -l "$BINARY"
}
