#!/bin/bash
# Runs a command with the settings that come from secret files: airbridge-env COMMAND [ARGUMENT ...].
# Called as `airflow`, it runs Airflow.
set -euo pipefail
[ "${0##*/}" != airflow ] || set -- airflow "$@"
# shellcheck source=control-plane/airflow/env.sh
. /usr/local/lib/airbridge/env.sh
if [ "$1" = airflow ]; then
  shift
  set -- /opt/airbridge/venv/bin/airflow "$@"
fi
exec "$@"
