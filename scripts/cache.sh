#!/usr/bin/env bash
# Says how large the cache of an edge host on this machine is, or clears it.
# Usage: scripts/cache.sh [NAME]      (default: local)
#   DAYS=7   remove what was neither read nor written for so many days
#   CLEAR=1  remove everything
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

name=${1:-local}
[ -r "$(edge_dir "$name")/edge.env" ] || die "there is no edge host '$name' on this machine" "make edge NAME=$name makes one; make status lists them"
options=()
[ -z "${DAYS-}" ] || options+=(--unused-for-days "$DAYS")
[ -z "${CLEAR-}" ] || options+=(--clear)
# A container of its own: the cache may be what keeps the worker from taking tasks, or is there without a worker.
edge_compose "$name" run --rm --no-deps -T edge-worker python -m airbridge.edge cache ${options[@]+"${options[@]}"} || exit
