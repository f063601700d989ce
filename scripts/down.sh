#!/usr/bin/env bash
# Stops the edge hosts on this machine, which finish or hand back their tasks, then the control plane.
# Usage: scripts/down.sh            all data stays: database, S3, secrets
#        scripts/down.sh --destroy  the data goes too; asks first, unless FORCE=1
# TIMEOUT  seconds that a service may take to end before it is killed. Default: what the compose files say,
#          which gives an edge host 345 s to finish its tasks; 10 with --destroy, where nothing is kept.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

options=(--remove-orphans) destroy=''
case "${1-}" in
  --destroy) destroy=yes ;;
  "") ;;
  *) die "down.sh does not know '$1'" "use no argument, or --destroy" ;;
esac

if [ -n "$destroy" ]; then
  if [ "${FORCE-}" != 1 ]; then
    [ -t 0 ] || die "destroy deletes the database, S3 and all secrets of $PROJECT, and there is no terminal to ask" "make destroy FORCE=1"
    read -r -p "Delete the database, S3 (DAGs and logs) and all secrets of '$PROJECT'? Type the name to go on: " answer
    [ "$answer" = "$PROJECT" ] || die "nothing was deleted" "type $PROJECT, or use FORCE=1"
  fi
  options+=(--volumes)
  TIMEOUT=${TIMEOUT:-10}
fi
[[ "${TIMEOUT-}" =~ ^[0-9]*$ ]] || die "TIMEOUT='$TIMEOUT' is no number of seconds" "make down TIMEOUT=30"
[ -z "${TIMEOUT-}" ] || options+=(--timeout "$TIMEOUT")
docker_answers || die "no Docker engine answers" "scripts/engine.sh starts it; what it held is still there"

# All hosts at once: each may take as long as its longest running task.
stop_host() {
  logged "down-$1" edge_compose "$1" --profile '*' down "${options[@]}" || return
  [ -z "$destroy" ] || rm -rf "$(edge_dir "$1")"
  say edge "host $1 stopped"
}
stopping=()
for name in $(edge_names); do
  [ -n "$destroy" ] || say edge "host $name finishes its tasks (TIMEOUT=10 does not wait for them)"
  stop_host "$name" &
  stopping+=("$!")
done
# Waited for one by one: a host that could not be stopped keeps the control plane running.
for pid in ${stopping[@]+"${stopping[@]}"}; do
  wait "$pid" || die "an edge host could not be stopped" "read the lines above, then make down again"
done
logged down control_compose --profile '*' down "${options[@]}"
if [ -n "$destroy" ]; then
  rm -f "$STATE_DIR/$PROJECT.password-shown"
  rmdir "$(bundles_dir)" 2>/dev/null || true
  # Credentials of publishers that nobody knows any more.
  publishers=$(dirname "$(publisher_dir any)")
  for dir in "$publishers"/*/; do [ ! -e "$dir/publisher.env" ] || rm -rf "$dir"; done
  rmdir "$publishers" 2>/dev/null || true
  say down "stopped, all data deleted"
else
  say down "stopped, all data kept"
fi
