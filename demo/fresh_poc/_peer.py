"""Asking the service before this one for its result."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from ._errors import ServiceError

__all__ = ["fetch_result"]

_TIMEOUT_SECONDS = 10.0
# Neighbours are asked directly, whatever proxy the environment names.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_result(peer: str, base_url: str, run_id: str) -> dict[str, Any]:
    """Return the peer's result of a run.

    ServiceError 409 when it has none (calling again will not help), 502 when it did not answer well (it may).
    """
    url = f"{base_url}/result?{urllib.parse.urlencode({'run_id': run_id})}"
    try:
        with _OPENER.open(url, timeout=_TIMEOUT_SECONDS) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 404:
            raise ServiceError(409, f"{peer} has no result of run {run_id}: run {peer} first") from None
        raise ServiceError(502, f"{peer} answered HTTP {error.code}") from None
    except (OSError, ValueError) as error:
        raise ServiceError(502, f"{peer} at {base_url} did not answer: {error}") from None
    if not isinstance(body, dict):
        raise ServiceError(502, f"{peer} answered something that is no JSON object")
    return body
