#!/bin/bash
# Entry of the edge worker image: `worker` (default), `diag`, or any command, such as `airflow version`.
set -euo pipefail
case "${1:-worker}" in
  worker) exec python -m airbridge.edge launch ;;
  diag | health)
    command=$1
    shift
    exec python -m airbridge.edge "$command" "$@"
    ;;
  *) exec "$@" ;;
esac
