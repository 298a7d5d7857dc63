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
    for package in apparmor build-essential ca-certificates createrepo-c curl dnf git gnupg jq protobuf-compiler rpm shellcheck; do
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
    local registry=${CARGO_HOME:-$HOME/.cargo} target=${CARGO_TARGET_DIR:-$ROOT/target} path
    local flags="-C target-feature=+crt-static"
    # Paths of this machine are nobody's business, and a build on another one must give the same bytes. Cargo names the
    # project's own files relative to the project, and a flag that names the clone would build all dependencies again.
    for path in "$target=/target" "$registry=/cargo"; do
        flags+=" --remap-path-prefix=$path"
    done
    (cd "$ROOT" && RUSTFLAGS=$flags cargo build --release --locked --target "$TRIPLE")
    for path in "$ROOT" "$target" "$registry"; do
        ! grep -qaF "$path/" "$BINARY" || die "the binary $BINARY holds paths below $path"
    done
    ls -l "$BINARY"
}

# A bill of materials of the static binary (CycloneDX 1.5): the crates that are linked into it or wrote a part of it.
sbom() {
    (
        cd "$ROOT" || exit
        version=$(cargo pkgid | sed 's/.*[#@]//')
        checksums=$(awk -F'"' '/^name = /{n=$2} /^version = /{v=$2} /^checksum = /{print n "\t" v "\t" $2}' Cargo.lock)
        cargo tree --locked --edges normal --target "$TRIPLE" --prefix none --format '{p}|{l}' |
            sed -E 's/ \(\*\)$//; s/ \((proc-macro|\/[^)]*)\)//g' | sort -u | grep -v '^transship ' |
            jq -Rn --arg version "$version" --arg checksums "$checksums" '
                ($checksums | split("\n") | map(split("\t")) | map({ key: "\(.[0]) v\(.[1])", value: .[2] }) | from_entries) as $sums
                | { bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
                    metadata: { component: { type: "application", name: "transship", version: $version } },
                    components: [inputs | split("|") as [$crate, $license] | ($crate | split(" v")) as [$name, $version]
                        | { type: "library", name: $name, version: $version, purl: "pkg:cargo/\($name)@\($version)",
                            licenses: [{ expression: ($license | gsub("/"; " OR ")) }],
                            hashes: [$sums[$crate] // empty | { alg: "SHA-256", content: . }] }] }'
    ) >"$BINARY.cdx.json"
    jq -e '.components | length > 100 and all(.hashes | length == 1)' "$BINARY.cdx.json" >/dev/null ||
        die "the bill of materials $BINARY.cdx.json is not whole"
    echo "$BINARY.cdx.json"
}

# The documentation of the code, private items included; a link that leads nowhere is an error.
check_rustdoc() {
    step "Documentation of the code (rustdoc)"
    (cd "$ROOT" && RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --document-private-items --lib --locked)
}

# typos in the version that is named here, built once and kept.
TYPOS_VERSION=1.42.3
TYPOS=$HOME/.cache/transship/typos-$TYPOS_VERSION/bin/typos

# Misspelled words in code, comments and documents (typos.toml).
check_spelling() {
    step "Spelling"
    [[ -x $TYPOS ]] || (cd "$ROOT" && cargo install typos-cli --version "$TYPOS_VERSION" --locked --root "${TYPOS%/bin/*}")
    (cd "$ROOT" && "$TYPOS")
}

# cargo-deny in the version that is named here, built once and kept.
DENY_VERSION=0.20.2
DENY=$HOME/.cache/transship/cargo-deny-$DENY_VERSION/bin/cargo-deny

# Licences, bans and sources of the dependencies (deny.toml) always; advisories where their database can be fetched.
check_dependencies() {
    step "Dependencies: licences, bans, sources, advisories"
    [[ -x $DENY ]] || cargo install cargo-deny --version "$DENY_VERSION" --locked --root "${DENY%/bin/*}"
    (cd "$ROOT" && "$DENY" --locked check licenses bans sources)
    if (cd "$ROOT" && timeout 120 "$DENY" fetch db); then
        (cd "$ROOT" && "$DENY" --locked check --disable-fetch advisories)
    else
        echo "NOT CHECKED: advisories; their database (github.com/rustsec/advisory-db) cannot be fetched from here"
    fi
}
