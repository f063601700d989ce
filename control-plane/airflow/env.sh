# shellcheck shell=bash
# Turns secret files into the settings that Airflow reads. Sourced by the entrypoint and by the `airflow` command
# that comes first on the PATH, so that `docker compose exec scheduler airflow ...` works as well.

airbridge_secret() { # file, variable
  [ -r "$1" ] && [ -z "${!2:-}" ] || return 0
  printf -v "$2" '%s' "$(cat "$1")"
  export "${2?}"
}

# Percent-encoded, because an operator's own password may hold anything.
airbridge_percent_encoded() {
  local LC_ALL=C text=$1 i character
  for ((i = 0; i < ${#text}; i++)); do
    character=${text:i:1}
    case $character in
      [a-zA-Z0-9._~-]) printf '%s' "$character" ;;
      *) printf '%%%02X' "'$character" ;;
    esac
  done
}

airbridge_secret /secrets/control/fernet-key AIRFLOW__CORE__FERNET_KEY
airbridge_secret /secrets/control/session-secret AIRFLOW__API__SECRET_KEY
# UI, REST and Execution tokens are signed with an Ed25519 key (jwt_algorithm stays unset: Airflow works it
# out). Only the services that sign have it; no edge host ever does.
if [ -r /secrets/signing/jwt-private-key ]; then
  export AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH=/secrets/signing/jwt-private-key
fi
if [ "${1:-} ${2:-}" = "airflow api-server" ]; then
  # With the private key above, Airflow itself does not use this: it is between the plugin that checks edge
  # workers and the edge API behind it, in one process.
  airbridge_secret /secrets/signing/internal-edge-secret AIRFLOW__API_AUTH__JWT_SECRET
fi
if [ -r /secrets/control/db-password ] && [ -z "${AIRFLOW__DATABASE__SQL_ALCHEMY_CONN:-}" ]; then
  AIRFLOW__DATABASE__SQL_ALCHEMY_CONN="postgresql+psycopg2://airflow:$(airbridge_percent_encoded "$(cat /secrets/control/db-password)")@${POSTGRES_HOST:-postgres}:5432/airflow"
  export AIRFLOW__DATABASE__SQL_ALCHEMY_CONN
fi
# Longer than edge hosts go on without their control plane, so that a task which reports late is still its own:
# what they need to come back, to deliver what they kept, and a clock that is not quite the same.
: "${AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT:=$((${EDGE_ABSENCE_LIMIT:-900} + 120))}"
export AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT
