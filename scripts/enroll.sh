#!/usr/bin/env bash
# Enrols an edge host on another machine, and writes its bundle: a folder that holds all that the host needs
# beside the images. The token in it is a join token, which the host trades for its credential on first start.
#
# Usage: scripts/enroll.sh NAME QUEUES [CONCURRENCY]
# CONNECTIONS, VARIABLES  what its tasks may use of Airflow's, comma lists, '*' is all; default: none
# EXPIRES                 the enrolment ends after this long, such as 90d; default: never
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

name=${1-} queues=${2:-default} concurrency=${3:-8}
[[ "$name" =~ ^[a-z0-9][a-z0-9-]{0,62}$ ]] ||
  die "'$name' is no name for an edge host" "make enroll NAME=plant-7 (a-z, 0-9 and dashes, at most 63)"

# The name that the edge host will dial: its certificate must hold it.
host=$(setting GATEWAY_PUBLIC_HOST '')
if [ -z "$host" ]; then
  host=$(setting GATEWAY_NAMES '')
  host=${host%% *}
fi
[ -n "$host" ] || die "the edge endpoint has no name that another machine could dial" \
  "put GATEWAY_NAMES=<name or address of this machine> into .env, then make up"

umask 077
dir=$(edge_dir "$name")
[ ! -e "$dir/token" ] || die "$dir holds a token already" \
  "remove the folder if that host is gone; make up and make edge keep hosts of this machine there"
mkdir -p "$dir"
chmod 700 "$dir"

options=(--queues "$queues" --concurrency "$concurrency")
[ -z "${CONNECTIONS-}" ] || options+=(--connections "$CONNECTIONS")
[ -z "${VARIABLES-}" ] || options+=(--variables "$VARIABLES")
[ -z "${EXPIRES-}" ] || options+=(--expires "$EXPIRES")
if ! identity enroll "$name" "${options[@]}" >"$dir/.token.new" 2>"$dir/.said"; then
  said=$(grep '^airbridge: ' "$dir/.said" || tail -n 1 "$dir/.said")
  rm -rf "$dir"
  die "$name was not enrolled: ${said#airbridge: }" "airbridge edge list shows who is: see docs/operations.md"
fi
rm -f "$dir/.said"
mv "$dir/.token.new" "$dir/token"
edge_owned "$dir/token"
ca=''
edge_ca "$dir/ca.crt" || true
[ ! -r "$dir/ca.crt" ] || ca=./ca.crt
certificate=''
if client_certificate "$name" "$dir"; then certificate=./client.pem; fi
cp compose.edge.yaml "$dir/compose.edge.yaml"

cat >"$dir/edge.env" <<ENV
CONTROL_PLANE_URL=https://$host:$GATEWAY_PORT
CONTROL_PLANE_TOKEN_FILE=./token
CONTROL_PLANE_CA_FILE=$ca
CONTROL_PLANE_CERTIFICATE_FILE=$certificate
WORKER_NAME=$name
WORKER_QUEUES=$queues
WORKER_CONCURRENCY=$concurrency
ENVIRONMENT=$(setting ENVIRONMENT dev)
DAG_BUCKET=$(setting DAG_BUCKET airbridge-dags)
LOG_BUCKET=$(setting LOG_BUCKET airbridge-logs)
ENV

say enroll "$name may serve the queues $queues"
cat <<NEXT

  the bundle is in $dir: copy it to the edge host, then remove it here
  its token is good for one hour and for one start; then:
    docker compose --env-file edge.env -f compose.edge.yaml up --detach --wait
NEXT
