"""Checks that a report comes from this host's own worker, before the courier signs it anew.

The same format as :mod:`airbridge.edge.token` makes. The control plane does the full check; this one keeps
others on the host's network, such as demo services, from having something signed for them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from typing import Any, Final

__all__ = ["is_signed_by"]

# The worker and the courier share one clock; a call waits in the worker's own retries at most.
_LEEWAY_S: Final = 60.0


def _decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def is_signed_by(secret: str, authorization: str, method: str) -> bool:
    """Return whether ``authorization`` is a token for ``method`` under this secret."""
    try:
        signed, _, signature = authorization.rpartition(".")
        expected = hmac.new(secret.encode(), signed.encode("ascii"), hashlib.sha512).digest()
        if not hmac.compare_digest(expected, _decode(signature)):
            return False
        header, _, claims = signed.partition(".")
        about: Any = json.loads(_decode(claims))
        alg: Any = json.loads(_decode(header)).get("alg")
        return (
            alg == "HS512"
            and about.get("method") == method
            and float(about.get("exp", 0)) + _LEEWAY_S >= time.time()
        )
    except (ValueError, TypeError, AttributeError):
        return False
