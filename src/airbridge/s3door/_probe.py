"""The health check of the door's container. Standard library only, because it runs every half minute."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from typing import Final

from airbridge.errors import AirbridgeError, UnreachableError

__all__ = ["probe"]

_TIMEOUT_S: Final = 8.0


def probe(port: int) -> str:
    """Return a line about the door on this host, which looked somebody up and asked S3 to answer.

    :raises AirbridgeError: it cannot do its job
    """
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=_TIMEOUT_S):
            return "s3-door: database and S3 answer"
    except urllib.error.HTTPError as refusal:
        with refusal:
            why = refusal.read(500).decode(errors="replace")
        raise AirbridgeError(f"s3-door: {why}", fix="docker compose ps postgres localstack") from None
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(
            f"s3-door does not answer: {error}", fix="docker compose logs s3-door"
        ) from None
