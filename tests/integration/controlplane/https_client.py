"""A TLS client that sends exactly the path it is given."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any

__all__ = ["Answer", "Door"]

_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def upstream(self) -> str:
        """Name of the service that answered; empty when the gateway did by itself."""
        return self.headers.get("x-upstream", "")

    @property
    def seen(self) -> dict[str, Any]:
        """What the service behind the gateway was asked."""
        seen: dict[str, Any] = json.loads(self.body)
        return seen

    def seen_headers(self, name: str) -> list[str]:
        """Values of a header, as they arrived behind the gateway."""
        return [value for known, value in self.seen["headers"] if known == name.lower()]


@dataclass(frozen=True, slots=True)
class Door:
    """A gateway, by its port on loopback and the root of its CA (PEM)."""

    port: int
    root: str

    def context(self) -> ssl.SSLContext:
        """Trusts the gateway's CA and nobody else."""
        return ssl.create_default_context(cadata=self.root)

    def connect(self, name: str | None = "localhost", context: ssl.SSLContext | None = None) -> ssl.SSLSocket:
        """Open a TLS connection, asking for ``name`` (``None``: for no name)."""
        raw = socket.create_connection(("127.0.0.1", self.port), timeout=_TIMEOUT_S)
        chosen = context or self.context()
        if name is None:
            chosen.check_hostname = False
        try:
            return chosen.wrap_socket(raw, server_hostname=name)
        except BaseException:
            raw.close()
            raise

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str] | list[tuple[str, str]] | None = None,
        body: bytes = b"",
        *,
        name: str | None = "localhost",
        host: str = "",
    ) -> Answer:
        """Send one request; the target goes out as it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        connection.sock = self.connect(name)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", host or f"{name or 'localhost'}:{self.port}")
            for field, value in headers.items() if isinstance(headers, dict) else headers or []:
                connection.putheader(field, value)
            if body:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()
