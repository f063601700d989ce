#!/usr/bin/env bash
# Checks every part of the connection of an edge host on this machine. Exit code 0 only when all pass.
# Usage: scripts/diag.sh [NAME]      (default: local; JSON=1 prints one JSON document)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

name=${1:-local}
[ -r "$(edge_dir "$name")/edge.env" ] || die "there is no edge host '$name' on this machine" "make edge NAME=$name makes one; make status lists them"
options=()
[ -z "${JSON-}" ] || options+=(--json)
# A container of its own: diag must also work, and most of all, when the worker does not start or starts
# over and over. Its exit code is the answer, not a failure of this step.
edge_compose "$name" run --rm --no-deps -T edge-worker diag ${options[@]+"${options[@]}"} || exit
