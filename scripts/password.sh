#!/usr/bin/env bash
# Prints the admin password of the web UI, and nothing else.
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

secret admin-password || die "the control plane has no admin password yet" "make up makes it"
