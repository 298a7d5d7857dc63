# shellcheck shell=bash
# Common ground of the lab: where things lie, how it speaks, how it waits.

# shellcheck disable=SC2034 # used by the other files
CACHE=${TRANSSHIP_CACHE:-$HOME/.cache/transship}
CLUSTER=${TRANSSHIP_CLUSTER:-k123}
STATE=${TRANSSHIP_LAB:-/var/lib/transship-lab-$CLUSTER}
# shellcheck disable=SC2034 # the same
CGROUP=$(basename "$STATE")   # two labs with other states do not meet

# Progress goes to standard error, so that the output of `lab exec` and
# `lab kubectl` stays the command's own.
say() { printf '%4ds  %s\n' "$SECONDS" "$*" >&2; }
die() { printf 'lab: %s\n' "$*" >&2; exit 1; }

# wait_for SECONDS WHAT COMMAND...: tries the command until it succeeds.
# On failure it says what it waited for and shows the last output.
wait_for() {
    local seconds=$1 what=$2 output=''
    shift 2
    local deadline=$((SECONDS + seconds))
    until output=$("$@" 2>&1); do
        if ((SECONDS >= deadline)); then
            printf 'lab: waited %ss for %s; the last answer was:\n%s\n' \
                "$seconds" "$what" "$output" >&2
            return 1
        fi
        sleep 0.3
    done
}

# Installs the Debian packages of the lab that this host lacks.
need_packages() {
    local missing=() package
    for package; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null |
            grep -qx installed || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null ||
        die "these Debian packages are missing, and there is no apt-get: ${missing[*]}"
    say "installing Debian packages: ${missing[*]}"
    {
        apt-get -o DPkg::Lock::Timeout=300 update
        DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install \
            -y --no-install-recommends "${missing[@]}"
    } >"$CACHE/apt.log" 2>&1 || {
        tail -n 20 "$CACHE/apt.log" >&2
        die "could not install: ${missing[*]}"
    }
}

# Only one `lab` at a time may change a lab. The lock lies in the cache, because
# `lab down` removes the state. Nodes must not inherit the descriptor: they would
# hold the lock for as long as they run.
lock() {
    mkdir -p "$CACHE/locks"
    exec 9>"$CACHE/locks/$CGROUP"
    flock -w 900 9 || die "another lab command has been running for 15 minutes"
}
