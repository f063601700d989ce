#!/usr/bin/env bash
# Compiles requirements/<group>.txt from pyproject.toml: names, versions and hashes, no index address.
# Usage: scripts/lock.sh [group ...]      (default: every group)
set -euo pipefail
cd "$(dirname "$0")/.."

# Airflow 3.0.4 was released into the world of this day. Newer PyJWT rejects its tokens, and newer
# Starlette, FastAPI and SQLAlchemy were never tested with it (docs/adr/0002).
readonly AIRFLOW_WORLD=2025-09-15
# Released later and needed by edge3 5.1.0: these, and only these, may be newer.
readonly NEWER=(apache-airflow-providers-edge3 apache-airflow-providers-common-compat aiohttp retryhttp)
# LocalStack 4.13 imports private modules of cbor2 that later releases no longer have.
readonly LOCALSTACK_WORLD=2026-02-15
readonly EVERYTHING_ELSE=2026-11-01

uv=$(scripts/uv.sh)
groups=("$@")
[ ${#groups[@]} -gt 0 ] || groups=(build airflow edge celery sync gateway localstack publisher dev)

for group in "${groups[@]}"; do
  options=()
  case "$group" in
    airflow | edge | celery)
      options+=(--exclude-newer "$AIRFLOW_WORLD")
      for name in "${NEWER[@]}"; do options+=(--exclude-newer-package "$name=$EVERYTHING_ELSE"); done
      ;;
    # What runs on the developer's machine: any system. (tool.uv.environments names the images' world.)
    build | dev | publisher) options+=(--exclude-newer "$EVERYTHING_ELSE" --no-config --python-version 3.11) ;;
    localstack) options+=(--exclude-newer "$LOCALSTACK_WORLD") ;;
    *) options+=(--exclude-newer "$EVERYTHING_ELSE") ;;
  esac
  # These images must hold the very versions of the control plane, so that one pin serves both.
  [[ "$group" != @(edge|celery) ]] || options+=(--constraint requirements/airflow.txt)
  echo "lock: requirements/$group.txt"
  env -u PIP_FIND_LINKS -u UV_FIND_LINKS "$uv" pip compile --quiet --universal --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
    "${options[@]}" --extra "$group" pyproject.toml --output-file "requirements/$group.txt"
done
