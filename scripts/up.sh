#!/usr/bin/env bash
# From a fresh clone to a task that ran on an edge host. Safe to repeat: what is there is left as it is.
#
# Usage: scripts/up.sh
# V=1             show the output of builds and starts as well (always in .airbridge/log)
# AIRBRIDGE_WAIT  seconds that a start may take (default 300); what ends or falls sick fails at once
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

wait_for=${AIRBRIDGE_WAIT:-300}

# Look first: no change before the machine is known to be fit.
scripts/preflight.sh --problems || die "this machine is not ready" "see the lines above"
say preflight "this machine is ready"
fresh=$(scripts/engine.sh --state)
scripts/engine.sh || exit
# An engine that was only now started can say more: compose, buildx, who holds a port.
[ "${fresh%% *}" = running ] || scripts/preflight.sh --problems || die "this machine is not ready" "see the lines above"

# The Python tools are needed after the start only: they are installed while the images are built.
scripts/venv.sh &
venv=$!
trap 'kill "$venv" 2>/dev/null || true' EXIT
scripts/base-image.sh || exit
scripts/build.sh stack || exit

if ! logged control-plane control_compose up --detach --wait --wait-timeout "$wait_for" --remove-orphans; then
  control_compose ps --all >&2 || true
  for service in $(control_compose ps --all --format '{{.Service}} {{.State}} {{.Health}} {{.ExitCode}}' |
    awk '$3 == "unhealthy" || $3 == "starting" || ($2 == "exited" && $NF != 0) || $2 == "restarting" {print $1}'); do
    printf -- '--- last lines of %s\n' "$service" >&2
    control_compose logs --no-log-prefix --tail 30 "$service" >&2 || true
  done
  die "the control plane did not become healthy" "read the last lines of the services above; make logs shows all of them"
fi
say control-plane "healthy"

scripts/edge-up.sh local || exit

wait "$venv" || die ".venv could not be made" "see the lines above"
trap - EXIT

# The admin password goes into a pipe, never into an argument: arguments are visible to every user.
secret admin-password | scripts/sample_run.sh || exit

# Shown once for every set of secrets: the day their volume was made tells one from the next.
born=$(docker volume inspect --format '{{.CreatedAt}}' "${PROJECT}_secrets-signing" 2>/dev/null || echo unknown)
shown=$STATE_DIR/$PROJECT.password-shown
say ready "web UI at http://localhost:$UI_PORT, user $(setting AIRBRIDGE_ADMIN_USER admin)"
if [ "$(cat "$shown" 2>/dev/null)" != "$born" ]; then
  printf '\n  admin password (shown this once; make password prints it again): %s\n' "$(secret admin-password)"
  printf '%s\n' "$born" >"$shown"
fi
cat <<NEXT

  make status              what runs, and how it is
  make edge NAME=berlin    another edge host on this machine
  make down                stop everything, keep all data
  make help                all targets
NEXT
