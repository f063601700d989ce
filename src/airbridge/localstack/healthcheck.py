"""Health check of the container: S3 lists its buckets over HTTP, and its database takes a write.

Run as a file (``python3 -I healthcheck.py``), so that it needs nothing but the standard library.
"""

from __future__ import annotations

import http.client
import os
import sys

__all__ = ["check", "main"]

_TIMEOUT_SECONDS = 5.0
# LocalStack reads the service and the account from this header; it verifies no signature.
_AUTHORIZATION = (
    "AWS4-HMAC-SHA256 Credential=health/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
)


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_SECONDS)
    try:
        connection.request("GET", path, headers={"Authorization": _AUTHORIZATION})
        response = connection.getresponse()
        return response.status, response.read().decode(errors="replace")
    finally:
        connection.close()


def check(port: int) -> str:
    """Return what is wrong in one line, or an empty string."""
    try:
        status, text = _get(port, "/")
        if status != http.client.OK or "ListAllMyBucketsResult" not in text:
            return f"ListBuckets answered {status}: {text[:200]}"
        if os.environ.get("PROVIDER_OVERRIDE_S3") == "durable":
            status, text = _get(port, "/_airbridge/health")
            if status != http.client.OK:
                return f"S3 cannot write ({status}): {text[:200]}"
    except (OSError, http.client.HTTPException) as error:
        return f"S3 does not answer on port {port}: {error}"
    return ""


def main() -> None:
    """Exit with 0 when healthy, else with 1 and one line."""
    problem = check(int(os.environ.get("AIRBRIDGE_S3_PORT", "4566")))
    if problem:
        print(problem)
        sys.exit(1)


if __name__ == "__main__":
    main()
