"""Request tokens: what an edge worker shows the control plane with every call.

Same format as the stock edge provider's (``airflow.providers.edge3.cli.api_client``): a JWT under
HS512, signed with the worker's own secret, that names the worker as issuer and the called path as
``method``. Written with the standard library, because the health check runs every few seconds and
importing a JWT library costs more than the whole check (tests verify each token with PyJWT).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time

__all__ = ["API_PREFIX", "VALID_FOR_SECONDS", "request_headers", "request_token"]

API_PREFIX = "/airbridge/v1/"
"""Path under which the control plane answers AirBridge's own questions."""

VALID_FOR_SECONDS = 30
"""Life of a request token: long enough for an uplink that retries, too short to be worth stealing."""

_AUDIENCE = "api"
_HEADER = {"alg": "HS512", "typ": "JWT"}


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _encode_json(value: dict[str, object]) -> bytes:
    return _encode(json.dumps(value, separators=(",", ":")).encode())


def request_token(secret: str, worker: str, method: str, *, now: float | None = None) -> str:
    """Return the JWT of one request.

    :param secret: the worker's token
    :param worker: the worker's name, which becomes the issuer
    :param method: the called path behind its API prefix, without query, such as ``workers/north-1``
    :param now: seconds since the epoch; default: this host's clock
    """
    issued = int(time.time() if now is None else now)
    claims: dict[str, object] = {
        "method": method,
        "iss": worker,
        "aud": _AUDIENCE,
        "nbf": issued,
        "exp": issued + VALID_FOR_SECONDS,
        "iat": issued,
    }
    signed = _encode_json(dict(_HEADER)) + b"." + _encode_json(claims)
    signature = hmac.new(secret.encode(), signed, hashlib.sha512).digest()
    return (signed + b"." + _encode(signature)).decode("ascii")


def request_headers(secret: str, worker: str, method: str) -> dict[str, str]:
    """Return the headers of one request to the control plane: the token and nothing else secret."""
    return {"Authorization": request_token(secret, worker, method), "Accept": "application/json"}
