#!/bin/bash
# Starts the gateway: works out names and the kind of certificate, refuses what cannot work, execs Caddy.
set -euo pipefail
set -f # nothing that an operator sets is a file pattern

fail() {
  echo "gateway: $1 | fix: $2" >&2
  exit 2
}

for name in DAG_BUCKET LOG_BUCKET; do
  [[ "${!name:-}" =~ ^[a-z0-9][a-z0-9.-]{0,62}$ ]] || fail "$name='${!name:-}' is not the name of a bucket" "use a-z, 0-9, dot and dash"
  # A dot is a dot in the Caddyfile's patterns too.
  printf -v "${name}_PATTERN" '%s' "${!name//./[.]}"
  export "${name?}_PATTERN"
done

readonly host_name='^[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*$'
readonly ipv6='^[0-9A-Fa-f]*:[0-9A-Fa-f:]*:[0-9A-Fa-f.]*$'

GATEWAY_ACME_DIRECTORY=${GATEWAY_ACME_DIRECTORY:-https://acme-v02.api.letsencrypt.org/directory}
GATEWAY_ACME_EMAIL=${GATEWAY_ACME_EMAIL:-postmaster@${GATEWAY_PUBLIC_HOST:-localhost}}
if [ -n "${GATEWAY_PUBLIC_HOST:-}" ]; then
  [[ "$GATEWAY_PUBLIC_HOST" =~ $host_name ]] || fail "GATEWAY_PUBLIC_HOST='$GATEWAY_PUBLIC_HOST' is not a host name" "give one name, such as edge.example.org"
  [[ "$GATEWAY_ACME_DIRECTORY" =~ ^https://[^[:space:]]+$ ]] || fail "GATEWAY_ACME_DIRECTORY='$GATEWAY_ACME_DIRECTORY' is not an https address" "leave it empty for Let's Encrypt"
  [[ "$GATEWAY_ACME_EMAIL" =~ ^[^[:space:]@]+@[^[:space:]@]+$ ]] || fail "GATEWAY_ACME_EMAIL='$GATEWAY_ACME_EMAIL' is not a mail address" "leave it empty for postmaster@$GATEWAY_PUBLIC_HOST"
  # A private ACME directory has a private CA.
  if [ -n "${GATEWAY_ACME_CA_FILE:-}" ]; then
    grep -q 'BEGIN CERTIFICATE' "$GATEWAY_ACME_CA_FILE" 2>/dev/null || fail "GATEWAY_ACME_CA_FILE='$GATEWAY_ACME_CA_FILE' is no PEM certificate that uid $(id -u) can read" "mount the root of the ACME directory there"
    export SSL_CERT_FILE="$GATEWAY_ACME_CA_FILE"
  fi
  GATEWAY_SITES="$GATEWAY_PUBLIC_HOST"
  GATEWAY_DEFAULT_SNI="$GATEWAY_PUBLIC_HOST"
  GATEWAY_TLS_SNIPPET=tls_acme
else
  # Names that edge hosts on this machine and health checks use, beside the ones the operator sets.
  GATEWAY_SITES="host.docker.internal, localhost, gateway"
  GATEWAY_DEFAULT_SNI=localhost
  known=" host.docker.internal localhost gateway "
  # shellcheck disable=SC2086 # split on purpose
  for name in ${GATEWAY_NAMES:-}; do
    [[ "$name" =~ $host_name || "$name" =~ $ipv6 ]] ||
      fail "GATEWAY_NAMES holds '$name', which is no host name or address" "separate names with spaces, without ports"
    # Clients that dial an address send no name: they get the certificate of the last one given here.
    GATEWAY_DEFAULT_SNI=$name
    # Caddy refuses a site that is listed twice.
    [[ "$known" != *" ${name,,} "* ]] || continue
    known="$known${name,,} "
    if [[ "$name" = *:* ]]; then name="[$name]"; fi
    GATEWAY_SITES="$GATEWAY_SITES, $name"
  done
  GATEWAY_TLS_SNIPPET=tls_internal
fi

# Mutual TLS: snippets of clients.caddy.
readonly client_ca=/secrets/clients/client-ca.crt
clients=${GATEWAY_CLIENT_CERTIFICATES:-off}
case "$clients" in
  off) ;;
  require)
    grep -q 'BEGIN CERTIFICATE' "$client_ca" 2>/dev/null ||
      fail "GATEWAY_CLIENT_CERTIFICATES=require, but $client_ca is no PEM certificate that uid $(id -u) can read" "start the service 'secrets', which makes the client CA: make up"
    ;;
  *) fail "GATEWAY_CLIENT_CERTIFICATES='$clients' is no choice" "give off or require" ;;
esac
GATEWAY_CLIENT_TLS=client_tls_$clients
GATEWAY_CLIENTS=clients_$clients
export GATEWAY_CLIENT_TLS GATEWAY_CLIENTS

export GATEWAY_SITES GATEWAY_DEFAULT_SNI GATEWAY_TLS_SNIPPET GATEWAY_ACME_DIRECTORY GATEWAY_ACME_EMAIL

exec caddy run --config /etc/caddy/Caddyfile --adapter caddyfile
