#!/usr/bin/env bash
# Prints the path of a uv that works: the machine's own, or one that is installed, by hash, into .tools/.
# Its source is whatever pip is set up to use on this machine; the hash makes every source equal.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lib-debian.sh
. scripts/lib-debian.sh

# Older ones lack `pip install --build-constraints` with hashes and UV_SYSTEM_CERTS.
readonly OLDEST=0.8
if command -v uv >/dev/null 2>&1; then
  version=$(uv --version | awk '{print $2}')
  if [ "$(printf '%s\n%s\n' "$OLDEST" "$version" | sort -t. -k1,1n -k2,2n | head -n 1)" = "$OLDEST" ]; then
    command -v uv
    exit 0
  fi
fi

wanted=$(cksum <requirements/build.txt)
if [ "$(cat .tools/.airbridge-stamp 2>/dev/null)" != "$wanted" ] || ! .tools/bin/uv --version >/dev/null 2>&1; then
  {
    command -v python3 >/dev/null 2>&1 && python3 -c 'import ensurepip' 2>/dev/null ||
      { is_root && is_debian && logged python-install apt_private_install python3 python3-venv; } ||
      die "there is no python3 with its venv module, and no uv" "install one: apt-get install python3 python3-venv"
    .tools/bin/python -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .tools
    logged tools .tools/bin/python -m pip install --quiet --disable-pip-version-check \
      --require-hashes --requirement requirements/build.txt ||
      die "uv could not be installed" "check that this machine reaches PyPI, or install uv: https://docs.astral.sh/uv/"
    printf '%s\n' "$wanted" >.tools/.airbridge-stamp
  } >&2
fi
echo "$PWD/.tools/bin/uv"
