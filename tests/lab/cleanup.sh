# shellcheck shell=bash
# Taking the lab down, and finding whatever of it is left on this host.

cluster_down() {
    local node
    for node in "${NODES[@]}"; do power_cut "$node"; done
    drop_netns lab
    drop_cgroups
    for node in "${NODES[@]}"; do make_mutable "$(home_of "$node")/root"; done
    rm -rf "$STATE"
    say "the lab is down"
}

# Prints what is left; fails if that is anything.
check_clean() {
    local left
    left=$(leftovers)
    [[ -z $left ]] && say "nothing of the lab is left" && return 0
    printf 'left over:\n%s\n' "$left" >&2
    return 1
}

leftovers() {
    local hierarchy process
    [[ ! -e $STATE ]] || echo "directory $STATE"
    awk -v state="$STATE" 'index($2, state "/") == 1 { print "mount " $2 }' /proc/self/mounts
    while read -r hierarchy; do
        [[ ! -d $hierarchy/$CGROUP ]] || echo "cgroup $hierarchy/$CGROUP"
    done < <(cgroup_mounts)
    for process in /proc/[0-9]*; do
        if grep -qs "/$CGROUP/" "$process/cgroup" ||
            [[ $(readlink "$process/root" 2>/dev/null) == "$STATE"/* ]]; then
            echo "process ${process#/proc/} $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null)"
        fi
    done
    # The lab makes links only inside its own network namespaces.
    ip -o link show 2>/dev/null | grep -E ": ($BRIDGE|$(IFS='|'; echo "${NODES[*]}"))[@:]" || true
    if command -v lsns >/dev/null; then
        lsns -t net -n -o NS,NSFS 2>/dev/null | grep -F "$STATE/" || true
    fi
}
