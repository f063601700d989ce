#!/bin/bash
# Which client certificate this host shows, if any: the newest that has not expired, of the one that the worker
# keeps in its volume (from joining and renewals) and the one that a bundle brought along. An expired one would
# be refused in the handshake, and with it the join token that could end the trouble: it is not shown.
#
#   choose       writes Caddy's lines for it
#   watch PID    looks every second, and tells Caddy (PID) to read its lines again
set -euo pipefail

readonly folder=${UPLINK_RUN_DIR:-/tmp/uplink}
readonly lines=$folder/client-certificate.caddy
readonly state=${EDGE_STATE_DIR:-/var/lib/airbridge}

field() { sed -n "1s/.*\"$1\": \"\\([^\"]*\\)\".*/\\1/p" "$2" 2>/dev/null || true; }

candidates() {
  # The credential beside it was traded for this very join token, or no join token is in use.
  if [ -z "${UPLINK_JOIN_TOKEN_HASH:-}" ] ||
    [ "$(cat "$state/credential.from" 2>/dev/null || true)" = "$UPLINK_JOIN_TOKEN_HASH" ]; then
    printf '%s\n' "$state/client.pem"
  fi
  [ -z "${CONTROL_PLANE_CERTIFICATE_FILE:-}" ] || printf '%s\n' "$CONTROL_PLANE_CERTIFICATE_FILE"
}

newest() {
  local file from until best='' best_from='' now
  # As the first line of the file writes times: they compare as text.
  now=$(date -u +%Y-%m-%dT%H:%M:%S+00:00)
  while read -r file; do
    [ -r "$file" ] && [ -s "$file" ] || continue
    from=$(field not_before "$file")
    until=$(field not_after "$file")
    [[ -n "$from" && "$now" < "$until" && "$from" > "$best_from" ]] || continue
    [ "$(field name "$file")" = "${WORKER_NAME:-}" ] || continue
    best=$file
    best_from=$from
  done
  printf '%s' "$best"
}

choose() {
  local chosen said='# none'
  mkdir -p "$folder"
  chosen=$(candidates | newest)
  if [ -n "$chosen" ]; then
    # A copy: the file may be replaced between the moment it is chosen and the one Caddy reads it. Its name
    # changes with it, because Caddy does not look at what stands in files that it was told of before.
    local copy
    copy=$folder/client-$(field serial "$chosen").pem
    [ -e "$copy" ] || { umask 077 && cp "$chosen" "$copy.new" && mv "$copy.new" "$copy"; }
    said="tls_client_auth $copy $copy"
  fi
  [ "$(cat "$lines" 2>/dev/null || true)" != "$said" ] || return 1
  printf '%s\n' "$said" >"$lines.new"
  mv "$lines.new" "$lines"
}

case "${1:-}" in
  choose) choose || true ;;
  watch)
    while sleep 1 && kill -0 "$2" 2>/dev/null; do
      if choose; then
        echo "uplink: another client certificate: $(cat "$lines")" >&2
        kill -USR1 "$2"
      fi
    done
    ;;
  *)
    echo "uplink: client-certificate does not know '${1:-}' | fix: choose, or watch PID" >&2
    exit 2
    ;;
esac
