# shellcheck shell=bash
# What the scenarios of CRI-O have in common. It needs common.sh, faults.sh, settled.sh and kubeadm.sh, and the directory $work.

CRIO_SOCKET=unix:///run/crio/crio.sock

# crio NODE COMMAND…: the program of the CRI-O that runs there.
# shellcheck disable=SC2016 # expanded in the node
crio() { lab exec "$1" sh -c '"$(readlink "/proc/$(pidof crio)/exe")" "$@"' crio "${@:2}"; }
# serves_on_crio NODE: it is on CRI-O with all its pods, nothing of the runtime before is left, and its images are whole.
serves_on_crio() {
    on_runtime "$1" cri-o || wait_until 60 "$1 to be Ready on CRI-O" on_runtime "$1" cri-o
    [[ $(runtime_of "$1") == cri-o://1.34.0 ]] || fail "$1 is on $(runtime_of "$1")"
    kubeadm_keeps "$1" "$CRIO_SOCKET"
    await_pods "$1"
    lab workload
    settles "$1" cri-o 120 || fail "something is left on $1, or does not serve (above)"
    starts_without_a_pull "$1"
    store_is_whole "$1"
}
# store_is_whole NODE: CRI-O, which runs there, finds nothing wrong with its images and layers.
# shellcheck disable=SC2154 # the scenario makes it
store_is_whole() { crio "$1" check >"$work/check" 2>&1 || { cat "$work/check"; fail "CRI-O finds faults in its store on $1"; }; }
# starts_without_a_pull NODE: a pod of each image that came along; nobody could pull them.
starts_without_a_pull() {
    make_pod "$1" never-one transship.dev/lab/server:1 "imagePullPolicy: Never"
    make_pod "$1" never-two transship.dev/lab/server:only-here "imagePullPolicy: Never"
    await_pods "$1" "pods of images that cannot be pulled"
    k -n lab delete pods never-one never-two --wait >/dev/null
}
# crio_reads NODE KEY VALUE: CRI-O has this setting.
crio_reads() {
    crio "$1" status config >"$work/config"
    grep -q "^ *$2 = \"$3\"" "$work/config" || { grep "$2" "$work/config"; fail "CRI-O on $1 does not have $2 = $3"; }
}
# back NODE FINGERPRINT RUNTIME: by hand; nothing of the runtime that it leaves stays.
back() {
    lab exec "$1" transship node rollback
    is_back "$@"
}
# is_back NODE FINGERPRINT RUNTIME: after a rollback.
is_back() {
    as_before "$@"
    lab workload
    settles "$1" "$3" 120 || fail "something of the runtime that it left is on $1 (above)"
}
