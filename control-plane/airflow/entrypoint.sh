#!/bin/bash
# Entry of every container of the airflow image.
#
# 1. Refuses an image that was built from another lock than the one beside compose.yaml.
# 2. Turns secret files into the settings that Airflow reads (env.sh).
# 3. Before a service starts: makes sure that `airflow db migrate` has run (A4).
set -euo pipefail

fail() {
  echo "airbridge: $1 | fix: $2" >&2
  exit "${3:-2}"
}

# compose mounts the lock that lies beside it; an image of another one is stale.
lock=/run/airbridge/requirements.txt
if [ -f "$lock" ]; then
  wanted=$(sha256sum "$lock" | cut -d ' ' -f 1)
  built=$(cat /opt/airbridge/lock.sha256)
  [ "$wanted" = "$built" ] ||
    fail "image was built from lock ${built:0:12}, but requirements/airflow.txt is ${wanted:0:12}" "rebuild it: make build" 4
fi

# shellcheck source=control-plane/airflow/env.sh
. /usr/local/lib/airbridge/env.sh

case "${1:-} ${2:-}" in
  "airflow api-server" | "airflow scheduler" | "airflow dag-processor" | "airflow triggerer")
    python -m airbridge.controlplane migrate
    ;;
esac

exec "$@"
