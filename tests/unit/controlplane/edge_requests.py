"""Tokens as the stock edge worker makes them, and a way to send any ASGI scope."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import jwt

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

__all__ = ["EDGE_TOKEN", "INTERNAL_SECRET", "OTHER_TOKEN", "WORKER", "Answer", "ask", "claims", "token"]

EDGE_TOKEN = "edge-token-" + "e" * 64
OTHER_TOKEN = "edge-token-" + "o" * 64
INTERNAL_SECRET = "internal-" + "i" * 64
WORKER = "north-1"


def claims(call: str, **changes: Any) -> dict[str, Any]:
    """Claims of a worker's token; a change to ``None`` leaves the claim out.

    As airflow/api_fastapi/auth/tokens.py, ``JWTGenerator.generate``, makes them for the edge worker.
    """
    now = int(time.time())
    made = {
        "jti": uuid.uuid4().hex,
        "iss": WORKER,
        "aud": "api",
        "nbf": now,
        "exp": now + 30,
        "iat": now,
        "method": call,
        **changes,
    }
    return {name: value for name, value in made.items() if value is not None}


def token(call: str, *, secret: str = EDGE_TOKEN, algorithm: str = "HS512", **changes: Any) -> str:
    """A worker's token for one call."""
    return jwt.encode(claims(call, **changes), secret, algorithm=algorithm, headers={"alg": algorithm})


@dataclass(slots=True)
class Answer:
    """What an application sent."""

    messages: list[MutableMapping[str, Any]] = field(default_factory=list)

    @property
    def status(self) -> int:
        """HTTP status."""
        return int(self.messages[0]["status"])

    @property
    def json(self) -> dict[str, Any]:
        """Body, parsed."""
        body: dict[str, Any] = json.loads(b"".join(m.get("body", b"") for m in self.messages))
        return body


async def ask(
    app: Callable[..., Awaitable[None]],
    path: str,
    *authorizations: str,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    **scope: Any,
) -> Answer:
    """Send one request with exactly this path, as a server hands it on: decoded, not tidied up."""
    answer = Answer()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        answer.messages.append(message)

    whole = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(errors="surrogatepass"),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "server": ("api-server", 8080),
        "client": ("10.0.0.9", 4711),
        "headers": [*headers, *((b"authorization", value.encode("latin-1")) for value in authorizations)],
        **scope,
    }
    await app(whole, receive, send)
    return answer
