"""The edge endpoint, as somebody with an edge host's disk in hand calls it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from airbridge.edge.token import request_headers

if TYPE_CHECKING:
    from _stack import Stack

    from airbridge.credential import Credential

__all__ = ["EDGE", "OURS", "EdgeDoor", "reason"]

EDGE, OURS = "/edge_worker/v1/", "/airbridge/v1/"
_NAME = "host.docker.internal"


@dataclass(frozen=True, slots=True)
class EdgeDoor:
    """A client that trusts the gateway's CA, which every edge host has."""

    http: httpx.Client

    @classmethod
    def of(cls, stack: Stack) -> EdgeDoor:
        """Dial the published port under the name that edge hosts on this machine use."""
        return cls(
            httpx.Client(
                verify=ssl.create_default_context(cadata=stack.gateway_ca),
                trust_env=False,
                timeout=60,
                base_url=f"https://127.0.0.1:{stack.gateway_port}",
                headers={"Host": _NAME},
            )
        )

    def send(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> httpx.Response:
        """Send one request."""
        return self.http.request(
            method, path, headers=headers or {}, json=body, extensions={"sni_hostname": _NAME}
        )

    def raw(self, method: str, path: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        """Send one request with this very body."""
        return self.http.request(
            method, path, headers=headers, content=body, extensions={"sni_hostname": _NAME}
        )

    def call(
        self, who: Credential, method: str, call: str, body: Any = None, prefix: str = EDGE
    ) -> httpx.Response:
        """A call that the worker signs."""
        return self.send(method, prefix + quote(call), request_headers(who.secret, who.name, call), body)

    def execute(
        self, who: Credential, method: str, call: str, task_token: str, body: Any = None
    ) -> httpx.Response:
        """A task's call, through this worker's uplink."""
        headers = {"Authorization": f"Bearer {task_token}", "X-AirBridge-Token": who.text}
        return self.send(method, f"/execution/{call}", headers, body)


def reason(answer: httpx.Response) -> str:
    """The code of a refusal; empty where it is none of ours."""
    try:
        return str(answer.json().get("reason", "")) if answer.status_code >= 400 else ""
    except (ValueError, AttributeError):
        return ""
