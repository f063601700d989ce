#!/usr/bin/env bash
# Every check that reads and runs nothing: ruff, mypy, shellcheck, hadolint, docker compose config.
# All of them run, then the exit code says whether one failed.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

failed=()
check() {
  local name=$1
  shift
  if "$@"; then say lint "$name: clean"; else failed+=("$name"); fi
}

# What git knows or would add, so that nobody's scratch files count.
tracked() { git ls-files --cached --others --exclude-standard --deduplicate -- "$@" | while read -r file; do [ ! -f "$file" ] || printf '%s\n' "$file"; done; }
scripts=() dockerfiles=()
while read -r file; do scripts+=("$file"); done < <(tracked '*.sh' .ci/run)
while read -r file; do dockerfiles+=("$file"); done < <(tracked '*Dockerfile' '*Dockerfile.*' | grep -v '\.dockerignore$')

check "ruff check" .venv/bin/ruff check --quiet .
check "ruff format" .venv/bin/ruff format --check --quiet .
check mypy .venv/bin/mypy --no-error-summary
check "mypy scripts" .venv/bin/mypy --no-error-summary scripts/*.py
check shellcheck .venv/bin/shellcheck --external-sources "${scripts[@]}"
check hadolint .venv/bin/hadolint --failure-threshold warning "${dockerfiles[@]}"
check "compose.yaml" control_compose --profile '*' config --quiet
check "compose.edge.yaml" edge_compose lint --profile '*' config --quiet
check "compose.edge.docker.yaml" env DOCKER_SOCKET_GID=0 bash -c '. scripts/lib.sh; edge_compose lint --file compose.edge.docker.yaml config --quiet'

if [ ${#failed[@]} -gt 0 ]; then
  printf -v list '%s, ' "${failed[@]}"
  die "not clean: ${list%, }" "make format settles the layout of Python code; the rest is listed above"
fi
