"""ASGI middleware before Airflow's api-server: the only way in for an edge worker.

Everything below ``/edge_worker/`` and ``/airbridge/`` is refused unless the edge token says who calls, and
the name in the path is the caller's own. What passes is signed anew for the edge API, which therefore accepts
nothing that came around this check. One path is for people instead: it is never served to the edge door, and
asks for what the REST API asks for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import structlog

import airbridge
from airbridge.controlplane._edge_token import Refusal

if TYPE_CHECKING:
    from airbridge.controlplane._edge_token import EdgeIdentity, EdgeTokens

__all__ = ["EdgeMiddleware"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_EDGE_API = "/edge_worker/v1/"
_OWN_API = "/airbridge/v1/"
_FOR_PEOPLE = "/airbridge/v1/workers"
_DOOR = b"x-airbridge-door"  # set by the gateway on whatever comes through the edge door
# Calls that carry the worker's name in the path; all others name a job.
_NAMED_CALL = re.compile(r"(?:worker|worker/queues|jobs/fetch|workers)/([^/]+)")
_NO_NAMES = ("", ".", "..")
_POLICY_VIOLATION = 1008  # RFC 6455, section 7.4.1

log = structlog.get_logger(__name__)


class EdgeMiddleware:
    """Authenticates edge requests; every other request passes untouched.

    Args:
        app: the application behind.
        tokens: how tokens are checked; ``None`` refuses every edge request, which is what a control plane
            without its secrets must do.
    """

    def __init__(self, app: App, tokens: EdgeTokens | None) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        path = _route_path(scope)
        if scope["type"] not in ("http", "websocket") or not path.startswith(("/edge_worker", "/airbridge")):
            await self._app(scope, receive, send)
            return
        if _is_for_people(scope, path):
            await self._app(scope, receive, send)  # which authenticates by itself
            return
        try:
            inner = self._admit(scope, path)
        except Refusal as refusal:
            log.warning(
                "edge request refused",
                reason=refusal.reason,
                detail=str(refusal),
                method=scope.get("method"),
                path=path,
                client=(scope.get("client") or ("?",))[0],
            )
            if scope["type"] == "websocket":
                # Closed before it was accepted: the server answers 403.
                await send({"type": "websocket.close", "code": _POLICY_VIOLATION})
                return
            await _answer(send, refusal.status, {"detail": str(refusal), "reason": refusal.reason})
            return
        await self._app(inner, receive, send)

    def _admit(self, scope: Scope, path: str) -> Scope:
        if scope["type"] != "http" or not path.startswith((_EDGE_API, _OWN_API)):
            # The edge provider's UI pages and API documentation are no business of a worker.
            raise Refusal(404, "unknown_path", "there is nothing here")
        if path == _FOR_PEOPLE:
            raise Refusal(404, "unknown_path", "there is nothing here")
        if self._tokens is None:
            raise Refusal(503, "not_ready", "the control plane has no edge token yet; restart the api-server")
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        authorizations = [value for name, value in headers if name == b"authorization"]
        if len(authorizations) > 1:
            raise Refusal(
                400, "token_invalid", "an edge request carries one Authorization header, not several"
            )
        prefix = _EDGE_API if path.startswith(_EDGE_API) else _OWN_API
        method_path = path.removeprefix(prefix)
        if any(segment in _NO_NAMES for segment in method_path.split("/")):
            # No call has such a segment; a router that tidies paths up would make another call of it.
            raise Refusal(404, "unknown_path", "there is nothing here")
        authorization = authorizations[0].decode("latin-1") if authorizations else None
        identity = self._tokens.identify(authorization, method_path)
        _check_name(identity, method_path)
        _check_version(headers)
        kept = [(name, value) for name, value in headers if name != b"authorization"]
        signed = (b"authorization", self._tokens.resign(method_path).encode())
        # A copy, because mounts behind write into the scope; the state carries the identity inwards.
        return {**scope, "headers": [*kept, signed], "airbridge.worker": identity.worker}


def _is_for_people(scope: Scope, path: str) -> bool:
    through_the_edge_door = any(name == _DOOR for name, _ in scope["headers"])
    return path == _FOR_PEOPLE and scope["type"] == "http" and not through_the_edge_door


def _route_path(scope: Scope) -> str:
    """Return the path that the routers behind look at: without the root path, as Starlette takes it off."""
    path: str = scope.get("path", "")
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


def _check_name(identity: EdgeIdentity, method_path: str) -> None:
    named = _NAMED_CALL.fullmatch(method_path)
    if named and named[1] != identity.worker:
        raise Refusal(
            403, "name_mismatch", f"the token is of worker '{identity.worker}', the path names another"
        )


def _check_version(headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse an edge host of another AirBridge (D4). A stock worker without our uplink sends no version."""
    for name, value in headers:
        if name == b"x-airbridge-version" and value.decode("latin-1") != airbridge.__version__:
            theirs = value.decode("latin-1")[:32]
            raise Refusal(
                400,
                "version_mismatch",
                f"this edge host runs AirBridge {theirs}, the control plane {airbridge.__version__}; "
                "build the edge images from the control plane's release (make build-edge-worker)",
            )


async def _answer(send: Send, status: int, body: dict[str, str]) -> None:
    payload = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
