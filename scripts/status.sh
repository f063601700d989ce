#!/usr/bin/env bash
# What runs, and how it is: the control plane and the edge hosts on this machine.
# Exit code: 0 when every service that should run is up and healthy, 1 otherwise.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

docker_answers || die "no Docker engine answers" "make up"
sick=0
show() { # TITLE, then the lines of compose ps
  local rows=$1 title=$2
  printf '%s\n' "$title"
  if [ -z "$rows" ]; then
    printf '  not running\n'
    sick=1
    return
  fi
  printf '%s\n' "$rows" | awk -F '\t' '{printf "  %-16s %-10s %-10s %s\n", $1, $2, $3, $4}'
  if printf '%s\n' "$rows" | awk -F '\t' '
    $2 == "exited" && $5 == 0 {next}
    $2 != "running" || ($3 != "" && $3 != "healthy") {bad = 1}
    END {exit !bad}'; then sick=1; fi
}
readonly FORMAT='{{.Service}}\t{{.State}}\t{{.Health}}\t{{.Status}}\t{{.ExitCode}}'
show "$(control_compose ps --all --format "$FORMAT")" "control plane ($PROJECT), web UI http://localhost:$UI_PORT"
for name in $(edge_names); do
  show "$(edge_compose "$name" ps --all --format "$FORMAT")" "edge host $name"
done
exit "$sick"
