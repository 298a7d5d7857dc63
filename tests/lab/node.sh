# shellcheck shell=bash
# The life of a node: boot, power cut, commands inside it, snapshots of its disk.
#
# A node is a systemd in namespaces of its own on a root of its own, in a child
# of every cgroup hierarchy of this host (also the one named `systemd`: sharing
# it, the kubelet of one node would destroy the pods' cgroups of another).

home_of() { echo "$STATE/nodes/$1"; }
root_of() { echo "$STATE/nodes/$1/root"; }

# The process id of the node's systemd as this host sees it; fails when it is off.
pid_of() {
    local file pid
    file=$(home_of "$1")/pid
    [[ -s $file ]] || return 1
    pid=$(<"$file")
    # The number may belong to another process by now: ask for the node's cgroup.
    grep -qs "/$CGROUP/$1\(/\|$\)" "/proc/$pid/cgroup" && echo "$pid"
}
is_running() { pid_of "$1" >/dev/null; }

cgroup_mounts() { awk '$3 == "cgroup" || $3 == "cgroup2" { print $2 }' /proc/self/mounts; }
# Whether this host has nothing but the unified hierarchy of cgroup v2.
is_unified() { [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; }

# Makes the node's cgroups and prints them.
make_cgroups() {
    local hierarchy group file
    while read -r hierarchy; do
        group=$hierarchy/$CGROUP/$1
        mkdir -p "$group"
        echo "$group"
        if is_unified; then
            delegate "$hierarchy"
            delegate "$hierarchy/$CGROUP"
        fi
        # A new cpuset is empty, and an empty one takes no process.
        if [[ -e $group/cpuset.cpus && -e $hierarchy/cpuset.mems ]]; then
            for file in cpuset.cpus cpuset.mems; do
                cat "$hierarchy/$file" >"$hierarchy/$CGROUP/$file"
                cat "$hierarchy/$file" >"$group/$file"
            done
        fi
    done < <(cgroup_mounts)
}

# Gives the children of the group all of its controllers, as systemd's
# `Delegate=yes` does.
delegate() {
    local controller
    for controller in $(<"$1/cgroup.controllers"); do
        echo "+$controller" >"$1/cgroup.subtree_control" || return
    done
}

drop_cgroups() {
    local hierarchy
    while read -r hierarchy; do
        [[ -d $hierarchy/$CGROUP/${1:-} ]] || continue
        find "$hierarchy/$CGROUP/${1:-}" -depth -type d -exec rmdir {} + 2>/dev/null || true
    done < <(cgroup_mounts)
}

boot() {
    local node=$1 home launcher groups
    is_running "$node" && return 0
    home=$(home_of "$node")
    [[ -f $home/root/.transship-lab-node ]] || die "$node has no root yet: lab up"
    say "booting $node"
    make_bridge
    make_node_network "$node"
    drop_cgroups "$node"
    groups=$(make_cgroups "$node")
    mapfile -t groups <<<"$groups"
    (
        exec 9>&- </dev/null >"$home/console.log" 2>&1
        exec setsid nsenter --net="$(netns "$node")" unshare --mount --pid --uts --ipc \
            --fork --kill-child bash "$LAB/init.sh" "$node" "$home/root" "${groups[@]}"
    ) &
    launcher=$!
    if ! wait_for 10 "$node to start" first_child "$launcher" "$home/pid" ||
        ! wait_for 60 "systemd of $node" has_booted "$node"; then
        tail -n 20 "$home/console.log" >&2
        die "$node does not boot"
    fi
}

# Before it has become `unshare`, the launcher has other children.
first_child() {
    local children
    [[ $(<"/proc/$1/comm") == unshare ]] || return 1
    read -r children <"/proc/$1/task/$1/children"
    [[ -n $children ]] && echo "${children%% *}" >"$2"
}

# D-Bus answers and the boot is over; single failed units do not matter here.
has_booted() {
    is_running "$1" || { echo "its first process has ended"; return 1; }
    case $(node_exec "$1" systemctl is-system-running 2>&1) in
        running | degraded) ;;
        *) node_exec "$1" systemctl list-jobs 2>&1; return 1 ;;
    esac
}

# All processes of the node end at once: its first process is killed. With a command, as soon as that has succeeded.
power_cut() { # NODE [COMMAND…]
    local node=$1 pid
    if pid=$(pid_of "$node"); then
        (($# == 1)) || "${@:2}" || return
        kill -KILL "$pid"
        say "cut the power of $node"
        wait_for 20 "the processes of $node to end" is_dead "$node" "$pid"
    fi
    forget_processes "$node"
}
# A shutdown as an administrator asks for it: systemd stops all units in their order. With a command, as above.
shut_down() { # NODE [COMMAND…]
    local node=$1 pid
    if pid=$(pid_of "$node"); then
        (($# == 1)) || "${@:2}" || return
        node_exec "$node" systemctl start --no-block --job-mode=replace-irreversibly poweroff.target
        say "shutting $node down"
        wait_for 180 "the processes of $node to end" is_dead "$node" "$pid"
    fi
    forget_processes "$node"
}
forget_processes() {
    local node=$1
    rm -f "$(home_of "$node")/pid"
    drop_netns "$node"
    # Killed processes may take a moment to leave.
    wait_for 20 "the cgroups of $node to empty" has_no_cgroups "$node"
}
# runc freezes a container for moments; what is frozen when the power goes cannot die until it is thawed.
is_dead() {
    local group
    while read -r group; do
        echo THAWED >"$group" || true
    done < <(find /sys/fs/cgroup/freezer/"$CGROUP/$1" -name freezer.state 2>/dev/null)
    # systemd stops every process before it kills them. nsenter stops itself when its child is stopped, and then never
    # reaps it, which the node waits for.
    local entered
    while read -r entered; do
        kill -CONT "$entered" || true
    done < <(pgrep -f "^nsenter -t $2 ")
    [[ ! -e /proc/$2 ]]
}
has_no_cgroups() {
    local hierarchy left=0
    drop_cgroups "$1"
    while read -r hierarchy; do
        [[ ! -d $hierarchy/$CGROUP/$1 ]] || { echo "$hierarchy/$CGROUP/$1"; left=1; }
    done < <(cgroup_mounts)
    return $left
}

node_exec() {
    local pid
    pid=$(pid_of "$1") || die "$1 is not running"
    shift
    nsenter -t "$pid" --mount --uts --ipc --net --pid --cgroup --wdns=/ \
        env -i HOME=/root TERM="${TERM:-dumb}" LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# A snapshot is the disk as a power cut leaves it.
snapshot() {
    local node=$1 home
    home=$(home_of "$node")
    power_cut "$node"
    mkdir -p "$home/snapshots"
    rm -rf "$home/snapshots/$2" "$home/snapshots/$2.partial"
    cp -a --reflink=auto "$home/root" "$home/snapshots/$2.partial"
    mv "$home/snapshots/$2.partial" "$home/snapshots/$2"
    boot_until_ready "$node"
}

snapshots() { find "$(home_of "$1")/snapshots" -mindepth 1 -maxdepth 1 -printf '%f\n' 2>/dev/null || true; }

# make_mutable DIRECTORY: a scenario that failed may have left a file of /etc that not even root can replace.
make_mutable() { [[ ! -d $1/etc ]] || chattr -R -f -i -a "$1/etc" || true; }

restore() {
    local node=$1 home
    home=$(home_of "$node")
    [[ -d $home/snapshots/$2 ]] || die "$node has no snapshot $2"
    power_cut "$node"
    # Only what has changed since, which is little: seconds instead of a minute
    # on a busy disk.
    make_mutable "$home/root"
    rsync -aHAX --delete "$home/snapshots/$2/" "$home/root/"
    boot_until_ready "$node"
}
