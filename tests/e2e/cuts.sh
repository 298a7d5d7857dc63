# shellcheck shell=bash
# The power of a node is cut when the journal of a switch, or of its way back, reaches a moment; nobody helps it when it boots. It needs
# common.sh and the directory $work.

# cut_at NODE MOMENT [MILLISECONDS]: from now on its power is cut so long after the moment (journal-reaches.pl).
# shellcheck disable=SC2154 # the scenario makes it
cut_at() {
    lab power-cut "$1" perl "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/journal-reaches.pl" "$(lab root "$1")" "$2" "${3:-0}" 240 \
        >"$work/cut" 2>&1 &
    cutter=$!
    # It notes the journals that are there.
    sleep 0.5
}
# dies NODE: the moment comes; prints the end of the journal; the node boots.
dies() {
    wait "$cutter" || fail "the moment of the power cut did not come on $1: $(tail -n 1 "$work/cut")"
    # shellcheck disable=SC2012 # the names are UIDs
    ls -t "$(lab root "$1")"/var/lib/transship/*/journal | sed -n 1p | xargs tail -n 1 | cut -c1-120
    lab boot "$1"
}
# begin_on NODE ARGUMENTS…: a command of Transship there, which dies with the node.
begin_on() { lab exec "$1" systemd-run --quiet --collect --unit=begin-by-hand /usr/local/bin/transship "${@:2}"; }
state_on() { lab exec "$1" transship node status -o json | jq -r .state; }
in_state_on() { [[ $(state_on "$1") == "$2" ]]; }
