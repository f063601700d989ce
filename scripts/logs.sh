#!/usr/bin/env bash
# Logs of the control plane and of the edge hosts on this machine.
# Usage: scripts/logs.sh      SERVICE="scheduler gateway"  only these     NAME=local  an edge host's
#                             TAIL=200  lines a service                   FOLLOW=1    go on as they come
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

options=(--tail "${TAIL:-200}" --timestamps)
[ -z "${FOLLOW-}" ] || options+=(--follow)
read -r -a services <<<"${SERVICE-}"
if [ -n "${NAME-}" ]; then
  edge_compose "$NAME" logs "${options[@]}" ${services[@]+"${services[@]}"}
else
  control_compose logs "${options[@]}" ${services[@]+"${services[@]}"}
  if [ -z "${FOLLOW-}${SERVICE-}" ]; then
    for name in $(edge_names); do edge_compose "$name" logs "${options[@]}"; done
  fi
fi
