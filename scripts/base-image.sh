#!/usr/bin/env bash
# Makes sure that the base of every image, BASE_IMAGE (default debian:bookworm-slim), is on the engine.
# Here already: done. A registry answers: pulled. Otherwise the same base is bootstrapped from Debian's
# packages through this host's own mirrors. So there is one build path, with a registry and without.
#
# Usage: scripts/base-image.sh
# AIRBRIDGE_REGISTRY_PATIENCE  seconds until the registry must have answered (default 15)
# AIRBRIDGE_PULL_TIMEOUT       seconds for the whole download once it has (default 600)
# AIRBRIDGE_NO_REGISTRY=1      do not ask a registry at all
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=scripts/lib-debian.sh
. scripts/lib-debian.sh

IMAGE=$(setting BASE_IMAGE debian:bookworm-slim)
readonly CODENAME=bookworm # what the Dockerfiles are written for: Python 3.11, PostgreSQL 15
readonly PATIENCE=${AIRBRIDGE_REGISTRY_PATIENCE:-15} PULL_TIMEOUT=${AIRBRIDGE_PULL_TIMEOUT:-600}

present() { docker image inspect "$IMAGE" >/dev/null 2>&1; }

# A registry that is not there can take minutes to fail (dropped packets). The first line of a pull
# appears when it has answered: without that line in time the pull is given up.
pull() {
  local out waited=0 pid code=0
  out=$(mktemp)
  docker pull "$IMAGE" >"$out" 2>&1 </dev/null &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    if { [ ! -s "$out" ] && [ "$waited" -ge $((PATIENCE * 5)) ]; } || [ "$waited" -ge $((PULL_TIMEOUT * 5)) ]; then
      kill "$pid" 2>/dev/null || true
    fi
    sleep 0.2
    waited=$((waited + 1))
  done
  wait "$pid" || code=$?
  [ "$code" -eq 0 ] || PULL_REFUSAL=$(tail -n 1 "$out")
  rm -f "$out"
  return "$code"
}

bootstrap() {
  is_debian || die "no registry serves $IMAGE and this machine has no Debian packages (${PULL_REFUSAL:-the registry did not answer})" \
    "docker load it from a machine that has it, or name a reachable copy: make up BASE_IMAGE=..."
  is_root || die "no registry serves $IMAGE and only root can bootstrap it from Debian's packages (${PULL_REFUSAL:-the registry did not answer})" \
    "run sudo make base-image once, or name a reachable copy: make up BASE_IMAGE=..."
  if ! command -v mmdebstrap >/dev/null 2>&1; then
    logged mmdebstrap-install apt_private_install mmdebstrap ||
      die "mmdebstrap could not be installed" "check that this machine reaches its Debian mirror ($(debian_mirror))"
  fi
  # Maintainer scripts run in the new root: /var/tmp, because /tmp may be mounted noexec or nodev.
  work=$(mktemp -d "${AIRBRIDGE_BOOTSTRAP_DIR:-/var/tmp}/airbridge-base.XXXXXX")
  chmod 755 "$work" # apt downloads as its own user
  trap 'rm -rf "$work"' EXIT
  debian_sources "$CODENAME" >"$work/debian.sources"

  # The same as the official slim image: no documentation, manuals or translations (licences stay), and
  # apt as it is set there, so that what builds on this base builds on the official one too.
  # shellcheck disable=SC2016 # "$1" in a hook is mmdebstrap's: the new root
  local options=(
    --variant=minbase --mode=root --format=tar
    # /bin and /lib as links from the start: the package that merges them later drags all of perl in.
    --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr --include=usr-is-merged
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright'
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/groff/*'
    --dpkgopt='path-exclude=/usr/share/info/*' --dpkgopt='path-exclude=/usr/share/lintian/*'
    --dpkgopt='path-exclude=/usr/share/linda/*' --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-include=/usr/share/locale/locale.alias' --dpkgopt=force-unsafe-io
    --aptopt='APT::AutoRemove::SuggestsImportant "false"' --aptopt='Acquire::Languages "none"'
    --aptopt='Acquire::GzipIndexes "true"'
    --customize-hook='mv "$1"/etc/apt/sources.list.d/*debian.sources "$1"/etc/apt/sources.list.d/debian.sources; rm -f "$1"/etc/apt/sources.list'
    --customize-hook='printf "#!/bin/sh\nexit 101\n" > "$1"/usr/sbin/policy-rc.d; chmod 755 "$1"/usr/sbin/policy-rc.d'
    --customize-hook='rm -rf "$1"/var/log/apt/* "$1"/var/log/*.log "$1"/var/cache/debconf/*-old "$1"/etc/hostname "$1"/etc/resolv.conf'
  )
  # A mirror over HTTPS needs the certificates inside as well.
  ! grep -q 'URIs: https' "$work/debian.sources" || options+=(--include=ca-certificates)
  local line
  while IFS= read -r line; do
    [ -z "$line" ] || options+=(--aptopt="$line")
  done < <(apt_settings)

  logged base-image env -u APT_CONFIG TMPDIR="$work" mmdebstrap "${options[@]}" "$CODENAME" "$work/base.tar" "$work/debian.sources" ||
    die "the base image could not be bootstrapped from Debian's packages" "check that this machine reaches its Debian mirror ($(debian_mirror))"
  docker import --change 'CMD ["bash"]' --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change 'LABEL org.opencontainers.image.title="Debian bookworm, bootstrapped from its packages"' \
    "$work/base.tar" "$IMAGE" >/dev/null
  rm -rf "$work"
  trap - EXIT
}

PULL_REFUSAL=
if present; then
  say base-image "$IMAGE is here"
elif [ -z "${AIRBRIDGE_NO_REGISTRY-}" ] && pull; then
  say base-image "$IMAGE pulled"
else
  say base-image "no registry serves $IMAGE; bootstrapping it from Debian's packages (about half a minute)"
  bootstrap
  say base-image "$IMAGE made, $(($(docker image inspect --format '{{.Size}}' "$IMAGE") / 1000000)) MB"
fi
