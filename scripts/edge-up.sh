#!/usr/bin/env bash
# Starts an edge host on this machine, as a compose project of its own, and waits until the control plane
# has heard of its worker. What it needs (address, token, CA) lies in edge-bundles/NAME, which git ignores.
#
# Usage: scripts/edge-up.sh NAME [QUEUES] [CONCURRENCY]
#   QUEUES       comma list; default: what this host had before, else "default"
#   CONCURRENCY  tasks at once; default: what this host had before, else the image's own
# CONNECTIONS, VARIABLES  what its tasks may use of Airflow's, comma lists, '*' is all; default: as it is, else none
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

name=${1-} queues=${2-} concurrency=${3-}
[[ "$name" =~ ^[a-z0-9][a-z0-9-]{0,39}$ ]] ||
  die "'$name' is no name for an edge host" "make edge NAME=berlin (a-z, 0-9 and dashes, at most 40)"
[[ "$queues" =~ ^([A-Za-z0-9_.-]+(,[A-Za-z0-9_.-]+)*)?$ ]] ||
  die "QUEUES='$queues' is no list of queues" "separate names with commas, such as QUEUES=default,gpu"
[[ "$concurrency" =~ ^([1-9][0-9]{0,3})?$ ]] ||
  die "CONCURRENCY='$concurrency' is no number of tasks" "give a number from 1 to 9999"

umask 077
dir=$(edge_dir "$name")
[ ! -e "$dir/compose.edge.yaml" ] ||
  die "$dir is the bundle of an edge host on another machine" "choose another NAME, or remove the folder"
mkdir -p "$dir"
chmod 700 "$dir"

before() { [ ! -r "$dir/edge.env" ] || sed -n "s/^$1=//p" "$dir/edge.env" | tail -n 1; }
[ -n "$queues" ] || queues=$(before WORKER_QUEUES)
[ -n "$concurrency" ] || concurrency=$(before WORKER_CONCURRENCY)

# The control plane keeps a credential that is good, and makes one for a host that has none: this host's own, so
# that it can be revoked alone. Written beside and moved: an interrupted call leaves no half a file.
wanted=(--queues "${queues:-default}")
[ -z "$concurrency" ] || wanted+=(--concurrency "$concurrency")
[ -z "${CONNECTIONS-}" ] || wanted+=(--connections "$CONNECTIONS")
[ -z "${VARIABLES-}" ] || wanted+=(--variables "$VARIABLES")
held=
[ ! -r "$dir/token" ] || held=$(cat "$dir/token")
printf '%s\n' "$held" | identity ensure "$name" "${wanted[@]}" >"$dir/.token.new" 2>"$dir/.said" ||
  die "the control plane did not enrol $name: $(grep '^airbridge: ' "$dir/.said" || tail -n 1 "$dir/.said")" \
    "make status shows whether it runs; make up starts it"
rm -f "$dir/.said"
# A container keeps the file that it was started with: another token or CA needs another container.
recreate=()
# One that is the same stays: a file in its place would be another file to the services, which then start again.
if cmp -s "$dir/.token.new" "$dir/token"; then
  rm "$dir/.token.new"
else
  recreate=(--force-recreate)
  mv "$dir/.token.new" "$dir/token"
  edge_owned "$dir/token"
fi
if edge_ca "$dir/ca.crt"; then recreate=(--force-recreate); fi
# The first one; the host renews it by itself, in its volume.
needed=()
[ ! -e "$dir/client.pem" ] || needed=(--if-needed)
if client_certificate "$name" "$dir" ${needed[@]+"${needed[@]}"}; then recreate=(--force-recreate); fi
certificate=''
[ ! -e "$dir/client.pem" ] || certificate=$dir/client.pem
# With a public host name the gateway has a certificate that every system trusts, and no CA of its own.
ca='' url=https://$(setting GATEWAY_PUBLIC_HOST host.docker.internal):$GATEWAY_PORT
[ ! -r "$dir/ca.crt" ] || ca=$dir/ca.crt

cat >"$dir/.env.new" <<ENV
CONTROL_PLANE_URL=$url
CONTROL_PLANE_TOKEN_FILE=$dir/token
CONTROL_PLANE_CA_FILE=$ca
CONTROL_PLANE_CERTIFICATE_FILE=$certificate
WORKER_NAME=$name
WORKER_QUEUES=${queues:-default}
WORKER_CONCURRENCY=$concurrency
ENV
[ -n "$concurrency" ] || sed -i.old '/^WORKER_CONCURRENCY=/d' "$dir/.env.new"
rm -f "$dir/.env.new.old"
mv "$dir/.env.new" "$dir/edge.env"

# compose takes the uplink away before it stops a worker that it is about to make anew. The worker could then
# neither report what its tasks did nor sign off, until the patience of a stop is over: so it may finish first.
planned=$(edge_compose "$name" --dry-run up --detach --no-build ${recreate[@]+"${recreate[@]}"} 2>&1) || true
if [[ "$planned" == *" Recreate"* ]]; then
  logged "edge-$name-stop" edge_compose "$name" stop edge-worker
  say edge "host $name has finished its tasks: starting it anew"
fi

if ! logged "edge-$name" edge_compose "$name" up --detach --wait --wait-timeout "${AIRBRIDGE_WAIT:-300}" \
  --remove-orphans ${recreate[@]+"${recreate[@]}"}; then
  edge_compose "$name" ps --all >&2 || true
  edge_compose "$name" logs --tail 30 >&2 || true
  die "edge host $name did not join" "read its last lines above; make diag NAME=$name checks every part of the connection"
fi
say edge "host $name joined, queues ${queues:-default}"
