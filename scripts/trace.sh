#!/usr/bin/env bash
# The whole way of an attempt at a task, from the logs of the control plane, of the edge hosts on this machine
# and of the task itself, in the order of time.
# Usage: ID=0199...        scripts/trace.sh      the correlation id of one attempt
#        TASK=DAG/RUN/TASK scripts/trace.sh      all tries of a task; DAG/RUN/TASK/7 for a mapped one
#        JSON=1            one JSON document, with each line as it was written
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

asked=${ID:-${TASK-}}
[ -n "$asked" ] || die "no attempt at a task was named" "make trace ID=... or TASK=DAG/RUN/TASK"
options=()
[ -z "${JSON-}" ] || options+=(--json)

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
control_compose exec -T api-server airbridge-env python -m airbridge.controlplane attempts "$asked" \
  </dev/null >"$folder/attempts.json" || exit

logs=()
# collect HOST COMMAND...: the logs of one compose project.
collect() {
  local host=$1
  shift
  "$@" logs --timestamps --no-color >"$folder/$host.log" 2>/dev/null || true
  logs+=("$host=$folder/$host.log")
}
collect control-plane control_compose
for name in $(edge_names); do collect "$name" edge_compose "$name"; done
.venv/bin/python -m airbridge.trace ${options[@]+"${options[@]}"} "$folder/attempts.json" "${logs[@]}"
