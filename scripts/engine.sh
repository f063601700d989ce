#!/usr/bin/env bash
# Makes sure that a Docker engine answers. One that answers is never touched.
#
# Usage: scripts/engine.sh            install and start what is missing (Debian as root), or say what to do
#        scripts/engine.sh --state    change nothing; print one word and a detail:
#          running | startable | installable | forbidden | elsewhere | missing
#        scripts/engine.sh --clear-stale   only remove what a killed engine left behind
#
# An engine that was killed leaves a pid file and sockets behind. The kernel may have given that pid to
# another process, and dockerd trusts any /run/containerd/containerd.sock that exists: both stop a start.
# Here they are removed when, and only when, no engine owns them.
#
# For a second engine beside the machine's own (tests): AIRBRIDGE_RUN_DIR holds its socket and pid file,
# AIRBRIDGE_ENGINE_DATA its data, AIRBRIDGE_ENGINE_ARGS more dockerd options.
# AIRBRIDGE_ENGINE_LOG and AIRBRIDGE_ENGINE_TIMEOUT (seconds) apply to any engine started by hand.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lib-debian.sh
. scripts/lib-debian.sh

RUN_DIR=${AIRBRIDGE_RUN_DIR:-/var/run}
DOCKERD=${AIRBRIDGE_DOCKERD:-dockerd}
LOG=${AIRBRIDGE_ENGINE_LOG:-/var/log/airbridge-dockerd.log}
SYSTEM_CONTAINERD=${AIRBRIDGE_SYSTEM_CONTAINERD:-/run/containerd/containerd.sock}
NETWORKS=base=172.16.0.0/12,size=24
TIMEOUT=${AIRBRIDGE_ENGINE_TIMEOUT:-60} # seconds; a cold start takes 2 to 5, a recovery with containers up to 20
[ -z "${AIRBRIDGE_RUN_DIR-}" ] || export DOCKER_HOST=unix://$RUN_DIR/docker.sock

readonly HOW_TO_INSTALL='install Docker Engine 24 or newer with the compose and buildx plugins: https://docs.docker.com/engine/install/'

endpoint() {
  if [ -n "${DOCKER_HOST-}" ]; then
    printf '%s\n' "$DOCKER_HOST"
  else
    docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || printf 'unix://%s/docker.sock\n' "$RUN_DIR"
  fi
}

# Is this the endpoint of an engine that this script could start?
is_own_endpoint() {
  case "$1" in
    "unix://$RUN_DIR/docker.sock") true ;;
    unix:///run/docker.sock | unix:///var/run/docker.sock) [ "$RUN_DIR" = /var/run ] ;;
    *) false ;;
  esac
}

state() {
  local where refusal
  if command -v docker >/dev/null 2>&1 && docker_answers; then
    printf 'running %s\n' "$(within 20 docker version --format '{{.Server.Version}}')"
    return
  fi
  where=$(endpoint)
  refusal=$(within 20 docker version --format '{{.Server.Version}}' 2>&1 || true)
  if ! is_own_endpoint "$where"; then
    printf 'elsewhere %s\n' "$where"
  elif [[ $refusal == *"permission denied"* ]]; then
    printf 'forbidden %s\n' "$where"
  elif ! command -v "$DOCKERD" >/dev/null 2>&1 || ! command -v docker >/dev/null 2>&1; then
    if is_root && is_debian && [ "$(os_field VERSION_ID | cut -d. -f1)" != 11 ]; then
      printf 'installable %s\n' "$(os_field PRETTY_NAME)"
    else
      printf 'missing %s\n' "$(uname -s)"
    fi
  elif is_root; then
    printf 'startable %s\n' "$where"
  else
    printf 'forbidden %s\n' "$where"
  fi
}

# listening SOCKET: does a living process listen there? The kernel lists a socket under the path it was
# bound to, so /run and /var/run are both tried.
listening() {
  local path
  for path in "$1" "/var/run${1#/run}" "/run${1#/var/run}"; do
    if awk -v path="$path" '$4 == "00010000" && $8 == path {found = 1} END {exit !found}' /proc/net/unix; then
      return 0
    fi
  done
  return 1
}

# alive PID: neither gone nor a zombie. A killed engine is a zombie until its parent has noticed, and for
# ever where process 1 reaps nobody.
alive() { [ -n "$1" ] && awk '$1 == "State:" {found = ($2 != "Z" && $2 != "X")} END {exit !found}' "/proc/$1/status" 2>/dev/null; }

# owner PIDFILE NAME: pid of the living process NAME that the file points to; fails when there is none.
owner() {
  local pid
  [ -r "$1" ] || return 1
  pid=$(tr -cd '0-9' <"$1")
  alive "$pid" && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$2" ] || return 1
  printf '%s\n' "$pid"
}

# Removes what a killed engine left. Prints what it removed.
clear_stale() {
  local socket
  if owner "$RUN_DIR/docker.pid" "$(basename "$DOCKERD")" >/dev/null; then return; fi
  for pidfile in "$RUN_DIR/docker.pid:$(basename "$DOCKERD")" "$RUN_DIR/docker/containerd/containerd.pid:containerd"; do
    if [ -e "${pidfile%%:*}" ] && ! owner "${pidfile%%:*}" "${pidfile##*:}" >/dev/null; then
      rm -f "${pidfile%%:*}"
      say engine "removed the stale ${pidfile%%:*}"
    fi
  done
  for socket in "$RUN_DIR/docker.sock" "$RUN_DIR/docker/containerd/containerd.sock" "$SYSTEM_CONTAINERD"; do
    if [ -S "$socket" ] && ! listening "$socket"; then
      rm -f "$socket"
      say engine "removed the stale $socket"
    fi
  done
}

# The engine must outlive the shell, the terminal and the CI step that started it, and must hold none of
# their pipes open (a CI runner waits until the last writer is gone): own session, no inherited descriptor.
# Prints the engine's pid.
start_by_hand() (
  more=()
  [ -z "${AIRBRIDGE_RUN_DIR-}" ] || more+=(--host "unix://$RUN_DIR/docker.sock" --pidfile "$RUN_DIR/docker.pid" --exec-root "$RUN_DIR/docker")
  [ -z "${AIRBRIDGE_ENGINE_DATA-}" ] || more+=(--data-root "$AIRBRIDGE_ENGINE_DATA")
  # Docker's own pools are 31 networks; a control plane takes seven and each edge host one, so that two or three
  # stacks on one machine use them up. The same addresses in smaller pieces, unless the machine says otherwise.
  grep -qs default-address-pools /etc/docker/daemon.json || more+=(--default-address-pool "$NETWORKS")
  read -r -a given <<<"${AIRBRIDGE_ENGINE_ARGS-}"
  for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
  done
  cd /
  unset MAKEFLAGS MAKELEVEL MFLAGS
  ulimit -n 1048576 2>/dev/null || true
  setsid "$DOCKERD" ${more[@]+"${more[@]}"} ${given[@]+"${given[@]}"} </dev/null >>"$LOG" 2>&1 &
  printf '%s\n' "$!"
)

start() {
  local pid='' waited=0
  if [ -d /run/systemd/system ] && [ -z "${AIRBRIDGE_RUN_DIR-}" ]; then
    systemctl reset-failed docker.service docker.socket 2>/dev/null || true
    systemctl start docker || die "systemd could not start the engine" "journalctl -u docker -n 50"
  else
    # One that lives but does not answer yet is given its time, and is never killed.
    if ! pid=$(owner "$RUN_DIR/docker.pid" "$(basename "$DOCKERD")"); then
      mkdir -p "$RUN_DIR" "$(dirname "$LOG")"
      printf 'engine.sh starts %s at %s\n' "$DOCKERD" "$(date -u +%FT%TZ)" >>"$LOG"
      pid=$(start_by_hand)
    fi
  fi
  until docker_answers; do
    # dockerd ends by itself when it cannot start: no need to wait for the whole time then.
    if [ -n "$pid" ] && ! alive "$pid"; then
      tail -n 15 "$LOG" >&2 || true
      die "the engine stopped while it was starting" "read its last lines above; the whole log is $LOG"
    fi
    if [ "$waited" -ge "$TIMEOUT" ]; then
      tail -n 15 "$LOG" >&2 || true
      die "the engine did not answer within $TIMEOUT s" "read its last lines above; the whole log is $LOG"
    fi
    sleep 1
    waited=$((waited + 1))
  done
}

install_engine() {
  say engine "installing from Debian's packages ($(os_field PRETTY_NAME))"
  # iptables is only recommended by docker.io, yet no container network works without it.
  logged engine-install apt_private_install docker.io docker-cli docker-compose docker-buildx iptables ||
    die "the engine could not be installed" "check that this machine reaches its Debian mirror ($(debian_mirror)), or $HOW_TO_INSTALL"
  hash -r
}

main() {
  local found detail
  read -r found detail < <(state)
  case "$found" in
    running)
      say engine "running, version $detail"
      return
      ;;
    elsewhere) die "no engine answers at $detail" "start it, or unset DOCKER_HOST and choose another docker context" ;;
    forbidden) die "this user may not use the engine at $detail, or it is stopped" "run as root, or add the user to the group docker and log in again" ;;
    missing) die "there is no Docker engine" "$HOW_TO_INSTALL" ;;
  esac
  # Two calls at once must not install or start twice.
  mkdir -p "$RUN_DIR"
  exec 9>"$RUN_DIR/airbridge-engine.lock"
  flock --wait 300 9 || die "another run has been setting up the engine for 300 s" "see what holds $RUN_DIR/airbridge-engine.lock"
  read -r found detail < <(state)
  if [ "$found" = installable ]; then
    install_engine
    read -r found detail < <(state)
  fi
  if [ "$found" != running ]; then
    clear_stale
    start
  fi
  say engine "started, version $(docker version --format '{{.Server.Version}}')"
}

case "${1-}" in
  --state) state ;;
  --clear-stale) clear_stale ;;
  "") main ;;
  *) die "engine.sh does not know '$1'" "use no argument, --state or --clear-stale" ;;
esac
