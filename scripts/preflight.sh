#!/usr/bin/env bash
# Looks at this machine before anything is changed, and changes nothing. Every problem is one line: what
# is wrong, and what to do. All of them are shown at once.
#
# Usage: scripts/preflight.sh [--json] [--problems] [--no-ports]
#   --json      {"ok": bool, "checks": [{"name", "ok", "detail", "fix"}]} on stdout
#   --problems  print the problems only
#   --no-ports  leave the ports out (tests choose ports of their own)
# Exit code: 0 all well, 1 at least one problem, 2 wrong usage.
#
# Limits, overridable in the environment:
#   AIRBRIDGE_MIN_MEMORY_MIB  3584: control plane 1.6 GiB, an edge host 0.3 GiB, the rest for a build; a
#                             machine sold with 4 GiB shows a little less
#   AIRBRIDGE_MIN_DISK_MIB    10240 for images, build cache and volumes; 2048 once the images are built
#   AIRBRIDGE_MIN_COMPOSE     2.20.0, the first with everything that compose.yaml uses
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

MIN_MEMORY_MIB=${AIRBRIDGE_MIN_MEMORY_MIB:-3584}
MIN_COMPOSE=${AIRBRIDGE_MIN_COMPOSE:-2.20.0}
json='' problems='' ports=yes
for argument in "$@"; do
  case "$argument" in
    --json) json=yes ;;
    --problems) problems=yes ;;
    --no-ports) ports='' ;;
    *)
      echo "error: preflight.sh does not know '$argument' | fix: use --json, --problems, --no-ports" >&2
      exit 2
      ;;
  esac
done

failed=0 rows=''

escape() { printf '%s' "$1" | tr -d '\000-\037' | sed 's/\\/\\\\/g; s/"/\\"/g'; }

# report NAME ok DETAIL | report NAME FAIL DETAIL FIX
report() {
  local name=$1 verdict=$2 detail=$3 fix=${4-} ok=true
  if [ "$verdict" != ok ]; then
    ok=false
    failed=1
  fi
  if [ -n "$json" ]; then
    rows="$rows${rows:+, }{\"name\": \"$name\", \"ok\": $ok, \"detail\": \"$(escape "$detail")\", \"fix\": \"$(escape "$fix")\"}"
  elif [ "$ok" = false ]; then
    printf 'FAIL  %-8s %s | fix: %s\n' "$name" "$detail" "$fix"
  elif [ -z "$problems" ]; then
    printf 'ok    %-8s %s\n' "$name" "$detail"
  fi
}

# at_least HAVE WANTED: dotted versions.
at_least() {
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -t. -k1,1n -k2,2n -k3,3n | head -n 1)" = "$2" ]
}

check_engine() {
  local found detail
  read -r found detail < <(scripts/engine.sh --state)
  engine=$found
  case "$found" in
    running) report engine ok "version $detail answers" ;;
    startable) report engine ok "installed and stopped: it will be started" ;;
    installable) report engine ok "not there: it will be installed from Debian's packages ($detail)" ;;
    forbidden) report engine FAIL "this user may not use the engine at $detail, or it is stopped" "run as root, or add the user to the group docker and log in again" ;;
    elsewhere) report engine FAIL "no engine answers at $detail" "start it, or unset DOCKER_HOST and choose another docker context" ;;
    *) report engine FAIL "there is no Docker engine" "install Docker Engine 24 or newer with the compose and buildx plugins: https://docs.docker.com/engine/install/" ;;
  esac
}

check_plugins() {
  local version install='install the docker compose plugin (Debian: docker-compose 2.20 or newer; Docker: docker-compose-plugin)'
  case "$engine" in running | startable) ;; *) return ;; esac # else it comes with the engine
  version=$(docker compose version --short 2>/dev/null | sed 's/^v//; s/[^0-9.].*$//' || true)
  if [ -z "$version" ]; then
    report compose FAIL "the docker command has no compose plugin" "$install"
  elif ! at_least "$version" "$MIN_COMPOSE"; then
    report compose FAIL "docker compose is $version, and $MIN_COMPOSE is needed" "$install"
  else
    report compose ok "version $version"
  fi
  if docker buildx version >/dev/null 2>&1; then
    report buildx ok "$(docker buildx version | awk '{print $2}')"
  else
    report buildx FAIL "the docker command has no buildx plugin, which builds the images" "install it (Debian: docker-buildx; Docker: docker-buildx-plugin)"
  fi
}

# listeners PORT ADDRESS: local addresses that a listener on ADDRESS:PORT would collide with, from the
# kernel's tables; where there are none (macOS), whether something accepts connections.
listeners() {
  local hex
  hex=$(printf '%04X' "$1")
  if [ -r /proc/net/tcp ]; then
    cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port="$hex" -v wanted="$2" '
      $4 == "0A" {
        split($2, local, ":")
        if (local[2] != port) next
        everywhere = (local[1] ~ /^0+$/)
        loopback = (local[1] == "0100007F" || local[1] == "0000000000000000FFFF00000100007F")
        if (wanted != "127.0.0.1" || everywhere || loopback) print local[1]
      }'
  elif (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
    echo "127.0.0.1"
  fi
}

# check_port SETTING PORT ADDRESS WHAT
check_port() {
  local setting=$1 port=$2 address=$3 what=$4 row owner='' project='' process=''
  case "$port" in
    '' | *[!0-9]*) report port FAIL "$setting is '$port', which is no port number" "set it to a number from 1 to 65535 in $ENV_FILE or the environment" && return ;;
  esac
  if [ "$port" -lt 1 ] || [ "$port" -gt 65535 ]; then
    report port FAIL "$setting is $port, which is no port number" "set it to a number from 1 to 65535 in $ENV_FILE or the environment"
    return
  fi
  if [ "$engine" = running ]; then
    row=$(docker ps --format '{{.Names}} {{.Label "com.docker.compose.project"}} {{.Ports}}' | grep -E ":$port->" | head -n 1 || true)
    read -r owner project _ <<<"$row"
    if [ -n "$owner" ] && [ "$project" = "$PROJECT" ]; then
      report port ok "$port ($what) is held by this stack"
      return
    fi
  fi
  if [ -z "$(listeners "$port" "$address")" ] && [ -z "$owner" ]; then
    report port ok "$port ($what) is free"
    return
  fi
  if [ -n "$owner" ]; then
    process=" by the container $owner"
  elif command -v ss >/dev/null 2>&1; then
    process=$(ss -Hltnp "sport = :$port" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/ by \1 (pid \2)/p' | head -n 1)
  fi
  report port FAIL "port $port ($what) is taken$process" "stop what holds it, or set $setting to a free port in $ENV_FILE or the environment"
}

check_memory() {
  local total=''
  if [ "$engine" = running ]; then
    total=$(within 20 docker info --format '{{.MemTotal}}' 2>/dev/null || true)
    [ -z "$total" ] || total=$((total / 1048576))
  fi
  [ -n "$total" ] || total=$(awk '/^MemTotal:/ {print int($2 / 1024)}' /proc/meminfo 2>/dev/null || true)
  if [ -z "$total" ]; then
    report memory ok "unknown on this system"
  elif [ "$total" -lt "$MIN_MEMORY_MIB" ]; then
    report memory FAIL "$total MiB of memory, and $MIN_MEMORY_MIB MiB are needed" "give the machine (or Docker Desktop) more memory"
  else
    report memory ok "$total MiB"
  fi
}

check_disk() {
  local root=/var/lib/docker needed=10240 free
  if [ "$engine" = running ]; then
    root=$(within 20 docker info --format '{{.DockerRootDir}}' 2>/dev/null || echo "$root")
    if docker image inspect "airbridge/airflow:$(setting AIRBRIDGE_VERSION 0.1.0)" >/dev/null 2>&1; then needed=2048; fi
  fi
  needed=${AIRBRIDGE_MIN_DISK_MIB:-$needed}
  # The engine's folder may not exist yet, or may be inside a virtual machine: its nearest parent counts.
  while [ ! -d "$root" ]; do root=$(dirname "$root"); done
  free=$(df -Pk "$root" | awk 'NR == 2 {print int($4 / 1024)}')
  if [ "$free" -lt "$needed" ]; then
    report disk FAIL "$free MiB free at $root, and $needed MiB are needed" "free some space: docker system df shows what the engine holds, docker builder prune frees old build cache"
  else
    report disk ok "$free MiB free at $root"
  fi
}

check_python() {
  if command -v uv >/dev/null 2>&1; then
    report python ok "uv brings Python 3.11"
  elif python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; then
    report python ok "$(python3 --version 2>&1)"
  else
    report python FAIL "there is no python3 (3.9 or newer) and no uv" "install one: apt-get install python3 python3-venv"
  fi
}

engine=
check_engine
check_plugins
if [ -n "$ports" ]; then
  check_port AIRBRIDGE_UI_PORT "$UI_PORT" "$(setting AIRBRIDGE_UI_BIND 127.0.0.1)" "web UI"
  check_port AIRBRIDGE_GATEWAY_PORT "$GATEWAY_PORT" "$(setting AIRBRIDGE_GATEWAY_BIND 0.0.0.0)" "edge endpoint"
fi
check_memory
check_disk
check_python
if [ -n "$json" ]; then
  if [ "$failed" -eq 0 ]; then verdict=true; else verdict=false; fi
  printf '{"ok": %s, "checks": [%s]}\n' "$verdict" "$rows"
fi
exit "$failed"
