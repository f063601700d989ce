#!/usr/bin/env bash
# Builds the images; seconds when nothing changed.
# Usage: scripts/build.sh [control-plane | edge-worker | stack | all]     (default: all)
#   stack  what `make up` starts: both, without the demo services
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

build() {
  local what=$1
  shift
  logged "build-$what" "$@" || die "the $what images could not be built" \
    "read the lines above; behind a proxy with its own CA set BUILD_CA_BUNDLE to its PEM file"
  say build "$what images are built"
}

what=${1:-all}
case "$what" in
  all | control-plane | edge-worker | stack) ;;
  *) die "build.sh does not know '$what'" "use control-plane, edge-worker, stack or all" ;;
esac
profiles=()
[ "$what" = stack ] || profiles=(--profile '*')
if [ "$what" != edge-worker ]; then build control-plane control_compose ${profiles[@]+"${profiles[@]}"} build; fi
if [ "$what" != control-plane ]; then build edge-worker edge_compose build ${profiles[@]+"${profiles[@]}"} build; fi
