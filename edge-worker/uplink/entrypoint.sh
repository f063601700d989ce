#!/bin/bash
# Starts the uplink: checks the settings that name the control plane, execs Caddy.
set -euo pipefail

fail() {
  echo "uplink: $1 | fix: $2" >&2
  exit 2
}

url=${CONTROL_PLANE_URL:-}
[[ "$url" =~ ^https://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(:([0-9]{1,5}))?/?$ ]] ||
  fail "CONTROL_PLANE_URL='$url' is not https://host[:port]" "give the control plane's public address, such as https://edge.example.org:8443"
UPLINK_SERVER_NAME=${BASH_REMATCH[1]}
UPLINK_HOST=${BASH_REMATCH[1]}:${BASH_REMATCH[3]:-443}
UPLINK_UPSTREAM="https://$UPLINK_HOST"

if [ -n "${CONTROL_PLANE_TOKEN_FILE:-}" ] && [ -n "${CONTROL_PLANE_TOKEN:-}" ]; then
  fail "both CONTROL_PLANE_TOKEN and CONTROL_PLANE_TOKEN_FILE are set" "set one of them"
fi
if [ -n "${CONTROL_PLANE_TOKEN_FILE:-}" ]; then
  [ -r "$CONTROL_PLANE_TOKEN_FILE" ] || fail "CONTROL_PLANE_TOKEN_FILE=$CONTROL_PLANE_TOKEN_FILE cannot be read by uid $(id -u)" "chown 50000 or chmod o+r the file, or check the path"
  UPLINK_TOKEN=$(cat "$CONTROL_PLANE_TOKEN_FILE")
else
  UPLINK_TOKEN=${CONTROL_PLANE_TOKEN:-}
fi
[ -n "$UPLINK_TOKEN" ] || fail "no token: CONTROL_PLANE_TOKEN and CONTROL_PLANE_TOKEN_FILE are empty" "put the credential or the join token of this host into the file"
[[ "$UPLINK_TOKEN" =~ ^[[:graph:]]+$ ]] || fail "the token holds spaces or control characters" "copy it again: one line, no spaces"

# A join token that was not traded yet says: what lies in the volume is of an earlier life of this host.
UPLINK_JOIN_TOKEN_HASH=''
[[ "$UPLINK_TOKEN" != join_* ]] || UPLINK_JOIN_TOKEN_HASH=$(printf '%s' "$UPLINK_TOKEN" | sha256sum | cut -d ' ' -f 1)
export UPLINK_JOIN_TOKEN_HASH

# Where Caddy finds the credential, in Caddy's own words. The worker trades a join token for it, and keeps it in
# the volume that both mount.
if [[ "$UPLINK_TOKEN" = join_* ]]; then
  UPLINK_CREDENTIAL="{file.${EDGE_STATE_DIR:-/var/lib/airbridge}/credential}"
  UPLINK_TOKEN=''
else
  UPLINK_CREDENTIAL='{env.UPLINK_TOKEN}'
fi

UPLINK_TRUST=""
if [ -n "${CONTROL_PLANE_CA_FILE:-}" ]; then
  [ -r "$CONTROL_PLANE_CA_FILE" ] || fail "CONTROL_PLANE_CA_FILE=$CONTROL_PLANE_CA_FILE cannot be read by uid $(id -u)" "check the path and the mode of the CA file"
  # An empty file means: the system's own authorities.
  if [ -s "$CONTROL_PLANE_CA_FILE" ]; then
    grep -q -- "-----BEGIN CERTIFICATE-----" "$CONTROL_PLANE_CA_FILE" || fail "CONTROL_PLANE_CA_FILE=$CONTROL_PLANE_CA_FILE holds no PEM certificate" "copy the gateway's root.crt again"
    UPLINK_TRUST="tls_trust_pool file $CONTROL_PLANE_CA_FILE"
  fi
fi
export UPLINK_SERVER_NAME UPLINK_HOST UPLINK_UPSTREAM UPLINK_TOKEN UPLINK_CREDENTIAL UPLINK_TRUST
unset CONTROL_PLANE_TOKEN

# The client certificate comes and changes while this runs: when the host joins, and when it is renewed. The
# watcher tells Caddy, which takes it without losing a request. It ends with the container.
airbridge-client-certificate choose
airbridge-client-certificate watch "$$" &

# What this uplink was started with; its health check looks whether that still is what the files say.
: >/tmp/credentials.sha256
for file in "${CONTROL_PLANE_TOKEN_FILE:-}" "${CONTROL_PLANE_CA_FILE:-}"; do
  [ -z "$file" ] || sha256sum "$file" >>/tmp/credentials.sha256
done

exec caddy run --config /etc/caddy/Caddyfile --adapter caddyfile
