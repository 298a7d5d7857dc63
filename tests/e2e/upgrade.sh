# shellcheck shell=bash disable=SC2154 # the scenario sets $work, put_archive $archive and $sha256
# containerd is upgraded in place: how it is begun by hand, and what must be the same afterwards.

on() { lab exec "$@"; }
state() { on "$1" transship node status -o json | jq -r .state; }
in_state() { [[ $(state "$1") == "$2" ]]; }
upgrade() { # NODE ARGUMENTS…
    on "$1" transship node switch --yes --archive "file://$archive" --sha256 "$sha256" "${@:2}" | sed '/^Node w[12]:/,/^Plan sha256/d'
}
# awaiting NODE: the upgrade waits for its commit; the command that began it waits as long.
awaiting() {
    on "$1" systemd-run --quiet --collect --unit=start-switch /usr/local/bin/transship node switch --yes --archive "file://$archive" \
        --sha256 "$sha256" --confirm=manual --confirm-within 600s
    wait_until 120 "the upgrade of $1 to wait for its commit" in_state "$1" awaitingCommit
}
version_is() { [[ $(runtime_of "$1") == "containerd://$2" ]]; }
settled_on() { # NODE VERSION
    wait_until 180 "$1 to be Ready on containerd $2" eval "ready $1 && version_is $1 $2"
    await_pods "$1"
}
begin() { # NODE: what must be the same afterwards
    count_in_the_log "$1"
    tasks "$1" >"$work/tasks"
    restarts "$1" >"$work/restarts"
    begin_asking "$1"
    begin_asking_cri "$1"
    ready_since "$1" >"$work/ready"
}
nothing_ended() { # NODE
    same_tasks "$1" "$work/tasks"
    same_restarts "$1" "$work/restarts"
    say "$1: the CRI did not answer for at most $(cri_away "$1") ms"
    all_answered
    log_is_whole
    ready_since "$1" | cmp -s - "$work/ready" || fail "the Node $1 was not Ready all the time"
}
# After a boot the API still has what was true before it.
as_many_tasks() { (($(tasks "$1" | wc -l) >= $(wc -l <"$work/tasks"))); }
