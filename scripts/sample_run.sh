#!/usr/bin/env bash
# Publishes the examples in dags/ to S3, then runs edge_sample_dag on an edge host and shows its log.
# Usage: ... | scripts/sample_run.sh      (the admin password on stdin)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# Containers reach LocalStack by its name; from here it is a published port. Any other endpoint is as it is.
endpoint=$(setting S3_ENDPOINT_URL http://localstack:4566)
if [ -z "${S3_ENDPOINT_URL-unset}" ] || grep -qE '^S3_ENDPOINT_URL=("")?$' "$ENV_FILE" 2>/dev/null; then endpoint=; fi # AWS
[ "$endpoint" != http://localstack:4566 ] || endpoint=http://127.0.0.1:$S3_PORT

AWS_ACCESS_KEY_ID=$(setting AWS_ACCESS_KEY_ID airbridge)
AWS_SECRET_ACCESS_KEY=$(setting AWS_SECRET_ACCESS_KEY airbridge)
AWS_DEFAULT_REGION=$(setting AWS_DEFAULT_REGION us-east-1)
DAG_BUCKET=$(setting DAG_BUCKET airbridge-dags)
LOG_BUCKET=$(setting LOG_BUCKET airbridge-logs)
ENVIRONMENT=$(setting ENVIRONMENT dev)
export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_DEFAULT_REGION DAG_BUCKET LOG_BUCKET ENVIRONMENT
# An inherited proxy or endpoint must not catch calls to this machine.
unset AWS_ENDPOINT_URL AWS_ENDPOINT_URL_S3 AWS_PROFILE
export NO_PROXY="${NO_PROXY:+$NO_PROXY,}127.0.0.1,localhost"

exec .venv/bin/python scripts/sample_run.py --s3-endpoint "$endpoint" --ui "http://127.0.0.1:$UI_PORT" \
  --user "$(setting AIRBRIDGE_ADMIN_USER admin)"
