"""Container health check: is this worker registered, and did the control plane hear of it lately?

It asks the control plane, through the uplink, with this worker's own token: a process that runs but
whose heartbeats do not arrive is not healthy. Standard library only, because it runs every few seconds.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airbridge.courier_status import read_status
from airbridge.edge.token import API_PREFIX, request_headers
from airbridge.errors import AirbridgeError, RefusedError, SettingsError, UnreachableError
from airbridge.token_source import read_credential

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["check", "main"]

_TIMEOUT_S = 5.0
_MISSED_HEARTBEATS = 3
"""Missed heartbeats that make the worker unhealthy; the control plane gives it up after five."""

_NOT_WORKING = frozenset({"offline", "unknown", "offline maintenance"})


def _ask(environ: Mapping[str, str], name: str) -> dict[str, Any]:
    url = environ.get("UPLINK_URL") or "http://uplink:8080"
    method = f"workers/{name}"
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request(
            "GET", API_PREFIX + method, headers=request_headers(read_credential(environ).secret, name, method)
        )
        response = connection.getresponse()
        text = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise UnreachableError(f"no answer through the uplink at {url}: {error}", fix="run diag") from None
    finally:
        connection.close()
    try:
        body = json.loads(text)
    except ValueError:
        body = {}
    body = body if isinstance(body, dict) else {}
    if response.status == http.client.NOT_FOUND:
        raise AirbridgeError(f"worker {name} is not registered", fix="see the log of edge-worker; run diag")
    if response.status != http.client.OK:
        detail = body.get("detail", "the control plane is not ready")
        kind_of = UnreachableError if response.status >= http.client.INTERNAL_SERVER_ERROR else RefusedError
        raise kind_of(f"HTTP {response.status}: {detail}", fix="run diag")
    return body


def check(environ: Mapping[str, str]) -> str:
    """Return one line about a worker that does its job.

    :raises AirbridgeError: it does not; the message says why
    """
    name = environ.get("WORKER_NAME", "")
    if not name:
        raise SettingsError("WORKER_NAME: is not set", fix="set it to this worker's name")
    interval = float(environ.get("EDGE_HEARTBEAT_INTERVAL") or 10)
    worker = _ask(environ, name)
    state, age = str(worker.get("state")), worker.get("age_s")
    if state in _NOT_WORKING:
        raise AirbridgeError(f"worker {name} is {state}", fix="see the log of edge-worker; run diag")
    limit = _MISSED_HEARTBEATS * interval
    if age is None or float(age) > limit:
        seen = "never" if age is None else f"{float(age):.1f} s ago"
        raise AirbridgeError(
            f"worker {name} was last heard of {seen}, more than {limit:g} s",
            fix="see the log of edge-worker; run diag",
        )
    return f"worker {name} is {state}, last heartbeat {float(age):.1f} s ago"


def _renew_certificate(environ: Mapping[str, str]) -> None:
    """Look whether it is time for the next client certificate: nothing else here runs as regularly."""
    from airbridge.edge._client_certificate import current_certificate

    found = current_certificate(environ)
    if found is None or not found[1].is_due(datetime.now(UTC)):
        return
    # Late: it imports more, and is needed once in weeks.
    from airbridge.edge._renewal import start_renewal

    start_renewal(environ)


def _courier(environ: Mapping[str, str]) -> str:
    """Return what the courier says, which goes on while the control plane is away."""
    try:
        return read_status(environ.get("COURIER_URL") or "http://courier:8080").line
    except AirbridgeError as error:
        return str(error)


def main() -> int:
    """Print one line and return the exit code: 0 healthy, else the error's."""
    _renew_certificate(os.environ)
    try:
        print(f"healthy: {check(os.environ)}; courier: {_courier(os.environ)}")
    except AirbridgeError as error:
        print(f"unhealthy: {error}; courier: {_courier(os.environ)}", file=sys.stderr)
        return error.exit_code
    return 0
