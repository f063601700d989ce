"""Ask the dag-sync beside this process for a tree that the store does not have.

For the DAG bundle, so the standard library only.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from http.client import HTTPException
from typing import Final

from airbridge.errors import AirbridgeError, RefusedError, UnreachableError

__all__ = ["request_tree"]

_MAX_ANSWER_BYTES: Final = 64 * 1024

# A neighbour on the same network: whatever proxy leads out of here does not lead there.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request_tree(url: str, tree_hash: str, timeout_s: float) -> int:
    """Return once the store has the tree, with the number of files that had to be fetched for it.

    ``url`` is dag-sync's, such as ``http://dag-sync:8081``. Raises :class:`airbridge.errors.RefusedError`
    when nobody knows the tree, :class:`airbridge.errors.UnreachableError` when it cannot be had now.
    """
    address = f"{url.rstrip('/')}/trees/{tree_hash}"
    request = urllib.request.Request(address, data=b"", method="POST")  # noqa: S310  (an operator's setting)
    try:
        with _opener.open(request, timeout=timeout_s) as answer:
            return int(json.loads(answer.read(_MAX_ANSWER_BYTES))["fetched"])
    except urllib.error.HTTPError as refusal:
        with refusal:
            said = _reason(refusal.read(_MAX_ANSWER_BYTES)) or f"it answered {refusal.code}"
        kind: type[AirbridgeError] = RefusedError if refusal.code == 404 else UnreachableError
        raise kind(f"dag-sync: {said}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"dag-sync at {url} does not answer: {reason}") from None
    except (ValueError, KeyError, TypeError):
        raise UnreachableError(f"what answers at {url} is no dag-sync") from None


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["reason"])
    except (ValueError, KeyError, TypeError):
        return ""
