#!/bin/bash
# init.sh NODE ROOT CGROUP…: the first process of a node, in namespaces of its
# own but still on the root of this host. It enters the node's cgroups, lays out
# its mounts, changes over to its root and becomes its systemd.
set -euo pipefail
node=$1 root=$2

# It alone: in cgroup v2 nobody else may be in a group that systemd divides. The
# root of a new cgroup namespace is where the process is that asks for it.
if (($# > 2)); then
    for group in "${@:3}"; do echo 0 >"$group/cgroup.procs"; done
    exec unshare --cgroup bash "$0" "$node" "$root"
fi

mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
for device in null zero full random urandom tty kmsg fuse; do
    [[ -e /dev/$device ]] || continue
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0 1 2; do
    name=(stdin stdout stderr)
    ln -s "/proc/self/fd/$number" "$root/dev/${name[number]}"
done

# Fresh mounts of the host's hierarchies: they show the root of this node's
# cgroup namespace, which is the node's own cgroup.
if [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; then
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
else
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    while IFS=: read -r _ controllers _; do
        case $controllers in
            '') continue ;; # the unified hierarchy, which cgroup v1 nodes lack
            name=*) directory=${controllers#name=} options=none,$controllers ;;
            *) directory=$controllers options=$controllers ;;
        esac
        mkdir "$root/sys/fs/cgroup/$directory"
        mount -t cgroup -o "$options" cgroup "$root/sys/fs/cgroup/$directory"
    done </proc/self/cgroup
fi

# The kubelet sets these for the whole machine; here it sets a copy instead,
# because they are this host's.
mkdir "$root/run/own-sysctl"
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
    kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    cat "/proc/sys/$setting" >"$root/run/own-sysctl/${setting##*/}"
    mount --bind "$root/run/own-sysctl/${setting##*/}" "$root/proc/sys/$setting"
done
# And a boot of the node is a boot, although the kernel's own goes on.
cat /proc/sys/kernel/random/uuid >"$root/run/own-sysctl/boot_id"
mount --bind "$root/run/own-sysctl/boot_id" "$root/proc/sys/kernel/random/boot_id"

hostname "$node"
cd "$root"
mkdir -p .host
pivot_root . .host
hash -r
umount -l /.host
mount --make-rshared /

# Had anything above gone wrong unnoticed, systemd would boot this host's own
# root a second time and clean up its /tmp.
if [[ $(</.transship-lab-node) != "$node" ]]; then
    echo "this is not the root of $node" >&2
    exit 1
fi
exec env -i container=docker PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd
