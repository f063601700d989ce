# shellcheck shell=bash
# Shared by the steps in this folder: sourced, never run. Strict mode, the project's root as working
# directory, one plain line a step, settings as docker compose sees them.
#
# Settings are looked up as compose does it: environment, then .env, then the default. So a step and
# the stack that it starts never disagree about a port or a project name.
set -Eeuo pipefail
# No step ends without a word: what nobody thought of names at least its place.
trap 'printf "error: %s stopped at line %s with exit code %s | fix: bash -x shows why: bash -x %s\n" "$0" "$LINENO" "$?" "$0" >&2' ERR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# What the steps leave behind for people: logs of builds and starts. Git-ignored.
readonly STATE_DIR=.airbridge
ENV_FILE=${AIRBRIDGE_ENV_FILE:-.env}

# Elapsed time counts from the first step of one `make` call, also in the scripts that it calls.
export AIRBRIDGE_STARTED="${AIRBRIDGE_STARTED:-$(date +%s)}"

# say STEP TEXT: one plain line with the elapsed seconds.
say() { printf '[%4d s] %-13s %s\n' "$(($(date +%s) - AIRBRIDGE_STARTED))" "$1" "$2"; }

# die WHAT FIX: one line that says what is wrong and what to do; exit code 1.
die() {
  printf 'error: %s | fix: %s\n' "$1" "$2" >&2
  exit 1
}

# setting NAME DEFAULT: value of one setting.
setting() {
  local value=${!1-}
  if [ -z "$value" ] && [ -r "$ENV_FILE" ]; then
    value=$(sed -n "s/^[[:space:]]*\(export[[:space:]]\)\{0,1\}[[:space:]]*$1[[:space:]]*=[[:space:]]*//p" "$ENV_FILE" | tail -n 1)
    value=${value%$'\r'}
    case "$value" in
      \"*\"*) value=${value#\"} value=${value%%\"*} ;;
      \'*\'*) value=${value#\'} value=${value%%\'*} ;;
      *) value=$(printf '%s' "$value" | sed 's/[[:space:]]#.*$//; s/[[:space:]]*$//') ;;
    esac
  fi
  printf '%s\n' "${value:-$2}"
}

# within SECONDS COMMAND...: the command, ended after that time where the machine can do so.
within() {
  local seconds=$1
  shift
  if command -v timeout >/dev/null 2>&1; then timeout "$seconds" "$@"; else "$@"; fi
}

# logged NAME COMMAND...: output goes to .airbridge/log/NAME.log (V=1: to the terminal as well); a
# failure shows the end of it. Another project than the default has a folder of its own there. Returns
# the command's exit code.
logged() {
  local name=$1 dir=$STATE_DIR/log log code=0
  [ "$PROJECT" = airbridge ] || dir=$dir/$PROJECT
  log=$dir/$1.log
  shift
  mkdir -p "$dir"
  if [ -n "${V-}" ]; then
    "$@" 2>&1 </dev/null | tee "$log" || code=$?
  else
    "$@" >"$log" 2>&1 </dev/null || code=$?
  fi
  if [ "$code" -ne 0 ]; then
    [ -n "${V-}" ] || tail -n 40 "$log" >&2
    printf 'error: %s failed with exit code %s | fix: the whole log is in %s\n' "$name" "$code" "$log" >&2
  fi
  return "$code"
}

# The CA bundle that image builds get as a BuildKit secret. Behind a TLS-inspecting proxy only the
# machine's own bundle makes PyPI reachable; anywhere else it is a superset of what the tools carry.
ca_bundle() {
  local candidate
  for candidate in "$(setting BUILD_CA_BUNDLE '')" "${SSL_CERT_FILE-}" \
    /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt; do
    if [ -n "$candidate" ] && [ -r "$candidate" ]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  printf '%s\n' ./control-plane/no-extra-ca.pem
}

# docker_answers: does an engine answer where the docker command looks for one?
docker_answers() { within 20 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

PROJECT=$(setting COMPOSE_PROJECT_NAME airbridge)
UI_PORT=$(setting AIRBRIDGE_UI_PORT 8080)
GATEWAY_PORT=$(setting AIRBRIDGE_GATEWAY_PORT 8443)
BUILD_CA_BUNDLE=$(ca_bundle)
# What the label org.airbridge.lock of every image says: which set of locks it was built from.
LOCK_HASH=$(cat requirements/{airflow,edge,gateway,localstack,sync}.txt | { sha256sum 2>/dev/null || shasum -a 256; })
LOCK_HASH=${LOCK_HASH%% *}
export BUILD_CA_BUNDLE LOCK_HASH PROJECT UI_PORT GATEWAY_PORT

# The two compose files, always with an explicit project. An exported WORKER_* or CONTROL_PLANE_*
# would win over an edge host's own file, so those are taken out of the environment.
control_compose() { docker compose --project-name "$PROJECT" --file compose.yaml "$@"; }

# edge_compose NAME ARGUMENTS...: the edge host NAME of this control plane on this machine.
edge_compose() {
  local project dir
  project=$(edge_project "$1")
  dir=$(edge_dir "$1")
  shift
  local files=() more=() merged=() file
  [ ! -r "$ENV_FILE" ] || files+=(--env-file "$ENV_FILE")
  # The hosts of the benchmarks differ from a shipped one by a compose file or two.
  for file in ${EDGE_OVERRIDES-}; do merged+=(--file "$file"); done
  # Without its file (deleted by hand) a host can still be looked at and taken down.
  if [ -r "$dir/edge.env" ]; then
    files+=(--env-file "$dir/edge.env")
  else
    more+=(CONTROL_PLANE_URL=https://unknown.invalid WORKER_NAME=unknown)
  fi
  env -u CONTROL_PLANE_URL -u CONTROL_PLANE_TOKEN -u CONTROL_PLANE_TOKEN_FILE -u CONTROL_PLANE_CA_FILE \
    -u CONTROL_PLANE_CERTIFICATE_FILE -u WORKER_NAME -u WORKER_QUEUES -u WORKER_CONCURRENCY ${more[@]+"${more[@]}"} \
    docker compose --project-name "$project" ${files[@]+"${files[@]}"} --file compose.edge.yaml \
    ${merged[@]+"${merged[@]}"} "$@"
}

# secret NAME: one secret of the control plane, and nothing else, on stdout.
secret() { control_compose run --rm --no-deps -T init python -m airbridge.controlplane show "$1" 2>/dev/null; }

# principal ARGUMENTS...: `airbridge ARGUMENTS` in the control plane's image; words for people go to stderr.
principal() { COMPOSE_PROGRESS=quiet control_compose run --rm --no-deps -T --quiet-pull init airbridge "$@"; }

# identity ARGUMENTS...: the same about edge workers.
identity() { principal edge "$@"; }

# edge_ca FILE: writes the gateway's CA there, or removes the file where a public CA has signed its certificate.
# True when that changed the file.
edge_ca() {
  if [ -n "$(setting GATEWAY_PUBLIC_HOST '')" ]; then
    [ ! -e "$1" ] || { rm -f "$1" && return; }
    return 1
  fi
  control_compose cp gateway:/data/caddy/pki/authorities/local/root.crt "$1.new" >/dev/null 2>&1 ||
    die "the gateway's CA could not be read" "make status shows whether the gateway runs; make up starts it"
  chmod 644 "$1.new"
  if cmp -s "$1.new" "$1"; then
    rm -f "$1.new"
    return 1
  fi
  mv "$1.new" "$1"
}

# client_certificate NAME DIR [OPTION]: where the control plane requires client certificates, writes a new one with
# its key to DIR/client.pem. True when that changed the file.
client_certificate() {
  local name=$1 dir=$2
  shift 2
  [ "$(setting GATEWAY_CLIENT_CERTIFICATES off)" = require ] || return 1
  identity certificate "$name" "$@" </dev/null >"$dir/.client.new" 2>"$dir/.said" ||
    die "$name got no client certificate: $(grep '^airbridge: ' "$dir/.said" || tail -n 1 "$dir/.said")" \
      "make status shows whether the control plane runs; make up starts it"
  rm -f "$dir/.said"
  if [ ! -s "$dir/.client.new" ]; then
    rm -f "$dir/.client.new"
    return 1
  fi
  mv "$dir/.client.new" "$dir/client.pem"
  edge_owned "$dir/client.pem"
}

# The containers of an edge host run as 50000. Root gives that user the file; anyone else lets the closed folder
# around it keep other users of this machine away.
edge_owned() { if [ "$(id -u)" -eq 0 ]; then chown 50000:50000 "$1"; else chmod 644 "$1"; fi; }

edge_project() { printf '%s-edge-%s\n' "$PROJECT" "$1"; }

# Where the credentials of this control plane's edge hosts on this machine lie; another project gets a
# folder of its own.
bundles_dir() {
  if [ "$PROJECT" = airbridge ]; then printf '%s/edge-bundles\n' "$PWD"; else printf '%s/edge-bundles/.%s\n' "$PWD" "$PROJECT"; fi
}
edge_dir() { printf '%s/%s\n' "$(bundles_dir)" "$1"; }

# Where the credentials of a publisher lie, by the same rule.
publisher_dir() {
  if [ "$PROJECT" = airbridge ]; then printf '%s/publishers/%s\n' "$PWD" "$1"; else printf '%s/publishers/.%s/%s\n' "$PWD" "$PROJECT" "$1"; fi
}

# Names of the edge hosts of this control plane on this machine, one a line: with containers, or with a
# folder of credentials.
edge_names() {
  {
    docker ps --all --filter label=com.docker.compose.project --format '{{.Label "com.docker.compose.project"}}' |
      sed -n "s/^$PROJECT-edge-//p"
    # A folder with a compose file in it is a bundle for another machine.
    for dir in "$(bundles_dir)"/*/; do [ ! -d "$dir" ] || [ -e "$dir/compose.edge.yaml" ] || basename "$dir"; done
  } | sort -u
}
