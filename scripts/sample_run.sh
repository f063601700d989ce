#!/usr/bin/env bash
# Publishes the examples in dags/ to S3, then runs edge_sample_dag on an edge host and shows its log.
# Usage: ... | scripts/sample_run.sh      (the admin password on stdin)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# As a publisher like any other, through the gateway: this machine's own operator.
scripts/publisher.sh ensure operator '*' </dev/null || exit
# shellcheck source=/dev/null
. "$(publisher_dir operator)/publisher.env"
# An inherited proxy must not catch calls to this machine.
export NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1,localhost"

exec .venv/bin/python scripts/sample_run.py --s3-endpoint "$AWS_ENDPOINT_URL" --ui "http://127.0.0.1:$UI_PORT" \
  --user "$(setting AIRBRIDGE_ADMIN_USER admin)"
