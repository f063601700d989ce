"""The control plane's API, dialled directly and through the uplink."""

from __future__ import annotations

import os
import secrets
import time
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from airbridge.edge._client_certificate import current_certificate
from airbridge.edge._control_plane import VERSION_HEADER, VERSION_MISMATCH, Versions, refusal
from airbridge.edge.diag._model import Check, Context, Failed, NotRun
from airbridge.edge.diag._network import trust
from airbridge.edge.token import API_PREFIX, request_headers

__all__ = ["API_CHECKS"]

_DAY_S: Final = 86_400
_CLOSED: Final = "look at the gateway's log; a firewall or proxy between may cut HTTPS after the handshake"
_NO_UPLINK: Final = "start the uplink: docker compose -f compose.edge.yaml up -d uplink"
_NOT_READY: Final = "look at the control plane: make status, then the log of api-server"
_UPLINK_CUT: Final = (
    "if 'endpoint get' passes, the uplink alone cannot reach the control plane: see its log, and give it "
    "the same CONTROL_PLANE_URL and CONTROL_PLANE_CA_FILE"
)
_NOT_OURS: Final = "check CONTROL_PLANE_URL: something else than an AirBridge gateway answers there"


def _send(context: Context, base_url: str, verb: str, method: str, json: object = None) -> httpx.Response:
    """Send one request with token and version. ``verify`` matters to HTTPS addresses only."""
    settings = context.settings
    headers = request_headers(settings.token, settings.worker_name, method)
    headers[VERSION_HEADER] = context.versions.airbridge
    with httpx.Client(
        base_url=base_url, verify=trust(settings), timeout=context.limits.timeout_s, trust_env=False
    ) as client:
        return client.request(verb, API_PREFIX + method, headers=headers, json=json)


def _body(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _no_answer(context: Context, base_url: str, error: httpx.HTTPError) -> Failed:
    fix = _CLOSED
    if base_url == context.settings.uplink_url:
        fix = _NO_UPLINK if isinstance(error, httpx.ConnectError) else _UPLINK_CUT
    return Failed(f"{base_url}: {str(error) or type(error).__name__}", fix)


def _get_version(context: Context, base_url: str) -> httpx.Response:
    """Return the answer to a GET when it is an AirBridge control plane's, even if it is a refusal."""
    try:
        response = _send(context, base_url, "GET", "version")
    except httpx.HTTPError as error:
        raise _no_answer(context, base_url, error) from None
    if response.is_server_error:
        through_uplink = base_url == context.settings.uplink_url
        raise Failed(
            f"{base_url}: HTTP {response.status_code}, what is behind it is not ready",
            _UPLINK_CUT if through_uplink else _NOT_READY,
        )
    if refusal(response) is None and "airbridge" not in _body(response):
        raise Failed(f"{base_url}: HTTP {response.status_code}, not AirBridge's answer", _NOT_OURS)
    return response


def _timed_get(context: Context, base_url: str) -> str:
    started = time.perf_counter()
    _get_version(context, base_url)
    return f"{base_url} in {(time.perf_counter() - started) * 1000:.0f} ms"


def _timed_post(context: Context, base_url: str) -> str:
    nonce = secrets.token_hex(16)
    started = time.perf_counter()
    try:
        response = _send(context, base_url, "POST", "echo", json={"nonce": nonce})
    except httpx.HTTPError as error:
        raise _no_answer(context, base_url, error) from None
    if refused := refusal(response):
        raise Failed(f"{base_url}: {refused[1]} ({refused[0]})", refused[2])
    if not response.is_success:
        raise Failed(
            f"{base_url}: HTTP {response.status_code} to a POST",
            _NOT_READY
            if response.is_server_error
            else "a proxy between lets GET pass but not POST: allow it",
        )
    if _body(response).get("nonce") != nonce:
        raise Failed(
            f"{base_url}: the body of a POST came back changed",
            "something between rewrites or caches requests: exempt the control plane's address from it",
        )
    return f"{base_url} in {(time.perf_counter() - started) * 1000:.0f} ms"


def _get(context: Context) -> str:
    return _timed_get(context, context.settings.control_plane_url)


def _post(context: Context) -> str:
    return _timed_post(context, context.settings.control_plane_url)


def _uplink_get(context: Context) -> str:
    return _timed_get(context, context.settings.uplink_url)


def _uplink_post(context: Context) -> str:
    return _timed_post(context, context.settings.uplink_url)


def _token(context: Context) -> str:
    response = _get_version(context, context.settings.control_plane_url)
    refused = refusal(response)
    if refused is None:
        return f"accepted for worker {context.settings.worker_name}"
    reason, detail, fix = refused
    if reason == VERSION_MISMATCH:
        raise NotRun("versions")
    raise Failed(f"refused: {detail} ({reason})", fix)


def _versions(context: Context) -> str:
    response = _get_version(context, context.settings.control_plane_url)
    fix = "run the edge images of the control plane's release (AIRBRIDGE_VERSION)"
    if refused := refusal(response):
        if refused[0] == VERSION_MISMATCH:
            raise Failed(refused[1], refused[2])
        raise NotRun("token")
    body = _body(response)
    there = Versions(*(str(body.get(name)) for name in ("airbridge", "airflow", "edge_provider")))
    if difference := context.versions.difference(there):
        raise Failed(difference, fix)
    here = context.versions
    return f"AirBridge {here.airbridge}, Airflow {here.airflow}, edge provider {here.edge_provider}"


def _client_certificate(context: Context) -> str:
    """What this host would show, whether the uplink does, and whether anyone asks for it."""
    try:
        response = _send(context, context.settings.uplink_url, "GET", "certificate")
    except httpx.HTTPError as error:
        raise _no_answer(context, context.settings.uplink_url, error) from None
    if refused := refusal(response):
        raise Failed(f"refused: {refused[1]} ({refused[0]})", refused[2])
    if not response.is_success:
        raise Failed(f"HTTP {response.status_code} to a question about it", _NOT_READY)
    answer = _body(response)
    required = answer.get("required") == "yes"
    found = current_certificate(os.environ)
    if found is None:
        # A control plane that required one would have refused the question.
        return "none, and none is required"
    held = found[1]
    days = (held.not_after - datetime.now(UTC)).total_seconds() / _DAY_S
    value = f"{days:.1f} days to expiry, {'required' if required else 'not required'}"
    if held.is_overdue(datetime.now(UTC)):
        raise Failed(
            f"{value}: it should have been renewed by now",
            "see the log of edge-worker; airbridge-edge renew in it tries at once",
        )
    if required and answer.get("serial") != held.serial:
        raise Failed(f"{value}: the uplink shows another one", "see the log of uplink, and start it anew")
    return value


API_CHECKS: Final = (
    Check("endpoint get", _get, needs=("tls chain",)),
    Check("token", _token, needs=("endpoint get",)),
    Check("versions", _versions, needs=("endpoint get",)),
    Check("endpoint post", _post, needs=("token",)),
    Check("uplink get", _uplink_get, needs=("settings",)),
    Check("uplink post", _uplink_post, needs=("uplink get", "token")),
    Check("client certificate", _client_certificate, needs=("uplink get", "token")),
)
