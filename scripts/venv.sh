#!/usr/bin/env bash
# Makes .venv: the developer's environment from requirements/dev.txt, by hash, and the project itself,
# editable. Done in a blink when nothing has changed.
#
# Usage: scripts/venv.sh
# Proxies with a CA of their own: SSL_CERT_FILE is respected, and so is the system's certificate store.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

readonly PYTHON=3.11 # what the images run, and what requirements/dev.txt is compiled for
# The place counts too: scripts in .venv/bin carry its absolute path.
wanted=$(cat requirements/dev.txt requirements/build.txt pyproject.toml scripts/venv.sh <(pwd) | cksum)
if [ "$(cat .venv/.airbridge-stamp 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
  say venv ".venv is up to date"
  exit 0
fi

uv=$(scripts/uv.sh)
# Two calls at once (make up beside make test) take turns.
mkdir -p "$STATE_DIR"
exec 9>"$STATE_DIR/venv.lock"
! command -v flock >/dev/null 2>&1 || flock --wait 300 9 || die "another run has been making .venv for 300 s" "see what holds $STATE_DIR/venv.lock"
export UV_SYSTEM_CERTS=1 UV_LINK_MODE=${UV_LINK_MODE:-copy}
# Local folders of wheels that a machine offers to pip are no source of this environment.
unset PIP_FIND_LINKS UV_FIND_LINKS VIRTUAL_ENV

rm -f .venv/.airbridge-stamp
logged venv "$uv" venv --quiet --allow-existing --python "$PYTHON" .venv ||
  die "there is no Python $PYTHON" "install it, or let uv download it: $uv python install $PYTHON"
# sync: what the lock no longer names leaves the environment.
logged venv-sync "$uv" pip sync --python .venv/bin/python --require-hashes requirements/dev.txt ||
  die "requirements/dev.txt could not be installed" "check that this machine reaches PyPI; behind a proxy with its own CA set SSL_CERT_FILE"
logged venv-project "$uv" pip install --python .venv/bin/python --no-deps \
  --build-constraints requirements/build.txt --editable . ||
  die "the project could not be installed into .venv" "read $STATE_DIR/log/venv-project.log"
printf '%s\n' "$wanted" >.venv/.airbridge-stamp
say venv ".venv made ($(.venv/bin/python --version))"
