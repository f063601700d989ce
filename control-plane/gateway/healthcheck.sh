#!/bin/bash
# Healthy when the edge door completes a TLS handshake with a certificate that its clients accept, and answers.
set -euo pipefail
if [ -n "${GATEWAY_PUBLIC_HOST:-}" ]; then
  # The chain is the public CA's business, and private ones are trusted by edge hosts, not in here.
  exec curl --silent --show-error --fail --output /dev/null --max-time 4 --insecure \
    --resolve "$GATEWAY_PUBLIC_HOST:8443:127.0.0.1" "https://$GATEWAY_PUBLIC_HOST:8443/healthz"
fi
exec curl --silent --show-error --fail --output /dev/null --max-time 4 \
  --cacert /data/caddy/pki/authorities/local/root.crt --resolve localhost:8443:127.0.0.1 https://localhost:8443/healthz
