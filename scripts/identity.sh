#!/usr/bin/env bash
# `airbridge edge`, in the control plane's image: list, rotate NAME, revoke NAME, join-token NAME, update NAME ...
# Prints what was asked for on stdout, and words for people on stderr.
#
# Usage: scripts/identity.sh COMMAND [ARGUMENTS]      (JSON=1: one JSON document)
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

[ $# -gt 0 ] || die "no command was given" "scripts/identity.sh list"
[ "$1" = list ] || [ -n "${2-}" ] || die "no edge host was named" "make $1 NAME=plant-7; make workers lists them"
[ -z "${JSON-}" ] || set -- "$@" --json
# Its exit code is the answer, not a failure of this step.
identity "$@" </dev/null || exit
