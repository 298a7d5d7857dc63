# shellcheck shell=bash disable=SC2034
# One node that is everything: the control plane of k123, which takes pods too.

# shellcheck source=tests/lab/clusters/k123.sh
. "$LAB/clusters/k123.sh"
WORKERS=()
