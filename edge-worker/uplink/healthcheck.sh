#!/bin/bash
# Healthy when the uplink listens. Whether the control plane is there is the worker's health, not the uplink's:
# an edge host must ride out its absence.
#
# A token or CA file that was changed, or replaced by another one, ends the uplink: it is started again and
# reads the new one. A replaced file (mv new token) still shows its old content in here, but has no name left.
set -euo pipefail
while read -r sum file; do
  if [ "$(stat -c %h "$file")" = 0 ] || [ "$(sha256sum <"$file")" != "$sum  -" ]; then
    echo "uplink: $file has changed: starting again to read it" | tee /proc/1/fd/2
    kill -TERM 1
    exit 1
  fi
done </tmp/credentials.sha256
exec curl --silent --show-error --fail --output /dev/null --max-time 3 http://127.0.0.1:8081/healthz
